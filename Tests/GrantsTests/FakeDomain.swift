import Grants

/// A domain without a kernel: pages, a grant table and event channels, and what the other side does with them.
final class FakeDomain: GrantBackend {
    enum Event: Equatable {
        case cleared(frame: UInt64, offset: Int)
        case rang(UInt32)
        case ended(UInt32)
    }

    struct Grant: Equatable {
        var frame: UInt64
        var domid: UInt16
        var readOnly: Bool
    }

    /// What is in each page that is taken.
    private(set) var pages: [UInt64: [UInt8]] = [:]
    private(set) var grants: [UInt32: Grant] = [:]
    /// How often the other side has each reference mapped.
    private(set) var maps: [UInt32: Int] = [:]
    /// Uses of each port that is open.
    private(set) var ports: [UInt32: Int] = [:]
    private(set) var events: [Event] = []
    /// What the allocator must never do.
    private(set) var problems: [String] = []

    /// Pages, and entries of the table.
    var pageLimit = Int.max
    var tableLimit = Int.max
    /// Requests that go well before one fails, and no more after that.
    var pagesUntilFailure: Int?
    var grantsUntilFailure: Int?
    /// References that the other side has guessed: it maps them once they are granted.
    var guesses: Set<UInt32> = []

    private var freeFrames: [UInt64] = []
    private var nextFrame: UInt64 = 0x1000
    private var freeReferences: [UInt32] = []
    private var nextReference: UInt32 = 8

    // MARK: Backend

    func takePage() -> UInt64? {
        guard pages.count < pageLimit, !fails(&pagesUntilFailure) else { return nil }
        let frame = freeFrames.popLast() ?? nextFrame
        if frame == nextFrame { nextFrame += 1 }
        pages[frame] = [UInt8](repeating: 0, count: 4096)
        return frame
    }

    func returnPage(_ frame: UInt64) {
        if grants.values.contains(where: { $0.frame == frame }) { problems.append("\(frame) freed, but granted") }
        if pages.removeValue(forKey: frame) == nil { problems.append("\(frame) freed twice") }
        freeFrames.append(frame)
    }

    func grant(_ frame: UInt64, to domid: UInt16, readOnly: Bool) throws(GrantError) -> UInt32 {
        guard let content = pages[frame] else {
            problems.append("\(frame) granted, but free")
            throw .invalid
        }
        if content.contains(where: { $0 != 0 }) { problems.append("\(frame) granted with something in it") }
        guard grants.count < tableLimit, !fails(&grantsUntilFailure) else { throw .noSpace }
        let reference = freeReferences.popLast() ?? nextReference
        if reference == nextReference { nextReference += 1 }
        grants[reference] = Grant(frame: frame, domid: domid, readOnly: readOnly)
        if guesses.remove(reference) != nil { map(reference) }
        return reference
    }

    func endGrant(_ reference: UInt32) -> Bool {
        guard maps[reference] == nil else { return false }
        if grants.removeValue(forKey: reference) == nil { problems.append("grant \(reference) ended twice") }
        freeReferences.append(reference)
        events.append(.ended(reference))
        return true
    }

    func clearByte(_ frame: UInt64, at offset: Int) {
        if pages[frame] == nil { problems.append("a byte of \(frame) cleared, but free") }
        pages[frame]?[offset] = 0
        events.append(.cleared(frame: frame, offset: offset))
    }

    func retainPort(_ port: UInt32) -> Bool {
        guard let uses = ports[port] else { return false }
        ports[port] = uses + 1
        return true
    }

    func releasePort(_ port: UInt32) {
        guard let uses = ports[port], uses > 0 else {
            problems.append("port \(port) released too often")
            return
        }
        ports[port] = uses - 1
    }

    func ring(_ port: UInt32) {
        if ports[port, default: 0] == 0 { problems.append("port \(port) rung, but not held") }
        events.append(.rang(port))
    }

    // MARK: The others

    func open(port: UInt32) { ports[port] = 0 }

    /// The other side maps a page, which it can do as long as it is granted.
    func map(_ reference: UInt32) { maps[reference, default: 0] += 1 }

    func unmap(_ reference: UInt32) {
        guard let count = maps[reference] else { return }
        maps[reference] = count > 1 ? count - 1 : nil
    }

    /// Somebody writes to a page.
    func write(_ byte: UInt8, _ frame: UInt64, at offset: Int) { pages[frame]?[offset] = byte }

    /// What has happened since the last time.
    func takeEvents() -> [Event] {
        defer { events = [] }
        return events
    }

    /// The same without grants ending.
    func takeNotifications() -> [Event] {
        takeEvents().filter { if case .ended = $0 { false } else { true } }
    }

    private func fails(_ countdown: inout Int?) -> Bool {
        guard let left = countdown else { return false }
        countdown = left > 0 ? left - 1 : nil
        return left == 0
    }
}

/// An allocator, its domain and its memory.
@safe final class Lender {
    let domain = FakeDomain()
    var allocator: GrantAllocator<FakeDomain>
    private let storage: UnsafeMutableRawBufferPointer
    private static let guardBytes = 64, guardByte: UInt8 = 0xa5

    init(limit: UInt32 = 1024, files: UInt32 = 16) {
        let bytes = GrantAllocator<FakeDomain>.byteCount(limit: limit, files: files)
        unsafe storage = .allocate(byteCount: bytes + Self.guardBytes, alignment: 8)
        unsafe storage.initializeMemory(as: UInt8.self, repeating: Self.guardByte)
        allocator = unsafe GrantAllocator(
            limit: limit, files: files, storage: .init(rebasing: storage[..<bytes]), backend: domain)
    }

    deinit { unsafe storage.deallocate() }

    /// What is behind its memory has not been touched.
    var keepsToItsMemory: Bool { unsafe storage.suffix(Self.guardBytes).allSatisfy { $0 == Self.guardByte } }

    func open() throws -> GrantFile { try allocator.open() }

    @discardableResult
    func allocate(_ count: UInt32, for domid: UInt16 = 7, writable: Bool = true, in file: GrantFile) throws -> UInt64 {
        try allocator.allocate(count, for: domid, writable: writable, in: file)
    }

    func deallocate(_ index: UInt64, _ count: UInt32, in file: GrantFile) throws {
        try allocator.deallocate(index, count: count, in: file)
    }

    func map(_ index: UInt64, _ count: UInt32, isShared: Bool = true, in file: GrantFile) throws -> Mapped {
        Mapped(try allocator.map(index, count: count, isShared: isShared, in: file))
    }

    func fork(_ mapped: Mapped) -> Mapped? {
        guard let mapping = mapped.mapping.take() else { return nil }
        let copy = allocator.duplicate(mapping)
        mapped.mapping = consume mapping
        return Mapped(copy)
    }

    func unmap(_ mapped: Mapped) {
        if let mapping = mapped.mapping.take() { allocator.unmap(mapping) }
    }

    func frames(_ mapped: Mapped) -> [UInt64] {
        guard let mapping = mapped.mapping.take() else { return [] }
        let frames = (0..<mapping.count).map { allocator.frame($0, of: mapping) }
        mapped.mapping = consume mapping
        return frames
    }

    func notify(_ index: UInt64, _ action: UInt32, port: UInt32 = 0, in file: GrantFile) throws {
        try allocator.setUnmapNotify(index, action: action, port: port, in: file)
    }

    func reference(_ index: UInt64, in file: GrantFile) throws -> UInt32 {
        try allocator.reference(at: index, in: file)
    }

    func frame(_ index: UInt64, in file: GrantFile) throws -> UInt64 { try allocator.frame(at: index, in: file) }

    /// Pages that are granted, as the domain knows it.
    var granted: Int { domain.grants.count }
}

/// A mapping, for those who want more than one.
final class Mapped {
    var mapping: GrantMapping?
    init(_ mapping: consuming GrantMapping) { self.mapping = consume mapping }
}
