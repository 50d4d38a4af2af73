internal import Interpreter

//S:475 One check for several
//
// A function's first block pushes four registers, its last pops them, and in
// between it reads and writes its frame: a dozen accesses within a few bytes
// of RSP. One check will do for all. So accesses of a block that have their
// base register in common, and nothing changes that in between (RSP may move,
// by constants), form a group: the first of them asks for all the bytes that
// the group touches, in one page, and writes down the addend for the others.
// Where an instruction wants its operand aligned, as SSE does, that is asked
// once too: an operand that is whole multiples away from one that was asked
// about need not be.
//
// If the bytes are in two pages after all, or in one that the TLB cannot vouch
// for (it faults, is a device's, or is code and to be written), the block is
// left before the instruction, for code that has no groups. So the state is
// exact at each access, as it was without.

/// Accesses that share a check. Offsets are from the base register's value at
/// the first, or for RSP from its value at the block's start.
struct AccessGroup {
    var base: Int
    var low: Int64
    var high: Int64
    var writes: Bool
    var count = 1
    /// Its first access has been written.
    var isChecked = false
    /// An offset whose address was found to be a multiple of `alignment`, the last that was asked about.
    var aligned: (offset: Int64, alignment: Int)?
    /// A jump out of the block has come since it was opened.
    var isBehindJump = false

    /// No group is longer, so that most are in one page.
    static let longest: Int64 = 1024
    /// A slot each.
    static let maximum = 16
}

extension BlockTranslator {
    /// Finds the groups of the block.
    func findGroups() {
        groups.removeAll(keepingCapacity: true)
        if mode.contains(.alone) { return }
        var open = InlineArray<16, Int8>(repeating: -1)
        var delta: Int64 = 0

        func join(_ base: Int, _ from: Int64, _ bytes: Int, writes: Bool) -> Int8 {
            let known = open[base]
            if known >= 0 {
                let group = groups[Int(known)]
                let low = min(group.low, from), high = max(group.high, from + Int64(bytes))
                // A write that may never come must not be asked for.
                if high - low <= AccessGroup.longest && (!writes || group.writes || !group.isBehindJump) {
                    groups[Int(known)].low = low
                    groups[Int(known)].high = high
                    groups[Int(known)].writes = group.writes || writes
                    groups[Int(known)].count += 1
                    return known
                }
            }
            guard groups.count < AccessGroup.maximum else { return -1 }
            groups.append(AccessGroup(base: base, low: from, high: from + Int64(bytes), writes: writes))
            open[base] = Int8(groups.count - 1)
            return open[base]
        }

        for index in 0..<count {
            let d = unsafe instruction(index)
            unsafe d.pointee.stackDelta = Int32(truncatingIfNeeded: delta)
            let m = unsafe d.pointee.memory
            switch unsafe d.pointee.kind {
            case .memory, .divide, .push, .jumpIndirect, .callIndirect:
                if m.bytes > 0 && m.base >= 0 && m.index < 0 && m.segment == 0 && m.bitIndex < 0 {
                    let from = m.displacement + (m.base == 4 ? delta : 0)
                    unsafe d.pointee.group = join(m.base, from, m.bytes, writes: m.writes)
                }
            default: break
            }
            switch unsafe d.pointee.kind {
            case .push, .pushFlags, .call, .callIndirect:
                unsafe d.pointee.stackGroup = join(4, delta - 8, 8, writes: true)
            case .pop, .ret: unsafe d.pointee.stackGroup = join(4, delta, 8, writes: false)
            case .interpret:
                for base in 0..<16 { open[base] = -1 }
            case .jumpIf:
                for group in groups.indices { groups[group].isBehindJump = true }
            default: break
            }
            for base in 0..<16 where unsafe base != 4 && d.pointee.clobbers & 1 << UInt16(base) != 0 { open[base] = -1 }
            if let change = unsafe d.pointee.stackChange { delta += Int64(change) } else { open[4] = -1 }
            if unsafe d.pointee.kind == .leave { open[5] = -1 }
            if abs(delta) > 1 << 20 { open[4] = -1; delta = 0 }
        }
    }

    /// The operand by its group's check; nil if it has no group worth one.
    func emitGrouped(_ index: Int, _ m: MemoryOperand, group number: Int8, freeR14: Bool) -> HostPlace? {
        guard number >= 0, groups[Int(number)].count > 1 else { return nil }
        let group = groups[Int(number)]
        let d = unsafe instruction(index).pointee
        let slot = Slot.addends + Int32(number) * 8
        // The base stays as it is (or moves by constants), so that one operand's alignment speaks for others.
        let offset = m.displacement + (m.base == 4 ? Int64(d.stackDelta) : 0)
        let isKnown = group.aligned.map {
            $0.alignment >= m.alignment && (offset - $0.offset) & Int64(m.alignment - 1) == 0
        }
        let asksAlignment = m.alignment > 1 && isKnown != true
        if asksAlignment {
            groups[Int(number)].aligned = (offset, m.alignment)
            // R13 is still free.
            spillFlags(index)
        }
        if group.isChecked {
            e.load(Host.r13, Host.rsp, slot)
        } else {
            groups[Int(number)].isChecked = true
            spillFlags(index)
            let retry = e.at
            var first = m
            first.displacement = group.low - (m.base == 4 ? Int64(d.stackDelta) : 0)
            first.bytes = Int(group.high - group.low)
            emitAddress(first)
            let tables = SoftTLB.tables(mode)
            let table = group.writes ? tables.write : tables.read
            emitSlot()
            emitTag(table)
            e.immediate(7, Host.r14, Int32(4096 - first.bytes))
            var cold = Cold(.group, index: index, place: e.jump(if: Condition.above), back: retry)
            cold.operand = first
            cold.info = SiteInfo(d, bytes: first.bytes, writes: group.writes, kind: .group)
            colds.append(cold)
            emitAddend(table)
            e.store(Host.r13, Host.rsp, slot)
        }
        var base = host(m.base)
        if base < 0 {
            e.load(Host.r14, Host.rsp, Int32(m.base * 8))
            base = Host.r14
        }
        let displacement = Int32(truncatingIfNeeded: m.displacement)
        if asksAlignment {
            e.lea(Host.r14, base: base, displacement)
            e.bytes(0x41, 0xf6, 0xc6, UInt8(m.alignment - 1))  // test r14b, imm8
            var cold = Cold(.slow, index: index, place: e.jump(if: Condition.notEqual), back: e.at)
            // What follows takes the alignment for granted, and not all that asks for it faults:
            // PHSUBSW and the SHA instructions do not on AMD's CPUs.
            cold.info = SiteInfo(d, leaves: true)
            colds.append(cold)
            if base == Host.r14 { e.load(Host.r14, Host.rsp, Int32(m.base * 8)) }
        }
        if base == Host.r14 && freeR14 {
            e.lea(Host.r13, base: Host.r13, index: Host.r14, displacement)
            return HostPlace(base: Host.r13)
        }
        return HostPlace(base: base, index: Host.r13, displacement: displacement)
    }

    /// Behind the block: a group's bytes are in two pages, or the TLB does not know the one.
    /// If it will not be told (`Translator.slow` says "next"), it is as if they were in two.
    func emitUngrouped(_ cold: Cold) {
        guard let operand = cold.operand, let info = cold.info else { return }
        emitAddress(operand)
        e.move(Host.r13, Host.r14, wide: false)
        e.immediate(4, Host.r13, 0xfff, wide: false)
        e.immediate(7, Host.r13, Int32(4096 - operand.bytes), wide: false)
        let isSplit = e.jump(if: Condition.above)
        e.constant(Host.r13, UInt64(info.word))
        callOut(refill(info))
        e.jump(to: cold.back)
        e.patchHere(isSplit)
        // This instruction once more, where it is alone.
        var again = Cold(.link, index: cold.index, place: e.jump(), back: e.at)
        again.target = unsafe Int64(instruction(cold.index).pointee.offset)
        again.viaSlot = true
        e.patchHere(again.place)
        emitLink(again, extra: .alone)
    }
}
//:
