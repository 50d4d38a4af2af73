/// What `--net` says: `none`, `user[,forward=…]…` or `tap=NAME`, the last two
/// with a `mac=` if one is wanted. In a house also the name of a switch, `lan0`,
/// on which all are that give the same one.
package struct NetworkOption: Sendable, Equatable {
    package enum Kind: Sendable, Equatable {
        case none
        case user([PortForward])
        case tap(String)
        case `switch`(String)
    }

    /// Where an option is written, and so, what it can mean.
    package enum Place: Sendable {
        case commandLine
        case house

        /// What the option is called there.
        var name: String { self == .house ? "\"net\"" : "--net" }
    }

    package var kind: Kind
    /// nil leaves the choice to the device.
    package var macAddress: MACAddress?

    package init(kind: Kind, macAddress: MACAddress? = nil) {
        self.kind = kind
        self.macAddress = macAddress
    }

    package init(parsing text: String, in place: Place = .commandLine) throws(NetworkOptionError) {
        var parts = text.split(separator: ",", omittingEmptySubsequences: false)
        let first = parts.removeFirst()
        var forwards: [PortForward] = []
        for part in parts {
            if part.hasPrefix("forward="), first == "user" {
                let forward = try PortForward(parsing: String(part.dropFirst("forward=".count)))
                let same = { (other: PortForward) in
                    other.transport == forward.transport && other.hostAddress == forward.hostAddress
                        && other.hostPort == forward.hostPort
                }
                guard !forwards.contains(where: same) else {
                    throw NetworkOptionError("\(place.name) forwards port \(forward.hostPort) twice")
                }
                forwards.append(forward)
            } else if part.hasPrefix("mac="), first != "none" {
                macAddress = try MACAddress(parsing: String(part.dropFirst("mac=".count)))
            } else {
                let known = first == "user" ? "forward= and mac=" : first == "none" ? "nothing" : "mac="
                throw NetworkOptionError(
                    "'\(part)' in \(place.name) \(text) is unknown", advice: "after \(first) there may be \(known)")
            }
        }
        if first == "none" {
            kind = .none
        } else if first == "user" {
            kind = .user(forwards)
        } else if first.hasPrefix("tap=") {
            let name = String(first.dropFirst("tap=".count))
            // IFNAMSIZ is 16, with the zero at the end; what else a name must not be, dev_valid_name() in Linux says.
            guard (1...15).contains(name.utf8.count), name != ".", name != "..",
                name.utf8.allSatisfy({
                    (0x21...0x7e).contains($0) && $0 != UInt8(ascii: "/") && $0 != UInt8(ascii: ":")
                        && $0 != UInt8(ascii: "%")
                })
            else { throw NetworkOptionError("'\(name)' is no name of a network interface", advice: "as in tap=tap0") }
            kind = .tap(name)
        } else if place == .house, NetworkOption.isSwitchName(first) {
            kind = .switch(String(first))
        } else {
            var advice = "use none, user[,forward=[tcp|udp:]HOSTPORT:GUESTPORT] or tap=NAME"
            if place == .house {
                advice += ", or name a switch, as in lan0: 1 to 15 letters, digits, - and _"
            } else if NetworkOption.isSwitchName(first) {
                advice += "; a switch of that name needs a house: roost up"
            }
            throw NetworkOptionError("\(place.name) knows no '\(first)'", advice: advice)
        }
    }

    private static func isSwitchName(_ name: Substring) -> Bool {
        (1...15).contains(name.utf8.count) && !["none", "user", "tap"].contains(name)
            && name.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"):
                    true
                default: false
                }
            }
    }
}

/// The address of a network card, as in 52:54:00:12:34:56.
package struct MACAddress: Sendable, Equatable, CustomStringConvertible {
    package let bytes: [UInt8]

    package init(_ bytes: [UInt8]) {
        precondition(bytes.count == 6)
        self.bytes = bytes
    }

    package init(parsing text: String) throws(NetworkOptionError) {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        let digits = Set("0123456789abcdefABCDEF")
        let bytes = parts.compactMap { $0.count == 2 && $0.allSatisfy(digits.contains) ? UInt8($0, radix: 16) : nil }
        guard parts.count == 6, bytes.count == 6 else {
            throw NetworkOptionError("'\(text)' is no MAC address", advice: "as in mac=52:54:00:12:34:56")
        }
        // The first byte's lowest bit is set in addresses of groups; and nobody is 0.
        guard bytes[0] & 1 == 0, bytes.contains(where: { $0 != 0 }) else {
            throw NetworkOptionError(
                "'\(text)' cannot be a card's MAC address", advice: "make the first byte even, as in 52:54:00:12:34:56")
        }
        self.bytes = bytes
    }

    /// As a number, the first byte highest.
    init(number: UInt64) { bytes = (0..<6).map { UInt8(truncatingIfNeeded: number >> (40 - 8 * $0)) } }
    var number: UInt64 { bytes.reduce(0) { $0 << 8 | UInt64($1) } }

    package var description: String {
        bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: ":")
    }
}

/// What is wrong with a `--net` option, in one line.
package struct NetworkOptionError: Error, CustomStringConvertible, Sendable {
    package let summary: String
    package let advice: String

    init(_ summary: String, advice: String = "") {
        self.summary = summary
        self.advice = advice
    }

    package var description: String { advice.isEmpty ? summary : "\(summary) (\(advice))" }
}
