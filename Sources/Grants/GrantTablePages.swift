// Shared with the Guest.
internal import Synchronization

//D:420 Two pens and sixteen bits
//
// An entry's first 16 bits have two writers, and neither holds a lock. The
// hypervisor reads flags and domid as one word of 32 bits, makes up its mind,
// and puts its reading and writing bits in by a compare-and-swap of that word:
// it succeeds only if nothing has changed meanwhile. The owner has two things
// to get right.
//
// To grant is to write frame and domid first, and then the flags, in one store
// that releases. Before it the type is 0, and whoever looks finds a bad
// reference; after it, all of the entry. There is no between.
//
// To end a grant is to see that neither bit is set, and to write 0. In two
// steps that is a trap: between them the page may be mapped, and the 0 would
// wipe out the note that says so. The page would be free on our side and
// mapped on theirs, with whatever we put there next. So the 0 goes in by a
// compare-and-swap, too, of the 16 bits, and if somebody was there first, we
// look again. In use means hands off: not a bit is changed, and the caller comes
// back later.
//
// The list of free references is kept in memory of our own. The hypervisor
// would not mind a link in a free entry, but a table that others read is no
// place for what we rely upon.

/// The owner's side of a grant table of version 1: references, and the entries behind them.
///
/// Whoever shares one between threads holds a lock for each call; the hypervisor needs none.
@safe public struct GrantTablePages: ~Copyable {
    /// Entries, reserved ones included.
    public let entryCount: UInt32
    /// References that can be had.
    public private(set) var freeCount: UInt32

    private let table: UnsafeMutableRawPointer
    /// Of a free reference the next one, of others `taken`.
    private let links: GrantSlab<UInt32>
    private var firstFree = noElement

    private static let taken = noElement - 1

    /// The bytes that a table of so many frames needs for its list of free references.
    public static func byteCount(frames: Int) -> Int {
        frames * GrantABI.EntryV1.perFrame * MemoryLayout<UInt32>.stride
    }

    /// - Parameter frames: the table's, as the hypervisor hands them out: in a row, and from the
    ///   first entry on that is not reserved, all zeros.
    /// - Parameter storage: at least `byteCount` bytes at a multiple of 4, which are the table's for its life.
    public init(frames: UnsafeMutableRawBufferPointer, storage: UnsafeMutableRawBufferPointer) {
        let frameCount = frames.count / Int(GrantABI.pageBytes)
        guard frameCount > 0, let table = frames.baseAddress, let start = storage.baseAddress,
            storage.count >= Self.byteCount(frames: frameCount),
            UInt(bitPattern: table) % 8 == 0, UInt(bitPattern: start) % 4 == 0
        else { preconditionFailure("too little memory for a grant table") }
        unsafe self.table = table
        // SAFETY: the list takes `byteCount` bytes, and the caller has promised them.
        var next = unsafe start
        entryCount = UInt32(frameCount * GrantABI.EntryV1.perFrame)
        links = unsafe GrantSlab(at: &next, count: entryCount, Self.taken)
        freeCount = entryCount - GrantABI.reservedEntries
        for reference in (GrantABI.reservedEntries..<entryCount).reversed() {
            links[reference] = firstFree
            firstFree = reference
        }
    }

    /// Lets the domain map the frame.
    ///
    /// - Throws: `noSpace` without a free reference, `invalid` for a frame that 32 bits cannot name.
    public mutating func grant(_ frame: UInt64, to domid: UInt16, readOnly: Bool) throws(GrantError) -> UInt32 {
        guard let frame = UInt32(exactly: frame) else { throw .invalid }
        guard firstFree != noElement else { throw .noSpace }
        let reference = firstFree
        firstFree = links[reference]
        links[reference] = Self.taken
        freeCount -= 1
        unsafe word(reference, GrantABI.EntryV1.frame).pointee.store(frame, ordering: .relaxed)
        unsafe half(reference, GrantABI.EntryV1.domid).pointee.store(domid, ordering: .relaxed)
        // ORDERING: the hypervisor's compare-and-swap acquires it, then the frame and what is in the page.
        unsafe half(reference, GrantABI.EntryV1.flags).pointee.store(
            GrantABI.GTF.permitAccess | (readOnly ? GrantABI.GTF.readonly : 0), ordering: .releasing)
        return reference
    }

    /// Takes a grant back, and its reference.
    ///
    /// - Returns: false if the page is in use; then nothing has changed.
    public mutating func endGrant(_ reference: UInt32) -> Bool {
        precondition(isGranted(reference))
        let flags = unsafe half(reference, GrantABI.EntryV1.flags)
        var seen = unsafe flags.pointee.load(ordering: .relaxed)
        while true {
            guard !Self.isInUse(seen) else { return false }
            // ORDERING: the hypervisor releases its bits after the other side's last access,
            // and the page is somebody else's next.
            let (isEnded, found) = unsafe flags.pointee.compareExchange(
                expected: seen, desired: GrantABI.GTF.invalid, ordering: .acquiringAndReleasing)
            if isEnded { break }
            seen = found
        }
        links[reference] = firstFree
        firstFree = reference
        freeCount += 1
        return true
    }

    /// Whether somebody has the page mapped, or is copying from or to it.
    public func isInUse(_ reference: UInt32) -> Bool {
        precondition(isGranted(reference))
        // ORDERING: as in `endGrant`.
        return unsafe Self.isInUse(half(reference, GrantABI.EntryV1.flags).pointee.load(ordering: .acquiring))
    }

    private static func isInUse(_ flags: UInt16) -> Bool {
        flags & (GrantABI.GTF.reading | GrantABI.GTF.writing) != 0
    }

    private func isGranted(_ reference: UInt32) -> Bool {
        reference >= GrantABI.reservedEntries && reference < entryCount && links[reference] == Self.taken
    }

    // SAFETY: both are for references below entryCount, and whoever made the table answers for its frames.
    private func half(_ reference: UInt32, _ offset: Int) -> UnsafeMutablePointer<Atomic<UInt16>> {
        unsafe (table + Int(reference) * GrantABI.EntryV1.byteCount + offset).assumingMemoryBound(
            to: Atomic<UInt16>.self)
    }

    private func word(_ reference: UInt32, _ offset: Int) -> UnsafeMutablePointer<Atomic<UInt32>> {
        unsafe (table + Int(reference) * GrantABI.EntryV1.byteCount + offset).assumingMemoryBound(
            to: Atomic<UInt32>.self)
    }
}
//:
