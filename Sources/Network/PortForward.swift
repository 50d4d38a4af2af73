/// A port of the host's that leads into the Guest: `[tcp|udp:][ADDRESS:]PORT:GUESTPORT`.
package struct PortForward: Sendable, Equatable, CustomStringConvertible {
    package enum TransportProtocol: String, Sendable { case tcp, udp }

    package var transport: TransportProtocol = .tcp
    /// Where the host listens: nobody outside reaches 127.0.0.1, which is what is
    /// meant unless something else is said.
    package var hostAddress = IPv4Address(127, 0, 0, 1)
    package var hostPort: UInt16
    package var guestPort: UInt16

    package init(
        _ transport: TransportProtocol = .tcp, hostAddress: IPv4Address = IPv4Address(127, 0, 0, 1), hostPort: UInt16,
        guestPort: UInt16
    ) {
        self.transport = transport
        self.hostAddress = hostAddress
        self.hostPort = hostPort
        self.guestPort = guestPort
    }

    package init(parsing text: String) throws(NetworkOptionError) {
        var parts = text.split(separator: ":", omittingEmptySubsequences: false)
        if let name = parts.first, parts.count > 2, let transport = TransportProtocol(rawValue: String(name)) {
            self.transport = transport
            parts.removeFirst()
        }
        guard parts.count == 2 || parts.count == 3 else {
            throw NetworkOptionError(
                "'forward=\(text)' is no forward", advice: "as in forward=2222:22 or forward=udp:127.0.0.1:5300:53")
        }
        if parts.count == 3 {
            guard let address = IPv4Address(parts[0]) else {
                throw NetworkOptionError(
                    "'\(parts[0])' in forward=\(text) is neither tcp nor udp nor an IPv4 address of this machine",
                    advice: "use 127.0.0.1, or 0.0.0.0 for all of them")
            }
            hostAddress = address
            parts.removeFirst()
        }
        hostPort = try PortForward.port(parts[0], in: text)
        guestPort = try PortForward.port(parts[1], in: text)
    }

    private static func port(_ text: Substring, in whole: String) throws(NetworkOptionError) -> UInt16 {
        guard !text.isEmpty, text.utf8.allSatisfy((UInt8(ascii: "0")...UInt8(ascii: "9")).contains),
            let port = UInt16(text), port > 0
        else {
            throw NetworkOptionError("'\(text)' in forward=\(whole) is no port", advice: "ports are 1 to 65535")
        }
        return port
    }

    package var description: String { "\(transport):\(hostAddress):\(hostPort):\(guestPort)" }
}

/// An address as in 10.0.2.15.
package struct IPv4Address: Sendable, Equatable, CustomStringConvertible {
    /// Its bytes, the first one on top.
    package let rawValue: UInt32

    package init(rawValue: UInt32) { self.rawValue = rawValue }

    package init(_ a: UInt8, _ b: UInt8, _ c: UInt8, _ d: UInt8) {
        rawValue = UInt32(a) << 24 | UInt32(b) << 16 | UInt32(c) << 8 | UInt32(d)
    }

    package init?(_ text: some StringProtocol) {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 4 else { return nil }
        var value: UInt32 = 0
        for part in parts {
            // "+1" would be a number to Swift, and "010" is eight to some.
            guard part.utf8.allSatisfy((UInt8(ascii: "0")...UInt8(ascii: "9")).contains),
                part.utf8.count == 1 || part.utf8.first != UInt8(ascii: "0"), let byte = UInt8(part)
            else { return nil }
            value = value << 8 | UInt32(byte)
        }
        rawValue = value
    }

    package var description: String {
        (0..<4).map { "\(rawValue >> (24 - 8 * $0) & 0xff)" }.joined(separator: ".")
    }
}
