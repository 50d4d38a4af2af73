internal import Synchronization

//H:210 Ways out
//
// A machine can be switched off (ACPI: SLP_EN with the right SLP_TYP in
// PM1a_CNT), reset (port 0xcf9, the keyboard controller, port 0x92), or, if it
// is a test program, leave with a number (port 0xf4, as QEMU's isa-debug-exit
// has it: status = value·2 + 1, so that 0 cannot be said by accident). Whatever
// it does, it does by a port write in the middle of an exit; the wish is noted
// here, and `PC.handle` returns it.

/// Why a Guest's run ended.
package enum RunOutcome: Equatable, Sendable {
    case poweroff
    case reset
    /// Port 0xf4. The low eight bits are what a process can exit with.
    case exit(code: Int32)
    /// The vCPU cannot go on: why, in words.
    case shutdown(reason: String)
    /// Asked to by `VCPURequests.Request.stop`.
    case stopped
}

/// Where devices leave the wish to end. The first one counts.
final class OutcomeBox: Sendable {
    private let outcome = Mutex<RunOutcome?>(nil)
    private let isSet = Atomic(false)

    func request(_ wish: RunOutcome) {
        outcome.withLock { if $0 == nil { $0 = wish } }
        isSet.store(true, ordering: .releasing)
    }

    func take() -> RunOutcome? {
        // ORDERING: pairs with `request`; devices are called on our own thread anyway.
        guard isSet.load(ordering: .acquiring) else { return nil }
        return outcome.withLock { outcome in
            isSet.store(false, ordering: .relaxed)
            defer { outcome = nil }
            return outcome
        }
    }
}

/// ACPI's PM1a registers and timer (ACPI 6.5, 4.8.3), at `MemoryMap.pm1aEvent`:
/// status 0, enable 2, control 4, timer 8.
final class PowerManagement: BusDevice, Sendable {
    static let portCount: UInt64 = 12
    private static let timerFrequency: UInt64 = 3_579_545

    private struct State {
        var enable: UInt16 = 0
        var control: UInt16 = 0
    }

    private let state = Mutex(State())
    private let clock: any MachineClock
    private let outcome: OutcomeBox

    init(clock: any MachineClock, outcome: OutcomeBox) {
        self.clock = clock
        self.outcome = outcome
    }

    func reset() { state.withLock { $0 = State() } }

    func read(offset: UInt64, bytes: Int) -> UInt64 {
        let image = state.withLock { state in
            // No status bit is ever set: there is no button and no timer interrupt.
            // SCI_EN is always set: there is no other mode to come from.
            UInt64(state.enable) << 16 | UInt64(state.control | 1) << 32
        }
        if offset < 8 { return image >> (offset &* 8) }
        let timer = scale(clock.nanoseconds, by: Self.timerFrequency, over: 1_000_000_000) & 0xffff_ffff
        return timer >> ((offset &- 8) &* 8)
    }

    func write(offset: UInt64, bytes: Int, value: UInt64) {
        // An access is of any width and place; what matters are these two words.
        let mask = UInt64.max >> UInt64(64 &- bytes &* 8)
        guard offset < 8 else { return }
        let shift = offset &* 8
        let sleeps = state.withLock { state in
            var image = UInt64(state.enable) << 16 | UInt64(state.control) << 32
            image = image & ~(mask << shift) | (value & mask) << shift
            state.enable = UInt16(truncatingIfNeeded: image >> 16)
            let control = UInt16(truncatingIfNeeded: image >> 32)
            state.control = control & ~(1 << 13)  // SLP_EN reads as 0.
            return control >> 13 & 1 != 0 && UInt8(control >> 10 & 7) == MemoryMap.sleepTypeS5
        }
        if sleeps { outcome.request(.poweroff) }
    }
}

/// Ports 0xcf8…0xcff. A PCI host bridge would be here, and reset control in
/// the middle of it, at 0xcf9. There is no PCI, and all of it reads as ones.
final class ResetControl: BusDevice, Sendable {
    private let outcome: OutcomeBox
    init(outcome: OutcomeBox) { self.outcome = outcome }

    func read(offset: UInt64, bytes: Int) -> UInt64 {
        offset == UInt64(MemoryMap.resetRegister &- MemoryMap.pciConfiguration) && bytes == 1 ? 0 : .max
    }

    func write(offset: UInt64, bytes: Int, value: UInt64) {
        // Only a single byte is for the reset register: a PCI address, all
        // four bytes, passes through here too.
        guard offset == UInt64(MemoryMap.resetRegister &- MemoryMap.pciConfiguration), bytes == 1 else { return }
        if value & 4 != 0 { outcome.request(.reset) }
    }
}

/// Port 0xf4.
final class ExitPort: BusDevice, Sendable {
    private let outcome: OutcomeBox
    init(outcome: OutcomeBox) { self.outcome = outcome }
    func read(offset: UInt64, bytes: Int) -> UInt64 { .max }
    func write(offset: UInt64, bytes: Int, value: UInt64) {
        outcome.request(.exit(code: Int32(truncatingIfNeeded: value << 1 | 1)))
    }
}

/// Port 0xe9, as Bochs has it: what is written there is printed, and it reads
/// as its own number so that a program can know.
final class DebugPort: ByteDevice, Sendable {
    private let send: @Sendable (UInt8) -> Void
    init(send: @escaping @Sendable (UInt8) -> Void) { self.send = send }
    func read(register: Int) -> UInt8 { 0xe9 }
    func write(register: Int, _ value: UInt8) { send(value) }
}

/// Port 0x80 and its like: takes anything, says nothing.
final class DeafPort: ByteDevice, Sendable {
    func read(register: Int) -> UInt8 { 0xff }
    func write(register: Int, _ value: UInt8) {}
}
//:
