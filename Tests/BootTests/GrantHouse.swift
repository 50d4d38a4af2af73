import HostInterface
import Launcher
import Synchronization
import Testing

/// A `roost up` under way, with Guests that share pages, and a hand at the
/// console of each. For one thread at a time.
final class GrantHouse: @unchecked Sendable {
    struct Member: Sendable {
        var name: String
        var memory = "128M"
        var engine = "auto"
    }

    /// What the host has given the process.
    struct Resources: CustomStringConvertible {
        var memoryMappings = 0
        var files = 0
        var description: String { "\(memoryMappings) mappings of memory files, \(files) files" }
    }

    private let folder: String
    private let thread: HostThread
    private let process: Process
    private var guests: [ProbeGuest] = []

    private final class Process: Sendable {
        let result = Mutex<Result<Subprocess.Result, any Error>?>(nil)
        let launcher = Mutex<Int32>(0)
    }

    /// Starts it, and returns when all Guests are there.
    init(_ members: [Member]) throws {
        let folder = try Files.createTemporaryFolder(beside: "/tmp/roost-grants")
        self.folder = folder
        var files = [("probe", try GrantPrograms.probe.get()), ("ring", try GrantPrograms.ring.get())]
        if let vchan = try? GrantPrograms.vchan.get() { files.append(("vchan", vchan)) }
        for (name, bytes) in files { try Files.writeAtomically(bytes, to: folder + "/" + name) }
        _ = try Subprocess.run(["chmod", "755"] + files.map { folder + "/" + $0.0 })
        let names = files.map { "\"\($0.0):/bin/\($0.0)\"" }.joined(separator: ", ")
        let shell = ProbeGuest.command.replacing("\"", with: "\\\"")
        let descriptions = members.map {
            """
            { "name": "\($0.name)", "memory": "\($0.memory)", "engine": "\($0.engine)", "xen": true,
              "files": [\(names)], "command": ["sh", "-c", "\(shell)"] }
            """
        }
        let house = "{ \"guests\": [ \(descriptions.joined(separator: ", ")) ] }"
        try Files.writeAtomically(Array(house.utf8), to: folder + "/grants.json")
        let process = Process()
        self.process = process
        thread = try HostThread(name: "house") {
            let result = Result {
                // Not to outlive a test that died.
                try Subprocess.run(
                    ["timeout", "200", BootTests.command, "up", folder + "/grants.json"],
                    environment: ["XDG_RUNTIME_DIR": folder]
                ) { pid in process.launcher.withLock { $0 = pid } }
            }
            process.result.withLock { $0 = result }
        }
        do {
            let runtime = try RuntimeFolder(path: folder + "/roost")
            for member in members {
                guests.append(try ProbeGuest(name: member.name, console: try connect(in: runtime)))
            }
            for guest in guests { try guest.boot() }
        } catch {
            _ = try? end()
            throw error
        }
    }

    private func connect(in folder: borrowing RuntimeFolder) throws -> FileDescriptor {
        // There is a socket once all Guests are made.
        for _ in 0..<600 {
            if let console = try UnixSockets.connect("grants.sock", in: folder) { return console }
            if let result = process.result.withLock({ $0 }) {
                throw HostError("roost up ended: \(try result.get().errorText)")
            }
            _ = waitReadable([], milliseconds: 50)
        }
        throw HostError("roost up opens no socket")
    }

    /// The Guests, each with a new probe.
    func probes() throws -> [ProbeGuest] {
        // Whoever has granted is most often the first, and goes last: Linux is slow to free pages that were in use.
        for guest in guests.reversed() where guest.end == nil { try guest.startProbe() }
        return guests
    }

    func shells() throws -> [ProbeGuest] {
        for guest in guests { try guest.endProbe() }
        return guests
    }

    /// `roost stop`.
    func stop(_ guests: [String]) throws {
        let result = try Subprocess.run(
            ["timeout", "60", BootTests.command, "stop", "--house", "grants"] + guests,
            environment: ["XDG_RUNTIME_DIR": folder])
        #expect(result.status == 0, "\(result.errorText)")
    }

    var resources: Resources {
        get throws {
            let launcher = process.launcher.withLock { $0 }
            // Of timeout, it is the only child.
            let child = try text("/proc/\(launcher)/task/\(launcher)/children").split(separator: " ").first ?? ""
            let maps = try text("/proc/\(child)/maps")
            return Resources(
                memoryMappings: maps.split(separator: "\n").count { $0.contains("/memfd:") },
                files: Files.list("/proc/\(child)/fd").count)
        }
    }

    private func text(_ path: String) throws -> String { String(decoding: try readProcFile(path), as: UTF8.self) }

    /// Stops whoever still runs.
    func end() throws -> Subprocess.Result {
        defer { Files.remove(folder) }
        if process.result.withLock({ $0 == nil }) {
            let runtime = try RuntimeFolder(path: folder + "/roost")
            // None there: then it has not got so far, or is over.
            if try UnixSockets.connect("grants.sock", in: runtime) != nil { try stop(guests.map(\.name)) }
        }
        thread.join()
        guard let result = process.result.withLock({ $0 }) else { throw HostError("roost up did not run") }
        return try result.get()
    }

    /// Where a test needs one to itself.
    static func with(
        _ members: [Member], endingWith status: Int32 = 0, sourceLocation: SourceLocation = #_sourceLocation,
        _ body: (GrantHouse, [ProbeGuest]) throws -> Void
    ) throws {
        let house = try GrantHouse(members)
        do { try body(house, try house.probes()) } catch {
            _ = try? house.end()
            throw error
        }
        let result = try house.end()
        #expect(result.status == status, "\(result.errorText)", sourceLocation: sourceLocation)
    }
}

/// One house for all tests of a suite: a boot takes longer than they do.
struct OneGrantHouse: SuiteTrait, TestScoping {
    @TaskLocal static var current: GrantHouse?

    let members: [GrantHouse.Member]

    func provideScope(
        for test: Test, testCase: Test.Case?, performing function: @Sendable () async throws -> Void
    ) async throws {
        let house = try GrantHouse(members)
        try await Self.$current.withValue(house, operation: function)
        let result = try house.end()
        #expect(result.status == 0, "\(result.errorText)")
    }
}

extension Trait where Self == OneGrantHouse {
    static func oneHouse(_ names: String...) -> Self { OneGrantHouse(members: names.map { .init(name: $0) }) }
}

/// Pages that one Guest has granted to another, which has mapped them, and a
/// doorbell between the two. All of a side's handles begin with the same number.
struct GrantPair {
    static let fill = UInt8(ascii: "A")

    let granter: ProbeGuest
    let mapper: ProbeGuest
    let pages: Int
    /// The granter's gntalloc, the mapper's gntdev, and the mappings of both.
    let handle: Int
    var bells: Int { handle + 1 }
    let references: [Int]
    /// The same as a word of a command.
    var range: String { references.map(String.init).joined(separator: ",") }
    let grantIndex: Int
    let mapIndex: Int
    let granterPort: Int
    let mapperPort: Int

    init(from granter: ProbeGuest, to mapper: ProbeGuest, pages: Int = 2, handle: Int = 0) throws {
        (self.granter, self.mapper, self.pages, self.handle) = (granter, mapper, pages, handle)
        func number(_ guest: ProbeGuest, _ command: String) throws -> Int {
            try #require(Int(guest.get(command).first ?? ""))
        }
        try granter.get("open gntalloc \(handle)")
        try granter.get("open evtchn \(handle + 1)")
        try mapper.get("open gntdev \(handle)")
        try mapper.get("open evtchn \(handle + 1)")
        let grant = try granter.get("alloc \(handle) \(mapper.domid) 1 \(pages)")
        grantIndex = try #require(Int(grant.first ?? ""))
        references = Self.references(grant.dropFirst())
        try granter.get("mmap \(handle) \(handle) \(grantIndex) \(pages) rw shared")
        try granter.get("fill \(handle) 0 \(pages * 4096) \(Self.fill)")
        granterPort = try number(granter, "bindunbound \(handle + 1) \(mapper.domid)")
        mapperPort = try number(mapper, "bindinter \(handle + 1) \(granter.domid) \(granterPort)")
        // It rings once for whatever has been before.
        try mapper.check(["wait \(handle + 1) 5000": "ok \(mapperPort)"])
        mapIndex = try number(
            mapper, "mapref \(handle) \(granter.domid) \(grant.dropFirst().joined(separator: " "))")
        try mapper.get("mmap \(handle) \(handle) \(mapIndex) \(pages) rw shared")
    }

    /// What it means to the other side that this one is gone: byte 5 is the granter's, byte 7 the mapper's.
    func leaveWills() throws {
        try granter.get("notify \(handle) \(grantIndex + 5) 3 \(granterPort)")
        try mapper.get("notify \(handle) \(mapIndex + 7) 3 \(mapperPort)")
    }

    /// Whether the granter's kernel has them among those that it gives next: it takes first what was freed last.
    func referencesAreFree() throws -> Bool {
        let grant = try granter.get("alloc \(handle) \(mapper.domid) 1 64")
        try granter.get("dealloc \(handle) \(grant[0]) 64")
        return Set(references).isSubset(of: Self.references(grant.dropFirst()))
    }

    /// "8", and "8-20", and "20-8".
    private static func references(_ words: some Sequence<String>) -> [Int] {
        words.flatMap { word in
            let ends = word.split(separator: "-").compactMap { Int($0) }
            guard let first = ends.first, let last = ends.last else { return [Int]() }
            return Array(stride(from: first, through: last, by: first <= last ? 1 : -1))
        }
    }

    /// What the sum of its bytes was at first.
    var sum: Int { pages * 4096 * Int(Self.fill) }
}
