internal import Synchronization

//H:170 The 8254 timer
//
// Three counters at 1.193182 MHz, a third of a third of the NTSC colour
// carrier. Counter 0 is IRQ 0, counter 1 once refreshed the memory, counter 2
// is the loudspeaker and, since port 0x61 shows its output, every kernel's
// favourite stopwatch: set it, spin until the bit turns, see how far the TSC
// got. We tell guests the frequency of their TSC, but an old one does not ask.
//
//     0x40…0x42  counters      0x43  control word
//     0x61       bit 0 gate of counter 2, 1 speaker, 4 refresh, 5 output of counter 2
//
// As with the APIC's timer nothing counts: each counter knows when it was
// loaded, and what it shows now follows from the clock.

/// The 8254 and the half of port 0x61 that belongs to it.
package final class PIT8254: ByteDevice, Sendable {
    package static let frequency: UInt64 = 1_193_182
    /// Counter 0 interrupts no more often than this; a count of 1 would ask for a million per second.
    private static let shortestPeriod: UInt64 = 100_000

    private enum Access { case low, high, both }

    private struct Counter {
        var mode: UInt8 = 0
        var access = Access.both
        var isBCD = false
        var gate = true
        /// 1…65536 (or 10000); 0: nothing was loaded since the control word.
        var count: UInt64 = 0
        /// When the count began, in nanoseconds.
        var start: UInt64 = 0
        /// The low byte of a two-byte count that is half written.
        var pendingLow: UInt8?
        /// What a latch command froze, low byte first.
        var latched: [UInt8] = []
        var latchedStatus: UInt8?
        /// The next read of a two-byte counter gives the high byte.
        var readsHigh = false
        /// Modes 1 and 5 wait for an edge of the gate.
        var isTriggered = false
        /// How far it had got when its gate was closed.
        var stoppedTicks: UInt64?

        var isPeriodic: Bool { mode == 2 || mode == 3 }

        func ticks(_ now: UInt64) -> UInt64 {
            if let stoppedTicks { return stoppedTicks }
            return scale(now &- min(start, now), by: PIT8254.frequency, over: 1_000_000_000)
        }

        /// OUT (8254 datasheet, "Mode definitions").
        func output(_ now: UInt64) -> Bool {
            guard count != 0 else { return mode != 0 }
            let ticks = ticks(now)
            switch mode {
            case 0: return ticks >= count
            case 1: return !isTriggered || ticks >= count
            case 2: return !gate || ticks % count != count &- 1
            case 3: return !gate || ticks % count < (count &+ 1) / 2
            default: return ticks != count
            }
        }

        /// The counting element, as a read finds it.
        func value(_ now: UInt64) -> UInt16 {
            guard count != 0 else { return 0 }
            let ticks = ticks(now)
            let modulus: UInt64 = isBCD ? 10_000 : 65_536
            let left: UInt64
            switch mode {
            case 2: left = count &- ticks % count
            // Counts by twos, twice per period.
            case 3: left = (count &- (ticks &* 2) % count) & ~1
            // Goes through zero and on from the top.
            default: left = (count &+ modulus &- ticks % modulus) % modulus
            }
            guard isBCD else { return UInt16(truncatingIfNeeded: left) }
            var decimal: UInt16 = 0
            var rest = left % 10_000
            for digit in UInt16(0)..<4 {
                decimal |= UInt16(rest % 10) << (digit &* 4)
                rest /= 10
            }
            return decimal
        }

        func status(_ now: UInt64) -> UInt8 {
            let rw: UInt8 = access == .low ? 1 : access == .high ? 2 : 3
            return (output(now) ? 0x80 : 0) | (count == 0 ? 0x40 : 0) | rw << 4 | mode << 1 | (isBCD ? 1 : 0)
        }

        mutating func latch(_ now: UInt64) {
            guard latched.isEmpty else { return }
            let value = value(now)
            let (low, high) = (UInt8(truncatingIfNeeded: value), UInt8(value >> 8))
            latched = access == .low ? [low] : access == .high ? [high] : [low, high]
        }

        mutating func read(_ now: UInt64) -> UInt8 {
            if let status = latchedStatus {
                latchedStatus = nil
                return status
            }
            if !latched.isEmpty { return latched.removeFirst() }
            let value = value(now)
            switch access {
            case .low: return UInt8(truncatingIfNeeded: value)
            case .high: return UInt8(value >> 8)
            case .both:
                readsHigh.toggle()
                return readsHigh ? UInt8(truncatingIfNeeded: value) : UInt8(value >> 8)
            }
        }

        mutating func control(_ word: UInt8) {
            let gate = gate
            self = Counter()
            self.gate = gate
            access = word >> 4 & 3 == 1 ? .low : word >> 4 & 3 == 2 ? .high : .both
            let mode = word >> 1 & 7
            self.mode = mode > 5 ? mode & 3 : mode  // 6 and 7 mean 2 and 3.
            isBCD = word & 1 != 0
        }

        /// Whether a whole count has arrived.
        mutating func write(_ byte: UInt8, _ now: UInt64) -> Bool {
            let raw: UInt16
            switch access {
            case .low: raw = UInt16(byte)
            case .high: raw = UInt16(byte) << 8
            case .both:
                guard let low = pendingLow else {
                    pendingLow = byte
                    return false
                }
                pendingLow = nil
                raw = UInt16(byte) << 8 | UInt16(low)
            }
            count = UInt64(raw)
            if isBCD {
                // GUEST: digits above 9 count as they weigh, at most 16665.
                count = (0..<4).reduce(0) { $0 * 10 + UInt64(raw >> UInt16((3 - $1) * 4) & 15) } % 10_000
            }
            if count == 0 { count = isBCD ? 10_000 : 65_536 }
            start = now
            stoppedTicks = gate || mode == 1 || mode == 5 ? nil : 0
            return true
        }

        mutating func setGate(_ isOpen: Bool, _ now: UInt64) {
            if isOpen == gate { return }
            switch mode {
            case 0, 4:  // The gate pauses it.
                if isOpen, let ticks = stoppedTicks {
                    start = now &- min(now, scale(ticks, by: 1_000_000_000, over: PIT8254.frequency))
                    stoppedTicks = nil
                } else if !isOpen {
                    stoppedTicks = ticks(now)
                }
            case 2, 3:  // A rising gate starts it over.
                if isOpen { start = now }
                stoppedTicks = isOpen ? nil : 0
            default:  // A rising gate triggers it.
                if isOpen {
                    start = now
                    isTriggered = true
                }
            }
            gate = isOpen
        }
    }

    private struct State {
        var counters = [Counter](repeating: Counter(), count: 3)
        var speaker: UInt8 = 0
        /// When counter 0 next interrupts.
        var deadline: UInt64?

        init() { counters[2].gate = false }
    }

    private let state = Mutex(State())
    private let clock: any MachineClock
    private let line: InterruptLine
    private let alarm = Mutex<Alarm?>(nil)

    package init(clock: any MachineClock, alarms: AlarmClock, line: InterruptLine) {
        self.clock = clock
        self.line = line
        alarm.withLock { $0 = alarms.makeAlarm { [weak self] in self?.rang() } }
    }

    package func reset() {
        state.withLock { state in
            state = State()
            setDeadline(&state, nil)
            line.lower()
        }
    }

    // MARK: Interrupts of counter 0

    private func setDeadline(_ state: inout State, _ deadline: UInt64?) {
        state.deadline = deadline
        alarm.withLock { $0 }?.set(deadline)
    }

    /// When the count that was just loaded runs out.
    private func startCounter0(_ state: inout State) {
        let counter = state.counters[0]
        // Modes 1 and 5 wait for a gate that counter 0 does not have.
        guard counter.count != 0, counter.mode != 1, counter.mode != 5 else { return setDeadline(&state, nil) }
        setDeadline(&state, counter.start &+ scale(counter.count, by: 1_000_000_000, over: Self.frequency) &+ 1)
    }

    private func rang() {
        let interrupts = state.withLock { state in
            guard let deadline = state.deadline else { return false }
            let now = clock.nanoseconds
            if now < deadline {
                setDeadline(&state, deadline)
                return false
            }
            let counter = state.counters[0]
            if counter.isPeriodic {
                // On with the next full period; those the host slept through are lost.
                let next = (counter.ticks(now) / counter.count &+ 1) &* counter.count
                let time = counter.start &+ scale(next, by: 1_000_000_000, over: Self.frequency) &+ 1
                setDeadline(&state, max(time, now &+ Self.shortestPeriod))
            } else {
                state.deadline = nil
            }
            return true
        }
        // OUT rises at the end of a count and stays up until just before the
        // end of the next: the 8259 forgets a request whose line has fallen.
        if interrupts {
            line.lower()
            line.raise()
        }
    }

    // MARK: Registers 0…3

    package func read(register: Int) -> UInt8 {
        guard register >= 0 && register < 3 else { return 0xff }
        return state.withLock { $0.counters[register].read(clock.nanoseconds) }
    }

    package func write(register: Int, _ value: UInt8) {
        state.withLock { state in
            let now = clock.nanoseconds
            if register == 3 {
                control(&state, value, now)
            } else if register >= 0 && register < 3 {
                let isLoaded = state.counters[register].write(value, now)
                if isLoaded && register == 0 { startCounter0(&state) }
            }
        }
    }

    private func control(_ state: inout State, _ word: UInt8, _ now: UInt64) {
        let selected = Int(word >> 6)
        if selected == 3 {
            // Read-back: bits 1…3 choose counters, 5 and 4 are negative: count, status.
            for index in 0..<3 where word >> UInt8(index + 1) & 1 != 0 {
                if word & 0x20 == 0 { state.counters[index].latch(now) }
                if word & 0x10 == 0, state.counters[index].latchedStatus == nil {
                    state.counters[index].latchedStatus = state.counters[index].status(now)
                }
            }
        } else if word & 0x30 == 0 {
            state.counters[selected].latch(now)
        } else {
            state.counters[selected].control(word)
            if selected == 0 {
                setDeadline(&state, nil)
                line.lower()
            }
        }
    }

    // MARK: Port 0x61

    package func readSystemControl() -> UInt8 {
        state.withLock { state in
            let now = clock.nanoseconds
            // The refresh request turns every 15 µs; programs once timed by it.
            let refresh: UInt8 = now / 15_085 & 1 != 0 ? 0x10 : 0
            return state.speaker | refresh | (state.counters[2].output(now) ? 0x20 : 0)
        }
    }

    package func writeSystemControl(_ value: UInt8) {
        state.withLock { state in
            // Bits 2 and 3 enable parity and channel checks that we do not have.
            state.speaker = value & 0x0f
            state.counters[2].setGate(value & 1 != 0, clock.nanoseconds)
        }
    }
}

/// Port 0x61 on the bus.
final class SystemControlB: ByteDevice, Sendable {
    private let pit: PIT8254
    init(_ pit: PIT8254) { self.pit = pit }
    func read(register: Int) -> UInt8 { pit.readSystemControl() }
    func write(register: Int, _ value: UInt8) { pit.writeSystemControl(value) }
}
//:
