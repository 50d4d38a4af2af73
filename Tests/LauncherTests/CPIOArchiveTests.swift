import HostInterface
import Launcher
import Testing

/// The archive read back by a reader of our own and, where there is one, by cpio(1).
@Suite struct CPIOArchiveTests {
    struct Entry: Equatable {
        var name: String
        var mode: UInt32
        var contents: [UInt8]
    }

    /// Reads newc by the book: nothing is taken from the writer.
    static func read(_ archive: [UInt8]) throws -> [Entry] {
        var entries: [Entry] = []
        var position = 0
        func number(_ field: Int) throws -> Int {
            let start = position + 6 + field * 8
            return try #require(Int(String(decoding: archive[start..<start + 8], as: UTF8.self), radix: 16))
        }
        while true {
            try #require(position + 110 <= archive.count)
            #expect(Array(archive[position..<position + 6]) == Array("070701".utf8))
            let (mode, size, nameSize) = (try number(1), try number(6), try number(11))
            let nameStart = position + 110
            #expect(archive[nameStart + nameSize - 1] == 0)
            let name = String(decoding: archive[nameStart..<nameStart + nameSize - 1], as: UTF8.self)
            let start = (nameStart + nameSize + 3) & ~3
            position = (start + size + 3) & ~3
            if name == "TRAILER!!!" { break }
            entries.append(Entry(name: name, mode: UInt32(mode), contents: Array(archive[start..<start + size])))
        }
        #expect(position == archive.count)
        return entries
    }

    @Test func writesWhatItWasGiven() throws {
        var archive = CPIOArchive()
        archive.addFile("etc/deep/motd", "hello")
        archive.addFolder("etc")
        archive.addLink("bin/sh", to: "busybox")
        archive.addCharacterDevice("dev/console", major: 5, minor: 1)
        archive.addFile("empty", [])
        let entries = try Self.read(archive.finished())
        #expect(
            entries.map(\.name) == ["etc", "etc/deep", "etc/deep/motd", "bin", "bin/sh", "dev", "dev/console", "empty"])
        #expect(entries[2] == Entry(name: "etc/deep/motd", mode: 0o100644, contents: Array("hello".utf8)))
        #expect(entries[4] == Entry(name: "bin/sh", mode: 0o120777, contents: Array("busybox".utf8)))
        #expect(entries[6].mode == 0o020600)
    }

    @Test func isReadByCPIO() throws {
        guard (try? Subprocess.run(["cpio", "--version"])) != nil else {
            print("skipped: this machine has no cpio(1)")
            return
        }
        var archive = CPIOArchive()
        archive.addFile("a/b/c", "text", mode: 0o755)
        archive.addLink("link", to: "a/b/c")
        let folder = try Files.createTemporaryFolder(beside: "/tmp/roost-cpio")
        defer { Files.remove(folder) }
        try Files.writeAtomically(archive.finished(), to: folder + "/archive")
        let list = try Subprocess.run(["sh", "-c", "cpio --quiet -t < archive"], in: folder)
        #expect(list.status == 0)
        #expect(String(decoding: list.output, as: UTF8.self) == "a\na/b\na/b/c\nlink\n")
    }
}

@Suite struct InitialRAMDiskTests {
    private func build(_ session: Session, modules: [KernelModule] = []) throws -> [String: CPIOArchiveTests.Entry] {
        let entries = try CPIOArchiveTests.read(
            InitialRAMDisk.build(session: session, busybox: [1, 2, 3], modules: modules))
        return Dictionary(uniqueKeysWithValues: entries.map { ($0.name, $0) })
    }

    @Test func holdsWhatAKernelNeedsToStart() throws {
        let files = try build(Session(kind: .piped))
        #expect(files["init"]?.mode == 0o100755)
        #expect(files["bin/busybox"]?.contents == [1, 2, 3])
        #expect(files["dev/console"]?.mode == 0o020600)
        for folder in ["proc", "sys", "tmp", "run", "root"] { #expect(files[folder]?.mode == 0o040755) }
    }

    @Test func initIsAScriptThatParses() throws {
        let folder = try Files.createTemporaryFolder(beside: "/tmp/roost-init")
        defer { Files.remove(folder) }
        try Files.writeAtomically(Array(InitialRAMDisk.initScript.utf8), to: folder + "/init")
        let result = try Subprocess.run(["sh", "-n", folder + "/init"])
        #expect(result.status == 0, "\(result.errorText)")
    }

    @Test func putsModulesWhereTheyAreLoadedFrom() throws {
        let module = KernelModule(path: "usr/lib/modules/6/kernel/a.ko", contents: [7])
        let files = try build(Session(kind: .piped), modules: [module])
        #expect(files[module.path]?.contents == [7])
        #expect(files["etc/roost/modules"]?.contents == Array("/usr/lib/modules/6/kernel/a.ko\n".utf8))
    }

    @Test func tellsInitAboutTheTerminal() throws {
        let session = Session(
            kind: .terminal, port: "hvc0", windowSize: WindowSize(rows: 40, columns: 132), terminalName: "xterm")
        let text = String(decoding: try build(session)["etc/roost/session"]?.contents ?? [], as: UTF8.self)
        #expect(text == "kind=terminal\nuser=/dev/hvc0\nshell=yes\nrows=40 columns=132\nterm=xterm\n")
    }

    @Test func keepsATerminalsNameFromBecomingAProgram() throws {
        let session = Session(kind: .terminal, terminalName: "x;reboot")
        let text = String(decoding: try build(session)["etc/roost/session"]?.contents ?? [], as: UTF8.self)
        #expect(!text.contains("reboot"))
    }

    /// Real shells are the judge of our quoting.
    @Test func argumentsSurviveTheShell() throws {
        let arguments: [[UInt8]] =
            [
                "it's", "", "a b", "$HOME `id` \\ \"", "line\nline", "*", "-n", "''", "ünïcödé",
            ].map { Array($0.utf8) } + [[0xff, 0x80, 0x27, 0x01]]
        let script = InitialRAMDisk.script(running: ["printf", "%s\\0"].map { Array($0.utf8) } + arguments)
        let folder = try Files.createTemporaryFolder(beside: "/tmp/roost-quote")
        defer { Files.remove(folder) }
        try Files.writeAtomically(script, to: folder + "/script")
        let result = try Subprocess.run(["sh", folder + "/script"])
        #expect(
            result.output.split(separator: 0, omittingEmptySubsequences: false).dropLast().map(Array.init) == arguments)
    }
}
