import GuestMemory
import HostInterface
import Platform
import Testing

/// The tables as a kernel finds them: by walking from the RSDP.
@Suite struct ACPITests {
    struct Walk {
        let bench: Bench
        var tables: [String: [UInt8]] = [:]

        init(_ machine: ACPIMachine) throws {
            bench = try Bench(mebibytes: 2)
            try ACPITables(machine).write(to: bench.memory)
            let pointer = try bench.bytes(ACPITables.rsdp.rawValue, 36)
            #expect(pointer.prefix(8).elementsEqual("RSD PTR ".utf8) && pointer[15] == 2)
            #expect(pointer.prefix(20).reduce(0, &+) == 0 && pointer.reduce(0, &+) == 0)
            let xsdt = try table(try bench.read(ACPITables.rsdp.rawValue + 24))
            for offset in stride(from: 36, to: xsdt.count, by: 8) {
                _ = try table(Self.load(xsdt, offset))
            }
            let fadt = try #require(tables["FACP"])
            _ = try table(Self.load(fadt, 140))
        }

        static func load<T: FixedWidthInteger>(_ bytes: [UInt8], _ offset: Int, as type: T.Type = T.self) -> T {
            (0..<MemoryLayout<T>.size).reduce(0) { $0 | T(truncatingIfNeeded: bytes[offset + $1]) << (8 * $1) }
        }

        @discardableResult mutating func table(_ address: UInt64) throws -> [UInt8] {
            let bytes = try bench.bytes(address, Int(try bench.read(address + 4, as: UInt32.self)))
            #expect(bytes.reduce(0, &+) == 0, "checksum")
            #expect(address >= 0xe_0000 && address + UInt64(bytes.count) <= 0xf_0000)
            tables[String(decoding: bytes[..<4], as: UTF8.self)] = bytes
            return bytes
        }
    }

    @Test func describesTheFixedHardware() throws {
        let walk = try Walk(ACPIMachine())
        let fadt = try #require(walk.tables["FACP"])
        #expect(fadt.count == 276 && fadt[8] == 6 && fadt[131] == 5)
        #expect(Walk.load(fadt, 46) == UInt16(9))
        #expect(Walk.load(fadt, 48) == UInt32(0), "no SMI_CMD: always in ACPI mode")
        #expect(Walk.load(fadt, 56) == UInt32(0x600) && fadt[88] == 4)
        #expect(Walk.load(fadt, 64) == UInt32(0x604) && fadt[89] == 2)
        #expect(Walk.load(fadt, 76) == UInt32(0x608) && fadt[91] == 4)
        #expect(Walk.load(fadt, 109) == UInt16(0b101), "no 8042, no VGA")
        #expect(fadt[116..<128].elementsEqual([1, 8, 0, 1, 0xf9, 0x0c, 0, 0, 0, 0, 0, 0]) && fadt[128] == 6)
        for (wide, narrow) in [(148, 56), (172, 64), (208, 76), (140, 40)] {
            let field: UInt64 = Walk.load(fadt, narrow == 40 ? wide : wide + 4)
            #expect(field == UInt64(Walk.load(fadt, narrow, as: UInt32.self)), "both forms agree at \(narrow)")
        }
        let facs = UInt64(Walk.load(fadt, 36, as: UInt32.self))
        #expect(facs % 64 == 0 && Walk.load(fadt, 132) == UInt64(0))
        #expect(try walk.bench.bytes(facs, 4).elementsEqual("FACS".utf8))
    }

    @Test func listsProcessorsAndInterrupts() throws {
        let walk = try Walk(ACPIMachine(apicIDs: [0, 1, 300]))
        let madt = try #require(walk.tables["APIC"])
        #expect(Walk.load(madt, 36) == UInt32(0xfee0_0000))
        var entries: [[UInt8]] = []
        var offset = 44
        while offset < madt.count {
            entries.append(Array(madt[offset..<offset + Int(madt[offset + 1])]))
            offset += Int(madt[offset + 1])
        }
        #expect(offset == madt.count)
        #expect(
            entries == [
                [0, 8, 0, 0, 1, 0, 0, 0], [0, 8, 1, 1, 1, 0, 0, 0],
                [9, 16, 0, 0, 0x2c, 1, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0],
                [1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0],
                [2, 10, 0, 0, 2, 0, 0, 0, 0, 0], [2, 10, 0, 9, 9, 0, 0, 0, 13, 0],
                [4, 6, 0xff, 0, 0, 1], [10, 12, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0],
            ])
    }

    /// The same devices, written in ASL and compiled by iasl, give the same
    /// bytes: see Tests/Golden/dsdt.asl.
    @Test func speaksAML() throws {
        let walk = try Walk(ACPIMachine(apicIDs: [0], virtioSlots: [0, 31]))
        let dsdt = try #require(walk.tables["DSDT"])
        #expect(dsdt.dropFirst(36).elementsEqual(Golden.dsdt), "\(dsdt.dropFirst(36).map { String($0, radix: 16) })")
    }

    @Test func takesManyProcessorsAndRefusesTooMany() throws {
        let walk = try Walk(ACPIMachine(apicIDs: (0..<512).map { UInt32($0) }, virtioSlots: Array(0..<32)))
        // A PkgLength of two bytes more: the scope ends with the table.
        let dsdt = try #require(walk.tables["DSDT"])
        let scope = try #require(dsdt.dropFirst(36).firstIndex(of: 0x10))
        #expect(dsdt[scope + 1] >> 6 == 2)
        let length = Int(dsdt[scope + 1] & 15) | Int(dsdt[scope + 2]) << 4 | Int(dsdt[scope + 3]) << 12
        #expect(scope + 1 + length == dsdt.count)
        for count in [4000, 5000] {
            #expect(throws: HostError.self) {
                try ACPITables(ACPIMachine(apicIDs: [UInt32](repeating: 0, count: count)))
            }
        }
    }

    @Test func needsItsMegabyte() throws {
        // The smallest memory there is has room for the tables.
        try ACPITables(ACPIMachine()).write(to: GuestMemory(byteCount: 1 << 20))
    }
}
