import Grants
import Testing

/// What passes through the page, and what breaks it.
@Suite struct StoreRingTests {
    let store = XenStore()
    let guest: StoreGuest

    init() { guest = StoreGuest(store, 1) }

    private func request(_ type: StoreMessageType, _ id: UInt32, _ payload: String) -> [UInt8] {
        StoreMessage(type, requestID: id, payload.utf8.map { $0 == 0x7c ? 0 : $0 }).bytes
    }

    @Test func theIndexesAreWhereTheyBelong() {
        let ping = request(.read, 1, "domid|")
        guest.put(ping[...])
        #expect(guest[.requestsPut] == UInt32(ping.count) && guest[.requestsTaken] == 0)
        guest.ring()
        #expect(guest[.requestsTaken] == UInt32(ping.count))
        #expect(guest[.responsesPut] == 17 && guest[.responsesTaken] == 0)
        #expect(unsafe guest.page.load(fromByteOffset: 1024, as: UInt32.self) == 2)
        #expect(unsafe guest.page.load(fromByteOffset: 1024 + 16, as: UInt8.self) == UInt8(ascii: "1"))
        #expect(unsafe guest.page.load(fromByteOffset: 2064, as: UInt32.self) == 0)
    }

    @Test func aMessageMayComeInAnyTwoPieces() {
        let bytes = request(.write, 9, "data/a|value") + request(.read, 10, "data/a|")
        for cut in 0...bytes.count {
            guest.put(bytes[..<cut])
            guest.ring()
            guest.put(bytes[cut...])
            guest.ring()
            guest.drain()
            #expect(guest.messages.map { guest.text($0.payload) } == ["OK|", "value"], "cut at \(cut)")
            guest.messages = []
        }
    }

    @Test func aMessageMayComeByteByByteAndGoSo() {
        for round in 0..<60 {
            let bytes = request(.write, 9, "data/a|value \(round)") + request(.read, 10, "data/a|")
            for index in bytes.indices {
                guest.put(bytes[index...index])
                guest.ring()
            }
            while guest.take(atMost: 1) > 0 {}
            #expect(guest.messages.map { guest.text($0.payload) } == ["OK|", "value \(round)"])
            guest.messages = []
        }
        #expect(guest[.requestsPut] > 3 * 1024)
    }

    @Test func aMessageMayBeLongerThanTheRing() {
        let value = String((0..<2048).map { Character(UnicodeScalar(UInt8(ascii: "a") + UInt8($0 % 26))) })
        #expect(guest.write("data/long", value) == "OK|")
        #expect(guest.read("data/long") == value)
        let token = String(repeating: "t", count: 4090)
        #expect(guest.watch("data", token) == "OK|")
        #expect(guest.events() == [.init("data", token)])
    }

    /// Whatever the indexes are when they wrap, and wherever in the ring a message begins.
    @Test func theIndexesRunFreely() {
        let value = String(repeating: "v", count: 997)
        for round in 0..<1100 {
            #expect(guest.write("data/\(round % 7)", value) == "OK|")
            if round % 3 == 0 { #expect(guest.read("data/\(round % 7)") == value) }
        }
        #expect(guest[.requestsPut] > 1 << 20)
    }

    @Test func whatDoesNotFitWaitsForTheGuest() {
        guest.write("data/long", String(repeating: "v", count: 2000))
        let before = guest.rung.value
        for id in 1...5 { guest.put(request(.read, UInt32(id), "data/long|")[...]) }
        guest.ring()
        // The ring is full to the last byte, and nothing is taken beyond the request that waits.
        #expect(guest[.responsesPut] &- guest[.responsesTaken] == 1024)
        #expect(guest[.requestsTaken] &- guest[.requestsPut] != 0)
        #expect(guest.rung.value == before + 1)
        guest.ring()
        #expect(guest.rung.value == before + 1)
        while guest.take(atMost: 100) > 0 { guest.ring() }
        #expect(guest.messages.map(\.requestID) == [1, 2, 3, 4, 5])
        #expect(guest.messages.allSatisfy { $0.payload.count == 2000 })
        #expect(guest[.requestsTaken] == guest[.requestsPut])
    }

    @Test func whoTakesOnlyFromAFullRingStillGetsAll() {
        guest.write("data/long", String(repeating: "v", count: 2000))
        let bytes = (1...20).flatMap { request(.read, UInt32($0), "data/long|") }
        guest.send(bytes)
        guest.drain()
        #expect(guest.messages.map(\.requestID) == Array(1...20))
    }

    @Test func oneCallIsBounded() {
        var limits = StoreLimits()
        limits.requestsPerCall = 3
        let guest = StoreGuest(XenStore(limits: limits), 1)
        for id in 1...7 { guest.put(request(.read, UInt32(id), "domid|")[...]) }
        #expect(guest.store.ringChanged(domid: 1))
        guest.take()
        #expect(guest.messages.count == 3)
        #expect(guest.store.ringChanged(domid: 1))
        #expect(!guest.store.ringChanged(domid: 1))
        guest.take()
        #expect(guest.messages.map(\.requestID) == Array(1...7))
        #expect(!guest.store.ringChanged(domid: 2))
    }

    // MARK: What breaks it

    enum Damage: CaseIterable { case requests, requestsBack, responses, responsesAhead, length, hugeLength }

    private func damage(_ guest: StoreGuest, _ damage: Damage) -> StoreLoss {
        switch damage {
        case .requests: guest[.requestsPut] &+= 1025
        case .requestsBack: guest[.requestsPut] &-= 1
        case .responses: guest[.responsesTaken] &-= 1025
        case .responsesAhead: guest[.responsesTaken] &+= 1
        case .length: guest.put(StoreMessage(.write, [UInt8](repeating: 0, count: 4097)).bytes[...])
        case .hugeLength: guest.put(([UInt8](repeating: 0, count: 12) + [0xff, 0xff, 0xff, 0xff])[...])
        }
        switch damage {
        case .requests, .requestsBack: return .requestIndexes
        case .responses, .responsesAhead: return .responseIndexes
        case .length, .hugeLength: return .requestTooLong
        }
    }

    @Test(arguments: Damage.allCases) func whoBreaksTheProtocolIsNotHeard(_ kind: Damage) {
        let other = StoreGuest(store, 2)
        guest.write("data/a", "kept")
        guest.watch("@introduceDomain", "t")
        _ = guest.events()
        let loss = damage(guest, kind)
        let put = guest[.responsesPut]
        guest.ring()
        #expect(store.loss(of: 1) == loss)
        #expect(store.statistics.losses == [loss: 1])
        // It may write what it likes now.
        guest[.requestsPut] = guest[.requestsTaken]
        guest[.responsesTaken] = guest[.responsesPut]
        guest.put(request(.read, 1, "domid|")[...])
        guest.ring()
        // Nor is it told anything.
        let third = StoreGuest(store, 3)
        #expect(guest[.responsesPut] == put)
        // Others do not notice, and what it has written is there.
        #expect(other.write("data/x", "1") == "OK|" && third.read("domid") == "3")
        #expect(store.loss(of: 2) == nil)
        #expect(store.read("/local/domain/1/data/a") == Array("kept".utf8))
        guest.introduce()
        #expect(store.loss(of: 1) == nil)
        #expect(guest.read("domid") == "1")
    }

    @Test func ourIndexesAreOurs() {
        guest[.requestsTaken] = 0xdead_beef
        guest[.responsesPut] = 0xdead_beef
        guest[.requestsPut] = 0
        for (index, byte) in request(.read, 1, "domid|").enumerated() {
            unsafe guest.page.storeBytes(of: byte, toByteOffset: index, as: UInt8.self)
        }
        guest[.requestsPut] = 22
        guest.ring()
        #expect(guest[.requestsTaken] == 22 && guest[.responsesPut] == 17)
        #expect(store.loss(of: 1) == nil)
    }

    @Test func anEventFindsOutThatAGuestIsPastTalkingTo() {
        let other = StoreGuest(store, 2)
        for token in ["t", "u", "v"] { guest.watch("data", token) }
        _ = guest.events()
        #expect(guest.permit("data", "b1") == "OK|")
        _ = guest.events()
        guest[.responsesTaken] &+= 5
        #expect(other.write("/local/domain/1/data/x", "") == "OK|")
        #expect(store.loss(of: 1) == .responseIndexes)
        #expect(other.write("/local/domain/1/data/x", "again") == "OK|")
        #expect(store.statistics.losses == [.responseIndexes: 1])
    }

    @Test func whoDoesNotReadLosesEventsAndNothingElse() {
        var limits = StoreLimits()
        limits.pendingEventBytes = 8192
        let store = XenStore(limits: limits)
        let (guest, other) = (StoreGuest(store, 1), StoreGuest(store, 2))
        #expect(guest.permit("data", "b1") == "OK|")
        guest.watch("data", "t")
        _ = guest.events()
        for index in 0..<900 { #expect(other.write("/local/domain/1/data/\(index)", "") == "OK|") }
        let statistics = store.statistics
        #expect(statistics.eventsDropped > 300 && statistics.eventsMerged == 0)
        let events = guest.events()
        #expect(events == (0..<events.count).map { .init("data/\($0)", "t") })
        #expect(UInt64(events.count) == 900 - statistics.eventsDropped)
        #expect(guest.ask(.getPermissions, "data/899|") == "b2|" && store.loss(of: 1) == nil)
    }

    /// A thousand changes at once, each for all the watches that one can have: the events end where the queue does.
    @Test func aTransactionCannotMakeAFlood() {
        for index in 0..<128 { guest.watch("data", "\(index)") }
        _ = guest.events()
        let id = guest.begin()
        for index in 0..<900 { guest.write("data/\(index)", "", transaction: id) }
        let before = store.statistics
        let start = ContinuousClock.now
        #expect(guest.end(id) == "OK|")
        print("aTransactionCannotMakeAFlood: \(ContinuousClock.now - start)")
        let told = store.statistics.events - before.events
        #expect(told < 3000 && store.statistics.eventsDropped - before.eventsDropped == 900 * 128 - told)
        #expect(guest.events().count == Int(told))
        #expect(guest.write("data/1", "") == "OK|" && guest.events().count == 128)
    }

    /// The queue is never empty, and yet what has gone is not kept.
    @Test func whoIsAlwaysALittleLateIsServed() {
        let other = StoreGuest(store, 2)
        #expect(guest.permit("data", "b1") == "OK|")
        guest.watch("data", "t")
        _ = guest.events()
        for index in 0..<400 { #expect(other.write("/local/domain/1/data/\(index)", "") == "OK|") }
        for index in 400..<900 {
            guest.take(atMost: 28)
            guest.ring()
            #expect(other.write("/local/domain/1/data/\(index)", "") == "OK|")
        }
        #expect(store.statistics.eventsDropped == 0)
        #expect(guest[.responsesPut] &- guest[.responsesTaken] == 1024)
        #expect(guest.events() == (0..<900).map { .init("data/\($0)", "t") })
    }

    @Test func whatWaitsToBeSaidIsNotSaidTwice() {
        let other = StoreGuest(store, 2)
        #expect(guest.permit("data", "b1") == "OK|")
        guest.write("data/a", "")
        #expect(guest.permit("data/a", "b1") == "OK|")
        guest.watch("data", "t")
        _ = guest.events()
        for _ in 0..<1000 { other.write("/local/domain/1/data/a", "x") }
        let events = guest.events()
        #expect(Set(events) == [.init("data/a", "t")])
        #expect(events.count <= 1 + 1024 / 25 + 1)
        #expect(store.statistics.eventsMerged > 900)
        other.write("/local/domain/1/data/a", "x")
        #expect(guest.events().count == 1)
    }

    @Test func aPageIsNotTouchedAfterItsRelease() {
        let other = StoreGuest(store, 2)
        #expect(guest.permit("data", "b1") == "OK|")
        guest.watch("@releaseDomain", "t")
        _ = guest.events()
        store.release(domid: 1)
        unsafe guest.page.initializeMemory(as: UInt8.self, repeating: 0xaa, count: 4096)
        other.introduce()
        #expect(!store.ringChanged(domid: 1))
        #expect((0..<4096).allSatisfy { unsafe guest.page.load(fromByteOffset: $0, as: UInt8.self) == 0xaa })
    }
}
