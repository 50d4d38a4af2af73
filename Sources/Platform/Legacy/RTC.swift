internal import Synchronization

//H:180 The real-time clock
//
// An MC146818 as PCs have had it since the AT: port 0x70 chooses one of 128
// bytes, port 0x71 is that byte. Ten are the time and the alarm, four are
// registers A to D, the rest is battery-backed memory in which a BIOS left
// notes, some of which boot loaders still read.
//
//     00 seconds 02 minutes 04 hours 06 day of week 07 day 08 month 09 year
//     01, 03, 05 alarm      0a A: UIP, rate     0b B: SET PIE AIE UIE - DM 24/12
//     0c C: IRQF PF AF UF   0d D: VRT           32 century
//
// The time is the host's, in UTC, plus what the Guest has set it away.

/// The RTC with its memory, at ports 0x70 and 0x71.
package final class RTC: ByteDevice, Sendable {
    private struct State {
        var index = 0
        var memory = [UInt8](repeating: 0, count: 128)
        /// Guest time − host time, in seconds.
        var offset: Int64 = 0
        /// The time registers while SET holds them.
        var held: [UInt8]?
        /// When interrupts were last looked after, in real nanoseconds.
        var lookedAt: UInt64 = 0
        var flags: UInt8 = 0
    }

    private enum Index { static let a = 0x0a, b = 0x0b, c = 0x0c, d = 0x0d }
    private enum B {
        static let set: UInt8 = 0x80, periodic: UInt8 = 0x40, alarm: UInt8 = 0x20, update: UInt8 = 0x10
        static let binary: UInt8 = 4, is24Hours: UInt8 = 2
    }

    /// Time registers in the order of `CivilTime.fields`.
    private static let timeRegisters = [0x00, 0x02, 0x04, 0x06, 0x07, 0x08, 0x09, Int(MemoryMap.rtcCenturyRegister)]

    private let state: Mutex<State>
    private let clock: any MachineClock
    private let line: InterruptLine
    private let alarm = Mutex<Alarm?>(nil)
    private let memoryBytes: (low: UInt64, high: UInt64)

    /// - Parameters:
    ///   - lowMemory: RAM below 4 GiB, in bytes, for the notes that a BIOS leaves.
    ///   - highMemory: RAM above.
    package init(
        clock: any MachineClock, alarms: AlarmClock, line: InterruptLine, lowMemory: UInt64, highMemory: UInt64
    ) {
        self.clock = clock
        self.line = line
        memoryBytes = (lowMemory, highMemory)
        state = Mutex(State())
        alarm.withLock { $0 = alarms.makeAlarm { [weak self] in self?.rang() } }
        reset()
    }

    package func reset() {
        state.withLock { state in
            let offset = state.offset
            state = State()
            state.offset = offset
            state.memory[Index.a] = 0x26  // 32.768 kHz, 1024 Hz.
            state.memory[Index.b] = B.is24Hours
            func put(_ value: UInt64, _ low: Int, _ high: Int) {
                state.memory[low] = UInt8(truncatingIfNeeded: value)
                state.memory[high] = UInt8(truncatingIfNeeded: value >> 8)
            }
            put(640, 0x15, 0x16)
            let extended = min((memoryBytes.low >> 10) &- 1024, 0xffff)
            put(extended, 0x17, 0x18)
            put(extended, 0x30, 0x31)
            if memoryBytes.low > 16 << 20 { put(min((memoryBytes.low &- 16 << 20) >> 16, 0xffff), 0x34, 0x35) }
            put(memoryBytes.high >> 16, 0x5b, 0x5c)
            state.memory[0x5d] = UInt8(truncatingIfNeeded: memoryBytes.high >> 32)
            setAlarm(nil)
            line.lower()
        }
    }

    private func setAlarm(_ deadline: UInt64?) { alarm.withLock { $0 }?.set(deadline) }

    // MARK: Registers

    package func read(register: Int) -> UInt8 {
        guard register == 1 else { return 0xff }  // The index cannot be read.
        return state.withLock { state in
            let index = state.index
            if let field = Self.timeRegisters.firstIndex(of: index) { return timeRegister(state, field) }
            switch index {
            case Index.a:
                // UIP: the registers change within the next 244 µs.
                let isUpdating = state.held == nil && clock.realtimeNanoseconds % 1_000_000_000 >= 999_756_000
                return state.memory[Index.a] & 0x7f | (isUpdating ? 0x80 : 0)
            case Index.c:
                look(&state)
                let flags = state.flags | (state.flags & state.memory[Index.b] & 0x70 != 0 ? 0x80 : 0)
                state.flags = 0
                line.lower()
                schedule(&state)
                return flags
            case Index.d: return 0x80  // The battery is good.
            default: return state.memory[index]
            }
        }
    }

    package func write(register: Int, _ value: UInt8) {
        state.withLock { state in
            guard register == 1 else {
                if register == 0 { state.index = Int(value & 0x7f) }  // Bit 7 masks NMI.
                return
            }
            let index = state.index
            if let field = Self.timeRegisters.firstIndex(of: index) {
                writeTimeRegister(&state, field, value)
                return
            }
            switch index {
            case Index.a:
                look(&state)
                state.memory[Index.a] = value & 0x7f
                schedule(&state)
            case Index.b: writeB(&state, value)
            case Index.c, Index.d: break
            default:
                state.memory[index] = value
                if index < 6 { schedule(&state) }
            }
        }
    }

    private func writeB(_ state: inout State, _ value: UInt8) {
        look(&state)
        let old = state.memory[Index.b]
        if value & B.set != 0 && old & B.set == 0 {
            state.held = (0..<8).map { timeRegister(state, $0) }
        } else if value & B.set == 0, let held = state.held {
            state.held = nil
            setTime(&state, held)
        }
        // SET stops updates, and their interrupts with them.
        state.memory[Index.b] = value & B.set != 0 ? value & ~B.update : value
        if state.flags & value & 0x70 != 0 { line.raise() } else { line.lower() }
        schedule(&state)
    }

    // MARK: The time

    private func guestSeconds(_ state: State, _ realtime: UInt64) -> Int64 {
        Int64(realtime / 1_000_000_000) &+ state.offset
    }

    private func encode(_ state: State, _ value: Int) -> UInt8 {
        let value = UInt8(truncatingIfNeeded: value)
        return state.memory[Index.b] & B.binary != 0 ? value : (value / 10 % 10) << 4 | value % 10
    }

    private func decode(_ state: State, _ value: UInt8) -> Int {
        state.memory[Index.b] & B.binary != 0 ? Int(value) : Int(value >> 4) * 10 + Int(value & 15)
    }

    /// One byte of the time, as the registers show it now.
    private func timeRegister(_ state: State, _ field: Int) -> UInt8 {
        if let held = state.held { return held[field] }
        let time = CivilTime(seconds: guestSeconds(state, clock.realtimeNanoseconds))
        if field == 2 && state.memory[Index.b] & B.is24Hours == 0 {
            let hour = (time.hour + 11) % 12 + 1
            return encode(state, hour) | (time.hour >= 12 ? 0x80 : 0)
        }
        return encode(state, time.fields[field])
    }

    private func writeTimeRegister(_ state: inout State, _ field: Int, _ value: UInt8) {
        if state.held != nil {
            state.held?[field] = value
            return
        }
        // Without SET: one field changes, the others stay as they are now.
        var registers = (0..<8).map { timeRegister(state, $0) }
        registers[field] = value
        setTime(&state, registers)
    }

    /// Takes the eight time registers for the Guest's time from now on.
    private func setTime(_ state: inout State, _ registers: [UInt8]) {
        var hour = decode(state, registers[2] & 0x7f)
        if state.memory[Index.b] & B.is24Hours == 0 {
            hour = hour % 12 + (registers[2] & 0x80 != 0 ? 12 : 0)
        }
        // GUEST: any digits; the arithmetic carries what is too large.
        let seconds = CivilTime.seconds(
            year: decode(state, registers[7]) * 100 + decode(state, registers[6]),
            month: decode(state, registers[5]), day: decode(state, registers[4]), hour: hour,
            minute: decode(state, registers[1]), second: decode(state, registers[0]))
        state.offset = seconds &- Int64(clock.realtimeNanoseconds / 1_000_000_000)
    }

    // MARK: Interrupts

    /// Nanoseconds between periodic interrupts; nil for rate 0.
    private func period(_ state: State) -> UInt64? {
        var rate = UInt64(state.memory[Index.a] & 15)
        if rate == 0 { return nil }
        if rate < 3 { rate += 7 }  // 1 and 2 are 256 and 128 Hz.
        return 1_000_000_000 << (rate - 1) / 32_768
    }

    /// Whether the alarm registers name this second. Two top bits: "any".
    private func alarmMatches(_ state: State, _ seconds: Int64) -> Bool {
        let time = CivilTime(seconds: seconds)
        func matches(_ register: Int, _ value: Int) -> Bool {
            let byte = state.memory[register]
            return byte >= 0xc0 || byte == encode(state, value)
        }
        var hourByte = encode(state, time.hour)
        if state.memory[Index.b] & B.is24Hours == 0 {
            hourByte = encode(state, (time.hour + 11) % 12 + 1) | (time.hour >= 12 ? 0x80 : 0)
        }
        return matches(1, time.second) && matches(3, time.minute)
            && (state.memory[5] >= 0xc0 || state.memory[5] == hourByte)
    }

    /// Sets the flags of all that has happened since we last looked.
    private func look(_ state: inout State) {
        let now = clock.realtimeNanoseconds
        let before = state.lookedAt
        state.lookedAt = now
        guard before != 0, now > before else { return }
        if let period = period(state), now / period != before / period { state.flags |= B.periodic }
        let (first, last) = (guestSeconds(state, before), guestSeconds(state, now))
        if last > first && state.held == nil {
            state.flags |= B.update
            // A day is as far as an alarm can be away.
            var second = max(first, last &- 86_400)
            while second < last && state.memory[Index.b] & B.alarm != 0 && state.flags & B.alarm == 0 {
                second += 1
                if alarmMatches(state, second) { state.flags |= B.alarm }
            }
        }
        if state.flags & state.memory[Index.b] & 0x70 != 0 { line.raise() }
    }

    /// Sets the alarm clock for the next thing that would interrupt.
    private func schedule(_ state: inout State) {
        let enabled = state.memory[Index.b] & ~state.flags
        let now = clock.realtimeNanoseconds
        var wait = UInt64.max
        if enabled & B.periodic != 0, let period = period(state) { wait = period &- now % period }
        // The seconds of an alarm are few enough to look at each.
        if enabled & (B.update | B.alarm) != 0 { wait = min(wait, 1_000_000_000 &- now % 1_000_000_000) }
        setAlarm(wait == .max ? nil : clock.nanoseconds &+ wait &+ 1000)
    }

    private func rang() {
        state.withLock { state in
            look(&state)
            schedule(&state)
        }
    }
}
//:
