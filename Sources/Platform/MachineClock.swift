internal import HostInterface

/// The time that devices see. Tests bring their own and move it by hand.
package protocol MachineClock: Sendable {
    /// Nanoseconds of a clock that never goes back.
    var nanoseconds: UInt64 { get }
    /// Nanoseconds since 1970, UTC.
    var realtimeNanoseconds: UInt64 { get }
    /// The host's time-stamp counter.
    var timeStampCounter: UInt64 { get }
    /// Its frequency in Hz.
    var timeStampFrequency: UInt64 { get }
}

/// The host's own clocks.
package struct HostMachineClock: MachineClock {
    package init() {}
    package var nanoseconds: UInt64 { HostClock.monotonicNanoseconds }
    package var realtimeNanoseconds: UInt64 { HostClock.realtimeNanoseconds }
    package var timeStampCounter: UInt64 { HostClock.timeStampCounter }
    package var timeStampFrequency: UInt64 { HostClock.timeStampFrequency }
}

/// `value * numerator / denominator` without overflow on the way; what does not fit becomes `UInt64.max`.
func scale(_ value: UInt64, by numerator: UInt64, over denominator: UInt64) -> UInt64 {
    let (high, low) = value.multipliedFullWidth(by: numerator)
    if high >= denominator { return .max }
    return denominator.dividingFullWidth((high, low)).quotient
}

/// `left + right`, or `UInt64.max` where that is too much.
func saturatingSum(_ left: UInt64, _ right: UInt64) -> UInt64 {
    let (sum, overflow) = left.addingReportingOverflow(right)
    return overflow ? .max : sum
}
