import Launcher
import Testing

@Suite struct JSONTests {
    private func parse(_ text: String) throws -> JSON { try JSON(parsing: Array(text.utf8)) }

    /// The one string in a list.
    private func string(_ text: String) throws -> String? {
        guard case .array(let elements) = try parse("[\(text)]").content,
            case .string(let value)? = elements.first?.content
        else { return nil }
        return value
    }

    @Test func knowsWhereEachValueStood() throws {
        let json = try parse("{\n  \"a\": [1,\n\ttrue],\r\n  \"ü😀\": null }")
        guard case .object(let members) = json.content, case .array(let elements) = members[0].value.content else {
            Issue.record("no object with a list")
            return
        }
        #expect(members.map(\.key) == ["a", "ü😀"])
        #expect(members.map { [$0.keyPosition.line, $0.keyPosition.column] } == [[2, 3], [4, 3]])
        #expect(elements.map { [$0.position.line, $0.position.column] } == [[2, 9], [3, 2]])
        // Scalars are counted, not bytes.
        #expect([members[1].value.position.line, members[1].value.position.column] == [4, 9])
    }

    @Test(arguments: [
        (#""plain""#, "plain"), (#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{c}\n\r\t"), (#""\u00e9\u4E2d""#, "é中"),
        (#""\ud83d\ude00""#, "😀"), ("\"é中😀\"", "é中😀"), (#""""#, ""), (#""\u0000""#, "\0"),
    ])
    func readsStrings(_ text: String, _ value: String) throws { #expect(try string(text) == value) }

    @Test(arguments: ["0", "-0", "1", "-12", "0.5", "1e9", "1E+9", "12.25e-3", "123456789012345678901234567890"])
    func keepsNumbersAsWritten(_ text: String) throws {
        guard case .number(let value) = try parse(text).content else {
            Issue.record("no number")
            return
        }
        #expect(value == text)
    }

    @Test(
        arguments: [
            // Text, line, column, and a word of the message.
            ("", 1, 1, "end of the file"), ("  \n ", 2, 2, "end of the file"), ("{", 1, 2, "key"),
            ("[1,]", 1, 4, "']'"),
            ("[1 2]", 1, 4, "','"), ("{\"a\" 1}", 1, 6, "':'"), ("{\"a\":1,}", 1, 8, "key"), ("{a:1}", 1, 2, "'a'"),
            ("[01]", 1, 2, "begins with 0"), ("[1.]", 1, 4, "digit"), ("[.5]", 1, 2, "'.'"), ("[+1]", 1, 2, "'+'"),
            ("[1e]", 1, 4, "digit"), ("[-]", 1, 3, "digit"), ("[NaN]", 1, 2, "'N'"), ("[tru]", 1, 2, "'t'"),
            ("1 2", 1, 3, "behind"), ("// no\n1", 1, 1, "'/'"), ("['a']", 1, 2, "'''"), ("\"a", 1, 1, "without an end"),
            ("[\n\"a\nb\"]", 2, 3, "control"), (#"["\x"]"#, 1, 3, "escape"), (#"["\u12g4"]"#, 1, 3, "hexadecimal"),
            (#"["ab\ud800"]"#, 1, 5, "surrogate"), (#"["\udc00"]"#, 1, 3, "surrogate"),
            (#"["\ud800\u0041"]"#, 1, 3, "surrogate"), (#"["\"#, 1, 4, "without an end"),
            ("\u{feff}1", 1, 1, "byte order"),
            ("{\"a\":1,\n \"a\":2}", 2, 2, "twice"), ("[\u{1}]", 1, 2, "control"), ("[é]", 1, 2, "ASCII"),
        ] as [(String, Int, Int, String)])
    func saysWhatIsWrongAndWhere(_ text: String, _ line: Int, _ column: Int, _ word: String) throws {
        let error = try #require(throws: JSONError.self) { try parse(text) }
        #expect([error.position.line, error.position.column] == [line, column], "\(error)")
        #expect(error.message.contains(word), "\(error)")
        #expect(!error.message.contains("\n"))
    }

    /// RFC 3629: overlong forms, halves of surrogate pairs, what is above U+10FFFF, and pieces.
    @Test(
        arguments: [
            [0x80], [0xc0, 0x80], [0xc1, 0xbf], [0xe0, 0x9f, 0xbf], [0xed, 0xa0, 0x80], [0xf0, 0x8f, 0xbf, 0xbf],
            [0xf4, 0x90, 0x80, 0x80], [0xf5, 0x80, 0x80, 0x80], [0xff], [0xe2, 0x82], [0xc3], [0xe2, 0x28, 0xa1],
        ] as [[UInt8]])
    func refusesWhatIsNoUTF8(_ bytes: [UInt8]) throws {
        let text = Array("[\"é".utf8) + bytes + Array("\"]".utf8)
        let error = try #require(throws: JSONError.self) { try JSON(parsing: text) }
        #expect(error.message.contains("UTF-8") && error.position.column == 4, "\(error)")
    }

    @Test func limitsDepthAndSize() throws {
        let most = JSON.mostDepth
        _ = try parse(String(repeating: "[", count: most) + String(repeating: "]", count: most))
        let error = try #require(throws: JSONError.self) { try parse(String(repeating: "[{\"a\":", count: 1 << 16)) }
        #expect(error.message.contains("\(most) levels"))
        let large = [UInt8](repeating: 0x20, count: JSON.mostBytes + 1)
        #expect(throws: JSONError.self) { try JSON(parsing: large) }
    }

    /// Whatever a byte is replaced with, there is a value or one line of complaint with a place in the text.
    @Test func survivesNoise() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("JSONTests: seed \(seed)")
        var generator = Linear(state: seed)
        let text = Array(#"{"a": [1, -2.5e3, "x\u00e9é\n"], "b": {"c": null, "d": true}, "e": ""}"#.utf8)
        for _ in 0..<5000 {
            var noisy = text
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                noisy[Int.random(in: 0..<noisy.count, using: &generator)] = UInt8.random(in: 0...255, using: &generator)
            }
            do { _ = try JSON(parsing: noisy) } catch {
                #expect(error.position.line >= 1 && (1...noisy.count + 1).contains(error.position.column))
                #expect(!error.message.utf8.contains { $0 < 0x20 })
            }
        }
    }
}
