internal import VirtualCPU
internal import X86

//S:210 What a descriptor says
//
//      63      56 55  52 51  48 47         40 39            16 15         0
//     |base 31:24|G D L A|lim  |P DPL S  type|   base 23:0    | limit 15:0 |
//
// A gate has the same shape around P, DPL and type, but a selector and an
// offset in place of base and limit. In long mode, gates and system segments
// are sixteen bytes, the upper eight of which extend the address (SDM 3A,
// 3.4.5 and 6.14.1).

struct Descriptor {
    let low: UInt64
    /// Bytes 8…15 of a long-mode system descriptor, else 0.
    var high: UInt64 = 0

    var type: Int { Int(low >> 40 & 15) }
    var isSystem: Bool { low & 1 << 44 == 0 }
    var isCode: Bool { low >> 43 & 3 == 3 }
    var isConforming: Bool { low & 1 << 42 != 0 }
    var privilegeLevel: Int { Int(low >> 45 & 3) }
    var isPresent: Bool { low & 1 << 47 != 0 }
    var isAccessed: Bool { low & 1 << 40 != 0 }
    var isLong: Bool { low & 1 << 53 != 0 }
    var isDefaultBig: Bool { low & 1 << 54 != 0 }

    // MARK: A segment

    var base: UInt64 { low >> 16 & 0xff_ffff | low >> 32 & 0xff00_0000 | high &<< 32 }
    var limit: UInt32 {
        let raw = UInt32(truncatingIfNeeded: low & 0xffff | low >> 32 & 0xf_0000)
        return low & 1 << 55 != 0 ? raw &<< 12 | 0xfff : raw
    }
    var attributes: UInt32 { UInt32(truncatingIfNeeded: low >> 40 & 0xf0ff) }

    func segment(_ selector: UInt16) -> Segment {
        Segment(selector: selector, base: base, limit: limit, attributes: attributes)
    }

    // MARK: A gate

    var gateSelector: UInt16 { UInt16(truncatingIfNeeded: low >> 16) }
    var gateOffset: UInt64 { low & 0xffff | low >> 32 & 0xffff_0000 | high &<< 32 }
    var parameterCount: Int { Int(low >> 32 & 31) }
    var interruptStack: Int { Int(low >> 32 & 7) }
}

extension UInt16 {
    /// A selector without its RPL: what error codes hold.
    var selectorIndex: UInt32 { UInt32(self & 0xfffc) }
    var requestedPrivilege: Int { Int(self & 3) }
    var isNullSelector: Bool { self & 0xfffc == 0 }
}

extension CPU {
    var isProtected: Bool { state.cr0 & CR0.protectedMode != 0 }
    var isVirtual8086: Bool { isProtected && state.rflags & RFlags.virtual8086 != 0 }
    /// Neither real nor virtual-8086: selectors are looked up.
    var usesDescriptors: Bool { isProtected && state.rflags & RFlags.virtual8086 == 0 }
    var isLongActive: Bool { state.efer & EFER.longModeActive != 0 }

    /// Linear address of a selector's descriptor; `vector`(selector) if its table has no such entry.
    func descriptorAddress(
        _ selector: UInt16, bytes: UInt32 = 8, _ vector: UInt8 = Vector.generalProtection, external: UInt32 = 0
    ) throws(Stop) -> UInt64 {
        let offset = UInt32(selector & 0xfff8)
        let last = offset &+ bytes &- 1
        if selector & 4 == 0 {
            if last > UInt32(state.gdtr.limit) { throw fault(vector, code: selector.selectorIndex | external) }
            return state.gdtr.base &+ UInt64(offset)
        }
        if state.ldtr.isUnusable || last > state.ldtr.limit {
            throw fault(vector, code: selector.selectorIndex | external)
        }
        return state.ldtr.base &+ UInt64(offset)
    }

    /// Reads a descriptor of eight bytes.
    func descriptor(
        _ selector: UInt16, _ vector: UInt8 = Vector.generalProtection, external: UInt32 = 0
    ) throws(Stop) -> Descriptor {
        Descriptor(low: try systemRead(try descriptorAddress(selector, vector, external: external), 8))
    }

    /// Reads a system descriptor, which has sixteen bytes in long mode.
    func systemDescriptor(
        _ selector: UInt16, _ vector: UInt8 = Vector.generalProtection, external: UInt32 = 0
    ) throws(Stop) -> Descriptor {
        if !isLongActive { return try descriptor(selector, vector, external: external) }
        let address = try descriptorAddress(selector, bytes: 16, vector, external: external)
        return Descriptor(low: try systemRead(address, 8), high: try systemRead(address &+ 8, 8))
    }

    /// Sets the accessed bit in the table, and returns what the register is to
    /// hold. Where the bit is set already nothing is written: the table may be
    /// read-only.
    func accessed(_ descriptor: Descriptor, _ selector: UInt16) throws(Stop) -> Segment {
        var segment = descriptor.segment(selector)
        if !descriptor.isAccessed {
            let address = try descriptorAddress(selector)
            try systemWrite(address &+ 5, descriptor.low >> 40 & 0xff | 1, 1)
            segment.attributes |= 1
        }
        return segment
    }

    /// Puts a segment into its register, and its base where addresses are made.
    func setSegment(_ number: Int, _ segment: Segment) {
        state.segments[number] = segment
        self[AddressSlot.segmentBases + number] =
            unsafe core.codeSize == .bits64 && number < SegmentName.fs ? 0 : segment.base
    }

    /// SS for a CPL that has no segment: the null selector of long mode. The
    /// hidden DPL is the CPL, as ever.
    func nullStack(_ privilege: Int) -> Segment {
        Segment(selector: UInt16(privilege), attributes: Segment.unusableBit | UInt32(privilege) &<< 5)
    }
}
//:
