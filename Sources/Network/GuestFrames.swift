internal import HostInterface
internal import Synchronization

/// The ring of frames for the Guest, with a bell for the reader who found it empty
/// and a mark for writers who should hold back.
@safe package final class GuestFrames: Sendable {
    static let capacity = 4 << 20
    /// From here on nothing is asked for that has not been asked for yet, until half of it is gone.
    package static let crowded = 512 << 10

    /// Readable when frames have come since `take` found none.
    let arrived: EventFD
    private let ring: FrameRing
    /// The reader has found the ring empty and will look at `arrived`.
    private let readerSleeps = Atomic<Bool>(true)
    /// A writer holds back.
    private let writerHolds = Atomic<Bool>(false)
    private let dropped = Atomic<UInt64>(0)
    /// `NetworkOffloads` that the driver accepted.
    private let accepted = Atomic<UInt64>(0)

    init() throws(HostError) {
        ring = try FrameRing(capacity: GuestFrames.capacity)
        arrived = try EventFD()
    }

    var droppedFrames: UInt64 { dropped.load(ordering: .relaxed) }

    func configure(_ accepted: NetworkOffloads) { self.accepted.store(accepted.rawValue, ordering: .relaxed) }

    /// Adds a frame, with the header that it lacks; or drops it. The writer's.
    func append(_ frame: UnsafeRawBufferPointer) {
        let offloads = NetworkOffloads(rawValue: accepted.load(ordering: .relaxed))
        unsafe append(FrameHeader.byteCount + frame.count) { place in
            let body = unsafe UnsafeMutableRawBufferPointer(rebasing: place[FrameHeader.byteCount...])
            unsafe body.copyMemory(from: frame)
            unsafe FrameHeader(marking: body, offloads).write(to: place)
        }
    }

    /// Adds a frame of `count` bytes, header and all, which `fill` writes; or drops it. The writer's.
    ///
    /// - Returns: false if it was dropped.
    @discardableResult
    func append(_ count: Int, _ fill: (UnsafeMutableRawBufferPointer) -> Void) -> Bool {
        guard count <= FrameHeader.largestFrame, unsafe ring.append(count, fill) else {
            drop()
            return false
        }
        // ORDERING: after the frame, in one order with `take`, which first says
        // that it sleeps and then looks again.
        if readerSleeps.load(ordering: .sequentiallyConsistent),
            readerSleeps.exchange(false, ordering: .sequentiallyConsistent)
        {
            arrived.signal()
        }
        return true
    }

    /// Counts a frame that is not added.
    func drop() { dropped.wrappingAdd(1, ordering: .relaxed) }

    /// The oldest frame, and whether the ring has just stopped being crowded. The reader's.
    func take(into buffer: UnsafeMutableRawBufferPointer) -> (count: Int, relieves: Bool)? {
        var taken = unsafe ring.take(into: buffer)
        if taken == nil {
            arrived.drain()
            readerSleeps.store(true, ordering: .sequentiallyConsistent)
            taken = unsafe ring.take(into: buffer)
            guard taken != nil else { return nil }
            readerSleeps.store(false, ordering: .sequentiallyConsistent)
        }
        let relieves =
            writerHolds.load(ordering: .sequentiallyConsistent) && ring.used <= GuestFrames.crowded / 2
            && writerHolds.exchange(false, ordering: .sequentiallyConsistent)
        return taken.map { ($0, relieves) }
    }

    /// Whether to hold back; if so, `take` says when that is over. The writer's.
    func isCrowded() -> Bool {
        guard ring.used > GuestFrames.crowded else {
            writerHolds.store(false, ordering: .relaxed)
            return false
        }
        writerHolds.store(true, ordering: .sequentiallyConsistent)
        // ORDERING: the reader may have emptied it before it could see the mark.
        if ring.used > GuestFrames.crowded / 2 { return true }
        writerHolds.store(false, ordering: .sequentiallyConsistent)
        return false
    }

    /// Forgets all frames, while nobody writes or reads.
    func removeAll() {
        ring.removeAll()
        arrived.drain()
        writerHolds.store(false, ordering: .sequentiallyConsistent)
        readerSleeps.store(true, ordering: .sequentiallyConsistent)
    }
}
