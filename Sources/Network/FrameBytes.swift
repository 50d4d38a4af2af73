/// An Ethernet frame's fields, in the network's byte order.
@safe struct FrameBytes {
    private let bytes: UnsafeMutableRawBufferPointer

    init(_ bytes: UnsafeMutableRawBufferPointer) { unsafe self.bytes = bytes }

    var count: Int { unsafe bytes.count }

    func byte(_ offset: Int) -> UInt8 { unsafe bytes[offset] }
    func half(_ offset: Int) -> UInt16 { load(offset) }
    func word(_ offset: Int) -> UInt32 { load(offset) }
    func long(_ offset: Int) -> UInt64 { load(offset) }

    func setByte(_ offset: Int, _ value: UInt8) { unsafe bytes[offset] = value }
    func setHalf(_ offset: Int, _ value: UInt16) { store(offset, value) }
    func setWord(_ offset: Int, _ value: UInt32) { store(offset, value) }

    /// The MAC address of whom it is for.
    var destination: UInt64 { UInt64(half(0)) << 32 | UInt64(word(2)) }

    /// The sender's MAC address.
    var card: UInt64 { UInt64(half(6)) << 32 | UInt64(word(8)) }

    /// Where the type of its contents is: behind the tags of up to two virtual LANs (IEEE 802.1Q).
    var typeOffset: Int {
        var offset = 12
        while offset < 20, offset + 6 <= count, [0x8100, 0x88a8].contains(half(offset)) { offset += 4 }
        return offset
    }

    /// The folded sum of some of its bytes, as `InternetChecksum` has it.
    func sum(_ range: Range<Int>, from start: UInt16 = 0) -> UInt16 {
        unsafe InternetChecksum.sum(UnsafeRawBufferPointer(rebasing: bytes[range]), from: start)
    }

    func copy(_ range: Range<Int>, to offset: Int, of other: FrameBytes) {
        unsafe UnsafeMutableRawBufferPointer(rebasing: other.bytes[offset...]).copyMemory(
            from: UnsafeRawBufferPointer(rebasing: bytes[range]))
    }

    private func load<Field: FixedWidthInteger & BitwiseCopyable>(_ offset: Int) -> Field {
        precondition(offset + MemoryLayout<Field>.size <= count)
        return unsafe Field(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Field.self))
    }

    private func store<Field: FixedWidthInteger & BitwiseCopyable>(_ offset: Int, _ value: Field) {
        precondition(offset + MemoryLayout<Field>.size <= count)
        unsafe bytes.storeBytes(of: value.bigEndian, toByteOffset: offset, as: Field.self)
    }
}
