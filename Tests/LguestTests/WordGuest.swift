import EngineTesting
import GuestMemory
import HostInterface
import Lguest
import LguestTesting
import Synchronization
import Testing

/// A Guest whose Launcher speaks in words, and whose memory is the Launcher's own mapping.
final class WordGuest {
    let guest: LguestGuest
    /// The Launcher's look at it.
    let memory: GuestMemory
    let range: AddressRange
    private let watch: Watch
    static let pages: UInt64 = 256

    init(
        in host: TestHost = TestHost(), isInitialized: Bool = true, _ write: (inout Program) throws -> Void = { _ in }
    ) throws {
        range = try AddressRange(allocating: Int(Self.pages) * 4096)
        memory = unsafe try GuestMemory(adopting: range.base, byteCount: Self.pages * 4096)
        try memory.prepareGuest()
        try memory.put(TestGuest.program(write))
        try memory.putHandlers()
        guest = try host.host.open()
        watch = Watch(guest)
        if isInitialized { _ = try initialize() }
    }

    deinit {
        watch.end()
        guest.close()
    }

    /// The words of INITIALIZE.
    var request: [UInt64] {
        [
            LguestRequest.initialize, UInt64(UInt(bitPattern: unsafe range.base)), Self.pages, Place.pageTable,
            Place.code,
        ]
    }

    func initialize() throws(Errno) -> Int { try guest.write(request) }

    func write(_ words: UInt64...) throws(Errno) -> Int { try guest.write(words) }

    /// What `read` answers, as words.
    func readWords() throws(Errno) -> [UInt64] {
        let bytes = try guest.read(atMost: 16)
        return stride(from: 0, to: bytes.count, by: 8).map { start in
            (0..<8).reduce(0) { $0 | UInt64(bytes[start + $1]) << UInt64($1 * 8) }
        }
    }
}

private final class ResultBox<Value: Sendable>: Sendable { let result = Mutex<Result<Value, Errno>?>(nil) }

/// What `body` returns or throws on a thread of its own.
func onAnotherThread<Value: Sendable>(_ body: @escaping @Sendable () throws(Errno) -> Value) throws -> Value {
    let box = ResultBox<Value>()
    let thread = try HostThread(name: "another") {
        do throws(Errno) {
            let value = try body()
            box.result.withLock { $0 = .success(value) }
        } catch { box.result.withLock { $0 = .failure(error) } }
    }
    thread.join()
    return try #require(box.result.withLock { $0 }).get()
}

/// `read` as a text without its NUL.
func text(_ bytes: [UInt8]) -> String { String(decoding: bytes.dropLast(), as: UTF8.self) }
