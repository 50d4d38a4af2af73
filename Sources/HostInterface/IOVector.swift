internal import Glibc

/// A piece of memory to be read or written by the kernel: struct iovec.
@safe @frozen public struct IOVector: BitwiseCopyable {
    public var base: UnsafeMutableRawPointer
    public var count: Int

    @inlinable public init(base: UnsafeMutableRawPointer, count: Int) {
        unsafe self.base = base
        self.count = count
    }
}

/// A list of them that grows, and keeps its memory when it is emptied. Whoever
/// fills it owes it that the pieces stay mapped while it is used.
@safe package struct IOVectorList: ~Copyable {
    private var storage: UnsafeMutablePointer<IOVector>
    private var capacity: Int
    package private(set) var count = 0
    package private(set) var byteCount = 0

    package init(capacity: Int = 16) {
        unsafe storage = .allocate(capacity: capacity)
        self.capacity = capacity
    }

    deinit { unsafe storage.deallocate() }

    package mutating func append(_ vector: IOVector) {
        if count == capacity {
            let larger = UnsafeMutablePointer<IOVector>.allocate(capacity: capacity * 2)
            unsafe larger.moveInitialize(from: storage, count: count)
            unsafe storage.deallocate()
            unsafe storage = larger
            capacity *= 2
        }
        unsafe (storage + count).initialize(to: vector)
        count += 1
        byteCount += vector.count
    }

    /// Takes bytes off the front, at most all.
    package mutating func removeFirst(bytes: Int) {
        var left = bytes
        var gone = 0
        byteCount -= bytes
        while left > 0 {
            let length = unsafe storage[gone].count
            if length > left {
                unsafe storage[gone].base += left
                unsafe storage[gone].count -= left
                break
            }
            left -= length
            gone += 1
        }
        unsafe storage.update(from: storage + gone, count: count - gone)
        count -= gone
    }

    package mutating func removeAll() { (count, byteCount) = (0, 0) }

    package subscript(_ index: Int) -> IOVector {
        precondition(index < count)
        return unsafe storage[index]
    }

    /// Where the list lies: good until it is changed.
    package var pointer: UnsafeMutablePointer<IOVector> { unsafe storage }
}
