import HostInterface
import Grants
import Synchronization
import Testing

/// A Guest's end of the store: a page, and the habits of Linux's driver.
@safe final class StoreGuest {
    struct Event: Hashable, CustomStringConvertible {
        let path: String
        let token: String
        init(_ path: String, _ token: String) { (self.path, self.token) = (path, token) }
        var description: String { "\(path) \(token)" }
    }

    let store: XenStore
    let domid: UInt16
    let page: UnsafeMutableRawPointer
    /// How often the store has rung.
    let rung = Counter()
    /// What has come and is not a whole message.
    private(set) var input: [UInt8] = []
    /// Whole messages that nobody has looked at.
    var messages: [StoreMessage] = []
    private var lastID: UInt32 = 100

    final class Counter: Sendable {
        private let count = Atomic<Int>(0)
        func add() { count.add(1, ordering: .relaxed) }
        var value: Int { count.load(ordering: .relaxed) }
    }

    init(_ store: XenStore, _ domid: UInt16, name: String = "guest") {
        (self.store, self.domid) = (store, domid)
        unsafe page = .allocate(byteCount: 4096, alignment: 4096)
        introduce(name)
    }

    deinit {
        store.release(domid: domid)
        unsafe page.deallocate()
    }

    /// Comes, or comes again.
    func introduce(_ name: String = "guest") {
        store.release(domid: domid)
        unsafe page.initializeMemory(as: UInt8.self, repeating: 0, count: 4096)
        (input, messages) = ([], [])
        unsafe store.introduce(domid: domid, name: name, ring: page) { [rung] in rung.add() }
    }

    // MARK: The rings

    enum Index: Int { case requestsTaken = 2048, requestsPut = 2052, responsesTaken = 2056, responsesPut = 2060 }

    subscript(index: Index) -> UInt32 {
        get { unsafe place(index).pointee.load(ordering: .sequentiallyConsistent) }
        set { unsafe place(index).pointee.store(newValue, ordering: .sequentiallyConsistent) }
    }

    private func place(_ index: Index) -> UnsafePointer<Atomic<UInt32>> {
        // SAFETY: in the page, which is ours.
        unsafe UnsafePointer((page + index.rawValue).assumingMemoryBound(to: Atomic<UInt32>.self))
    }

    /// Puts what there is room for, without ringing.
    @discardableResult
    func put(_ bytes: ArraySlice<UInt8>) -> Int {
        let put = self[.requestsPut]
        let count = min(bytes.count, 1024 - Int(put &- self[.requestsTaken]))
        for (offset, byte) in bytes.prefix(count).enumerated() {
            unsafe page.storeBytes(of: byte, toByteOffset: Int((put &+ UInt32(offset)) % 1024), as: UInt8.self)
        }
        self[.requestsPut] = put &+ UInt32(count)
        return count
    }

    /// Takes up to so many bytes of responses, without ringing.
    @discardableResult
    func take(atMost most: Int = 1024) -> Int {
        let taken = self[.responsesTaken]
        let count = min(most, Int(self[.responsesPut] &- taken))
        for offset in 0..<count {
            input.append(unsafe page.load(fromByteOffset: 1024 + Int((taken &+ UInt32(offset)) % 1024), as: UInt8.self))
        }
        self[.responsesTaken] = taken &+ UInt32(count)
        while input.count >= 16, input.count >= 16 + word(3) {
            let length = 16 + word(3)
            messages.append(
                StoreMessage(
                    type: UInt32(word(0)), requestID: UInt32(word(1)), transactionID: UInt32(word(2)),
                    Array(input[16..<length])))
            input.removeFirst(length)
        }
        return count
    }

    private func word(_ index: Int) -> Int { (0..<4).reduce(0) { $0 | Int(input[4 * index + $1]) << (8 * $1) } }

    func ring() { while store.ringChanged(domid: domid) {} }

    /// Takes all that there is, and rings where the ring was full.
    func drain() {
        while true {
            let wasFull = self[.responsesPut] &- self[.responsesTaken] == 1024
            guard take() > 0 else { return }
            if wasFull { ring() }
        }
    }

    func send(_ bytes: [UInt8]) {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = put(rest)
            rest = rest.dropFirst(count)
            ring()
            drain()
            // A store that takes nothing and says nothing does not listen.
            if count == 0, self[.requestsPut] &- self[.requestsTaken] == 1024 { return }
        }
    }

    // MARK: Requests

    /// Asks, and has the one reply: its text, with | for NUL, or the error's name.
    @discardableResult
    func ask(_ type: StoreMessageType, _ payload: String = "", transaction: UInt32 = 0) -> String {
        ask(type, bytes: payload.utf8.map { $0 == UInt8(ascii: "|") ? 0 : $0 }, transaction: transaction)
    }

    @discardableResult
    func ask(_ type: StoreMessageType, bytes: [UInt8], transaction: UInt32 = 0) -> String {
        lastID += 1
        let id = lastID
        send(StoreMessage(type, requestID: id, transactionID: transaction, bytes).bytes)
        let replies = messages.filter { $0.type != StoreMessageType.watchEvent.rawValue }
        messages.removeAll { $0.type != StoreMessageType.watchEvent.rawValue }
        guard replies.count == 1, let reply = replies.first, reply.requestID == id, reply.transactionID == transaction,
            reply.type == type.rawValue || reply.type == StoreMessageType.error.rawValue
        else {
            Issue.record("\(type): \(replies)")
            return "no reply"
        }
        return text(reply.payload)
    }

    func text(_ payload: [UInt8]) -> String {
        String(decoding: payload.map { $0 == 0 ? UInt8(ascii: "|") : $0 }, as: UTF8.self)
    }

    func read(_ path: String, transaction: UInt32 = 0) -> String { ask(.read, path + "|", transaction: transaction) }
    @discardableResult
    func write(_ path: String, _ value: String, transaction: UInt32 = 0) -> String {
        ask(.write, path + "|" + value, transaction: transaction)
    }
    @discardableResult
    func watch(_ path: String, _ token: String) -> String { ask(.watch, path + "|" + token + "|") }
    func permit(_ path: String, _ entries: String..., transaction: UInt32 = 0) -> String {
        ask(.setPermissions, ([path] + entries).map { $0 + "|" }.joined(), transaction: transaction)
    }

    /// The id of a new transaction; 0 if there is none.
    func begin() -> UInt32 { UInt32(ask(.transactionStart, "|").dropLast()) ?? 0 }
    func end(_ transaction: UInt32, _ isWanted: Bool = true) -> String {
        ask(.transactionEnd, isWanted ? "T|" : "F|", transaction: transaction)
    }

    /// The events that have come, and are forgotten by that.
    func events() -> [Event] {
        drain()
        let events = messages.filter { $0.type == StoreMessageType.watchEvent.rawValue }
        messages.removeAll { $0.type == StoreMessageType.watchEvent.rawValue }
        return events.map { event in
            let strings = event.payload.split(separator: 0, omittingEmptySubsequences: false)
            #expect(event.requestID == 0 && event.transactionID == 0 && strings.count == 3 && strings.last == [])
            return Event(String(decoding: strings[0], as: UTF8.self), String(decoding: strings[1], as: UTF8.self))
        }
    }
}

/// SplitMix64.
struct StoreRandom: RandomNumberGenerator {
    private var state: UInt64
    let seed: UInt64

    /// From ROOST_SEED, or any.
    init(_ test: String) {
        let text = environmentVariable("ROOST_SEED")
        seed = text.flatMap { UInt64($0) } ?? .random(in: 0 ... .max)
        state = seed
        print("\(test): ROOST_SEED=\(seed)")
    }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ mixed >> 30) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ mixed >> 27) &* 0x94d0_49bb_1331_11eb
        return mixed ^ mixed >> 31
    }

    mutating func below(_ bound: Int) -> Int { Int(next() % UInt64(bound)) }
    mutating func pick<T>(_ list: [T]) -> T { list[below(list.count)] }
    mutating func bytes(_ count: Int) -> [UInt8] { (0..<count).map { _ in UInt8(truncatingIfNeeded: next()) } }
}
