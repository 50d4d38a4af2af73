internal import CHost
internal import Glibc

/// An alarm clock on CLOCK_MONOTONIC (timerfd_create(2)). One thread waits;
/// any thread sets.
package struct TimerFD: ~Copyable, Sendable {
    package let descriptor: FileDescriptor

    package init() throws(HostError) {
        let number = timerfd_create(CLOCK_MONOTONIC, Int32(O_CLOEXEC))
        guard number >= 0 else { throw HostError("cannot create a timer", errno: .current) }
        descriptor = FileDescriptor(owning: number)
    }

    /// Rings once, at `nanoseconds` of CLOCK_MONOTONIC, at once if that is past.
    /// Forgets what was set before; nil only forgets.
    package func set(_ nanoseconds: UInt64?) {
        var value = itimerspec()
        if let nanoseconds {
            // A time of zero would disarm; and no clock of ours reaches a billion seconds.
            let time = min(max(nanoseconds, 1), 1_000_000_000_000_000_000)
            value.it_value = timespec(tv_sec: Int(time / 1_000_000_000), tv_nsec: Int(time % 1_000_000_000))
        }
        // TFD_TIMER_ABSTIME is 1.
        let result = unsafe timerfd_settime(descriptor.rawValue, 1, &value, nil)
        precondition(result == 0)
    }

    /// Sleeps until it rings.
    package func wait() {
        var count: UInt64 = 0
        _ = unsafe withUnsafeMutableBytes(of: &count) { unsafe try? descriptor.read(into: $0) }
    }
}
