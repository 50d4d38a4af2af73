import HostInterface
import Launcher
import Testing

@Suite struct EscapeKeysTests {
    private static let a: UInt8 = 0x01, c: UInt8 = 0x03

    @Test func passesEverythingElseOn() {
        var keys = EscapeKeys()
        let bytes: [UInt8] = Array(0...255).filter { $0 != Self.a }
        #expect(keys.take(bytes, at: 0) == [.send(bytes)])
    }

    @Test func quitsOnX() {
        var keys = EscapeKeys()
        #expect(keys.take([0x62, Self.a, UInt8(ascii: "x")], at: 0) == [.send([0x62]), .quit])
    }

    @Test func remembersTheEscapeBetweenReads() {
        var keys = EscapeKeys()
        #expect(keys.take([Self.a], at: 0) == [])
        #expect(keys.take([UInt8(ascii: "h")], at: 9_000_000_000) == [.help])
        #expect(keys.take([UInt8(ascii: "x")], at: 9_000_000_000) == [.send([UInt8(ascii: "x")])])
    }

    @Test func sendsItselfWhenDoubledAndBothWhenUnknown() {
        var keys = EscapeKeys()
        #expect(keys.take([Self.a, Self.a], at: 0) == [.send([Self.a])])
        #expect(keys.take([Self.a, 0x7a], at: 0) == [.send([Self.a, 0x7a])])
    }

    @Test func threeInterruptsWithinASecondQuitAndAreSent() {
        var keys = EscapeKeys()
        #expect(keys.take([Self.c], at: 0) == [.send([Self.c])])
        #expect(keys.take([Self.c], at: 400_000_000) == [.send([Self.c])])
        #expect(keys.take([Self.c], at: 1_000_000_000) == [.send([Self.c]), .quit])
    }

    @Test func slowOrInterruptedInterruptsDoNot() {
        var keys = EscapeKeys()
        for time in 0..<10 { #expect(keys.take([Self.c], at: UInt64(time) * 600_000_000) == [.send([Self.c])]) }
        keys = EscapeKeys()
        #expect(keys.take([Self.c, Self.c, 0x0d, Self.c], at: 0) == [.send([Self.c, Self.c, 0x0d, Self.c])])
    }
}

@Suite struct InputEncoderTests {
    /// What a Linux tty in canonical mode makes of it: the pieces that read(2) returns.
    static func decode(_ bytes: [UInt8]) -> [[UInt8]] {
        var pieces: [[UInt8]] = []
        var piece: [UInt8] = []
        var literal = false
        for byte in bytes {
            if literal {
                literal = false
                piece.append(byte)
            } else if byte == 0x16 {
                literal = true
            } else if byte == 0x04 {
                pieces.append(piece)
                piece = []
            } else {
                piece.append(byte)
                if byte == 0x0a {
                    pieces.append(piece)
                    piece = []
                }
            }
        }
        #expect(piece.isEmpty && !literal, "something would stay behind")
        return pieces
    }

    @Test func anyBytesComeOutAsTheyWentIn() {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("InputEncoderTests: seed \(seed)")
        var generator = Linear(state: seed)
        for _ in 0..<50 {
            var encoder = InputEncoder()
            var all: [UInt8] = []
            var encoded: [UInt8] = []
            for _ in 0..<Int.random(in: 1...5, using: &generator) {
                let interesting: [UInt8] = [0, 3, 4, 0x0a, 0x0d, 0x16, 0x61, 0x7f, 0xff]
                let chunk = (0..<Int.random(in: 1...5000, using: &generator)).map { _ in
                    Bool.random(using: &generator)
                        ? interesting.randomElement(using: &generator)! : UInt8.random(in: 0...255, using: &generator)
                }
                all += chunk
                encoded += encoder.encode(chunk)
            }
            let pieces = Self.decode(encoded)
            #expect(pieces.flatMap { $0 } == all)
            #expect(!pieces.contains([]), "an early end of file")
            #expect(pieces.allSatisfy { $0.count <= 4000 }, "longer than a tty's line")
            #expect(Self.decode(encoder.end()) == [[]])
        }
    }
}

/// Random numbers that a seed brings back.
struct Linear: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return state ^ state >> 29
    }
}

@Suite struct ControlLineTests {
    @Test func hearsItsWords() {
        var line = ControlLine()
        #expect(line.take(Array("rea".utf8)) == [])
        #expect(line.take(Array("dy\r\nexit 7\r\n".utf8)) == [.ready, .exit(status: 7)])
    }

    @Test(arguments: ["exit 256", "exit -1", "exit", "exit 1 2", "READY", "", "ready ready"])
    func forgetsTheRest(_ text: String) {
        var line = ControlLine()
        #expect(line.take(Array((text + "\n").utf8)) == [])
    }

    @Test func survivesAFlood() {
        var line = ControlLine()
        for _ in 0..<100 { #expect(line.take([UInt8](repeating: 0x61, count: 10000)) == []) }
        #expect(line.take(Array("\nready\n".utf8)) == [.ready])
    }
}

@Suite struct KernelLogTests {
    @Test func keepsTheLastOfIt() {
        let log = KernelLog()
        for number in 0..<20000 { log.append(Array("line \(number)\r\n".utf8)) }
        #expect(log.lastLines(2) == ["line 19998", "line 19999"])
        #expect(log.lastLines(.max).count > 3000)
    }

    @Test func knowsAPanic() {
        let log = KernelLog()
        log.append(Array("[    1.0] all is well\r\n".utf8))
        #expect(log.panic == nil)
        log.append(Array("[    1.1] Kernel panic - not syncing: No init found.\r\n[    1.2] Rebooting\r\n".utf8))
        #expect(log.panic == "No init found.")
    }
}

@Suite struct KernelModulesTests {
    @Test(arguments: [
        ("kernel/drivers/block/virtio-blk.ko", "virtio_blk"), ("a/b/ext4.ko.xz", "ext4"), ("x.ko.zst", "x"),
    ])
    func namesAreTheKernels(_ path: String, _ name: String) { #expect(KernelModules.moduleName(path) == name) }

    @Test(arguments: ["modules.builtin", "x.ko.bak", "README"])
    func otherFilesAreNoModules(_ path: String) { #expect(KernelModules.moduleName(path) == nil) }

    @Test func readsDependencies() {
        let module: [UInt8] =
            [0x7f, 0x45, 0, 1] + Array("\0license=GPL\0depends=virtio,virtio_ring\0retpoline=Y\0".utf8)
        #expect(KernelModules.dependencies(of: module) == ["virtio", "virtio_ring"])
        #expect(KernelModules.dependencies(of: Array("\0depends=\0".utf8)) == [])
        #expect(KernelModules.dependencies(of: []) == [])
    }

    @Test func putsDependenciesFirstAndBuiltInsNowhere() throws {
        let folder = try Files.createTemporaryFolder(beside: "/tmp/roost-modules")
        defer { Files.remove(folder) }
        let base = folder + "/lib/modules/6.1/kernel"
        try Files.createFolder(base)
        func write(_ name: String, _ depends: String) throws {
            try Files.writeAtomically(Array("\0depends=\(depends)\0".utf8), to: base + "/" + name)
        }
        try write("top.ko", "mid-dle,base,builtin")
        try write("mid-dle.ko", "base")
        try write("base.ko", "")
        try Files.writeAtomically(
            Array("kernel/drivers/builtin.ko\n".utf8), to: folder + "/lib/modules/6.1/modules.builtin")
        let modules = KernelModules(root: folder)
        #expect(
            try modules.resolve(["top", "base"]).map(\.path) == [
                "lib/modules/6.1/kernel/base.ko", "lib/modules/6.1/kernel/mid-dle.ko", "lib/modules/6.1/kernel/top.ko",
            ])
        let error = #expect(throws: HostError.self) { try modules.resolve(["nothing"]) }
        #expect(error?.description.contains("nothing") == true)
    }
}
