/// qcow2's numbers are big-endian, and its files may end anywhere.
extension [UInt8] {
    /// The number at `offset`; nil if any of it is past the end.
    func bigEndian<T: FixedWidthInteger & UnsignedInteger>(at offset: Int, as type: T.Type = T.self) -> T? {
        guard offset >= 0, offset <= count &- MemoryLayout<T>.size else { return nil }
        return unsafe withUnsafeBytes { T(bigEndian: unsafe $0.loadUnaligned(fromByteOffset: offset, as: T.self)) }
    }

    /// Stores `value` at `offset`, which must be within.
    mutating func putBigEndian<T: FixedWidthInteger & UnsignedInteger>(_ value: T, at offset: Int) {
        precondition(offset >= 0 && offset <= count - MemoryLayout<T>.size)
        unsafe withUnsafeMutableBytes {
            unsafe $0.storeBytes(of: value.bigEndian, toByteOffset: offset, as: T.self)
        }
    }

    init<T: FixedWidthInteger & UnsignedInteger>(bigEndian value: T) {
        self.init(repeating: 0, count: MemoryLayout<T>.size)
        putBigEndian(value, at: 0)
    }
}
