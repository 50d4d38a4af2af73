internal import Synchronization

//G:090 A queue, from the driver's side
//
// D:030 tells of the same three tables from over there. We own the
// descriptors and the available ring, and read the used one. Descriptors that
// are in nobody's hands are chained to each other by the field that chains the
// parts of a request; so a request takes some from the front of that chain,
// and when it is done, all of them go back with one assignment.
//
// The moment that matters is the store to available.idx: until then the Host
// sees nothing, from then on it may read everything, on another CPU, at once.
// So it comes last, and releases what was stored before. Then comes a look at
// whether the Host wants to be told. That look must not overtake the store,
// which x86 would allow it to; so there is a fence. Without it, one request in
// some millions lies there until the next one comes.

/// The driver's side of one split virtqueue (virtio 1.2, 2.7) in the Host's pages.
public struct Virtqueue: ~Copyable {
    /// A part of a request.
    public struct Part {
        var region: Region
        var isWritable: Bool

        /// For the device to read.
        public static func read(_ region: Region) -> Part { Part(region: region, isWritable: false) }
        /// For the device to write.
        public static func write(_ region: Region) -> Part { Part(region: region, isWritable: true) }
    }

    /// A request that the device is done with.
    public struct Completion {
        /// Where its first part is: that tells requests apart.
        public let address: UInt64
        /// How many bytes the device has written.
        public let written: Int
    }

    /// How many descriptors it has, a power of two.
    public let entries: UInt16
    private let ring: Region
    private let available: Int
    private let used: Int
    private var firstFree: UInt16 = 0
    private var freeCount: UInt16
    private var nextAvailable: UInt16 = 0
    private var nextUsed: UInt16 = 0

    private static let hasNext: UInt16 = 1
    private static let isWritable: UInt16 = 2
    /// In the used ring's flags: the device looks without being told.
    private static let noNotify: UInt16 = 1

    /// Descriptors, available ring, then at the next multiple of 4096 the used ring.
    static func byteCount(_ entries: UInt16) -> Int { usedOffset(entries) + 6 + 8 * Int(entries) }

    private static func usedOffset(_ entries: UInt16) -> Int {
        let alignment = Int(LguestDescriptor.ringAlignment)
        return (18 * Int(entries) + 6 + alignment - 1) / alignment * alignment
    }

    init(_ ring: Region, entries: UInt16) {
        self.ring = ring
        self.entries = entries
        available = 16 * Int(entries)
        used = Virtqueue.usedOffset(entries)
        freeCount = entries
        for index in 0..<entries { ring.store(index &+ 1, at: Int(index) * 16 + 14) }
        ring.store(UInt32(0), at: available)
        ring.store(UInt32(0), at: used)
    }

    /// Puts a request in: what the device reads comes before what it writes.
    /// It need not be told before several are in (`notify`).
    ///
    /// - Returns: false if the queue has no room for it.
    @discardableResult public mutating func add<let count: Int>(_ parts: InlineArray<count, Part>) -> Bool {
        guard count > 0, count <= Int(freeCount) else { return false }
        let head = firstFree
        var descriptor = 0
        for index in 0..<count {
            descriptor = Int(firstFree) * 16
            ring.store(parts[index].region.address, at: descriptor)
            ring.store(UInt32(parts[index].region.count), at: descriptor + 8)
            let isLast = index == count - 1
            ring.store(
                (isLast ? 0 : Virtqueue.hasNext) | (parts[index].isWritable ? Virtqueue.isWritable : 0),
                at: descriptor + 12)
            firstFree = ring.load(descriptor + 14)
        }
        freeCount -= UInt16(count)
        ring.store(head, at: available + 4 + 2 * Int(nextAvailable % entries))
        nextAvailable &+= 1
        // ORDERING: the device reads idx with acquire, then all of the above.
        ring.storeReleasing(nextAvailable, at: available + 2)
        return true
    }

    /// Tells the device that there are requests, unless it looks anyway.
    public func notify() {
        // ORDERING: the device clears the flag, then looks at idx once more.
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        if ring.loadAcquiring(used) & Virtqueue.noNotify == 0 { Hypercall.notify(ring.address) }
    }

    /// Whether `next` has something.
    public var hasCompletion: Bool {
        // ORDERING: the device releases idx after its data and the used element.
        ring.loadAcquiring(used + 2) != nextUsed
    }

    /// The next request that is done, in the device's order.
    public mutating func next() -> Completion? {
        guard hasCompletion else { return nil }
        let element = used + 4 + 8 * Int(nextUsed % entries)
        let head = UInt16(truncatingIfNeeded: ring.load(element, as: UInt32.self))
        let written = Int(ring.load(element + 4, as: UInt32.self))
        nextUsed &+= 1
        free(head)
        return Completion(address: ring.load(Int(head) * 16), written: written)
    }

    /// Sleeps until a request is done.
    public mutating func wait() -> Completion {
        while true {
            Interrupts.wait(until: hasCompletion)
            if let completion = next() { return completion }
        }
    }

    private mutating func free(_ head: UInt16) {
        var last = Int(head) * 16
        freeCount += 1
        while ring.load(last + 12, as: UInt16.self) & Virtqueue.hasNext != 0 {
            last = Int(ring.load(last + 14, as: UInt16.self)) * 16
            freeCount += 1
        }
        ring.store(firstFree, at: last + 14)
        firstFree = head
    }
}
//:
