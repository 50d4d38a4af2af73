internal import Glibc
internal import HostInterface
internal import Synchronization
package import VirtualCPU

/// Stops vCPUs that do not come back: an engine that hangs is a result, not a
/// hanging test. By a thread of its own, for tests may occupy all of Swift's.
package enum Deadline {
    private struct Watch {
        let requests: VCPURequests
        let end: UInt64
    }

    private static let watches = Mutex<[Int: Watch]>([:])
    private static let nextKey = Atomic<Int>(0)

    private static let thread = try? HostThread(name: "deadlines") {
        while true {
            var pause = timespec(tv_sec: 0, tv_nsec: 200_000_000)
            unsafe nanosleep(&pause, nil)
            let now = HostClock.monotonicNanoseconds
            for watch in watches.withLock({ $0.values.filter { $0.end < now } }) { watch.requests.post(.stop) }
        }
    }

    /// Whatever `body` runs is told to stop after so many seconds.
    package static func of<Result>(seconds: UInt64, _ requests: VCPURequests, _ body: () -> Result) -> Result {
        _ = thread
        let key = nextKey.wrappingAdd(1, ordering: .relaxed).newValue
        let watch = Watch(requests: requests, end: HostClock.monotonicNanoseconds &+ seconds * 1_000_000_000)
        watches.withLock { $0[key] = watch }
        defer { watches.withLock { _ = $0.removeValue(forKey: key) } }
        return body()
    }
}
