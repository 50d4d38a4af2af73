import Glibc
import HostInterface
import Synchronization
import Testing

/// Several Guests in one process, and what reaches them from others.
@Suite(.serialized) struct HouseTests {
    private func text(_ result: Subprocess.Result) -> String { String(decoding: result.output, as: UTF8.self) }

    @Test func aDeadGuestLeavesTheOthersAlone() throws {
        let house = try RunningHouse([("good", .prints), ("bad", .dies)])
        let lines = try house.list { $0.count == 2 && $0[1][3] == "died" }
        #expect(lines[0].prefix(5) == ["test", "good", "bare", "running", "translator"])
        #expect(lines[0][5] == "16M")
        #expect(try house.command("stop", "good").status == 0)
        let end = try house.end()
        #expect(end.status == 70)
        #expect(text(end) == "good | h\n")
        #expect(end.errorText.contains("roost: bad died: "), "\(end.errorText)")
        #expect(end.errorText.contains("\nbad  | ") && end.errorText.contains("0000000000100020"), "no RIP")
        #expect(end.errorText.contains("roost: good ended: it was stopped\n"))
        #expect(Files.list(house.socketFolder).isEmpty)
    }

    @Test func theStatusIsTheFirstThatIsNotZero() throws {
        let end = try RunningHouse([("a", .powersOff), ("b", .exits), ("c", .powersOff)]).end()
        #expect(end.status == 5 * 2 + 1)
        #expect(end.output == [])
        #expect(end.errorText.contains("roost: a ended: it powered off\n"), "\(end.errorText)")
        #expect(end.errorText.contains("roost: b ended: it wrote to the exit port, status 11\n"), "\(end.errorText)")
        #expect(try RunningHouse([("a", .powersOff), ("b", .powersOff)]).end().status == 0)
    }

    /// An ended Guest's disk is anybody's, though the house goes on.
    @Test func theEndGivesBackWhatAGuestHad() throws {
        let house = try RunningHouse([("a", .prints), ("b", .prints)], keys: ["a": "\"disks\": [\"disk.raw\"]"])
        try house.waitUntilUp(2)
        let disk = house.folder + "/disk.raw"
        #expect(text(try house.command("disk", "info", disk)).contains("in use:     by roost"))
        #expect(try house.memoryFiles() == 2)
        #expect(try house.command("stop", "a").status == 0)
        var memories = try house.memoryFiles()
        for _ in 0..<400 where memories != 1 {
            usleep(10_000)
            memories = try house.memoryFiles()
        }
        #expect(memories == 1)
        #expect(text(try house.command("disk", "info", disk)).contains("in use:     no"))
        try house.list { $0.count == 2 && $0[1][3] == "running" }
        try house.signal(SIGTERM)
        #expect(try house.end().status == 0)
    }

    @Test(arguments: [SIGINT, SIGTERM, SIGHUP])
    func oneSignalEndsAll(_ signal: Int32) throws {
        let house = try RunningHouse([("a", .prints), ("b", .chatters)], shell: "exec {} >/dev/null")
        try house.waitUntilUp(2)
        try house.signal(signal)
        let end = try house.end()
        #expect(end.status == 0, "\(end.errorText)")
        #expect(end.errorText.contains("roost: a ended: it was stopped\n"))
        #expect(end.errorText.contains("roost: b ended: it was stopped\n"))
        #expect(Files.list(house.socketFolder).isEmpty)
    }

    /// The guest's thread waits for somebody to read what it printed, which nobody will. The house still
    /// answers, and the second signal ends it.
    @Test func theSecondSignalWaitsForNobody() throws {
        let house = try RunningHouse(
            [("web", .chatters)], shell: "mkfifo FOLDER/pipe; exec 3<>FOLDER/pipe; exec {} >&3")
        try house.waitUntilUp(1)
        var before: [[String]] = []
        // It waits once it uses no more CPU time.
        let cpuTime = { (lines: [[String]]) in lines.map { Array($0.dropFirst(8)) } }
        try house.list { lines in
            defer { before = lines }
            usleep(300_000)
            return cpuTime(lines) == cpuTime(before)
        }
        try house.signal(SIGTERM)
        try house.list { $0.count == 1 && $0[0][3] == "stopping" }
        try house.signal(SIGTERM)
        #expect(try house.end().status == 128 + SIGTERM)
    }

    @Test func namesThatAreNotThereAreSaid() throws {
        let house = try RunningHouse([("web", .prints)])
        try house.waitUntilUp(1)
        for arguments in [["stop", "web", "wbe"], ["console", "wbe"], ["stop", "--house", "tset", "web"]] {
            let result = try Subprocess.run([Command.path] + arguments, environment: ["XDG_RUNTIME_DIR": house.folder])
            #expect(result.status == 1 && result.output == [])
            #expect(result.errorText.split(separator: "\n").count == 1, "\(result.errorText)")
            #expect(result.errorText.hasPrefix("roost: there is no "), "\(result.errorText)")
            #expect(result.errorText.contains("there is: web") || result.errorText.contains("there is: test"))
        }
        // None of those was stopped that could have been.
        try house.list { $0.count == 1 && $0[0][3] == "running" }
        #expect(try house.command("stop", "web").status == 0)
        #expect(try house.end().status == 0)
        let result = try house.command("stop", "web")
        #expect(result.status == 1 && result.errorText.contains("roost up"), "\(result.errorText)")
    }

    @Test func aNameIsTakenOnce() throws {
        let house = try RunningHouse([("web", .prints)])
        try house.waitUntilUp(1)
        let second = try house.command("up", house.folder + "/test.json")
        #expect(second.status == 1 && second.output == [])
        #expect(second.errorText.split(separator: "\n").count == 1, "\(second.errorText)")
        #expect(second.errorText.contains("called test") && second.errorText.contains("\"name\""))
        try house.signal(SIGTERM)
        _ = try house.end()
    }

    @Test func whatADeadHouseLeftIsRemoved() throws {
        let house = try RunningHouse([("web", .prints)])
        try house.waitUntilUp(1)
        try house.signal(SIGKILL)
        #expect(try house.end().status == 128 + SIGKILL)
        #expect(Files.list(house.socketFolder) == ["test.sock"])
        try house.start()
        try house.waitUntilUp(1)
        try house.signal(SIGKILL)
        _ = try house.end()
        #expect(try house.command("ps").status == 0)
        #expect(Files.list(house.socketFolder).isEmpty)
    }

    /// Whatever the umask is, there is no moment at which it would be otherwise.
    @Test func theSocketIsOnesOwn() throws {
        let house = try RunningHouse([("web", .prints)], shell: "umask 0; exec {}")
        try house.waitUntilUp(1)
        for (path, mode) in [("", 0o700), ("/test.sock", 0o600)] as [(String, mode_t)] {
            var status = stat()
            #expect(unsafe lstat(house.socketFolder + path, &status) == 0)
            #expect(status.st_mode & 0o777 == mode && status.st_uid == geteuid(), "\(path)")
        }
        try house.signal(SIGTERM)
        _ = try house.end()
    }

    @Test func aFolderThatOthersCanReachIsNotUsed() throws {
        let folder = try Files.createTemporaryFolder(beside: "/tmp/roost-folder")
        defer { Files.remove(folder) }
        func refused(_ word: String) throws {
            let result = try Subprocess.run([Command.path, "ps"], environment: ["XDG_RUNTIME_DIR": folder])
            #expect(result.status == 1 && result.output == [])
            #expect(result.errorText.split(separator: "\n").count == 1, "\(result.errorText)")
            #expect(result.errorText.contains(folder + "/roost") && result.errorText.contains(word))
        }
        unsafe mkdir(folder + "/roost", 0o755)
        unsafe chmod(folder + "/roost", 0o755)
        try refused("XDG_RUNTIME_DIR")
        unsafe rmdir(folder + "/roost")
        unsafe mkdir(folder + "/elsewhere", 0o700)
        unsafe symlink(folder + "/elsewhere", folder + "/roost")
        try refused("roost")
    }

    // MARK: The console

    @Test func theConsoleShowsWhatWasPrintedAndWhyItEnded() throws {
        let house = try RunningHouse([("web", .prints)])
        try house.waitUntilUp(1)
        let console = try withThread {
            try house.command("console", "web")
        } meanwhile: {
            usleep(300_000)
            _ = try house.command("stop", "web")
        }
        #expect(console.status == 0)
        #expect(text(console) == "h\n")
        #expect(console.errorText == "roost: web ended: it was stopped\n")
        #expect(try house.end().status == 0)
    }

    @Test func controlAXLeavesAndTheGuestRunsOn() throws {
        let house = try RunningHouse([("web", .prints)])
        try house.waitUntilUp(1)
        let terminal = try PseudoTerminal()
        let input = terminal.terminal
        let console = try withThread {
            try house.command("console", "web", input: input)
        } meanwhile: {
            for _ in 0..<1000 where !terminal.isRaw { usleep(10_000) }
            #expect(terminal.isRaw, "never became raw")
            terminal.type("\u{1}h\u{1}x")
        }
        #expect(console.status == 0)
        #expect(console.errorText.contains("leaves the guest's console; the guest runs on"), "\(console.errorText)")
        #expect(terminal.isOrdinary)
        try house.list { $0.count == 1 && $0[0][3] == "running" }
        try house.signal(SIGTERM)
        #expect(try house.end().status == 0)
    }

    // MARK: At the socket

    @Test func garbageAtTheSocketHurtsNobody() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("HouseTests: seed \(seed)")
        var state = seed
        func random() -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return state >> 33
        }
        let house = try RunningHouse([("web", .prints)])
        try house.waitUntilUp(1)
        let kinds = Array("LSCIWgdoex".utf8)
        for turn in 0..<300 {
            let socket = try house.connect()
            var bytes: [UInt8] = []
            for _ in 0..<Int(random() % 8) {
                let count = Int(random() % 40)
                let name =
                    random() % 2 == 0 ? Array("web".utf8) : (0..<count).map { _ in UInt8(truncatingIfNeeded: random()) }
                // Now and then what is no frame, or half of one; and "stop" only of nobody.
                let kind = turn % 3 == 0 ? UInt8(truncatingIfNeeded: random()) : kinds[Int(random() % 10)]
                let payload = kind == UInt8(ascii: "S") ? [] : name
                bytes += [kind, UInt8(payload.count), UInt8(random() % 20 == 0 ? 1 : 0)] + payload
            }
            _ = UnixSockets.send(bytes[...], to: socket.rawValue)
            if turn % 2 == 0 { _ = waitReadable([socket.rawValue], milliseconds: 1) }
        }
        // One who asks and asks and reads no answer.
        let greedy = try house.connect()
        let questions = (0..<20_000).flatMap { _ in ControlBytes.list }
        for _ in 0..<50 { _ = UnixSockets.send(questions[...], to: greedy.rawValue) }
        // Those who connect and say nothing, or half of it, keep nobody out for ever, and nobody waiting.
        let silent = try (0..<8).map { _ in Holder(try house.connect()) }
        for holder in silent { _ = UnixSockets.send(ControlBytes.list[..<2], to: holder.socket.rawValue) }
        try house.list { $0.count == 1 && $0[0][3] == "running" }
        try house.signal(SIGTERM)
        let end = try house.end()
        #expect(end.status == 0 && text(end) == "web | h\n", "\(end.errorText)")
    }

    /// A Guest that prints without end is not kept waiting by somebody who looks and does not read.
    @Test func whoDoesNotReadIsDropped() throws {
        let house = try RunningHouse([("web", .chatters), ("quiet", .prints)], shell: "exec {} >/dev/null")
        try house.waitUntilUp(2)
        let socket = try house.connect()
        _ = UnixSockets.send(ControlBytes.consoleOfWeb[...], to: socket.rawValue)
        // A connection that the other end has closed cannot be written to.
        var isDropped = false
        for _ in 0..<2000 where !isDropped {
            usleep(10_000)
            isDropped = UnixSockets.send(ControlBytes.noInput[...], to: socket.rawValue) == nil
        }
        #expect(isDropped, "still connected")
        let lines = try house.list { $0.count == 2 }
        #expect(lines.map { $0[3] } == ["running", "running"])
        try house.signal(SIGTERM)
        #expect(try house.end().status == 0)
    }

    private final class Holder {
        let socket: FileDescriptor
        init(_ socket: consuming FileDescriptor) { self.socket = socket }
    }

    /// Runs `body` on another thread until it is done, and `meanwhile` on this one.
    private func withThread(
        _ body: @escaping @Sendable () throws -> Subprocess.Result, meanwhile: () throws -> Void
    ) throws -> Subprocess.Result {
        let result = Box()
        let thread = try HostThread(name: "beside") { result.value.withLock { $0 = try? body() } }
        defer { thread.join() }
        try meanwhile()
        for _ in 0..<3000 {
            if let value = result.value.withLock({ $0 }) { return value }
            usleep(10_000)
        }
        throw HostError("it does not end")
    }
}

/// Frames as they are on the wire.
private enum ControlBytes {
    static let list = Array("L\0\0".utf8)
    static let consoleOfWeb = Array("C\u{3}\0web".utf8)
    static let noInput = Array("I\0\0".utf8)
}
