package import HostInterface

/// A run of bytes in the Guest's memory, in pieces, taken from the front. The
/// pieces have been checked to be RAM; what is in them changes at any time,
/// and so a byte is to be read once.
@safe package final class ScatterList {
    private let capacity: Int
    private let pieces: UnsafeMutablePointer<IOVector>
    private var count = 0
    /// The piece that the next byte is in, and where.
    private var current = 0
    private var offset = 0
    /// Of all pieces together.
    package private(set) var byteCount = 0
    /// What has not been taken yet.
    package private(set) var remaining = 0

    init(capacity: Int) {
        self.capacity = capacity
        unsafe pieces = .allocate(capacity: capacity)
    }

    deinit { unsafe pieces.deallocate() }

    func clear() { (count, current, offset, byteCount, remaining) = (0, 0, 0, 0, 0) }

    /// False if there is no room for another.
    func append(_ base: UnsafeMutableRawPointer, _ bytes: Int) -> Bool {
        guard bytes > 0 else { return true }
        // Buffers that lie end to end are one.
        if count > 0, unsafe pieces[count - 1].base + pieces[count - 1].count == base {
            unsafe pieces[count - 1].count += bytes
        } else {
            guard count < capacity else { return false }
            unsafe (pieces + count).initialize(to: IOVector(base: base, count: bytes))
            count += 1
        }
        byteCount += bytes
        remaining += bytes
        return true
    }

    /// Calls `body` with the next pieces, `bytes` of them at most, and takes them.
    @inline(__always)
    private func take(_ bytes: Int, _ body: (UnsafeMutableRawPointer, Int) -> Void) -> Int {
        var left = min(bytes, remaining)
        let taken = left
        remaining -= taken
        while left > 0 {
            let piece = unsafe pieces[current]
            let length = min(left, piece.count - offset)
            unsafe body(piece.base + offset, length)
            left -= length
            offset += length
            if offset == piece.count { (current, offset) = (current + 1, 0) }
        }
        return taken
    }

    /// Copies the next bytes to `buffer`, as many as there are and have room.
    package func read(into buffer: UnsafeMutableRawBufferPointer) -> Int {
        guard var target = buffer.baseAddress else { return 0 }
        return unsafe take(buffer.count) { source, length in
            unsafe target.copyMemory(from: source, byteCount: length)
            unsafe target += length
        }
    }

    /// The next bytes, at most so many.
    package func read(atMost count: Int) -> [UInt8] {
        let count = min(count, remaining)
        return unsafe [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
            filled = unsafe read(into: UnsafeMutableRawBufferPointer(buffer))
        }
    }

    /// The next bytes as a value; nil, and nothing taken, if there are not enough.
    package func load<T: BitwiseCopyable>(as type: T.Type) -> T? {
        guard remaining >= MemoryLayout<T>.size else { return nil }
        return unsafe withUnsafeTemporaryAllocation(byteCount: MemoryLayout<T>.size, alignment: 16) { buffer in
            unsafe _ = read(into: buffer)
            return unsafe buffer.loadUnaligned(as: T.self)
        }
    }

    /// Copies `bytes` to the next bytes, as many as have room.
    package func write(_ bytes: UnsafeRawBufferPointer) -> Int {
        guard var source = bytes.baseAddress else { return 0 }
        return unsafe take(bytes.count) { target, length in
            unsafe target.copyMemory(from: source, byteCount: length)
            unsafe source += length
        }
    }

    package func store<T: BitwiseCopyable>(_ value: T) -> Int {
        unsafe withUnsafeBytes(of: value) { unsafe write($0) }
    }

    package func zero(_ bytes: Int) -> Int {
        unsafe take(bytes) { unsafe $0.initializeMemory(as: UInt8.self, repeating: 0, count: $1) }
    }

    package func skip(_ bytes: Int) -> Int { unsafe take(bytes) { _, _ in } }

    /// Takes the next bytes as they lie, for readv(2) and its like.
    package func take(_ bytes: Int, into list: inout IOVectorList) -> Int {
        unsafe take(bytes) { unsafe list.append(IOVector(base: $0, count: $1)) }
    }

    /// All of it, taken or not.
    func forEachPiece(_ body: (UnsafeMutableRawPointer, Int) -> Void) {
        for index in 0..<count { unsafe body(pieces[index].base, pieces[index].count) }
    }
}

/// One request of a driver: buffers to read, then buffers to write, from a
/// queue's descriptors. Good until it is given back by `Virtqueue.complete`.
package final class DescriptorChain {
    /// Its first descriptor, which is its name.
    package internal(set) var head: UInt16 = 0
    package let readable: ScatterList
    package let writable: ScatterList

    init(capacity: Int) {
        readable = ScatterList(capacity: capacity)
        writable = ScatterList(capacity: capacity)
    }
}
