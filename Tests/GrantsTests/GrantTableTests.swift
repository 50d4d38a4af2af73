import Grants
import HostInterface
import Synchronization
import Testing

/// The owner's side of a table, and the hypervisor's as D:420 has it.
@Suite struct GrantTableTests {
    @Test func theFirstEightArePromisedToOthers() throws {
        let table = TestTable(frames: 1)
        #expect(table.entryCount == 512 && table.freeCount == 504)
        table.fill(0..<8, 0x5a)
        var references: [UInt32] = []
        for number in 0..<504 { references.append(try table.grant(UInt64(number), to: 1, readOnly: false)) }
        #expect(references == Array(8..<512))
        #expect(throws: GrantError.noSpace) { try table.grant(1, to: 1, readOnly: false) }
        #expect(table.bytes(0..<8) == [UInt8](repeating: 0x5a, count: 64))
        #expect(table.endGrant(300))
        #expect(table.freeCount == 1)
        #expect(try table.grant(1, to: 1, readOnly: false) == 300)
        #expect(throws: GrantError.noSpace) { try table.grant(1, to: 1, readOnly: false) }
    }

    @Test(arguments: 1...3) func eachFrameHas512(frames: Int) throws {
        let table = TestTable(frames: frames)
        let capacity = 512 * UInt32(frames) - 8
        #expect(table.freeCount == capacity)
        var references: Set<UInt32> = []
        for _ in 0..<capacity { references.insert(try table.grant(0xffff_ffff, to: 0x7fef, readOnly: true)) }
        #expect(references == Set(8..<(8 + capacity)))
        #expect(throws: GrantError.noSpace) { try table.grant(1, to: 1, readOnly: false) }
        for reference in references { #expect(table.endGrant(reference)) }
        #expect(table.freeCount == capacity)
        #expect(table.keepsToItsMemory)
    }

    @Test(arguments: [(false, 0x01), (true, 0x05)] as [(Bool, UInt8)])
    func anEntryIsFlagsDomainAndFrame(readOnly: Bool, flags: UInt8) throws {
        let table = TestTable(frames: 1)
        let reference = try table.grant(0x89ab_cdef, to: 0x1234, readOnly: readOnly)
        #expect(table.bytes(8..<9) == [flags, 0, 0x34, 0x12, 0xef, 0xcd, 0xab, 0x89])
        #expect(table.endGrant(reference))
        #expect(table.bytes(8..<9).prefix(2) == [0, 0])
    }

    @Test func aFrameHas32Bits() throws {
        let table = TestTable(frames: 1)
        #expect(throws: GrantError.invalid) { try table.grant(1 << 32, to: 1, readOnly: false) }
        #expect(table.freeCount == 504)
        #expect(table.bytes(8..<512).allSatisfy { $0 == 0 })
    }

    /// What others read is no place for the list of free references.
    @Test func theFreeListIsPrivate() throws {
        let table = TestTable(frames: 1)
        #expect(table.bytes(0..<512).allSatisfy { $0 == 0 })
        for reference in 8..<16 as Range<UInt32> {
            #expect(try table.grant(1, to: 1, readOnly: false) == reference)
        }
        for reference in 8..<16 as Range<UInt32> { #expect(table.endGrant(reference)) }
        // Whatever the others make of it, the references are the same.
        table.fill(0..<512, 0xff)
        for reference in (8..<16 as Range<UInt32>).reversed() {
            #expect(try table.grant(1, to: 1, readOnly: false) == reference)
        }
    }

    @Test(arguments: [0x8, 0x18, 0x10] as [UInt16], [false, true])
    func whatIsInUseStaysAsItIs(bits: UInt16, readOnly: Bool) throws {
        let table = TestTable(frames: 1)
        let reference = try table.grant(5, to: 6, readOnly: readOnly)
        #expect(!table.isInUse(reference))
        table.set(bits, reference)
        let before = table.bytes(0..<512)
        #expect(table.isInUse(reference))
        #expect(!table.endGrant(reference))
        #expect(table.bytes(0..<512) == before)
        #expect(table.freeCount == 503)
        #expect(try table.grant(5, to: 6, readOnly: readOnly) != reference)
        table.clear(bits, reference)
        #expect(!table.isInUse(reference))
        #expect(table.endGrant(reference))
        #expect(table.bytes(Int(reference)..<Int(reference) + 1).prefix(2) == [0, 0])
    }

    /// Cache attributes are not the other side's doing.
    @Test func otherBitsAreNoUse() throws {
        let table = TestTable(frames: 1)
        let reference = try table.grant(5, to: 6, readOnly: false)
        table.set(0xe0, reference)
        #expect(!table.isInUse(reference))
        #expect(table.endGrant(reference))
    }

    @Test(arguments: [0, 7, 8, 511, 512, .max] as [UInt32]) func onlyAGrantCanEnd(reference: UInt32) async {
        await #expect(processExitsWith: .failure) { [reference] in
            _ = TestTable(frames: 1).endGrant(reference)
        }
    }

    /// An owner that grants and ends as fast as it can, and a mapper that does not wait to be told.
    @Test func aRacingMapperSeesAllOrNothing() throws {
        let table = TestTable(frames: 1)
        let race = Race(entry: 8)
        let mapper = try HostThread(name: "mapper") {
            while !race.isOver.load(ordering: .acquiring) { race.tryToMap(table) }
        }
        while race.refused.load(ordering: .relaxed) == 0 { HostThread.yield() }
        var (round, inUse) = (0, 0)
        // Many rounds, and more until both have met often enough.
        while round < 300_000
            || round < 30_000_000 && (inUse < 100 || race.mapped.load(ordering: .relaxed) < 1000)
        {
            round += 1
            let domid = UInt16(round % 0x7ff0)
            #expect(try table.grant(UInt64(Race.frame(of: domid)), to: domid, readOnly: round % 3 == 0) == 8)
            while !table.endGrant(8) {
                inUse += 1
                HostThread.yield()
            }
        }
        race.isOver.store(true, ordering: .releasing)
        mapper.join()
        print(
            "GrantTableTests: \(round) grants, \(inUse) times in use,",
            "mapped \(race.mapped.load(ordering: .relaxed)), lost \(race.lost.load(ordering: .relaxed))")
        #expect(race.torn.load(ordering: .relaxed) == 0)
        #expect(race.mapped.load(ordering: .relaxed) > 0, "the mapper never got in")
        #expect(inUse > 0, "the owner never had to wait")
        #expect(table.freeCount == 504)
    }
}

/// The hypervisor's part in a race, and what it has seen.
private final class Race: Sendable {
    let isOver = Atomic(false)
    /// Attempts that ended well, at a bad reference, and at an entry that changed meanwhile.
    let mapped = Atomic(0)
    let refused = Atomic(0)
    let lost = Atomic(0)
    /// What must not be: half an entry, or one that changes while it is mapped.
    let torn = Atomic(0)

    private let entry: Int

    init(entry: Int) { self.entry = entry }

    /// A grant's frame can be told from its domain.
    static func frame(of domid: UInt16) -> UInt32 { UInt32(domid) &* 0x9e37_79b1 | 1 }

    func tryToMap(_ table: TestTable) {
        let seen = table.word(entry, 0)
        let flags = UInt16(truncatingIfNeeded: seen)
        guard flags & GrantABI.GTF.typeMask == GrantABI.GTF.permitAccess else {
            refused.wrappingAdd(1, ordering: .relaxed)
            return
        }
        let isReadOnly = flags & GrantABI.GTF.readonly != 0
        let bits = GrantABI.GTF.reading | (isReadOnly ? 0 : GrantABI.GTF.writing)
        guard table.exchange(entry, 0, expected: seen, desired: seen | UInt32(bits)) else {
            lost.wrappingAdd(1, ordering: .relaxed)
            return
        }
        // Now it is ours, for as long as we like.
        let frame = Self.frame(of: UInt16(seen >> 16))
        for _ in 0..<20 where table.word(entry, 0) != seen | UInt32(bits) || table.word(entry, 4) != frame {
            torn.wrappingAdd(1, ordering: .relaxed)
        }
        table.clear(bits, UInt32(entry))
        mapped.wrappingAdd(1, ordering: .relaxed)
    }
}
