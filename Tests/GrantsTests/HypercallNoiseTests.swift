import CPUOracle
import Grants
import GuestMemory
import HostInterface
import Testing

/// Hypercalls of any numbers, by a Guest that knows what structs look like. `ROOST_SEED` chooses them.
@Suite struct HypercallNoiseTests {
    private static let calls = 200_000

    /// Numbers that are right somewhere, or nearly.
    private static let values: [UInt64] = [
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 16, 20, 21, 24, 31, 32, 63, 64, 255, 256, 511, 512, 0x200, 0x201, 0x217,
        0x218, 0x7ff0, 0x7ff1, 0xffff, 4095, 4096, 0x8000, 0x1000_0000, 0x20_0000, 0x20_1000, 0x21_7000, 0x21_8000,
        1 << 31, 1 << 32, 1 << 40, 1 << 52, 1 << 52 | 20, 1 << 52 | 0x200, 1 << 63, .max, .max >> 12, .max - 7,
        2 << 56 | 0xf3,
    ]
    private static let numbers: [UInt64] = [12, 17, 20, 20, 20, 24, 29, 32, 32, 34]

    @Test func whateverAGuestAsksItsNeighbourIsSafe() throws {
        let seed = environmentVariable("ROOST_SEED").flatMap { UInt64($0) } ?? .random(in: 0 ... .max)
        print("HypercallNoiseTests: ROOST_SEED=\(seed)")
        var random = SeededGenerator(seed: seed)
        let house = DomainHouse()
        let anna = try XenGuest(in: house, name: "anna"), bert = try XenGuest(in: house, name: "bert")
        // All that bert may have: one page to read, and one to write to.
        for page in XenGuest.Place.data..<XenGuest.Place.dataEnd { try anna.setWord(ofPage: page, 0xa << 32 | page) }
        try anna.grant(8, page: 20, to: bert.id, readOnly: true)
        try anna.grant(9, page: 21, to: bert.id)
        let port = anna.allocUnbound(for: bert.id)
        let before = try anna.memory.read(GuestPhysicalAddress(0), count: Int(anna.memory.byteCount))
        var results: [Int64: Int] = [:]
        for call in 0..<Self.calls {
            if call % 400 == 0 {
                // It may have put anything over its own tables.
                bert.reset()
                try bert.layTables()
                bert.place()
            }
            for offset in stride(from: UInt64(0), to: 128, by: 2) where random.chance(60) {
                let value = random.pick(Self.values)
                let place = XenGuest.Place.arguments + offset
                switch random.below(3) {
                case 0: try? bert.store(UInt16(truncatingIfNeeded: value), at: place)
                case 1: try? bert.store(UInt32(truncatingIfNeeded: value), at: place & ~3)
                default: try? bert.store(value, at: place & ~7)
                }
            }
            let address = random.chance(90) ? XenGuest.Place.arguments : random.pick(Self.values)
            let isRare = random.below(2000) == 0
            let count = isRare ? random.pick(Self.values) : UInt64(random.below(4))
            let number = random.chance(95) ? random.pick(Self.numbers) : random.pick(Self.values)
            let operation = random.chance(95) ? UInt64(random.below(14)) : random.pick(Self.values)
            // Of VCPUOP_*, the address is the third.
            let isVCPU = number == 24
            let result = bert.interface.call(
                number, operation, isVCPU ? count : address, isVCPU ? address : count,
                cr3: random.below(500) == 0 ? random.pick(Self.values) : XenGuest.Place.tables)
            results[result > 0 ? 1 : result, default: 0] += 1
        }
        bert.reset()
        var after = try anna.memory.read(GuestPhysicalAddress(0), count: Int(anna.memory.byteCount))
        // What bert may change: that page, and by events the port's bits.
        let free = [21 << 12..<22 << 12, 10 << 12..<11 << 12] as [Range<Int>]
        for range in free { after.replaceSubrange(range, with: before[range]) }
        #expect(before == after)
        #expect([8, 9].map { anna.entry($0).flags } == [5, 1])
        #expect(anna.status(port) == (0, XenGuest.Status(kind: 1, domid: bert.id)))
        print("HypercallNoiseTests: \(results.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" })")
        for result: Int64 in [0, 1, -1, -2, -3, -14, -22, -38] {
            #expect(results[result, default: 0] > 0, "there was never a \(result)")
        }
        anna.close()
        bert.close()
    }
}
