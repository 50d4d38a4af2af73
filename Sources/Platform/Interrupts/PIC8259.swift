internal import Synchronization

//H:160 The 8259 pair
//
// Two chips of eight inputs; the second's output is the first's input 2. Old
// kernels live on it, new ones mask it and turn away, and everybody programs
// it first: four initialization words (ICW1…4), then operation words (OCW1…3),
// told apart by the port's lowest address bit and two bits of the value
// (8259A datasheet).
//
//     port 0x20/0xa0   write, bit 4 set: ICW1   bit 3 set: OCW3   else: OCW2
//                      read: IRR or ISR, or the poll word
//     port 0x21/0xa1   write: OCW1 (the mask), or ICW2…4 while initializing
//     port 0x4d0/0x4d1 ELCR, one bit per input: level-triggered

/// Both chips, their ELCR, and the INTR wire.
package final class PIC8259: ByteDevice, Sendable {
    private struct Chip {
        /// Inputs as they are; with `edges`, what IRR is made of.
        var lines: UInt8 = 0
        /// Rising edges not yet taken.
        var edges: UInt8 = 0
        var inService: UInt8 = 0
        var mask: UInt8 = 0xff
        var edgeLevel: UInt8 = 0
        var vectorBase: UInt8
        /// The input of lowest priority; 7 unless rotated.
        var lowest: UInt8 = 7
        /// The ICW awaited: 2, 3, 4; 0: none.
        var awaitedWord = 0
        var wantsWord4 = false
        var automaticEnd = false
        var rotatesOnAutomaticEnd = false
        var specialMask = false
        var specialFullyNested = false
        var readsInService = false
        var polls = false

        init(vectorBase: UInt8) { self.vectorBase = vectorBase }

        /// IRR: an edge that was seen and whose line still stands, or a level.
        var requested: UInt8 { edges & lines & ~edgeLevel | lines & edgeLevel }

        /// 0…7 in order of priority, counted from the highest.
        private func rank(_ set: UInt8) -> UInt8? {
            if set == 0 { return nil }
            var rank: UInt8 = 0
            while set >> ((lowest &+ 1 &+ rank) & 7) & 1 == 0 { rank += 1 }
            return rank
        }

        /// The highest-priority input of a set.
        func highest(_ set: UInt8) -> UInt8? { rank(set).map { (lowest &+ 1 &+ $0) & 7 } }

        /// The input that is to interrupt now.
        func pending(cascade: Bool) -> UInt8? {
            guard awaitedWord == 0, let request = rank(requested & ~mask) else { return nil }
            var service = inService
            if specialMask { service &= ~mask }
            // The master lets a second interrupt of the slave's through in this mode.
            if specialFullyNested && cascade { service &= ~4 }
            if let service = rank(service), service <= request { return nil }
            return (lowest &+ 1 &+ request) & 7
        }

        mutating func setLine(_ input: UInt8, _ isHigh: Bool) {
            let bit: UInt8 = 1 << input
            if isHigh {
                if lines & bit == 0 { edges |= bit }
                lines |= bit
            } else {
                lines &= ~bit
                edges &= ~bit
            }
        }

        mutating func acknowledge(_ input: UInt8) {
            let bit: UInt8 = 1 << input
            edges &= ~bit
            if automaticEnd {
                if rotatesOnAutomaticEnd { lowest = input }
            } else {
                inService |= bit
            }
        }

        mutating func initialize(_ word: UInt8) {
            let kept = (lines, edgeLevel, vectorBase)
            self = Chip(vectorBase: kept.2)
            (lines, edgeLevel) = (kept.0, kept.1)
            mask = 0
            awaitedWord = 2
            wantsWord4 = word & 1 != 0
        }

        mutating func writeData(_ value: UInt8) {
            switch awaitedWord {
            case 2:
                vectorBase = value & 0xf8
                awaitedWord = 3
            case 3: awaitedWord = wantsWord4 ? 4 : 0
            case 4:
                automaticEnd = value & 2 != 0
                specialFullyNested = value & 0x10 != 0
                awaitedWord = 0
            default: mask = value
            }
        }

        /// OCW2: ends of interrupt and rotation.
        mutating func operate2(_ value: UInt8) {
            let input = value & 7
            switch value >> 5 {
            case 0: rotatesOnAutomaticEnd = false
            case 4: rotatesOnAutomaticEnd = true
            case 1, 5:  // Non-specific EOI, with rotation.
                if let highest = highest(specialMask ? inService & ~mask : inService) {
                    inService &= ~(1 << highest)
                    if value >> 5 == 5 { lowest = highest }
                }
            case 3, 7:  // Specific EOI, with rotation.
                inService &= ~(1 << input)
                if value >> 5 == 7 { lowest = input }
            case 6: lowest = input
            default: break
            }
        }

        mutating func operate3(_ value: UInt8) {
            if value & 0x40 != 0 { specialMask = value & 0x20 != 0 }
            if value & 4 != 0 { polls = true }
            if value & 2 != 0 { readsInService = value & 1 != 0 }
        }
    }

    private struct State {
        // As a BIOS leaves them, but all masked.
        var master = Chip(vectorBase: 0x08)
        var slave = Chip(vectorBase: 0x70)
        var output = false
    }

    private let state = Mutex(State())
    /// Moves INTR. Called under our lock, so that changes arrive in order.
    private let setOutput: @Sendable (Bool) -> Void

    package init(setOutput: @escaping @Sendable (Bool) -> Void) { self.setOutput = setOutput }

    package func reset() {
        state.withLock { state in
            let lines = (state.master.lines, state.slave.lines)
            let output = state.output
            state = State()
            (state.master.lines, state.slave.lines) = lines
            state.output = output
            updateLocked(&state)
        }
    }

    private func updateLocked(_ state: inout State) {
        // The cascade is a wire like any other, but the chips' own.
        state.master.setLine(2, state.slave.pending(cascade: false) != nil)
        let output = state.master.pending(cascade: true) != nil
        if output != state.output {
            state.output = output
            setOutput(output)
        }
    }

    /// Called by `InterruptLines`, in order for each input 0…15.
    func setLine(_ irq: Int, _ isHigh: Bool) {
        state.withLock { state in
            if irq < 8 { state.master.setLine(UInt8(irq), isHigh) } else { state.slave.setLine(UInt8(irq - 8), isHigh) }
            updateLocked(&state)
        }
    }

    /// The INTA cycle: the vector to interrupt with. If the request has gone
    /// meanwhile, that is input 7's, "spurious", and nothing is in service.
    package func acknowledge() -> UInt8 {
        state.withLock { state in
            let vector = acknowledgeLocked(&state)
            // An edge on the cascade goes with each interrupt of the slave's.
            state.master.setLine(2, false)
            updateLocked(&state)
            return vector
        }
    }

    private func acknowledgeLocked(_ state: inout State) -> UInt8 {
        guard let input = state.master.pending(cascade: true) else { return state.master.vectorBase | 7 }
        state.master.acknowledge(input)
        guard input == 2 else { return state.master.vectorBase | input }
        guard let second = state.slave.pending(cascade: false) else { return state.slave.vectorBase | 7 }
        state.slave.acknowledge(second)
        return state.slave.vectorBase | second
    }

    // MARK: Registers: 0, 1 the master's, 2, 3 the slave's, 4, 5 ELCR

    package func read(register: Int) -> UInt8 {
        state.withLock { state in
            switch register {
            case 0: return readCommand(&state, \.master)
            case 1: return state.master.mask
            case 2: return readCommand(&state, \.slave)
            case 3: return state.slave.mask
            case 4: return state.master.edgeLevel
            case 5: return state.slave.edgeLevel
            default: return 0xff
            }
        }
    }

    private func readCommand(_ state: inout State, _ path: WritableKeyPath<State, Chip>) -> UInt8 {
        guard state[keyPath: path].polls else {
            return state[keyPath: path].readsInService ? state[keyPath: path].inService : state[keyPath: path].requested
        }
        // A poll is an INTA cycle by hand (OCW3, P).
        state[keyPath: path].polls = false
        guard let input = state[keyPath: path].pending(cascade: path == \.master) else { return 0 }
        state[keyPath: path].acknowledge(input)
        updateLocked(&state)
        return 0x80 | input
    }

    package func write(register: Int, _ value: UInt8) {
        state.withLock { state in
            switch register {
            case 0: Self.command(&state.master, value)
            case 1: state.master.writeData(value)
            case 2: Self.command(&state.slave, value)
            case 3: state.slave.writeData(value)
            // The timer, the keyboard, the cascade; the RTC and the FPU: always edges.
            case 4: state.master.edgeLevel = value & 0xf8
            case 5: state.slave.edgeLevel = value & 0xde
            default: break
            }
            updateLocked(&state)
        }
    }

    private static func command(_ chip: inout Chip, _ value: UInt8) {
        if value & 0x10 != 0 {
            chip.initialize(value)
        } else if value & 8 != 0 {
            chip.operate3(value)
        } else {
            chip.operate2(value)
        }
    }
}

/// A view of a device at a second place on the bus: `register` 0 there is `first` here.
final class ByteWindow: ByteDevice, Sendable {
    private let device: any ByteDevice & Sendable
    private let first: Int

    init(_ device: any ByteDevice & Sendable, first: Int) {
        self.device = device
        self.first = first
    }

    func read(register: Int) -> UInt8 { device.read(register: register &+ first) }
    func write(register: Int, _ value: UInt8) { device.write(register: register &+ first, value) }
}
//:
