internal import GuestMemory
internal import VirtualCPU
internal import X86

// What the CPU itself reads and writes: descriptor tables, task-state
// segments, and the stacks that it switches to. These accesses have a
// privilege of their own, whatever the CPL (SDM 3A, 4.6.1), and so look in
// that privilege's TLB set by themselves.

extension CPU {
    /// The set in which accesses of this kind may be remembered.
    private func systemSet(_ access: Access) -> Int {
        if access.contains(.user) { return TLBEntry.user }
        if state.cr4 & CR4.smap == 0 { return TLBEntry.supervisorOpen }
        return access.contains(.implicit) || state.rflags & RFlags.alignmentCheck == 0
            ? TLBEntry.supervisor : TLBEntry.supervisorOpen
    }

    /// Where `count` bytes lie in the Host, if they are in one page of RAM
    /// (and, to be written, not in one of code); nil for all that needs care.
    @inline(__always) func systemPointer(
        _ address: UInt64, _ count: Int, _ access: Access
    ) throws(Stop) -> UnsafeMutableRawPointer? {
        guard address & 0xfff <= UInt64(4096 &- count), unsafe !core.watching else { return nil }
        let index =
            systemSet(access) &* TLBEntry.setSize &+ Int(truncatingIfNeeded: address >> 12) & (TLBEntry.setSize &- 1)
        let entry = unsafe core.tlbSets + index
        let tag = unsafe access.contains(.write) ? entry.pointee.writeTag : entry.pointee.readTag
        if tag == tlbTag(address) {
            // SAFETY: a valid tag vouches for the whole page at address + addend.
            return unsafe UnsafeMutableRawPointer(bitPattern: UInt(address &+ entry.pointee.addend))
        }
        return unsafe try fillSystem(address, count, access, entry)
    }

    @inline(never) private func fillSystem(
        _ address: UInt64, _ count: Int, _ access: Access, _ entry: UnsafeMutablePointer<TLBEntry>
    ) throws(Stop) -> UnsafeMutableRawPointer? {
        let translation = try translate(address, access)
        let pageAddress = GuestPhysicalAddress(translation.physical & ~0xfff)
        guard let page = unsafe core.ram.hostPointer(pageAddress, 4096) else { return nil }
        let seesWrites = unsafe core.journals || core.ram.isCode(page: pageAddress.page)
        let tag = tlbTag(address)
        let addend = UInt64(UInt(bitPattern: page)) &- (address & ~0xfff)
        if unsafe entry.pointee.addend != addend || (entry.pointee.readTag != tag && entry.pointee.executeTag != tag) {
            unsafe entry.pointee = TLBEntry(addend: addend)
        }
        unsafe entry.pointee.readTag = tag
        if translation.writable && !seesWrites { unsafe entry.pointee.writeTag = tag }
        if access.contains(.write) && seesWrites { return nil }
        return unsafe page + Int(address & 0xfff)
    }

    /// Reads 1, 2, 4 or 8 bytes of a table of the CPU's own.
    func systemRead(_ address: UInt64, _ count: Int, _ access: Access = .implicit) throws(Stop) -> UInt64 {
        let address = wrap(address)
        if let pointer = unsafe try systemPointer(address, count, access) {
            switch count {
            case 1: return unsafe UInt64(pointer.load(as: UInt8.self))
            case 2: return unsafe UInt64(pointer.loadUnaligned(as: UInt16.self))
            case 4: return unsafe UInt64(pointer.loadUnaligned(as: UInt32.self))
            default: return unsafe pointer.loadUnaligned(as: UInt64.self)
            }
        }
        return try read(address, count, access)
    }

    func systemWrite(_ address: UInt64, _ value: UInt64, _ count: Int, _ access: Access = .implicit) throws(Stop) {
        let address = wrap(address)
        let access = access.union(.write)
        if let pointer = unsafe try systemPointer(address, count, access) {
            switch count {
            case 1: unsafe pointer.storeBytes(of: UInt8(truncatingIfNeeded: value), as: UInt8.self)
            case 2: unsafe pointer.storeBytes(of: UInt16(truncatingIfNeeded: value), as: UInt16.self)
            case 4: unsafe pointer.storeBytes(of: UInt32(truncatingIfNeeded: value), as: UInt32.self)
            default: unsafe pointer.storeBytes(of: value, as: UInt64.self)
            }
            return
        }
        try write(address, value, count, access)
    }
}

/// A stack that is not, or not yet, the one in SS:RSP. Pushing moves only
/// `pointer`; the registers change when all pushes have succeeded.
struct SystemStack {
    var segment: Segment
    var pointer: UInt64
    /// SP, ESP or RSP wraps here.
    var mask: UInt64
    var access: Access
    /// Error code of the #SS if the limit is met.
    var code: UInt32

    var isLong: Bool { mask == .max }

    static func mask(of segment: Segment) -> UInt64 { segment.isDefaultBig ? 0xffff_ffff : 0xffff }
}

extension CPU {
    /// The stack in use, at the present privilege.
    func presentStack(code: UInt32 = 0) -> SystemStack {
        SystemStack(
            segment: state.segments[SegmentName.ss], pointer: rsp & stackMask, mask: stackMask,
            access: ownAccess, code: code)
    }

    private func address(_ stack: SystemStack, _ offset: UInt64, _ bytes: Int, write: Bool) throws(Stop) -> UInt64 {
        if stack.isLong {
            if !isCanonical(offset) || !isCanonical(offset &+ UInt64(bytes &- 1)) {
                throw fault(Vector.stackFault, code: stack.code)
            }
            return offset
        }
        let segment = stack.segment
        let offset = offset & stack.mask
        let last = offset &+ UInt64(bytes &- 1)
        if state.cr0 & CR0.protectedMode != 0 && state.rflags & RFlags.virtual8086 == 0 && segment.isUnusable {
            throw fault(Vector.stackFault, code: stack.code)
        }
        if segment.expandsDown && state.cr0 & CR0.protectedMode != 0 {
            if offset <= UInt64(segment.limit) || last > stack.mask { throw fault(Vector.stackFault, code: stack.code) }
        } else if last > UInt64(segment.limit) {
            throw fault(Vector.stackFault, code: stack.code)
        }
        return (segment.base &+ offset) & 0xffff_ffff
    }

    func push(_ stack: inout SystemStack, _ value: UInt64, _ bytes: Int) throws(Stop) {
        let top = (stack.pointer &- UInt64(bytes)) & stack.mask
        try systemWrite(try address(stack, top, bytes, write: true), value, bytes, stack.access)
        stack.pointer = top
    }

    func pop(_ stack: inout SystemStack, _ bytes: Int) throws(Stop) -> UInt64 {
        let value = try systemRead(try address(stack, stack.pointer, bytes, write: false), bytes, stack.access)
        stack.pointer = (stack.pointer &+ UInt64(bytes)) & stack.mask
        return value
    }

    /// Makes SS:RSP what became of this stack.
    func use(_ stack: SystemStack) {
        if stack.mask == 0xffff {
            rsp = rsp & ~0xffff | stack.pointer & 0xffff
        } else {
            rsp = stack.pointer & stack.mask
        }
    }
}
