import Platform
import Testing
import VirtualCPU

/// SDM 3A, 11.12.
@Suite struct X2APICTests {
    @Test("11.12.5: the ways between off, xAPIC and x2APIC")
    func transitions() throws {
        let machine = try Machine()
        #expect(machine.readMSR(0x802) == nil)  // Not in xAPIC mode.
        #expect(!machine.writeMSR(0x808, 0))
        #expect(!machine.writeMSR(0x1b, 0xfee0_0500))  // EXTD without EN
        #expect(!machine.writeMSR(0x1b, 0xfee0_0d01))  // Reserved bits
        #expect(!machine.writeMSR(0x1b, 0xfee0_0b00))
        #expect(!machine.writeMSR(0x1b, 0x1_fee0_0d00))
        #expect(machine.writeMSR(0x1b, 0xfee0_0d00))
        #expect(machine.readMSR(0x1b) == 0xfee0_0d00)
        #expect(machine.readMSR(0x802) == 0)
        #expect(machine.readAPIC(0x30) == 0xffff_ffff)  // The page is gone.
        #expect(!machine.writeMSR(0x1b, 0xfee0_0900))  // Not straight back.
        #expect(machine.writeMSR(0x1b, 0xfee0_0100))
        #expect(machine.readAPIC(0x30) == 0xffff_ffff)
        #expect(!machine.writeMSR(0x1b, 0xfee0_0d00))  // Not straight on.
        #expect(machine.writeMSR(0x1b, 0xfee0_0900))
        #expect(machine.readAPIC(0x30) == 0x5_0014)
        #expect(machine.readAPIC(0xf0) == 0xff)  // As after reset.
    }

    @Test("11.12.1.2: what can be read", arguments: 0...0xff as ClosedRange<UInt32>)
    func readable(_ number: UInt32) throws {
        let machine = try Machine()
        machine.enableX2APIC()
        let readable: Set<UInt32> = Set([0x02, 0x03, 0x08, 0x0a, 0x0d, 0x0f, 0x28, 0x30, 0x38, 0x39, 0x3e])
            .union(0x10...0x27).union(0x32...0x37)
        #expect((machine.readMSR(0x800 + number) != nil) == readable.contains(number))
    }

    @Test("11.12.1.2: what can be written", arguments: 0...0xff as ClosedRange<UInt32>)
    func writable(_ number: UInt32) throws {
        let machine = try Machine()
        machine.enableX2APIC()
        let writable: Set<UInt32> = Set([0x08, 0x0b, 0x0f, 0x28, 0x30, 0x38, 0x3e, 0x3f]).union(0x32...0x37)
        #expect(machine.writeMSR(0x800 + number, 0) == writable.contains(number))
    }

    @Test(
        "11.12.1.3: reserved bits are #GP",
        arguments: [
            (0x808, 0x100), (0x80b, 1), (0x80f, 0x400), (0x80f, 0x1000), (0x828, 1), (0x830, 0x2000),
            (0x830, 0x10_0000),
            (0x832, 0x8_0000), (0x832, 0x100), (0x837, 0x100), (0x835, 0x2_0000), (0x838, 1 << 32), (0x83e, 4),
            (0x83f, 0x100),
            (0x832, 1 << 40),
        ] as [(UInt32, UInt64)])
    func reservedBits(_ index: UInt32, _ value: UInt64) throws {
        let machine = try Machine()
        machine.enableX2APIC()
        #expect(!machine.writeMSR(index, value))
        #expect(machine.vcpu.refusals == 1)
    }

    @Test("read-only bits are let pass: kernels write back what they read")
    func readOnlyBits() throws {
        let machine = try Machine()
        machine.enableX2APIC()
        #expect(machine.writeMSR(0x835, 0x5700))
        #expect(machine.readMSR(0x835) == 0x700)
        #expect(machine.writeMSR(0x832, 0x1_1030))
        #expect(machine.readMSR(0x832) == 0x1_0030)
    }

    @Test("11.12.9 and 11.12.11: ICR is one register of 64 bits; SELF IPI")
    func sending() throws {
        let machine = try Machine()
        machine.enableX2APIC()
        #expect(machine.writeMSR(0x830, 0x0000_0000_0000_0041))
        #expect(machine.apic.acknowledgeInterrupt() == 0x41)
        #expect(machine.writeMSR(0x80b, 0))
        #expect(machine.writeMSR(0x830, 0xffff_ffff_0000_0042))
        #expect(machine.readMSR(0x830) == 0xffff_ffff_0000_0042)
        #expect(machine.apic.acknowledgeInterrupt() == 0x42)
        #expect(machine.writeMSR(0x80b, 0))
        #expect(machine.writeMSR(0x830, 0x0000_00ff_0000_0043))  // CPU 255, not everybody
        #expect(machine.apic.acknowledgeInterrupt() == nil)
        #expect(machine.readMSR(0x80d) == 1)  // Cluster 0, first of it
        #expect(machine.writeMSR(0x830, 0x0000_0001_0000_0844))
        #expect(machine.apic.acknowledgeInterrupt() == 0x44)
        #expect(machine.writeMSR(0x80b, 0))
        #expect(machine.writeMSR(0x83f, 0x45))
        #expect(machine.apic.acknowledgeInterrupt() == 0x45)
    }
}
