import GuestMemory
import HostInterface
import Platform
import Testing
import VirtualCPU
import X86

@Suite struct PowerTests {
    @Test("ACPI 6.5, 4.8.3.2: S5 by PM1a_CNT, in one write or two")
    func poweroff() throws {
        let machine = try Machine()
        #expect(machine.in(0x604, bytes: 2) == 1)  // SCI_EN
        #expect(machine.out(0x604, 0x3c01, bytes: 2) == nil)  // SLP_TYP 7 is no state of ours.
        #expect(machine.out(0x604, 0x1401, bytes: 2) == nil)
        #expect(machine.in(0x604, bytes: 2) == 0x1401)
        #expect(machine.out(0x604, 0x3401, bytes: 2) == .poweroff)
        #expect(machine.out(0x605, 0x34) == .poweroff)
        #expect(machine.in(0x600, bytes: 4) == 0)
        #expect(machine.out(0x602, 0x0120, bytes: 2) == nil)
        #expect(machine.in(0x600, bytes: 4) == 0x0120_0000)
    }

    @Test("ACPI 6.5, 4.8.2.1: the PM timer runs at 3.579545 MHz")
    func timer() throws {
        let machine = try Machine()
        let before = machine.in(0x608, bytes: 4)
        machine.pass(1_000_000_000)
        #expect((3_579_544...3_579_546).contains(machine.in(0x608, bytes: 4) - before))
    }

    @Test("reset register, and no PCI in its place")
    func reset() throws {
        let machine = try Machine()
        #expect(machine.out(0xcf9, 2) == nil)
        #expect(machine.out(0xcf8, 0x8000_0400, bytes: 4) == nil)  // A PCI address, not a reset.
        #expect(machine.in(0xcf8, bytes: 4) == 0xffff_ffff)
        #expect(machine.in(0xcfc, bytes: 4) == 0xffff_ffff)
        #expect(machine.out(0xcf9, 6) == .reset)
    }

    @Test("exit port, debug port, POST code, nobody's ports")
    func odds() throws {
        let machine = try Machine()
        #expect(machine.out(0xf4, 3) == .exit(code: 7))
        #expect(machine.out(0xf4, 0, bytes: 4) == .exit(code: 1))
        for byte in "ok".utf8 { machine.out(0xe9, UInt32(byte)) }
        #expect(machine.debug.text == "ok")
        #expect(machine.in(0xe9) == 0xe9)
        machine.out(0x80, 0xff)
        #expect(machine.in(0x1234) == 0xff)
        #expect(machine.in(0x1234, bytes: 4) == 0xffff_ffff)
        #expect(machine.readMemory(0xe000_0000, bytes: 8) == .max)
    }
}

@Suite struct BusTests {
    private final class Recorder: BusDevice {
        var seen: [(UInt64, Int, UInt64)] = []
        func read(offset: UInt64, bytes: Int) -> UInt64 {
            seen.append((offset, bytes, 0))
            return 0x1122_3344_5566_7788
        }
        func write(offset: UInt64, bytes: Int, value: UInt64) { seen.append((offset, bytes, value)) }
    }

    @Test("finds who answers, and passes nothing wider than the access")
    func finding() {
        let bus = Bus()
        let (low, high) = (Recorder(), Recorder())
        bus.register(high, at: 0x200, count: 0x100)
        bus.register(low, at: 0x100, count: 0x10)
        #expect(bus.read(0x104, bytes: 4) == 0x5566_7788)
        bus.write(0x2ff, bytes: 1, value: 0x1ff)
        #expect(low.seen.map(\.0) == [4])
        #expect(high.seen.map(\.2) == [0xff])
        #expect(bus.read(0x110, bytes: 2) == 0xffff)
        #expect(bus.read(0, bytes: 8) == .max)
        #expect(bus.read(.max, bytes: 1) == 0xff)
    }

    @Test("an access over a device's end is taken apart")
    func straddling() {
        let bus = Bus()
        let device = Recorder()
        bus.register(device, at: 0x100, count: 2)
        #expect(bus.read(0x101, bytes: 4) == 0xffff_ff88)
        bus.write(0xff, bytes: 4, value: 0x4433_2211)
        #expect(device.seen.map(\.2) == [0, 0x22, 0x33])
        #expect(device.seen.allSatisfy { $0.1 == 1 })
    }
}

@Suite struct MSRTests {
    @Test("what kernels read unguarded is there; the unknown is #GP and noted once")
    func policy() throws {
        let machine = try Machine()
        #expect(machine.readMSR(0x8b) == 1 << 32)
        #expect(machine.readMSR(0x17) == 0)
        #expect(machine.readMSR(0x179) == 0)
        #expect(machine.readMSR(0xfe) == 0x508)
        #expect(!machine.writeMSR(0xfe, 0))
        #expect(machine.writeMSR(0x79, 0x1234))
        #expect(machine.writeMSR(0x49, 1))  // IBPB
        #expect(!machine.writeMSR(0x49, 2))
        #expect(machine.readMSR(0x49) == nil)
        #expect(machine.readMSR(0x1234_5678) == nil)
        #expect(machine.readMSR(0x1234_5678) == nil)
        #expect(machine.notes.text == "#GP for WRMSR of 0xfe#GP for WRMSR of 0x49#GP for RDMSR of 0x12345678")
        #expect(!machine.writeMSR(0x4b56_4d02, 1))  // Paravirtual features not offered.
    }

    @Test("SDM 3A, 12.11.2: MTRRs keep what is legal")
    func memoryTypes() throws {
        let machine = try Machine()
        #expect(machine.readMSR(0x250) == 0x0606_0606_0606_0606)
        #expect(machine.writeMSR(0x250, 0x0001_0405_0606_0606))
        #expect(machine.readMSR(0x250) == 0x0001_0405_0606_0606)
        #expect(!machine.writeMSR(0x250, 2))
        #expect(machine.writeMSR(0x200, 0xc000_0000))
        #expect(!machine.writeMSR(0x200, 0xc000_0007))
        #expect(machine.writeMSR(0x201, 0xf_c000_0800))
        #expect(!machine.writeMSR(0x201, 1))
    }

    @Test("hypercalls: none, and only the kernel may ask")
    func hypercalls() throws {
        let machine = try Machine()
        machine.vcpu.state.segments[SegmentName.ss] = Segment(attributes: 0x93)
        _ = machine.pc.handle(.hypercall, vcpu: machine.vcpu)
        #expect(machine.vcpu.state.gpr[Register.rax] == UInt64(bitPattern: -1000))
        machine.vcpu.state.segments[SegmentName.ss] = Segment(attributes: 0xf3)
        _ = machine.pc.handle(.hypercall, vcpu: machine.vcpu)
        #expect(machine.vcpu.state.gpr[Register.rax] == UInt64(bitPattern: -1))
    }
}

/// Linux, Documentation/virt/kvm/x86/msr.rst.
@Suite struct KVMClockTests {
    @Test(
        "the multiplier uses all its bits, and an hour is an hour",
        arguments: [
            19_200_000, 999_999_999, 1_000_000_000, 1_000_000_001, 1_996_250_000, 2_000_000_000, 2_000_000_001,
            2_893_202_000,
            3_700_000_000, 4_000_000_001, 5_800_000_000,
        ] as [UInt64])
    func scaling(_ frequency: UInt64) {
        let scale = TimeScale(frequency: frequency)
        #expect(scale.multiplier >= 0x7fff_ffff)
        let hour = scale.nanoseconds(frequency * 3600)
        let error = hour > 3_600_000_000_000 ? hour - 3_600_000_000_000 : 3_600_000_000_000 - hour
        #expect(error < 3600, "a part in a billion")
    }

    /// Reads the page as the protocol tells a guest to.
    private func time(_ machine: Machine, _ page: UInt64) throws -> UInt64 {
        func load<T: BitwiseCopyable>(_ offset: UInt64, _ type: T.Type) throws -> T {
            try machine.memory.load(at: GuestPhysicalAddress(page + offset), as: type)
        }
        #expect(try load(0, UInt32.self) % 2 == 0)
        let guestTSC = machine.clock.timeStampCounter &+ machine.vcpu.state.tscOffset
        var delta = guestTSC &- (try load(8, UInt64.self))
        let shift = try load(28, Int8.self)
        delta = shift >= 0 ? delta << UInt64(shift) : delta >> UInt64(-shift)
        let (high, low) = delta.multipliedFullWidth(by: UInt64(try load(24, UInt32.self)))
        return (try load(16, UInt64.self)) &+ (high << 32 | low >> 32)
    }

    @Test("the page tells the time since power-on, whatever the Guest does to its TSC")
    func page() throws {
        let machine = try Machine()
        machine.pass(3_000_000_000)
        #expect(machine.writeMSR(0x4b56_4d01, 0x1_0001))
        #expect(machine.readMSR(0x4b56_4d01) == 0x1_0001)
        #expect(try machine.memory.load(at: GuestPhysicalAddress(0x1_0000 + 29), as: UInt8.self) == 1)
        #expect(try time(machine, 0x1_0000) == 3_000_000_000)
        machine.pass(5_000_000_000)
        #expect(try time(machine, 0x1_0000) == 8_000_000_000)
        machine.vcpu.state.tscOffset = 123_456_789
        machine.requests.post(.nonMaskableInterrupt)
        _ = machine.pc.handle(.halt, vcpu: machine.vcpu)
        #expect(try time(machine, 0x1_0000) == 8_000_000_000)
        #expect(machine.writeMSR(0x12, 0))  // Off, by the old number.
        #expect(machine.readMSR(0x4b56_4d01) == 0)
    }

    @Test("the wall clock is the time of day at power-on")
    func wallClock() throws {
        let machine = try Machine(startSeconds: 1_700_000_000)
        machine.pass(7_000_000_000)
        #expect(machine.writeMSR(0x4b56_4d00, 0x2000))
        #expect(try machine.memory.load(at: GuestPhysicalAddress(0x2000), as: UInt32.self) == 2)
        #expect(try machine.memory.load(at: GuestPhysicalAddress(0x2004), as: UInt32.self) == 1_700_000_000)
        #expect(try machine.memory.load(at: GuestPhysicalAddress(0x2008), as: UInt32.self) == 0)
    }

    @Test(
        "an address that is not RAM is refused",
        arguments: [0x40_0001 - 8, 0xfee0_0001, UInt64.max, 1 << 63 | 1] as [UInt64])
    func badAddress(_ value: UInt64) throws {
        let machine = try Machine()
        #expect(!machine.writeMSR(0x4b56_4d01, value))
        #expect(!machine.writeMSR(0x4b56_4d00, value))
    }
}

@Suite struct RunTests {
    @Test("run answers exits until one is the last")
    func running() throws {
        let machine = try Machine()
        machine.vcpu.script = [
            .portWrite(port: 0x3f8, bytes: 1, value: 0x78), .portRead(port: 0x3fd, bytes: 1),
            .portWrite(port: 0xf4, bytes: 1, value: 5),
        ]
        #expect(machine.pc.run(machine.vcpu) == .exit(code: 11))
        #expect(machine.console.text == "x")
        machine.vcpu.script = [.shutdown(reason: "triple fault")]
        #expect(machine.pc.run(machine.vcpu) == .shutdown(reason: "triple fault"))
        #expect(machine.pc.run(machine.vcpu) == .stopped)
    }

    @Test("reset: as after power-on")
    func reset() throws {
        let machine = try Machine()
        machine.enableX2APIC()
        machine.writeMSR(0x83f, 0x41)
        machine.out(0x3f9, 0xf)
        machine.out(0x43, 0x34)
        machine.out(0x40, 1)
        machine.out(0x40, 1)
        machine.pc.reset()
        #expect(machine.readMSR(0x1b) == 0xfee0_0900)
        #expect(!machine.interruptIsRequested)
        #expect(machine.in(0x3f9) == 0)
        #expect(machine.pc.alarms.nextDeadline == nil)
    }

    @Test("real time: a halted vCPU is woken by its timer, by the alarm clock's own thread")
    func wakesFromHalt() throws {
        let requests = VCPURequests()
        let pc = try PC(PC.Configuration(memory: GuestMemory(byteCount: 1 << 20), requests: requests))
        let vcpu = FakeVCPU(requests: requests)
        vcpu.state.rflags |= RFlags.interrupt
        pc.localAPIC.writePage(offset: 0x320, bytes: 4, value: 0x4_0031)
        var late: UInt64 = 0
        for _ in 0..<20 {
            let deadline = HostClock.timeStampCounter + HostClock.timeStampFrequency / 1000
            pc.localAPIC.setTimeStampDeadline(deadline, offset: 0)
            #expect(pc.handle(.halt, vcpu: vcpu) == nil)
            let now = HostClock.timeStampCounter
            #expect(now >= deadline)
            late = max(late, now &- deadline)
            #expect(pc.localAPIC.acknowledgeInterrupt() == 0x31)
            pc.localAPIC.writePage(offset: 0xb0, bytes: 4, value: 0)
        }
        #expect(late < HostClock.timeStampFrequency, "a second late")
    }

    @Test("the alarm clock can be stopped and started again")
    func alarmClockRestarts() throws {
        let alarms = try AlarmClock(HostMachineClock())
        let rung = VCPURequests()
        let alarm = alarms.makeAlarm { rung.post(.stop) }
        for _ in 0..<3 {
            try alarms.start()
            alarm.set(HostClock.monotonicNanoseconds + 1_000_000)
            rung.wait(for: .stop)
            rung.clear(.stop)
            alarms.stop()
            alarm.set(1)  // Nobody rings now.
            #expect(alarms.nextDeadline == 1)
            #expect(rung.pending.isEmpty)
            try alarms.start()
            rung.wait(for: .stop)
            rung.clear(.stop)
            alarms.stop()
        }
    }

    @Test("many threads raise interrupts, none is lost, none is left")
    func threads() throws {
        let machine = try Machine()
        let rounds = 2000
        let lines = (0..<4).map { machine.pc.interruptLine(gsi: 16 + $0) }
        for index in 0..<4 { machine.route(pin: 16 + index, 0x8000 | UInt64(0x40 + index * 16)) }
        var threads: [HostThread] = []
        let acknowledged = lines.map { _ in VCPURequests() }  // For their word to sleep on.
        for (line, done) in zip(lines, acknowledged) {
            threads.append(
                try HostThread(name: "device") {
                    for _ in 0..<rounds {
                        line.raise()
                        done.wait(for: .stop)
                        done.clear(.stop)
                    }
                })
        }
        machine.vcpu.state.rflags |= RFlags.interrupt
        for _ in 0..<rounds * 4 {
            _ = machine.pc.handle(.halt, vcpu: machine.vcpu)
            let vector = try #require(machine.apic.acknowledgeInterrupt())
            let index = Int(vector - 0x40) / 16
            lines[index].lower()
            machine.writeAPIC(0xb0, 0)
            acknowledged[index].post(.stop)
        }
        for thread in threads { thread.join() }
        #expect(!machine.interruptIsRequested)
    }
}

/// A Guest that touches everything with everything.
@Suite struct NoiseTests {
    @Test(
        "random ports, MMIO and MSRs: the Host survives, and soon",
        arguments: [UInt64.random(in: 0...UInt64.max), 1, 2] as [UInt64])
    func noise(_ seed: UInt64) throws {
        print("noise seed \(seed)")
        var noise = Noise(state: seed)
        let machine = try Machine()
        machine.vcpu.state.rflags |= RFlags.interrupt
        let ports: [UInt16] =
            Array(0x20...0x21) + Array(0x40...0x43) + Array(0x60...0x71) + [0x80, 0x92, 0xa0, 0xa1, 0xe9, 0xf4]
            + Array(0x3f8...0x3ff) + Array(0x4d0...0x4d1) + Array(0x600...0x60c) + Array(0xcf8...0xcff)
        let pages: [UInt64] = [0xfec0_0000, 0xfee0_0000, 0xd000_0000]
        let msrs: [UInt32] =
            Array(0x800...0x83f) + Array(0x200...0x20f) + [0x1b, 0x6e0, 0x4b56_4d00, 0x4b56_4d01, 0x11, 0x12, 0x250]
        func value() -> UInt64 {
            let value = noise.next()
            switch noise.next() % 4 {
            case 0: return value
            case 1: return value & 0xff
            case 2: return value & 0xffff_ffff
            default: return 1 << (value % 64)
            }
        }
        let started = HostClock.monotonicNanoseconds
        for _ in 0..<100_000 {
            let bytes = [1, 2, 4][Int(noise.next() % 3)]
            let address = GuestPhysicalAddress(pages[Int(noise.next() % 3)] + noise.next() % 0x400)
            let exit: VCPUExit
            switch noise.next() % 8 {
            case 0, 1:
                exit = .portWrite(
                    port: ports.randomElement(using: &noise)!, bytes: bytes, value: UInt32(truncatingIfNeeded: value()))
            case 2: exit = .portRead(port: ports.randomElement(using: &noise)!, bytes: bytes)
            case 3: exit = .mmioWrite(address, bytes: bytes * 2, value: value())
            case 4: exit = .mmioRead(address, bytes: bytes * 2)
            case 5: exit = .writeMSR(msrs.randomElement(using: &noise)!, value: value())
            case 6: exit = .readMSR(msrs.randomElement(using: &noise)!)
            default:
                machine.pass(noise.next() % 3_000_000)
                _ = machine.apic.acknowledgeInterrupt()
                machine.pc.interruptLine(gsi: Int(noise.next() % 48)).pulse()
                if noise.next() % 64 == 0 { machine.clock.advance(noise.next() % (1 << 50)) }
                machine.vcpu.state.tscOffset = noise.next() % 16 == 0 ? noise.next() : machine.vcpu.state.tscOffset
                exit = .hypercall
            }
            _ = machine.pc.handle(exit, vcpu: machine.vcpu)
        }
        #expect(HostClock.monotonicNanoseconds - started < 30_000_000_000)
    }
}
