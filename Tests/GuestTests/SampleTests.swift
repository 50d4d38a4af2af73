import Glibc
import GuestMemory
import HostInterface
import Launcher
import Lguest
import Network
import Storage
import Testing
import VirtioDevices

/// Guests in Swift, each on every engine that this host has.
@Suite(
    .enabled(if: SampleGuest.areBuilt, "there are no samples in .build/guests: make guests"), .timeLimit(.minutes(5)))
struct SampleTests {
    static let engines = EngineTable.all.filter { $0.unavailability() == nil }.map(\.name)

    /// Lockstep takes back what a block has written and has it done again. Between
    /// the two, another Guest may have filled the DMA buffer that it had set free.
    static let enginesForDMA = engines.filter { !$0.hasPrefix("lockstep") }

    private func engine(_ name: String) throws -> Engine { try #require(EngineTable.all.first { $0.name == name }) }

    private func withDisk(_ bytes: [UInt8], readOnly: Bool = true, _ body: (Block) throws -> Void) throws {
        let folder = try Files.createTemporaryFolder(beside: "/tmp/roost-sample")
        defer { Files.remove(folder) }
        try Files.writeAtomically(bytes, to: folder + "/disk")
        try body(Block(try DiskImages.open(path: folder + "/disk", format: .raw, readOnly: readOnly)))
    }

    @Test(arguments: engines) func helloSaysOneLine(_ name: String) throws {
        let guest = try SampleGuest("hello", try engine(name))
        #expect(try guest.run()?.isPowerOff == true)
        #expect(guest.printed == "Hello from a Guest in Swift, with 16 MiB to itself.\n")
        #expect(guest.remarks == [])
    }

    @Test(arguments: engines) func echoReturnsLinesUntilExit(_ name: String) throws {
        let guest = try SampleGuest("echo", try engine(name))
        guest.type("one\ntwo\rexit\nthree\n")
        #expect(try guest.run()?.isPowerOff == true)
        #expect(guest.printed == "one\ntwo\nexit\n")
        #expect(guest.remarks == [])
    }

    @Test(arguments: engines) func echoEndsAtTheEndOfTransmission(_ name: String) throws {
        let guest = try SampleGuest("echo", try engine(name))
        try guest.start()
        guest.type("slow")
        guest.type("ly\n")
        #expect(guest.hasPrinted("slowly\n"))
        guest.type("\u{4}")
        #expect(guest.join()?.isPowerOff == true)
        #expect(guest.printed == "slowly\n")
    }

    @Test(arguments: engines) func diskcatPrintsUpToTheFirstNUL(_ name: String) throws {
        // Longer than the page that is read at a time.
        let text = String(repeating: "A line that is on the disk.\n", count: 400)
        try withDisk(Array(text.utf8) + [UInt8](repeating: 0, count: 16384 - text.utf8.count)) { disk in
            let guest = try SampleGuest("diskcat", try engine(name), devices: [disk])
            #expect(try guest.run()?.isPowerOff == true)
            #expect(guest.printed == text)
            #expect(guest.remarks == [])
        }
    }

    @Test(arguments: engines) func diskcatPrintsAsManyBytesAsWasSaid(_ name: String) throws {
        let bytes = (0..<8192).map { UInt8(UInt8(ascii: "a") + UInt8($0 / 512)) }
        try withDisk(bytes) { disk in
            let guest = try SampleGuest("diskcat", try engine(name), commandLine: "bytes=5000", devices: [disk])
            #expect(try guest.run()?.isPowerOff == true)
            #expect(Array(guest.printed.utf8) == Array(bytes[..<5000]))
        }
    }

    @Test(arguments: engines) func diskcatNeedsADisk(_ name: String) throws {
        let guest = try SampleGuest("diskcat", try engine(name))
        #expect(try guest.run()?.reason == "CRASH: there is no disk")
    }

    @Test(arguments: engines) func diceFallsOnEachSide(_ name: String) throws {
        let guest = try SampleGuest("dice", try engine(name), commandLine: "rolls=300", devices: [Entropy()])
        #expect(try guest.run()?.isPowerOff == true)
        #expect(guest.lines.count == 300)
        var seen: Set<Int> = []
        for line in guest.lines {
            let match = try #require(line.wholeMatch(of: /([1-6]) and ([1-6]): (\d+)/), "\(line)")
            let (first, second) = (try #require(Int(match.1)), try #require(Int(match.2)))
            #expect(Int(match.3) == first + second)
            seen.formUnion([first, second])
        }
        // Six hundred dice, and one side never: (5/6)^600.
        #expect(seen.count == 6)
        #expect(guest.remarks == [])
    }

    /// The region is at another address in each.
    @Test(arguments: enginesForDMA) func twoGuestsChat(_ name: String) throws {
        let engine = try engine(name)
        let host = LguestHost(makeCPU: engine.makeVCPU)
        let region = try SharedRegion(name: "chat", byteCount: 4096)
        let guests = try [8 << 20, 12 << 20].enumerated().map { me, address in
            try SampleGuest(
                "chat", engine, host: host, commandLine: "me=\(me) region=0x\(String(address, radix: 16))",
                region: (region, UInt64(address)))
        }
        for guest in guests { try guest.start() }
        for guest in guests { #expect(guest.hasPrinted("ready\n")) }
        guests[0].type("hello there\n")
        #expect(guests[1].hasPrinted("<0> hello there\n"))
        guests[1].type("hello yourself\n")
        #expect(guests[0].hasPrinted("<1> hello yourself\n"))
        // More at once than an inbox has room for: nothing is lost, and the order is kept.
        guests[0].type((0..<40).map { "line \($0)\n" }.joined())
        #expect(guests[1].hasPrinted("<0> line 39\n"))
        guests[1].type("bye\n")
        for guest in guests { #expect(guest.join()?.isPowerOff == true) }
        #expect(
            guests[1].printed == "ready\n<0> hello there\n" + (0..<40).map { "<0> line \($0)\n" }.joined())
        for guest in guests { #expect(guest.remarks == []) }
    }

    @Test(.enabled(if: hasCurl, "there is no curl here"), .serialized, arguments: engines)
    func httpdAnswersCurl(_ name: String) throws {
        let port = try Loopback.freePort()
        let network = try UserNetwork(forwards: [try PortForward(parsing: "\(port):80")])
        let guest = try SampleGuest("httpd", try engine(name), devices: [Net(network)])
        try guest.start()
        defer {
            guest.stop()
            _ = guest.join()
        }
        #expect(guest.hasPrinted("ready\n"))
        func get(_ arguments: [String]) throws -> String {
            let result = try Subprocess.run(["curl", "-s", "--max-time", "30"] + arguments)
            #expect(result.status == 0, "\(arguments)")
            return String(decoding: result.output, as: UTF8.self)
        }
        let root = "http://127.0.0.1:\(port)/"
        #expect(try get([root]).contains("<title>A Guest in Swift</title>"))
        #expect(try get(["-w", "%{http_code}", root + "other"]).hasSuffix("404"))
        #expect(try get(["-w", "%{http_code}", "-d", "a=b", root]).hasSuffix("405"))
        // Sixty-four in a row and eight at a time: more than there are places.
        let many = Array(repeating: ["-o", "/dev/null", root], count: 64).flatMap { $0 }
        let codes = try get(["--parallel", "--parallel-max", "8", "-w", "%{http_code}\n"] + many)
        #expect(codes == String(repeating: "200\n", count: 64))
        #expect(guest.remarks == [])
    }

    @Test(.enabled(if: hasCurl, "there is no curl here"))
    func httpdBearsLossAndRepetition() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        let port = try Loopback.freePort()
        let network = LossyNetwork(
            try UserNetwork(forwards: [try PortForward(parsing: "\(port):80")]), rarity: 6, seed: seed)
        let guest = try SampleGuest("httpd", try engine(Self.engines[0]), devices: [Net(network)])
        try guest.start()
        defer {
            guest.stop()
            _ = guest.join()
        }
        #expect(guest.hasPrinted("ready\n"))
        let root = "http://127.0.0.1:\(port)/"
        let requests = Array(repeating: ["-o", "/dev/null", root], count: 16).flatMap { $0 }
        let result = try Subprocess.run(
            ["curl", "-s", "--max-time", "60", "--parallel", "-w", "%{http_code} %{size_download}\n"] + requests)
        let lines = Set(String(decoding: result.output, as: UTF8.self).split(separator: "\n"))
        #expect(
            result.status == 0 && lines.count == 1 && lines.first?.hasPrefix("200 ") == true, "seed \(seed): \(lines)")
        #expect(network.lostFrames > 0)
        #expect(guest.remarks == [])
    }

    static let hasCurl = (try? Subprocess.run(["curl", "--version"]))?.status == 0

    @Test(arguments: engines) func theKitHolds(_ name: String) throws {
        try withDisk([UInt8](repeating: 0, count: 16384), readOnly: false) { disk in
            let guest = try SampleGuest(
                "exercise", try engine(name), commandLine: "number=0x1f bare", devices: [Entropy(), disk])
            #expect(try guest.run()?.isPowerOff == true)
            #expect(guest.lines.count == 15)
            for line in guest.lines { #expect(line.hasSuffix(": yes"), "\(line)") }
            #expect(guest.remarks == [])
        }
    }

    @Test(arguments: [
        ("panic", "CRASH: as was asked for"), ("nil", "CRASH: page fault at 0x[0-9a-f]+: address 0x8, error 0"),
        ("bounds", "CRASH: trap at 0x[0-9a-f]+, error 0x0"),
        ("stack", "CRASH: page fault at 0x[0-9a-f]+: address 0x[0-9a-f]+, error 2"),
        ("memory", "CRASH: out of memory"),
    ]) func anEndHasAReason(_ how: String, _ reason: String) throws {
        let guest = try SampleGuest(
            "exercise", try engine(Self.engines[0]), commandLine: "number=31 bare end=\(how)", devices: [Entropy()])
        let death = try #require(try guest.run())
        #expect(try Regex(reason).wholeMatch(in: death.reason) != nil, "\(death.reason)")
        #expect(!death.isPowerOff)
    }

    @Test func restartIsAskedFor() throws {
        let guest = try SampleGuest("exercise", try engine(Self.engines[0]), commandLine: "end=restart")
        #expect(try guest.run() == .restart)
    }

    /// What issue and README promise.
    @Test func samplesAreShort() throws {
        for path in Files.tree("Guest/Sources/Samples") where path.hasSuffix(".swift") {
            let text = String(decoding: try readFile("Guest/Sources/Samples/" + path), as: UTF8.self)
            #expect(text.split(separator: "\n", omittingEmptySubsequences: false).count < 100, "\(path)")
        }
    }
}

/// Ports of the loopback interface.
private enum Loopback {
    /// One that nobody has, and that nobody gets who lets the kernel choose: those are from 32768 on.
    static func freePort() throws -> UInt16 {
        while true {
            let port = UInt16.random(in: 20000..<32768)
            if try isFree(port) { return port }
        }
    }

    private static func isFree(_ port: UInt16) throws -> Bool {
        let number = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        try #require(number >= 0)
        defer { close(number) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        address.sin_port = port.bigEndian
        return unsafe withUnsafeBytes(of: &address) { bytes in
            let pointer = unsafe bytes.assumingMemoryBound(to: sockaddr.self).baseAddress
            return unsafe bind(number, pointer, socklen_t(bytes.count)) == 0
        }
    }
}
