import Glibc
import Grants
import GuestMemory
import HostInterface
import Testing

/// What the host's kernel knows of this process's memory. Other tests run beside, so files are known by their
/// inodes and mappings by these.
@Suite struct HouseMemoryTests {
    /// Inodes of the memory files that are mapped, and how often.
    private func mapped() throws -> [UInt64: Int] {
        var counts: [UInt64: Int] = [:]
        for line in String(decoding: try readProcFile("/proc/self/maps"), as: UTF8.self).split(separator: "\n")
        where line.contains("/memfd:guest-memory") || line.contains("/memfd:roost-domain") {
            let words = line.split(separator: " ", maxSplits: 5, omittingEmptySubsequences: true)
            if words.count == 6, let inode = UInt64(words[4]) { counts[inode, default: 0] += 1 }
        }
        return counts
    }

    /// Inodes behind the descriptors of this process that are open.
    private func open(_ inodes: Set<UInt64>) -> Set<UInt64> {
        var found: Set<UInt64> = []
        for number in Int32(0)..<4096 {
            var status = stat()
            if unsafe fstat(number, &status) == 0, inodes.contains(UInt64(status.st_ino)) {
                found.insert(UInt64(status.st_ino))
            }
        }
        return found
    }

    /// Inodes of the files that are mapped in this range.
    private func inodes(of guest: XenGuest) throws -> Set<UInt64> {
        let start = unsafe UInt(bitPattern: guest.pointer(0))
        let end = start + UInt(guest.memory.addressEnd)
        return Set(try MemoryMapping.inside(start..<end).compactMap { $0.place?.inode }.filter { $0 != 0 })
    }

    @Test func nothingIsLeftOfAHouse() throws {
        var files: Set<UInt64> = []
        var ranges: [Range<UInt>] = []
        do {
            let house = DomainHouse()
            let guests = try (0..<4).map { try XenGuest(in: house, name: "guest \($0)", windowPages: 40) }
            for guest in guests {
                guest.listen()
                for other in guests where other !== guest {
                    try guest.grant(UInt32(8 + other.id), page: 20 + UInt64(other.id), to: other.id)
                    let port = guest.allocUnbound(for: other.id)
                    #expect(other.bindInterdomain(guest.id, UInt32(port)) > 0)
                }
                #expect(guest.addToPhysmap(1, 3, at: 0x220) == 0)
            }
            for guest in guests {
                for other in guests where other !== guest {
                    let reference = UInt32(8 + guest.id)
                    #expect(guest.map(reference, of: other.id, atPage: 0x200 + UInt64(other.id)).status == 0)
                    #expect(
                        guest.map(reference, of: other.id, atPage: 0x210 + UInt64(other.id), readOnly: true).status == 0
                    )
                    // A copy of the page, which is this mapper's own.
                    try guest.setWord(ofPage: 0x210 + UInt64(other.id), 5)
                }
            }
            for guest in guests {
                let start = unsafe UInt(bitPattern: guest.pointer(0))
                ranges.append(start..<start + UInt(guest.memory.addressEnd))
                files.formUnion(try inodes(of: guest))
            }
            // Each one's RAM, and each one's special pages.
            #expect(files.count == 8)
            #expect(open(files) == files)
            // One is gone while the others have its pages: of its RAM nothing is mapped but by itself.
            guests[0].close()
            let ram = try inodes(of: guests[0])
            #expect(ram.count == 1)
            for guest in guests.dropFirst() { #expect(try inodes(of: guest).isDisjoint(with: ram)) }
            guests[1].reset()
            for guest in guests.dropFirst() { guest.close() }
            for guest in guests { #expect(try inodes(of: guest).count == 1) }
        }
        let left = try mapped().filter { files.contains($0.key) }
        #expect(left == [:])
        #expect(open(files) == [])
        for range in ranges {
            // Another test may have memory there by now, but none of these files.
            #expect(try MemoryMapping.inside(range).allSatisfy { !files.contains($0.place?.inode ?? 0) })
        }
    }

    @Test func mappingAndUnmappingLeavesAsMuchAsThereWas() throws {
        let house = DomainHouse()
        let anna = try XenGuest(in: house), bert = try XenGuest(in: house, windowPages: 64)
        defer {
            anna.close()
            bert.close()
        }
        for number in UInt32(0)..<64 {
            try anna.grant(8 + number, page: 20 + UInt64(number), to: bert.id, readOnly: number % 2 == 0)
        }
        func count() throws -> Int {
            let start = unsafe UInt(bitPattern: bert.pointer(0))
            return try MemoryMapping.inside(start..<start + UInt(bert.memory.addressEnd)).count
        }
        let before = try count()
        for _ in 0..<20 {
            for number in UInt32(0)..<64 {
                let (status, _) = bert.map(
                    8 + number, of: anna.id, atPage: 0x200 + UInt64(number), readOnly: number % 2 == 0)
                try #require(status == 0)
            }
            for handle in UInt32(0)..<64 {
                // Handles come back in the order in which they went.
                let page = (UInt64(0x200)..<0x240).first { bert.unmap(handle, atPage: $0) == 0 }
                try #require(page != nil)
            }
            // Zeros beside zeros are one mapping.
            #expect(try count() <= before + 1)
        }
    }

    @Test func aRebootLeavesAsMuchAsThereWas() throws {
        let house = DomainHouse()
        let anna = try XenGuest(in: house), bert = try XenGuest(in: house)
        defer {
            anna.close()
            bert.close()
        }
        func count(_ guest: XenGuest) throws -> Int {
            let start = unsafe UInt(bitPattern: guest.pointer(0))
            return try MemoryMapping.inside(start..<start + UInt(guest.memory.addressEnd)).count
        }
        var counts: [[Int]] = []
        for _ in 0..<20 {
            try anna.grant(8, page: 20, to: bert.id)
            for page in UInt64(0x200)..<0x208 {
                #expect(bert.map(8, of: anna.id, atPage: page, readOnly: page % 2 == 0).status == 0)
            }
            #expect(bert.addToPhysmap(1, 1, at: 0x210) == 0)
            bert.reset()
            bert.place()
            anna.reset()
            anna.place()
            counts.append([try count(anna), try count(bert)])
        }
        #expect(Set(counts).count == 1, "\(counts)")
    }
}
