internal import Interpreter
internal import X86

//S:470 The price of an address
//
// Every access to the Guest's memory that shares no check with another (S:475)
// goes through this, and this is what the Translator's speed is made of. EA is
// the address, T the table of reads or of writes for the present privilege:
//
//      lea  r14, [EA]
//      mov  r13d, r14d
//      shr  r13d, 12
//      and  r13d, 1023             the page's slot
//      xor  r14, [rsp + r13·8 + T] with the slot's tag: the place in the page,
//      cmp  r14, 4096 - bytes      if it is this page's, and if not, much more
//      ja   slow
//      mov  r13, [rsp + r13·8 + T + 8192]
//      op   [r13 + EA]
//
// One comparison asks two questions: is it the page, and does the access end
// before the page does. (Slow is not yet Swift: the slot's second way is asked
// first, S:435.) All but the LEA, SHR, AND and the last load are off
// the path that the data waits for. (PEXT would do for MOV, SHR and AND: where
// the CPU has nothing to wait for it won a tenth, where it waits for the
// address it lost one.)

/// An operand's address in host registers.
struct HostPlace {
    var base: Int
    var index = -1
    var scale: UInt8 = 0
    var displacement: Int32 = 0
}

extension BlockTranslator {
    /// Where a Guest's register lives; -1: in the state.
    func host(_ register: Int) -> Int { register == 4 ? Host.guestStack : register > 12 ? -1 : register }

    /// R14 = the operand's linear address. Without a segment or bit index the flags stay.
    func emitAddress(_ m: MemoryOperand, withBit: Bool = true) {
        if m.isRIPRelative {
            emitRIP(m.displacement)
        } else {
            var base = m.base, index = m.index
            if base >= 0 {
                base = host(base)
                if base < 0 {
                    e.load(Host.r14, Host.rsp, Int32(m.base * 8))
                    base = Host.r14
                }
            }
            if index >= 0 {
                index = host(index)
                if index < 0 {
                    e.load(Host.r13, Host.rsp, Int32(m.index * 8))
                    index = Host.r13
                }
            }
            let displacement = Int32(truncatingIfNeeded: m.displacement)
            if base < 0 && index < 0 {
                e.constant(Host.r14, UInt64(bitPattern: m.displacement))
            } else if index < 0 && displacement == 0 {
                if base != Host.r14 { e.move(Host.r14, base) }
            } else {
                e.lea(Host.r14, base: base, index: index, scale: m.scale, displacement)
            }
        }
        if m.segment != 0 { e.op(0x03, Host.r14, base: Host.rsp, StateOffsets.segmentBase(m.segment)) }
        if withBit && m.bitIndex >= 0 {
            let isWide = m.bytes == 8
            var bit = host(m.bitIndex)
            if bit < 0 {
                e.load(Host.r13, Host.rsp, Int32(m.bitIndex * 8))
                bit = Host.r13
            }
            // mov or movsxd; then the word that the bit is in.
            if isWide { e.move(Host.r13, bit) } else { e.op(0x63, Host.r13, rm: bit) }
            e.shift(7, Host.r13, isWide ? 6 : 5)
            e.lea(Host.r14, base: Host.r14, index: Host.r13, scale: isWide ? 3 : 2, 0)
        }
    }

    /// Where an access of this block goes that the TLB's first way does not know.
    func refill(_ info: SiteInfo) -> BufferPlace {
        guard info.isAccess || info.isGroup else { return runtime.slow }
        let tables = SoftTLB.tables(mode)
        let index = SoftTLB.allTables.firstIndex(of: info.writes ? tables.write : tables.read)
        return index.map { runtime.refills[$0] } ?? runtime.slow
    }

    /// R13 = the slot of the page of the address in R14.
    func emitSlot() {
        e.move(Host.r13, Host.r14, wide: false)
        e.shift(5, Host.r13, 12, wide: false)
        e.immediate(4, Host.r13, Int32(Layout.tlbEntries - 1), wide: false)
    }

    /// R14 ^= the tag of slot R13: an address becomes its place in the page, and back.
    func emitTag(_ table: Int32) { e.op(0x33, Host.r14, base: Host.rsp, index: Host.r13, scale: 3, table) }

    /// R13 = the addend of slot R13.
    func emitAddend(_ table: Int32) {
        e.op(0x8b, Host.r13, base: Host.rsp, index: Host.r13, scale: 3, table + Layout.addends)
    }

    /// The check, and the way to name the operand after it. What it spoils of the
    /// Guest's flags is in their slot, if anybody wants it; where a group has been
    /// checked before, nothing is spoiled. R13 is in use until the access; R14 too,
    /// unless it was asked for.
    func emitAccess(
        _ index: Int, _ m: MemoryOperand, writes: Bool, freeR14: Bool,
        isStack: Bool = false
    ) -> HostPlace {
        let d = unsafe instruction(index).pointee
        let group = isStack ? d.stackGroup : d.group
        if let place = emitGrouped(index, m, group: group, freeR14: freeR14) {
            return place
        }
        spillFlags(index)
        let retry = e.at
        emitAddress(m)
        let tables = SoftTLB.tables(mode)
        let table = writes ? tables.write : tables.read
        emitSlot()
        emitTag(table)
        e.immediate(7, Host.r14, Int32(4096 - m.bytes))
        let isUnknown = e.jump(if: Condition.above)
        var cold = Cold(.slow, index: index, place: isUnknown, back: retry)
        if m.alignment > 1 {
            e.bytes(0x41, 0xf6, 0xc6, UInt8(m.alignment - 1))  // test r14b, imm8
            var misaligned = Cold(.slow, index: index, place: e.jump(if: Condition.notEqual), back: retry)
            misaligned.info = SiteInfo(d)
            colds.append(misaligned)
        }
        cold.operand = m
        cold.info = SiteInfo(d, bytes: m.bytes, writes: writes, kind: .access)

        let place: HostPlace
        let base = m.base < 0 || m.isRIPRelative ? -1 : host(m.base)
        if base >= 0 && m.index < 0 && m.segment == 0 && m.bitIndex < 0 {
            emitAddend(table)
            place = HostPlace(base: base, index: Host.r13, displacement: Int32(truncatingIfNeeded: m.displacement))
        } else {
            if m.bitIndex >= 0 {
                // The instruction itself adds what the bit's number is worth.
                emitAddend(table)
                emitAddress(m, withBit: false)
            } else {
                emitTag(table)
                emitAddend(table)
            }
            if freeR14 {
                e.op(0x01, Host.r14, rm: Host.r13)  // add r13, r14
                place = HostPlace(base: Host.r13)
            } else {
                place = HostPlace(base: Host.r13, index: Host.r14)
            }
        }
        colds.append(cold)
        return place
    }
}
//:
