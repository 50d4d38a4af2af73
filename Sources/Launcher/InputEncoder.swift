//L:250 Any byte, and the end of file, over a serial line
//
// The far end reads lines (see "The smallest Linux that is any use"). A line
// may have 4095 bytes at most there, and what belongs to no whole line is not
// seen until the EOF character pushes it on. So we push after every piece that
// does not end a line, and never let a piece grow long. The one thing to avoid
// is a push after nothing: that is the end of file.

/// Turns standard input into what a tty in canonical mode turns back into it.
package struct InputEncoder {
    private static let endOfFile: UInt8 = 0x04
    private static let literalNext: UInt8 = 0x16
    private static let newline: UInt8 = 0x0a
    private static let longestPiece = 1024

    private var pieceCount = 0

    package init() {}

    package mutating func encode(_ bytes: some Sequence<UInt8>) -> [UInt8] {
        var encoded: [UInt8] = []
        for byte in bytes {
            if byte == Self.endOfFile || byte == Self.literalNext { encoded.append(Self.literalNext) }
            encoded.append(byte)
            pieceCount = byte == Self.newline ? 0 : pieceCount + 1
            if pieceCount == Self.longestPiece { push(&encoded) }
        }
        if pieceCount > 0 { push(&encoded) }
        return encoded
    }

    /// The end. `encode` has left nothing unpushed, so this ends an empty line.
    package func end() -> [UInt8] { [Self.endOfFile] }

    private mutating func push(_ encoded: inout [UInt8]) {
        encoded.append(Self.endOfFile)
        pieceCount = 0
    }
}
//:
