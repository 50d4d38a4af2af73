/// Frames that tell whose card an address is on, as if its owner had sent them.
enum Introduction {
    /// A gratuitous ARP (RFC 5227): "I have this address". For the sender of `frame`, which is IPv4.
    static func arp(from frame: UnsafeRawBufferPointer) -> [UInt8] {
        let card = unsafe Array(frame[6..<12])
        let address = unsafe Array(frame[26..<30])
        return [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] + card + [0x08, 0x06]
            + [0, 1, 8, 0, 6, 4, 0, 1] + card + address + [0, 0, 0, 0, 0, 0] + address
    }

    /// A neighbour advertisement (RFC 4861, 4.4) to the router. For the sender of `frame`, which is IPv6.
    static func neighbour(from frame: UnsafeRawBufferPointer) -> [UInt8] {
        let card = unsafe Array(frame[6..<12])
        let address = unsafe Array(frame[22..<38])
        let router: [UInt8] = [0xfe, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]
        // Solicited, overrides; the target is the sender; an option with its card.
        var message: [UInt8] = [136, 0, 0, 0, 0x60, 0, 0, 0] + address + [2, 1] + card
        let pseudo = address + router + [0, 0, 0, UInt8(message.count), 0, 0, 0, 58]
        let sum = unsafe (pseudo + message).withUnsafeBytes { unsafe InternetChecksum.sum($0) }
        message[2] = UInt8(truncatingIfNeeded: ~sum)
        message[3] = UInt8(truncatingIfNeeded: ~sum >> 8)
        return card + card + [0x86, 0xdd, 0x60, 0, 0, 0, 0, UInt8(message.count), 58, 255] + address + router + message
    }
}
