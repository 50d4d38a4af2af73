import Launcher
import Testing

@Suite struct PlainLinesTests {
    private func lines(_ text: String) -> [String] {
        var plain = PlainLines()
        var lines = plain.take(Array(text.utf8))
        if let last = plain.flush() { lines.append(last + Array("<".utf8)) }
        return lines.map { String(decoding: $0, as: UTF8.self) }
    }

    @Test(
        arguments: [
            ("a\nb\n", ["a", "b"]), ("a\r\nb", ["a", "b<"]), ("\n\n", ["", ""]), ("a\r\r\nb\n", ["a", "b"]),
            ("1%\r2%\r\n", ["1%", "2%"]), ("\ra\n", ["a"]), ("a\tb\n", ["a\tb"]), ("grün 😀\n", ["grün 😀"]),
            ("\u{1b}[31mred\u{1b}[0m\n", ["red"]), ("\u{1b}[2J\u{1b}[Hx\n", ["x"]), ("a\u{1b}]0;title\u{7}b\n", ["ab"]),
            ("a\u{1b}]0;title\u{1b}\\b\n", ["ab"]), ("a\u{1b}(Bb\u{1b}7c\n", ["abc"]), ("\u{1b}[6n# ", ["# <"]),
            ("a\u{0}\u{7}\u{7f}b\n", ["ab"]), ("lss\u{8}\n", ["ls"]), ("aé\u{8}b\n", ["ab"]), ("\u{8}\u{8}x\n", ["x"]),
            ("a\u{9b}31mb\u{85}c\n", ["a31mbc"]), ("\u{1b}[1\nx\n", ["", "x"]), ("\u{1b}]never ends\nx\n", ["", "x"]),
        ] as [(String, [String])])
    func leavesOutWhatWouldWreckOtherLines(_ text: String, _ expected: [String]) { #expect(lines(text) == expected) }

    @Test func aSequenceMayComeInPieces() {
        var plain = PlainLines()
        var found: [[UInt8]] = []
        for byte in Array("x\u{1b}[1;31mred\u{1b}]0;t\u{1b}\\ü\r\n".utf8) { found += plain.take([byte]) }
        #expect(found == [Array("xredü".utf8)] && !plain.isPartial)
    }

    @Test func aLineHasAnEnd() {
        var plain = PlainLines()
        let found = plain.take([UInt8](repeating: 0x61, count: 10000))
        #expect(found.map(\.count) == [PlainLines.longest, PlainLines.longest])
        #expect(plain.flush()?.count == 10000 - 2 * PlainLines.longest && plain.flush() == nil)
    }

    @Test func otherBytesPass() {
        var plain = PlainLines()
        let bytes = Array(UInt8(0x20)...0x7e) + Array(UInt8(0x80)...0xff)
        #expect(plain.take(bytes + [0x0a]) == [bytes])
    }
}

@Suite struct BacklogTests {
    @Test func keepsTheEndAndSaysWhatIsLost() {
        var backlog = Backlog()
        let line = Array("0123456789abcde\n".utf8)
        for _ in 0..<200_000 { backlog.append(line) }
        #expect(backlog.end == 3_200_000)
        #expect(backlog.read(from: 0, limit: 10) == nil && backlog.read(from: backlog.end + 1, limit: 10) == nil)
        #expect(backlog.read(from: backlog.end, limit: 10)?.isEmpty == true)
        #expect(backlog.read(from: backlog.end - 16, limit: 4).map(Array.init) == Array("0123".utf8))
        #expect(backlog.read(from: backlog.end - Backlog.kept, limit: 1) != nil)
    }

    @Test func beginsWithAWholeLine() throws {
        var backlog = Backlog()
        #expect(backlog.beginning == 0)
        backlog.append(Array("short\n".utf8))
        #expect(backlog.beginning == 0)
        for number in 0..<5000 { backlog.append(Array("line \(number)\n".utf8)) }
        let shown = try #require(backlog.read(from: backlog.beginning, limit: .max))
        #expect(shown.count <= Backlog.shown && shown.starts(with: "line ".utf8))
        backlog.append([UInt8](repeating: 0x78, count: 100_000))
        #expect(backlog.beginning == backlog.end - Backlog.shown)
    }
}

@Suite struct ControlFrameTests {
    @Test func framesComeOutOfAnyPieces() {
        let frames = [
            ControlFrame(.list), ControlFrame(.console, "web"),
            ControlFrame(.output, [UInt8](repeating: 7, count: ControlFrame.mostPayload)),
        ]
        let bytes = frames.flatMap(\.bytes)
        for piece in [1, 2, 3, 1000, bytes.count] {
            var reader = ControlFrameReader()
            var found: [ControlFrame] = []
            for start in stride(from: 0, to: bytes.count, by: piece) {
                reader.take(Array(bytes[start..<min(start + piece, bytes.count)]))
                while let frame = reader.next() { found.append(frame) }
            }
            #expect(found == frames && !reader.isLost)
        }
    }

    @Test func garbageIsTheEnd() {
        var reader = ControlFrameReader()
        reader.take(Array("GET / HTTP/1.1\r\n".utf8))
        #expect(reader.next() == nil && reader.isLost)
        reader.take(ControlFrame(.list).bytes)
        #expect(reader.next() == nil)
    }
}
