package import HostInterface
internal import Synchronization

/// Frames on their way to the Guest, in the order they came: a ring of bytes for
/// one writer and one reader at a time, without a lock. Each frame lies in one
/// piece, after its length; a length of zero says that the rest of the ring is skipped.
@safe package final class FrameRing: @unchecked Sendable {
    // SAFETY: the writer touches only bytes between tail and head, the reader only
    // those between head and tail, and each publishes with release what the other
    // acquires. Both numbers grow forever; their place is their remainder.
    private let memory: AddressRange
    private let head = Atomic<Int>(0)
    private let tail = Atomic<Int>(0)
    private let capacity: Int

    private static let alignment = 8

    /// - Parameter capacity: a power of two.
    package init(capacity: Int) throws(HostError) {
        precondition(capacity > 0 && capacity & (capacity - 1) == 0)
        memory = try AddressRange(allocating: capacity)
        self.capacity = capacity
    }

    /// Bytes in use. ORDERING: in one order with flags that writer and reader set
    /// for each other.
    package var used: Int {
        tail.load(ordering: .sequentiallyConsistent) &- head.load(ordering: .sequentiallyConsistent)
    }

    /// Adds a frame of `count` bytes, which `fill` writes. The writer's.
    ///
    /// - Returns: false if there is no room.
    package func append(_ count: Int, _ fill: (UnsafeMutableRawBufferPointer) -> Void) -> Bool {
        let start = tail.load(ordering: .relaxed)
        let need = FrameRing.alignment + (count + FrameRing.alignment - 1) & ~(FrameRing.alignment - 1)
        let place = start & (capacity - 1)
        let skipped = place + need > capacity ? capacity - place : 0
        // ORDERING: acquires what the reader has released: it is done with the bytes.
        guard start &- head.load(ordering: .acquiring) + skipped + need <= capacity else { return false }
        if skipped > 0 { unsafe memory.base.storeBytes(of: 0, toByteOffset: place, as: UInt64.self) }
        let target = skipped > 0 ? 0 : place
        unsafe memory.base.storeBytes(of: UInt64(count), toByteOffset: target, as: UInt64.self)
        unsafe fill(UnsafeMutableRawBufferPointer(start: memory.base + target + FrameRing.alignment, count: count))
        tail.store(start &+ skipped &+ need, ordering: .sequentiallyConsistent)
        return true
    }

    /// Takes the oldest frame. The reader's.
    ///
    /// - Returns: nil if there is none.
    package func take(into buffer: UnsafeMutableRawBufferPointer) -> Int? {
        var start = head.load(ordering: .relaxed)
        guard tail.load(ordering: .sequentiallyConsistent) != start else { return nil }
        var place = start & (capacity - 1)
        var count = unsafe memory.base.load(fromByteOffset: place, as: UInt64.self)
        if count == 0 {
            start &+= capacity - place
            place = 0
            count = unsafe memory.base.load(as: UInt64.self)
        }
        let length = Int(count)
        unsafe buffer.copyMemory(
            from: UnsafeRawBufferPointer(start: memory.base + place + FrameRing.alignment, count: length))
        let need = FrameRing.alignment + (length + FrameRing.alignment - 1) & ~(FrameRing.alignment - 1)
        head.store(start &+ need, ordering: .sequentiallyConsistent)
        return length
    }

    /// Forgets all frames. The reader's.
    package func removeAll() { head.store(tail.load(ordering: .acquiring), ordering: .sequentiallyConsistent) }
}
