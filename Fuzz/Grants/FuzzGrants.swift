internal import Glibc
internal import Grants
internal import GuestMemory
internal import HostInterface
internal import X86

// libFuzzer's target for a Guest that sees Xen: the bytes are what it does with
// its hypercalls, its grant table, its page tables and its end of the store,
// one thing after the other. Beside it stands a neighbour that has granted it
// one page to write to and one to read; after each script nothing else of the
// neighbour's may have changed, and the Host must serve the Guest's next life.

/// A domain with page tables that map its first 2 MiB to themselves, and the next 2 MiB: its window.
private final class Guest: XenMachine {
    enum Place {
        static let tables: UInt64 = 0x1000, arguments: UInt64 = 0x8000
        static let sharedInfo: UInt64 = 10, grantFrame: UInt64 = 11, store: UInt64 = 0x3ff
        static let granted: UInt64 = 20, readOnly: UInt64 = 21
        static let window: UInt64 = 0x200
    }

    let house: DomainHouse
    let memory: GuestMemory
    let domain: Domain
    private(set) var interface: XenInterface!

    init(in house: DomainHouse) throws {
        self.house = house
        memory = try GuestMemory(
            byteCount: 1 << 20, hasHole: false, foreignWindows: [Place.window << 12..<(Place.window + 512) << 12])
        domain = try house.open(name: "guest", memory: memory)
        interface = XenInterface(domain, of: house, on: self)
        try begin()
    }

    func begin() throws {
        try interface.begin(storeAt: Place.store << 12)
        let rights: UInt64 = 7
        put(Place.tables + 0x1000 | rights, at: Place.tables)
        put(Place.tables + 0x2000 | rights, at: Place.tables + 0x1000)
        put(rights | PageEntry.large, at: Place.tables + 0x2000)
        put(Place.window << 12 | rights | PageEntry.large, at: Place.tables + 0x2008)
        add(XenABI.XENMAPSPACE.sharedInfo, Place.sharedInfo)
        add(XenABI.XENMAPSPACE.grantTable, Place.grantFrame)
    }

    private func add(_ space: UInt32, _ page: UInt64) {
        put(UInt64(space) << 32 | UInt64(XenABI.DOMID.selfID), at: Place.arguments)
        put(0, at: Place.arguments + 8)
        put(page, at: Place.arguments + 16)
        call(XenABI.Hypercall.memoryOp, UInt64(XenABI.XENMEM.addToPhysmap), Place.arguments, 0)
    }

    /// To wherever there is memory.
    func put(_ value: UInt64, at address: UInt64) { try? memory.store(value, at: GuestPhysicalAddress(address)) }

    func grant(_ reference: UInt64, _ flags: UInt16, to domid: UInt16, frame: UInt32) {
        put(UInt64(frame) << 32 | UInt64(domid) << 16 | UInt64(flags), at: Place.grantFrame << 12 + reference * 8)
    }

    func call(_ number: UInt64, _ first: UInt64, _ second: UInt64, _ third: UInt64) {
        _ = interface.call(number, first, second, third, cr3: Place.tables)
    }

    private static let deaf: @Sendable () -> Void = {}
    func upcall(directly vector: UInt8) -> (@Sendable () -> Void)? { Self.deaf }
    func upcall(byMessage vector: UInt8) -> (@Sendable () -> Void)? { vector & 1 == 0 ? nil : Self.deaf }
    func upcall(byLine number: Int) -> (@Sendable () -> Void)? { number < 32 ? Self.deaf : nil }
    func shutDown(_ reason: UInt32) -> Bool { reason == 0 }
    let isStopping = false
    func flushTranslations() {}
}

/// The script, read from front to back; behind its end are zeros.
private struct Script {
    private var bytes: ArraySlice<UInt8>
    init(_ bytes: [UInt8]) { self.bytes = bytes[...] }
    var isOver: Bool { bytes.isEmpty }
    mutating func byte() -> UInt8 { bytes.popFirst() ?? 0 }
    mutating func half() -> UInt16 { UInt16(byte()) | UInt16(byte()) << 8 }
    mutating func word() -> UInt64 { (0..<8).reduce(0) { word, place in word | UInt64(byte()) << UInt64(8 * place) } }

    /// Any 64 bits, or, more often, one of those that mean something.
    mutating func number() -> UInt64 {
        let kind = byte()
        switch kind & 7 {
        case 0: return word()
        case 1: return Guest.Place.window << 12 + UInt64(byte()) << 12
        case 2: return Guest.Place.arguments + UInt64(byte())
        case 3: return UInt64(XenABI.DOMID.selfID)
        default: return UInt64(byte())
        }
    }
}

private let calls: [UInt64] = [
    XenABI.Hypercall.grantTableOp, XenABI.Hypercall.eventChannelOp, XenABI.Hypercall.memoryOp, XenABI.Hypercall.hvmOp,
    XenABI.Hypercall.vcpuOp, XenABI.Hypercall.schedOp, XenABI.Hypercall.xenVersion,
]

private func play(_ script: inout Script, _ guest: Guest) throws {
    while !script.isOver {
        switch script.byte() & 7 {
        case 0, 1:
            // A struct, and the call that takes it.
            for place in 0..<UInt64(script.byte() & 7) {
                guest.put(script.number(), at: Guest.Place.arguments + place * 8)
            }
            let number = calls[Int(script.byte()) % calls.count]
            guest.call(number, UInt64(script.byte() & 31), Guest.Place.arguments, UInt64(script.byte() & 3))
        case 2: guest.call(script.word(), script.number(), script.number(), script.number())
        case 3:
            guest.grant(
                UInt64(script.half() & 511), script.half(), to: UInt16(script.byte()), frame: UInt32(script.half()))
        case 4: guest.put(script.word(), at: UInt64(script.byte()) << 12 + UInt64(script.half() & 0xff8))
        case 5:
            // Its end of the store: a message, its index, and the bell.
            let store = Guest.Place.store << 12
            for place in 0..<UInt64(script.byte() & 31) { guest.put(script.word(), at: store + place * 8) }
            guest.put(UInt64(script.half()) << 32, at: store + 2048)
            guest.put(1, at: Guest.Place.arguments)
            guest.call(XenABI.Hypercall.eventChannelOp, UInt64(XenABI.EVTCHNOP.send), Guest.Place.arguments, 0)
        case 6: guest.put(script.word(), at: Guest.Place.tables + UInt64(script.half() & 0x3ff8))
        default:
            guest.house.end(guest.domain)
            try guest.begin()
        }
    }
}

/// Two domains that live from script to script, and what the neighbour has that is its own.
private struct World {
    let guest, neighbour: Guest
    let secrets: [[UInt8]]

    /// What is on either side of the page that the Guest may write to.
    private static let own = [16..<Guest.Place.granted, Guest.Place.granted + 1..<256]

    init() throws {
        let house = DomainHouse()
        guest = try Guest(in: house)
        let neighbour = try Guest(in: house)
        self.neighbour = neighbour
        for page in 16..<UInt64(256) { neighbour.put(page &* 0x0101_0101_0101_0101, at: page << 12) }
        secrets = try Self.own.map { try Self.read($0, neighbour) }
    }

    private static func read(_ pages: Range<UInt64>, _ neighbour: Guest) throws -> [UInt8] {
        try neighbour.memory.read(GuestPhysicalAddress(pages.lowerBound << 12), count: pages.count << 12)
    }

    func run(_ script: consuming Script) throws {
        neighbour.grant(8, GrantABI.GTF.permitAccess, to: guest.domain.id, frame: UInt32(Guest.Place.granted))
        neighbour.grant(
            9, GrantABI.GTF.permitAccess | GrantABI.GTF.readonly, to: guest.domain.id,
            frame: UInt32(Guest.Place.readOnly))
        try play(&script, guest)
        for (pages, secret) in zip(Self.own, secrets) {
            let place = GuestPhysicalAddress(pages.lowerBound << 12)
            guard let now = unsafe neighbour.memory.hostPointer(place, secret.count) else { fatalError("no memory") }
            // Byte by byte it would take longer than all the rest.
            let isSame = unsafe secret.withUnsafeBytes { unsafe memcmp($0.baseAddress!, now, secret.count) == 0 }
            precondition(isSame, "a neighbour's page has changed")
        }
        // Its next life begins in memory that is empty, and nothing of the last one is left.
        guest.house.end(guest.domain)
        precondition(guest.house.report.allSatisfy { $0.mappings.isEmpty && $0.grants.allSatisfy { $0.mappings == 0 } })
        guest.memory.clear()
        try guest.begin()
    }
}

nonisolated(unsafe) private let world: World = {
    do { return try World() } catch { fatalError("\(error)") }
}()

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOne(_ start: UnsafePointer<UInt8>, _ count: Int) -> Int32 {
    let bytes = unsafe [UInt8](UnsafeBufferPointer(start: start, count: count))
    do { unsafe try world.run(Script(bytes)) } catch { fatalError("\(error)") }
    return 0
}
