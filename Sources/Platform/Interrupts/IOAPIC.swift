internal import Synchronization

//H:150 The I/O APIC
//
// A table that turns pins into messages (82093AA datasheet; ICH9 datasheet,
// 13.5). Two registers are visible, an index and a window:
//
//     0x00 IOREGSEL   0x10 IOWIN   0x40 EOI (from version 0x20 on)
//
// and behind them 0 ID, 1 version, 2 arbitration, and from 0x10 two words per
// pin: vector 0…7, delivery mode 8…10, logical 11, delivery status 12, active
// low 13, remote IRR 14, level 15, masked 16; destination 56…63.
//
// The difference between edge and level is memory. An edge is sent when it
// happens, and one that happens while masked is lost. A level is sent while it
// lasts, but only once until the CPU says EOI: remote IRR remembers that.

/// The machine's one I/O APIC.
package final class IOAPIC: BusDevice, Sendable {
    private struct State {
        var index: UInt8 = 0
        var identifier: UInt8 = MemoryMap.ioAPICIdentifier
        var entries = [UInt64](repeating: Entry.masked, count: MemoryMap.ioAPICPins)
        /// The level of each pin.
        var levels: UInt64 = 0
    }

    private enum Entry {
        static let remoteIRR: UInt64 = 1 << 14
        static let level: UInt64 = 1 << 15
        static let masked: UInt64 = 1 << 16
        /// What software can change: not delivery status and remote IRR.
        static let writable: UInt64 = 0xff00_0000_0001_afff
    }

    static let version: UInt32 = 0x20 | UInt32(MemoryMap.ioAPICPins - 1) << 16

    private let state = Mutex(State())
    private let bus: APICBus

    package init(bus: APICBus) { self.bus = bus }

    /// To the state after power-on; the pins keep their levels, which are their devices' business.
    package func reset() {
        state.withLock { state in
            let levels = state.levels
            state = State()
            state.levels = levels
        }
    }

    // MARK: Pins

    /// Called by `InterruptLines`, in order for each pin.
    func setPin(_ pin: Int, _ isHigh: Bool) {
        state.withLock { state in
            let bit = UInt64(1) << UInt64(pin)
            let wasHigh = state.levels & bit != 0
            if isHigh { state.levels |= bit } else { state.levels &= ~bit }
            let entry = state.entries[pin]
            if entry & Entry.level != 0 {
                deliverLevelLocked(&state, pin)
            } else if isHigh && !wasHigh && entry & Entry.masked == 0 {
                bus.send(Self.message(entry))
            }
        }
    }

    private func deliverLevelLocked(_ state: inout State, _ pin: Int) {
        let entry = state.entries[pin]
        guard state.levels >> UInt64(pin) & 1 != 0, entry & (Entry.masked | Entry.remoteIRR) == 0 else { return }
        let message = Self.message(entry)
        let taken = bus.send(message)
        // Only fixed and lowest-priority messages are answered by an EOI. It
        // cannot come before we have noted it: it needs our lock.
        if taken && (message.deliveryMode == .fixed || message.deliveryMode == .lowestPriority) {
            state.entries[pin] |= Entry.remoteIRR
        }
    }

    private static func message(_ entry: UInt64) -> InterruptMessage {
        let isLogical = entry & 1 << 11 != 0
        return InterruptMessage(
            vector: UInt8(truncatingIfNeeded: entry),
            deliveryMode: InterruptMessage.DeliveryMode(rawValue: UInt8(entry >> 8 & 7)) ?? .fixed,
            destination: InterruptMessage.widen(UInt8(entry >> 56), isLogical: isLogical),
            isLogical: isLogical, isLevel: entry & Entry.level != 0)
    }

    /// A CPU has finished with `vector`: level pins that are still high ask again.
    func endOfInterrupt(vector: UInt8) {
        state.withLock { state in
            for pin in state.entries.indices {
                let entry = state.entries[pin]
                guard UInt8(truncatingIfNeeded: entry) == vector, entry & Entry.remoteIRR != 0 else { continue }
                state.entries[pin] &= ~Entry.remoteIRR
                deliverLevelLocked(&state, pin)
            }
        }
    }

    // MARK: Registers

    package func read(offset: UInt64, bytes: Int) -> UInt64 {
        state.withLock { state in
            switch offset {
            case 0x00: return UInt64(state.index)
            case 0x10: return UInt64(Self.readRegister(state))
            default: return 0
            }
        }
    }

    package func write(offset: UInt64, bytes: Int, value: UInt64) {
        switch offset {
        case 0x00: state.withLock { $0.index = UInt8(truncatingIfNeeded: value) }
        case 0x10: state.withLock { writeRegisterLocked(&$0, UInt32(truncatingIfNeeded: value)) }
        case 0x40: endOfInterrupt(vector: UInt8(truncatingIfNeeded: value))
        default: break
        }
    }

    private static func readRegister(_ state: State) -> UInt32 {
        switch state.index {
        case 0, 2: return UInt32(state.identifier) << 24
        case 1: return version
        case 0x10...:
            let pin = Int(state.index &- 0x10) >> 1
            guard pin < state.entries.count else { return 0 }
            return UInt32(truncatingIfNeeded: state.entries[pin] >> (state.index & 1 == 0 ? 0 : 32))
        default: return 0
        }
    }

    private func writeRegisterLocked(_ state: inout State, _ value: UInt32) {
        if state.index == 0 { state.identifier = UInt8(value >> 24 & 15) }
        guard state.index >= 0x10 else { return }
        let pin = Int(state.index &- 0x10) >> 1
        guard pin < state.entries.count else { return }
        let old = state.entries[pin]
        var new =
            state.index & 1 == 0
            ? old & 0xffff_ffff_0000_0000 | UInt64(value) : old & 0xffff_ffff | UInt64(value) << 32
        new = new & Entry.writable | old & Entry.remoteIRR
        // An edge pin owes nobody an EOI. Kernels without the EOI register
        // get a stuck pin free by making it edge and level again.
        if new & Entry.level == 0 { new &= ~Entry.remoteIRR }
        state.entries[pin] = new
        if new & Entry.level != 0 { deliverLevelLocked(&state, pin) }
    }
}
//:
