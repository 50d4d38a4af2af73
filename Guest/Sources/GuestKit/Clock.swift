internal import CGuest

//G:070 What time is it?
//
// The CPU counts; that is RDTSC, and costs nothing. What it counts in, the
// Host tells: so many thousands a second. Nanoseconds are then a product and a
// shift: factor = 10⁶ · 2³² / kHz, worked out once, since a division of 128
// bits is something that Embedded Swift would want a library for.
//
// For a Host whose counter is no clock (it says 0 kHz) there is a coarser
// one: it writes the time down with each interrupt.

/// Time, and sleeping through it.
public enum Clock {
    @safe nonisolated(unsafe) private static var factor: UInt64 = 0
    @safe nonisolated(unsafe) private static var start: UInt64 = 0

    static func begin() {
        let kHz = UInt64(Shared.page.load(Int(LguestData.tscKHz), as: UInt32.self))
        factor = kHz == 0 ? 0 : (1_000_000 << 32) / kHz
        start = guest_time_stamp()
    }

    /// Since the Guest began.
    public static var nanoseconds: UInt64 {
        guard factor != 0 else {
            return Shared.load(LguestData.time) &* 1_000_000_000 &+ Shared.load(LguestData.time + 8)
        }
        let (high, low) = (guest_time_stamp() &- start).multipliedFullWidth(by: factor)
        return high << 32 | low >> 32
    }

    /// Seconds since 1970, UTC.
    public static var wallClock: UInt64 { Hypercall.wallClock() }

    /// Sleeps at least so long; interrupts are handled.
    public static func sleep(nanoseconds duration: UInt64) {
        _ = Interrupts.wait(until: false, before: nanoseconds &+ duration)
    }

    /// Sleeps at least so long.
    public static func sleep(milliseconds: UInt64) { sleep(nanoseconds: milliseconds &* 1_000_000) }
}
//:
