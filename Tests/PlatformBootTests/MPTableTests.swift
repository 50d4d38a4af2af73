import GuestMemory
import Platform
import Testing

/// The table as a kernel finds it: by its magic, on every sixteenth byte of the BIOS.
@Suite struct MPTableTests {
    struct Walk {
        let bench: Bench
        let address: UInt64
        let header: [UInt8]
        var entries: [[UInt8]] = []

        init(_ machine: ACPIMachine) throws {
            bench = try Bench(mebibytes: 2)
            try ACPITables(machine).write(to: bench.memory)
            try MPTable(machine).write(to: bench.memory)
            let bios = try bench.bytes(0xf_0000, 0x1_0000)
            let found = stride(from: 0, to: bios.count, by: 16).filter { bios[$0..<$0 + 4].elementsEqual("_MP_".utf8) }
            try #require(found.count == 1)
            let pointer = Array(bios[found[0]..<found[0] + 16])
            #expect(pointer.reduce(0, &+) == 0, "checksum")
            #expect(pointer[8...].elementsEqual([1, 4, pointer[10], 0, 0, 0, 0, 0]))
            address = UInt64(ACPITests.Walk.load(pointer, 4, as: UInt32.self))
            try #require(address >= 0xf_0000 && address < 0xf_ffd4 && address != 0xf_0000 + UInt64(found[0]))

            let count = Int(try bench.read(address + 4, as: UInt16.self))
            try #require(count >= 44 && address + UInt64(count) <= 0x10_0000)
            let bytes = try bench.bytes(address, count)
            #expect(bytes.reduce(0, &+) == 0, "checksum")
            header = Array(bytes[..<44])
            var offset = 44
            while offset < count {
                let length = bytes[offset] == 0 ? 20 : 8
                try #require(offset + length <= count)
                entries.append(Array(bytes[offset..<offset + length]))
                offset += length
            }
            #expect(entries.count == Int(ACPITests.Walk.load(header, 34, as: UInt16.self)))
            #expect(zip(entries, entries.dropFirst()).allSatisfy { $0[0] <= $1[0] }, "in the order of their kinds")
            // Beside it, what was there before.
            #expect(try bench.bytes(ACPITables.rsdp.rawValue, 36).reduce(0, &+) == 0)
        }

        func entries(_ kind: UInt8) -> [[UInt8]] { entries.filter { $0[0] == kind } }
    }

    @Test func describesTheMachine() throws {
        let walk = try Walk(ACPIMachine(apicIDs: [0], virtioSlots: [0, 31]))
        #expect(walk.header[..<4].elementsEqual("PCMP".utf8) && walk.header[6] == 4)
        #expect(walk.header[8..<28].elementsEqual("ROOST   ROOSTVM     ".utf8))
        #expect(walk.header[28..<34].allSatisfy { $0 == 0 }, "no OEM table")
        #expect(walk.header[36..<40].elementsEqual([0, 0, 0xe0, 0xfe]))
        #expect(walk.header[40...].allSatisfy { $0 == 0 }, "no extended table")
        #expect(
            walk.entries == [
                [0, 0, 0x14, 3, 0, 6, 0, 0, 0x81, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                [1, 0, 0x49, 0x53, 0x41, 0x20, 0x20, 0x20],
                [2, 0, 0x20, 1, 0, 0, 0xc0, 0xfe],
                [3, 0, 0, 0, 0, 0, 0, 2],
                [3, 0, 0, 0, 0, 1, 0, 1],
                [3, 0, 0, 0, 0, 3, 0, 3], [3, 0, 0, 0, 0, 4, 0, 4], [3, 0, 0, 0, 0, 5, 0, 5], [3, 0, 0, 0, 0, 6, 0, 6],
                [3, 0, 0, 0, 0, 7, 0, 7], [3, 0, 0, 0, 0, 8, 0, 8],
                [3, 0, 13, 0, 0, 9, 0, 9],
                [3, 0, 0, 0, 0, 10, 0, 10], [3, 0, 0, 0, 0, 11, 0, 11], [3, 0, 0, 0, 0, 12, 0, 12],
                [3, 0, 0, 0, 0, 13, 0, 13], [3, 0, 0, 0, 0, 14, 0, 14], [3, 0, 0, 0, 0, 15, 0, 15],
                [3, 0, 13, 0, 0, 16, 0, 16], [3, 0, 13, 0, 0, 47, 0, 47],
                [4, 3, 0, 0, 0, 0, 0, 0],
                [4, 1, 0, 0, 0, 0, 0xff, 1],
            ])
    }

    @Test func namesTheCPUsThatAByteCanName() throws {
        let walk = try Walk(ACPIMachine(apicIDs: (0..<300).map { UInt32($0) }, virtioSlots: Array(0..<32)))
        let processors = walk.entries(0)
        #expect(processors.map { $0[1] } == Array(0...254))
        #expect(processors.map { $0[3] } == [3] + [UInt8](repeating: 1, count: 254), "one of them boots")
        #expect(walk.entries(3).count == 15 + 32)
    }
}
