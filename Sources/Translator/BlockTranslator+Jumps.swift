internal import Interpreter
internal import X86

//S:500 Where to next
//
// A jump within its page leads to code of the same physical page, whatever
// page tables say: it is linked once and for all. So are jumps between the
// kernel's pages, which lie still, until something is flushed that may have
// moved them. A program's jump into another page, a return, a jump through a
// register, ask a table that is indexed by RIP, with the page's number folded
// in, so that functions that begin at the same place of different pages do not
// share a slot:
//
//      mov  r13d, r14d            (R14 = target)
//      shr  r13d, 12
//      xor  r13d, r14d
//      and  r13d, mask
//      cmp  r14, [rsp + r13·8 + tags]
//      jne  miss
//      jmp  [rsp + r13·8 + codes]
//
// Code that knows its address (S:450) knows the slot of a direct jump as well:
// there one CMP with a constant and the last two lines are all. A miss looks in
// the table's second way (S:435) before it asks Swift.
//
// On today's CPUs, whose predictors go by the path that led here, this is as
// quick for a return as the return itself. Flags do not survive the AND: they
// are put into their slot first, and a block that wants them takes them out
// (S:465).

extension BlockTranslator {
    /// Whether a jump to this distance from the page's start leads to the same code
    /// whatever program runs: it stays in the page, or is the kernel's, which lies still.
    private func isLinkable(_ target: Int64) -> Bool { isNear(target) || fixedPage != nil && !mode.isUser }

    /// To a place that is known by its distance from the page.
    func emitDirectJump(to target: Int64, flagsLive: UInt32) {
        if isLinkable(target) {
            var cold = Cold(.link, index: count - 1, place: e.jump(), back: e.at)
            cold.target = target
            cold.viaSlot = !flagsInCPU
            colds.append(cold)
        } else {
            if flagsLive != 0 { storeFlags() }
            emitFarJump(count - 1, to: target)
        }
    }

    /// Into another page, where no link may lead, by the jump table; flags in their slot.
    func emitFarJump(_ index: Int, to target: Int64) {
        guard let fixedPage, let rip = Int32(exactly: Int64(bitPattern: fixedPage &+ UInt64(bitPattern: target))) else {
            emitRIP(target)
            emitJumpTable(index)
            return
        }
        // The slot is known now, and code there knows its address too: R14 need not have it.
        let table = SoftTLB.jumpTable(mode)
        let place = Int32(table.slot(UInt64(bitPattern: Int64(rip))) * 8)
        e.immediate(7, Host.rsp, table.tags + place, value: rip, wide: true)
        var cold = Cold(.miss, index: index, place: e.jump(if: Condition.notEqual), back: e.at)
        cold.farTarget = target
        colds.append(cold)
        e.byte(0xff)  // jmp
        e.memory(4, base: Host.rsp, table.codes + place)
    }

    func emitConditional(_ index: Int) {
        let d = unsafe instruction(index).pointee
        fetchFlags()
        let place = e.jump(if: d.condition)
        var cold = Cold(
            isLinkable(d.target) ? .link : .crossJump, index: index, place: place, back: e.at)
        cold.target = d.target
        cold.viaSlot = flagsInSlot
        colds.append(cold)
    }

    /// To RIP in R14, flags in their slot.
    func emitJumpTable(_ index: Int, to target: TranslationMode? = nil, release: Int32 = 0, mayFault: Bool = false) {
        let mode = target ?? mode
        let table = SoftTLB.jumpTable(mode)
        e.jumpSlot(table)
        e.op(0x3b, Host.r14, base: Host.rsp, index: Host.r13, scale: 3, table.tags)
        var cold = Cold(.miss, index: index, place: e.jump(if: Condition.notEqual), back: e.at)
        cold.jumpTable = table
        cold.release = release
        cold.mayFault = mayFault
        if release != 0 { e.lea(Host.guestStack, base: Host.guestStack, release) }
        e.rex(false, 4, Host.r13, Host.rsp)
        e.byte(0xff)  // jmp
        e.memory(4, base: Host.rsp, index: Host.r13, scale: 3, table.codes)
        colds.append(cold)
    }

    /// The table does not know the target. One that is not canonical is the
    /// instruction's own fault, so that nothing may be done yet.
    func emitMiss(_ cold: Cold) {
        if let target = cold.farTarget { emitRIP(target) }
        let table = cold.jumpTable ?? SoftTLB.jumpTable(mode)
        let lookup = runtime.lookups[SoftTLB.allJumpTables.firstIndex(of: table) ?? 0]
        guard cold.mayFault else {
            e.jump(to: lookup)
            return
        }
        e.compareCanonical(Host.r14)
        let isCanonical = e.jump(if: Condition.belowOrEqual)
        // No record: not RIP is wanted, but the instruction.
        e.constant(Host.r14, 0)
        unsafe e.constant(Host.r13, UInt64(SiteInfo(instruction(cold.index).pointee).word))
        let back = e.at
        callOut(runtime.slow)
        e.jump(to: back)
        e.patchHere(isCanonical)
        if cold.release != 0 { e.lea(Host.guestStack, base: Host.guestStack, cold.release) }
        e.jump(to: lookup)
    }

    /// A direct jump, the first time.
    func emitLink(_ cold: Cold, extra: Link.Kind = []) {
        let isFixed = fixedPage != nil
        let target = isFixed ? Int64(bitPattern: fixedPage! &+ UInt64(bitPattern: cold.target)) : cold.target
        var kind = extra
        if !isFixed { kind.insert(.relative) }
        if !isNear(cold.target) && !kind.contains(.alone) { kind.insert(.cross) }
        if cold.viaSlot { kind.insert(.viaSlot) }
        let number = store.add(
            Link(
                place: store.offset(cold.place), unlinked: store.offset(e.at), target: target, kind: kind,
                source: store.nextBlock))
        e.constant(Host.r13, UInt64(number))
        e.jump(to: cold.viaSlot ? runtime.linkViaSlot : runtime.link)
    }

    // MARK: Calls and returns

    private func pushOperand() -> MemoryOperand {
        var operand = MemoryOperand()
        operand.base = 4
        operand.displacement = -8
        operand.bytes = 8
        return operand
    }

    /// Stores the return address where the check has said, and moves RSP.
    private func emitPushReturn(_ d: Decoded, _ p: HostPlace) {
        let offset = Int64(d.offset) + Int64(d.length)
        if let fixedPage, let short = Int32(exactly: Int64(bitPattern: fixedPage &+ UInt64(bitPattern: offset))) {
            e.rex(true, 0, p.index, p.base)
            e.byte(0xc7)
            e.memory(0, base: p.base, index: p.index, p.displacement)
            e.word(short)
        } else {
            emitRIP(offset)
            e.op(0x89, Host.r14, base: p.base, index: p.index, p.displacement)
        }
        e.lea(Host.guestStack, base: Host.guestStack, -8)
    }

    func emitCall(_ index: Int) {
        let d = unsafe instruction(index).pointee
        let p = emitAccess(index, pushOperand(), writes: true, freeR14: true, isStack: true)
        emitPushReturn(d, p)
        emitDirectJump(to: d.target, flagsLive: d.liveAfter)
    }

    func emitReturn(_ index: Int) {
        let d = unsafe instruction(index).pointee
        var operand = pushOperand()
        operand.displacement = 0
        spillFlags(index)
        let p = emitAccess(index, operand, writes: false, freeR14: true, isStack: true)
        e.op(0x8b, Host.r14, base: p.base, index: p.index, p.displacement)
        emitJumpTable(index, release: Int32(8 + d.immediate), mayFault: true)
    }

    /// R14 = where an indirect branch leads.
    private func emitTarget(_ index: Int) {
        let d = unsafe instruction(index).pointee
        spillFlags(index)
        if d.memory.bytes > 0 {
            let p = emitAccess(index, d.memory, writes: false, freeR14: false)
            e.op(0x8b, Host.r14, base: p.base, index: p.index, scale: p.scale, p.displacement)
            return
        }
        let number = Int(d.named[0].number)
        if host(number) < 0 {
            e.load(Host.r14, Host.rsp, Int32(number * 8))
        } else {
            e.move(Host.r14, host(number))
        }
    }

    func emitIndirectJump(_ index: Int) {
        emitTarget(index)
        emitJumpTable(index, mayFault: true)
    }

    /// The target must be canonical before anything is pushed.
    func emitIndirectCall(_ index: Int) {
        let d = unsafe instruction(index).pointee
        emitTarget(index)
        e.store(Host.r14, Host.rsp, Slot.operand)
        e.compareCanonical(Host.r14)
        var cold = Cold(.slow, index: index, place: e.jump(if: Condition.above), back: e.at)
        cold.info = SiteInfo(d)
        colds.append(cold)
        let p = emitAccess(index, pushOperand(), writes: true, freeR14: true, isStack: true)
        emitPushReturn(d, p)
        e.load(Host.r14, Host.rsp, Slot.operand)
        emitJumpTable(index)
    }
}
//:
