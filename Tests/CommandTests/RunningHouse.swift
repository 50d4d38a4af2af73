import CHost
import Glibc
import HostInterface
import Synchronization
import Testing

/// A `roost up` under way, with a runtime folder of its own.
final class RunningHouse: Sendable {
    /// What XDG_RUNTIME_DIR is for everybody who wants to find it.
    let folder: String
    private let pid = Atomic<Int32>(0)
    private let result = Mutex<Subprocess.Result?>(nil)
    private let thread = Mutex<HostThread?>(nil)

    /// - Parameters:
    ///   - guests: by name, what each boots.
    ///   - keys: by name, what else is said of a guest, in JSON.
    ///   - shell: what stands around the command: {} in it is the command, and FOLDER the house's folder.
    init(
        _ guests: [(name: String, kernel: TinyKernel)], keys: [String: String] = [:], shell: String = "exec {}"
    ) throws {
        folder = try Files.createTemporaryFolder(beside: "/tmp/roost-house")
        let list = guests.map { guest in
            let more = keys[guest.name].map { ", \($0)" } ?? ""
            return "{ \"name\": \"\(guest.name)\", \"kernel\": \"\(guest.kernel).kernel\", \"memory\": \"16M\"\(more) }"
        }
        try Files.writeAtomically(
            Array("{ \"guests\": [ \(list.joined(separator: ",\n")) ] }\n".utf8), to: folder + "/test.json")
        for kernel in TinyKernel.allCases { try Files.writeAtomically(kernel.image, to: folder + "/\(kernel).kernel") }
        try Files.writeAtomically([UInt8](repeating: 0, count: 1 << 20), to: folder + "/disk.raw")
        try start(shell)
    }

    /// - Parameter json: the house's file.
    init(json: String) throws {
        folder = try Files.createTemporaryFolder(beside: "/tmp/roost-house")
        try Files.writeAtomically(Array(json.utf8), to: folder + "/test.json")
        try start()
    }

    func start(_ shell: String = "exec {}") throws {
        let command = shell.replacing("{}", with: "'\(Command.path)' up '\(folder)/test.json'")
            .replacing("FOLDER", with: folder)
        let folder = folder
        let thread = try HostThread(name: "house") { [self] in
            let result = try? Subprocess.run(
                ["timeout", "--foreground", "60", "sh", "-c", command],
                environment: ["XDG_RUNTIME_DIR": folder, "SWIFT_BACKTRACE": "enable=no"],
                started: { pid.store($0, ordering: .releasing) })
            self.result.withLock { $0 = result }
        }
        self.thread.withLock { $0 = thread }
    }

    deinit { Files.remove(folder) }

    func command(_ arguments: String..., input: Int32? = nil) throws -> Subprocess.Result {
        try Subprocess.run(
            ["timeout", "--foreground", "20", Command.path] + arguments, input: input,
            environment: ["XDG_RUNTIME_DIR": folder])
    }

    /// The lines of `roost ps`, cut into words, once they are as wanted; that is given 20 s.
    @discardableResult
    func list(until isWanted: ([[String]]) -> Bool) throws -> [[String]] {
        var lines: [[String]] = []
        for _ in 0..<400 {
            let text = String(decoding: try command("ps").output, as: UTF8.self)
            lines = text.split(separator: "\n").dropFirst().map { $0.split(separator: " ").map(String.init) }
            if isWanted(lines) { return lines }
            usleep(50_000)
        }
        Issue.record("waited in vain: \(lines)")
        return lines
    }

    /// All guests are there, and run or have run.
    func waitUntilUp(_ count: Int) throws { try list { $0.count == count && !$0.contains { $0[3] == "waiting" } } }

    /// timeout(1) is between us and the command.
    func signal(_ number: Int32) throws {
        _ = try Subprocess.run(["pkill", "-\(number)", "-P", "\(pid.load(ordering: .acquiring))"])
    }

    /// How many guests' memories it has.
    func memoryFiles() throws -> Int {
        let script = "ls -l /proc/$(pgrep -P \(pid.load(ordering: .acquiring)))/fd | grep -c memfd:guest-memory"
        let output = try Subprocess.run(["sh", "-c", script]).output
        return Int(String(decoding: output.filter { $0 != 0x0a }, as: UTF8.self)) ?? -1
    }

    /// Waits for its end.
    func end() throws -> Subprocess.Result {
        thread.withLock { $0.take() }?.join()
        return try #require(result.withLock { $0 })
    }

    var socketFolder: String { folder + "/roost" }

    func connect() throws -> FileDescriptor {
        guard let socket = try UnixSockets.connect("test.sock", in: try RuntimeFolder(path: socketFolder)) else {
            throw HostError("nobody listens")
        }
        return socket
    }
}

/// A place for what another thread brings.
final class Box: Sendable {
    let value = Mutex<Subprocess.Result?>(nil)
}
