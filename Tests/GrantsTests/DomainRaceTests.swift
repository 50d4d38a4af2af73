import Grants
import GuestMemory
import HostInterface
import Synchronization
import Testing

/// Guests on threads of their own, each at its worst.
@Suite struct DomainRaceTests {
    /// The owner's table, as a kernel keeps it, in the domain's memory.
    @safe private final class Owner: @unchecked Sendable {
        let guest: XenGuest
        var table: GrantTablePages
        private let storage: UnsafeMutableRawBufferPointer

        init(_ guest: XenGuest) {
            self.guest = guest
            unsafe storage = .allocate(byteCount: GrantTablePages.byteCount(frames: 1), alignment: 8)
            let frames = unsafe UnsafeMutableRawBufferPointer(
                start: guest.pointer(XenGuest.Place.grantFrame << 12, 4096), count: 4096)
            unsafe table = GrantTablePages(frames: frames, storage: storage)
        }

        deinit { unsafe storage.deallocate() }
    }

    private static let nanoseconds: UInt64 = 1_000_000_000

    // Each grant is of a page with a number of its own, which goes when the grant has ended.
    @Test func whoeverMapsSeesThePageOfALiveGrant() throws {
        let house = DomainHouse()
        let anna = try XenGuest(in: house), bert = try XenGuest(in: house)
        let owner = Owner(anna)
        // The reference that is granted just now, or was.
        let granted = Atomic<UInt32>(0), isOver = Atomic(false)
        let inUse = Atomic(0), ended = Atomic(0), endedWhileMapped = Atomic(0)
        let bertID = bert.id
        /// The page that the mapper has, from before it is asked for until it may be unmapped; 0: none.
        let mapped = Atomic<UInt64>(0)
        let granter = try HostThread(name: "granter") {
            var number: UInt64 = 0
            while !isOver.load(ordering: .relaxed) {
                number += 1
                let page = 20 + number % 8
                try? anna.setWord(ofPage: page, number)
                guard let reference = try? owner.table.grant(page, to: bertID, readOnly: number % 2 == 0) else {
                    return
                }
                granted.store(reference, ordering: .sequentiallyConsistent)
                while !owner.table.endGrant(reference) {
                    inUse.wrappingAdd(1, ordering: .relaxed)
                    if isOver.load(ordering: .relaxed) { return }
                }
                ended.wrappingAdd(1, ordering: .relaxed)
                if mapped.load(ordering: .sequentiallyConsistent) == number {
                    endedWhileMapped.wrappingAdd(1, ordering: .relaxed)
                }
                try? anna.setWord(ofPage: page, 0)
            }
        }
        let end = HostClock.monotonicNanoseconds + Self.nanoseconds
        var maps = 0, refusals = 0, zeros = 0, changes = 0
        while HostClock.monotonicNanoseconds < end {
            let reference = granted.load(ordering: .sequentiallyConsistent)
            let (status, handle) = bert.map(reference, of: anna.id, atPage: 0x200, readOnly: true)
            guard status == 0 else {
                refusals += 1
                continue
            }
            maps += 1
            let seen = bert.word(ofPage: 0x200) ?? 0
            if seen == 0 { zeros += 1 }
            mapped.store(seen, ordering: .sequentiallyConsistent)
            for _ in 0..<8 where bert.word(ofPage: 0x200) != seen { changes += 1 }
            mapped.store(0, ordering: .sequentiallyConsistent)
            #expect(bert.unmap(handle, atPage: 0x200) == 0)
        }
        isOver.store(true, ordering: .relaxed)
        granter.join()
        #expect((zeros, changes) == (0, 0))
        #expect(endedWhileMapped.load(ordering: .relaxed) == 0)
        #expect(maps > 0 && ended.load(ordering: .relaxed) > 0)
        print(
            "DomainRaceTests: \(maps) maps, \(refusals) refusals, \(ended.load(ordering: .relaxed)) ends, "
                + "\(inUse.load(ordering: .relaxed)) times in use")
        anna.close()
        bert.close()
    }

    // An owner that keeps no rules: what comes of it is a page of its own RAM, or a status.
    @Test func noiseInATableHurtsItsOwnerOnly() throws {
        let house = DomainHouse()
        let anna = try XenGuest(in: house), bert = try XenGuest(in: house), carl = try XenGuest(in: house)
        for page in UInt64(16)..<256 { try anna.setWord(ofPage: page, 0xa << 32 | page) }
        let isOver = Atomic(false)
        let bertID = bert.id
        let noise = try HostThread(name: "noise") {
            var number: UInt64 = 1
            while !isOver.load(ordering: .relaxed) {
                number = number &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                let frame = (number >> 40) % 300
                let domid = number >> 33 & 1 == 0 ? UInt64(bertID) : number >> 16 & 3
                let word = frame << 32 | domid << 16 | (number >> 20 & 3 == 0 ? number >> 48 & 0xffff : 1)
                unsafe anna.atomic(XenGuest.place(ofEntry: UInt32(8 + number >> 60 & 3))).pointee.store(
                    word, ordering: .relaxed)
            }
        }
        let end = HostClock.monotonicNanoseconds + Self.nanoseconds / 2
        var statuses: [Int16: Int] = [:]
        var reference: UInt32 = 8
        while HostClock.monotonicNanoseconds < end {
            reference = 8 + (reference + 1) % 4
            let (status, handle) = bert.map(reference, of: anna.id, atPage: 0x200, readOnly: reference % 2 == 0)
            statuses[status, default: 0] += 1
            if status == 0 {
                let word = bert.word(ofPage: 0x200) ?? 0
                // Its first pages have other things in them, of its own as well.
                #expect(
                    word >> 32 == 0xa || word >> 32 == 0 || word & 7 == 7 || word & 0xffff == 0x7ff0, "\(word)")
                #expect(bert.unmap(handle, atPage: 0x200) == 0)
            }
            statuses[bert.copy(.grant(reference, of: anna.id), .page(30), count: 8), default: 0] += 1
            let other = carl.map(reference, of: anna.id, atPage: 0x200)
            if other.status == 0 { #expect(carl.unmap(other.handle, atPage: 0x200) == 0) }
        }
        isOver.store(true, ordering: .relaxed)
        noise.join()
        #expect(statuses[0, default: 0] > 0)
        #expect(Set(statuses.keys).isSubset(of: [0, -1, -9]))
        for reference in UInt32(8)..<12 {
            try anna.grant(reference, page: 20, to: bert.id)
            #expect(bert.map(reference, of: anna.id, atPage: 0x200).status == 0)
            #expect(bert.word(ofPage: 0x200) == 0xa << 32 | 20)
            bert.reset()
            #expect(anna.entry(reference).flags == 1)
        }
        for guest in [anna, bert, carl] { guest.close() }
    }

    // Everybody maps of everybody, rings at everybody, and ends and begins meanwhile.
    @Test func domainsComeAndGoUnderLoad() throws {
        let house = DomainHouse()
        let isOver = Atomic(false)
        let rounds = Atomic(0), maps = Atomic(0)
        let threads = try (0..<4).map { index in
            try HostThread(name: "domain \(index)") {
                var round: UInt64 = UInt64(index)
                while !isOver.load(ordering: .relaxed) {
                    guard let guest = try? XenGuest(in: house) else { return }
                    guest.listen()
                    for others in 1...4 as ClosedRange<UInt16> {
                        try? guest.grant(UInt32(8 + others), page: 20 + UInt64(others), to: others)
                        _ = guest.allocUnbound(for: others)
                    }
                    for _ in 0..<30 {
                        round &+= 1
                        let other = UInt16(round % 5)
                        let port = guest.bindInterdomain(other, UInt32(2 + round % 6))
                        if port > 0 { guest.send(port) }
                        let page = 0x200 + round % 8
                        let (status, handle) = guest.map(UInt32(8 + guest.id), of: other, atPage: page)
                        if status == 0 {
                            maps.wrappingAdd(1, ordering: .relaxed)
                            try? guest.setWord(ofPage: page, round)
                            if round % 3 == 0 { _ = guest.unmap(handle, atPage: page) }
                        }
                        _ = guest.copy(.grant(UInt32(8 + guest.id), of: other), .page(40), count: 4096)
                        _ = guest.takeEventsOnce()
                    }
                    if round % 2 == 0 { guest.reset() }
                    guest.close()
                    rounds.wrappingAdd(1, ordering: .relaxed)
                }
            }
        }
        let end = HostClock.monotonicNanoseconds + Self.nanoseconds
        while HostClock.monotonicNanoseconds < end { HostThread.yield() }
        isOver.store(true, ordering: .relaxed)
        for thread in threads { thread.join() }
        #expect(rounds.load(ordering: .relaxed) > 10)
        #expect(maps.load(ordering: .relaxed) > 0)
        // All numbers are free again.
        let last = try XenGuest(in: house)
        #expect(last.id == 1)
        last.close()
    }
}
