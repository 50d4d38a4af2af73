//G:140 Lending
//
// The kernel of a Linux has the grant table, and a driver above it keeps
// accounts of which program has which pages. Here all of it is one program, and
// still both are there, the same files as in the Host (D:410, D:420): the table
// says what we lend, the accounts when we may have it back. All that they lack
// is a place to live, which Pages has.
//
// Pages to be lent are a part of memory, set aside when the first is asked for,
// with a bit for each. Not that lending would need it, any page can be lent. But
// those that come back come in any order, and whoever asks for a ring of 256
// wants them in a row.

/// Pages of this Guest's that others may map.
public enum Grants {
    /// Pages that may be lent at one time. Looked at once, when the first are: what comes later, comes too late.
    @safe nonisolated(unsafe) public static var limit = 1024
    /// Users that the allocator can tell apart, each `GrantedPages` being one.
    public static let mostFiles: UInt32 = 64

    /// Keeps the accounts. Made on first use, which ends the Guest if there is no Xen.
    @safe public static nonisolated(unsafe) var allocator = makeAllocator()

    private static func makeAllocator() -> GrantAllocator<GrantPages> {
        // A page of which there are as many as were asked for, or half of the memory that is left.
        let count = min(min(limit, GrantPages.most), Pages.left / 2)
        let bytes = GrantAllocator<GrantPages>.byteCount(limit: UInt32(count), files: mostFiles)
        return unsafe GrantAllocator(
            limit: UInt32(count), files: mostFiles,
            storage: Pages.take((bytes + Pages.size - 1) / Pages.size).bytes, backend: GrantPages(count: count))
    }
}

/// What the allocator is made of: pages, Xen's grant table, event channels.
public struct GrantPages: GrantBackend, ~Copyable {
    static let most = 8192
    private let pages: Region
    private var table: GrantTablePages
    private var taken = RunMap<128>()
    /// Set aside for the next `takePage`s.
    private var run = 0..<0

    init(count: Int) {
        let entries = count + Int(GrantABI.reservedEntries)
        let frames = (entries + GrantABI.EntryV1.perFrame - 1) / GrantABI.EntryV1.perFrame
        // The last one first: Xen's table then grows only once.
        var first = Region(address: 0, count: 0)
        for index in (0..<frames).reversed() {
            first = Xen.show(XenABI.XENMAPSPACE.grantTable, index, at: XenWindow.grantTablePlace + index)
        }
        let bytes = GrantTablePages.byteCount(frames: frames)
        let storage = Pages.take((bytes + Pages.size - 1) / Pages.size)
        pages = Pages.take(count)
        table = unsafe GrantTablePages(
            frames: Region(address: first.address, count: frames * Pages.size).bytes, storage: storage.bytes)
    }

    /// The next pages that are taken are in a row.
    ///
    /// - Returns: false if there are no such pages.
    mutating func setAside(_ count: Int) -> Bool {
        guard let first = taken.take(count, below: pages.count / Pages.size) else { return false }
        run = first..<first + count
        return true
    }

    /// What was set aside and has not been taken is free again.
    mutating func endRun() {
        for index in run { taken.give(index) }
        run = 0..<0
    }

    /// A page of zeros, from the run if there is one.
    public mutating func takePage() -> UInt64? {
        let index: Int
        if let first = run.first {
            index = first
            run = run.dropFirst()
        } else {
            guard let free = taken.take(1, below: pages.count / Pages.size) else { return nil }
            index = free
        }
        let page = pages.part(index * Pages.size, Pages.size)
        page.fill()
        return page.address / UInt64(Pages.size)
    }

    /// Nobody has it any more.
    public mutating func returnPage(_ frame: UInt64) {
        taken.give(Int(frame - pages.address / UInt64(Pages.size)))
    }

    /// Writes an entry of the table.
    public mutating func grant(_ frame: UInt64, to domid: UInt16, readOnly: Bool) throws(GrantError) -> UInt32 {
        try table.grant(frame, to: domid, readOnly: readOnly)
    }

    /// Clears it, unless somebody has the page.
    public mutating func endGrant(_ reference: UInt32) -> Bool { table.endGrant(reference) }

    /// Writes 0.
    public mutating func clearByte(_ frame: UInt64, at offset: Int) {
        // ORDERING: the ring that comes after it is a hypercall, and the Host's bell a full barrier.
        pages.storeByteInOrder(0, at: Int(frame * UInt64(Pages.size) - pages.address) + offset)
    }

    /// A use more of a port of ours.
    public mutating func retainPort(_ port: UInt32) -> Bool { Ports.retain(port) }
    /// A use less.
    public mutating func releasePort(_ port: UInt32) { Ports.release(port) }
    /// Rings at the other end.
    public mutating func ring(_ port: UInt32) { Ports.ring(port) }
}
//:
