// Shared with the Guest: it imports nothing, and has no memory but what it is handed.

//D:410 Pages for programs to lend
//
// The table is the kernel's; programs that want to lend a page need somebody
// who keeps accounts. Linux has a driver for it, gntalloc: a program opens it,
// asks for pages for a domain, gets their references and an index to map them
// at, and when it dies, all of it goes back. This is that driver, without
// Linux around it: the same for a Guest of ours and for the Host.
//
// A page has up to three kinds of holders:
//
//      its file ──┐
//      mappings ──┴─ users: none left → notify the other side, end the grant
//      the other side's maps: none left → free the page
//
// The file lets go by `deallocate` or `close`, mappings by `unmap`, in any
// order. The last of these is the owner's last use. It is then that the other
// side is told, if it was to be: a byte of the page turns 0, and after that an
// event comes. Who hears the bell finds the byte at 0. It is told once, even
// if it takes a while to let go.
//
// For nobody can take a page away that the other side has mapped. Such pages
// are deferred: no user can reach them, and whenever somebody allocates,
// deallocates or closes, we try again. They go on counting against the limit.
// Linux did so too at first; since 2022 it hands them to a list that nothing
// counts. But a neighbour that maps and never unmaps could then have a page of
// our memory for each request of ours, without end, and with the count it gets
// `limit` pages at most. It can use up our limit, but then we hear of it, as
// ENOSPC, from the request that was one too many.
//
// The original was reviewed when it was posted, in February 2011, and two of
// the reviewer's questions were never answered in code. They are here.

/// Pages that the programs of one domain grant to others: what Linux's gntalloc does.
///
/// Whoever shares one between threads holds a lock for each call. All calls
/// take time in proportion to the pages they name, and those that try again
/// with deferred pages also to the number of these.
@safe public struct GrantAllocator<Backend: GrantBackend & ~Copyable>: ~Copyable {
    /// The allocator's, but whoever has the allocator may have a look.
    public var backend: Backend
    /// Of pages, over all files.
    public let limit: UInt32
    /// Pages that count against the limit: those with users and those that are deferred.
    public private(set) var pageCount: UInt32 = 0
    /// Pages without users that the other side has not let go.
    public private(set) var deferredCount: UInt32 = 0

    private let pages: GrantSlab<GrantedPage>
    private let files: GrantSlab<OpenFile>
    /// The first page of each bucket: pages with users, by file and place in it.
    private let buckets: GrantSlab<UInt32>
    private var firstFreePage = noElement
    private var firstDeferredPage = noElement
    private var firstFreeFile = noElement
    private var nextSerial: UInt64 = 1

    /// The bytes that an allocator needs for its accounts: about 60 for each page.
    public static func byteCount(limit: UInt32 = GrantABI.GntallocAllocGref.defaultLimit, files: UInt32 = 16) -> Int {
        Int(limit) * MemoryLayout<GrantedPage>.stride + Int(files) * MemoryLayout<OpenFile>.stride
            + Int(bucketCount(limit)) * MemoryLayout<UInt32>.stride
    }

    private static func bucketCount(_ limit: UInt32) -> UInt32 {
        limit <= 1 ? 1 : 1 << (32 - UInt32((limit - 1).leadingZeroBitCount))
    }

    /// Limits are 2²⁴ at most.
    ///
    /// - Parameter storage: at least `byteCount` bytes at a multiple of 8, which are the allocator's for its life.
    public init(
        limit: UInt32 = GrantABI.GntallocAllocGref.defaultLimit, files fileLimit: UInt32 = 16,
        storage: UnsafeMutableRawBufferPointer, backend: consuming Backend
    ) {
        precondition(limit <= 1 << 24 && fileLimit <= 1 << 24)
        guard let start = storage.baseAddress, storage.count >= Self.byteCount(limit: limit, files: fileLimit),
            UInt(bitPattern: start) % 8 == 0
        else { preconditionFailure("too small a storage for grants") }
        self.backend = backend
        self.limit = limit
        // SAFETY: the three together take `byteCount` bytes, and the caller has promised them.
        var next = unsafe start
        pages = unsafe GrantSlab(at: &next, count: limit, GrantedPage())
        files = unsafe GrantSlab(at: &next, count: fileLimit, OpenFile())
        buckets = unsafe GrantSlab(at: &next, count: Self.bucketCount(limit), noElement)
        for index in (0..<limit).reversed() {
            pages[index].next = firstFreePage
            firstFreePage = index
        }
        for slot in (0..<fileLimit).reversed() {
            files[slot].next = firstFreeFile
            firstFreeFile = slot
        }
    }

    // MARK: Files

    /// A user more, who has no pages yet.
    ///
    /// - Throws: `noMemory` if too many are open.
    public mutating func open() throws(GrantError) -> GrantFile {
        guard firstFreeFile != noElement else { throw .noMemory }
        let slot = firstFreeFile
        firstFreeFile = files[slot].next
        files[slot] = OpenFile(serial: nextSerial)
        nextSerial += 1
        return GrantFile(slot: slot, serial: files[slot].serial)
    }

    /// Drops the file's use of each page that it has. Those that are mapped live until they are unmapped.
    ///
    /// - Throws: `badFile`.
    public mutating func close(_ file: GrantFile) throws(GrantError) {
        try check(file)
        reap()
        while files[file.slot].firstPage != noElement { dropFromFile(files[file.slot].firstPage, file.slot) }
        files[file.slot] = OpenFile(next: firstFreeFile)
        firstFreeFile = file.slot
    }

    // MARK: Pages

    /// Grants new pages of zeros to a domain: `count` of them or none. A domain that does not exist
    /// is as good as any: nobody comes to map them.
    ///
    /// - Returns: the index of the first in the file, in bytes; the others follow. With a count of 0,
    ///   where the next one will be.
    /// - Throws: `noSpace` above the limit or if the grant table is full, `noMemory` without a page left, `badFile`.
    public mutating func allocate(
        _ count: UInt32, for domid: UInt16, writable: Bool, in file: GrantFile
    ) throws(GrantError) -> UInt64 {
        try check(file)
        reap()
        // Not pageCount + count, which could be more than 32 bits hold.
        guard count <= limit - pageCount else { throw .noSpace }
        let firstPage = files[file.slot].nextPage
        for done in 0..<count {
            do throws(GrantError) {
                try add(firstPage + UInt64(done), domid, writable, file)
            } catch {
                // These are the file's last pages. The domain may have guessed a
                // reference and mapped a page already: then it is deferred.
                for _ in 0..<done { dropFromFile(files[file.slot].lastPage, file.slot) }
                throw error
            }
        }
        // Only now, the reviewer's second question being whether a request that fails
        // gives its indexes back. Linux's does not, and leaves a hole: it counts before it
        // lets go of its lock, and after that somebody may have the indexes behind. We
        // have one lock for all of the request, so that nobody can; and a program that
        // tries again finds its pages where they would have been.
        files[file.slot].nextPage = firstPage + UInt64(count)
        return firstPage * GrantABI.pageBytes
    }

    /// Drops the file's use of `count` pages from `index` on. Those that are mapped live until they are unmapped.
    ///
    /// - Throws: `invalid` unless these are all in the file, and there is one; then nothing has changed. `badFile`.
    public mutating func deallocate(_ index: UInt64, count: UInt32, in file: GrantFile) throws(GrantError) {
        try check(file)
        reap()
        guard var page = run(file, index, count) else { throw .invalid }
        for _ in 0..<count {
            let following = pages[page].next
            dropFromFile(page, file.slot)
            page = following
        }
    }

    /// The grant reference of the page at `index`, for the other side to be told.
    ///
    /// - Throws: `notFound` if there is none in this file, `badFile`.
    public func reference(at index: UInt64, in file: GrantFile) throws(GrantError) -> UInt32 {
        try pages[page(file, index)].reference
    }

    /// The frame of the page at `index`.
    ///
    /// - Throws: `notFound` if there is none in this file, `badFile`.
    public func frame(at index: UInt64, in file: GrantFile) throws(GrantError) -> UInt64 {
        try pages[page(file, index)].frame
    }

    /// Tries again to free what the other side had mapped.
    public mutating func reap() {
        var page = firstDeferredPage
        firstDeferredPage = noElement
        deferredCount = 0
        while page != noElement {
            let following = pages[page].next
            endGrant(page)
            page = following
        }
    }

    // MARK: Mappings

    /// Maps `count` pages from `index` on, and is a use of each. How they are mapped is the page tables' affair.
    ///
    /// - Throws: `invalid` for a private mapping, an empty one or half a page, `notFound` unless all of
    ///   these pages are in the file, `badFile`.
    public mutating func map(
        _ index: UInt64, count: UInt32, isShared: Bool, in file: GrantFile
    ) throws(GrantError) -> GrantMapping {
        try check(file)
        guard isShared, count > 0, index % GrantABI.pageBytes == 0 else { throw .invalid }
        guard var page = run(file, index, count) else { throw .notFound }
        for _ in 0..<count {
            pages[page].users += 1
            page = pages[page].next
        }
        return GrantMapping(serial: file.serial, firstPage: index / GrantABI.pageBytes, count: count)
    }

    /// The same pages once more, as a process that forks has them: both are to be unmapped.
    public mutating func duplicate(_ mapping: borrowing GrantMapping) -> GrantMapping {
        for place in 0..<mapping.count { pages[page(mapping, place)].users += 1 }
        return GrantMapping(serial: mapping.serial, firstPage: mapping.firstPage, count: mapping.count)
    }

    /// Drops the use of each page.
    public mutating func unmap(_ mapping: consuming GrantMapping) {
        for place in 0..<mapping.count { drop(page(mapping, place)) }
    }

    /// The frame of the mapping's page at `place`, which is less than its count.
    public func frame(_ place: UInt32, of mapping: borrowing GrantMapping) -> UInt64 {
        precondition(place < mapping.count)
        return pages[page(mapping, place)].frame
    }

    // MARK: Notifying

    /// Says what is to be done at the owner's last use of a page, instead of what was said before.
    ///
    /// - Parameter index: the page's, plus the offset in it of the byte that `clearByte` is about.
    /// - Parameter action: of `GrantABI.UnmapNotify`; 0 for nothing.
    /// - Throws: `notFound` if there is no such page in the file, then `invalid` for another action, then
    ///   `invalid` for an event on a port that the backend does not have; `badFile`.
    public mutating func setUnmapNotify(
        _ index: UInt64, action: UInt32, port: UInt32, in file: GrantFile
    ) throws(GrantError) {
        let page = try page(file, index & ~(GrantABI.pageBytes - 1))
        let known = GrantABI.UnmapNotify.clearByte | GrantABI.UnmapNotify.sendEvent
        guard action & ~known == 0 else { throw .invalid }
        // The new port first: it may be the old one, whose last use that would be, and if it is refused, nothing changes.
        let sendsEvent = action & GrantABI.UnmapNotify.sendEvent != 0
        guard !sendsEvent || backend.retainPort(port) else { throw .invalid }
        if pages[page].sendsEvent { backend.releasePort(pages[page].port) }
        pages[page].clearsByte = action & GrantABI.UnmapNotify.clearByte != 0
        pages[page].sendsEvent = sendsEvent
        pages[page].byte = UInt16(index % GrantABI.pageBytes)
        pages[page].port = port
    }

    // MARK: A page's life

    private mutating func add(
        _ place: UInt64, _ domid: UInt16, _ writable: Bool, _ file: GrantFile
    ) throws(GrantError) {
        guard let frame = backend.takePage() else { throw .noMemory }
        let reference: UInt32
        do throws(GrantError) {
            reference = try backend.grant(frame, to: domid, readOnly: !writable)
        } catch {
            backend.returnPage(frame)
            throw error
        }
        // The limit has room, and there are as many entries as the limit is.
        let page = firstFreePage
        firstFreePage = pages[page].next
        // The reviewer's first question. The original counted all of a request before it
        // began; undoing it subtracted what was not made yet, and then each element that
        // was in the list, once more for the one that had just failed. So the count went
        // down by one with every failure, below 0 in the end. Here a page is counted where
        // it comes into the list, and in `endGrant`, where it leaves it.
        pageCount += 1
        pages[page] = GrantedPage(
            frame: frame, place: place, serial: file.serial, reference: reference,
            previous: files[file.slot].lastPage)
        if files[file.slot].lastPage == noElement {
            files[file.slot].firstPage = page
        } else {
            pages[files[file.slot].lastPage].next = page
        }
        files[file.slot].lastPage = page
        let bucket = bucket(file.serial, place)
        pages[page].nextInBucket = buckets[bucket]
        buckets[bucket] = page
    }

    private mutating func dropFromFile(_ page: UInt32, _ slot: UInt32) {
        let (previous, next) = (pages[page].previous, pages[page].next)
        if previous == noElement { files[slot].firstPage = next } else { pages[previous].next = next }
        if next == noElement { files[slot].lastPage = previous } else { pages[next].previous = previous }
        pages[page].isInFile = false
        drop(page)
    }

    private mutating func drop(_ page: UInt32) {
        pages[page].users -= 1
        guard pages[page].users == 0 else { return }
        removeFromBucket(page)
        if pages[page].clearsByte { backend.clearByte(pages[page].frame, at: Int(pages[page].byte)) }
        // ORDERING: whoever hears the bell finds the byte at 0. It is the backend that sees to it.
        if pages[page].sendsEvent {
            backend.ring(pages[page].port)
            backend.releasePort(pages[page].port)
        }
        endGrant(page)
    }

    /// Frees a page without users, or defers that.
    private mutating func endGrant(_ page: UInt32) {
        guard backend.endGrant(pages[page].reference) else {
            pages[page].next = firstDeferredPage
            firstDeferredPage = page
            deferredCount += 1
            return
        }
        backend.returnPage(pages[page].frame)
        pages[page] = GrantedPage(next: firstFreePage)
        firstFreePage = page
        pageCount -= 1
    }

    // MARK: Finding

    private func check(_ file: GrantFile) throws(GrantError) {
        guard file.slot < files.count, files[file.slot].serial == file.serial else { throw .badFile }
    }

    private func page(_ file: GrantFile, _ index: UInt64) throws(GrantError) -> UInt32 {
        try check(file)
        guard let page = run(file, index, 1) else { throw .notFound }
        return page
    }

    private func page(_ mapping: borrowing GrantMapping, _ place: UInt32) -> UInt32 {
        guard let page = find(mapping.serial, mapping.firstPage + UInt64(place)) else {
            preconditionFailure("a mapping of another allocator")
        }
        return page
    }

    /// The first of `count` pages in a row that are all in the file. A file's
    /// pages are in the order of their indexes, so the others come behind it.
    private func run(_ file: GrantFile, _ index: UInt64, _ count: UInt32) -> UInt32? {
        guard count > 0, index % GrantABI.pageBytes == 0 else { return nil }
        let firstPlace = index / GrantABI.pageBytes
        guard let first = find(file.serial, firstPlace), pages[first].isInFile else { return nil }
        var page = first
        for place in 1..<UInt64(count) {
            page = pages[page].next
            guard page != noElement, pages[page].place == firstPlace + place else { return nil }
        }
        return first
    }

    private func find(_ serial: UInt64, _ place: UInt64) -> UInt32? {
        var page = buckets[bucket(serial, place)]
        while page != noElement, pages[page].serial != serial || pages[page].place != place {
            page = pages[page].nextInBucket
        }
        return page == noElement ? nil : page
    }

    private func removeFromBucket(_ page: UInt32) {
        let bucket = bucket(pages[page].serial, pages[page].place)
        let following = pages[page].nextInBucket
        guard buckets[bucket] != page else {
            buckets[bucket] = following
            return
        }
        var before = buckets[bucket]
        while pages[before].nextInBucket != page { before = pages[before].nextInBucket }
        pages[before].nextInBucket = following
    }

    /// The factors are odd and of no pattern; what is well mixed after a multiplication is at the top.
    private func bucket(_ serial: UInt64, _ place: UInt64) -> UInt32 {
        let mixed = (serial &* 0x9e37_79b9_7f4a_7c15 ^ place) &* 0xbf58_476d_1ce4_e5b9
        return UInt32(truncatingIfNeeded: mixed >> 40) & (buckets.count - 1)
    }
}
//:

private struct OpenFile: BitwiseCopyable {
    /// 0: not open.
    var serial: UInt64 = 0
    /// Where the next allocation begins, in pages.
    var nextPage: UInt64 = 0
    /// The file's pages, by their place.
    var firstPage = noElement
    var lastPage = noElement
    /// In the list of those that are not open.
    var next = noElement
}

private struct GrantedPage: BitwiseCopyable {
    var frame: UInt64 = 0
    /// Of the index, in pages.
    var place: UInt64 = 0
    var serial: UInt64 = 0
    var reference: UInt32 = 0
    /// The file, and each mapping.
    var users: UInt32 = 1
    /// In the file's list, or that of deferred ones, or of free ones; these two have no `previous`.
    var next = noElement
    var previous = noElement
    var nextInBucket = noElement
    var port: UInt32 = 0
    var byte: UInt16 = 0
    var isInFile = true
    var clearsByte = false
    var sendsEvent = false
}
