/// The Internet's checksum (RFC 1071): the one's complement sum of 16-bit words.
package enum InternetChecksum {
    /// The folded sum of `bytes` and of `start`, in the byte order of this
    /// machine, as RFC 1071 (2.B) allows: the bytes of the result lie right in memory.
    package static func sum(_ bytes: UnsafeRawBufferPointer, from start: UInt16 = 0) -> UInt16 {
        // Eight bytes a step, carries counted apart: as many as memory can deliver.
        var total: UInt64 = UInt64(start)
        var carries: UInt64 = 0
        var offset = 0
        while offset &+ 8 <= bytes.count {
            let word = unsafe bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
            let (partial, overflow) = total.addingReportingOverflow(word)
            total = partial
            carries &+= overflow ? 1 : 0
            offset &+= 8
        }
        var tail: UInt64 = 0
        for index in offset..<bytes.count { tail |= unsafe UInt64(bytes[index]) << (UInt64(index &- offset) &* 8) }
        let (partial, overflow) = total.addingReportingOverflow(tail)
        carries &+= overflow ? 1 : 0
        // 2^16, 2^32 and 2^64 are all 1 modulo 2^16 - 1.
        var folded = (partial >> 32) &+ (partial & 0xffff_ffff) &+ carries
        while folded >> 16 != 0 { folded = (folded >> 16) &+ (folded & 0xffff) }
        return UInt16(truncatingIfNeeded: folded)
    }

    /// Where the sum of a TCP segment's pseudo header begins: with all but the addresses.
    static func pseudoHeader(ofTCP count: Int) -> UInt16 {
        add(UInt16(6).bigEndian, UInt16(truncatingIfNeeded: count).bigEndian)
    }

    static func add(_ one: UInt16, _ other: UInt16) -> UInt16 {
        let (sum, overflow) = one.addingReportingOverflow(other)
        return sum &+ (overflow ? 1 : 0)
    }

    /// The checksum after one of the words that it covers has changed (RFC 1624).
    package static func adjust(_ checksum: UInt16, from old: UInt16, to new: UInt16) -> UInt16 {
        ~add(add(~checksum, ~old), new)
    }
}
