internal import GuestMemory
internal import HostInterface

//D:280 To have another's page
//
// To map a grant is: the line in the granter's table is put into use, the page
// is put at an address of the mapper's that has no RAM, and a number is given
// for it all, the handle, by which it is undone. The order of the checks, and
// what each of them is called if it fails, is Xen's (xen/common/grant_table.c),
// since that is what drivers know.

/// A page that one domain has of another's.
struct ForeignMapping {
    let granter: UInt16
    let reference: UInt32
    /// Where, in the mapper's memory.
    let page: UInt64
    let isReadOnly: Bool
    /// The granter is gone, and the page with it: there is nothing to give back but the address.
    var isSevered = false
}

/// By handle. For whoever holds the house's lock.
struct ForeignMappingTable {
    /// The host has 65530 mappings for all of a process.
    static let most = 8192
    static let mostOfAll = 32768

    private var slots: [ForeignMapping?] = []
    private var free: [UInt32] = []
    var count: Int { slots.count - free.count }

    subscript(handle: UInt32) -> ForeignMapping? { slots.indices.contains(Int(handle)) ? slots[Int(handle)] : nil }

    mutating func add(_ mapping: ForeignMapping) -> UInt32 {
        if let handle = free.popLast() {
            slots[Int(handle)] = mapping
            return handle
        }
        slots.append(mapping)
        return UInt32(slots.count - 1)
    }

    mutating func remove(_ handle: UInt32) {
        slots[Int(handle)] = nil
        free.append(handle)
    }

    mutating func sever(_ handle: UInt32) { slots[Int(handle)]?.isSevered = true }

    /// The first so many that are as wanted.
    func some(
        _ count: Int, _ isWanted: (ForeignMapping) -> Bool
    ) -> [(handle: UInt32, mapping: ForeignMapping)] {
        var found: [(handle: UInt32, mapping: ForeignMapping)] = []
        for (handle, slot) in slots.enumerated() {
            guard let slot, isWanted(slot) else { continue }
            found.append((UInt32(handle), slot))
            if found.count == count { break }
        }
        return found
    }

    var all: [(handle: UInt32, mapping: ForeignMapping)] {
        slots.enumerated().compactMap { index, slot in slot.map { (UInt32(index), $0) } }
    }
}

/// Mappings that lie end to end in the mapper's memory, to be undone together.
struct ForeignRun {
    /// For so long the house's lock may be held.
    static let most = 64

    private(set) var mappings: [(handle: UInt32, mapping: ForeignMapping)] = []
    var isEmpty: Bool { mappings.isEmpty }

    var pages: Range<UInt64> {
        let first = mappings.first?.mapping.page ?? 0
        return first..<first + UInt64(mappings.count)
    }

    /// Adds the mapping behind the others.
    ///
    /// - Returns: whether it was added: without an address there is nothing to undo.
    /// - Throws: what is wrong with it.
    mutating func add(_ handle: UInt32, at address: UInt64, of mapper: Domain) throws(GrantStatus) -> Bool {
        guard let mapping = mapper.mappings[handle] else { throw .badHandle }
        if address == 0 { return false }
        guard address == mapping.page << 12 else { throw .generalError }
        guard !mappings.contains(where: { $0.handle == handle }) else { throw .badHandle }
        mappings.append((handle, mapping))
        return true
    }

    /// Whether a page at that address would lie behind the others.
    func continues(at address: UInt64) -> Bool {
        mappings.count < Self.most && (isEmpty || address == pages.upperBound << 12)
    }
}

/// One side of a copy.
struct GrantCopySide {
    /// A reference, or a frame of the caller's own.
    var reference: UInt64
    var isGrant: Bool
    var domain: UInt16
    var offset: Int
}

extension DomainHouse.State {
    /// GNTTABOP_map_grant_ref.
    ///
    /// - Returns: the handle.
    func map(
        _ mapper: Domain, reference: UInt32, of granterID: UInt16, at address: UInt64, flags: UInt32
    ) throws(GrantStatus) -> UInt32 {
        typealias Flags = GrantABI.GNTMAP
        guard flags & (Flags.deviceMap | Flags.hostMap) != 0 else { throw .badReference }
        guard flags & (Flags.deviceMap | Flags.applicationMap | Flags.containsPTE) == 0 else { throw .generalError }
        guard let granter = find(granterID) else { throw .badDomain }
        guard mapper.mappings.count < ForeignMappingTable.most, mappingCount < ForeignMappingTable.mostOfAll else {
            throw .noSpace
        }
        let isReadOnly = flags & Flags.readonly != 0
        let grant = try granter.grants.pin(reference, for: mapper.id, writing: !isReadOnly, of: granter.memory)
        let page = address >> 12
        do throws(Errno) {
            guard address % 4096 == 0, mapper.memory.canHoldForeign(page: page) else { throw .badAddress }
            try mapper.memory.putForeign(grant.source, at: page, isReadOnly: isReadOnly)
        } catch {
            granter.grants.unpin(reference, writing: !isReadOnly)
            throw error == .badAddress ? .badVirtualAddress : .noSpace
        }
        return mapper.mappings.add(
            ForeignMapping(granter: granterID, reference: reference, page: page, isReadOnly: isReadOnly))
    }

    /// GNTTABOP_unmap_grant_ref. Without an address, it undoes nothing.
    func unmap(_ mapper: Domain, handle: UInt32, at address: UInt64) throws(GrantStatus) {
        var run = ForeignRun()
        guard try run.add(handle, at: address, of: mapper) else { return }
        try unmap(mapper, run)
    }

    /// Undoes several at once: of what it costs to take pages away, the host asks most for each time, not each page.
    func unmap(_ mapper: Domain, _ run: ForeignRun) throws(GrantStatus) {
        do throws(Errno) { try mapper.memory.removeForeign(pages: run.pages) } catch { throw .generalError }
        // Not before nobody can reach the page any more.
        for (handle, mapping) in run.mappings {
            mapper.mappings.remove(handle)
            if !mapping.isSevered {
                peer(mapping.granter)?.grants.unpin(mapping.reference, writing: !mapping.isReadOnly)
            }
        }
    }

    // MARK: Copies

    /// GNTTABOP_copy: `count` bytes, from one page to another.
    func copy(_ caller: Domain, from source: GrantCopySide, to target: GrantCopySide, count: Int) throws(GrantStatus) {
        for side in [source, target] {
            guard side.isGrant || side.domain == XenABI.DOMID.selfID || side.domain == caller.id else {
                throw .permissionDenied
            }
            guard side.offset + count <= GuestMemory.pageSize else { throw .badCopyArgument }
        }
        let from = try take(caller, source, writing: false)
        defer { giveBack(from) }
        let to = try take(caller, target, writing: true)
        defer { giveBack(to) }
        guard let bytes = unsafe from.memory.hostPointer(from.address + UInt64(source.offset), count),
            let room = unsafe to.memory.hostPointer(to.address + UInt64(target.offset), count)
        else { throw .badPage }
        // SAFETY: both stay mapped while the house's lock is held. They may be one page.
        unsafe room.copyMemory(from: bytes, byteCount: count)
        to.memory.noteWrite(to.address + UInt64(target.offset), count)
    }

    private struct Taken {
        let memory: GuestMemory
        let address: GuestPhysicalAddress
        var pinned: (domain: Domain, reference: UInt32, writing: Bool)?
    }

    private func take(_ caller: Domain, _ side: GrantCopySide, writing: Bool) throws(GrantStatus) -> Taken {
        guard side.isGrant else {
            let page = side.reference
            guard page < caller.memory.addressEnd >> 12, !writing || !caller.memory.isReadOnly(page: page) else {
                throw .badPage
            }
            return Taken(memory: caller.memory, address: GuestPhysicalAddress(page << 12))
        }
        guard let granter = find(side.domain) else { throw .badDomain }
        let reference = UInt32(truncatingIfNeeded: side.reference)
        let grant = try granter.grants.pin(reference, for: caller.id, writing: writing, of: granter.memory)
        // Of one that somebody has mapped, the granter may have put a page of the Host's in front since.
        guard granter.memory.source(ofPage: grant.frame) == grant.source else {
            granter.grants.unpin(reference, writing: writing)
            throw .badPage
        }
        return Taken(
            memory: granter.memory, address: GuestPhysicalAddress(grant.frame << 12),
            pinned: (granter, reference, writing))
    }

    private func giveBack(_ taken: Taken) {
        if let pinned = taken.pinned { pinned.domain.grants.unpin(pinned.reference, writing: pinned.writing) }
    }
}
//:
