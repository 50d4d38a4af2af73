internal import Synchronization

/// The local vector table, as indices of `State.localVectors`; register number
/// is 0x32 plus the index (SDM 3A, figure 11-8).
enum LocalVector {
    static let timer = 0, thermal = 1, performance = 2, lint0 = 3, lint1 = 4, error = 5
    static let masked: UInt32 = 1 << 16

    /// Bits that software can set. Delivery status (12) and remote IRR (14) are ours.
    static func writable(_ index: Int) -> UInt32 {
        switch index {
        case timer: 0x700ff
        case thermal, performance: 0x107ff
        case lint0, lint1: 0x1a7ff
        default: 0x100ff
        }
    }

    /// Read-only, and so ignored when written.
    static func readOnly(_ index: Int) -> UInt32 { index == lint0 || index == lint1 ? 0x5000 : 0x1000 }
}

//H:144 The local APIC's registers
//
// They are numbered alike in both modes: register n is at byte n·16 of the
// MMIO page, or is MSR 0x800 + n (SDM 3A, tables 11-1 and 11-6). What differs:
// x2APIC's ICR is one register of 64 bits, ID and LDR cannot be written, DFR
// is gone, SELF IPI is new, and where xAPIC shrugs at a bad access, x2APIC
// answers with #GP(0).
extension LocalAPIC {
    /// Register numbers.
    enum Number {
        static let identifier = 0x02, version = 0x03, taskPriority = 0x08, arbitrationPriority = 0x09
        static let processorPriority = 0x0a, endOfInterrupt = 0x0b, logicalDestination = 0x0d
        static let destinationFormat = 0x0e, spurious = 0x0f, inService = 0x10, levelTriggered = 0x18
        static let requested = 0x20, errorStatus = 0x28, commandLow = 0x30, commandHigh = 0x31
        static let localVectors = 0x32, initialCount = 0x38, currentCount = 0x39, divide = 0x3e, selfInterrupt = 0x3f
    }

    /// An integrated APIC with six local vectors.
    static let version: UInt32 = 0x14 | 5 << 16

    /// Nil for a register that cannot be read or is none.
    func readLocked(_ state: State, _ number: Int) -> UInt32? {
        switch number {
        case Number.identifier: state.isX2APIC ? state.identifier : state.identifier << 24
        case Number.version: Self.version
        case Number.taskPriority: UInt32(state.taskPriority)
        case Number.arbitrationPriority: state.isX2APIC ? nil : UInt32(state.processorPriority)
        case Number.processorPriority: UInt32(state.processorPriority)
        case Number.endOfInterrupt: state.isX2APIC ? nil : 0
        case Number.logicalDestination:
            state.isX2APIC ? Self.x2apicLogicalDestination(state.identifier) : state.logicalDestination
        case Number.destinationFormat: state.isX2APIC ? nil : state.destinationFormat
        case Number.spurious: state.spurious
        case Number.inService..<Number.inService + 8: state.inService[word: number - Number.inService]
        case Number.levelTriggered..<Number.levelTriggered + 8:
            state.levelTriggered[word: number - Number.levelTriggered]
        case Number.requested..<Number.requested + 8: state.requested[word: number - Number.requested]
        case Number.errorStatus: state.errorStatus
        case Number.commandLow: state.commandLow
        case Number.commandHigh: state.isX2APIC ? nil : state.commandHigh
        case Number.localVectors..<Number.localVectors + 6: state.localVectors[number - Number.localVectors]
        case Number.initialCount: state.timer.initialCount
        case Number.currentCount: currentCount(state)
        case Number.divide: state.timer.divideConfiguration
        default: nil
        }
    }

    /// Writes a register whose bits were checked already, if it was needed. Nil
    /// for one that cannot be written or is none.
    func writeLocked(_ state: inout State, _ number: Int, _ value: UInt32) -> Effect? {
        switch number {
        case Number.taskPriority: state.taskPriority = UInt8(truncatingIfNeeded: value)
        case Number.endOfInterrupt: return endOfInterruptLocked(&state)
        case Number.spurious: setSpuriousLocked(&state, value)
        case Number.errorStatus:
            // A write makes visible what was seen since the last (SDM 3A, 11.5.3).
            state.errorStatus = state.errorsSeen
            state.errorsSeen = 0
        case Number.commandLow:
            state.commandLow = value & 0xc_cfff
            return commandLocked(&state)
        case Number.localVectors..<Number.localVectors + 6:
            setLocalVectorLocked(&state, number - Number.localVectors, value)
        case Number.initialCount: startTimerLocked(&state, initialCount: value)
        case Number.divide: setDivideLocked(&state, value)
        case Number.identifier where !state.isX2APIC: break  // Ours is fixed, as ACPI says it.
        case Number.logicalDestination where !state.isX2APIC: state.logicalDestination = value & 0xff00_0000
        case Number.destinationFormat where !state.isX2APIC: state.destinationFormat = value | 0x0fff_ffff
        case Number.commandHigh where !state.isX2APIC: state.commandHigh = value & 0xff00_0000
        case Number.selfInterrupt where state.isX2APIC:
            return .send(InterruptMessage(vector: UInt8(truncatingIfNeeded: value)), shorthand: 1)
        default: return nil
        }
        return Effect.none
    }

    private func endOfInterruptLocked(_ state: inout State) -> Effect {
        guard let vector = state.inService.highest else { return .none }
        state.inService.remove(vector)
        return state.levelTriggered.contains(vector) ? .endOfInterrupt(vector) : .none
    }

    private func setSpuriousLocked(_ state: inout State, _ value: UInt32) {
        // No EOI-broadcast suppression (bit 12): the version register does not offer it.
        state.spurious = value & 0x3ff
        // Switched off by software: all local vectors are masked and stay so
        // until written (SDM 3A, 11.4.7.2).
        if !state.isSoftwareEnabled { for index in 0..<6 { state.localVectors[index] |= LocalVector.masked } }
    }

    private func setLocalVectorLocked(_ state: inout State, _ index: Int, _ value: UInt32) {
        let oldMode = Self.timerMode(state)
        var value = value & LocalVector.writable(index)
        if !state.isSoftwareEnabled { value |= LocalVector.masked }
        state.localVectors[index] = value
        if index == LocalVector.timer { timerModeChangedLocked(&state, from: oldMode) }
    }

    /// ICR was written: sends what it says (SDM 3A, 11.6.1).
    private func commandLocked(_ state: inout State) -> Effect {
        let low = state.commandLow
        let mode = InterruptMessage.DeliveryMode(rawValue: UInt8(low >> 8 & 7)) ?? .fixed
        let isLogical = low & 1 << 11 != 0
        let vector = UInt8(truncatingIfNeeded: low)
        if mode == .fixed || mode == .lowestPriority, vector < 16 {
            noteErrorLocked(&state, 1 << 5)  // Send illegal vector.
            return .none
        }
        // INIT level de-assert, of the days before the Pentium 4, is nothing.
        if mode == .initialize && low & 1 << 14 == 0 { return .none }
        let destination =
            state.isX2APIC
            ? state.commandHigh : InterruptMessage.widen(UInt8(state.commandHigh >> 24), isLogical: isLogical)
        let message = InterruptMessage(
            vector: vector, deliveryMode: mode, destination: destination, isLogical: isLogical)
        return .send(message, shorthand: low >> 18 & 3)
    }

    // MARK: xAPIC

    /// A read of the MMIO page. All ones unless in xAPIC mode.
    package func readPage(offset: UInt64, bytes: Int) -> UInt64 {
        state.withLock { state in
            guard state.isEnabled, !state.isX2APIC else { return .max }
            // Registers are 32 bits in every 16 bytes; other accesses are undefined (SDM 3A, 11.4.1).
            guard offset & 15 < 4 else { return 0 }
            guard let value = readLocked(state, Int(truncatingIfNeeded: offset >> 4)) else {
                noteErrorLocked(&state, 1 << 7)  // Illegal register address.
                updateLocked(&state)
                return 0
            }
            return UInt64(value >> (UInt32(offset & 3) &* 8))
        }
    }

    package func writePage(offset: UInt64, bytes: Int, value: UInt64) {
        let effect = state.withLock { state -> Effect in
            guard state.isEnabled, !state.isX2APIC, offset & 15 == 0, bytes >= 4 else { return .none }
            let effect = writeLocked(&state, Int(truncatingIfNeeded: offset >> 4), UInt32(truncatingIfNeeded: value))
            if effect == nil { noteErrorLocked(&state, 1 << 7) }
            updateLocked(&state)
            return effect ?? .none
        }
        perform(effect)
    }
}
//:
