internal import GuestMemory
internal import HostInterface
internal import Synchronization

//H:410 A domain that is a program of the Host's
//
// Who wants to feed a Guest at the speed of memory need not be a Guest. A
// domain is a number, some memory, a grant table and ports, and nothing in that
// asks for a CPU: a program can have one, too, and is a peer like any other. It
// has GrantAllocator for the pages that it lends, by the same rules as a Guest's
// programs have gntalloc, and a window of addresses for those that it borrows.
// Its doorbell is an eventfd.

/// A program of the Host's as a domain among Guests. Any thread.
@safe public final class HostDomain: Sendable {
    private let house: DomainHouse
    private let domain: Domain
    private let bell: EventFD
    private let allocator: Mutex<HostAllocator>
    /// Pages of the window that are in use.
    private let window: Mutex<[Bool]>

    private static let windowPages = 4096

    private struct HostAllocator: ~Copyable, @unchecked Sendable {
        var pages: GrantAllocator<HostGrantBackend>
        let storage: OwnBytes
    }

    /// Joins a house.
    ///
    /// - Parameters:
    ///   - name: to be shown to people.
    ///   - pages: of memory, that can be lent; at least 256.
    ///   - limit: how many of them at once, over all files.
    /// - Throws: what the host lacks.
    public init(
        _ name: String, in house: DomainHouse, pages: Int = 1024,
        limit: UInt32 = GrantABI.GntallocAllocGref.defaultLimit
    ) throws {
        let end = UInt64(max(pages, 256) * GuestMemory.pageSize)
        let memory = try GuestMemory(
            byteCount: end, hasHole: false,
            foreignWindows: [end..<end + UInt64(Self.windowPages * GuestMemory.pageSize)])
        let domain = try house.open(name: name, memory: memory)
        let bell = try EventFD()
        let doorbell = try EventFD(duplicating: bell.rawValue)
        house.withLock { _ in
            domain.grants.frameCount = GrantTable.mostFrames
            domain.upcall = { doorbell.signal() }
        }
        let bytes = GrantAllocator<HostGrantBackend>.byteCount(limit: limit)
        let storage = OwnBytes(bytes)
        let backend = HostGrantBackend(domain, house)
        // SAFETY: the allocator and its storage go together.
        allocator = unsafe Mutex(
            HostAllocator(
                pages: GrantAllocator(limit: limit, storage: storage.bytes, backend: backend), storage: storage))
        window = Mutex([Bool](repeating: false, count: Self.windowPages))
        self.house = house
        self.domain = domain
        self.bell = bell
    }

    deinit { house.close(domain) }

    /// Its number.
    public var id: UInt16 { domain.id }

    // MARK: Pages that it lends

    /// Does something with its allocator.
    public func withAllocator<Result: Sendable, Failure: Error>(
        _ body: (inout GrantAllocator<HostGrantBackend>) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try allocator.withLock { state throws(Failure) in try body(&state.pages) }
    }

    /// The bytes of a page that its allocator has handed out. Others may write to them at any time.
    ///
    /// - Parameter frame: as `GrantAllocator.frame` has it.
    public func page(_ frame: UInt64) -> UnsafeMutableRawBufferPointer? {
        guard let start = unsafe domain.memory.hostPointer(GuestPhysicalAddress(frame << 12), GuestMemory.pageSize)
        else { return nil }
        return unsafe UnsafeMutableRawBufferPointer(start: start, count: GuestMemory.pageSize)
    }

    // MARK: Pages that it borrows

    /// Maps pages of another domain, one behind the other.
    ///
    /// - Throws: `GrantStatus` of the first that cannot be had; then none is.
    public func map(_ references: [UInt32], of granter: UInt16, isReadOnly: Bool = false) throws -> BorrowedPages {
        guard let first = reserve(references.count) else { throw GrantStatus.noSpace }
        let start = domain.memory.lowEnd >> 12 + UInt64(first)
        let flags = GrantABI.GNTMAP.hostMap | (isReadOnly ? GrantABI.GNTMAP.readonly : 0)
        var handles: [UInt32] = []
        do throws(GrantStatus) {
            for (index, reference) in references.enumerated() {
                let address = (start + UInt64(index)) << 12
                handles.append(
                    try house.withLock { state throws(GrantStatus) in
                        try state.map(domain, reference: reference, of: granter, at: address, flags: flags)
                    })
            }
        } catch {
            unmap(handles, from: start, reserved: references.count)
            throw error
        }
        return BorrowedPages(self, first: start, handles: handles)
    }

    private func reserve(_ count: Int) -> Int? {
        guard count > 0 else { return nil }
        return window.withLock { used in
            var run = 0
            for index in used.indices {
                run = used[index] ? 0 : run + 1
                guard run == count else { continue }
                let first = index + 1 - count
                for page in first...index { used[page] = true }
                return first
            }
            return nil
        }
    }

    fileprivate func unmap(_ handles: [UInt32], from start: UInt64, reserved count: Int) {
        for (index, handle) in handles.enumerated() {
            try? house.withLock { state throws(GrantStatus) in
                try state.unmap(domain, handle: handle, at: (start + UInt64(index)) << 12)
            }
        }
        let first = Int(start - domain.memory.lowEnd >> 12)
        window.withLock { used in for page in first..<first + count { used[page] = false } }
    }

    fileprivate func bytes(_ start: UInt64, _ count: Int) -> UnsafeMutableRawBufferPointer {
        let bytes = count * GuestMemory.pageSize
        let pointer = unsafe domain.memory.hostPointer(GuestPhysicalAddress(start << 12), bytes)
        return unsafe UnsafeMutableRawBufferPointer(start: pointer, count: pointer == nil ? 0 : bytes)
    }

    // MARK: Bells

    /// A port that the other domain can bind to.
    ///
    /// - Throws: ENOSPC.
    public func allocatePort(for remote: UInt16) throws -> UInt32 {
        UInt32(try house.withLock { state throws(Errno) in try state.allocateUnbound(domain, for: remote) })
    }

    /// A port bound to one of the other domain's. It rings once at the beginning.
    ///
    /// - Throws: ESRCH, EINVAL, ENOSPC.
    public func bindPort(to remote: UInt16, port: UInt32) throws -> UInt32 {
        UInt32(
            try house.withLock { state throws(Errno) in
                try state.bindInterdomain(domain, to: remote, port: Int(port))
            })
    }

    /// - Throws: EINVAL for a port that is none.
    public func ring(_ port: UInt32) throws { try house.send(domain, Int(port)) }

    /// - Throws: EINVAL for a port that is none, EBUSY for one that an unmap notification is to ring.
    public func closePort(_ port: UInt32) throws {
        let isNeeded = allocator.withLock { $0.pages.backend.isRetained(port) }
        if isNeeded { throw Errno.busy }
        try house.withLock { state throws(Errno) in try state.close(domain, Int(port)) }
    }

    /// The ports that have been rung at since the last time; none, if that takes longer. For one thread at a time.
    ///
    /// - Parameter milliseconds: negative: for ever.
    public func waitForBells(milliseconds: Int32 = -1) -> [UInt32] {
        while true {
            let ports = domain.sharedInfo.takePending()
            if !ports.isEmpty { return ports.map(UInt32.init) }
            guard waitReadable([bell.rawValue], milliseconds: milliseconds)[0] else { return [] }
            bell.drain()
        }
    }

    // MARK: The store

    /// Writes what others may read.
    ///
    /// - Parameter path: below /local/domain/ and the own number.
    public func publish(_ text: String, at path: String, for reader: UInt16) -> Bool {
        let path = "/local/domain/\(id)/\(path)"
        return house.store.write(path, text) && house.store.setPermissions(path, ["n\(id)", "r\(reader)"])
    }

    /// What is there; nil if nothing is.
    public func read(_ path: String) -> String? { house.store.read(path).map { String(decoding: $0, as: UTF8.self) } }
}

/// Pages of another domain, until they are let go.
public final class BorrowedPages: Sendable {
    private let owner: HostDomain
    private let first: UInt64
    private let handles: [UInt32]

    fileprivate init(_ owner: HostDomain, first: UInt64, handles: [UInt32]) {
        (self.owner, self.first, self.handles) = (owner, first, handles)
    }

    deinit { owner.unmap(handles, from: first, reserved: handles.count) }

    /// The other domain may write to them at any time, and they become zeros if it dies.
    public func withBytes<Result>(_ body: (UnsafeMutableRawBufferPointer) throws -> Result) rethrows -> Result {
        unsafe try body(owner.bytes(first, handles.count))
    }
}
//:

/// Memory for as long as somebody has it.
@safe private final class OwnBytes {
    let bytes: UnsafeMutableRawBufferPointer
    init(_ count: Int) { unsafe bytes = .allocate(byteCount: count, alignment: 16) }
    deinit { unsafe bytes.deallocate() }
}

/// A host domain's pages, references and ports, for its allocator.
@safe public struct HostGrantBackend: GrantBackend, ~Copyable, @unchecked Sendable {
    private let domain: Domain
    private let house: DomainHouse
    private var free: [UInt64]
    private var table: GrantTablePages
    private let storage: OwnBytes
    private var retained: [UInt32: Int] = [:]

    init(_ domain: Domain, _ house: DomainHouse) {
        (self.domain, self.house) = (domain, house)
        free = (0..<domain.memory.lowEnd >> 12).reversed()
        storage = OwnBytes(GrantTablePages.byteCount(frames: GrantTable.mostFrames))
        let frames = unsafe UnsafeMutableRawBufferPointer(
            start: domain.grantFrames, count: GrantTable.mostFrames * GuestMemory.pageSize)
        unsafe table = GrantTablePages(frames: frames, storage: storage.bytes)
    }

    func isRetained(_ port: UInt32) -> Bool { retained[port] != nil }

    public mutating func takePage() -> UInt64? {
        guard let frame = free.popLast(),
            let page = unsafe domain.memory.hostPointer(GuestPhysicalAddress(frame << 12), GuestMemory.pageSize)
        else { return nil }
        unsafe page.initializeMemory(as: UInt8.self, repeating: 0, count: GuestMemory.pageSize)
        return frame
    }

    public mutating func returnPage(_ frame: UInt64) { free.append(frame) }

    public mutating func grant(_ frame: UInt64, to domid: UInt16, readOnly: Bool) throws(GrantError) -> UInt32 {
        try table.grant(frame, to: domid, readOnly: readOnly)
    }

    public mutating func endGrant(_ reference: UInt32) -> Bool { table.endGrant(reference) }

    public mutating func clearByte(_ frame: UInt64, at offset: Int) {
        guard let place = unsafe domain.memory.hostPointer(GuestPhysicalAddress(frame << 12 | UInt64(offset)), 1)
        else { return }
        // ORDERING: the bell comes after it, for whoever hears that.
        unsafe place.assumingMemoryBound(to: Atomic<UInt8>.self).pointee.store(0, ordering: .sequentiallyConsistent)
    }

    public mutating func retainPort(_ port: UInt32) -> Bool {
        guard house.withLock({ _ in domain.channels[Int(port)].state != .closed }) else { return false }
        retained[port, default: 0] += 1
        return true
    }

    public mutating func releasePort(_ port: UInt32) {
        guard let count = retained[port] else { return }
        retained[port] = count > 1 ? count - 1 : nil
    }

    public mutating func ring(_ port: UInt32) { try? house.send(domain, Int(port)) }
}
