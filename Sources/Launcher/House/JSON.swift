//L:410 JSON, with its places
//
// A person wrote the house file, and will want to know where in it they were
// wrong. The parsers that there are give values and forget where those stood.
// So here is RFC 8259 once more, to the letter and with every value's line and
// column: no comments, no trailing commas, no key twice (there the RFC leaves
// the choice to us, and one of two values would be a lie). The bytes may be
// anybody's: they are limited in number and in depth, and checked as UTF-8.

/// A JSON value and where it began.
package struct JSON: Sendable {
    /// Both count from 1; a column is a Unicode scalar, as editors count.
    package struct Position: Equatable, Sendable {
        package let line: Int
        package let column: Int
    }

    package enum Content: Sendable {
        case null
        case boolean(Bool)
        /// As it was written: what it is to be is for the reader to say.
        case number(String)
        case string(String)
        case array([JSON])
        /// In the order of the file; no key is there twice.
        case object([Member])
    }

    package struct Member: Sendable {
        package let key: String
        package let keyPosition: Position
        package let value: JSON
    }

    package let content: Content
    package let position: Position

    package static let mostBytes = 1 << 20
    /// Arrays in objects in arrays…: each costs stack.
    package static let mostDepth = 32

    /// - Throws: what is wrong, and where.
    package init(parsing bytes: [UInt8]) throws(JSONError) {
        var parser = JSONParser(bytes: bytes)
        self = try parser.document()
    }

    init(content: Content, position: Position) {
        self.content = content
        self.position = position
    }
}

package struct JSONError: Error, Equatable, Sendable {
    package let position: JSON.Position
    package let message: String
}

/// Reads a document from its first byte to its last.
struct JSONParser {
    let bytes: [UInt8]
    var index = 0
    var line = 1
    /// Where the line begins, and how many bytes since then have begun no scalar.
    var lineStart = 0
    var continuations = 0
    var depth = 0

    init(bytes: [UInt8]) { self.bytes = bytes }

    var position: JSON.Position { JSON.Position(line: line, column: index - lineStart - continuations + 1) }
    var next: UInt8? { index < bytes.count ? bytes[index] : nil }

    func error(_ message: String, at position: JSON.Position? = nil) -> JSONError {
        JSONError(position: position ?? self.position, message: message)
    }

    /// What stands here, for a message.
    var found: String {
        guard let next else { return "the end of the file" }
        switch next {
        case 0x21...0x7e: return "'\(Character(UnicodeScalar(next)))'"
        case 0x80...: return "a character that is not ASCII"
        default: return "a control character"
        }
    }

    mutating func document() throws(JSONError) -> JSON {
        guard bytes.count <= JSON.mostBytes else { throw error("the file has more than \(JSON.mostBytes >> 20) MiB") }
        guard !bytes.starts(with: [0xef, 0xbb, 0xbf]) else {
            throw error("the file begins with a byte order mark; save it as UTF-8 without one")
        }
        let value = try value()
        skipSpace()
        guard next == nil else { throw error("\(found) behind the end of the document") }
        return value
    }

    mutating func skipSpace() {
        while let byte = next, byte == 0x20 || byte == 0x09 || byte == 0x0a || byte == 0x0d {
            index += 1
            if byte == 0x0a { (line, lineStart, continuations) = (line + 1, index, 0) }
        }
    }

    mutating func take(_ byte: UInt8) -> Bool {
        skipSpace()
        guard next == byte else { return false }
        index += 1
        return true
    }

    mutating func value() throws(JSONError) -> JSON {
        skipSpace()
        let start = position
        let content: JSON.Content
        switch next {
        case UInt8(ascii: "{"): content = .object(try nested { parser throws(JSONError) in try parser.members() })
        case UInt8(ascii: "["): content = .array(try nested { parser throws(JSONError) in try parser.elements() })
        case UInt8(ascii: "\""): content = .string(try string())
        case let byte? where byte == UInt8(ascii: "-") || (0x30...0x39).contains(byte): content = .number(try number())
        default:
            let words: [(String, JSON.Content)] = [
                ("null", .null), ("true", .boolean(true)), ("false", .boolean(false)),
            ]
            guard let word = words.first(where: { bytes[index...].starts(with: $0.0.utf8) }) else {
                throw error("\(found) where a value is to be")
            }
            index += word.0.utf8.count
            content = word.1
        }
        return JSON(content: content, position: start)
    }

    /// What is in a pair of brackets, from the first of them on.
    mutating func nested<Result>(
        _ body: (inout JSONParser) throws(JSONError) -> Result
    ) throws(JSONError) -> Result {
        guard depth < JSON.mostDepth else { throw error("more than \(JSON.mostDepth) levels of brackets") }
        depth += 1
        defer { depth -= 1 }
        index += 1
        return try body(&self)
    }

    mutating func elements() throws(JSONError) -> [JSON] {
        var elements: [JSON] = []
        if take(UInt8(ascii: "]")) { return elements }
        repeat { elements.append(try value()) } while take(UInt8(ascii: ","))
        guard take(UInt8(ascii: "]")) else { throw error("\(found) where ',' or ']' is to be") }
        return elements
    }

    mutating func members() throws(JSONError) -> [JSON.Member] {
        var members: [JSON.Member] = []
        var lines: [String: Int] = [:]
        if take(UInt8(ascii: "}")) { return members }
        repeat {
            skipSpace()
            let start = position
            guard next == UInt8(ascii: "\"") else { throw error("\(found) where a key in quotes is to be") }
            let key = try string()
            if let first = lines.updateValue(start.line, forKey: key) {
                throw error("the key \(quoted(key)) is there twice; the first is in line \(first)", at: start)
            }
            guard take(UInt8(ascii: ":")) else { throw error("\(found) where ':' is to be") }
            members.append(JSON.Member(key: key, keyPosition: start, value: try value()))
        } while take(UInt8(ascii: ","))
        guard take(UInt8(ascii: "}")) else { throw error("\(found) where ',' or '}' is to be") }
        return members
    }

    /// RFC 8259, 6: a minus, an integer without leading zeros, a fraction, an exponent.
    mutating func number() throws(JSONError) -> String {
        let start = index, place = position
        if next == UInt8(ascii: "-") { index += 1 }
        let isZero = next == UInt8(ascii: "0")
        let count = try digits()
        guard !isZero || count == 1 else { throw error("a number that begins with 0", at: place) }
        if next == UInt8(ascii: ".") {
            index += 1
            _ = try digits()
        }
        if next == UInt8(ascii: "e") || next == UInt8(ascii: "E") {
            index += 1
            if next == UInt8(ascii: "+") || next == UInt8(ascii: "-") { index += 1 }
            _ = try digits()
        }
        return String(decoding: bytes[start..<index], as: UTF8.self)
    }

    mutating func digits() throws(JSONError) -> Int {
        let start = index
        while let byte = next, byte >= 0x30, byte <= 0x39 { index += 1 }
        guard index > start else { throw error("\(found) where a digit is to be") }
        return index - start
    }
}
//:
