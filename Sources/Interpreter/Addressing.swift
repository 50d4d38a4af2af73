internal import VirtualCPU
internal import X86

extension CPU {
    /// The linear address of the record's memory operand, `bytes` long, its
    /// segment's checks passed.
    @inline(__always) func address(_ i: InstructionPointer, _ bytes: Int, write: Bool) throws(Stop) -> UInt64 {
        if unsafe i.pointee.options.contains(.complexAddress) {
            return unsafe try complexAddress(i, bytes, write: write)
        }
        return unsafe effectiveAddress(i) &+ register(i.pointee.segmentSlot, UInt64.self)
    }

    /// Base + index · scale + displacement, in 64 bits.
    @inline(__always) func effectiveAddress(_ i: InstructionPointer) -> UInt64 {
        unsafe register(i.pointee.base, UInt64.self)
            &+ (register(i.pointee.index, UInt64.self) &<< UInt64(i.pointee.scaleShift))
            &+ UInt64(bitPattern: Int64(i.pointee.displacement))
    }

    /// The offset part, cut to the address size.
    func offset(_ i: InstructionPointer) -> UInt64 {
        // A moffs operand is 64 bits wide; its upper half is in `spare`.
        var full = unsafe effectiveAddress(i)
        if unsafe i.pointee.spare != 0 {
            full = unsafe full & 0xffff_ffff | UInt64(i.pointee.spare) &<< 32
        }
        if unsafe i.pointee.options.contains(.address32) { return full & 0xffff_ffff }
        if unsafe i.pointee.options.contains(.address16) { return full & 0xffff }
        return full
    }

    @inline(never) func complexAddress(_ i: InstructionPointer, _ bytes: Int, write: Bool) throws(Stop) -> UInt64 {
        unsafe try linear(
            segment: Int(i.pointee.segment), offset(i), bytes, write: write, long: i.pointee.options.contains(.long))
    }

    /// Segment base + offset, with the checks of SDM 3A, 5.3 to 5.4 where they exist.
    func linear(segment: Int, _ offset: UInt64, _ bytes: Int, write: Bool, long: Bool) throws(Stop) -> UInt64 {
        if long { return segment >= SegmentName.fs ? state.segments[segment].base &+ offset : offset }
        let register = state.segments[segment]
        let vector = segment == SegmentName.ss ? Vector.stackFault : Vector.generalProtection
        if state.cr0 & CR0.protectedMode != 0 && state.rflags & RFlags.virtual8086 == 0 {
            if register.isUnusable { throw fault(vector, code: 0) }
            if write ? !register.isWritableData : !register.isReadable { throw fault(vector, code: 0) }
        }
        let last = offset &+ UInt64(truncatingIfNeeded: max(bytes, 1) &- 1)
        let limit = UInt64(register.limit)
        if register.expandsDown && state.cr0 & CR0.protectedMode != 0 {
            let top: UInt64 = register.isDefaultBig ? 0xffff_ffff : 0xffff
            if offset <= limit || last > top { throw fault(vector, code: 0) }
        } else if last > limit {
            throw fault(vector, code: 0)
        }
        return (register.base &+ offset) & 0xffff_ffff
    }
}
