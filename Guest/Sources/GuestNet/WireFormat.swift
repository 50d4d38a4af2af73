public import GuestKit

// Networks write the big end first.

extension Region {
    func big16(_ offset: Int) -> UInt16 { UInt16(bigEndian: load(offset)) }
    func big32(_ offset: Int) -> UInt32 { UInt32(bigEndian: load(offset)) }
    func storeBig(_ value: UInt16, at offset: Int) { store(value.bigEndian, at: offset) }
    func storeBig(_ value: UInt32, at offset: Int) { store(value.bigEndian, at: offset) }

    /// The ones' complement sum of the bytes, as RFC 1071 adds them, on top of `start`.
    func sum(_ start: UInt32 = 0) -> UInt32 {
        var sum = start
        var offset = 0
        while offset + 1 < count {
            sum += UInt32(big16(offset))
            offset += 2
        }
        if offset < count { sum += UInt32(self[offset]) << 8 }
        while sum >> 16 != 0 { sum = (sum & 0xffff) + (sum >> 16) }
        return sum
    }

    /// What goes into the checksum's field; 0 if the field is filled and right.
    func checksum(_ start: UInt32 = 0) -> UInt16 { ~UInt16(truncatingIfNeeded: sum(start)) }
}

/// An address of IPv4.
public struct IPv4Address: Equatable, Sendable {
    let value: UInt32

    init(value: UInt32) { self.value = value }

    /// a.b.c.d.
    public init(_ a: UInt8, _ b: UInt8, _ c: UInt8, _ d: UInt8) {
        value = UInt32(a) << 24 | UInt32(b) << 16 | UInt32(c) << 8 | UInt32(d)
    }

    /// As people write it; nil for anything else.
    public init?(_ text: Text) {
        var value: UInt32 = 0, part: UInt32 = 0
        var parts = 1, digits = 0
        for index in 0..<text.count {
            switch text[index] {
            case UInt8(ascii: "."):
                guard digits > 0, parts < 4 else { return nil }
                value = value << 8 | part
                (part, digits, parts) = (0, 0, parts + 1)
            case let byte where byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9"):
                part = part * 10 + UInt32(byte - UInt8(ascii: "0"))
                digits += 1
                guard part <= 255 else { return nil }
            default: return nil
            }
        }
        guard parts == 4, digits > 0 else { return nil }
        self.value = value << 8 | part
    }

    /// What the command line says (`address=A.B.C.D`), as a house's switch does; else `usual`.
    public static func told(or usual: IPv4Address) -> IPv4Address {
        guard let word = Boot.word("address") else { return usual }
        guard let address = IPv4Address(word) else { panic("address= wants A.B.C.D") }
        return address
    }
}

/// An Ethernet address, in the low 48 bits.
struct EthernetAddress {
    static let broadcast = EthernetAddress(value: 0xffff_ffff_ffff)
    let value: UInt64

    init(value: UInt64) { self.value = value }
    init(_ region: Region) { value = UInt64(region.big16(0)) << 32 | UInt64(region.big32(2)) }

    func store(in region: Region, at offset: Int) {
        region.storeBig(UInt16(truncatingIfNeeded: value >> 32), at: offset)
        region.storeBig(UInt32(truncatingIfNeeded: value), at: offset + 2)
    }
}
