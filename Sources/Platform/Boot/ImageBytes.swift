/// Little-endian fields of a file that may end anywhere.
package struct ImageBytes {
    package let bytes: [UInt8]

    package init(_ bytes: [UInt8]) { self.bytes = bytes }

    var count: Int { bytes.count }

    /// The field at `offset`; nil if any of it is past the end.
    package func load<T: FixedWidthInteger & UnsignedInteger>(_ offset: Int, as type: T.Type = T.self) -> T? {
        guard offset >= 0, offset <= bytes.count &- MemoryLayout<T>.size else { return nil }
        var value: T = 0
        for index in (0..<MemoryLayout<T>.size).reversed() {
            value = value &<< 8 | T(truncatingIfNeeded: bytes[offset &+ index])
        }
        return value
    }

    /// Whether `pattern` is at `offset`.
    func has(_ pattern: [UInt8], at offset: Int) -> Bool {
        guard offset >= 0, offset <= bytes.count &- pattern.count else { return false }
        return bytes[offset..<offset &+ pattern.count].elementsEqual(pattern)
    }

    /// `count` bytes from `start` as a range of indices; nil if the file has not all of them.
    package func range(_ start: UInt64, _ count: UInt64) -> Range<Int>? {
        let total = UInt64(bytes.count)
        guard count <= total, start <= total - count else { return nil }
        return Int(start)..<Int(start + count)
    }
}

/// A structure of ours on its way to the guest: zeros, and fields put in.
package struct WireBytes {
    package var bytes: [UInt8]

    package init(count: Int = 0) { bytes = [UInt8](repeating: 0, count: count) }

    /// Stores `value`, little-endian, at `offset`, which must be within.
    package mutating func put<T: FixedWidthInteger & UnsignedInteger>(_ value: T, at offset: Int) {
        var rest = value
        for index in 0..<MemoryLayout<T>.size {
            bytes[offset + index] = UInt8(truncatingIfNeeded: rest)
            rest = MemoryLayout<T>.size == 1 ? 0 : rest >> 8
        }
    }

    package mutating func put(_ source: some Collection<UInt8>, at offset: Int) {
        bytes.replaceSubrange(offset..<offset + source.count, with: source)
    }

    package mutating func append<T: FixedWidthInteger & UnsignedInteger>(_ value: T) {
        bytes += [UInt8](repeating: 0, count: MemoryLayout<T>.size)
        put(value, at: bytes.count - MemoryLayout<T>.size)
    }
}
