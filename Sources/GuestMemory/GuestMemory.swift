package import HostInterface
internal import Glibc
internal import Synchronization

//H:030 A Guest's memory
//
// To the Guest, RAM begins at 0 and is interrupted once, by the hole under
// 4 GiB where a PC keeps its devices:
//
//     0                3 GiB          4 GiB
//     |---- low RAM ----|-- devices ---|---- high RAM ---->
//
// To the Host, it is one reserved range of addresses laid out in just the
// same way, so that the host address of any Guest byte is `base + gpa`. Where
// there is no RAM the range is PROT_NONE, and so a slip of ours faults at
// once instead of reading a neighbour.
//
// The Guest writes while we read. Nobody may therefore hold a `Span` over
// live Guest memory: a field is loaded once, into a value of our own, and
// the value is checked and used.

/// An access that leaves the Guest's RAM.
package struct GuestMemoryError: Error, CustomStringConvertible, Sendable {
    package let address: GuestPhysicalAddress
    package let byteCount: Int
    package var description: String { "no RAM at \(address) for \(byteCount) bytes" }

    package init(address: GuestPhysicalAddress, byteCount: Int) {
        self.address = address
        self.byteCount = byteCount
    }
}

/// Where a Guest's RAM is, as plain values: for an engine's inner parts, which
/// must not count references. Good for as long as its `GuestMemory` lives.
@safe @frozen public struct RAMView: BitwiseCopyable, @unchecked Sendable {
    @usableFromInline let base: UnsafeMutableRawPointer
    @usableFromInline let codeTags: UnsafeMutablePointer<UInt8>
    @usableFromInline let lowEnd: UInt64
    @usableFromInline let highEnd: UInt64
    /// See `ForeignPages`; nil where no page of others can ever be.
    @usableFromInline let pageStates: UnsafeMutablePointer<UInt8>?
    @usableFromInline let addressEnd: UInt64

    init(
        _ base: UnsafeMutableRawPointer, _ codeTags: UnsafeMutablePointer<UInt8>, _ lowEnd: UInt64, _ highEnd: UInt64,
        pageStates: UnsafeMutablePointer<UInt8>? = nil, addressEnd: UInt64
    ) {
        unsafe (self.base, self.codeTags, self.pageStates) = (base, codeTags, pageStates)
        (self.lowEnd, self.highEnd, self.addressEnd) = (lowEnd, highEnd, addressEnd)
    }

    /// See `GuestMemory.holeEnd`.
    @inlinable public static var holeEnd: UInt64 { 4 << 30 }

    /// See `GuestMemory.contains`.
    @inlinable @inline(__always) public func contains(_ address: GuestPhysicalAddress, _ count: Int) -> Bool {
        let start = address.rawValue
        let length = UInt64(truncatingIfNeeded: count)
        if length <= lowEnd && start <= lowEnd &- length { return true }
        if start >= RAMView.holeEnd && length <= highEnd && start <= highEnd &- length { return true }
        return unsafe pageStates != nil && containsForeign(start, length)
    }

    /// Whether it is all pages of others, put where there is no RAM.
    @usableFromInline @inline(never) func containsForeign(_ start: UInt64, _ length: UInt64) -> Bool {
        // No bytes are asked for as one is, so that there is a page to look at.
        let length = max(length, 1)
        guard let pageStates = unsafe pageStates, length <= addressEnd, start <= addressEnd &- length else {
            return false
        }
        let last = (start &+ length &- 1) >> 12
        for page in (start >> 12)...last
        where unsafe pageStates[Int(truncatingIfNeeded: page)] & ForeignPageState.present == 0 { return false }
        return true
    }

    /// Whether this page is another's, and not to be written to.
    @inlinable @inline(__always) public func isReadOnly(page: UInt64) -> Bool {
        guard let pageStates = unsafe pageStates, page < addressEnd >> 12 else { return false }
        return unsafe pageStates[Int(truncatingIfNeeded: page)] & ForeignPageState.readOnly != 0
    }

    /// See `GuestMemory.hostPointer`.
    @inlinable @inline(__always) public func hostPointer(
        _ address: GuestPhysicalAddress, _ count: Int
    ) -> UnsafeMutableRawPointer? {
        contains(address, count) ? unsafe base + Int(truncatingIfNeeded: address.rawValue) : nil
    }

    @inlinable @inline(__always) public func isCode(page: UInt64) -> Bool {
        unsafe codeTags[Int(truncatingIfNeeded: page)] != 0
    }

    /// The guest-physical address of a host address inside the range.
    @inlinable @inline(__always) public func guestAddress(ofHost address: UInt) -> GuestPhysicalAddress {
        unsafe GuestPhysicalAddress(UInt64(address &- UInt(bitPattern: base)))
    }
}

/// Who keeps code of a page, decoded or translated.
package enum CodeHolder: UInt8, Sendable {
    case interpreter = 1
    case translator = 2
}

/// All RAM of one Guest. Any thread may use it; the Guest does so at any time.
@safe package final class GuestMemory: @unchecked Sendable {
    package static var pageSize: Int { 4096 }
    /// Where low RAM must end and the device windows begin.
    package static var holeStart: UInt64 { 3 << 30 }
    package static var holeEnd: UInt64 { RAMView.holeEnd }

    /// Host address of guest-physical 0. Only where `contains` says so is there memory.
    let base: UnsafeMutableRawPointer
    package let byteCount: UInt64
    /// RAM is `0 ..< lowEnd` and `holeEnd ..< highEnd`.
    package let lowEnd: UInt64
    package let highEnd: UInt64

    /// Nil where the memory is somebody else's.
    let range: AddressRange?
    private let file: MemoryFile?
    /// The file's number.
    let fileDescriptor: Int32?
    private let overlays = Mutex<[Overlay]>([])

    /// Where the addresses end that may ever have memory: at the end of RAM,
    /// or of what is kept free behind it for pages of others.
    package let addressEnd: UInt64
    package let foreignWindows: [Range<UInt64>]

    /// One byte per 4 KiB page below `addressEnd`; not zero where an engine
    /// holds decoded or translated code of that page: a bit per `CodeHolder`.
    let codeTags: UnsafeMutablePointer<UInt8>
    /// One byte for each page below `addressEnd`: see `ForeignPageState`. Nil without windows.
    let pageStates: UnsafeMutablePointer<UInt8>?
    private struct Observers {
        var next = 0
        var list: [(number: Int, observer: @Sendable (UInt64) -> Void)] = []
    }
    private let observers = Mutex(Observers())

    /// - Parameters:
    ///   - byteCount: a multiple of 4096, at least 1 MiB.
    ///   - hasHole: false for a Guest without a PC's devices, whose RAM is in one piece.
    ///   - foreignWindows: where there is no RAM, but pages of others can be put: see "Pages of others".
    package init(
        byteCount: UInt64, hasHole: Bool = true, foreignWindows: [Range<UInt64>] = []
    ) throws(HostError) {
        precondition(byteCount % 4096 == 0 && byteCount >= 1 << 20)
        precondition(foreignWindows.allSatisfy { $0.lowerBound % 4096 == 0 && $0.upperBound % 4096 == 0 })
        self.byteCount = byteCount
        lowEnd = hasHole ? min(byteCount, Self.holeStart) : byteCount
        highEnd = byteCount > lowEnd ? Self.holeEnd + (byteCount - lowEnd) : lowEnd
        self.foreignWindows = foreignWindows
        addressEnd = foreignWindows.reduce(highEnd) { max($0, $1.upperBound) }
        let file = try MemoryFile(name: "guest-memory", byteCount: Int(byteCount))
        let range = try AddressRange(reserving: Int(addressEnd))
        try range.map(file, fileOffset: 0, at: 0, count: Int(lowEnd))
        if highEnd > lowEnd {
            try range.map(file, fileOffset: Int(lowEnd), at: Int(Self.holeEnd), count: Int(highEnd - Self.holeEnd))
        }
        // Not one mapping for each page that comes and goes, of which the host has no more than 65530.
        for window in foreignWindows {
            do throws(Errno) { try range.mapZeros(at: Int(window.lowerBound), count: window.count) } catch {
                throw HostError("cannot map a window of \(window.count >> 20) MiB", errno: error)
            }
        }
        unsafe base = range.base
        unsafe codeTags = try Self.mapTags(addressEnd)
        unsafe pageStates = foreignWindows.isEmpty ? nil : try Self.mapTags(addressEnd)
        ramView = unsafe RAMView(base, codeTags, lowEnd, highEnd, pageStates: pageStates, addressEnd: addressEnd)
        fileDescriptor = file.descriptor.rawValue
        self.range = consume range
        self.file = consume file
    }

    /// Memory of somebody else's, who keeps it mapped for as long as this
    /// lives: a Launcher that is not ours. In one piece, without a hole.
    ///
    /// - Parameter byteCount: a multiple of 4096, at least that.
    package init(adopting base: UnsafeMutableRawPointer, byteCount: UInt64) throws(HostError) {
        precondition(byteCount % 4096 == 0 && byteCount > 0 && UInt(bitPattern: base) % 4096 == 0)
        self.byteCount = byteCount
        (lowEnd, highEnd, addressEnd) = (byteCount, byteCount, byteCount)
        foreignWindows = []
        unsafe self.base = base
        unsafe codeTags = try Self.mapTags(byteCount)
        unsafe pageStates = nil
        ramView = unsafe RAMView(base, codeTags, byteCount, byteCount, addressEnd: byteCount)
        range = nil
        file = nil
        fileDescriptor = nil
        findOverlays()
    }

    /// Zero pages until touched: a large Guest's tags cost nothing at first.
    private static func mapTags(_ end: UInt64) throws(HostError) -> UnsafeMutablePointer<UInt8> {
        let tags = unsafe mmap(
            nil, Int(end >> 12), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        guard let tags = unsafe tags, unsafe tags != MAP_FAILED else {
            throw HostError("cannot map page tags", errno: .current)
        }
        return unsafe tags.assumingMemoryBound(to: UInt8.self)
    }

    deinit {
        unsafe munmap(codeTags, Int(addressEnd >> 12))
        if let pageStates = unsafe pageStates { unsafe munmap(pageStates, Int(addressEnd >> 12)) }
    }

    /// Where RAM is, as plain values.
    package var view: RAMView { ramView }
    let ramView: RAMView

    /// Whether all of `count` bytes from `address` are RAM.
    package func contains(_ address: GuestPhysicalAddress, _ count: Int) -> Bool {
        ramView.contains(address, count)
    }

    /// Where the Host sees these bytes. The caller must not outlive the
    /// memory, and must expect the bytes to change at any time. Writing here
    /// goes around `noteWrite`.
    package func hostPointer(_ address: GuestPhysicalAddress, _ count: Int) -> UnsafeMutableRawPointer? {
        unsafe ramView.hostPointer(address, count)
    }

    package func load<T: BitwiseCopyable>(
        at address: GuestPhysicalAddress, as type: T.Type
    ) throws(GuestMemoryError) -> T {
        guard contains(address, MemoryLayout<T>.size) else {
            throw GuestMemoryError(address: address, byteCount: MemoryLayout<T>.size)
        }
        return unsafe (base + Int(address.rawValue)).loadUnaligned(as: T.self)
    }

    package func store<T: BitwiseCopyable>(
        _ value: T, at address: GuestPhysicalAddress
    ) throws(GuestMemoryError) {
        guard contains(address, MemoryLayout<T>.size) else {
            throw GuestMemoryError(address: address, byteCount: MemoryLayout<T>.size)
        }
        unsafe (base + Int(address.rawValue)).storeBytes(of: value, as: T.self)
        noteWrite(address, MemoryLayout<T>.size)
    }

    /// A private copy of guest memory.
    package func read(_ address: GuestPhysicalAddress, count: Int) throws(GuestMemoryError) -> [UInt8] {
        guard count >= 0, contains(address, count) else { throw GuestMemoryError(address: address, byteCount: count) }
        return unsafe [UInt8](UnsafeRawBufferPointer(start: base + Int(address.rawValue), count: count))
    }

    package func write(_ bytes: UnsafeRawBufferPointer, at address: GuestPhysicalAddress) throws(GuestMemoryError) {
        guard contains(address, bytes.count) else { throw GuestMemoryError(address: address, byteCount: bytes.count) }
        guard let source = bytes.baseAddress, bytes.count > 0 else { return }
        unsafe (base + Int(address.rawValue)).copyMemory(from: source, byteCount: bytes.count)
        noteWrite(address, bytes.count)
    }

    package func write(_ bytes: some Sequence<UInt8>, at address: GuestPhysicalAddress) throws(GuestMemoryError) {
        let bytes = Array(bytes)
        let result: Result<Void, GuestMemoryError> = unsafe bytes.withUnsafeBytes { buffer in
            do throws(GuestMemoryError) { return .success(unsafe try write(buffer, at: address)) } catch {
                return .failure(error)
            }
        }
        try result.get()
    }

    /// Zeroes all RAM by giving its pages back to the host, as a power cycle
    /// does; but not what others see, too.
    package func clear() {
        var start: UInt64 = 0
        let gaps = sharedRanges + [lowEnd..<max(lowEnd, min(Self.holeEnd, highEnd))]
        for range in gaps.sorted(by: { $0.lowerBound < $1.lowerBound }) + [highEnd..<highEnd] {
            if range.lowerBound > start {
                _ = unsafe madvise(base + Int(start), Int(range.lowerBound - start), MADV_REMOVE)
            }
            start = max(start, range.upperBound)
        }
        for page in 0..<(addressEnd >> 12) where isCode(page: page) { noteWrite(GuestPhysicalAddress(page << 12), 1) }
    }

    // MARK: What others see, too

    /// Pages of this Guest's that are not its own, but a part of memory that others map as well.
    private struct Overlay {
        let addresses: Range<UInt64>
        let place: MemoryPlace
    }

    /// Puts `region` in place of the RAM at `address`, for good.
    ///
    /// - Parameter address: a multiple of 4096; all of the region has to be inside RAM.
    package func map(_ region: SharedRegion, at address: GuestPhysicalAddress) throws(HostError) {
        guard address.rawValue % 4096 == 0 else {
            throw HostError("cannot share memory at \(address)", advice: "it must begin at a multiple of 4096")
        }
        guard contains(address, region.byteCount) else {
            throw HostError(
                "cannot share \(region.byteCount) bytes at \(address): the guest has no memory there",
                advice: "its memory ends at 0x\(String(highEnd, radix: 16))")
        }
        let end = address.rawValue + UInt64(region.byteCount)
        let isTaken = overlays.withLock { $0.contains { $0.addresses.overlaps(address.rawValue..<end) } }
        guard !isTaken else { throw HostError("cannot share memory at \(address): another region is there") }
        guard range != nil else { throw HostError("cannot share memory at \(address): its owner maps it") }
        try range?.map(region.file, fileOffset: 0, at: Int(address.rawValue), count: region.byteCount)
        overlays.withLock { $0.append(Overlay(addresses: address.rawValue..<end, place: region.place)) }
        noteWrite(address, region.byteCount)
    }

    /// What others see, too, in order.
    package var sharedRanges: [Range<UInt64>] {
        overlays.withLock { $0.map(\.addresses) }.sorted { $0.lowerBound < $1.lowerBound }
    }

    /// Where this byte is in memory that others can map, too; nil if it is the Guest's own.
    package func place(of address: GuestPhysicalAddress) -> MemoryPlace? {
        overlays.withLock { overlays in
            guard let overlay = overlays.first(where: { $0.addresses.contains(address.rawValue) }) else { return nil }
            let offset = overlay.place.offset &+ (address.rawValue - overlay.addresses.lowerBound)
            return MemoryPlace(device: overlay.place.device, inode: overlay.place.inode, offset: offset)
        }
    }

    /// Looks at what the owner of adopted memory has mapped there by now.
    package func findOverlays() {
        guard range == nil else { return }
        let start = unsafe UInt(bitPattern: base)
        let all = start..<start + UInt(byteCount)
        guard let mappings = try? MemoryMapping.inside(all) else { return }
        let found = mappings.compactMap { mapping -> Overlay? in
            guard let place = mapping.place else { return nil }
            let part = mapping.addresses.clamped(to: all)
            let skipped = UInt64(part.lowerBound - mapping.addresses.lowerBound)
            return Overlay(
                addresses: UInt64(part.lowerBound - start)..<UInt64(part.upperBound - start),
                place: MemoryPlace(device: place.device, inode: place.inode, offset: place.offset + skipped))
        }
        overlays.withLock { $0 = found }
    }

    // MARK: Code pages

    /// Marks the page as holding code that an engine has decoded. From now on
    /// every write to it must be announced by `noteWrite`.
    package func markCode(page: UInt64, by holder: CodeHolder) {
        if hasTag(page) { unsafe codeTags[Int(page)] |= holder.rawValue }
    }
    package func clearCode(page: UInt64, by holder: CodeHolder) {
        if hasTag(page) { unsafe codeTags[Int(page)] &= ~holder.rawValue }
    }
    /// Whether this one has marked the page.
    package func isCode(page: UInt64, of holder: CodeHolder) -> Bool {
        unsafe hasTag(page) && codeTags[Int(page)] & holder.rawValue != 0
    }
    package func isCode(page: UInt64) -> Bool { unsafe hasTag(page) && codeTags[Int(page)] != 0 }

    /// Page numbers come from the Guest, and it may ask about any.
    @inlinable func hasTag(_ page: UInt64) -> Bool { page < addressEnd >> 12 }

    /// To be called after bytes have changed other than by a vCPU's own store: a
    /// device's DMA, a loader. Engines hear of pages that held code. Not before
    /// the change: an engine that hears of it at once would read the old bytes
    /// again, and keep them.
    package func noteWrite(_ address: GuestPhysicalAddress, _ count: Int) {
        guard count > 0 else { return }
        // ORDERING: the bytes, then our look at the marks; an engine marks a
        // page, then reads its bytes.
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        let last = (address.rawValue &+ UInt64(count) &- 1) >> 12
        var page = address.page
        while page <= last {
            if isCode(page: page) { announceCodeWrite(page: page) }
            page &+= 1
        }
    }

    func announceCodeWrite(page: UInt64) {
        for (_, observer) in observers.withLock({ $0.list }) { observer(page) }
    }

    /// `observer` is called, on the writing thread, with each code page that has changed.
    ///
    /// - Returns: its number, for `stopObserving`.
    @discardableResult
    package func observeCodeWrites(_ observer: @escaping @Sendable (_ page: UInt64) -> Void) -> Int {
        observers.withLock { observers in
            observers.next += 1
            observers.list.append((observers.next, observer))
            return observers.next
        }
    }

    package func stopObserving(_ number: Int) {
        observers.withLock { observers in observers.list.removeAll { $0.number == number } }
    }
}
//:
