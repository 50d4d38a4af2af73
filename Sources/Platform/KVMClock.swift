package import GuestMemory
internal import Synchronization
internal import X86

//H:220 A clock that needs no calibration
//
// A guest that finds "KVMKVMKVM" in CPUID asks for its time in a page of its
// own memory (Linux, Documentation/virt/kvm/x86/msr.rst). In it is a line:
// at this TSC it was this many nanoseconds, and a tick is worth so much.
//
//     0 version   8 tsc_timestamp   16 system_time
//     24 tsc_to_system_mul   28 tsc_shift   29 flags
//
//     time = system_time + ((tsc − tsc_timestamp) << shift) · mul >> 32
//
// Ours is one line for the whole life of the machine, drawn through the moment
// it was switched on. So every vCPU reads the same time, and writing the page
// again, after the Guest has set its TSC, cannot make time jump.

/// Turns TSC ticks into nanoseconds as the page has it.
package struct TimeScale: Equatable, Sendable {
    package let multiplier: UInt32
    package let shift: Int8

    /// - Parameter frequency: ticks per second, 1 kHz…2^62 Hz.
    package init(frequency: UInt64) {
        // The multiplier is a fraction of 2^32 and should use all its bits:
        // shift until a tick, so scaled, is worth half a nanosecond to one.
        var shift = 0
        var hertz = max(frequency, 1000)
        while hertz > 2_000_000_000 {
            hertz >>= 1
            shift -= 1
        }
        // From the frequency itself, so that the halving above rounds nothing away.
        var denominator = shift < 0 ? frequency : hertz
        while shift >= 0 && denominator <= 1_000_000_000 {
            denominator <<= 1
            shift += 1
        }
        let numerator: UInt64 = 1_000_000_000 << UInt64(max(0, -shift))
        let value = scale(numerator, by: 1 << 32, over: denominator)
        multiplier = UInt32(clamping: value)
        self.shift = Int8(shift)
    }

    package func nanoseconds(_ ticks: UInt64) -> UInt64 {
        let shifted = shift >= 0 ? ticks << UInt64(shift) : ticks >> UInt64(-Int(shift))
        let (high, low) = shifted.multipliedFullWidth(by: UInt64(multiplier))
        return high << 32 | low >> 32
    }
}

/// The paravirtual clock of one vCPU. Called on its thread.
package final class KVMClock: Sendable {
    /// TSC_STABLE: all vCPUs' readings agree.
    private static let stableFlag: UInt8 = 1
    private static let pageBytes = 32

    private struct State {
        var systemTime: UInt64 = 0
        var wallClock: UInt64 = 0
        var version: UInt32 = 0
        /// Guest TSC − host TSC when the page was written.
        var offset: UInt64 = 0
    }

    private let state = Mutex(State())
    private let memory: GuestMemory
    private let clock: any MachineClock
    private let scaling: TimeScale
    /// The host's TSC when the machine was switched on.
    private let origin: UInt64

    package init(memory: GuestMemory, clock: any MachineClock) {
        self.memory = memory
        self.clock = clock
        scaling = TimeScale(frequency: clock.timeStampFrequency)
        origin = clock.timeStampCounter
    }

    package func reset() { state.withLock { $0 = State() } }

    /// MSRs 0x11 and 0x12 are the numbers of the first version.
    private static func isWallClock(_ index: UInt32) -> Bool { index == MSR.kvmWallClock || index == 0x11 }
    private static func isSystemTime(_ index: UInt32) -> Bool { index == MSR.kvmSystemTime || index == 0x12 }

    /// Nil: not an MSR of ours.
    package func read(_ index: UInt32) -> UInt64? {
        if Self.isWallClock(index) { return state.withLock { $0.wallClock } }
        if Self.isSystemTime(index) { return state.withLock { $0.systemTime } }
        return nil
    }

    /// Whether it was an MSR of ours with an address that is RAM.
    package func write(_ index: UInt32, _ value: UInt64, offset: UInt64) -> Bool {
        state.withLock { state in
            if Self.isWallClock(index) {
                guard memory.contains(GuestPhysicalAddress(value), 12) else { return false }
                state.wallClock = value
                writeWallClock(at: GuestPhysicalAddress(value))
                return true
            }
            guard Self.isSystemTime(index) else { return false }
            // Bit 0 switches it on, bit 1 is reserved: the structure is aligned to 4.
            if value & 1 != 0 && !memory.contains(GuestPhysicalAddress(value & ~1), Self.pageBytes) { return false }
            state.systemTime = value
            writePage(&state, offset: offset)
            return true
        }
    }

    /// The Guest may have set its TSC: the page is written anew if so.
    package func timeStampOffsetChanged(to offset: UInt64) {
        state.withLock { state in
            if state.systemTime & 1 != 0 && state.offset != offset { writePage(&state, offset: offset) }
        }
    }

    private func writePage(_ state: inout State, offset: UInt64) {
        guard state.systemTime & 1 != 0 else { return }
        let page = GuestPhysicalAddress(state.systemTime & ~1)
        state.offset = offset
        // An odd version says "being written". The only reader stands still
        // meanwhile: it is the vCPU whose thread this is.
        state.version &+= 2
        try? memory.store(state.version &- 1, at: page)
        try? memory.store(origin &+ offset, at: page + 8)
        try? memory.store(UInt64(0), at: page + 16)
        try? memory.store(scaling.multiplier, at: page + 24)
        try? memory.store(scaling.shift, at: page + 28)
        try? memory.store(Self.stableFlag, at: page + 29)
        try? memory.store(state.version, at: page)
    }

    /// The wall-clock time of system time 0: version, seconds, nanoseconds.
    private func writeWallClock(at address: GuestPhysicalAddress) {
        let elapsed = scaling.nanoseconds(clock.timeStampCounter &- origin)
        let start = clock.realtimeNanoseconds &- elapsed
        let version = (try? memory.load(at: address, as: UInt32.self)) ?? 0
        try? memory.store(version | 1, at: address)
        try? memory.store(UInt32(truncatingIfNeeded: start / 1_000_000_000), at: address + 4)
        try? memory.store(UInt32(start % 1_000_000_000), at: address + 8)
        try? memory.store((version | 1) &+ 1, at: address)
    }
}
//:
