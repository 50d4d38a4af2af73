internal import Synchronization

/// `NetworkStatistics` as they grow, on any thread.
struct NetworkCounters: ~Copyable {
    private let sentFrames = Atomic<UInt64>(0)
    private let sentBytes = Atomic<UInt64>(0)
    private let receivedFrames = Atomic<UInt64>(0)
    private let receivedBytes = Atomic<UInt64>(0)
    private let refusedFrames = Atomic<UInt64>(0)

    /// - Parameter count: the frame's length, without its header.
    func send(_ count: Int) {
        sentFrames.wrappingAdd(1, ordering: .relaxed)
        sentBytes.wrappingAdd(UInt64(count), ordering: .relaxed)
    }

    /// - Parameter count: the frame's length, without its header.
    func receive(_ count: Int) {
        receivedFrames.wrappingAdd(1, ordering: .relaxed)
        receivedBytes.wrappingAdd(UInt64(count), ordering: .relaxed)
    }

    func refuse() { refusedFrames.wrappingAdd(1, ordering: .relaxed) }

    /// What they have come to; of dropped frames the back end knows.
    func statistics(droppedFrames: UInt64) -> NetworkStatistics {
        var statistics = NetworkStatistics()
        statistics.sentFrames = sentFrames.load(ordering: .relaxed)
        statistics.sentBytes = sentBytes.load(ordering: .relaxed)
        statistics.receivedFrames = receivedFrames.load(ordering: .relaxed)
        statistics.receivedBytes = receivedBytes.load(ordering: .relaxed)
        statistics.refusedFrames = refusedFrames.load(ordering: .relaxed)
        statistics.droppedFrames = droppedFrames
        return statistics
    }
}
