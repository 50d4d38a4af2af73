import Grants
import Synchronization

/// A grant table and its memory, and the hypervisor's access to it.
@safe final class TestTable: @unchecked Sendable {
    private var table: GrantTablePages
    private let frames: UnsafeMutableRawBufferPointer
    private let storage: UnsafeMutableRawBufferPointer
    private static let guardBytes = 64, guardByte: UInt8 = 0xa5

    init(frames count: Int) {
        let bytes = GrantTablePages.byteCount(frames: count)
        unsafe frames = .allocate(byteCount: count * 4096, alignment: 4096)
        unsafe frames.initializeMemory(as: UInt8.self, repeating: 0)
        unsafe storage = .allocate(byteCount: bytes + Self.guardBytes, alignment: 8)
        unsafe storage.initializeMemory(as: UInt8.self, repeating: Self.guardByte)
        table = unsafe GrantTablePages(frames: frames, storage: .init(rebasing: storage[..<bytes]))
    }

    deinit {
        unsafe frames.deallocate()
        unsafe storage.deallocate()
    }

    var keepsToItsMemory: Bool { unsafe storage.suffix(Self.guardBytes).allSatisfy { $0 == Self.guardByte } }

    /// The bytes of some entries.
    func bytes(_ entries: Range<Int>) -> [UInt8] {
        unsafe [UInt8](frames[entries.lowerBound * 8..<entries.upperBound * 8])
    }

    func fill(_ entries: Range<Int>, _ byte: UInt8) {
        for offset in entries.lowerBound * 8..<entries.upperBound * 8 { unsafe frames[offset] = byte }
    }

    // MARK: The owner, which is one thread at a time

    var entryCount: UInt32 { table.entryCount }
    var freeCount: UInt32 { table.freeCount }

    func grant(_ frame: UInt64, to domid: UInt16, readOnly: Bool) throws -> UInt32 {
        try table.grant(frame, to: domid, readOnly: readOnly)
    }

    func endGrant(_ reference: UInt32) -> Bool { table.endGrant(reference) }
    func isInUse(_ reference: UInt32) -> Bool { table.isInUse(reference) }

    // MARK: The hypervisor, on any

    /// Half an entry.
    func word(_ entry: Int, _ offset: Int) -> UInt32 {
        unsafe half(entry, offset).pointee.load(ordering: .acquiring)
    }

    func exchange(_ entry: Int, _ offset: Int, expected: UInt32, desired: UInt32) -> Bool {
        unsafe half(entry, offset).pointee.compareExchange(
            expected: expected, desired: desired, ordering: .acquiringAndReleasing
        ).exchanged
    }

    /// Bits of an entry's flags.
    func set(_ bits: UInt16, _ entry: UInt32) {
        _ = unsafe flags(entry).pointee.bitwiseOr(bits, ordering: .acquiringAndReleasing)
    }

    func clear(_ bits: UInt16, _ entry: UInt32) {
        _ = unsafe flags(entry).pointee.bitwiseAnd(~bits, ordering: .acquiringAndReleasing)
    }

    private func half(_ entry: Int, _ offset: Int) -> UnsafeMutablePointer<Atomic<UInt32>> {
        unsafe address(entry * 8 + offset).assumingMemoryBound(to: Atomic<UInt32>.self)
    }

    private func flags(_ entry: UInt32) -> UnsafeMutablePointer<Atomic<UInt16>> {
        unsafe address(Int(entry) * 8).assumingMemoryBound(to: Atomic<UInt16>.self)
    }

    private func address(_ offset: Int) -> UnsafeMutableRawPointer {
        guard let start = unsafe frames.baseAddress, unsafe offset + 4 <= frames.count else {
            preconditionFailure("no such entry")
        }
        return unsafe start + offset
    }
}
