internal import Synchronization

//H:200 The keyboard controller without a keyboard
//
// A microcontroller that IBM put there for the keyboard, with pins to spare,
// to which it wired the reset line and the 21st address line. Nobody types on
// ours, but programs still reset the machine by command 0xfe and open A20 by
// command 0xd1, and probe it by its self-test. Everything is answered at once:
// a probe that waits for a time-out would hold up the boot.
//
// ACPI says that it is not here (FADT, IAPC_BOOT_ARCH), so Linux does not look.

/// Ports 0x60 (register 0) and 0x64 (register 4).
package final class I8042: ByteDevice, Sendable {
    private enum Status {
        static let outputFull: UInt8 = 1, systemFlag: UInt8 = 4, command: UInt8 = 8, unlocked: UInt8 = 0x10,
            timeout: UInt8 = 0x40
    }

    private struct State {
        /// The command byte: IRQ 1 enabled, translating; both ports off.
        var configuration: UInt8 = 0x34
        var outputPort: UInt8 = 0x03
        var output: UInt8 = 0
        var status: UInt8 = Status.systemFlag | Status.unlocked
        /// The command whose data byte is awaited.
        var command: UInt8?
    }

    private let state = Mutex(State())
    private let line: InterruptLine
    private let requestReset: @Sendable () -> Void

    package init(line: InterruptLine, requestReset: @escaping @Sendable () -> Void) {
        self.line = line
        self.requestReset = requestReset
    }

    package func reset() {
        state.withLock { $0 = State() }
        line.lower()
    }

    package func read(register: Int) -> UInt8 {
        state.withLock { state in
            switch register {
            case 0:
                state.status &= ~(Status.outputFull | Status.timeout)
                line.lower()
                return state.output
            case 4: return state.status
            default: return 0xff
            }
        }
    }

    package func write(register: Int, _ value: UInt8) {
        let resets = state.withLock { state -> Bool in
            switch register {
            case 0:
                state.status &= ~Status.command
                return dataLocked(&state, value)
            case 4:
                state.status |= Status.command
                return commandLocked(&state, value)
            default: return false
            }
        }
        if resets { requestReset() }
    }

    private func answerLocked(_ state: inout State, _ value: UInt8, timeout: Bool = false) {
        state.output = value
        state.status |= Status.outputFull | (timeout ? Status.timeout : 0)
        if state.configuration & 1 != 0 { line.raise() }
    }

    private func commandLocked(_ state: inout State, _ value: UInt8) -> Bool {
        state.command = nil
        switch value {
        case 0x20: answerLocked(&state, state.configuration)
        case 0xa7: state.configuration |= 0x20
        case 0xa8: state.configuration &= ~0x20
        case 0xa9: answerLocked(&state, 1)  // The second port's clock is stuck: there is none.
        case 0xaa:
            state.status |= Status.systemFlag
            answerLocked(&state, 0x55)
        case 0xab: answerLocked(&state, 0)
        case 0xad: state.configuration |= 0x10
        case 0xae: state.configuration &= ~0x10
        case 0xc0: answerLocked(&state, 0x80)  // The input port: keyboard not locked.
        case 0xd0: answerLocked(&state, state.outputPort)
        case 0x60, 0xd1, 0xd2, 0xd3, 0xd4: state.command = value
        // 0xf0…0xff pulse those output lines whose bit is 0; line 0 is reset.
        case 0xf0...0xff: return value & 1 == 0
        default: break
        }
        return false
    }

    private func dataLocked(_ state: inout State, _ value: UInt8) -> Bool {
        let command = state.command
        state.command = nil
        switch command {
        case 0x60: state.configuration = value & 0x7f
        case 0xd1:
            state.outputPort = value
            return value & 1 == 0  // The reset line, active low.
        case 0xd2, 0xd3: answerLocked(&state, value)
        // To a keyboard or a mouse: nobody there, which the controller
        // finds out by a time-out and reports as 0xfe.
        default: answerLocked(&state, 0xfe, timeout: true)
        }
        return false
    }

    /// Bit 1 of the output port and of port 0x92. Our address line 20 is always open.
    package var isA20Open: Bool { state.withLock { $0.outputPort & 2 != 0 } }
}

/// Port 0x92: "fast" A20 and reset.
final class SystemControlA: ByteDevice, Sendable {
    private let value = Mutex(UInt8(2))
    private let requestReset: @Sendable () -> Void

    init(requestReset: @escaping @Sendable () -> Void) { self.requestReset = requestReset }

    func read(register: Int) -> UInt8 { value.withLock { $0 } }

    func write(register: Int, _ new: UInt8) {
        value.withLock { $0 = new & 0xfe }
        if new & 1 != 0 { requestReset() }
    }
}
//:
