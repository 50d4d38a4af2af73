package import HostInterface
internal import Synchronization

/// What wakes a queue's thread: the driver's notification, something of the
/// host's that has arrived, or the wish that the thread end. Any thread rings;
/// one waits.
package final class Doorbell: Sendable {
    private let event: EventFD
    private let stopping = Atomic(false)

    package init() throws(HostError) { event = try EventFD() }

    /// An eventfd(2), for whoever can only write to one.
    package var descriptor: Int32 { event.rawValue }

    /// No lock and no allocation: the vCPU's thread comes here.
    package func ring() { event.signal() }

    /// Every `wait` returns false from now on, until `reset`.
    package func stop() {
        stopping.store(true, ordering: .releasing)
        event.signal()
    }

    package var isStopped: Bool { stopping.load(ordering: .acquiring) }

    /// Ready for another thread. Nobody may be waiting.
    package func reset() {
        stopping.store(false, ordering: .releasing)
        event.drain()
    }

    /// Sleeps until it is rung, or has been since the last `wait`, or until
    /// `descriptor`, if it is not negative, can be read.
    ///
    /// - Returns: false when it is time to end.
    package func wait(or descriptor: Int32 = -1) -> Bool {
        if isStopped { return false }
        if event.wait(or: descriptor) { event.drain() }
        return !isStopped
    }
}
