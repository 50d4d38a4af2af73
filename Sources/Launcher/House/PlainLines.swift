/// Cuts what a Guest prints into lines that can stand among those of others.
///
/// Bytes pass as they are, but for what moves a cursor or changes a terminal:
/// escape sequences (ECMA-48) and control characters other than a tab are
/// left out, a carriage return ends a line as a newline does, a backspace
/// takes back what it would have gone over. A line ends at 4096 bytes.
package struct PlainLines {
    package static let longest = 4096

    /// Where in an escape sequence the next byte is.
    private enum Place {
        case text
        /// Behind ESC, and behind what may come between it and its last byte.
        case escape
        /// Behind ESC [.
        case control
        /// In a string for the terminal: ESC ] and its like, until BEL or ESC \.
        case string
    }

    private var place = Place.text
    private var line: [UInt8] = []
    /// A carriage return has ended a line: a newline that follows is part of that.
    private var afterReturn = false

    package init() {}

    /// There is the beginning of a line that has not ended.
    package var isPartial: Bool { !line.isEmpty }

    /// - Returns: the lines that have ended, without their ends.
    package mutating func take(_ bytes: some Sequence<UInt8>) -> [[UInt8]] {
        var lines: [[UInt8]] = []
        for byte in bytes {
            switch byte {
            case 0x0a:
                if !afterReturn { end(&lines) }
                (place, afterReturn) = (.text, false)
            case 0x0d:
                // What is redrawn over and over begins with one; an empty line it is not.
                if !line.isEmpty {
                    end(&lines)
                    afterReturn = true
                }
                place = .text
            case 0x1b: place = .escape
            default: pass(byte, &lines)
            }
        }
        return lines
    }

    /// - Returns: what there is of a line.
    package mutating func flush() -> [UInt8]? {
        guard !line.isEmpty else { return nil }
        defer { line = [] }
        return line
    }

    private mutating func end(_ lines: inout [[UInt8]]) {
        lines.append(line)
        line = []
    }

    private mutating func pass(_ byte: UInt8, _ lines: inout [[UInt8]]) {
        switch place {
        case .text:
            afterReturn = false
            if byte == 0x08 {
                while let last = line.popLast(), last & 0xc0 == 0x80 {}
            } else if byte >= 0x20 && byte != 0x7f || byte == 0x09 {
                // U+0080…U+009F are control characters too: ESC and a letter in one.
                if byte & 0xe0 == 0x80, line.last == 0xc2 { line.removeLast() } else { line.append(byte) }
                if line.count == Self.longest { end(&lines) }
            }
        case .escape:
            switch byte {
            case UInt8(ascii: "["): place = .control
            case UInt8(ascii: "]"), UInt8(ascii: "P"), UInt8(ascii: "X"), UInt8(ascii: "^"), UInt8(ascii: "_"):
                place = .string
            case 0x20...0x2f: break
            default: place = .text
            }
        case .control: if byte >= 0x40 { place = .text }
        case .string: if byte == 0x07 { place = .text }
        }
    }
}
