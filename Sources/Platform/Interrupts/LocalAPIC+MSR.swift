internal import GuestMemory
internal import Synchronization

//H:146 x2APIC: the same registers as MSRs
//
// The manual is strict here (SDM 3A, 11.12.1): a register that does not exist,
// a read of one that is write-only, a write of one that is read-only, a
// reserved bit that is set, all of them are #GP(0). Kernels' tests look.
extension LocalAPIC {
    private static let bootProcessor: UInt64 = 1 << 8
    private static let extended: UInt64 = 1 << 10
    private static let enabled: UInt64 = 1 << 11

    /// IA32_APIC_BASE.
    package var baseMSR: UInt64 {
        state.withLock { state in
            MemoryMap.localAPIC.rawValue | (state.identifier == 0 ? Self.bootProcessor : 0)
                | (state.isX2APIC ? Self.extended : 0) | (state.isEnabled ? Self.enabled : 0)
        }
    }

    /// Whether the write is a legal one; #GP if not (SDM 3A, 11.12.5).
    /// The page stays where it is: the manual lets software move it, we do not.
    package func writeBase(_ value: UInt64) -> Bool {
        let known = MemoryMap.localAPIC.rawValue | Self.bootProcessor | Self.extended | Self.enabled
        guard value & ~known == 0, value & ~0xfff == MemoryMap.localAPIC.rawValue else { return false }
        let isEnabled = value & Self.enabled != 0
        let isX2APIC = value & Self.extended != 0
        return state.withLock { state in
            if isX2APIC && (!isEnabled || !state.isEnabled) { return false }
            if state.isX2APIC && isEnabled && !isX2APIC { return false }
            if !isEnabled {
                // All is forgotten but the wire from the 8259 (SDM 3A, 11.4.3).
                let externalLine = state.externalLine
                state = State(identifier: state.identifier)
                state.externalLine = externalLine
                state.isEnabled = false
                setAlarm(nil)
            } else {
                state.isEnabled = true
                if isX2APIC && !state.isX2APIC { state.commandHigh = 0 }
                state.isX2APIC = isX2APIC
            }
            updateLocked(&state)
            return true
        }
    }

    /// MSR 0x800 + `number`. Nil: #GP.
    package func readX2APIC(_ number: Int) -> UInt64? {
        state.withLock { state in
            guard state.isEnabled, state.isX2APIC else { return nil }
            guard let low = readLocked(state, number) else { return nil }
            return number == Number.commandLow ? UInt64(state.commandHigh) << 32 | UInt64(low) : UInt64(low)
        }
    }

    /// Whether the write was legal; #GP if not.
    package func writeX2APIC(_ number: Int, _ value: UInt64) -> Bool {
        let effect = state.withLock { state -> Effect? in
            guard state.isEnabled, state.isX2APIC, let reserved = Self.reservedBits(number), value & reserved == 0
            else {
                return nil
            }
            if number == Number.commandLow { state.commandHigh = UInt32(value >> 32) }
            let effect = writeLocked(&state, number, UInt32(truncatingIfNeeded: value))
            updateLocked(&state)
            return effect
        }
        guard let effect else { return false }
        perform(effect)
        return true
    }

    /// The bits of a register that must be written as 0; nil if it cannot be written.
    private static func reservedBits(_ number: Int) -> UInt64? {
        switch number {
        case Number.taskPriority, Number.selfInterrupt: ~0xff
        case Number.endOfInterrupt, Number.errorStatus: ~0
        case Number.spurious: ~0x3ff
        // Vector, delivery mode, logical, (status), assert, level, shorthand; destination.
        case Number.commandLow: 0xfff3_2000
        case Number.localVectors..<Number.localVectors + 6:
            ~UInt64(
                LocalVector.writable(number - Number.localVectors) | LocalVector.readOnly(number - Number.localVectors))
        case Number.initialCount: ~0xffff_ffff
        case Number.divide: ~0xb
        default: nil
        }
    }
}
//:
