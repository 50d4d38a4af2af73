import CPUOracle
import GuestMemory
import HostInterface
import Lguest
import LguestTesting
import Testing

/// What any number of Guests bind, send and put back, against `DMAModel`.
/// `ROOST_SEED` chooses the sequence.
@Suite struct DMAModelTests {
    private static let steps = 100_000

    @Test func theHostDoesWhatTheModelDoes() throws {
        let seed = environmentVariable("ROOST_SEED").flatMap { UInt64($0) } ?? .random(in: 0 ... .max)
        print("DMAModelTests: ROOST_SEED=\(seed)")
        var play = try DMAPlay(seed: seed)
        for step in 0..<Self.steps {
            let action = try play.step()
            if let difference = try play.difference() {
                Issue.record("seed \(seed), step \(step), \(action): \(difference)")
                return
            }
        }
        print("DMAModelTests: \(play.counts.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" })")
        for outcome in ["sent", "nobody", "full", "sender dies", "receiver dies", "refused"] {
            #expect(play.counts[outcome, default: 0] > 0, "the sequence never came to: \(outcome)")
        }
    }
}

/// One sequence, played to the Host and to the model.
private struct DMAPlay {
    private static let slots = 8, keys = 6, arrays = 3, buffers = 4
    private static let array: UInt64 = 0xa0000, data: UInt64 = 0xb0000
    private static let source: UInt64 = 0x60000, sourceData: UInt64 = 0x70000

    private var random: SeededGenerator
    private let host = ScriptedHost()
    private let regions: [SharedRegion]
    private var model = DMAModel()
    private var guests: [Int: ScriptedGuest] = [:]
    /// Of the receivers' buffers, where their bytes are.
    private var sections: [Int: [[[(address: UInt64, byteCount: Int)]]]] = [:]
    private var problem: String?
    private(set) var counts: [String: Int] = [:]

    init(seed: UInt64) throws {
        random = SeededGenerator(seed: seed)
        regions = try (0..<2).map { try SharedRegion(name: "region \($0)", byteCount: 4096) }
    }

    /// Each Guest has the regions somewhere else.
    private func page(_ slot: Int, _ region: Int) -> UInt64 { 0x40000 + UInt64(slot * 2 + region) * 4096 }
    private func address(_ slot: Int, key: Int) -> UInt64 { page(slot, key % 2) + UInt64(key) * 4 }
    private func list(_ array: Int, _ index: Int) -> UInt64 {
        Self.array + UInt64(array) * 4096 + UInt64(index * LguestDMA.byteCount)
    }

    /// One or a few sections inside a page; now and then one that nobody may have, as the last.
    private mutating func cut(_ page: UInt64) -> (sections: [(address: UInt64, byteCount: Int)], isGood: Bool) {
        var sections: [(address: UInt64, byteCount: Int)] = []
        var place = page
        for _ in 0..<random.below(6) {
            place += UInt64(random.below(40))
            let count = 1 + random.below(60)
            sections.append((place, count))
            place += UInt64(count)
        }
        guard random.below(150) == 0 else { return (sections, true) }
        sections.append(random.pick([(page + 4090, 7), (page, 4097), (.max - 3, 4), (1 << 20, 1)]))
        return (sections, false)
    }

    private mutating func count(_ outcome: String) { counts[outcome, default: 0] += 1 }

    // MARK: Steps

    /// - Returns: what it was.
    mutating func step() throws -> String {
        let slot = random.below(Self.slots)
        guard let guest = guests[slot] else {
            // Two at least, and eight now and then.
            if guests.count < 2 || random.chance(10) { try open(slot) }
            return "open \(slot)"
        }
        guard model.guests[slot]?.isAlive == true, !random.chance(1) else {
            close(slot)
            return "close \(slot)"
        }
        switch random.below(20) {
        case 0..<2: return bind(slot, guest)
        case 2: return bind(slot, guest, isUndone: true)
        case 3..<10:
            let (array, index) = (random.below(Self.arrays), random.below(Self.buffers))
            try restock(slot, guest, array, index)
            return "restock \(slot), \(array), \(index)"
        default: return try send(slot, guest)
        }
    }

    private mutating func open(_ slot: Int) throws {
        let guest = try ScriptedGuest(
            in: host, regions: regions.indices.map { (regions[$0], at: page(slot, $0)) })
        guests[slot] = guest
        let none = [[DMAModel.Buffer]](
            repeating: [DMAModel.Buffer](repeating: DMAModel.Buffer(), count: Self.buffers), count: Self.arrays)
        model.open(slot, none)
        sections[slot] = none.map { $0.map { _ in [] } }
        for array in 0..<Self.arrays {
            for index in 0..<Self.buffers { try restock(slot, guest, array, index) }
        }
        count("open")
    }

    private mutating func close(_ slot: Int) {
        guests.removeValue(forKey: slot)?.guest.close()
        model.close(slot)
        count("close")
    }

    private mutating func restock(_ slot: Int, _ guest: ScriptedGuest, _ array: Int, _ index: Int) throws {
        let page = Self.data + UInt64(array * Self.buffers + index) * 4096
        let (sections, isGood) = cut(page)
        try guest.memory.put([UInt8](repeating: 0, count: 4096), page)
        try guest.memory.putList(sections, at: list(array, index))
        self.sections[slot]?[array][index] = isGood ? sections : []
        model.restock(slot, array, index, room: isGood ? sections.reduce(0) { $0 + $1.byteCount } : nil)
        count("restock")
    }

    private mutating func bind(_ slot: Int, _ guest: ScriptedGuest, isUndone: Bool = false) -> String {
        let (key, array) = (random.below(Self.keys), random.below(Self.arrays))
        let size = 1 + random.below(Self.buffers)
        let irq = isUndone ? 0 : 1 + random.below(32)
        let expected = model.bind(slot, key: key, array: array, count: size, irq: irq)
        let found = guest.bind(address(slot, key: key), list(array, 0), count: size, irq: irq)
        if found != .done(expected ? 1 : 0) { problem = "\(found) instead of \(expected)" }
        count(expected ? isUndone ? "unbind" : "bind" : "refused")
        return "bind \(slot), key \(key), array \(array) of \(size), irq \(irq)"
    }

    private mutating func send(_ slot: Int, _ guest: ScriptedGuest) throws -> String {
        let key = random.below(Self.keys)
        let (sections, isGood) = cut(Self.sourceData)
        var bytes: [UInt8] = []
        for section in sections where isGood {
            let piece = (0..<section.byteCount).map { _ in UInt8(truncatingIfNeeded: random.next()) }
            try guest.memory.put(piece, section.address)
            bytes += piece
        }
        try guest.memory.putList(sections, at: Self.source, usedLength: 0xffff_fff0)
        let living = model.guests.count { $0.value.isAlive }
        let expected = model.send(slot, key: key, isGood ? bytes : nil)
        let found = guest.send(address(slot, key: key), Self.source)
        let isAlive = model.guests[slot]?.isAlive == true
        if (found == .done(0)) != isAlive { problem = "\(found)" }
        let used = try guest.memory.usedLength(Self.source)
        if used != expected.map({ UInt32($0) }) ?? 0xffff_fff0 {
            problem = "used_len \(used) instead of \(expected ?? -1)"
        }
        if model.guests.count(where: { $0.value.isAlive }) < living {
            count(isAlive ? "receiver dies" : "sender dies")
        } else if expected == nil {
            count(model.guests.values.allSatisfy { $0.interrupts.isEmpty } ? "nobody" : "full")
        } else {
            count("sent")
        }
        return "send \(slot), key \(key), \(sections)"
    }

    // MARK: Comparing

    /// What the Host has that the model has not.
    mutating func difference() throws -> String? {
        if let problem { return problem }
        for (slot, guest) in guests {
            guard let expected = model.guests[slot] else { return "guest \(slot)" }
            if (guest.guest.death == nil) != expected.isAlive {
                return "guest \(slot): \(String(describing: guest.guest.death))"
            }
            let interrupts = expected.isAlive ? Set(guest.takeInterrupts()) : []
            let expectedInterrupts = model.takeInterrupts(slot)
            if expected.isAlive, interrupts != expectedInterrupts { return "guest \(slot): interrupts \(interrupts)" }
            for array in 0..<Self.arrays {
                for index in 0..<Self.buffers {
                    let buffer = expected.arrays[array][index]
                    let used = try guest.memory.usedLength(list(array, index))
                    if used != UInt32(buffer.usedLength) {
                        return "guest \(slot), \(array), \(index): used_len \(used)"
                    }
                    guard let sections = sections[slot]?[array][index] else { continue }
                    let content = try sections.flatMap { try guest.memory.bytes($0.address, $0.byteCount) }
                    if content != buffer.content { return "guest \(slot), \(array), \(index): \(content)" }
                }
            }
        }
        return nil
    }
}
