import Platform
import Testing
import VirtualCPU

/// SDM 3A, chapter 11.
@Suite struct LocalAPICTests {
    private func interrupt(_ machine: Machine, _ vector: UInt8, level: Bool = false) {
        // A self IPI by ICR (11.6.1); level needs an I/O APIC pin.
        #expect(!level)
        machine.writeAPIC(0x300, 0x4_0000 | UInt32(vector))
    }

    @Test("11.8.4: the highest vector first, and EOI ends the highest in service")
    func priorities() throws {
        let machine = try Machine()
        for vector in [0x31, 0x85, 0x60] as [UInt8] { interrupt(machine, vector) }
        #expect(machine.readAPIC(0x200 + 0x10 * 4) == 1 << 5)  // IRR of 0x80…0x9f
        #expect(machine.interruptIsRequested)
        #expect(machine.apic.acknowledgeInterrupt() == 0x85)
        #expect(machine.readAPIC(0x100 + 0x10 * 4) == 1 << 5)
        #expect(machine.readAPIC(0xa0) == 0x80)  // PPR
        // Lower classes wait, and are not even asked about.
        #expect(!machine.interruptIsRequested)
        #expect(machine.apic.acknowledgeInterrupt() == nil)
        interrupt(machine, 0x92)  // A higher class nests.
        #expect(machine.interruptIsRequested)
        #expect(machine.apic.acknowledgeInterrupt() == 0x92)
        machine.writeAPIC(0xb0, 0)
        #expect(!machine.interruptIsRequested)
        machine.writeAPIC(0xb0, 0)
        #expect(machine.apic.acknowledgeInterrupt() == 0x60)
        machine.writeAPIC(0xb0, 0)
        #expect(machine.apic.acknowledgeInterrupt() == 0x31)
        machine.writeAPIC(0xb0, 0)
        machine.writeAPIC(0xb0, 0)  // One too many is nothing.
        #expect(machine.apic.acknowledgeInterrupt() == nil)
        #expect(machine.readAPIC(0xa0) == 0)
    }

    @Test("11.8.4: a vector of the class in service has to wait")
    func sameClassWaits() throws {
        let machine = try Machine()
        interrupt(machine, 0x41)
        #expect(machine.apic.acknowledgeInterrupt() == 0x41)
        interrupt(machine, 0x4f)
        #expect(machine.apic.acknowledgeInterrupt() == nil)
        machine.writeAPIC(0xb0, 0)
        #expect(machine.apic.acknowledgeInterrupt() == 0x4f)
    }

    @Test("11.8.3.1: TPR, by register and by CR8, holds back its class and those below")
    func taskPriority() throws {
        let machine = try Machine()
        machine.writeAPIC(0x80, 0x55)
        #expect(machine.apic.taskPriorityClass == 5)
        interrupt(machine, 0x5f)
        #expect(!machine.interruptIsRequested)
        #expect(machine.readAPIC(0xa0) == 0x55)
        machine.apic.taskPriorityClass = 4
        #expect(machine.readAPIC(0x80) == 0x40)
        #expect(machine.interruptIsRequested)
        machine.apic.taskPriorityClass = 15
        #expect(!machine.interruptIsRequested)
        #expect(machine.apic.acknowledgeInterrupt() == nil)
        machine.apic.taskPriorityClass = 0
        #expect(machine.apic.acknowledgeInterrupt() == 0x5f)
    }

    @Test("11.5.3: vectors below 16 are errors, seen after a write to ESR")
    func illegalVector() throws {
        let machine = try Machine()
        machine.writeAPIC(0x370, 0x33)  // LVT error
        interrupt(machine, 5)
        #expect(machine.readAPIC(0x280) == 0)
        #expect(machine.apic.acknowledgeInterrupt() == 0x33)
        machine.writeAPIC(0x280, 0)
        #expect(machine.readAPIC(0x280) == 1 << 5)
        machine.writeAPIC(0x280, 0)
        #expect(machine.readAPIC(0x280) == 0)
        // A bad vector in LVT error itself must not go round in circles.
        machine.writeAPIC(0x370, 0x03)
        interrupt(machine, 5)
        #expect(machine.apic.acknowledgeInterrupt() == nil)
    }

    @Test("11.4.7.2: switched off by software, it masks its local vectors and takes nothing")
    func softwareDisable() throws {
        let machine = try Machine()
        machine.writeAPIC(0x320, 0x40)
        machine.writeAPIC(0xf0, 0xff)
        #expect(machine.readAPIC(0x320) == 0x1_0040)
        machine.writeAPIC(0x320, 0x40)
        #expect(machine.readAPIC(0x320) == 0x1_0040)
        interrupt(machine, 0x50)
        #expect(machine.apic.acknowledgeInterrupt() == nil)
        machine.writeAPIC(0xf0, 0x1ff)
        #expect(machine.readAPIC(0x320) == 0x1_0040)  // Stays masked until written.
    }

    @Test("11.6.1: IPIs to oneself, to all, to a physical and a logical destination, NMI")
    func interprocessorInterrupts() throws {
        let machine = try Machine()
        func send(_ high: UInt32, _ low: UInt32) -> UInt8? {
            machine.writeAPIC(0x310, high)
            machine.writeAPIC(0x300, low)
            let vector = machine.apic.acknowledgeInterrupt()
            if vector != nil { machine.writeAPIC(0xb0, 0) }
            return vector
        }
        #expect(send(0, 0x4_0041) == 0x41)  // Self
        #expect(send(0, 0x8_0042) == 0x42)  // All
        #expect(send(0, 0xc_0043) == nil)  // All but self
        #expect(send(0, 0x44) == 0x44)  // Physical 0
        #expect(send(1 << 24, 0x45) == nil)  // Physical 1: not there
        #expect(send(0xff << 24, 0x46) == 0x46)  // Physical broadcast
        machine.writeAPIC(0xd0, 0x02 << 24)
        #expect(send(0x03 << 24, 0x847) == 0x47)  // Logical, flat
        #expect(send(0x01 << 24, 0x848) == nil)
        #expect(send(0x02 << 24, 0x949) == 0x49)  // Lowest priority
        machine.writeAPIC(0xe0, 0x0fff_ffff)  // Cluster model
        machine.writeAPIC(0xd0, 0x12 << 24)
        #expect(send(0x12 << 24, 0x84a) == 0x4a)
        #expect(send(0x22 << 24, 0x84b) == nil)
        // INIT and SIPI to oneself change nothing that we do piecemeal.
        #expect(send(0, 0x4500) == nil)
        #expect(send(0, 0x4601) == nil)
        #expect(send(0, 0x4_0400) == nil)
        #expect(machine.requests.pending.contains(.nonMaskableInterrupt))
    }

    // MARK: Timer

    @Test("11.5.4: one-shot counts down once, at the divided rate")
    func oneShot() throws {
        let machine = try Machine()
        machine.writeAPIC(0x3e0, 0x3)  // Divide by 16
        machine.writeAPIC(0x320, 0x30)
        machine.writeAPIC(0x380, 1000)
        #expect(machine.readAPIC(0x390) == 1000)
        machine.pass(8000)
        #expect(machine.readAPIC(0x390) == 500)
        #expect(!machine.interruptIsRequested)
        machine.pass(8000)
        #expect(machine.readAPIC(0x390) == 0)
        #expect(machine.apic.acknowledgeInterrupt() == 0x30)
        machine.writeAPIC(0xb0, 0)
        machine.pass(1_000_000)
        #expect(!machine.interruptIsRequested)
        #expect(machine.pc.alarms.nextDeadline == nil)
    }

    @Test("11.5.4: periodic goes on; 0 stops it; what the host missed is missed")
    func periodic() throws {
        let machine = try Machine()
        machine.writeAPIC(0x3e0, 0xb)  // Divide by 1
        machine.writeAPIC(0x320, 0x2_0030)
        machine.writeAPIC(0x380, 1_000_000)
        for _ in 0..<3 {
            machine.pass(1_000_000)
            #expect(machine.apic.acknowledgeInterrupt() == 0x30)
            machine.writeAPIC(0xb0, 0)
            #expect(!machine.interruptIsRequested)
        }
        machine.pass(10_500_000)
        #expect(machine.apic.acknowledgeInterrupt() == 0x30)
        machine.writeAPIC(0xb0, 0)
        #expect(!machine.interruptIsRequested)
        #expect(machine.readAPIC(0x390) == 500_000)
        machine.pass(500_000)  // Back in step.
        #expect(machine.apic.acknowledgeInterrupt() == 0x30)
        machine.writeAPIC(0xb0, 0)
        machine.writeAPIC(0x380, 0)
        machine.pass(5_000_000)
        #expect(!machine.interruptIsRequested)
        #expect(machine.readAPIC(0x390) == 0)
    }

    @Test("a period of a nanosecond does not take the host's whole day")
    func shortPeriodIsBounded() throws {
        let machine = try Machine()
        machine.writeAPIC(0x3e0, 0xb)
        machine.writeAPIC(0x320, 0x2_0030)
        machine.writeAPIC(0x380, 1)
        let deadline = try #require(machine.pc.alarms.nextDeadline)
        #expect(deadline >= machine.clock.nanoseconds + 100_000)
        machine.pass(200_000)
        #expect(try #require(machine.pc.alarms.nextDeadline) >= machine.clock.nanoseconds + 100_000)
    }

    @Test("11.5.4.1: the TSC deadline, on the Guest's TSC")
    func deadline() throws {
        let machine = try Machine()
        let offset = UInt64(bitPattern: -1_000_000)
        machine.vcpu.state.tscOffset = offset
        #expect(machine.writeMSR(0x6e0, 77))
        #expect(machine.readMSR(0x6e0) == 0)  // Not in this mode: ignored.
        machine.writeAPIC(0x320, 0x4_00ef)
        let now = machine.clock.timeStampCounter &+ offset
        machine.writeMSR(0x6e0, now + 2_000_000)  // 1 ms
        #expect(machine.readMSR(0x6e0) == now + 2_000_000)
        machine.pass(999_000)
        #expect(!machine.interruptIsRequested)
        machine.pass(1_001)
        #expect(machine.interruptIsRequested)
        #expect(machine.readMSR(0x6e0) == 0)
        #expect(machine.apic.acknowledgeInterrupt() == 0xef)
        machine.writeAPIC(0xb0, 0)
        machine.writeMSR(0x6e0, 1)  // Long past: at once.
        #expect(machine.apic.acknowledgeInterrupt() == 0xef)
        machine.writeAPIC(0xb0, 0)
        machine.writeMSR(0x6e0, .max)  // Never, and no overflow on the way.
        machine.pass(1_000_000_000)
        #expect(!machine.interruptIsRequested)
        machine.writeMSR(0x6e0, 0)
        #expect(machine.pc.alarms.nextDeadline == nil)
        // "Writes to the initial-count register are ignored."
        machine.writeAPIC(0x380, 5)
        #expect(machine.readAPIC(0x390) == 0)
        machine.writeMSR(0x6e0, now + (1 << 40))
        machine.writeAPIC(0x320, 0xef)  // Another mode disarms.
        #expect(machine.readMSR(0x6e0) == 0)
        #expect(machine.pc.alarms.nextDeadline == nil)
    }

    @Test("a Guest that sets its TSC moves its deadline")
    func deadlineFollowsTimeStampCounter() throws {
        let machine = try Machine()
        machine.writeAPIC(0x320, 0x4_00ef)
        machine.writeMSR(0x6e0, machine.clock.timeStampCounter + 2_000_000)
        machine.vcpu.state.tscOffset = 1_900_000
        machine.requests.post(.stop)
        machine.vcpu.state.rflags |= 0x200
        _ = machine.pc.handle(.halt, vcpu: machine.vcpu)
        machine.pass(50_001)
        #expect(machine.apic.acknowledgeInterrupt() == 0xef)
    }

    @Test("a masked timer runs without interrupting")
    func maskedTimer() throws {
        let machine = try Machine()
        machine.writeAPIC(0x320, 0x1_0030)
        machine.writeAPIC(0x3e0, 0xb)
        machine.writeAPIC(0x380, 1000)
        machine.pass(2000)
        #expect(!machine.interruptIsRequested)
        #expect(machine.readAPIC(0x390) == 0)
    }

    // MARK: Registers of the page

    @Test("11.4.1: the page's registers")
    func page() throws {
        let machine = try Machine()
        #expect(machine.readAPIC(0x20) == 0)
        #expect(machine.readAPIC(0x30) == 0x5_0014)
        #expect(machine.readAPIC(0xe0) == 0xffff_ffff)
        machine.writeAPIC(0x350, 0xffff_ffff)
        #expect(machine.readAPIC(0x350) == 0x1_a7ff)
        machine.writeAPIC(0x3e0, 0xff)
        #expect(machine.readAPIC(0x3e0) == 0xb)
        machine.writeAPIC(0x370, 0x1_0000)
        machine.writeAPIC(0x280, 0)
        #expect(machine.readAPIC(0x3f0) == 0)  // SELF IPI is x2APIC's.
        machine.writeAPIC(0x280, 0)
        #expect(machine.readAPIC(0x280) == 1 << 7)
    }

    @Test("MP 3.6.2.2: firmware leaves the 8259 on LINT0 and NMI on LINT1")
    func virtualWire() throws {
        let machine = try Machine()
        #expect(machine.readAPIC(0x350) == 0x700)
        #expect(machine.readAPIC(0x360) == 0x400)
        #expect(machine.readAPIC(0xf0) == 0x1ff)
        #expect(machine.readMSR(0x1b) == 0xfee0_0900)
    }
}
