import Grants
import GuestMemory
import HostInterface
import Synchronization
import X86

/// A domain whose kernel is a test: memory with page tables in it, hypercalls by hand, and a machine that writes
/// down what it is asked for.
@safe final class XenGuest: XenMachine, @unchecked Sendable {
    enum Place {
        static let tables: UInt64 = 0x1000, lowTable: UInt64 = 0x4000
        static let arguments: UInt64 = 0x8000
        /// Pages that special pages are put over at first.
        static let sharedInfo: UInt64 = 10, grantFrame: UInt64 = 11
        static let vcpuInfo: UInt64 = 0xc040
        /// The first page that is a test's own, and the first behind them.
        static let data: UInt64 = 16, dataEnd: UInt64 = 256
        static let window: UInt64 = 0x200
    }
    /// A page of linear addresses in which nothing is mapped.
    static let unmapped: UInt64 = 0x7_0000_0000

    let house: DomainHouse
    let memory: GuestMemory
    let domain: Domain
    private(set) var interface: XenInterface!

    private let upcallCount = Atomic(0)
    private(set) var upcallKinds: [String] = []
    private(set) var shutdowns: [UInt32] = []
    private(set) var flushes = 0
    var shutdownReasons: Set<UInt32> = [0, 1, 3]

    /// - Parameter windowPages: at most 512 can be reached by way of the page tables.
    init(
        in house: DomainHouse, name: String = "guest", windowPages: UInt64 = 24, isPlaced: Bool = true
    ) throws {
        self.house = house
        let window = Place.window << 12
        memory = try GuestMemory(
            byteCount: 1 << 20, hasHole: false, foreignWindows: [window..<window + windowPages << 12])
        domain = try house.open(name: name, memory: memory)
        interface = XenInterface(domain, of: house, on: self)
        try layTables()
        house.begin(domain)
        if isPlaced { place() }
    }

    /// The first 2 MiB by small pages, the next two by one large page, each to itself.
    func layTables() throws {
        let rights: UInt64 = 7
        try store(Place.tables + 0x1000 | rights, at: Place.tables)
        try store(Place.tables + 0x2000 | rights, at: Place.tables + 0x1000)
        try store(Place.lowTable | rights, at: Place.tables + 0x2000)
        try store(Place.window << 12 | rights | PageEntry.large, at: Place.tables + 0x2008)
        for page in 0..<UInt64(512) { try map(linear: page, to: page << 12 | rights) }
    }

    /// An entry for one of the first 512 pages.
    func map(linear page: UInt64, to entry: UInt64) throws { try store(entry, at: Place.lowTable + page * 8) }

    /// Puts shared_info and the first frame of the table where they are at first.
    func place() {
        _ = addToPhysmap(XenABI.XENMAPSPACE.sharedInfo, 0, at: Place.sharedInfo)
        _ = addToPhysmap(XenABI.XENMAPSPACE.grantTable, 0, at: Place.grantFrame)
    }

    var id: UInt16 { domain.id }

    /// As at a reboot.
    func reset() {
        house.end(domain)
        house.begin(domain)
    }

    func close() { house.close(domain) }

    // MARK: Memory

    func pointer(_ address: UInt64, _ count: Int = 8) -> UnsafeMutableRawPointer? {
        unsafe memory.hostPointer(GuestPhysicalAddress(address), count)
    }

    func load<T: BitwiseCopyable>(_ address: UInt64, as type: T.Type) throws -> T {
        try memory.load(at: GuestPhysicalAddress(address), as: type)
    }

    func store<T: BitwiseCopyable>(_ value: T, at address: UInt64) throws {
        try memory.store(value, at: GuestPhysicalAddress(address))
    }

    /// The first bytes of a page; nil where there is none.
    func word(ofPage page: UInt64) -> UInt64? { try? load(page << 12, as: UInt64.self) }
    func setWord(ofPage page: UInt64, _ value: UInt64) throws { try store(value, at: page << 12) }

    // MARK: Hypercalls

    @discardableResult func call(
        _ number: UInt64, _ operation: UInt32, _ second: UInt64 = 0, _ third: UInt64 = 0
    ) -> Int64 {
        interface.call(number, UInt64(operation), second, third, cr3: Place.tables)
    }

    /// One with a struct.
    @discardableResult func call(
        _ number: UInt64, _ operation: UInt32, at address: UInt64 = Place.arguments, _ fields: [Field]
    ) throws -> Int64 {
        for field in fields { try field.put(self, address) }
        return call(number, operation, address)
    }

    /// A field of a struct, by its offset.
    struct Field {
        let put: (XenGuest, UInt64) throws -> Void
        static func u16(_ offset: Int, _ value: UInt16) -> Field {
            Field { try $0.store(value, at: $1 + UInt64(offset)) }
        }
        static func u32(_ offset: Int, _ value: UInt32) -> Field {
            Field { try $0.store(value, at: $1 + UInt64(offset)) }
        }
        static func u64(_ offset: Int, _ value: UInt64) -> Field {
            Field { try $0.store(value, at: $1 + UInt64(offset)) }
        }
    }

    private func argument<T: BitwiseCopyable>(_ offset: Int, as type: T.Type = T.self) -> T {
        guard let value = try? load(Place.arguments + UInt64(offset), as: type) else {
            preconditionFailure("no arguments")
        }
        return value
    }

    private func port(_ result: Int64, _ offset: Int) -> Int {
        result == 0 ? Int(argument(offset, as: UInt32.self)) : Int(result)
    }

    // MARK: memory_op

    func addToPhysmap(_ space: UInt32, _ index: UInt64, at page: UInt64, of domid: UInt16 = XenABI.DOMID.selfID)
        -> Int64
    {
        typealias Fields = XenABI.AddToPhysmap
        return try! call(
            XenABI.Hypercall.memoryOp, XenABI.XENMEM.addToPhysmap,
            [
                .u16(Fields.domid, domid), .u32(Fields.space, space), .u64(Fields.idx, index),
                .u64(Fields.gpfn, page),
            ])
    }

    func removeFromPhysmap(page: UInt64, of domid: UInt16 = XenABI.DOMID.selfID) -> Int64 {
        try! call(XenABI.Hypercall.memoryOp, XenABI.XENMEM.removeFromPhysmap, [.u16(0, domid), .u64(8, page)])
    }

    // MARK: The grant table

    struct Entry: Equatable {
        var flags: UInt16 = 0
        var domid: UInt16 = 0
        var frame: UInt32 = 0
    }

    /// Where an entry of the first frame is.
    static func place(ofEntry reference: UInt32) -> UInt64 { Place.grantFrame << 12 + UInt64(reference) * 8 }

    func entry(_ reference: UInt32) -> Entry { Self.entry(try! load(Self.place(ofEntry: reference), as: UInt64.self)) }
    static func entry(_ word: UInt64) -> Entry {
        Entry(
            flags: UInt16(truncatingIfNeeded: word), domid: UInt16(truncatingIfNeeded: word >> 16),
            frame: UInt32(word >> 32))
    }

    func setEntry(_ reference: UInt32, _ entry: Entry) throws {
        let place = Self.place(ofEntry: reference)
        try store(entry.frame, at: place + 4)
        try store(entry.domid, at: place + 2)
        try store(entry.flags, at: place)
    }

    /// Grants one of the Guest's pages.
    func grant(_ reference: UInt32, page: UInt64, to domid: UInt16, readOnly: Bool = false) throws {
        try setEntry(
            reference,
            Entry(
                flags: GrantABI.GTF.permitAccess | (readOnly ? GrantABI.GTF.readonly : 0), domid: domid,
                frame: UInt32(truncatingIfNeeded: page)))
    }

    /// By compare-and-swap. False: it is in use.
    func endGrant(_ reference: UInt32) -> Bool {
        guard let place = unsafe pointer(Self.place(ofEntry: reference)) else { return false }
        let flags = unsafe place.assumingMemoryBound(to: Atomic<UInt16>.self)
        while true {
            let seen = unsafe flags.pointee.load(ordering: .acquiring)
            if seen & (GrantABI.GTF.reading | GrantABI.GTF.writing) != 0 { return false }
            if unsafe flags.pointee.compareExchange(
                expected: seen, desired: 0, ordering: .sequentiallyConsistent
            ).exchanged {
                return true
            }
        }
    }

    func putMap(
        _ reference: UInt32, of domid: UInt16, at address: UInt64, flags: UInt32,
        in arguments: UInt64 = Place.arguments
    ) throws {
        typealias Fields = GrantABI.MapGrantRef
        try store(address, at: arguments + UInt64(Fields.hostAddr))
        try store(flags, at: arguments + UInt64(Fields.flags))
        try store(reference, at: arguments + UInt64(Fields.ref))
        try store(domid, at: arguments + UInt64(Fields.dom))
        try store(0x7777 as Int16, at: arguments + UInt64(Fields.status))
        try store(UInt32.max, at: arguments + UInt64(Fields.handle))
    }

    /// GNTTABOP_map_grant_ref of one page.
    func map(
        _ reference: UInt32, of domid: UInt16, at address: UInt64, flags: UInt32 = GrantABI.GNTMAP.hostMap
    ) -> (status: Int16, handle: UInt32) {
        try! putMap(reference, of: domid, at: address, flags: flags)
        let result = call(XenABI.Hypercall.grantTableOp, GrantABI.GNTTABOP.mapGrantRef, Place.arguments, 1)
        precondition(result == 0, "map: \(result)")
        return (argument(GrantABI.MapGrantRef.status), argument(GrantABI.MapGrantRef.handle))
    }

    /// At a page of the window.
    func map(
        _ reference: UInt32, of domid: UInt16, atPage page: UInt64, readOnly: Bool = false
    ) -> (status: Int16, handle: UInt32) {
        map(
            reference, of: domid, at: page << 12,
            flags: GrantABI.GNTMAP.hostMap | (readOnly ? GrantABI.GNTMAP.readonly : 0))
    }

    func unmap(_ handle: UInt32, at address: UInt64) -> Int16 {
        typealias Fields = GrantABI.UnmapGrantRef
        try! store(address, at: Place.arguments + UInt64(Fields.hostAddr))
        try! store(0 as UInt64, at: Place.arguments + UInt64(Fields.devBusAddr))
        try! store(handle, at: Place.arguments + UInt64(Fields.handle))
        try! store(0x7777 as Int16, at: Place.arguments + UInt64(Fields.status))
        let result = call(XenABI.Hypercall.grantTableOp, GrantABI.GNTTABOP.unmapGrantRef, Place.arguments, 1)
        precondition(result == 0, "unmap: \(result)")
        return argument(Fields.status)
    }

    func unmap(_ handle: UInt32, atPage page: UInt64) -> Int16 { unmap(handle, at: page << 12) }

    /// A side of a copy.
    struct Side {
        var isGrant: Bool
        var number: UInt64
        var domid: UInt16
        var offset: UInt16
        static func page(_ page: UInt64, offset: UInt16 = 0, domid: UInt16 = XenABI.DOMID.selfID) -> Side {
            Side(isGrant: false, number: page, domid: domid, offset: offset)
        }
        static func grant(_ reference: UInt32, of domid: UInt16, offset: UInt16 = 0) -> Side {
            Side(isGrant: true, number: UInt64(reference), domid: domid, offset: offset)
        }
    }

    func copy(_ source: Side, _ target: Side, count: UInt16) -> Int16 {
        typealias Fields = GrantABI.Copy
        for (side, start) in [(source, Fields.source), (target, Fields.dest)] {
            let place = Place.arguments + UInt64(start)
            try! store(side.number, at: place + UInt64(GrantABI.CopySide.refOrGMFN))
            try! store(side.domid, at: place + UInt64(GrantABI.CopySide.domid))
            try! store(side.offset, at: place + UInt64(GrantABI.CopySide.offset))
        }
        let flags =
            (source.isGrant ? GrantABI.GNTCOPY.sourceGref : 0) | (target.isGrant ? GrantABI.GNTCOPY.destGref : 0)
        try! store(count, at: Place.arguments + UInt64(Fields.len))
        try! store(flags, at: Place.arguments + UInt64(Fields.flags))
        let result = call(XenABI.Hypercall.grantTableOp, GrantABI.GNTTABOP.copy, Place.arguments, 1)
        precondition(result == 0, "copy: \(result)")
        return argument(Fields.status)
    }

    // MARK: Ports: their number, or minus an errno

    func allocUnbound(for remote: UInt16, of domid: UInt16 = XenABI.DOMID.selfID) -> Int {
        typealias Fields = XenABI.EvtchnAllocUnbound
        let result = try! call(
            XenABI.Hypercall.eventChannelOp, XenABI.EVTCHNOP.allocUnbound,
            [.u16(Fields.dom, domid), .u16(Fields.remoteDom, remote)])
        return port(result, Fields.port)
    }

    func bindInterdomain(_ remote: UInt16, _ remotePort: UInt32) -> Int {
        typealias Fields = XenABI.EvtchnBindInterdomain
        let result = try! call(
            XenABI.Hypercall.eventChannelOp, XenABI.EVTCHNOP.bindInterdomain,
            [.u16(Fields.remoteDom, remote), .u32(Fields.remotePort, remotePort)])
        return port(result, Fields.localPort)
    }

    func bindVIRQ(_ number: UInt32, vcpu: UInt32 = 0) -> Int {
        typealias Fields = XenABI.EvtchnBindVIRQ
        let result = try! call(
            XenABI.Hypercall.eventChannelOp, XenABI.EVTCHNOP.bindVIRQ,
            [.u32(Fields.virq, number), .u32(Fields.vcpu, vcpu)])
        return port(result, Fields.port)
    }

    func bindIPI(vcpu: UInt32 = 0) -> Int {
        typealias Fields = XenABI.EvtchnBindIPI
        let result = try! call(
            XenABI.Hypercall.eventChannelOp, XenABI.EVTCHNOP.bindIPI, [.u32(Fields.vcpu, vcpu)])
        return port(result, Fields.port)
    }

    private func portCall(_ operation: UInt32, _ port: Int) -> Int64 {
        try! call(XenABI.Hypercall.eventChannelOp, operation, [.u32(0, UInt32(truncatingIfNeeded: port))])
    }

    @discardableResult func closePort(_ port: Int) -> Int64 { portCall(XenABI.EVTCHNOP.close, port) }
    @discardableResult func send(_ port: Int) -> Int64 { portCall(XenABI.EVTCHNOP.send, port) }
    @discardableResult func unmask(_ port: Int) -> Int64 { portCall(XenABI.EVTCHNOP.unmask, port) }

    struct Status: Equatable {
        var kind: UInt32
        var domid: UInt16 = 0
        var port: UInt32 = 0
    }

    func status(_ port: Int, of domid: UInt16 = XenABI.DOMID.selfID) -> (result: Int64, Status) {
        typealias Fields = XenABI.EvtchnStatus
        let result = try! call(
            XenABI.Hypercall.eventChannelOp, XenABI.EVTCHNOP.status,
            [
                .u16(Fields.dom, domid), .u32(Fields.port, UInt32(truncatingIfNeeded: port)),
                .u64(Fields.detail, 0),
            ])
        return (
            result,
            Status(
                kind: argument(Fields.status), domid: argument(Fields.interdomainDom),
                port: argument(Fields.interdomainPort))
        )
    }

    // MARK: Events, as the Guest sees them

    /// Where shared_info and vcpu_info are, as guest-physical addresses.
    var sharedInfo = Place.sharedInfo << 12
    var vcpuInfo = Place.sharedInfo << 12

    func atomic(_ address: UInt64) -> UnsafeMutablePointer<Atomic<UInt64>> {
        guard let place = unsafe pointer(address) else { preconditionFailure("no memory at \(address)") }
        return unsafe place.assumingMemoryBound(to: Atomic<UInt64>.self)
    }

    private func bits(_ offset: Int, _ port: Int) -> UInt64 {
        unsafe atomic(sharedInfo + UInt64(offset + port / 64 * 8)).pointee.load(ordering: .sequentiallyConsistent)
    }

    func isPending(_ port: Int) -> Bool {
        bits(XenABI.SharedInfo.evtchnPending, port) >> UInt64(port % 64) & 1 != 0
    }

    func setMasked(_ port: Int, _ isMasked: Bool) {
        let word = unsafe atomic(sharedInfo + UInt64(XenABI.SharedInfo.evtchnMask + port / 64 * 8))
        let bit: UInt64 = 1 << UInt64(port % 64)
        if isMasked {
            _ = unsafe word.pointee.bitwiseOr(bit, ordering: .sequentiallyConsistent)
        } else {
            _ = unsafe word.pointee.bitwiseAnd(~bit, ordering: .sequentiallyConsistent)
        }
    }

    var selector: UInt64 {
        get {
            unsafe atomic(vcpuInfo + UInt64(XenABI.VCPUInfo.evtchnPendingSel)).pointee.load(
                ordering: .sequentiallyConsistent)
        }
        set {
            unsafe atomic(vcpuInfo + UInt64(XenABI.VCPUInfo.evtchnPendingSel)).pointee.store(
                newValue, ordering: .sequentiallyConsistent)
        }
    }

    private var upcallByte: UnsafeMutablePointer<Atomic<UInt8>> {
        guard let place = unsafe pointer(vcpuInfo) else { preconditionFailure("no vcpu_info") }
        return unsafe place.assumingMemoryBound(to: Atomic<UInt8>.self)
    }

    var upcallPending: Bool {
        get { unsafe upcallByte.pointee.load(ordering: .sequentiallyConsistent) != 0 }
        set { unsafe upcallByte.pointee.store(newValue ? 1 : 0, ordering: .sequentiallyConsistent) }
    }

    /// What a kernel does when it is interrupted: the ports whose bits it has found and cleared.
    func takeEvents() -> [Int] {
        var ports: [Int] = []
        repeat { ports += takeEventsOnce() } while upcallPending
        return ports
    }

    /// The same, without a second look.
    func takeEventsOnce() -> [Int] {
        var ports: [Int] = []
        unsafe upcallByte.pointee.store(0, ordering: .sequentiallyConsistent)
        let words = unsafe atomic(vcpuInfo + UInt64(XenABI.VCPUInfo.evtchnPendingSel)).pointee.exchange(
            0, ordering: .sequentiallyConsistent)
        for index in 0..<64 where words >> UInt64(index) & 1 != 0 {
            let mask = bits(XenABI.SharedInfo.evtchnMask, index * 64)
            let word = unsafe atomic(sharedInfo + UInt64(XenABI.SharedInfo.evtchnPending + index * 8))
            let found = unsafe word.pointee.bitwiseAnd(mask, ordering: .sequentiallyConsistent).oldValue & ~mask
            ports += (0..<64).filter { found >> UInt64($0) & 1 != 0 }.map { index * 64 + $0 }
        }
        return ports
    }

    func registerVCPUInfo(at address: UInt64) -> Int64 {
        typealias Fields = XenABI.RegisterVCPUInfo
        try! store(address >> 12, at: Place.arguments + UInt64(Fields.mfn))
        try! store(UInt32(address & 4095), at: Place.arguments + UInt64(Fields.offset))
        return call(XenABI.Hypercall.vcpuOp, XenABI.VCPUOP.registerVCPUInfo, 0, Place.arguments)
    }

    func setParam(_ index: UInt32, _ value: UInt64, of domid: UInt16 = XenABI.DOMID.selfID) -> Int64 {
        typealias Fields = XenABI.HVMParam
        return try! call(
            XenABI.Hypercall.hvmOp, XenABI.HVMOP.setParam,
            [.u16(Fields.domid, domid), .u32(Fields.index, index), .u64(Fields.value, value)])
    }

    func getParam(_ index: UInt32, of domid: UInt16 = XenABI.DOMID.selfID) -> (result: Int64, value: UInt64) {
        typealias Fields = XenABI.HVMParam
        let result = try! call(
            XenABI.Hypercall.hvmOp, XenABI.HVMOP.getParam,
            [.u16(Fields.domid, domid), .u32(Fields.index, index), .u64(Fields.value, .max)])
        return (result, argument(Fields.value))
    }

    /// Interrupts by a vector from now on.
    @discardableResult func listen() -> Int64 {
        setParam(XenABI.HVMPARAM.callbackIRQ, XenABI.HVMPARAM.callbackTypeVector << 56 | 0xf3)
    }

    // MARK: XenMachine

    /// Interrupts so far.
    var upcalls: Int { upcallCount.load(ordering: .sequentiallyConsistent) }
    /// Called with each, under the house's lock.
    var onUpcall: (@Sendable () -> Void)?

    private func upcall(_ kind: String) -> @Sendable () -> Void {
        upcallKinds.append(kind)
        return { [self] in
            upcallCount.wrappingAdd(1, ordering: .sequentiallyConsistent)
            onUpcall?()
        }
    }

    func upcall(directly vector: UInt8) -> (@Sendable () -> Void)? { upcall("directly \(vector)") }
    func upcall(byMessage vector: UInt8) -> (@Sendable () -> Void)? { upcall("message \(vector)") }
    func upcall(byLine number: Int) -> (@Sendable () -> Void)? {
        (1..<24).contains(number) ? upcall("line \(number)") : nil
    }

    func shutDown(_ reason: UInt32) -> Bool {
        shutdowns.append(reason)
        return shutdownReasons.contains(reason)
    }

    /// What the machine says when it is asked.
    var isStopping = false

    func flushTranslations() { flushes += 1 }
}
