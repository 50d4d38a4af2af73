//L:260 A few words with /init
//
// The other end of ttyS3. Whoever speaks there is the Guest's root, so it is
// believed in nothing that could hurt more than the Guest itself: a line is
// short, a word is known, or it is forgotten.

/// Finds /init's words in what the Guest writes to its fourth serial port.
package struct ControlLine {
    package enum Word: Equatable, Sendable {
        /// Input may come.
        case ready
        /// The session is over, with the exit status of a shell.
        case exit(status: UInt8)
    }

    private static let longest = 32
    private var line: [UInt8] = []

    package init() {}

    package mutating func take(_ bytes: some Sequence<UInt8>) -> [Word] {
        var words: [Word] = []
        for byte in bytes {
            if byte == 0x0a {
                if let word = Self.word(line) { words.append(word) }
                line = []
            } else if byte != 0x0d, line.count <= Self.longest {
                line.append(byte)
            }
        }
        return words
    }

    private static func word(_ line: [UInt8]) -> Word? {
        guard line.count <= longest else { return nil }
        let parts = String(decoding: line, as: UTF8.self).split(separator: " ")
        if parts == ["ready"] { return .ready }
        if parts.count == 2, parts[0] == "exit", let status = UInt8(parts[1]) { return .exit(status: status) }
        return nil
    }
}
//:
