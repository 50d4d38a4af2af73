internal import GuestMemory
internal import Synchronization

//D:270 A table that two write to
//
// A Guest grants a page by a line in a table of its own memory: which frame, to
// whom, and whether only for reading. No hypercall is made for that. Only when
// somebody comes to map it does the Host look, and puts down in the same line
// that the page is in use:
//
//     flags u16 | domid u16 | frame u32
//       1 permit_access   4 readonly        the Guest's
//       8 reading        16 writing         the Host's, while somebody has it
//
// The Guest takes a grant back by a compare-and-swap of the flags to 0, which
// fails if one of the Host's is set; the Host sets them by a compare-and-swap of
// flags and domid, which fails if the Guest has changed its mind. So nobody
// takes a page back under a mapper, and nobody maps what is no longer granted.
//
// A hostile Guest can write to the line what it likes, at any time. What the
// Host believes in is therefore its own note of what is in use (`active`): the
// frame that was there when the first mapper came, and how many have it. Bits
// that a Guest has cleared against the rules hurt that Guest only.

/// What GNTTABOP_* say of one element.
public struct GrantStatus: Error, Equatable, Sendable {
    public let rawValue: Int16
    public static let okay = GrantStatus(rawValue: GrantABI.GNTST.okay)
    public static let generalError = GrantStatus(rawValue: GrantABI.GNTST.generalError)
    public static let badDomain = GrantStatus(rawValue: GrantABI.GNTST.badDomain)
    public static let badReference = GrantStatus(rawValue: GrantABI.GNTST.badGntref)
    public static let badHandle = GrantStatus(rawValue: GrantABI.GNTST.badHandle)
    public static let badVirtualAddress = GrantStatus(rawValue: GrantABI.GNTST.badVirtAddr)
    public static let permissionDenied = GrantStatus(rawValue: GrantABI.GNTST.permissionDenied)
    public static let badPage = GrantStatus(rawValue: GrantABI.GNTST.badPage)
    public static let badCopyArgument = GrantStatus(rawValue: GrantABI.GNTST.badCopyArg)
    public static let noSpace = GrantStatus(rawValue: GrantABI.GNTST.noSpace)
}

/// A grant that somebody has, by map or for the time of a copy.
struct ActiveGrant {
    let frame: UInt64
    let source: PageSource
    /// Who has it.
    let mapper: UInt16
    var readers = 0
    var writers = 0
}

/// What the table says of one grant, and the Host besides.
struct GrantEntry: Equatable, Sendable {
    var reference: UInt32
    var mapper: UInt16
    var frame: UInt64
    var isReadOnly: Bool
    var mappings: Int
    var uses: UInt64
}

/// One domain's grants, version 1. For whoever holds the house's lock.
@safe struct GrantTable: @unchecked Sendable {
    static let mostFrames = 64
    static let entriesPerFrame = 512
    /// One that changes its entry each time that we look has only itself to blame.
    private static let tries = 4

    private typealias Flags = GrantABI.GTF

    private let frames: UnsafeMutableRawPointer
    /// Frames that the Guest has asked for.
    var frameCount = 1
    private(set) var active: [UInt32: ActiveGrant] = [:]
    /// How often each was mapped or copied from or to, since it is a grant of this frame.
    private var uses: [UInt32: (frame: UInt64, count: UInt64)] = [:]

    /// - Parameter frames: `mostFrames` pages that outlive this.
    init(_ frames: UnsafeMutableRawPointer) { unsafe self.frames = frames }

    var entryCount: UInt32 { UInt32(frameCount * Self.entriesPerFrame) }

    private func header(_ reference: UInt32) -> UnsafeMutablePointer<Atomic<UInt32>> {
        unsafe (frames + Int(reference) * 8).assumingMemoryBound(to: Atomic<UInt32>.self)
    }

    private func flags(_ reference: UInt32) -> UnsafeMutablePointer<Atomic<UInt16>> {
        unsafe (frames + Int(reference) * 8).assumingMemoryBound(to: Atomic<UInt16>.self)
    }

    private func frame(_ reference: UInt32) -> UInt64 {
        unsafe UInt64((frames + Int(reference) * 8 + 4).load(as: UInt32.self))
    }

    /// Puts the grant into use for `mapper`, as often as it is asked for; each time wants an `unpin`.
    ///
    /// - Parameter memory: the granter's.
    mutating func pin(
        _ reference: UInt32, for mapper: UInt16, writing: Bool, of memory: GuestMemory
    ) throws(GrantStatus) -> ActiveGrant {
        guard reference < entryCount else { throw .badReference }
        if let grant = active[reference], grant.mapper != mapper { throw .generalError }
        // GUEST: flags and domid as one word, read once each time round.
        var seen = unsafe header(reference).pointee.load(ordering: .acquiring)
        for _ in 0..<Self.tries {
            let flags = UInt16(truncatingIfNeeded: seen)
            guard flags & Flags.typeMask == Flags.permitAccess, UInt16(seen >> 16) == mapper else {
                throw .generalError
            }
            if writing, flags & Flags.readonly != 0 { throw .generalError }
            let wanted = seen | UInt32(Flags.reading | (writing ? Flags.writing : 0))
            // ORDERING: pairs with the Guest's barrier between the frame and the flags, and with its
            // compare-and-swap when it takes the grant back.
            let (exchanged, original) = unsafe header(reference).pointee.compareExchange(
                expected: seen, desired: wanted, ordering: .sequentiallyConsistent)
            if exchanged { return try use(reference, for: mapper, writing: writing, of: memory) }
            seen = original
        }
        throw .generalError
    }

    private mutating func use(
        _ reference: UInt32, for mapper: UInt16, writing: Bool, of memory: GuestMemory
    ) throws(GrantStatus) -> ActiveGrant {
        var grant: ActiveGrant
        if let known = active[reference] {
            grant = known
        } else {
            let frame = frame(reference)
            guard let source = memory.source(ofPage: frame) else {
                clear(reference, Flags.reading | Flags.writing)
                throw .badPage
            }
            grant = ActiveGrant(frame: frame, source: source, mapper: mapper)
        }
        if writing { grant.writers += 1 } else { grant.readers += 1 }
        active[reference] = grant
        let before = uses[reference]
        uses[reference] = (grant.frame, before?.frame == grant.frame ? (before?.count ?? 0) &+ 1 : 1)
        return grant
    }

    /// Undoes a `pin`.
    mutating func unpin(_ reference: UInt32, writing: Bool) {
        guard var grant = active[reference] else { return }
        if writing { grant.writers -= 1 } else { grant.readers -= 1 }
        if grant.writers == 0 { clear(reference, Flags.writing) }
        if grant.writers == 0, grant.readers == 0 {
            clear(reference, Flags.reading)
            active[reference] = nil
        } else {
            active[reference] = grant
        }
    }

    private func clear(_ reference: UInt32, _ bits: UInt16) {
        // ORDERING: what the mapper did with the page comes before the granter sees that it is free again.
        unsafe flags(reference).pointee.bitwiseAnd(~bits, ordering: .sequentiallyConsistent)
    }

    /// What is granted now.
    var entries: [GrantEntry] {
        (0..<entryCount).compactMap { reference in
            let seen = unsafe header(reference).pointee.load(ordering: .acquiring)
            let grant = active[reference]
            let flags = UInt16(truncatingIfNeeded: seen)
            guard grant != nil || flags & Flags.typeMask == Flags.permitAccess else { return nil }
            let frame = grant?.frame ?? frame(reference)
            let uses = uses[reference]
            return GrantEntry(
                reference: reference, mapper: grant?.mapper ?? UInt16(seen >> 16), frame: frame,
                isReadOnly: flags & Flags.readonly != 0, mappings: (grant?.readers ?? 0) + (grant?.writers ?? 0),
                uses: uses?.frame == frame ? uses?.count ?? 0 : 0)
        }
    }
}
//:
