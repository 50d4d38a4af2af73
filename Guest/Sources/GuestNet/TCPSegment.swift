internal import GuestKit

/// A TCP segment that has come, its lengths and its checksum already checked.
struct TCPSegment {
    struct Flags: OptionSet {
        let rawValue: UInt8
        static let fin = Flags(rawValue: 1)
        static let syn = Flags(rawValue: 2)
        static let rst = Flags(rawValue: 4)
        static let psh = Flags(rawValue: 8)
        static let ack = Flags(rawValue: 16)
    }

    static let headerBytes = 20

    let sourcePort: UInt16
    let port: UInt16
    let sequence: UInt32
    let acknowledged: UInt32
    let flags: Flags
    let window: UInt16
    let data: Region
    /// How much the other end takes in one segment.
    let maximumBytes: Int

    /// Nil if it is not whole. `pseudoHeaderSum` is IPv4Host's.
    init?(_ bytes: Region, pseudoHeaderSum: UInt32) {
        guard bytes.count >= TCPSegment.headerBytes else { return nil }
        let offset = Int(bytes[12] >> 4) * 4
        guard offset >= TCPSegment.headerBytes, offset <= bytes.count, bytes.checksum(pseudoHeaderSum) == 0 else {
            return nil
        }
        sourcePort = bytes.big16(0)
        port = bytes.big16(2)
        sequence = bytes.big32(4)
        acknowledged = bytes.big32(8)
        flags = Flags(rawValue: bytes[13] & 31)
        window = bytes.big16(14)
        data = bytes.part(offset, bytes.count - offset)
        maximumBytes = TCPSegment.maximum(bytes.part(TCPSegment.headerBytes, offset - TCPSegment.headerBytes))
    }

    /// What it takes up of the sequence: SYN and FIN count for one each.
    var length: UInt32 {
        UInt32(data.count) + (flags.contains(.syn) ? 1 : 0) + (flags.contains(.fin) ? 1 : 0)
    }

    /// The option MSS among the others; without it 536 (RFC 9293, 3.7.1).
    private static func maximum(_ options: Region) -> Int {
        var offset = 0
        while offset < options.count {
            switch options[offset] {
            case 0: return 536
            case 1: offset += 1
            case let kind:
                guard offset + 1 < options.count else { return 536 }
                let length = Int(options[offset + 1])
                guard length >= 2, length <= options.count - offset else { return 536 }
                if kind == 2, length == 4 { return min(max(Int(options.big16(offset + 2)), 64), 1460) }
                offset += length
            }
        }
        return 536
    }
}
