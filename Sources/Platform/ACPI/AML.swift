//L:210 A language for describing a serial port
//
// ACPI's idea is that a machine describes itself in a program. Its byte code,
// AML (ACPI 6.5, chapter 20), can compute, loop and poke ports; the sane use
// is to write down constants in it. These few functions do: each returns the
// bytes of one term, and terms nest by concatenation, so a table reads nearly
// as its source would.

/// Encodes AML terms.
enum AML {
    typealias Term = [UInt8]

    private static let extended: UInt8 = 0x5b

    /// Four characters, padded by "_"; with "\" in front: from the root.
    static func name(_ text: String) -> Term {
        var characters = Array(text.utf8)
        var result: Term = []
        if characters.first == 0x5c {
            result = [0x5c]
            characters.removeFirst()
        }
        precondition((1...4).contains(characters.count), "an ACPI name has one to four characters: \(text)")
        return result + characters + [UInt8](repeating: 0x5f, count: 4 - characters.count)
    }

    /// The shortest encoding of a constant (20.2.3).
    static func integer(_ value: UInt64) -> Term {
        func bytes(_ count: Int) -> Term { (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) } }
        return switch value {
        case 0: [0x00]
        case 1: [0x01]
        case ...0xff: [0x0a] + bytes(1)
        case ...0xffff: [0x0b] + bytes(2)
        case ...0xffff_ffff: [0x0c] + bytes(4)
        default: [0x0e] + bytes(8)
        }
    }

    static func string(_ text: String) -> Term { [0x0d] + Array(text.utf8) + [0] }

    /// PkgLength (20.2.4) counts itself: one byte up to 63, else 4 bits and up
    /// to three bytes more.
    static func withLength(_ content: Term) -> Term {
        if content.count + 1 <= 0x3f { return [UInt8(content.count + 1)] + content }
        for more in 1...3 {
            let length = content.count + 1 + more
            guard length < 1 << (4 + 8 * more) else { continue }
            let tail = (0..<more).map { UInt8(truncatingIfNeeded: length >> (4 + 8 * $0)) }
            return [UInt8(more << 6 | length & 15)] + tail + content
        }
        preconditionFailure("an AML package of \(content.count) bytes")
    }

    static func define(_ name: String, _ value: Term) -> Term { [0x08] + Self.name(name) + value }

    static func package(_ elements: [Term]) -> Term {
        [0x12] + withLength([UInt8(elements.count)] + elements.joined())
    }

    static func buffer(_ bytes: [UInt8]) -> Term { [0x11] + withLength(integer(UInt64(bytes.count)) + bytes) }

    static func scope(_ name: String, _ terms: [Term]) -> Term { [0x10] + withLength(Self.name(name) + terms.joined()) }

    static func device(_ name: String, _ terms: [Term]) -> Term {
        [extended, 0x82] + withLength(Self.name(name) + terms.joined())
    }

    /// EISAID("PNP0501"): three letters of five bits and four hex digits,
    /// most significant byte first (19.3.4).
    static func eisaID(_ text: String) -> Term {
        let characters = Array(text.utf8)
        precondition(characters.count == 7, "not an EISA id: \(text)")
        var value: UInt32 = 0
        for letter in characters[0..<3] { value = value << 5 | UInt32(letter - 0x40) }
        for digit in text.dropFirst(3) {
            guard let number = digit.hexDigitValue else { preconditionFailure("not an EISA id: \(text)") }
            value = value << 4 | UInt32(number)
        }
        return integer(UInt64(value.byteSwapped))
    }
}

/// Encodes what a device uses (ACPI 6.5, 6.4), for a `_CRS`.
enum Resource {
    /// Ports that the device decodes in 16 bits.
    static func ports(_ first: UInt16, count: UInt8) -> [UInt8] {
        let low = UInt8(truncatingIfNeeded: first), high = UInt8(truncatingIfNeeded: first >> 8)
        return [0x47, 1, low, high, low, high, 1, count]
    }

    /// An ISA interrupt: edge-triggered, active high.
    static func irq(_ number: Int) -> [UInt8] {
        let mask = UInt16(1) << UInt16(number)
        return [0x22, UInt8(truncatingIfNeeded: mask), UInt8(truncatingIfNeeded: mask >> 8)]
    }

    /// A fixed, writable range below 4 GiB.
    static func memory(_ base: UInt32, count: UInt32) -> [UInt8] {
        var bytes = WireBytes(count: 12)
        bytes.put([0x86, 9, 0, 1], at: 0)
        bytes.put(base, at: 4)
        bytes.put(count, at: 8)
        return bytes.bytes
    }

    /// Any GSI: level-triggered, active high, not shared.
    static func levelInterrupt(_ gsi: UInt32) -> [UInt8] {
        var bytes = WireBytes(count: 9)
        bytes.put([0x89, 6, 0, 0x01, 1], at: 0)
        bytes.put(gsi, at: 5)
        return bytes.bytes
    }

    /// The resources with the end tag that says "no checksum".
    static func template(_ resources: [UInt8]...) -> AML.Term { AML.buffer(resources.joined() + [0x79, 0]) }
}
//:
