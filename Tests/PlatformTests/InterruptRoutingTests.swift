import Platform
import Testing
import VirtualCPU

@Suite struct IOAPICTests {
    @Test("82093AA 3.2: identification, version, reset state")
    func registers() throws {
        let machine = try Machine()
        #expect(machine.readIOAPIC(1) == 0x2f_0020)
        machine.writeIOAPIC(0, 0xffff_ffff)
        #expect(machine.readIOAPIC(0) == 0x0f00_0000)
        #expect(machine.readIOAPIC(0x10) == 0x1_0000)
        #expect(machine.readIOAPIC(0x10 + 2 * 48) == 0)
        machine.writeIOAPIC(0x10, 0xffff_ffff)
        #expect(machine.readIOAPIC(0x10) == 0x1_afff)  // Delivery status and remote IRR are not software's.
    }

    @Test("edge: sent when it rises, lost while masked")
    func edge() throws {
        let machine = try Machine()
        let line = machine.pc.interruptLine(gsi: 20)
        line.pulse()
        machine.route(pin: 20, 0x41)
        #expect(!machine.interruptIsRequested)
        line.raise()
        #expect(machine.apic.acknowledgeInterrupt() == 0x41)
        line.raise()
        machine.writeAPIC(0xb0, 0)
        #expect(!machine.interruptIsRequested)
        line.lower()
        line.raise()
        #expect(machine.apic.acknowledgeInterrupt() == 0x41)
    }

    @Test("level: again after EOI while it lasts, and TMR knows")
    func level() throws {
        let machine = try Machine()
        let line = machine.pc.interruptLine(gsi: 21)
        machine.route(pin: 21, 0x8041)
        line.raise()
        #expect(machine.readIOAPIC(0x10 + 42) & 0x4000 != 0)  // Remote IRR
        #expect(machine.apic.acknowledgeInterrupt() == 0x41)
        #expect(machine.readAPIC(0x180 + 0x10 * 2) == 2)
        machine.writeAPIC(0xb0, 0)
        #expect(machine.apic.acknowledgeInterrupt() == 0x41)
        line.lower()
        machine.writeAPIC(0xb0, 0)
        #expect(!machine.interruptIsRequested)
        #expect(machine.readIOAPIC(0x10 + 42) & 0x4000 == 0)
        line.raise()
        #expect(machine.apic.acknowledgeInterrupt() == 0x41)
    }

    @Test("level: a pin that is high when unmasked interrupts")
    func unmaskHigh() throws {
        let machine = try Machine()
        let line = machine.pc.interruptLine(gsi: 30)
        machine.route(pin: 30, 0x1_8041)
        line.raise()
        #expect(!machine.interruptIsRequested)
        machine.route(pin: 30, 0x8041)
        #expect(machine.interruptIsRequested)
    }

    @Test("two lines on one wire: high until both are low")
    func sharedWire() throws {
        let machine = try Machine()
        let (first, second) = (machine.pc.interruptLine(gsi: 22), machine.pc.interruptLine(gsi: 22))
        machine.route(pin: 22, 0x8041)
        first.raise()
        second.raise()
        #expect(machine.apic.acknowledgeInterrupt() == 0x41)
        first.lower()
        machine.writeAPIC(0xb0, 0)
        #expect(machine.apic.acknowledgeInterrupt() == 0x41)
        second.lower()
        machine.writeAPIC(0xb0, 0)
        #expect(!machine.interruptIsRequested)
    }

    @Test("the EOI register, and the trick of those who do not know it")
    func directEOI() throws {
        let machine = try Machine()
        let line = machine.pc.interruptLine(gsi: 23)
        machine.route(pin: 23, 0x8041)
        line.raise()
        line.lower()
        machine.writeMemory(0xfec0_0040, 0x41)
        #expect(machine.readIOAPIC(0x10 + 46) & 0x4000 == 0)
        line.raise()
        line.lower()
        machine.route(pin: 23, 0x1_0041)
        machine.route(pin: 23, 0x1_8041)
        #expect(machine.readIOAPIC(0x10 + 46) & 0x4000 == 0)
    }

    @Test("x2APIC: the 8-bit broadcast reaches everybody")
    func broadcastToX2APIC() throws {
        let machine = try Machine()
        machine.enableX2APIC()
        machine.route(pin: 24, 0xff00_0000_0000_0041)
        machine.pc.interruptLine(gsi: 24).pulse()
        #expect(machine.apic.acknowledgeInterrupt() == 0x41)
        machine.writeMSR(0x80b, 0)
        machine.route(pin: 24, 0x0100_0000_0000_0841)  // Logical: cluster 0, first CPU
        machine.pc.interruptLine(gsi: 24).pulse()
        #expect(machine.apic.acknowledgeInterrupt() == 0x41)
    }

    @Test("IRQ 0 arrives at pin 2")
    func timerOverride() throws {
        let machine = try Machine()
        machine.route(pin: 2, 0x30)
        machine.route(pin: 0, 0x31)
        machine.out(0x43, 0x34)
        machine.out(0x40, 0xe8)
        machine.out(0x40, 0x03)
        machine.pass(1_000_000)
        #expect(machine.apic.acknowledgeInterrupt() == 0x30)
    }
}

@Suite struct PIC8259Tests {
    @Test("initialization, a vector of each chip, non-specific EOI, priority")
    func vectors() throws {
        let machine = try Machine()
        machine.initializePIC()
        let (irq4, irq12, irq1) = (
            machine.pc.interruptLine(gsi: 4), machine.pc.interruptLine(gsi: 12), machine.pc.interruptLine(gsi: 1)
        )
        irq4.raise()
        #expect(machine.interruptIsRequested)
        #expect(machine.apic.acknowledgeInterrupt() == 0x24)
        #expect(!machine.interruptIsRequested)
        irq12.raise()  // Input 2 outranks 4.
        #expect(machine.apic.acknowledgeInterrupt() == 0x2c)
        irq1.raise()
        #expect(machine.apic.acknowledgeInterrupt() == 0x21)
        machine.out(0x20, 0x0b)
        #expect(machine.in(0x20) == 0x16)  // ISR: 1, 2, 4
        machine.out(0x20, 0x20)
        machine.out(0xa0, 0x20)
        machine.out(0x20, 0x20)
        machine.out(0x20, 0x20)
        #expect(machine.in(0x20) == 0)
        irq4.raise()  // Still up: no new edge.
        #expect(!machine.interruptIsRequested)
        irq4.lower()
        irq4.raise()
        #expect(machine.apic.acknowledgeInterrupt() == 0x24)
    }

    @Test("the mask holds back, and lets through what has waited")
    func masking() throws {
        let machine = try Machine()
        machine.initializePIC(mask: 0xffff)
        let line = machine.pc.interruptLine(gsi: 8)
        line.raise()
        #expect(!machine.interruptIsRequested)
        machine.out(0xa0, 0x0a)
        #expect(machine.in(0xa0) == 1)  // IRR
        machine.out(0xa1, 0xfe)
        #expect(!machine.interruptIsRequested)
        machine.out(0x21, 0xfb)
        #expect(machine.apic.acknowledgeInterrupt() == 0x28)
        #expect(machine.in(0x21) == 0xfb)
        #expect(machine.in(0xa1) == 0xfe)
    }

    @Test("a request that has gone is a spurious one of input 7, with nothing in service")
    func spurious() throws {
        let machine = try Machine()
        machine.initializePIC()
        machine.pc.interruptLine(gsi: 4).pulse()
        #expect(!machine.interruptIsRequested)
        #expect(machine.pc.pic.acknowledge() == 0x27)
        machine.out(0x20, 0x0b)
        #expect(machine.in(0x20) == 0)
    }

    @Test("ELCR: a level comes again after its EOI")
    func level() throws {
        let machine = try Machine()
        machine.initializePIC()
        machine.out(0x4d0, 0xff)
        machine.out(0x4d1, 0xff)
        #expect(machine.in(0x4d0) == 0xf8)
        #expect(machine.in(0x4d1) == 0xde)
        let line = machine.pc.interruptLine(gsi: 11)
        line.raise()
        #expect(machine.apic.acknowledgeInterrupt() == 0x2b)
        #expect(!machine.interruptIsRequested)
        machine.out(0xa0, 0x20)
        machine.out(0x20, 0x20)
        #expect(machine.apic.acknowledgeInterrupt() == 0x2b)
        line.lower()
        machine.out(0xa0, 0x63)
        machine.out(0x20, 0x62)
        #expect(!machine.interruptIsRequested)
    }

    @Test("automatic EOI, rotation, poll, special mask")
    func modes() throws {
        let machine = try Machine()
        machine.out(0x20, 0x11)
        for word in [0x20, 4, 3, 0] as [UInt32] { machine.out(0x21, word) }  // AEOI, none masked
        let (irq3, irq5) = (machine.pc.interruptLine(gsi: 3), machine.pc.interruptLine(gsi: 5))
        irq3.raise()
        #expect(machine.apic.acknowledgeInterrupt() == 0x23)
        machine.out(0x20, 0x0b)
        #expect(machine.in(0x20) == 0)
        irq3.lower()
        machine.initializePIC()
        machine.out(0x20, 0xc3)  // Lowest is now input 3: 4 is the highest.
        irq3.raise()
        irq5.raise()
        #expect(machine.apic.acknowledgeInterrupt() == 0x25)
        machine.out(0x20, 0x0c)  // Poll: nothing above 5 in service.
        #expect(machine.in(0x20) == 0)
        machine.out(0x20, 0x68)  // Special mask mode, and mask what is in service.
        machine.out(0x21, 0x20)
        #expect(machine.interruptIsRequested)
        machine.out(0x20, 0x0c)
        #expect(machine.in(0x20) == 0x83)
    }

    @Test("SDM 3A, 11.5.1: the 8259 reaches the CPU by LINT0 as ExtINT, or past an APIC that is off")
    func virtualWire() throws {
        let machine = try Machine()
        machine.initializePIC()
        machine.writeAPIC(0x350, 0x1_0700)
        machine.pc.interruptLine(gsi: 4).raise()
        #expect(!machine.interruptIsRequested)
        machine.writeAPIC(0x350, 0x700)
        #expect(machine.interruptIsRequested)
        machine.writeAPIC(0x350, 0x1_0700)
        #expect(!machine.interruptIsRequested)
        machine.writeMSR(0x1b, 0xfee0_0100)
        #expect(machine.interruptIsRequested)
        #expect(machine.apic.acknowledgeInterrupt() == 0x24)
        #expect(!machine.interruptIsRequested)
    }
}
