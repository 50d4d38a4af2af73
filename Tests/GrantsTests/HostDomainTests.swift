import Grants
import Testing

/// Two programs of the Host's that share pages, as Guests would.
struct HostDomainTests {
    let house = DomainHouse()
    let anna, bert: HostDomain

    init() throws {
        anna = try HostDomain("anna", in: house)
        bert = try HostDomain("bert", in: house)
    }

    /// Pages of anna's for bert: their references, and the frame of the first.
    private func lend(
        _ count: UInt32, writable: Bool = true, in file: GrantFile
    ) throws -> (index: UInt64, references: [UInt32], frame: UInt64) {
        let bert = bert.id
        return try anna.withAllocator { allocator in
            let index = try allocator.allocate(count, for: bert, writable: writable, in: file)
            let references = try (0..<UInt64(count)).map { try allocator.reference(at: index + $0 * 4096, in: file) }
            return (index, references, try allocator.frame(at: index, in: file))
        }
    }

    private func write(_ text: String, _ bytes: UnsafeMutableRawBufferPointer, at offset: Int = 0) {
        for (index, byte) in text.utf8.enumerated() { unsafe bytes[offset + index] = byte }
    }

    private func text(_ bytes: UnsafeMutableRawBufferPointer, _ count: Int, at offset: Int = 0) -> String {
        unsafe String(decoding: bytes[offset..<offset + count], as: UTF8.self)
    }

    @Test func numbersBeginAtOne() { #expect([anna.id, bert.id] == [1, 2]) }

    @Test func eachSeesWhatTheOtherWrites() throws {
        let file = try anna.withAllocator { try $0.open() }
        let lent = try lend(3, in: file)
        #expect(lent.references == [8, 9, 10])
        let page = unsafe try #require(unsafe anna.page(lent.frame))
        let borrowed = try bert.map(lent.references, of: anna.id)
        unsafe write("from anna", page)
        unsafe borrowed.withBytes { bytes in
            #expect(bytes.count == 3 * 4096)
            #expect(unsafe text(bytes, 9) == "from anna")
            unsafe write("from bert", bytes, at: 100)
        }
        #expect(unsafe text(page, 9, at: 100) == "from bert")
    }

    @Test func aPageForReadingCannotBeWrittenThrough() throws {
        let file = try anna.withAllocator { try $0.open() }
        let lent = try lend(1, writable: false, in: file)
        let page = unsafe try #require(unsafe anna.page(lent.frame))
        unsafe write("anna's", page)
        #expect(throws: GrantStatus.generalError) { try bert.map(lent.references, of: anna.id) }
        let borrowed = try bert.map(lent.references, of: anna.id, isReadOnly: true)
        unsafe borrowed.withBytes { bytes in
            #expect(unsafe text(bytes, 6) == "anna's")
            unsafe write("forged", bytes)
        }
        #expect(unsafe text(page, 6) == "anna's")
    }

    @Test func ofManyAllOrNoneAreMapped() throws {
        let file = try anna.withAllocator { try $0.open() }
        let lent = try lend(2, in: file)
        #expect(throws: GrantStatus.generalError) { try bert.map(lent.references + [400], of: anna.id) }
        #expect(throws: GrantStatus.badDomain) { try bert.map(lent.references, of: 77) }
        #expect(house.report[0].grants.allSatisfy { $0.mappings == 0 })
        #expect(house.report[1].mappings.isEmpty)
    }

    /// Deferred while bert has it; then anna's again.
    @Test func whatIsLentComesBackLate() throws {
        let file = try anna.withAllocator { try $0.open() }
        let lent = try lend(1, in: file)
        var borrowed: BorrowedPages? = try bert.map(lent.references, of: anna.id)
        try anna.withAllocator { try $0.close(file) }
        #expect(anna.withAllocator { ($0.pageCount, $0.deferredCount) } == (1, 1))
        unsafe borrowed?.withBytes { unsafe write("still there", $0) }
        borrowed = nil
        anna.withAllocator { $0.reap() }
        #expect(anna.withAllocator { ($0.pageCount, $0.deferredCount) } == (0, 0))
    }

    @Test func aLastWillClearsTheByteAndThenRings() throws {
        let port = try anna.allocatePort(for: bert.id)
        let bell = try bert.bindPort(to: anna.id, port: port)
        #expect(bert.waitForBells(milliseconds: 0) == [bell])
        let file = try anna.withAllocator { try $0.open() }
        let lent = try lend(1, in: file)
        let borrowed = try bert.map(lent.references, of: anna.id)
        unsafe borrowed.withBytes { unsafe $0[5] = 1 }
        try anna.withAllocator { allocator in
            try allocator.setUnmapNotify(lent.index + 5, action: 3, port: port, in: file)
        }
        #expect(throws: (any Error).self, "the will needs it") { try anna.closePort(port) }
        #expect(bert.waitForBells(milliseconds: 0).isEmpty)
        try anna.withAllocator { try $0.close(file) }
        #expect(bert.waitForBells(milliseconds: 1000) == [bell])
        unsafe borrowed.withBytes { #expect(unsafe $0[5] == 0) }
        try anna.closePort(port)
    }

    @Test func bellsRingBothWays() throws {
        let port = try anna.allocatePort(for: bert.id)
        let bell = try bert.bindPort(to: anna.id, port: port)
        _ = bert.waitForBells(milliseconds: 0)
        for _ in 0..<3 { try anna.ring(port) }
        #expect(bert.waitForBells(milliseconds: 1000) == [bell])
        #expect(bert.waitForBells(milliseconds: 0).isEmpty)
        try bert.ring(bell)
        #expect(anna.waitForBells(milliseconds: 1000) == [port])
        #expect(throws: (any Error).self) { try anna.ring(4000) }
        #expect(throws: (any Error).self, "it is for bert") { try anna.bindPort(to: anna.id, port: port) }
    }

    @Test func meetInTheStore() {
        #expect(anna.publish("8 3", at: "data/meeting", for: bert.id))
        #expect(bert.read("/local/domain/1/data/meeting") == "8 3")
        #expect(bert.read("/local/domain/1/data/elsewhere") == nil)
        #expect(house.store.permissions("/local/domain/1/data/meeting") == ["n1", "r2"])
    }

    @Test func whoIsGoneLeavesZerosAndABell() throws {
        var caesar: HostDomain? = try HostDomain("caesar", in: house)
        let bert = bert.id
        let (reference, port) = try #require(
            try caesar.map { caesar in
                let reference = try caesar.withAllocator { allocator in
                    let file = try allocator.open()
                    let index = try allocator.allocate(1, for: bert, writable: true, in: file)
                    return try allocator.reference(at: index, in: file)
                }
                return (reference, try caesar.allocatePort(for: bert))
            })
        let borrowed = try self.bert.map([reference], of: 3)
        let bell = try self.bert.bindPort(to: 3, port: port)
        _ = self.bert.waitForBells(milliseconds: 0)
        unsafe borrowed.withBytes { unsafe write("here", $0) }
        caesar = nil
        #expect(self.bert.waitForBells(milliseconds: 1000) == [bell])
        unsafe borrowed.withBytes { bytes in #expect(unsafe bytes.allSatisfy { $0 == 0 }) }
        #expect(house.report.map(\.name) == ["anna", "bert"])
        #expect(house.report[1].mappings.map(\.isSevered) == [true])
    }
}
