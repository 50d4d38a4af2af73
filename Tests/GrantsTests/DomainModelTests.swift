import CPUOracle
import Grants
import GuestMemory
import HostInterface
import Synchronization
import Testing

/// What two to six domains do to each other, against `DomainModel`. `ROOST_SEED` chooses the sequence.
@Suite struct DomainModelTests {
    private static let steps = 100_000

    @Test func domainsSeeWhatTheModelSays() throws {
        let seed = environmentVariable("ROOST_SEED").flatMap { UInt64($0) } ?? .random(in: 0 ... .max)
        print("DomainModelTests: ROOST_SEED=\(seed)")
        var play = try DomainPlay(seed: seed)
        for step in 0..<Self.steps {
            let action = try play.step()
            if let difference = play.difference() {
                Issue.record("seed \(seed), step \(step), \(action): \(difference)")
                return
            }
        }
        play.end()
        print("DomainModelTests: \(play.counts.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" })")
        for outcome in [
            "open", "close", "reset", "grant", "overwritten", "ended", "in use", "map 0", "map -1", "map -2", "map -3",
            "map -5", "map -9", "unmap 0", "unmap -1", "unmap -4", "unmap severed", "copy 0", "copy -1", "copy -2",
            "copy -3", "copy -8", "copy -9", "copy -10", "placed", "not placed", "removed", "bound", "not bound",
            "sent", "not sent", "interrupted", "own copy of a page", "moved",
        ] {
            #expect(play.counts[outcome, default: 0] > 0, "the sequence never came to: \(outcome)")
        }
    }
}

/// One sequence, played to a house and to the model.
private struct DomainPlay {
    typealias Model = DomainModel
    typealias Layout = DomainModel.Layout

    private static let references: [UInt32] =
        Array(8..<18) + [511, 512, 513, 514, 1023, 1024, 1025, 1535, 1536, 40_000, .max]

    private var random: SeededGenerator
    private let house = DomainHouse()
    private var model = DomainModel()
    private var guests: [UInt16: XenGuest] = [:]
    private var problem: String?
    private var lastContent: UInt64 = 0
    private(set) var counts: [String: Int] = [:]

    init(seed: UInt64) throws {
        random = SeededGenerator(seed: seed)
        for _ in 0..<2 { try open() }
    }

    private mutating func count(_ outcome: String) { counts[outcome, default: 0] += 1 }

    private mutating func expect<T: Equatable>(_ what: String, _ found: T, _ expected: T) {
        if found != expected { problem = "\(what): \(found) instead of \(expected)" }
    }

    private mutating func newContent() -> Model.Content {
        lastContent += 4
        return Model.Content(lastContent, lastContent + 1, lastContent + 2, lastContent + 3)
    }

    // MARK: Steps

    private mutating func anybody() -> UInt16 { random.pick(guests.keys.sorted()) }

    /// Most often one that is there.
    private mutating func domid() -> UInt16 {
        random.chance(95) ? anybody() : random.pick([0, 7, 8, 0x7ff0, 0x7ff4, .max])
    }

    private mutating func page() -> UInt64 {
        random.chance(50) ? UInt64(random.below(16)) + Layout.ram.lowerBound : windowPage()
    }

    private mutating func windowPage() -> UInt64 {
        UInt64(random.below(Layout.window.count)) + Layout.window.lowerBound
    }

    private mutating func badPage() -> UInt64 {
        random.pick([300, 0x218, 0x1000, 1 << 40, 1 << 52 | 17, 1 << 52 | 0x203, .max >> 12, .max])
    }

    /// - Returns: what it was.
    mutating func step() throws -> String {
        let id = anybody()
        guard let guest = guests[id] else { preconditionFailure("no guest \(id)") }
        switch random.below(1000) {
        case 0..<3 where guests.count < 6:
            try open()
            return "open"
        case 5..<7 where guests.count > 2:
            guest.close()
            guests[id] = nil
            model.close(id)
            count("close")
            return "close \(id)"
        case 8..<11:
            guest.reset()
            model.end(id)
            model.begin(id)
            guest.vcpuInfo = guest.sharedInfo
            count("reset")
            return "reset \(id)"
        case 11..<150: return grant(id, guest)
        case 150..<200: return takeBack(id, guest)
        case 200..<380: return map(id, guest)
        case 380..<520: return unmap(id, guest)
        case 520..<620: return copy(id, guest)
        case 620..<720: return write(id, guest)
        case 720..<770: return placeSpecial(id, guest)
        default: return events(id, guest)
        }
    }

    private mutating func open() throws {
        let guest = try XenGuest(in: house, windowPages: UInt64(Layout.window.count), isPlaced: false)
        expect("number", guest.id, model.open())
        guests[guest.id] = guest
        for page in Layout.ram {
            let content = newContent()
            put(guest, page, content)
            model.write(guest.id, page, content)
        }
        count("open")
    }

    mutating func end() {
        for guest in guests.values { guest.close() }
        guests = [:]
    }

    // MARK: Pages

    private static let offsets: [UInt64] = [0, 8, 4080, 4088]

    private func content(_ guest: XenGuest, _ page: UInt64) -> Model.Content? {
        guard let place = unsafe guest.pointer(page << 12, 4096) else { return nil }
        return unsafe Model.Content(
            place.load(fromByteOffset: 0, as: UInt64.self), place.load(fromByteOffset: 8, as: UInt64.self),
            place.load(fromByteOffset: 4080, as: UInt64.self), place.load(fromByteOffset: 4088, as: UInt64.self))
    }

    private func put(_ guest: XenGuest, _ page: UInt64, _ content: Model.Content) {
        guard let place = unsafe guest.pointer(page << 12, 4096) else { return }
        for (word, offset) in Self.offsets.enumerated() {
            unsafe place.storeBytes(of: content[word], toByteOffset: Int(offset), as: UInt64.self)
        }
    }

    private mutating func write(_ id: UInt16, _ guest: XenGuest) -> String {
        let page = page()
        guard case .content = model.view(id, page) else { return "no write \(id), \(page)" }
        if Layout.window.contains(page),
            case .foreign(_, true, _) = model[id].window[Int(page - Layout.window.lowerBound)]
        {
            count("own copy of a page")
        }
        let content = newContent()
        put(guest, page, content)
        model.write(id, page, content)
        return "write \(id), \(page)"
    }

    private mutating func placeSpecial(_ id: UInt16, _ guest: XenGuest) -> String {
        if random.chance(20) {
            let page = page()
            let expected = model.unplace(id, at: page)
            expect("remove", Int(guest.removeFromPhysmap(page: page)), expected)
            if expected == 0 { count("removed") }
            return "remove \(id), \(page)"
        }
        // A domain without its table does little.
        let first = [2, 0].first { model[id].specials[$0] == nil && random.chance(70) }
        let special = first ?? random.pick(Layout.specials)
        let page = random.chance(10) ? badPage() : self.page()
        let expected = model.place(id, special, at: page)
        let found =
            special == 0
            ? guest.addToPhysmap(XenABI.XENMAPSPACE.sharedInfo, 0, at: page)
            : guest.addToPhysmap(XenABI.XENMAPSPACE.grantTable, UInt64(special - 2), at: page)
        expect("place", Int(found), expected)
        count(expected == 0 ? "placed" : "not placed")
        return "place \(id), \(special) at \(page)"
    }

    // MARK: Grants

    /// Where an entry is, for the domain whose table it is in; nil where it cannot see it.
    private func entry(_ id: UInt16, _ reference: UInt32) -> UnsafeMutablePointer<Atomic<UInt64>>? {
        guard let guest = guests[id], reference < 1536,
            let page = model[id].specials[2 + Int(reference / 512)],
            let place = unsafe guest.pointer(page << 12 + UInt64(reference % 512) * 8)
        else { return nil }
        return unsafe place.assumingMemoryBound(to: Atomic<UInt64>.self)
    }

    private mutating func grant(_ id: UInt16, _ guest: XenGuest) -> String {
        let reference = random.pick(Self.references)
        guard let place = unsafe entry(id, reference) else { return "no grant \(id)" }
        var entry = Model.Entry(
            flags: random.chance(30) ? 5 : 1, domid: domid(),
            frame: random.chance(90) ? UInt32(Layout.ram.lowerBound) + UInt32(random.below(16)) : 0x203)
        if random.chance(5) { entry.flags = UInt16(truncatingIfNeeded: random.next()) }
        let isInUse = model[id].active[reference] != nil
        // Over one in use only one who keeps no rules writes.
        if isInUse, random.chance(70) { return "grant \(id), \(reference) is in use" }
        if isInUse { model[id].spoilt.insert(reference) }
        count(isInUse ? "overwritten" : "grant")
        unsafe place.pointee.store(
            UInt64(entry.flags) | UInt64(entry.domid) << 16 | UInt64(entry.frame) << 32,
            ordering: .sequentiallyConsistent)
        model[id].entries[reference] = entry
        return "grant \(id), \(reference): \(entry)"
    }

    /// By compare-and-swap of the flags, as Linux does.
    private mutating func takeBack(_ id: UInt16, _ guest: XenGuest) -> String {
        let reference = random.pick(Self.references)
        guard let place = unsafe entry(id, reference) else { return "no end \(id)" }
        let flags = unsafe UnsafeMutableRawPointer(place).assumingMemoryBound(to: Atomic<UInt16>.self)
        let seen = unsafe flags.pointee.load(ordering: .acquiring)
        let entry = model[id].entries[reference] ?? Model.Entry()
        expect("flags of \(reference)", seen, entry.flags)
        guard seen & 0x18 == 0 else {
            count("in use")
            return "end \(id), \(reference) is in use"
        }
        unsafe flags.pointee.store(0, ordering: .sequentiallyConsistent)
        let isSpoilt = model[id].spoilt.contains(reference)
        if model[id].active[reference] != nil, !isSpoilt { problem = "\(id), \(reference) ended while in use" }
        model[id].entries[reference] = Model.Entry(domid: entry.domid, frame: entry.frame)
        count("ended")
        return "end \(id), \(reference)"
    }

    /// A grant that is there, more often than not.
    private mutating func anyGrant(for id: UInt16) -> (granter: UInt16, reference: UInt32) {
        if random.chance(80) {
            let good = model.domains.keys.sorted().flatMap { granter in
                model[granter].entries.filter { $0.value.domid == id && $0.value.flags & 3 == 1 }.keys.sorted()
                    .map { (granter, $0) }
            }
            if !good.isEmpty { return random.pick(good) }
        }
        return (domid(), random.pick(Self.references))
    }

    private mutating func map(_ id: UInt16, _ guest: XenGuest) -> String {
        let (granter, reference) = anyGrant(for: id)
        var address = random.chance(95) ? windowPage() << 12 : random.pick([0, 16 << 12, 300 << 12, 1 << 40, .max])
        if random.chance(2) { address &+= 8 }
        var flags: UInt32 = random.chance(40) ? 6 : 2
        if random.chance(3) { flags = random.pick([0, 4, 1, 3, 8, 0x10, 0x12, 0xa, 0x1_0002]) }
        let expected = model.map(id, reference, of: granter, at: address, flags: flags)
        let flushes = guest.flushes
        let found = guest.map(reference, of: granter, at: address, flags: flags)
        expect("map", found.status, expected.status)
        if let handle = expected.handle { expect("handle", found.handle, handle) }
        expect("flushes", guest.flushes - flushes, expected.status == 0 && flags & 4 != 0 ? 1 : 0)
        count("map \(expected.status)")
        return "map \(id), \(reference) of \(granter) at \(address >> 12), flags \(flags)"
    }

    private mutating func unmap(_ id: UInt16, _ guest: XenGuest) -> String {
        let handles = model[id].handles
        let live = handles.indices.filter { handles[$0] != nil }
        // Now and then so many that there is no room left.
        if live.count < 20, random.chance(40) { return map(id, guest) }
        let handle =
            live.isEmpty || random.chance(5) ? random.pick([0, 1, 30, .max]) : UInt32(random.pick(live))
        let mapping = handles.indices.contains(Int(handle)) ? handles[Int(handle)] : nil
        var address = (mapping?.page ?? windowPage()) << 12
        if random.chance(10) { address = random.pick([0, address + 1, windowPage() << 12]) }
        let expected = model.unmap(id, handle, at: address)
        expect("unmap", guest.unmap(handle, at: address), expected)
        count(expected == 0 && mapping?.isSevered == true ? "unmap severed" : "unmap \(expected)")
        return "unmap \(id), \(handle) at \(address >> 12)"
    }

    private mutating func copySide(_ id: UInt16) -> Model.Side {
        let word = random.below(2) * 2
        if random.chance(60) {
            let (granter, reference) = anyGrant(for: id)
            return Model.Side(isGrant: true, number: UInt64(reference), domid: granter, word: word)
        }
        return Model.Side(
            isGrant: false, number: random.chance(95) ? page() : random.pick([300, 0x218, 0x1000, .max]),
            domid: random.chance(90) ? random.pick([0x7ff0, id]) : domid(), word: word)
    }

    private mutating func copy(_ id: UInt16, _ guest: XenGuest) -> String {
        var (source, target) = (copySide(id), copySide(id))
        for side in [source, target] where !side.isGrant && model[id].special(at: side.number) != nil {
            return "no copy \(id)"
        }
        let words = 1 + random.below(2)
        if random.chance(3) { source.word = 3 }
        if random.chance(3) { target.word = 3 }
        let expected = model.copy(id, source, target, words: words)
        func side(_ side: Model.Side) -> XenGuest.Side {
            XenGuest.Side(
                isGrant: side.isGrant, number: side.number, domid: side.domid, offset: UInt16(side.offset))
        }
        expect("copy", guest.copy(side(source), side(target), count: UInt16(words * 8)), expected)
        count("copy \(expected)")
        return "copy \(id), \(source) to \(target), \(words)"
    }

    // MARK: Events

    private func seesEvents(_ id: UInt16) -> Bool { model[id].specials[0] != nil }

    private mutating func anyPort(_ id: UInt16) -> Int {
        let ports = model[id].ports
        let open = ports.indices.filter { ports[$0] != .closed }
        if !open.isEmpty, random.chance(80) { return random.pick(open) }
        return random.chance(90) ? random.below(ports.count + 1) : random.pick([4095, 4096, 1 << 20])
    }

    private mutating func events(_ id: UInt16, _ guest: XenGuest) -> String {
        let isFull = model[id].ports.count > 60
        // Where the Guest sees them just now.
        if let page = model[id].specials[0] {
            guest.sharedInfo = page << 12
            if !model[id].hasMovedInfo { guest.vcpuInfo = guest.sharedInfo }
        }
        switch random.below(22) {
        case 0...1 where !isFull:
            let remote = domid()
            expect("alloc_unbound", guest.allocUnbound(for: remote), model.allocUnbound(id, for: remote))
            return "alloc_unbound \(id) for \(remote)"
        case 2...4 where !isFull:
            let hosts = model.domains.keys.sorted().filter { model[$0].ports.contains(.unbound(id)) }
            let remote = hosts.isEmpty || random.chance(20) ? domid() : random.pick(hosts)
            let waiting = model.domains[remote]?.ports.indices.filter {
                model[remote].ports[$0] == .unbound(id)
            }
            let port = waiting.flatMap { $0.isEmpty || random.chance(20) ? nil : random.pick($0) } ?? random.below(12)
            let expected = model.bindInterdomain(id, remote, port)
            expect("bind_interdomain", guest.bindInterdomain(remote, UInt32(port)), expected)
            count(expected > 0 ? "bound" : "not bound")
            return "bind_interdomain \(id), \(remote) \(port)"
        case 5 where !isFull:
            let number = UInt32(random.below(26))
            expect("bind_virq", guest.bindVIRQ(number), model.bindVirtual(id, number))
            return "bind_virq \(id), \(number)"
        case 6 where !isFull:
            expect("bind_ipi", guest.bindIPI(), model.bindInterprocessor(id))
            return "bind_ipi \(id)"
        case 7...8:
            let port = anyPort(id)
            expect("close", Int(guest.closePort(port)), model.close(id, port))
            return "close \(id), \(port)"
        case 9...13:
            let port = anyPort(id)
            if model[id].port(port) == .store { return "no send" }
            let expected = model.send(id, port)
            expect("send", Int(guest.send(port)), expected)
            count(expected == 0 ? "sent" : "not sent")
            return "send \(id), \(port)"
        case 14:
            let port = anyPort(id)
            expect("unmask", Int(guest.unmask(port)), model.unmask(id, port))
            return "unmask \(id), \(port)"
        case 15...16:
            guard seesEvents(id) else { return "no mask" }
            let (port, isMasked) = (random.below(60), random.chance(60))
            guest.setMasked(port, isMasked)
            if isMasked {
                model[id].mask |= 1 << UInt64(port)
            } else {
                model[id].mask &= ~(1 << UInt64(port))
            }
            return "mask \(id), \(port), \(isMasked)"
        case 17:
            guest.listen()
            model.listen(id)
            return "listen \(id)"
        case 18 where random.chance(5):
            expect("move", Int(guest.registerVCPUInfo(at: XenGuest.Place.vcpuInfo)), model.moveInfo(id))
            guest.vcpuInfo = XenGuest.Place.vcpuInfo
            count("moved")
            return "move \(id)"
        case 19:
            let port = anyPort(id)
            return status(id, guest, port)
        default:
            guard seesEvents(id) else { return "no interrupt" }
            let expected = model.takeEvents(id)
            // Of other words there are only bits from when vcpu_info moved.
            expect("events", guest.takeEvents(), expected)
            if !expected.isEmpty { count("interrupted") }
            return "interrupt \(id)"
        }
    }

    private mutating func status(_ id: UInt16, _ guest: XenGuest, _ port: Int) -> String {
        let found = guest.status(port)
        guard (1..<4096).contains(port) else {
            expect("status", Int(found.result), Model.Errno.invalid)
            return "status \(id), \(port)"
        }
        let expected: XenGuest.Status =
            switch model[id].port(port) {
            case .closed: .init(kind: 0)
            case .unbound(let remote): .init(kind: 1, domid: remote)
            case .interdomain(let remote, let remotePort): .init(kind: 2, domid: remote, port: UInt32(remotePort))
            case .store: .init(kind: 2)
            case .virtual(let number): .init(kind: 4, domid: UInt16(number))
            case .interprocessor: .init(kind: 5)
            }
        expect("status of \(port)", found.1, expected)
        return "status \(id), \(port)"
    }

    // MARK: Comparing

    /// What a domain has that the model has not.
    func difference() -> String? {
        if let problem { return problem }
        for (id, guest) in guests {
            guard let domain = model.domains[id] else { return "domain \(id)" }
            if domain.mappingCount
                != domain.window.count(where: {
                    if case .foreign = $0 { true } else if case .severed = $0 { true } else { false }
                })
            {
                return "the model of \(id)"
            }
            for page in [Layout.ram, Layout.window].joined() {
                let found = content(guest, page)
                switch model.view(id, page) {
                case .special where found != nil: break
                case .nothing where found == nil: break
                case .content(let expected) where found == expected: break
                case let view: return "domain \(id), page \(page): \(String(describing: found)) instead of \(view)"
                }
            }
            for reference in Self.references {
                guard let place = unsafe entry(id, reference) else { continue }
                let found = XenGuest.entry(unsafe place.pointee.load(ordering: .relaxed))
                let expected = domain.entries[reference] ?? Model.Entry()
                if (found.flags, found.domid, found.frame) != (expected.flags, expected.domid, expected.frame) {
                    return "domain \(id), entry \(reference): \(found) instead of \(expected)"
                }
            }
            if guest.upcalls != domain.upcalls {
                return "domain \(id): \(guest.upcalls) interrupts instead of \(domain.upcalls)"
            }
            if let page = domain.specials[0] {
                let pending = try? guest.load(page << 12 + 0x800, as: UInt64.self)
                if pending != domain.pending {
                    return "domain \(id): pending \(String(describing: pending)) instead of \(domain.pending)"
                }
            }
            if let info = domain.hasMovedInfo ? XenGuest.Place.vcpuInfo : domain.specials[0].map({ $0 << 12 }) {
                let isCalled = try? guest.load(info, as: UInt8.self)
                let selector = try? guest.load(info + 8, as: UInt64.self)
                if isCalled != (domain.isCalled ? 1 : 0) || selector != domain.selector {
                    return "domain \(id): \(String(describing: isCalled)), \(String(describing: selector))"
                }
            }
        }
        return nil
    }
}
