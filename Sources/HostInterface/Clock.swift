internal import CHost
internal import Glibc

/// The host's clocks.
package enum HostClock {
    /// Nanoseconds of CLOCK_MONOTONIC.
    package static var monotonicNanoseconds: UInt64 { read(CLOCK_MONOTONIC) }

    /// Nanoseconds since 1970 of CLOCK_REALTIME.
    package static var realtimeNanoseconds: UInt64 { read(CLOCK_REALTIME) }

    /// The time-stamp counter.
    package static var timeStampCounter: UInt64 { chost_rdtsc() }

    private static func read(_ clock: clockid_t) -> UInt64 {
        var time = timespec()
        unsafe clock_gettime(clock, &time)
        return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
    }

    /// The time-stamp counter's frequency in Hz, measured against CLOCK_MONOTONIC between the process's
    /// `begin` and the first time that somebody asks, and over 4 ms at least. Good to about 20 parts in a million.
    package static let timeStampFrequency: UInt64 = measureTimeStampFrequency()

    /// To be called early: who asks for the frequency then need not wait.
    package static func begin() { _ = beginning }

    private static let beginning = pair()
    private static let leastNanoseconds: UInt64 = 4_000_000

    /// Counter and clock, taken so that nothing came between: the tightest of several tries.
    private static func pair() -> (tsc: UInt64, nanoseconds: UInt64) {
        var best = (tsc: UInt64(0), nanoseconds: UInt64(0), width: UInt64.max)
        for _ in 0..<16 {
            let before = timeStampCounter
            let now = monotonicNanoseconds
            let after = timeStampCounter
            if after &- before < best.width { best = (before &+ (after &- before) / 2, now, after &- before) }
        }
        return (best.tsc, best.nanoseconds)
    }

    private static func measureTimeStampFrequency() -> UInt64 {
        let start = beginning
        while true {
            let past = monotonicNanoseconds &- start.nanoseconds
            if past >= leastNanoseconds { break }
            var pause = timespec(tv_sec: 0, tv_nsec: Int(leastNanoseconds - past))
            unsafe nanosleep(&pause, nil)
        }
        let end = pair()
        let ticks = end.tsc &- start.tsc
        let elapsed = max(1, end.nanoseconds &- start.nanoseconds)
        let (high, low) = ticks.multipliedFullWidth(by: 1_000_000_000)
        let hertz = elapsed.dividingFullWidth((high, low)).quotient
        return hertz / 1000 * 1000  // Linux keeps kHz; a tail of noise helps nobody.
    }
}
