internal import GuestMemory
internal import Synchronization
internal import VirtualCPU
internal import X86

//S:130 The walk
//
// When the TLB has no answer, we do what the hardware does: read the Guest's
// own tables, level by level, and gather three things on the way down: may it
// be written, may it be used by a program, may it be run. All levels must
// agree (SDM 3A, 4.6). Accessed and dirty bits are set as the hardware sets
// them, with a compare-and-exchange, because the Guest may have a second CPU
// that changes the entry meanwhile.

/// What an access is, for the rules of paging.
struct Access: OptionSet {
    let rawValue: UInt32
    static let write = Access(rawValue: PageFaultCode.write)
    static let user = Access(rawValue: PageFaultCode.user)
    static let fetch = Access(rawValue: PageFaultCode.fetch)
    /// Made by the CPU itself, of the GDT, a TSS: supervisor whatever the CPL, and SMAP's AC does not help.
    static let implicit = Access(rawValue: 1 << 16)
    /// Only ask: set no bit in the tables.
    static let probe = Access(rawValue: 1 << 17)
}

/// What a walk found: where the 4 KiB page lies and what else is allowed there.
package struct Translation {
    package var physical: UInt64
    /// Writes at the same privilege would need no further walk.
    package var writable: Bool
    /// Bytes that the entry maps: 4096, or more for a large page.
    package var span: UInt64 = 4096
    /// Survives a write to CR3 (SDM 3A, 4.10.2.4).
    package var global = false
}

extension CPU {
    /// The present privilege as an access.
    @inline(__always) var ownAccess: Access { unsafe core.privilege == 3 ? .user : [] }

    /// Translates a linear address, or makes the fault.
    func translate(_ address: UInt64, _ access: Access) throws(Stop) -> Translation {
        var translation = try walk(address, access)
        // Below the Guest's own page tables is what others have granted it, for reading only. Xen's answer to
        // a store there is #GP(0), as no page table of the Guest's is at fault.
        if unsafe core.ram.isReadOnly(page: translation.physical >> 12) {
            if access.contains(.write) { throw generalProtection() }
            translation.writable = false
        }
        return translation
    }

    private func walk(_ address: UInt64, _ access: Access) throws(Stop) -> Translation {
        switch PagingMode.of(cr0: state.cr0, cr4: state.cr4, efer: state.efer) {
        case .none:
            return Translation(physical: address & 0xffff_ffff, writable: true)
        case .bits32: return try walk32(address & 0xffff_ffff, access)
        case .pae:
            let entry = unsafe core.pageDirectoryPointers[Int(truncatingIfNeeded: address >> 30 & 3)]
            if entry & PageEntry.present == 0 {
                throw pageFault(address & 0xffff_ffff, code: code(access, present: false))
            }
            return try walk64(
                address & 0xffff_ffff, access, table: entry & PhysicalAddress.frame, level: 2,
                rights: PageEntry.writable | PageEntry.user)
        case .level4:
            guard isCanonical(address) else { throw badAddress() }
            return try walk64(
                address, access, table: state.cr3 & PhysicalAddress.frame, level: 4,
                rights: PageEntry.writable | PageEntry.user)
        }
    }

    private func code(_ access: Access, present: Bool, reserved: Bool = false) -> UInt32 {
        var code = access.rawValue & (PageFaultCode.write | PageFaultCode.user)
        // The I bit exists where NX or SMEP does (SDM 3A, 4.7).
        let fetchKnown =
            state.cr4 & CR4.smep != 0
            || state.efer & EFER.noExecuteEnable != 0 && state.cr4 & CR4.physicalAddressExtension != 0
        if access.contains(.fetch) && fetchKnown { code |= PageFaultCode.fetch }
        if present { code |= PageFaultCode.present }
        if reserved { code |= PageFaultCode.reserved }
        return code
    }

    /// PAE and 4-level tables. `rights`: R/W and U/S gathered so far, NX with its sense as is.
    private func walk64(
        _ address: UInt64, _ access: Access, table: UInt64, level: Int, rights initial: UInt64
    ) throws(Stop) -> Translation {
        var table = table
        var level = level
        var rights = initial
        // In PAE entries bits 62…52 are reserved too, in 4-level ones software's (SDM 3A, tables 4-8 to 4-11).
        var alwaysReserved = PhysicalAddress.reserved
        if level == 2 { alwaysReserved |= 0x7ff0_0000_0000_0000 }
        if state.efer & EFER.noExecuteEnable == 0 { alwaysReserved |= PageEntry.noExecute }
        while true {
            let slot = table &+ (address >> UInt64(3 + 9 * level) & 0x1ff) &* 8
            var entry = readEntry(slot)
            if entry & PageEntry.present == 0 { throw pageFault(address, code: code(access, present: false)) }
            var reserved = alwaysReserved
            let isLarge = entry & PageEntry.large != 0 && (level == 2 || level == 3)
            if entry & PageEntry.large != 0 && level == 4 { reserved |= PageEntry.large }
            if isLarge { reserved |= (1 << UInt64(3 + 9 * level)) &- 0x2000 & ~0xfff }
            if entry & reserved != 0 {
                throw pageFault(address, code: code(access, present: true, reserved: true))
            }
            rights = (rights & entry & (PageEntry.writable | PageEntry.user)) | (rights | entry) & PageEntry.noExecute
            if level == 1 || isLarge {
                let allowed = try check(address, access, rights)
                let wanted = PageEntry.accessed | (access.contains(.write) ? PageEntry.dirty : 0)
                if entry & wanted != wanted && !access.contains(.probe) {
                    guard updateEntry(slot, &entry, wanted) else { return try walk(address, access) }
                }
                let span = (UInt64(1) << UInt64(3 + 9 * level)) &- 1
                if isLarge {
                    unsafe core.largeMappings.insert(address & ~span); unsafe core.largeMappings.insert(address | span)
                }
                let frame = entry & PhysicalAddress.frame & ~span
                return Translation(
                    physical: frame | address & span, writable: allowed && entry & PageEntry.dirty != 0,
                    span: span &+ 1,
                    global: entry & PageEntry.global != 0 && state.cr4 & CR4.globalPages != 0)
            }
            if entry & PageEntry.accessed == 0 && !access.contains(.probe) {
                guard updateEntry(slot, &entry, PageEntry.accessed) else { return try walk(address, access) }
            }
            table = entry & PhysicalAddress.frame
            level -= 1
        }
    }

    /// 32-bit paging, with 4 MiB pages and PSE-36 (SDM 3A, 4.3).
    private func walk32(_ address: UInt64, _ access: Access) throws(Stop) -> Translation {
        let directorySlot = (state.cr3 & 0xffff_f000) &+ (address >> 22) &* 4
        var entry = UInt64(readEntry32(directorySlot))
        if entry & PageEntry.present == 0 { throw pageFault(address, code: code(access, present: false)) }
        var rights = entry & (PageEntry.writable | PageEntry.user)
        let dirty = access.contains(.write) ? PageEntry.dirty : 0
        if entry & PageEntry.large != 0 && state.cr4 & CR4.pageSizeExtensions != 0 {
            // Bits 39…32 of the address are bits 20…13 of the entry; bit 21 is reserved.
            if entry & 1 << 21 != 0 { throw pageFault(address, code: code(access, present: true, reserved: true)) }
            let allowed = try check(address, access, rights)
            setBits32(directorySlot, &entry, PageEntry.accessed | dirty, access)
            unsafe core.largeMappings.insert(address & ~0x3f_ffff)
            unsafe core.largeMappings.insert(address | 0x3f_ffff)
            let physical = (entry & 0xffc0_0000) | (entry >> 13 & 0xff) &<< 32 | address & 0x3f_ffff
            return Translation(
                physical: physical & PhysicalAddress.mask, writable: allowed && entry & PageEntry.dirty != 0,
                span: 1 << 22)
        }
        setBits32(directorySlot, &entry, PageEntry.accessed, access)
        let slot = (entry & 0xffff_f000) &+ (address >> 12 & 0x3ff) &* 4
        var leaf = UInt64(readEntry32(slot))
        if leaf & PageEntry.present == 0 { throw pageFault(address, code: code(access, present: false)) }
        rights &= leaf
        let allowed = try check(address, access, rights)
        setBits32(slot, &leaf, PageEntry.accessed | dirty, access)
        return Translation(
            physical: leaf & 0xffff_f000 | address & 0xfff, writable: allowed && leaf & PageEntry.dirty != 0)
    }

    /// The rights of SDM 3A, 4.6. Returns whether a write would be allowed too.
    private func check(_ address: UInt64, _ access: Access, _ rights: UInt64) throws(Stop) -> Bool {
        let isUserPage = rights & PageEntry.user != 0
        var allowed = true
        if access.contains(.user) {
            allowed = isUserPage
        } else if isUserPage {
            if access.contains(.fetch) {
                allowed = state.cr4 & CR4.smep == 0
            } else if state.cr4 & CR4.smap != 0 {
                allowed = state.rflags & RFlags.alignmentCheck != 0 && !access.contains(.implicit)
            }
        }
        if access.contains(.fetch) && rights & PageEntry.noExecute != 0 { allowed = false }
        let mayWrite =
            rights & PageEntry.writable != 0
            || !access.contains(.user) && state.cr0 & CR0.writeProtect == 0
        if access.contains(.write) && !mayWrite { allowed = false }
        if !allowed { throw pageFault(address, code: code(access, present: true)) }
        return mayWrite
    }

    // MARK: Entries in guest memory; what is not RAM reads as not present

    private func readEntry(_ slot: UInt64) -> UInt64 {
        // SAFETY: in RAM by `hostPointer`, and aligned because tables are.
        guard let pointer = unsafe core.ram.hostPointer(GuestPhysicalAddress(slot), 8) else { return 0 }
        return unsafe pointer.load(as: UInt64.self)
    }

    private func readEntry32(_ slot: UInt64) -> UInt32 {
        guard let pointer = unsafe core.ram.hostPointer(GuestPhysicalAddress(slot), 4) else { return 0 }
        return unsafe pointer.load(as: UInt32.self)
    }

    /// Sets bits in an entry that must still be as it was read; false if it is not.
    private func updateEntry(_ slot: UInt64, _ entry: inout UInt64, _ bits: UInt64) -> Bool {
        guard let pointer = unsafe core.ram.hostPointer(GuestPhysicalAddress(slot), 8) else { return true }
        let atomic = unsafe pointer.assumingMemoryBound(to: Atomic<UInt64>.self)
        let result = unsafe atomic.pointee.compareExchange(
            expected: entry, desired: entry | bits, ordering: .sequentiallyConsistent)
        if result.exchanged { entry |= bits }
        return result.exchanged
    }

    private func setBits32(_ slot: UInt64, _ entry: inout UInt64, _ bits: UInt64, _ access: Access) {
        if entry & bits == bits || access.contains(.probe) { return }
        guard let pointer = unsafe core.ram.hostPointer(GuestPhysicalAddress(slot), 4) else { return }
        let atomic = unsafe pointer.assumingMemoryBound(to: Atomic<UInt32>.self)
        entry |= unsafe UInt64(
            atomic.pointee.bitwiseOr(UInt32(truncatingIfNeeded: bits), ordering: .sequentiallyConsistent).newValue)
    }
}
//:
