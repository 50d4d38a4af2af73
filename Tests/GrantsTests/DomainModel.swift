/// Domains, their pages, grants and ports as they should be, in values alone: no memory, no addresses of the
/// host's, no locks. A page's content is four words of it.
struct DomainModel {
    typealias Content = SIMD4<UInt64>

    enum Layout {
        /// Pages of RAM that take part, the window's, and where all addresses end.
        static let ram: Range<UInt64> = 16..<32
        static let ramEnd: UInt64 = 256
        static let window: Range<UInt64> = 0x200..<0x218
        static let specials = [0, 2, 3, 4]
        static let reserved: UInt16 = 0x7ff0
    }

    enum Status {
        static let okay: Int16 = 0, general: Int16 = -1, badDomain: Int16 = -2, badReference: Int16 = -3
        static let badHandle: Int16 = -4, badAddress: Int16 = -5, denied: Int16 = -8, badPage: Int16 = -9
        static let badCopy: Int16 = -10
    }
    enum Errno { static let noProcess = -3, exists = -17, invalid = -22 }

    /// What is at a page of the window.
    enum Slot {
        case nothing
        /// A page of another's; of one for reading only, the copy that the mapper has made by writing to it.
        case foreign(Int, isReadOnly: Bool, copy: Content?)
        case severed(Content)
        case special(Int)
    }

    struct Entry: Equatable {
        var flags: UInt16 = 0
        var domid: UInt16 = 0
        var frame: UInt32 = 0
    }

    struct Active {
        /// Which content, and which page of the granter's.
        let page: Int
        let frame: UInt64
        let mapper: UInt16
        var readers = 0
        var writers = 0
    }

    struct Mapping {
        let granter: UInt16
        let reference: UInt32
        let page: UInt64
        let isReadOnly: Bool
        var isSevered = false
    }

    enum Port: Equatable {
        case closed, unbound(UInt16), interdomain(UInt16, Int), virtual(UInt32), interprocessor, store
    }

    struct Domain {
        /// The number of each page's content.
        let ram: [Int]
        var window = [Slot](repeating: .nothing, count: Layout.window.count)
        var specials: [Int: UInt64] = [:]
        var entries: [UInt32: Entry] = [:]
        /// Entries that their owner has written over while they were in use.
        var spoilt: Set<UInt32> = []
        var frameCount = 1
        var active: [UInt32: Active] = [:]
        var handles: [Mapping?] = []
        var free: [UInt32] = []
        var ports: [Port] = [.closed]
        var pending: UInt64 = 0
        var mask: UInt64 = 0
        var selector: UInt64 = 0
        var isCalled = false
        var listens = false
        var hasMovedInfo = false
        var upcalls = 0

        func special(at page: UInt64) -> Int? { specials.first { $0.value == page }?.key }
        func port(_ number: Int) -> Port { ports.indices.contains(number) ? ports[number] : .closed }
        var mappingCount: Int { handles.count - free.count }

        /// The number of the content that others would get.
        func source(_ frame: UInt64) -> Int? {
            Layout.ram.contains(frame) && special(at: frame) == nil ? ram[Int(frame - Layout.ram.lowerBound)] : nil
        }

        mutating func add(_ port: Port) -> Int {
            let number = ports.dropFirst().firstIndex(of: .closed) ?? ports.count
            if number == ports.count { ports.append(port) } else { ports[number] = port }
            pending &= ~(1 << UInt64(number))
            return number
        }

        mutating func select() {
            let isNew = selector & 1 == 0
            selector |= 1
            if isNew { call() }
        }

        private mutating func call() {
            let isNew = !isCalled
            isCalled = true
            if isNew, listens { upcalls += 1 }
        }

        mutating func setPending(_ port: Int) {
            let bit: UInt64 = 1 << UInt64(port)
            let isNew = pending & bit == 0
            pending |= bit
            if isNew, mask & bit == 0 { select() }
        }
    }

    private(set) var contents: [Content] = []
    var domains: [UInt16: Domain] = [:]

    /// One that there is.
    subscript(id: UInt16) -> Domain {
        get {
            guard let domain = domains[id] else { preconditionFailure("no domain \(id)") }
            return domain
        }
        _modify { yield &domains[id, default: Domain(ram: [])] }
    }

    // MARK: Domains

    /// - Returns: its number.
    mutating func open() -> UInt16 {
        let id = (1...).first { domains[$0] == nil } ?? 0
        let start = contents.count
        contents += Layout.ram.map { _ in Content() }
        domains[id] = Domain(ram: Array(start..<contents.count))
        begin(id)
        return id
    }

    mutating func begin(_ id: UInt16) { _ = domains[id]?.add(.store) }

    mutating func end(_ id: UInt16) {
        guard let domain = domains[id] else { return }
        for port in domain.ports.indices where domain.ports[port] != .closed { close(id, port, isRinging: true) }
        for (handle, mapping) in domain.handles.enumerated() {
            if let mapping { _ = unmap(id, UInt32(handle), at: mapping.page << 12) }
        }
        for other in domains.keys where other != id {
            for (handle, mapping) in self[other].handles.enumerated() {
                guard let mapping, mapping.granter == id, !mapping.isSevered else { continue }
                self[other].handles[handle]?.isSevered = true
                self[other].window[Self.slot(mapping.page)] = .severed(Content())
            }
        }
        let upcalls = self[id].upcalls
        domains[id] = Domain(ram: domain.ram)
        self[id].upcalls = upcalls
    }

    mutating func close(_ id: UInt16) {
        end(id)
        domains[id] = nil
    }

    // MARK: Pages

    private static func slot(_ page: UInt64) -> Int { Int(page - Layout.window.lowerBound) }

    private func canHold(_ id: UInt16, _ page: UInt64) -> Bool {
        guard Layout.window.contains(page), case .nothing = self[id].window[Self.slot(page)] else { return false }
        return true
    }

    /// What the domain sees there: a content, nothing at all, or one of the special pages.
    enum View: Equatable {
        case content(Content), nothing, special
    }

    func view(_ id: UInt16, _ page: UInt64) -> View {
        let domain = self[id]
        if domain.special(at: page) != nil { return .special }
        if Layout.ram.contains(page) { return .content(contents[domain.ram[Int(page - Layout.ram.lowerBound)]]) }
        guard Layout.window.contains(page) else { return .nothing }
        switch domain.window[Self.slot(page)] {
        case .nothing: return .nothing
        case .foreign(let content, _, let copy): return .content(copy ?? contents[content])
        case .severed(let content): return .content(content)
        case .special: return .special
        }
    }

    /// A store of the domain's.
    mutating func write(_ id: UInt16, _ page: UInt64, _ content: Content) {
        if Layout.ram.contains(page) {
            contents[self[id].ram[Int(page - Layout.ram.lowerBound)]] = content
            return
        }
        let slot = Self.slot(page)
        switch self[id].window[slot] {
        case .foreign(let number, true, _):
            self[id].window[slot] = .foreign(number, isReadOnly: true, copy: content)
        case .foreign(let number, false, _): contents[number] = content
        case .severed: self[id].window[slot] = .severed(content)
        case .nothing, .special: break
        }
    }

    mutating func place(_ id: UInt16, _ special: Int, at page: UInt64) -> Int {
        if self[id].specials[special] != page {
            guard self[id].special(at: page) == nil else { return Errno.invalid }
            remove(id, special)
            guard page < Layout.ramEnd || canHold(id, page) else { return Errno.invalid }
            self[id].specials[special] = page
            if Layout.window.contains(page) { self[id].window[Self.slot(page)] = .special(special) }
        }
        if special >= 2 { self[id].frameCount = max(self[id].frameCount, special - 1) }
        return 0
    }

    mutating func unplace(_ id: UInt16, at page: UInt64) -> Int {
        guard let special = self[id].special(at: page) else { return Errno.invalid }
        remove(id, special)
        return 0
    }

    private mutating func remove(_ id: UInt16, _ special: Int) {
        guard let page = self[id].specials.removeValue(forKey: special) else { return }
        if Layout.window.contains(page) { self[id].window[Self.slot(page)] = .nothing }
    }

    // MARK: Grants

    private mutating func pin(
        _ granter: UInt16, _ reference: UInt32, for mapper: UInt16, isWriting: Bool
    ) -> (status: Int16, grant: Active?) {
        guard Int(reference) < self[granter].frameCount * 512 else { return (Status.badReference, nil) }
        let known = self[granter].active[reference]
        if let known, known.mapper != mapper { return (Status.general, nil) }
        var entry = self[granter].entries[reference] ?? Entry()
        guard entry.flags & 3 == 1, entry.domid == mapper, !isWriting || entry.flags & 4 == 0 else {
            return (Status.general, nil)
        }
        entry.flags |= isWriting ? 0x18 : 8
        var grant: Active
        if let known {
            grant = known
        } else {
            guard let page = self[granter].source(UInt64(entry.frame)) else {
                entry.flags &= ~0x18
                self[granter].entries[reference] = entry
                return (Status.badPage, nil)
            }
            grant = Active(page: page, frame: UInt64(entry.frame), mapper: mapper)
        }
        if isWriting { grant.writers += 1 } else { grant.readers += 1 }
        self[granter].entries[reference] = entry
        self[granter].active[reference] = grant
        return (Status.okay, grant)
    }

    private mutating func unpin(_ granter: UInt16, _ reference: UInt32, isWriting: Bool) {
        guard var grant = domains[granter]?.active[reference] else { return }
        if isWriting { grant.writers -= 1 } else { grant.readers -= 1 }
        if grant.writers == 0 { self[granter].entries[reference]?.flags &= ~0x10 }
        if grant.writers + grant.readers == 0 { self[granter].entries[reference]?.flags &= ~8 }
        self[granter].active[reference] = grant.writers + grant.readers == 0 ? nil : grant
    }

    mutating func map(
        _ id: UInt16, _ reference: UInt32, of granter: UInt16, at address: UInt64, flags: UInt32
    ) -> (status: Int16, handle: UInt32?) {
        guard flags & 3 != 0 else { return (Status.badReference, nil) }
        guard flags & 0x19 == 0 else { return (Status.general, nil) }
        guard domains[granter] != nil else { return (Status.badDomain, nil) }
        let isReadOnly = flags & 4 != 0
        let (status, grant) = pin(granter, reference, for: id, isWriting: !isReadOnly)
        guard let grant else { return (status, nil) }
        guard address % 4096 == 0, canHold(id, address >> 12) else {
            unpin(granter, reference, isWriting: !isReadOnly)
            return (Status.badAddress, nil)
        }
        let mapping = Mapping(granter: granter, reference: reference, page: address >> 12, isReadOnly: isReadOnly)
        self[id].window[Self.slot(mapping.page)] = .foreign(grant.page, isReadOnly: isReadOnly, copy: nil)
        let handle = self[id].free.popLast() ?? UInt32(self[id].handles.count)
        if handle == self[id].handles.count { self[id].handles.append(nil) }
        self[id].handles[Int(handle)] = mapping
        return (Status.okay, handle)
    }

    mutating func unmap(_ id: UInt16, _ handle: UInt32, at address: UInt64) -> Int16 {
        let handles = self[id].handles
        guard handles.indices.contains(Int(handle)), let mapping = handles[Int(handle)] else {
            return Status.badHandle
        }
        if address == 0 { return Status.okay }
        guard address == mapping.page << 12 else { return Status.general }
        self[id].window[Self.slot(mapping.page)] = .nothing
        self[id].handles[Int(handle)] = nil
        self[id].free.append(handle)
        if !mapping.isSevered { unpin(mapping.granter, mapping.reference, isWriting: !mapping.isReadOnly) }
        return Status.okay
    }

    /// One side of a copy.
    struct Side {
        var isGrant: Bool
        var number: UInt64
        var domid: UInt16
        /// The first word, and how many come before it in a page.
        var word: Int
        var offset: Int { [0, 8, 4080, 4088][word] }
    }

    /// - Parameter words: 1, or 2 from an even word on.
    mutating func copy(_ id: UInt16, _ source: Side, _ target: Side, words: Int) -> Int16 {
        for side in [source, target] {
            guard side.isGrant || side.domid == Layout.reserved || side.domid == id else { return Status.denied }
            guard side.offset + words * 8 <= 4096 else { return Status.badCopy }
        }
        var pinned: [(UInt16, UInt32, Bool)] = []
        defer { for (granter, reference, isWriting) in pinned { unpin(granter, reference, isWriting: isWriting) } }
        var places: [(id: UInt16, page: UInt64)] = []
        for (side, isWriting) in [(source, false), (target, true)] {
            guard side.isGrant else {
                guard side.number < Layout.window.upperBound else { return Status.badPage }
                if isWriting, Layout.window.contains(side.number) {
                    let mapping = self[id].handles.first { $0?.page == side.number } ?? nil
                    if let mapping, mapping.isReadOnly { return Status.badPage }
                }
                places.append((id, side.number))
                continue
            }
            guard domains[side.domid] != nil else { return Status.badDomain }
            let (status, grant) = pin(side.domid, UInt32(side.number), for: id, isWriting: isWriting)
            guard let grant else { return status }
            pinned.append((side.domid, UInt32(side.number), isWriting))
            // Its owner has put something else there since.
            guard self[side.domid].source(grant.frame) == grant.page else { return Status.badPage }
            places.append((side.domid, grant.frame))
        }
        guard case .content(let bytes) = view(places[0].id, places[0].page),
            case .content(var room) = view(places[1].id, places[1].page)
        else { return Status.badPage }
        for word in 0..<words { room[target.word + word] = bytes[source.word + word] }
        write(places[1].id, places[1].page, room)
        return Status.okay
    }

    // MARK: Ports

    mutating func allocUnbound(_ id: UInt16, for remote: UInt16) -> Int {
        self[id].add(.unbound(remote == Layout.reserved ? id : remote))
    }

    mutating func bindInterdomain(_ id: UInt16, _ remote: UInt16, _ remotePort: Int) -> Int {
        let remote = remote == Layout.reserved ? id : remote
        guard let peer = domains[remote] else { return Errno.noProcess }
        guard peer.port(remotePort) == .unbound(id) else { return Errno.invalid }
        let port = self[id].add(.interdomain(remote, remotePort))
        self[remote].ports[remotePort] = .interdomain(id, port)
        self[id].setPending(port)
        return port
    }

    mutating func bindVirtual(_ id: UInt16, _ number: UInt32) -> Int {
        guard number < 24 else { return Errno.invalid }
        guard !self[id].ports.contains(.virtual(number)) else { return Errno.exists }
        return self[id].add(.virtual(number))
    }

    mutating func bindInterprocessor(_ id: UInt16) -> Int { self[id].add(.interprocessor) }

    @discardableResult mutating func close(_ id: UInt16, _ port: Int, isRinging: Bool = false) -> Int {
        switch self[id].port(port) {
        case .closed: return Errno.invalid
        case .interdomain(let remote, let remotePort):
            if domains[remote] != nil, !(remote == id && remotePort == port) {
                self[remote].ports[remotePort] = .unbound(id)
                if isRinging { self[remote].setPending(remotePort) }
            }
        default: break
        }
        self[id].ports[port] = .closed
        self[id].pending &= ~(1 << UInt64(port))
        return 0
    }

    mutating func send(_ id: UInt16, _ port: Int) -> Int {
        switch self[id].port(port) {
        case .closed, .virtual: return Errno.invalid
        case .interdomain(let remote, let remotePort): domains[remote]?.setPending(remotePort)
        case .interprocessor: self[id].setPending(port)
        case .unbound, .store: break
        }
        return 0
    }

    mutating func unmask(_ id: UInt16, _ port: Int) -> Int {
        guard self[id].port(port) != .closed else { return Errno.invalid }
        let bit: UInt64 = 1 << UInt64(port)
        let wasMasked = self[id].mask & bit != 0
        self[id].mask &= ~bit
        if wasMasked, self[id].pending & bit != 0 { self[id].select() }
        return 0
    }

    mutating func listen(_ id: UInt16) {
        self[id].listens = true
        if self[id].isCalled { self[id].upcalls += 1 }
    }

    mutating func moveInfo(_ id: UInt16) -> Int {
        guard !self[id].hasMovedInfo else { return Errno.invalid }
        self[id].hasMovedInfo = true
        self[id].selector = .max
        self[id].isCalled = true
        if self[id].listens { self[id].upcalls += 1 }
        return 0
    }

    /// The domain's kernel is interrupted.
    mutating func takeEvents(_ id: UInt16) -> [Int] {
        self[id].isCalled = false
        guard self[id].selector & 1 != 0 else {
            self[id].selector = 0
            return []
        }
        let found = self[id].pending & ~self[id].mask
        self[id].pending &= self[id].mask
        self[id].selector = 0
        return (0..<64).filter { found >> UInt64($0) & 1 != 0 }
    }
}
