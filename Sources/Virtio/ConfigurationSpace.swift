/// The bytes of a device's configuration space while they are put together.
package struct ConfigurationSpace {
    package private(set) var bytes: [UInt8]

    package init(byteCount: Int) { bytes = [UInt8](repeating: 0, count: byteCount) }

    /// Little endian, as all of virtio 1.
    package mutating func put<T: FixedWidthInteger>(_ value: T, at offset: Int) {
        for index in 0..<T.bitWidth / 8 { bytes[offset + index] = UInt8(truncatingIfNeeded: value >> T(index * 8)) }
    }

    package mutating func put(_ content: [UInt8], at offset: Int) {
        bytes.replaceSubrange(offset..<offset + content.count, with: content)
    }
}
