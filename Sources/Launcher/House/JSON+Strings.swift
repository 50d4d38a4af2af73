/// What is between quotes (RFC 8259, 7).
extension JSONParser {
    mutating func string() throws(JSONError) -> String {
        let start = position
        var text: [UInt8] = []
        index += 1
        while let byte = next {
            switch byte {
            case UInt8(ascii: "\""):
                index += 1
                return String(decoding: text, as: UTF8.self)
            case UInt8(ascii: "\\"): text += String(try escaped()).utf8
            case ..<0x20: throw error("a control character in a string; write it as \\n, \\t or \\u00…")
            case ..<0x80:
                text.append(byte)
                index += 1
            default:
                guard let count = scalarLength else { throw error("a byte that is no UTF-8") }
                text += bytes[index..<index + count]
                index += count
                continuations += count - 1
            }
        }
        throw error("a string without an end", at: start)
    }

    /// How many bytes the scalar here has, if they are one (RFC 3629, 4).
    private var scalarLength: Int? {
        let first = bytes[index]
        let count: Int
        var second: ClosedRange<UInt8> = 0x80...0xbf
        switch first {
        case 0xc2...0xdf: count = 2
        case 0xe0...0xef:
            count = 3
            if first == 0xe0 { second = 0xa0...0xbf } else if first == 0xed { second = 0x80...0x9f }
        case 0xf0...0xf4:
            count = 4
            if first == 0xf0 { second = 0x90...0xbf } else if first == 0xf4 { second = 0x80...0x8f }
        default: return nil
        }
        guard bytes.count - index >= count, second.contains(bytes[index + 1]),
            bytes[index + 2..<index + count].allSatisfy({ $0 & 0xc0 == 0x80 })
        else { return nil }
        return count
    }

    private mutating func escaped() throws(JSONError) -> Unicode.Scalar {
        let start = position
        index += 1
        guard let letter = next else { throw error("a string without an end") }
        index += 1
        switch letter {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return Unicode.Scalar(letter)
        case UInt8(ascii: "b"): return "\u{8}"
        case UInt8(ascii: "f"): return "\u{c}"
        case UInt8(ascii: "n"): return "\n"
        case UInt8(ascii: "r"): return "\r"
        case UInt8(ascii: "t"): return "\t"
        case UInt8(ascii: "u"):
            let unit = try unit(start)
            if let scalar = Unicode.Scalar(unit) { return scalar }
            // A surrogate: the first of a pair, or nothing at all.
            guard unit & 0xfc00 == 0xd800, bytes[index...].starts(with: [0x5c, 0x75]) else { break }
            index += 2
            let low = try self.unit(start)
            let high = UInt32(unit & 0x3ff) << 10
            guard low & 0xfc00 == 0xdc00, let scalar = Unicode.Scalar(0x10000 + high + UInt32(low & 0x3ff)) else {
                break
            }
            return scalar
        default: throw error("an escape sequence that JSON does not have", at: start)
        }
        throw error("half of a surrogate pair", at: start)
    }

    /// The four digits of \\u.
    private mutating func unit(_ start: JSON.Position) throws(JSONError) -> UInt16 {
        var unit: UInt16 = 0
        for _ in 0..<4 {
            guard let byte = next, let digit = Character(Unicode.Scalar(byte)).hexDigitValue else {
                throw error("\\u wants four hexadecimal digits", at: start)
            }
            unit = unit << 4 | UInt16(digit)
            index += 1
        }
        return unit
    }
}

/// Somebody else's text, for a message of one line: without control characters, and not too long.
package func plain(_ text: String, limit: Int = 64) -> String {
    let scalars = text.unicodeScalars.prefix(limit).map { scalar in
        switch scalar.properties.generalCategory {
        case .control, .format, .lineSeparator, .paragraphSeparator: "\u{fffd}"
        default: String(scalar)
        }
    }
    return scalars.joined() + (text.unicodeScalars.count > limit ? "…" : "")
}

/// The same, between quotes.
package func quoted(_ text: String) -> String { "\"\(plain(text))\"" }
