import Network

/// Frames as a Guest's network stack makes them, by hand.
enum Packets {
    static let card: [UInt8] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56]
    static let broadcast: [UInt8] = [UInt8](repeating: 0xff, count: 6)
    /// The router's: 52:55 and its address.
    static let router: [UInt8] = [0x52, 0x55, 10, 0, 2, 2]

    static let guest = IPv4Address(10, 0, 2, 15)
    static let host = IPv4Address(10, 0, 2, 2)

    static func half(_ value: Int) -> [UInt8] {
        [UInt8(truncatingIfNeeded: value >> 8), UInt8(truncatingIfNeeded: value)]
    }

    static func word(_ value: UInt32) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: value >> (24 - 8 * $0)) } }

    static func half(_ bytes: [UInt8], _ offset: Int) -> Int { Int(bytes[offset]) << 8 | Int(bytes[offset + 1]) }

    static func word(_ bytes: [UInt8], _ offset: Int) -> UInt32 {
        UInt32(half(bytes, offset)) << 16 | UInt32(half(bytes, offset + 2))
    }

    /// RFC 1071 as a schoolbook has it: what the fast one must agree with.
    static func sum(_ bytes: [UInt8]) -> Int {
        var sum = 0
        for index in stride(from: 0, to: bytes.count, by: 2) {
            sum += Int(bytes[index]) << 8 + (index + 1 < bytes.count ? Int(bytes[index + 1]) : 0)
            sum = (sum & 0xffff) + sum >> 16
        }
        return sum
    }

    static func checksum(_ bytes: [UInt8]) -> [UInt8] { half(~sum(bytes) & 0xffff) }

    static func ethernet(_ type: Int, _ payload: [UInt8], to: [UInt8] = router) -> [UInt8] {
        to + card + half(type) + payload
    }

    static func arpRequest(for address: IPv4Address, from source: IPv4Address = guest) -> [UInt8] {
        ethernet(
            0x0806,
            [0, 1, 8, 0, 6, 4, 0, 1] + card + word(source.rawValue) + [0, 0, 0, 0, 0, 0] + word(address.rawValue),
            to: broadcast)
    }

    static func ipv4(
        _ proto: UInt8, _ payload: [UInt8], from: IPv4Address = guest, to: IPv4Address = host, fragment: Int = 0
    ) -> [UInt8] {
        var header = [0x45, 0] + half(20 + payload.count) + [0, 1] + half(fragment) + [64, proto, 0, 0]
        header += word(from.rawValue) + word(to.rawValue)
        header.replaceSubrange(10..<12, with: checksum(header))
        return ethernet(0x0800, header + payload)
    }

    static func pseudo(_ proto: UInt8, _ count: Int, _ from: IPv4Address, _ to: IPv4Address) -> [UInt8] {
        word(from.rawValue) + word(to.rawValue) + [0, proto] + half(count)
    }

    static func udp(
        _ source: Int, _ destination: Int, _ payload: [UInt8], from: IPv4Address = guest, to: IPv4Address = host
    ) -> [UInt8] {
        var bytes = half(source) + half(destination) + half(8 + payload.count) + [0, 0] + payload
        bytes.replaceSubrange(6..<8, with: checksum(pseudo(17, bytes.count, from, to) + bytes))
        return ipv4(17, bytes, from: from, to: to)
    }

    struct TCPFlags: OptionSet {
        let rawValue: UInt8
        static let fin = TCPFlags(rawValue: 1)
        static let syn = TCPFlags(rawValue: 2)
        static let reset = TCPFlags(rawValue: 4)
        static let push = TCPFlags(rawValue: 8)
        static let ack = TCPFlags(rawValue: 16)
        static let urgent = TCPFlags(rawValue: 32)
    }

    /// - Parameter partial: with the pseudo header's sum where the checksum goes, as a driver leaves it.
    static func tcp(
        _ source: Int, _ destination: Int, sequence: UInt32, acknowledge: UInt32, _ flags: TCPFlags,
        _ payload: [UInt8] = [], options: [UInt8] = [], window: Int = 0xffff, urgent: Int = 0, partial: Bool = false
    ) -> [UInt8] {
        var bytes = half(source) + half(destination) + word(sequence) + word(acknowledge)
        bytes += [UInt8(5 + options.count / 4) << 4, flags.rawValue] + half(window) + [0, 0] + half(urgent)
        bytes += options + payload
        let front = pseudo(6, bytes.count, guest, host)
        bytes.replaceSubrange(16..<18, with: partial ? half(sum(front)) : checksum(front + bytes))
        return ipv4(6, bytes)
    }

    static func ping(_ count: Int, to: IPv4Address = host, from: IPv4Address = guest) -> [UInt8] {
        var bytes = [8, 0, 0, 0, 0, 1, 0, 1] + [UInt8](repeating: 0x5a, count: count)
        bytes.replaceSubrange(2..<4, with: checksum(bytes))
        return ipv4(1, bytes, from: from, to: to)
    }

    static func ipv6(_ next: UInt8, _ payload: [UInt8], from: [UInt8], to: [UInt8]) -> [UInt8] {
        ethernet(0x86dd, [0x60, 0, 0, 0] + half(payload.count) + [next, 255] + from + to + payload)
    }

    static func icmp6(_ message: [UInt8], from: [UInt8], to: [UInt8]) -> [UInt8] {
        var bytes = message
        bytes.replaceSubrange(
            2..<4, with: checksum(from + to + word(UInt32(bytes.count)) + [0, 0, 0, 58] + bytes))
        return ipv6(58, bytes, from: from, to: to)
    }

    static func address6(_ high: Int, _ low: Int) -> [UInt8] {
        half(high) + [UInt8](repeating: 0, count: 12) + half(low)
    }
}
