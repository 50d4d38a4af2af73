internal import Synchronization

//H:190 The serial port
//
// The 16550A: eight registers, and the one console that every kernel and
// every boot loader since 1987 can drive (PC16550D datasheet).
//
//     0 RBR/THR, divisor low    1 IER, divisor high   2 IIR read, FCR write
//     3 LCR (7: divisor latch)  4 MCR  5 LSR  6 MSR  7 scratch
//
// Our line is infinitely fast: a byte written is gone at once, and the
// transmitter is always empty. A kernel writes its log byte by byte, each with
// a look at LSR first, and a write(2) for each would cost more than all the
// rest; so bytes are kept until a newline, until there are many, until the
// Guest does something else, or for 10 ms.
//
// What is received comes from another thread and waits in a queue; the first
// 16 of it are what the chip's FIFO would hold. A Guest that cannot take more
// drops "request to send" (MCR, bit 1), as a kernel does when a program reads
// too slowly and when nobody has the port open; then the input waits with us.
// A small program that never touches the bit gets its input all the same.

/// One 16550A, with whatever takes its output.
package final class Serial16550: ByteDevice, Sendable {
    /// How much input waits for the Guest at most.
    package static let inputLimit = 4096
    private static let outputLimit = 1024
    private static let longestDelay: UInt64 = 10_000_000

    private struct State {
        var interruptEnable: UInt8 = 0
        var lineControl: UInt8 = 0
        var modemControl: UInt8 = 0
        var scratch: UInt8 = 0
        var divisor: UInt16 = 12
        var fifoEnabled = false
        /// Received bytes that make "data available" with the FIFO on.
        var trigger = 1
        /// The interrupt "transmitter empty" is asserted: a write or a look at IIR ends it.
        var transmitterEmpty = false
        /// MSR's delta bits, as looping back makes them.
        var modemDeltas: UInt8 = 0
        var overrun = false
        /// Input from `inputStart` on.
        var input: [UInt8] = []
        var inputStart = 0
        var output: [UInt8] = []
        var delayIsSet = false
        var wantsRoom = false

        /// The Guest has once said "request to send", and so means it when it does not.
        var controlsFlow = false

        /// What the Guest can have of the input.
        var inputCount: Int { controlsFlow && !loops && modemControl & 2 == 0 ? 0 : input.count - inputStart }
        var loops: Bool { modemControl & 0x10 != 0 }

        mutating func takeInput() -> UInt8? {
            guard inputCount > 0 else { return nil }
            let byte = input[inputStart]
            inputStart += 1
            if inputStart == input.count {
                input.removeAll(keepingCapacity: true)
                inputStart = 0
            }
            return byte
        }
    }

    private let state = Mutex(State())
    /// Held while `send` is called, so that bytes stay in order. Taken before `state`.
    private let sending = Mutex(())
    private let send: @Sendable ([UInt8]) -> Void
    private let line: InterruptLine
    private let clock: any MachineClock
    private let alarm = Mutex<Alarm?>(nil)
    private let hasOutput = Atomic(false)
    private let roomHandler = Mutex<(@Sendable () -> Void)?>(nil)

    /// - Parameter send: takes what the Guest writes, called on its thread or
    ///   the alarm clock's, one call at a time. If it blocks, so does the Guest.
    package init(
        line: InterruptLine, clock: any MachineClock, alarms: AlarmClock, send: @escaping @Sendable ([UInt8]) -> Void
    ) {
        self.line = line
        self.clock = clock
        self.send = send
        alarm.withLock { $0 = alarms.makeAlarm { [weak self] in self?.flush() } }
    }

    package func reset() {
        flush()
        state.withLock { state in
            state = State()
            updateLocked(&state)
        }
    }

    // MARK: The host's side

    /// Offers input to the Guest. Any thread.
    ///
    /// - Returns: how many bytes were taken. If not all, `onRoom`'s handler is
    ///   called when there is room again.
    package func receive(_ bytes: some Collection<UInt8>) -> Int {
        state.withLock { state in
            let count = min(bytes.count, Self.inputLimit - (state.input.count - state.inputStart))
            if state.inputStart > 0 {
                state.input.removeFirst(state.inputStart)
                state.inputStart = 0
            }
            state.input.append(contentsOf: bytes.prefix(count))
            if count < bytes.count { state.wantsRoom = true }
            updateLocked(&state)
            return count
        }
    }

    /// Who is to be told, on the Guest's thread, that input would be taken again.
    package func onRoom(_ handler: @escaping @Sendable () -> Void) { roomHandler.withLock { $0 = handler } }

    /// Hands over what the Guest has written. Cheap if that is nothing.
    package func flush() {
        // ORDERING: our own thread's writes are seen anyway; another's are flushed by it or by the alarm.
        guard hasOutput.load(ordering: .relaxed) else { return }
        sending.withLock { _ in
            let bytes = state.withLock { state in
                defer { state.output.removeAll(keepingCapacity: true) }
                state.delayIsSet = false
                hasOutput.store(false, ordering: .relaxed)
                return state.output
            }
            if !bytes.isEmpty { send(bytes) }
        }
    }

    // MARK: Interrupts

    /// IIR without the FIFO bits; 1: none (datasheet, table 5).
    private func identification(_ state: State) -> UInt8 {
        if state.interruptEnable & 4 != 0 && state.overrun { return 6 }
        if state.interruptEnable & 1 != 0 && state.inputCount > 0 {
            // With fewer bytes than the trigger the chip waits four characters'
            // time for more, then says so. Our characters take no time.
            return state.fifoEnabled && state.inputCount < state.trigger ? 0x0c : 4
        }
        if state.interruptEnable & 2 != 0 && state.transmitterEmpty { return 2 }
        if state.interruptEnable & 8 != 0 && state.modemDeltas != 0 { return 0 }
        return 1
    }

    private func updateLocked(_ state: inout State) {
        // On a PC, MCR's OUT2 is the gate to the interrupt line; not while looping back.
        line.set(identification(state) != 1 && state.modemControl & 0x18 == 8)
    }

    // MARK: Registers

    package func read(register: Int) -> UInt8 {
        var hasRoom = false
        let value = state.withLock { state -> UInt8 in
            let latch = state.lineControl & 0x80 != 0
            switch register {
            case 0 where latch: return UInt8(truncatingIfNeeded: state.divisor)
            case 0:
                let byte = state.takeInput() ?? 0
                if state.wantsRoom && state.inputCount <= Self.inputLimit / 2 {
                    state.wantsRoom = false
                    hasRoom = true
                }
                updateLocked(&state)
                return byte
            case 1: return latch ? UInt8(state.divisor >> 8) : state.interruptEnable
            case 2:
                let identification = identification(state)
                if identification == 2 {
                    state.transmitterEmpty = false
                    updateLocked(&state)
                }
                return identification | (state.fifoEnabled ? 0xc0 : 0)
            case 3: return state.lineControl
            case 4: return state.modemControl
            case 5:
                // Both transmitter registers are empty, always.
                let status: UInt8 = 0x60 | (state.inputCount > 0 ? 1 : 0) | (state.overrun ? 2 : 0)
                if state.overrun {
                    state.overrun = false
                    updateLocked(&state)
                }
                return status
            case 6:
                let status = modemStatus(state) | state.modemDeltas
                if state.modemDeltas != 0 {
                    state.modemDeltas = 0
                    updateLocked(&state)
                }
                return status
            case 7: return state.scratch
            default: return 0xff
            }
        }
        if hasRoom { roomHandler.withLock { $0 }?() }
        return value
    }

    /// MSR's upper half: carrier, ready and clear; or, looping, what MCR drives.
    private func modemStatus(_ state: State) -> UInt8 {
        guard state.loops else { return 0xb0 }
        let control = state.modemControl
        return (control & 2) << 3 | (control & 1) << 5 | (control & 0x0c) << 4
    }

    package func write(register: Int, _ value: UInt8) {
        var flushes = false
        state.withLock { state in
            let latch = state.lineControl & 0x80 != 0
            switch register {
            case 0 where latch: state.divisor = state.divisor & 0xff00 | UInt16(value)
            case 0: flushes = transmitLocked(&state, value)
            case 1 where latch: state.divisor = state.divisor & 0xff | UInt16(value) << 8
            case 1:
                // Enabling the transmitter's interrupt while it is empty asserts it.
                if value & 2 != 0 && state.interruptEnable & 2 == 0 { state.transmitterEmpty = true }
                state.interruptEnable = value & 0x0f
            case 2: setFIFOLocked(&state, value)
            case 3: state.lineControl = value
            case 4:
                let before = modemStatus(state)
                state.modemControl = value & 0x1f
                if !state.loops && value & 2 != 0 { state.controlsFlow = true }
                let changed = (before ^ modemStatus(state)) >> 4
                // The ring indicator counts only when it falls.
                state.modemDeltas |= changed & 0x0b | (before & ~modemStatus(state)) >> 4 & 4
            case 7: state.scratch = value
            default: break
            }
            updateLocked(&state)
        }
        if flushes { flush() }
    }

    private func setFIFOLocked(_ state: inout State, _ value: UInt8) {
        let enabled = value & 1 != 0
        // Clearing the receiver drops what was looped back. What came from
        // outside counts as still on its way: a kernel clears when it opens
        // the port, and the user has typed ahead.
        if value & 2 != 0 && state.loops { for _ in 0..<16 { _ = state.takeInput() } }
        state.fifoEnabled = enabled
        state.trigger = enabled ? [1, 4, 8, 14][Int(value >> 6)] : 1
    }

    /// THR was written. Whether it is time to hand the output over.
    private func transmitLocked(_ state: inout State, _ value: UInt8) -> Bool {
        state.transmitterEmpty = true
        if state.loops {
            if state.inputCount < (state.fifoEnabled ? 16 : 1) {
                state.input.append(value)
            } else {
                state.overrun = true
            }
            return false
        }
        state.output.append(value)
        hasOutput.store(true, ordering: .relaxed)
        if value == 0x0a || state.output.count >= Self.outputLimit { return true }
        if !state.delayIsSet {
            state.delayIsSet = true
            alarm.withLock { $0 }?.set(clock.nanoseconds &+ Self.longestDelay)
        }
        return false
    }
}
//:
