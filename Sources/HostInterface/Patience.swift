//D:055 Not to sleep too soon
//
// To wake a thread costs a system call on one side, some microseconds on the
// other, and before that the driver's notification, which is an exit. To
// interrupt a driver costs it an exception and three exits. A driver that has
// many requests under way puts the next one in long before all that is over:
// whoever looks at the ring a little longer, instead of saying "done" and
// going to sleep at once, gets the next request for nothing, and has a dozen
// to interrupt for, not one. A driver that has one request under way waits for
// our interrupt, and every microsecond of such patience is lost.
//
// We cannot know which it is, but we can learn: to look is tried now and then,
// and more often the more often it was worth while. A vCPU that halts does the
// same before it sleeps: a quick device's interrupt may be on its way.

/// Whether looking a little longer has been worth while lately.
package struct Patience: ~Copyable {
    /// As long as going to sleep and waking up takes, and some more.
    private static let limit = HostClock.timeStampFrequency / 20_000  // 50 µs
    /// With one CPU, to look is to keep the Guest from what one is looking for.
    private static let isUseful = HostCPUs.count > 1
    private static let mostSkipped = 16

    /// How often not to try; doubled by each failure.
    private var toSkip = 0
    private var backOff = 0

    package init() {}

    /// Looks until `found` or `isHopeless` says yes, or for as long as it may be worth while.
    ///
    /// - Returns: whether something was found.
    package mutating func look(for found: () -> Bool, unless isHopeless: () -> Bool) -> Bool {
        if found() { return true }
        guard Self.isUseful else { return false }
        if toSkip > 0 {
            toSkip -= 1
            return false
        }
        let start = HostClock.timeStampCounter
        while !isHopeless(), HostClock.timeStampCounter &- start < Self.limit {
            for _ in 0..<16 {
                if found() {
                    backOff = 0
                    return true
                }
                HostCPUs.pause()
            }
        }
        backOff = min(max(1, backOff * 2), Self.mostSkipped)
        toSkip = backOff
        return false
    }
}
//:
