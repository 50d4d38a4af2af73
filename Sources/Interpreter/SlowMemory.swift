internal import GuestMemory
internal import VirtualCPU
internal import X86

// What a load or store does when the TLB has no answer: walk, fill the TLB,
// cross pages, reach devices, and notice that code is being overwritten.

extension CPU {
    /// Translates, and lets the TLB remember what it may.
    private func translateAndFill(_ address: UInt64, _ access: Access) throws(Stop) -> UInt64 {
        let translation = try translate(address, access)
        let physical = translation.physical
        if !access.contains(.fetch), let profile = owner.profile {
            // Where in its page a running chain is, it does not write down.
            profile.addTLBMiss(owner.codePlace(codePage, isPage: true))
        }
        let pageAddress = GuestPhysicalAddress(physical & ~0xfff)
        guard let page = unsafe core.ram.hostPointer(pageAddress, 4096) else { return physical }
        if unsafe core.watching && owner.isWatched(page: address) { return physical }
        let entry = unsafe tlbEntry(address)
        let tag = tlbTag(address)
        let addend = UInt64(UInt(bitPattern: page)) &- (address & ~0xfff)
        if unsafe entry.pointee.addend != addend
            || (entry.pointee.readTag != tag && entry.pointee.executeTag != tag)
        {
            unsafe entry.pointee = TLBEntry(addend: addend)
        }
        if seesEveryAccess { return physical }
        if access.contains(.fetch) {
            unsafe entry.pointee.executeTag = tag
        } else {
            unsafe entry.pointee.readTag = tag
            // Only once the dirty bit is set may a write go unseen, and never to code.
            if unsafe translation.writable && !core.ram.isCode(page: pageAddress.page) && !core.journals {
                unsafe entry.pointee.writeTag = tag
            }
        }
        return physical
    }

    /// The physical address that code at this linear address is fetched from.
    func translateFetch(_ address: UInt64) throws(Stop) -> UInt64 {
        let entry = unsafe tlbEntry(address)
        if unsafe entry.pointee.executeTag == tlbTag(address) {
            let host = unsafe UInt(truncatingIfNeeded: address &+ entry.pointee.addend)
            return unsafe core.ram.guestAddress(ofHost: host).rawValue
        }
        return try translateAndFill(address, ownAccess.union(.fetch))
    }

    /// What an operand is asked before its pages are: that it be canonical, and
    /// aligned where #AC is wanted. On Intel's CPUs the latter comes between its
    /// first byte and its last, on AMD's after both.
    func checkOperand(_ address: UInt64, _ count: Int) throws(Stop) {
        if checksAlignment && address & alignmentMask(count) != 0 {
            try checkCanonical(address, owner.features.isIntel ? 1 : count)
            throw fault(Vector.alignmentCheck, code: 0)
        }
        try checkCanonical(address, count)
    }

    func checkCanonical(_ address: UInt64, _ count: Int) throws(Stop) {
        if state.efer & EFER.longModeActive != 0,
            !isCanonical(address) || !isCanonical(address &+ UInt64(truncatingIfNeeded: count &- 1))
        {
            throw badAddress()
        }
    }

    var checksAlignment: Bool {
        unsafe core.privilege == 3 && state.cr0 & CR0.alignmentMask != 0 && state.rflags & RFlags.alignmentCheck != 0
    }

    /// SDM 3A, table 6-7; APM 2, table 8-7. The larger sizes are x87's; vectors of 16 bytes
    /// and more Intel's CPUs let pass, where they are not #GP, and AMD's want at a multiple of 16.
    private func alignmentMask(_ count: Int) -> UInt64 {
        switch count {
        case 2, 14, 94: 1
        case 4, 28, 108: 3
        case 8, 10: 7
        case 16, 32: owner.features.isIntel ? 0 : 15
        default: 0
        }
    }

    @inline(never) func slowLoad(_ address: UInt64, _ count: Int) throws(Stop) -> UInt64 {
        try checkOperand(address, count)
        if unsafe core.watching { owner.noteWatched(address, count, write: false) }
        return try read(address, count, ownAccess)
    }

    @inline(never) func slowStore(_ address: UInt64, _ value: UInt64, _ count: Int) throws(Stop) {
        try checkOperand(address, count)
        try write(address, value, count, ownAccess)
        if unsafe core.watching { owner.noteWatched(address, count, write: true) }
    }

    /// Up to 8 bytes at any linear address, as `access` says.
    func read(_ address: UInt64, _ count: Int, _ access: Access) throws(Stop) -> UInt64 {
        let first = min(count, Int(4096 &- (address & 0xfff)))
        let physical =
            access == ownAccess
            ? try translateAndFill(address, access) : try translate(address, access).physical
        if first == count { return try readPhysical(physical, count) }
        let second = try translate(wrap(address &+ UInt64(first)), access).physical
        let low = try readPhysical(physical, first)
        let high = try readPhysical(second, count &- first)
        return low | high &<< UInt64(first &* 8)
    }

    func write(_ address: UInt64, _ value: UInt64, _ count: Int, _ access: Access) throws(Stop) {
        let access = access.union(.write)
        let first = min(count, Int(4096 &- (address & 0xfff)))
        let physical =
            access == ownAccess.union(.write)
            ? try translateAndFill(address, access) : try translate(address, access).physical
        if first == count { return try writePhysical(physical, value, count) }
        // Both pages must be writable before either byte is changed.
        let second = try translate(wrap(address &+ UInt64(first)), access).physical
        try writePhysical(physical, value, first)
        try writePhysical(second, value &>> UInt64(first &* 8), count &- first)
    }

    /// Linear addresses wrap at 4 GiB outside long mode.
    @inline(__always) func wrap(_ address: UInt64) -> UInt64 {
        state.efer & EFER.longModeActive != 0 ? address : address & 0xffff_ffff
    }

    /// For an operand that will be loaded from, and then stored to.
    @inline(never) func checkModifiable(_ address: UInt64, _ count: Int) throws(Stop) {
        try checkOperand(address, count)
        try checkWritable(address, count)
    }

    /// Several elements may not be done at one go.
    var seesEveryAccess: Bool { unsafe core.tlb == core.tlbSets + TLBEntry.never * TLBEntry.setSize }

    func checkWritable(_ address: UInt64, _ count: Int) throws(Stop) {
        try checkCanonical(address, count)
        let access = ownAccess.union(.write)
        _ = try translate(address, access)
        let last = wrap(address &+ UInt64(count &- 1))
        if last >> 12 != address >> 12 { _ = try translate(last & ~0xfff, access) }
    }

    func checkReadable(_ address: UInt64, _ count: Int) throws(Stop) {
        try checkCanonical(address, count)
        _ = try translate(address, ownAccess)
        let last = wrap(address &+ UInt64(count &- 1))
        if last >> 12 != address >> 12 { _ = try translate(last & ~0xfff, ownAccess) }
    }

    /// Within one page.
    func readPhysical(_ address: UInt64, _ count: Int) throws(Stop) -> UInt64 {
        if let pointer = unsafe core.ram.hostPointer(GuestPhysicalAddress(address), count) {
            switch count {
            case 1: return unsafe UInt64(pointer.load(as: UInt8.self))
            case 2: return unsafe UInt64(pointer.loadUnaligned(as: UInt16.self))
            case 4: return unsafe UInt64(pointer.loadUnaligned(as: UInt32.self))
            case 8: return unsafe pointer.loadUnaligned(as: UInt64.self)
            default:
                var value: UInt64 = 0
                for byte in 0..<count {
                    value |= unsafe UInt64((pointer + byte).load(as: UInt8.self)) &<< UInt64(byte &* 8)
                }
                return value
            }
        }
        var value: UInt64 = 0
        var done = 0
        while done < count {
            let piece = devicePiece(address &+ UInt64(done), count &- done)
            let part = try ask(.mmioRead(GuestPhysicalAddress(address &+ UInt64(done)), bytes: piece))
            let mask = piece == 8 ? UInt64.max : (1 &<< UInt64(piece &* 8)) &- 1
            value |= (part & mask) &<< UInt64(done &* 8)
            done &+= piece
        }
        return value
    }

    func writePhysical(_ address: UInt64, _ value: UInt64, _ count: Int) throws(Stop) {
        if let pointer = unsafe core.ram.hostPointer(GuestPhysicalAddress(address), count) {
            if unsafe core.journals { owner.journal?.note(address, count) }
            if unsafe core.ram.isCode(page: address >> 12) { owner.codeWritten(address, count) }
            switch count {
            case 1: unsafe pointer.storeBytes(of: UInt8(truncatingIfNeeded: value), as: UInt8.self)
            case 2: unsafe pointer.storeBytes(of: UInt16(truncatingIfNeeded: value), as: UInt16.self)
            case 4: unsafe pointer.storeBytes(of: UInt32(truncatingIfNeeded: value), as: UInt32.self)
            case 8: unsafe pointer.storeBytes(of: value, as: UInt64.self)
            default:
                for byte in 0..<count {
                    unsafe (pointer + byte).storeBytes(
                        of: UInt8(truncatingIfNeeded: value &>> UInt64(byte &* 8)), as: UInt8.self)
                }
            }
            return
        }
        var done = 0
        while done < count {
            let piece = devicePiece(address &+ UInt64(done), count &- done)
            _ = try ask(
                .mmioWrite(
                    GuestPhysicalAddress(address &+ UInt64(done)), bytes: piece, value: value &>> UInt64(done &* 8)))
            done &+= piece
        }
    }

    /// Devices see naturally sized accesses only.
    private func devicePiece(_ address: UInt64, _ count: Int) -> Int {
        if count == 1 || count == 2 || count == 4 || count == 8 { return count }
        return count > 4 ? 4 : count > 2 ? 2 : 1
    }

    @inline(never) func slowHostOperand(_ address: UInt64, _ count: Int, write: Bool) throws(Stop)
        -> UnsafeMutableRawPointer?
    {
        try checkOperand(address, count)
        if unsafe core.watching { return nil }
        let physical = try translateAndFill(address, write ? ownAccess.union(.write) : ownAccess)
        guard let pointer = unsafe core.ram.hostPointer(GuestPhysicalAddress(physical), count) else { return nil }
        if unsafe write && core.journals { owner.journal?.note(physical, count) }
        if unsafe write && core.ram.isCode(page: physical >> 12) { owner.codeWritten(physical, count) }
        return unsafe pointer
    }
}
