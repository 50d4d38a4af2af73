import Grants
import Synchronization
import Testing

/// Guests that say anything. `ROOST_SEED` chooses what.
@Suite struct StoreNoiseTests {
    private static let messages = 20_000
    private static let secret = "/local/domain/1/data/secret"
    /// In its value, and nowhere else.
    private static let secretText = "sesame-opens"

    /// Something like a request: well framed, with a payload of which no part need make sense.
    private func request(_ random: inout StoreRandom, _ id: UInt32, _ transactions: [UInt32]) -> StoreMessage {
        let types = StoreMessageType.allCases.map(\.rawValue) + [20, 23, 99, .max]
        let words = [
            "/", "/local", "/local/domain", "/local/domain/1", "/local/domain/1/data", Self.secret, Self.secret + "/x",
            "/local/domain/2/data", "/local/domain/3/data/a", "data", "data/a", "data/a/b", "data/b", "@releaseDomain",
            "@introduceDomain", "n0", "b1", "b2", "n3", "r2", "T", "F", "0", "1", "65535", "", "token", "data//",
            "\u{ff}",
        ]
        let type = random.pick(random.below(4) == 0 ? types : [1, 2, 3, 4, 5, 6, 7, 11, 11, 11, 12, 13, 14, 14, 22])
        var payload: [UInt8] = []
        switch random.below(16) {
        case 0: payload = random.bytes(random.below(4097))
        case 1: payload = random.bytes(random.below(20))
        case 2...12:
            // What this type is to have, by and large.
            let path = random.pick(random.below(2) == 0 ? Array(words.prefix(14)) : ["data/a", "data/a/b", "data/b"])
            let rest: [String] =
                switch type {
                case 4, 5: [random.pick(["token", "other"])]
                case 11: [random.pick(["value", "1", ""])]
                case 14:
                    (0..<(1 + random.below(3))).map { _ in random.pick(["n1", "n2", "b2", "n3", "b3", "r3", "w2"]) }
                case 22: ["0"]
                default: []
                }
            for word in [type == 7 ? random.pick(["T", "F"]) : path] + rest { payload += Array(word.utf8) + [0] }
        default:
            for _ in 0..<(1 + random.below(4)) {
                payload += Array(random.pick(words).utf8) + (random.below(20) == 0 ? [] : [0])
            }
            if random.below(8) == 0 { payload += random.bytes(random.below(60)) }
            if random.below(30) == 0, !payload.isEmpty {
                payload[random.below(payload.count)] = UInt8(random.below(256))
            }
        }
        let transaction =
            switch random.below(6) {
            case 0 where random.below(4) == 0: UInt32(truncatingIfNeeded: random.next())
            case 1, 2, 3: transactions.isEmpty ? 0 : random.pick(transactions)
            default: UInt32(0)
            }
        return StoreMessage(type: type, requestID: id, transactionID: transaction, payload)
    }

    @Test func eachRequestHasExactlyOneReplyAndSecretsAreKept() {
        var random = StoreRandom("StoreNoiseTests.requests")
        let store = XenStore()
        let keeper = StoreGuest(store, 1)
        let guests = [StoreGuest(store, 2), StoreGuest(store, 3)]
        #expect(keeper.write("data/secret", Self.secretText) == "OK|")
        var transactions: [[UInt32]] = [[], []]
        var (errors, events) = (0, 0)
        for id in 0..<UInt32(Self.messages) {
            let turn = random.below(2)
            let guest = guests[turn]
            let request = request(&random, id, transactions[turn])
            guest.send(request.bytes)
            guest.drain()
            let replies = guest.messages.filter { $0.type != 15 }
            guard replies.count == 1, let reply = replies.first, reply.requestID == id,
                reply.transactionID == request.transactionID, reply.type == request.type || reply.type == 16
            else {
                Issue.record("seed \(random.seed), message \(id), \(request): \(replies)")
                return
            }
            errors += reply.type == 16 ? 1 : 0
            if request.type == 6, reply.type == 6, let new = UInt32(guest.text(reply.payload).dropLast()) {
                transactions[turn].append(new)
            }
            if request.type == 7, reply.payload != Array("EINVAL".utf8) + [0] {
                transactions[turn].removeAll { $0 == request.transactionID }
            }
            if request.type == 21 { transactions[turn] = [] }
            if transactions[turn].count > 12 { transactions[turn].removeFirst() }
            events += guest.messages.count - 1
            for message in guests.flatMap(\.messages) where guest.text(message.payload).contains(Self.secretText) {
                Issue.record("seed \(random.seed), message \(id): \(guest.text(message.payload))")
            }
            for guest in guests {
                guest.drain()
                guest.messages = []
            }
            if store.read(Self.secret) != Array(Self.secretText.utf8) || store.permissions(Self.secret) != ["n1"] {
                Issue.record("seed \(random.seed), message \(id): \(request)")
                return
            }
        }
        print("StoreNoiseTests: \(errors) errors, \(events) events, \(store.statistics)")
        #expect(errors > 1000 && errors < Self.messages - 1000 && events > 100 && store.statistics.commits > 10)
        #expect(store.statistics.losses.isEmpty)
        #expect(store.list(Self.secret) == [] && store.list("/local/domain/1/data") == ["secret"])
    }

    @Test func pagesFullOfNoiseHurtNobody() {
        var random = StoreRandom("StoreNoiseTests.pages")
        let store = XenStore()
        let keeper = StoreGuest(store, 1)
        let guests = [StoreGuest(store, 2), StoreGuest(store, 3)]
        #expect(keeper.write("data/secret", Self.secretText) == "OK|")
        for round in 0..<Self.messages {
            let guest = random.pick(guests)
            switch random.below(8) {
            case 0:
                for (offset, byte) in random.bytes(2048).enumerated() {
                    unsafe guest.page.storeBytes(of: byte, toByteOffset: offset, as: UInt8.self)
                }
            case 1:
                guest[.responsesTaken] =
                    random.below(3) == 0 ? UInt32(truncatingIfNeeded: random.next()) : guest[.responsesPut]
            case 2: guest[random.pick([.requestsTaken, .responsesPut])] = UInt32(truncatingIfNeeded: random.next())
            case 3: guest[.requestsPut] &+= UInt32(random.below(1100))
            case 4...6:
                let bytes = request(&random, UInt32(round), []).bytes
                for (offset, byte) in bytes.prefix(1024).enumerated() {
                    let place = Int((guest[.requestsPut] &+ UInt32(offset)) % 1024)
                    unsafe guest.page.storeBytes(of: byte, toByteOffset: place, as: UInt8.self)
                }
                guest[.requestsPut] &+= UInt32(min(bytes.count, 1024))
            default: break
            }
            store.ringChanged(domid: guest.domid)
            if store.loss(of: guest.domid) != nil, random.below(4) == 0 { guest.introduce() }
            if round % 100 == 0 { #expect(keeper.read("data/secret") == Self.secretText) }
        }
        print("StoreNoiseTests: \(store.statistics)")
        #expect(StoreLoss.allCases.allSatisfy { store.statistics.losses[$0, default: 0] > 0 })
        #expect(store.permissions(Self.secret) == ["n1"] && store.loss(of: 1) == nil)
    }

    /// Another vCPU writes into the page while the store reads it: whatever it sees, it sees once.
    @Test func aPageThatChangesUnderItsHandsHurtsNobody() async {
        let random = StoreRandom("StoreNoiseTests.changes")
        let store = XenStore()
        let keeper = StoreGuest(store, 1)
        let guest = StoreGuest(store, 2)
        #expect(keeper.write("data/secret", Self.secretText) == "OK|")
        // SAFETY: the page is there until `guest` goes, which is after the task's end.
        nonisolated(unsafe) let words = unsafe UnsafePointer(guest.page.assumingMemoryBound(to: Atomic<UInt32>.self))
        let isOver = StoreGuest.Counter()
        async let scribbling: Void = {
            var choice = random
            while isOver.value == 0 {
                for _ in 0..<1000 { unsafe Self.scribble(words, &choice) }
                await Task.yield()
            }
        }()
        for round in 0..<5_000_000 where store.statistics.requests < 5000 {
            store.ringChanged(domid: 2)
            if store.loss(of: 2) != nil { guest.introduce() }
            guard round % 100 == 0 else { continue }
            #expect(keeper.read("data/secret") == Self.secretText)
            await Task.yield()
        }
        isOver.add()
        await scribbling
        print("StoreNoiseTests: \(store.statistics)")
        #expect(store.statistics.requests >= 5000 && store.loss(of: 1) == nil)
        #expect(store.permissions(Self.secret) == ["n1"])
    }

    /// A request, or something in the middle of one, or an index.
    private static func scribble(_ words: UnsafePointer<Atomic<UInt32>>, _ random: inout StoreRandom) {
        let taken = 512, put = 513, responsesTaken = 514, responsesPut = 515
        func load(_ index: Int) -> UInt32 { unsafe words[index].load(ordering: .acquiring) }
        func store(_ value: UInt32, _ index: Int) { unsafe words[index].store(value, ordering: .releasing) }
        switch random.below(1000) {
        case 0: store(UInt32(truncatingIfNeeded: random.next()), 512 + random.below(4))
        case 1...100: store(random.pick([0x0061_2f61, 0, 1, 8, 11, 4096, 0x7600_612f]), random.below(256))
        case 101...500: store(load(responsesPut), responsesTaken)
        default:
            let place = load(put)
            guard load(taken) &+ 1000 &- place < 1024, place % 4 == 0 else { return }
            // READ, WRITE or MKDIR of data/a, with or without something behind it.
            let request: [UInt32] = [
                random.pick([2, 11, 12]), place, 0, random.pick([7, 8, 8]), 0x6174_6164, 0x7600_612f,
            ]
            for (index, word) in request.enumerated() { store(word, (Int(place / 4) + index) % 256) }
            store(place &+ 16 &+ request[3], put)
        }
    }
}
