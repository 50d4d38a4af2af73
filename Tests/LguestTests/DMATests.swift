import GuestMemory
import HostInterface
import Lguest
import LguestTesting
import Synchronization
import Testing

/// Two Guests that share a page, each at an address of its own, and where they keep what they send and receive.
struct Pair {
    enum At {
        /// The page that they share.
        static let senderKey: UInt64 = 0x50000, receiverKey: UInt64 = 0x90000
        static let list: UInt64 = 0x60000, data: UInt64 = 0x70000
    }

    let host = ScriptedHost()
    let region: SharedRegion
    let sender: ScriptedGuest
    let receiver: ScriptedGuest

    init() throws {
        region = try SharedRegion(name: "shared", byteCount: 4096)
        sender = try ScriptedGuest(in: host, regions: [(region, at: At.senderKey)])
        receiver = try ScriptedGuest(in: host, regions: [(region, at: At.receiverKey)])
    }

    /// The receiver's buffer number `index`.
    func buffer(_ index: Int) -> UInt64 { At.list + UInt64(index * LguestDMA.byteCount) }

    /// Binds `count` free buffers of `byteCount` bytes, each a page after the last.
    func bind(_ count: Int = 1, byteCount: Int = 4096, irq: Int = 3) throws {
        for index in 0..<count {
            try receiver.memory.putList([(At.data + UInt64(index) * 4096, byteCount)], at: buffer(index))
        }
        #expect(receiver.bind(At.receiverKey, At.list, count: count, irq: irq) == .done(1))
    }

    /// Sends bytes in one section.
    @discardableResult func send(_ bytes: [UInt8]) throws -> ScriptedGuest.Outcome {
        try sender.memory.put(bytes, At.data)
        try sender.memory.putList([(At.data, bytes.count)], at: At.list, usedLength: 77)
        return sender.send(At.senderKey, At.list)
    }

    func sentLength() throws -> UInt32 { try sender.memory.usedLength(At.list) }
    func receivedLength(_ index: Int = 0) throws -> UInt32 { try receiver.memory.usedLength(buffer(index)) }
    func received(_ count: Int, _ index: Int = 0) throws -> [UInt8] {
        try receiver.memory.bytes(At.data + UInt64(index) * 4096, count)
    }
}

/// BIND_DMA (A3, A4).
@Suite struct BindTests {
    private typealias At = Pair.At
    private let pair: Pair
    private var guest: ScriptedGuest { pair.receiver }

    init() throws { pair = try Pair() }

    @Test func itAnswersOne() { #expect(guest.bind(At.receiverKey, At.list) == .done(1)) }

    /// F6. The irq has eight bits.
    @Test func anIrqThatThereIsNotIsRefused() {
        for irq in [32, 33, 255] { #expect(guest.bind(At.receiverKey, At.list, irq: irq) == .done(0)) }
        #expect(guest.bind(At.receiverKey, At.list, irq: 31) == .done(1))
        // Even before the key is looked at.
        #expect(guest.bind(3, At.list, irq: 32) == .done(0))
    }

    /// F6.
    @Test func the33rdIsRefused() {
        for index in 0..<LguestDMA.maximumBindings {
            #expect(guest.bind(At.receiverKey + UInt64(index * 4), At.list) == .done(1))
        }
        #expect(guest.bind(At.receiverKey + 4000, At.list) == .done(0))
        // One that is undone makes room.
        #expect(guest.bind(At.receiverKey + 8, At.list, irq: 0) == .done(1))
        #expect(guest.bind(At.receiverKey + 4000, At.list) == .done(1))
        #expect(guest.bind(At.receiverKey + 4004, At.list) == .done(0))
    }

    /// 32 is what each Guest may have.
    @Test func anotherGuestHas32OfItsOwn() {
        for index in 0..<LguestDMA.maximumBindings {
            #expect(guest.bind(At.receiverKey + UInt64(index * 4), At.list) == .done(1))
        }
        #expect(pair.sender.bind(At.senderKey, At.list) == .done(1))
    }

    @Test func irqZeroUndoesIt() throws {
        try pair.bind()
        #expect(guest.bind(At.receiverKey, At.list, irq: 0) == .done(1))
        #expect(guest.bind(At.receiverKey, At.list, irq: 0) == .done(0))
        try pair.send([1, 2, 3])
        #expect(try pair.sentLength() == 77)
        #expect(try pair.receivedLength() == 0)
    }

    /// F6: key and array must be those of the binding, and the Guest must be its own.
    @Test func onlyWhatWasBoundIsUndone() throws {
        try pair.bind()
        #expect(guest.bind(At.receiverKey, At.list + 8, irq: 0) == .done(0))
        #expect(guest.bind(At.receiverKey + 4, At.list, irq: 0) == .done(0))
        #expect(pair.sender.bind(At.senderKey, At.list, irq: 0) == .done(0))
        try pair.send([1, 2, 3])
        #expect(try pair.sentLength() == 3)
    }

    @Test func aBadKeyKills() throws {
        for key in [1, 2, 0x50003, 1 << 20, (1 << 20) - 2, UInt64.max, .max - 3] as [UInt64] {
            let guest = try ScriptedGuest(in: pair.host)
            let expected = ScriptedGuest.Outcome.died("bad dma key 0x" + String(key, radix: 16))
            #expect(guest.bind(key, At.list) == expected)
            let other = try ScriptedGuest(in: pair.host)
            #expect(other.bind(key, At.list, irq: 0) == expected)
        }
        #expect(guest.bind((1 << 20) - 4, At.list) == .done(1))
    }

    /// `count` has 16 bits, and nothing above them counts.
    @Test func countHas16Bits() throws {
        try pair.bind()
        let call = (1 << 24 | 1 << 8 | 3) as UInt64
        #expect(guest.call(LguestHypercall.bindDMA, At.receiverKey, At.list, call) == .done(1))
        #expect(guest.call(LguestHypercall.bindDMA, At.receiverKey, At.list, 4096 << 8 | 3) == .done(1))
    }

    /// Whoever sends looks through all of them under the Host's lock.
    @Test func anArrayHasABound() throws {
        try pair.bind()
        #expect(guest.call(LguestHypercall.bindDMA, At.receiverKey, At.list, 4097 << 8 | 3) == .done(0))
        #expect(guest.call(LguestHypercall.bindDMA, At.receiverKey, At.list, 0xffff << 8 | 3) == .done(0))
    }

    /// A4: nothing to receive into; it is told all the same.
    @Test func anArrayOfNoneIsAlwaysFull() throws {
        #expect(guest.bind(At.receiverKey, At.list, count: 0, irq: 4) == .done(1))
        try pair.send([1, 2, 3])
        #expect(try pair.sentLength() == 77)
        #expect(guest.takeInterrupts() == [4])
        #expect(throws: Errno.notFound) { try guest.guest.freeBuffer(forKey: At.receiverKey) }
    }
}

/// SEND_DMA between Guests (A4, F7…F9; seed 000).
@Suite struct SendTests {
    private typealias At = Pair.At
    private let pair: Pair

    init() throws { pair = try Pair() }

    @Test func bytesGoFromOneToTheOther() throws {
        try pair.bind()
        #expect(try pair.send(Array("Hello, neighbour".utf8)) == .done(0))
        #expect(try pair.sentLength() == 16)
        #expect(try pair.receivedLength() == 16)
        #expect(try pair.received(17) == Array("Hello, neighbour".utf8) + [0])
        #expect(pair.receiver.takeInterrupts() == [3])
        #expect(pair.sender.takeInterrupts() == [])
    }

    /// A4: no match is silence.
    @Test func nobodyIsNoError() throws {
        #expect(try pair.send([1, 2, 3]) == .done(0))
        #expect(try pair.sentLength() == 77)
        // A word of the page that nobody has bound is another key.
        try pair.bind()
        try pair.sender.memory.putList([(At.data, 3)], at: At.list, usedLength: 77)
        #expect(pair.sender.send(At.senderKey + 4, At.list) == .done(0))
        #expect(try pair.sentLength() == 77)
        #expect(pair.receiver.takeInterrupts() == [])
    }

    @Test func aGuestNeverReceivesFromItself() throws {
        try pair.sender.memory.putList([(At.data, 100)], at: At.list + 0x1000)
        #expect(pair.sender.bind(At.senderKey, At.list + 0x1000) == .done(1))
        try pair.send([1, 2, 3])
        #expect(try pair.sentLength() == 77)
        // But somebody else who has bound it later.
        try pair.bind()
        try pair.send([1, 2, 3])
        #expect(try pair.sentLength() == 3)
    }

    @Test func onlyTheFirstWhoBoundReceives() throws {
        let third = try ScriptedGuest(in: pair.host, regions: [(pair.region, at: 0x20000)])
        try third.memory.putList([(At.data, 100)], at: At.list)
        #expect(third.bind(0x20000, At.list) == .done(1))
        try pair.bind()
        try pair.send([1, 2, 3])
        #expect(try third.memory.usedLength(At.list) == 3)
        #expect(try pair.receivedLength() == 0)
        // It keeps its place while it is full.
        try pair.send([4])
        #expect(try pair.receivedLength() == 0)
        #expect(third.bind(0x20000, At.list, irq: 0) == .done(1))
        try pair.send([4])
        #expect(try pair.receivedLength() == 1)
    }

    // MARK: The array

    /// A4: the search goes on where it ended.
    @Test func theArrayIsUsedInTurn() throws {
        try pair.bind(3)
        for index in 0..<3 { try pair.send([UInt8(index + 1)]) }
        for index in 0..<3 { #expect(try pair.received(1, index) == [UInt8(index + 1)]) }
        // All used: the next three find them free again, in the same order.
        for index in [2, 0] { try pair.receiver.memory.putList([(At.data, 9)], at: pair.buffer(index)) }
        try pair.send([7, 7])
        #expect(try pair.receivedLength(0) == 2)
        #expect(try pair.receivedLength(2) == 0)
    }

    @Test func buffersThatAreInUseAreSkipped() throws {
        try pair.bind(3)
        try pair.receiver.memory.putList([(At.data, 100)], at: pair.buffer(0), usedLength: 5)
        try pair.receiver.memory.putList([(At.data, 100)], at: pair.buffer(1), usedLength: .max)
        try pair.send([1, 2])
        #expect(try [pair.receivedLength(0), pair.receivedLength(1), pair.receivedLength(2)] == [5, .max, 2])
    }

    /// F7: told twice, for it is asked twice, and nothing is sent.
    @Test func aFullReceiverIsInterruptedAllTheSame() throws {
        try pair.bind()
        try pair.send([1])
        _ = pair.receiver.takeInterrupts()
        try pair.send([2, 3])
        #expect(try pair.sentLength() == 77)
        #expect(try pair.received(2) == [1, 0])
        #expect(pair.receiver.takeInterrupts() == [3])
    }

    /// A4: one retry, which the receiver's owner has a chance to use. It runs on
    /// a thread of its own and puts the buffer back whenever it is interrupted.
    @Test func aReceiverThatPutsBuffersBackLosesNothing() throws {
        final class Ended: Sendable { let value = Atomic(false) }
        let ended = Ended()
        try pair.bind(2, byteCount: 8)
        let memory = pair.receiver.memory
        let lists = (0..<2).map { pair.buffer($0) }
        let restocker = try HostThread(name: "restocker") {
            while !ended.value.load(ordering: .acquiring) {
                for list in lists { try? memory.free(list: list) }
                HostThread.yield()
            }
        }
        var received = 0
        while received < 1000 {
            try pair.send([UInt8](repeating: 1, count: 8))
            if try pair.sentLength() == 8 { received += 1 }
        }
        ended.value.store(true, ordering: .releasing)
        restocker.join()
        #expect(received == 1000)
    }

    // MARK: Lists

    /// F8: as many bytes as both have room for.
    @Test func theShorterListCounts() throws {
        try pair.bind(byteCount: 5)
        try pair.send([1, 2, 3, 4, 5, 6, 7, 8])
        #expect(try pair.sentLength() == 5)
        #expect(try pair.receivedLength() == 5)
        #expect(try pair.received(8) == [1, 2, 3, 4, 5, 0, 0, 0])
    }

    /// The original copied a section's beginning again where one of the
    /// sender's sections meets two of the receiver's (A4, "Defect").
    @Test func oneSectionIntoTwo() throws {
        try pair.receiver.memory.putList([(At.data, 3), (At.data + 0x100, 5)], at: At.list)
        #expect(pair.receiver.bind(At.receiverKey, At.list) == .done(1))
        try pair.send([1, 2, 3, 4, 5, 6, 7, 8])
        #expect(try pair.received(3) == [1, 2, 3])
        #expect(try pair.receiver.memory.bytes(At.data + 0x100, 5) == [4, 5, 6, 7, 8])
        #expect(try pair.sentLength() == 8)
    }

    @Test func twoSectionsIntoOne() throws {
        try pair.bind()
        try pair.sender.memory.put([1, 2, 3], At.data)
        try pair.sender.memory.put([4, 5, 6, 7], At.data + 0x800)
        try pair.sender.memory.putList([(At.data, 3), (At.data + 0x800, 4)], at: At.list)
        pair.sender.send(At.senderKey, At.list)
        #expect(try pair.received(8) == [1, 2, 3, 4, 5, 6, 7, 0])
        #expect(try pair.receivedLength() == 7)
    }

    /// Any two ways to cut the same bytes.
    @Test func sectionsNeedNotMatch() throws {
        var random = SystemRandomNumberGenerator()
        for _ in 0..<200 {
            func sections() -> [(address: UInt64, byteCount: Int)] {
                (0..<Int.random(in: 1...16, using: &random)).map { index in
                    (
                        At.data + UInt64(index) * 0x1000 + .random(in: 0..<64, using: &random),
                        .random(in: 1...90, using: &random)
                    )
                }
            }
            let (from, to) = (sections(), sections())
            let bytes = (0..<from.reduce(0) { $0 + $1.byteCount }).map { _ in UInt8.random(in: 1...255, using: &random)
            }
            let pair = try Pair()
            var rest = bytes[...]
            for section in from {
                try pair.sender.memory.put(Array(rest.prefix(section.byteCount)), section.address)
                rest = rest.dropFirst(section.byteCount)
            }
            try pair.sender.memory.putList(from, at: At.list)
            try pair.receiver.memory.putList(to, at: At.list)
            #expect(pair.receiver.bind(At.receiverKey, At.list) == .done(1))
            pair.sender.send(At.senderKey, At.list)
            let arrived = try to.flatMap { try pair.receiver.memory.bytes($0.address, $0.byteCount) }
            let count = min(arrived.count, bytes.count)
            #expect(Array(arrived.prefix(count)) == Array(bytes.prefix(count)), "\(from) to \(to)")
            #expect(arrived.dropFirst(count).allSatisfy { $0 == 0 })
            #expect(try pair.sentLength() == UInt32(count))
            #expect(try pair.receivedLength() == UInt32(count))
        }
    }

    /// A2: 16 that are not 0 need no end; 16 × 4096 is the most.
    @Test func sixteenWholePages() throws {
        let sections = (0..<LguestDMA.maximumSections).map { (address: At.data + UInt64($0) * 4096, byteCount: 4096) }
        let bytes = (0..<65536).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }
        try pair.sender.memory.put(bytes, At.data)
        try pair.sender.memory.putList(sections, at: At.list)
        try pair.receiver.memory.putList(sections, at: At.list)
        #expect(pair.receiver.bind(At.receiverKey, At.list) == .done(1))
        pair.sender.send(At.senderKey, At.list)
        #expect(try pair.sentLength() == 65536)
        #expect(try pair.receiver.memory.bytes(At.data, 65536) == bytes)
    }

    /// A2: and what is behind it is not looked at.
    @Test func theFirstLengthOfZeroEndsAList() throws {
        try pair.bind()
        try pair.sender.memory.put([1, 2, 3], At.data)
        try pair.sender.memory.putList([(At.data, 2), (.max, 0), (.max, 4096)], at: At.list)
        pair.sender.send(At.senderKey, At.list)
        #expect(pair.sender.guest.death == nil)
        #expect(try pair.receivedLength() == 2)
    }

    /// A4: sent, and its buffer is still free.
    @Test func nothingCanBeSent() throws {
        try pair.bind(2)
        try pair.sender.memory.putList([], at: At.list, usedLength: 77)
        pair.sender.send(At.senderKey, At.list)
        #expect(try pair.sentLength() == 0)
        #expect(try pair.receivedLength(0) == 0)
        #expect(pair.receiver.takeInterrupts() == [3])
        // The cursor has gone on.
        try pair.send([1])
        #expect(try pair.receivedLength(0) == 0)
        #expect(try pair.receivedLength(1) == 1)
    }

    /// A4: nothing copied, though there was something: the receiver's buffer is left alone, and no interrupt.
    @Test func aReceiverWithoutRoomIsNotTold() throws {
        try pair.receiver.memory.putList([], at: At.list)
        #expect(pair.receiver.bind(At.receiverKey, At.list) == .done(1))
        try pair.send([1, 2])
        #expect(try pair.sentLength() == 0)
        #expect(try pair.receivedLength() == 0)
        #expect(pair.receiver.takeInterrupts() == [])
        #expect(pair.sender.guest.death == nil && pair.receiver.guest.death == nil)
    }

    // MARK: Whose fault it is

    private static let badSections: [(UInt64, Int)] = [
        (At.data + 1, 4096), (At.data + 4095, 2), (At.data, 4097), (At.data, 65535), (1 << 20, 1), ((1 << 20) - 1, 2),
        (.max, 1), (.max - 4095, 4096), (1 << 63, 8),
    ]

    /// F9.
    @Test func aBadSectionToSendKillsTheSender() throws {
        for (address, count) in Self.badSections {
            let pair = try Pair()
            try pair.bind()
            try pair.sender.memory.putList([(At.data, 4), (address, count)], at: At.list, usedLength: 77)
            let reason = "bad DMA entry: \(count)@0x\(String(address, radix: 16))"
            #expect(pair.sender.send(At.senderKey, At.list) == .died(reason))
            #expect(pair.receiver.guest.death == nil)
            #expect(try pair.received(4) == [0, 0, 0, 0])
            #expect(try pair.receivedLength() == 0)
            #expect(pair.receiver.takeInterrupts() == [])
        }
    }

    /// F9: the sender has done nothing wrong, and lives.
    @Test func aBadSectionToReceiveKillsTheReceiver() throws {
        for (address, count) in Self.badSections {
            let pair = try Pair()
            try pair.receiver.memory.putList([(At.data, 4), (address, count)], at: At.list)
            #expect(pair.receiver.bind(At.receiverKey, At.list) == .done(1))
            #expect(try pair.send([1, 2, 3]) == .done(0))
            let reason = "bad DMA entry: \(count)@0x\(String(address, radix: 16))"
            #expect(pair.receiver.guest.death == .killed(reason: reason))
            #expect(pair.receiver.run() == .died(reason))
            #expect(try pair.sentLength() == 0)
        }
    }

    /// A4: the receiver's list is looked at first, and the one at fault dies alone.
    @Test func ofTwoBadListsTheReceiversCounts() throws {
        try pair.receiver.memory.putList([(.max, 4)], at: At.list)
        #expect(pair.receiver.bind(At.receiverKey, At.list) == .done(1))
        try pair.sender.memory.putList([(.max, 8)], at: At.list)
        #expect(pair.sender.send(At.senderKey, At.list) == .done(0))
        #expect(pair.receiver.guest.death != nil)
    }

    @Test func aBadKeyKills() throws {
        for key in [1, 2, 0x50003, 1 << 20, (1 << 20) - 2, UInt64.max, .max - 3] as [UInt64] {
            let guest = try ScriptedGuest(in: pair.host)
            #expect(guest.send(key, At.list) == .died("bad sending DMA key 0x" + String(key, radix: 16)))
        }
    }

    @Test func aBufferOutsideMemoryKillsTheSender() throws {
        for address in [1 << 20, (1 << 20) - 1, (1 << 20) - UInt64(LguestDMA.byteCount) + 1, .max] as [UInt64] {
            let pair = try Pair()
            try pair.bind()
            let reason = "bad address in sending DMA 0x" + String(address, radix: 16)
            #expect(pair.sender.send(At.senderKey, address) == .died(reason))
            #expect(pair.receiver.guest.death == nil)
        }
    }

    @Test func anArrayOutsideMemoryKillsTheReceiver() throws {
        for address in [1 << 20, (1 << 20) - 1, (1 << 20) - UInt64(LguestDMA.byteCount) + 1, .max] as [UInt64] {
            let pair = try Pair()
            #expect(pair.receiver.bind(At.receiverKey, address) == .done(1))
            #expect(try pair.send([1]) == .done(0))
            let reason = "bad address in registered DMA struct 0x" + String(address, radix: 16)
            #expect(pair.receiver.guest.death == .killed(reason: reason))
            #expect(try pair.sentLength() == 77)
        }
    }

    /// One that is only partly outside is bad when its turn comes.
    @Test func anArrayThatEndsOutsideMemoryServesUntilThen() throws {
        let start = (1 << 20) - UInt64(LguestDMA.byteCount)
        try pair.receiver.memory.putList([(At.data, 10)], at: start)
        #expect(pair.receiver.bind(At.receiverKey, start, count: 2) == .done(1))
        try pair.send([1])
        #expect(try pair.receiver.memory.usedLength(start) == 1)
        try pair.send([1])
        #expect(pair.receiver.guest.death != nil)
        #expect(pair.sender.guest.death == nil)
    }

    @Test func theFirstAndTheLastByteOfMemoryMayBeSent() throws {
        try pair.bind()
        let last = (1 << 20) - 1 as UInt64
        try pair.sender.memory.put([5], last)
        try pair.sender.memory.put([6], 0)
        try pair.sender.memory.putList([(last, 1), (0, 1)], at: At.list)
        pair.sender.send(At.senderKey, At.list)
        #expect(try pair.received(2) == [5, 6])
    }

    // MARK: At the same time

    /// Who sees `used_len` sees the data.
    @Test func usedLengthComesAfterTheData() throws {
        final class Found: Sendable { let mistakes = Atomic(0), isOver = Atomic(false) }
        let found = Found()
        let rounds = 5_000 as UInt64
        try pair.bind(byteCount: 1024)
        let (memory, list) = (pair.receiver.memory, pair.buffer(0))
        let reader = try HostThread(name: "receiver") {
            guard let word = unsafe memory.hostPointer(GuestPhysicalAddress(list), 4) else { return }
            let used = unsafe word.assumingMemoryBound(to: Atomic<UInt32>.self)
            for round in 1...rounds {
                while unsafe used.pointee.load(ordering: .acquiring) == 0 {
                    if found.isOver.load(ordering: .acquiring) { return }
                }
                let bytes = (try? memory.bytes(At.data, 1024)) ?? []
                if bytes != [UInt8](repeating: UInt8(truncatingIfNeeded: round), count: 1024) {
                    found.mistakes.wrappingAdd(1, ordering: .relaxed)
                }
                unsafe used.pointee.store(0, ordering: .releasing)
            }
        }
        for round in 1...rounds {
            repeat {
                try pair.send([UInt8](repeating: UInt8(truncatingIfNeeded: round), count: 1024))
            } while try pair.sentLength() != 1024
        }
        found.isOver.store(true, ordering: .releasing)
        reader.join()
        #expect(found.mistakes.load(ordering: .relaxed) == 0)
    }

    /// The copies of the lists are checked, and the copies used: a Guest that
    /// rewrites them meanwhile gains nothing, and the bytes beyond what its own memory holds are nobody's.
    @Test func rewritingAListGainsNothing() throws {
        final class Over: Sendable { let value = Atomic(false) }
        let over = Over()
        let secret = try ScriptedGuest(in: pair.host)
        try pair.bind(byteCount: 64)
        let memory = pair.receiver.memory
        let end = memory.highEnd
        let vandal = try HostThread(name: "vandal") {
            var number: UInt64 = 0
            while !over.value.load(ordering: .acquiring) {
                number &+= 1
                try? memory.store(UInt32(0), at: GuestPhysicalAddress(At.list))
                let address = number % 3 == 0 ? end - number % 128 : At.data + number % 4096
                try? memory.store(address, at: GuestPhysicalAddress(At.list + LguestDMA.addresses))
                try? memory.store(
                    UInt16(truncatingIfNeeded: number % 99), at: GuestPhysicalAddress(At.list + LguestDMA.lengths))
            }
        }
        for _ in 0..<5_000 {
            try pair.send([UInt8](repeating: 0xee, count: 64))
            if pair.receiver.guest.death != nil { break }
        }
        over.value.store(true, ordering: .releasing)
        vandal.join()
        if case .killed(let reason) = pair.receiver.guest.death { #expect(reason.hasPrefix("bad DMA entry: ")) }
        #expect(pair.sender.guest.death == nil)
        #expect(try secret.memory.bytes(At.data, 4096).allSatisfy { $0 == 0 })
    }
}
