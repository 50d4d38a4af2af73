import Platform
import Testing
import VirtualCPU

/// 8254 datasheet.
@Suite struct PIT8254Tests {
    private func load(_ machine: Machine, counter: UInt16, control: UInt32, count: UInt32) {
        machine.out(0x43, control)
        machine.out(0x40 + counter, count & 0xff)
        machine.out(0x40 + counter, count >> 8)
    }

    private func latched(_ machine: Machine, counter: UInt16) -> UInt64 {
        machine.out(0x43, UInt32(counter) << 6)
        let low = machine.in(0x40 + counter)
        return low | machine.in(0x40 + counter) << 8
    }

    @Test("mode 2: a rate, on IRQ 0, and a count that goes down and round")
    func rate() throws {
        let machine = try Machine()
        machine.initializePIC()
        load(machine, counter: 0, control: 0x34, count: 11932)  // 100 Hz
        #expect(latched(machine, counter: 0) == 11932)
        machine.pass(5_000_000)
        #expect((5964...5968).contains(latched(machine, counter: 0)))
        #expect(!machine.interruptIsRequested)
        machine.pass(6_000_000)
        #expect(machine.apic.acknowledgeInterrupt() == 0x20)
        #expect((10_000..<11_932).contains(latched(machine, counter: 0)))
    }

    @Test("IRQ 0 ticks through the I/O APIC", arguments: [0x34, 0x36] as [UInt32])
    func ticks(_ control: UInt32) throws {
        let machine = try Machine()
        machine.route(pin: 2, 0x30)
        load(machine, counter: 0, control: control, count: 11932)
        for _ in 0..<5 {
            machine.pass(10_000_200)
            #expect(machine.apic.acknowledgeInterrupt() == 0x30)
            machine.writeAPIC(0xb0, 0)
            #expect(!machine.interruptIsRequested)
        }
        machine.out(0x43, control)  // A control word stops it.
        machine.pass(50_000_000)
        #expect(!machine.interruptIsRequested)
    }

    @Test("IRQ 0 ticks through the 8259")
    func ticksThroughPIC() throws {
        let machine = try Machine()
        machine.initializePIC()
        load(machine, counter: 0, control: 0x34, count: 11932)
        for _ in 0..<5 {
            machine.pass(10_000_200)
            #expect(machine.interruptIsRequested)
            #expect(machine.apic.acknowledgeInterrupt() == 0x20)
            machine.out(0x20, 0x20)
        }
    }

    @Test("mode 0: once")
    func oneShot() throws {
        let machine = try Machine()
        machine.route(pin: 2, 0x30)
        load(machine, counter: 0, control: 0x30, count: 1193)
        machine.pass(999_000)
        #expect(!machine.interruptIsRequested)
        machine.pass(2_000)
        #expect(machine.apic.acknowledgeInterrupt() == 0x30)
        machine.writeAPIC(0xb0, 0)
        machine.pass(1_000_000_000)
        #expect(!machine.interruptIsRequested)
    }

    @Test("counter 2 and port 0x61: the stopwatch of every kernel's calibration")
    func stopwatch() throws {
        let machine = try Machine()
        machine.out(0x61, UInt32(machine.in(0x61) & ~2 | 1))
        load(machine, counter: 2, control: 0xb0, count: 59659)  // 50 ms
        #expect(machine.in(0x61) & 0x20 == 0)
        machine.pass(49_900_000)
        #expect(machine.in(0x61) & 0x20 == 0)
        machine.pass(200_000)
        #expect(machine.in(0x61) & 0x20 != 0)
        // With the gate closed it stands still.
        machine.out(0x61, 0)
        load(machine, counter: 2, control: 0xb0, count: 1000)
        machine.pass(50_000_000)
        #expect(machine.in(0x61) & 0x20 == 0)
        #expect(latched(machine, counter: 2) == 1000)
        machine.out(0x61, 1)
        machine.pass(1_000_000)
        #expect(machine.in(0x61) & 0x20 != 0)
    }

    @Test("without a latch, low and high byte take turns")
    func plainReads() throws {
        let machine = try Machine()
        machine.out(0x61, 1)
        load(machine, counter: 2, control: 0xb0, count: 0xffff)
        #expect(machine.in(0x42) == 0xff)
        #expect(machine.in(0x42) == 0xff)
        machine.pass(1_000_000)  // 1193 ticks
        let value = machine.in(0x42) | machine.in(0x42) << 8
        #expect(value == 0xffff - 1193)
    }

    @Test("read-back: status and count of several, status first")
    func readBack() throws {
        let machine = try Machine()
        load(machine, counter: 0, control: 0x34, count: 1000)
        machine.out(0x43, 0xc2)
        #expect(machine.in(0x40) == 0xb4)  // OUT high, loaded, both bytes, mode 2
        #expect(machine.in(0x40) == 1000 & 0xff)
        #expect(machine.in(0x40) == 1000 >> 8)
        machine.out(0x43, 0x30)
        machine.out(0x43, 0xe2)
        #expect(machine.in(0x40) & 0x40 != 0)  // Null count
    }

    @Test("BCD, and mode 3's count by twos")
    func countingStyles() throws {
        let machine = try Machine()
        load(machine, counter: 0, control: 0x35, count: 0x1234)
        #expect(latched(machine, counter: 0) == 0x1234)
        machine.pass(1_000_000)
        #expect(latched(machine, counter: 0) == 0x0041)  // 1234 - 1193
        load(machine, counter: 0, control: 0x36, count: 10_000)
        machine.pass(1_000_000)
        #expect(latched(machine, counter: 0) == UInt64(10_000 - 2 * 1193))
    }
}

/// MC146818 datasheet.
@Suite struct RTCTests {
    private func register(_ machine: Machine, _ index: UInt32) -> UInt64 {
        machine.out(0x70, index)
        return machine.in(0x71)
    }

    private func set(_ machine: Machine, _ index: UInt32, _ value: UInt32) {
        machine.out(0x70, index)
        machine.out(0x71, value)
    }

    // 2024-02-29 23:59:58 UTC, a Thursday.
    private static let leapDay: UInt64 = 1_709_251_198

    @Test("the host's time in BCD, across midnight of a leap day")
    func time() throws {
        let machine = try Machine(startSeconds: Self.leapDay)
        let fields: [UInt32] = [0x32, 9, 8, 7, 6, 4, 2, 0]
        #expect(fields.map { register(machine, $0) } == [0x20, 0x24, 0x02, 0x29, 5, 0x23, 0x59, 0x58])
        machine.pass(2_000_000_000)
        #expect(fields.map { register(machine, $0) } == [0x20, 0x24, 0x03, 0x01, 6, 0x00, 0x00, 0x00])
        #expect(register(machine, 0x0d) == 0x80)
    }

    @Test("binary and 12-hour modes")
    func modes() throws {
        let machine = try Machine(startSeconds: Self.leapDay)
        set(machine, 0x0b, 0x06)
        #expect(register(machine, 4) == 23)
        #expect(register(machine, 0) == 58)
        set(machine, 0x0b, 0x00)
        #expect(register(machine, 4) == 0x91)  // 11 pm
        machine.pass(2_000_000_000)
        #expect(register(machine, 4) == 0x12)  // 12 am
    }

    @Test("setting it: registers hold while SET, and time goes on from there")
    func setting() throws {
        let machine = try Machine()
        set(machine, 0x0b, 0x82)
        let wanted: [(UInt32, UInt32)] = [
            (0x32, 0x19), (9, 0x99), (8, 0x12), (7, 0x31), (4, 0x23), (2, 0x59), (0, 0x59),
        ]
        for (index, value) in wanted { set(machine, index, value) }
        machine.pass(10_000_000_000)
        #expect(register(machine, 0) == 0x59)
        set(machine, 0x0b, 0x02)
        machine.pass(1_000_000_000)
        #expect([0x32, 9, 8, 7, 4, 2, 0].map { register(machine, $0) } == [0x20, 0x00, 0x01, 0x01, 0, 0, 0])
        #expect(register(machine, 6) == 7)  // A Saturday.
    }

    @Test("UIP for the last 244 µs of each second")
    func updateInProgress() throws {
        let machine = try Machine()
        #expect(register(machine, 0x0a) == 0x26)
        machine.pass(999_800_000)
        #expect(register(machine, 0x0a) == 0xa6)
        machine.pass(200_001)
        #expect(register(machine, 0x0a) == 0x26)
    }

    @Test("periodic, update and alarm interrupts on IRQ 8; reading C acknowledges")
    func interrupts() throws {
        let machine = try Machine(startSeconds: Self.leapDay)
        machine.route(pin: 8, 0x38)
        func taken() -> Bool {
            guard machine.apic.acknowledgeInterrupt() == 0x38 else { return false }
            machine.writeAPIC(0xb0, 0)
            return true
        }
        set(machine, 0x0b, 0x42)
        machine.pass(1_000_000)
        #expect(taken())
        machine.pass(1_000_000)
        #expect(!taken())  // Not acknowledged: no new edge.
        #expect(register(machine, 0x0c) == 0xc0)
        #expect(register(machine, 0x0c) == 0)
        machine.pass(1_000_000)
        #expect(taken())
        _ = register(machine, 0x0c)
        set(machine, 0x0b, 0x12)
        machine.pass(1_000_000_000)
        #expect(taken())
        #expect(register(machine, 0x0c) & 0x90 == 0x90)
        set(machine, 0x0b, 0x22)
        for (index, value) in [(1, 0x02), (3, 0xc0), (5, 0xff)] as [(UInt32, UInt32)] { set(machine, index, value) }
        machine.pass(2_000_000_000)
        #expect(!taken())
        machine.pass(1_500_000_000)
        #expect(taken())
        #expect(register(machine, 0x0c) & 0xa0 == 0xa0)
        set(machine, 0x0b, 0x02)
        #expect(machine.pc.alarms.nextDeadline == nil)
    }

    @Test("memory: what was written is kept; a BIOS's notes on RAM")
    func memory() throws {
        let machine = try Machine(memoryBytes: 64 << 20)
        set(machine, 0x40, 0xa5)
        #expect(register(machine, 0x40) == 0xa5)
        #expect(register(machine, 0x15) | register(machine, 0x16) << 8 == 640)
        #expect(register(machine, 0x34) | register(machine, 0x35) << 8 == 48 * 16)
    }

    @Test(
        "time and registers agree for centuries", arguments: [0, 951_782_400, 4_102_444_799, 7_258_118_399] as [UInt64])
    func roundTrip(_ seconds: UInt64) throws {
        let machine = try Machine(startSeconds: seconds)
        let fields: [UInt32] = [0, 2, 4, 7, 8, 9, 0x32]
        let before = fields.map { register(machine, $0) }
        set(machine, 0x0b, 0x82)
        for (field, value) in zip(fields, before) { set(machine, field, UInt32(value)) }
        set(machine, 0x0b, 0x02)
        #expect(fields.map { register(machine, $0) } == before)
    }
}

@Suite struct I8042Tests {
    @Test("self-test, command byte, an absent keyboard and mouse; all at once")
    func probing() throws {
        let machine = try Machine()
        func command(_ value: UInt32) -> UInt64? {
            machine.out(0x64, value)
            return machine.in(0x64) & 1 != 0 ? machine.in(0x60) : nil
        }
        #expect(command(0xaa) == 0x55)
        #expect(command(0xab) == 0)
        #expect(command(0xa9) == 1)
        machine.out(0x64, 0x60)
        machine.out(0x60, 0x45)
        #expect(command(0x20) == 0x45)
        machine.out(0x60, 0xf2)  // "Keyboard, who are you?"
        #expect(machine.in(0x64) & 0x41 == 0x41)
        #expect(machine.in(0x60) == 0xfe)
        #expect(machine.in(0x64) & 0x41 == 0)
        #expect(command(0xd0) == 0x03)
        machine.out(0x64, 0xd1)
        #expect(machine.out(0x60, 0x03) == nil)
    }

    @Test("ways to reset")
    func resets() throws {
        let machine = try Machine()
        #expect(machine.out(0x64, 0xfe) == .reset)
        #expect(machine.out(0x64, 0xff) == nil)
        machine.out(0x64, 0xd1)
        #expect(machine.out(0x60, 0x02) == .reset)
        #expect(machine.out(0x92, 0x02) == nil)
        #expect(machine.out(0x92, 0x01) == .reset)
    }
}
