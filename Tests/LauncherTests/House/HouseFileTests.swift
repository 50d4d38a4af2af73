import HostInterface
import Launcher
import Network
import Testing

@Suite struct HouseFileTests {
    private func parse(_ text: String, path: String = "house.json") throws -> HouseFile {
        try HouseFile(parsing: Array(text.utf8), path: path)
    }

    @Test func aNameIsEnoughForAGuest() throws {
        let house = try parse(#"{"guests": [{"name": "web"}]}"#, path: "/srv/lab.json")
        #expect(house.name == "lab" && house.guests.map(\.name) == ["web"] && house.regions.isEmpty)
        let configuration = house.guests[0].configuration
        #expect(configuration.kernel == .debian(package: "linux-image-cloud-amd64"))
        #expect(configuration.memory.bytes == 512 << 20 && configuration.command.isEmpty)
    }

    @Test func everyKeyArrives() throws {
        let house = try parse(
            """
            { "$schema": "house.schema.json", "name": "lab", "regions": { "shared0": "1M", "ring": "64K" },
              "guests": [
                { "name": "a", "kernel": "vmlinuz", "initrd": "/boot/initrd", "append": "quiet", "memory": "256M",
                  "disks": ["a.qcow2,ro", "/b.raw,format=raw"], "net": "user,forward=8080:80", "console": "hvc0",
                  "rng": false, "engine": "interpreter", "reboot": false,
                  "regions": { "shared0": "0x10000000", "ring": "4096" } },
                { "name": "b", "kernel": "debian:linux-image-amd64", "command": ["echo", "one two"] } ] }
            """, path: "conf/x.json")
        #expect(house.name == "lab")
        #expect(house.regions.map(\.name) == ["shared0", "ring"])
        #expect(house.regions.map(\.byteCount) == [1 << 20, 64 << 10])
        let a = house.guests[0], b = house.guests[1]
        // What is relative is so to the file.
        #expect(a.configuration.kernel == .file("conf/vmlinuz") && a.configuration.initialRAMDisk == "/boot/initrd")
        #expect(a.configuration.disks.map(\.path) == ["conf/a.qcow2", "/b.raw"])
        #expect(a.configuration.disks.map(\.isReadOnly) == [true, false])
        #expect(a.configuration.commandLine == "quiet" && a.configuration.memory.bytes == 256 << 20)
        #expect(a.configuration.console == .hvc0 && !a.configuration.hasEntropy && !a.configuration.restartsOnReboot)
        #expect(a.configuration.engine == "interpreter")
        #expect(a.configuration.network.kind != .none && b.configuration.network.kind == .none)
        #expect(a.regions.map(\.address) == [0x1000_0000, 4096])
        #expect(a.regions.map(\.region) == house.regions && b.regions.isEmpty)
        #expect(b.configuration.command == [Array("echo".utf8), Array("one two".utf8)])
        #expect(b.configuration.kernel == .debian(package: "linux-image-amd64"))
    }

    /// A house with one guest that has `text` among its keys, from column 3 of line 3 on.
    private static func guest(_ text: String) -> String {
        "{ \"regions\": { \"r\": \"8K\" },\n  \"guests\": [ { \"name\": \"a\",\n  \(text) } ] }"
    }

    static let wrong: [(text: String, line: Int, column: Int, words: [String])] = [
        ("{\n  \"guests\": [,]\n}", 2, 14, ["','"]),
        ("[]", 1, 1, ["a house", "a list"]),
        ("{}", 1, 1, ["guests"]),
        ("{ \"guests\": {} }", 1, 13, ["guests", "an object"]),
        ("{ \"guests\": [] }", 1, 13, ["empty"]),
        ("{ \"guests\": [7] }", 1, 14, ["a guest", "a number"]),
        ("{ \"guests\": [{}] }", 1, 14, ["name"]),
        ("{ \"guests\": [{\"name\": \"a b\"}] }", 1, 23, ["a b", "letters"]),
        ("{ \"guests\": [{\"name\": \"a\"},\n {\"name\": \"a\"}] }", 2, 11, ["two guests", "line 1"]),
        ("{ \"guests\": [{\"name\": \"a\"}],\n \"guest\": 1 }", 2, 2, ["guest", "regions"]),
        ("{ \"name\": \"../x\", \"guests\": [{\"name\": \"a\"}] }", 1, 11, ["../x"]),
        ("{ \"regions\": { \"r\": \"1000\\u0000\" }, \"guests\": [{\"name\": \"a\"}] }", 1, 21, ["zero"]),
        ("{ \"regions\": { \"r\": \"1K\" }, \"guests\": [{\"name\": \"a\"}] }", 1, 21, ["1K", "4K"]),
        ("{ \"regions\": { \"r s\": \"1M\" }, \"guests\": [{\"name\": \"a\"}] }", 1, 16, ["r s"]),
        (guest("\"memory\": \"12X\""), 3, 13, ["memory", "12X", "512M"]),
        (guest("\"memory\": 512"), 3, 13, ["memory", "a number", "512M"]),
        (guest("\"memory\": \"1M\""), 3, 13, ["memory", "16M"]),
        (guest("\"memroy\": \"1M\""), 3, 3, ["memroy", "memory"]),
        (guest("\"memory\": \"64M\", \"memory\": \"1G\""), 3, 20, ["twice", "line 3"]),
        (guest("\"kernel\": \"\""), 3, 13, ["kernel"]),
        (guest("\"kernel\": null"), 3, 13, ["kernel", "null"]),
        (guest("\"disks\": \"a.raw\""), 3, 12, ["disks", "a string"]),
        (guest("\"disks\": [\"a.raw\", \"b,frob\"]"), 3, 22, ["disks", "frob"]),
        (guest("\"net\": \"user,forward=99999:22\""), 3, 10, ["net", "99999"]),
        (guest("\"console\": \"tty9\""), 3, 14, ["console", "tty9", "hvc0"]),
        (guest("\"rng\": \"yes\""), 3, 10, ["rng", "true or false"]),
        (guest("\"engine\": \"warp\""), 3, 13, ["engine", "warp", "interpreter"]),
        (guest("\"command\": \"ls -l\""), 3, 14, ["command", "a string"]),
        (guest("\"command\": [\"ls\"], \"initrd\": \"x\""), 3, 14, ["initrd"]),
        (guest("\"command\": [\"ls\"], \"append\": \"root=/dev/vda\""), 3, 14, ["root="]),
        (guest("\"regions\": { \"s\": \"0x1000\" }"), 3, 16, ["\"s\"", "r"]),
        (guest("\"regions\": { \"r\": \"0x1001\" }"), 3, 21, ["0x1001", "4K"]),
        (guest("\"regions\": { \"r\": \"there\" }"), 3, 21, ["there", "0x10000000"]),
        (guest("\"regions\": { \"r\": \"0x-1000\" }"), 3, 21, ["0x-1000"]),
        (guest("\"regions\": { \"r\": \"0x7fffffff000\" }"), 3, 21, ["above"]),
        (guest("\"regions\": { \"r\": \"0xffffffffffffffffff\" }"), 3, 21, ["no address"]),
    ]

    @Test(arguments: wrong.indices)
    func saysWhatIsWrongInOneLine(_ index: Int) throws {
        let (text, line, column, words) = Self.wrong[index]
        let error = try #require(throws: HouseFileError.self) { try parse(text) }
        #expect([error.position.line, error.position.column] == [line, column], "\(error)")
        #expect(error.description.hasPrefix("house.json:\(line):\(column): "))
        for word in words { #expect(error.description.contains(word), "\(error)") }
        #expect(!error.description.unicodeScalars.contains { $0.properties.generalCategory == .control })
    }

    @Test func regionsMayNotOverlap() throws {
        let text = """
            { "regions": { "r": "8K", "s": "4K" }, "guests": [ { "name": "a",
              "regions": { "r": "0x1000", "s": "0x2000" } } ] }
            """
        let error = try #require(throws: HouseFileError.self) { try parse(text) }
        #expect(error.position.line == 2 && error.message.contains("\"r\""))
    }

    @Test func aFileWithoutAUsableNameMustGiveOne() throws {
        let error = try #require(throws: HouseFileError.self) {
            try parse(#"{"guests": [{"name": "a"}]}"#, path: "/tmp/my house.json")
        }
        #expect(error.description.hasPrefix("/tmp/my house.json:1:1: ") && error.message.contains("\"name\""))
    }

    @Test func textOfTheFileCannotBreakTheLine() throws {
        let error = try #require(throws: HouseFileError.self) {
            try parse(#"{"guests": [{"name": "a", "memory": "1\n\u001b[2J\u202e"}]}"#)
        }
        #expect(!error.description.unicodeScalars.contains { $0.properties.generalCategory == .control })
        #expect(!error.description.unicodeScalars.contains { $0.properties.generalCategory == .format })
    }
}

/// The documents say what the parser does.
@Suite struct HouseDocumentTests {
    private func keys(_ json: JSON?, _ path: String...) throws -> Set<String> {
        var json = try #require(json)
        for key in path {
            guard case .object(let members) = json.content else {
                Issue.record("no object around \(key)")
                return []
            }
            json = try #require(members.first { $0.key == key }, "no \(key)").value
        }
        guard case .object(let members) = json.content else { return [] }
        return Set(members.map(\.key))
    }

    @Test func theSchemaHasTheSameKeys() throws {
        let schema = try JSON(parsing: try readFile("docs/house.schema.json"))
        #expect(try keys(schema, "properties") == Set(HouseFile.houseKeys))
        #expect(try keys(schema, "$defs", "guest", "properties") == Set(HouseFile.guestKeys))
    }

    @Test func theExamplesAreHouses() throws {
        let text = String(decoding: try readFile("docs/house.md"), as: UTF8.self)
        let examples = text.split(separator: "```json\n").dropFirst().map { $0.prefix { $0 != "`" } }
        #expect(!examples.isEmpty)
        for example in examples { _ = try HouseFile(parsing: Array(example.utf8), path: "house.json") }
    }

    @Test func theManualNamesEveryKey() throws {
        let text = String(decoding: try readFile("docs/house.md"), as: UTF8.self)
        for key in HouseFile.guestKeys + HouseFile.houseKeys { #expect(text.contains("`\(key)`"), "\(key)") }
    }
}
