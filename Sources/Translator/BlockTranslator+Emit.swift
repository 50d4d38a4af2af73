internal import CZydis
internal import Interpreter
internal import X86

//S:490 One by one
//
// What is not copied: the stack's instructions, because the Guest's RSP lives
// in R15; divisions, which could fault in the middle of our code and are
// looked at first; jumps (S:500); REP STOS and REP MOVS (S:497); what is not
// the CPU's but the vCPU's, as the interrupt flag is (S:495); and calls of the
// Interpreter for all the rest.
//
// Each instruction changes nothing before its last access has succeeded. A
// slow access can therefore be handed over whole: the Interpreter runs the
// instruction from its start, faults and devices included.

extension BlockTranslator {
    func emit(_ index: Int) {
        let first = colds.count
        emitOne(index)
        // What the Interpreter did in our stead goes on here.
        for number in first..<colds.count where colds[number].kind == .slow { colds[number].next = e.at }
    }

    private func emitOne(_ index: Int) {
        switch unsafe instruction(index).pointee.kind {
        case .plain: emitPlain(index)
        case .memory: emitMemory(index)
        case .address: emitLEA(index)
        case .nothing: break
        case .divide: emitDivide(index)
        case .push: emitPush(index)
        case .pop: emitPop(index)
        case .leave: emitLeave(index)
        case .jump:
            unsafe emitDirectJump(
                to: instruction(index).pointee.target, flagsLive: instruction(index).pointee.liveAfter)
        case .jumpIf: emitConditional(index)
        case .call: emitCall(index)
        case .ret: emitReturn(index)
        case .jumpIndirect: emitIndirectJump(index)
        case .callIndirect: emitIndirectCall(index)
        case .clearInterrupts, .setInterrupts: emitInterruptFlag(index)
        case .clearOverride, .setOverride: emitOverride(index)
        case .swapGS: emitSwapGS()
        case .timeStamp, .timeStampAndAux: emitTimeStamp(index)
        case .fill, .copy: emitRepeated(index)
        case .clearDirection: emitClearDirection(index)
        case .readSegment: emitReadSegment(index)
        case .readControl: emitReadControl(index)
        case .readBase, .writeBase: emitBase(index)
        case .pushFlags: emitPushFlags(index)
        case .systemCall: emitSystemCall(index)
        case .systemReturn: emitSystemReturn(index)
        case .interpret, .interpretLast: emitInterpreted(index)
        }
    }

    // MARK: The Interpreter

    /// Calls the Interpreter for this instruction, with its record if there can be one.
    func emitInterpreted(_ index: Int) {
        let d = unsafe instruction(index).pointee
        storeFlags()
        let record = unsafe store.addRecord()
        let isPrepared = unsafe core.prepare(
            codeBytes(d.offset), count: available(d.offset), offset: Int(d.offset), into: record)
        e.constant(Host.r14, isPrepared ? UInt64(UInt(bitPattern: record)) : 0)
        e.constant(Host.r13, UInt64(SiteInfo(d).word))
        let back = e.at
        callOut(runtime.slow)
        // Five bytes that are never run: nothing is to be tried again.
        e.jump(to: back)
        (flagsInCPU, flagsInSlot) = (true, true)
    }

    /// Calls what may end in Swift, which wants to know the page that is being run. Code
    /// that knows it by heart tells it on the way, by a stub that all calls of the block share.
    func callOut(_ target: BufferPlace) {
        if fixedPage == nil {
            e.call(to: target)
        } else {
            callsOut.append((target, e.call()))
        }
    }

    func emitCallStubs() {
        guard let fixedPage else { return }
        while let (target, _) = callsOut.first {
            for (_, place) in callsOut.filter({ $0.target == target }) { e.patchHere(place) }
            callsOut.removeAll { $0.target == target }
            // The return address is on the stack.
            e.storeConstant(
                Host.rsp, StateOffsets.codePage + 8, Int32(truncatingIfNeeded: Int64(bitPattern: fixedPage)))
            e.jump(to: target)
        }
    }

    // MARK: Division

    /// #DE is found beforehand, or suspected: then the Interpreter divides.
    func emitDivide(_ index: Int) {
        let d = unsafe instruction(index).pointee
        let z = unsafe zydisInstruction(index)
        let isWide = unsafe z.pointee.operand_width == 64
        spillFlags(index)
        if d.memory.bytes > 0 {
            let p = emitAccess(index, d.memory, writes: false, freeR14: false)
            e.op(
                0x8b, Host.r13, base: p.base, index: p.index, scale: p.scale,
                p.displacement, wide: isWide)
        } else {
            let number = Int(d.named[0].number)
            if host(number) < 0 {
                e.load(Host.r13, Host.rsp, Int32(number * 8), wide: isWide)
            } else {
                e.move(Host.r13, host(number), wide: isWide)
            }
        }
        var cold: Cold
        if d.mnemonic == UInt16(truncatingIfNeeded: ZYDIS_MNEMONIC_DIV.rawValue) {
            // The quotient fits if the upper half is below the divisor.
            e.op(0x39, Host.r13, rm: Host.rdx, wide: isWide)  // cmp rdx, r13
            cold = Cold(.slow, index: index, place: e.jump(if: Condition.notBelow), back: e.at)
        } else {
            // It fits if the upper half only repeats the sign, but for 0 and −1.
            e.move(Host.r14, Host.rax, wide: isWide)
            e.shift(7, Host.r14, isWide ? 63 : 31, wide: isWide)
            e.op(0x39, Host.r14, rm: Host.rdx, wide: isWide)
            cold = Cold(.slow, index: index, place: e.jump(if: Condition.notEqual), back: e.at)
            e.lea(Host.r14, base: Host.r13, 1, wide: isWide)
            e.immediate(7, Host.r14, 1, wide: isWide)
            cold.place2 = e.jump(if: Condition.belowOrEqual)
        }
        e.rex(isWide, 0, -1, Host.r13)
        let field: UInt8 = d.mnemonic == UInt16(truncatingIfNeeded: ZYDIS_MNEMONIC_DIV.rawValue) ? 6 : 7
        e.bytes(0xf7, 0xc0 | field << 3 | UInt8(Host.r13 & 7))
        cold.info = SiteInfo(d)
        colds.append(cold)
        noteFlags(index)
    }

    // MARK: Stack

    /// [RSP + displacement], eight bytes.
    func stackOperand(_ displacement: Int64) -> MemoryOperand {
        var operand = MemoryOperand()
        operand.base = 4
        operand.displacement = displacement
        operand.bytes = 8
        return operand
    }

    func emitPush(_ index: Int) {
        let d = unsafe instruction(index).pointee
        if d.memory.bytes > 0 {
            let p = emitAccess(index, d.memory, writes: false, freeR14: false)
            e.op(0x8b, Host.r13, base: p.base, index: p.index, scale: p.scale, p.displacement)
            e.store(Host.r13, Host.rsp, Slot.operand)
        }
        let p = emitAccess(
            index, stackOperand(-8), writes: true, freeR14: true, isStack: true)
        if d.memory.bytes > 0 {
            e.load(Host.r14, Host.rsp, Slot.operand)
            e.op(0x89, Host.r14, base: p.base, index: p.index, p.displacement)
        } else if d.namedCount > 0 {
            var register = host(Int(d.named[0].number))
            if register < 0 {
                e.load(Host.r14, Host.rsp, Int32(d.named[0].number) * 8)
                register = Host.r14
            }
            e.op(0x89, register, base: p.base, index: p.index, p.displacement)
        } else {
            e.rex(true, 0, p.index, p.base)
            e.byte(0xc7)
            e.memory(0, base: p.base, index: p.index, p.displacement)
            e.word(Int32(truncatingIfNeeded: d.immediate))
        }
        e.lea(Host.guestStack, base: Host.guestStack, -8)
    }

    func emitPop(_ index: Int) {
        let d = unsafe instruction(index).pointee
        let p = emitAccess(index, stackOperand(0), writes: false, freeR14: true, isStack: true)
        let number = Int(d.named[0].number)
        let register = host(number)
        if number == 4 {
            e.op(0x8b, Host.guestStack, base: p.base, index: p.index, p.displacement)
        } else {
            e.op(0x8b, register < 0 ? Host.r14 : register, base: p.base, index: p.index, p.displacement)
            if register < 0 { e.store(Host.r14, Host.rsp, Int32(number * 8)) }
            e.lea(Host.guestStack, base: Host.guestStack, 8)
        }
    }

    func emitLeave(_ index: Int) {
        var operand = stackOperand(0)
        operand.base = 5
        let p = emitAccess(index, operand, writes: false, freeR14: true)
        e.op(0x8b, Host.r14, base: p.base, index: p.index, p.displacement)
        e.lea(Host.guestStack, base: Host.rbp, 8)
        e.move(Host.rbp, Host.r14)
    }

    // MARK: Behind the block

    func emitCold(_ cold: Cold) {
        e.patchHere(cold.place)
        if let place2 = cold.place2 { e.patchHere(place2) }
        let d = unsafe instruction(cold.index).pointee
        switch cold.kind {
        case .poll:
            unsafe emitRIP(Int64(instruction(0).pointee.offset))
            e.call(to: runtime.poll)
            e.jump(to: cold.back)
        case .slow:
            // The check may have failed after it spoiled R13 and R14: nothing else.
            if let operand = cold.operand { emitAddress(operand) } else { e.constant(Host.r14, 0) }
            let info = cold.info ?? SiteInfo(d)
            e.constant(Host.r13, UInt64(info.word))
            callOut(refill(info))
            e.jump(to: cold.back)
            if let next = cold.next { e.jump(to: next) }
        case .group: emitUngrouped(cold)
        case .link: emitLink(cold)
        case .miss: emitMiss(cold)
        case .crossJump:
            if !cold.viaSlot { e.saveFlags() }
            emitFarJump(cold.index, to: cold.target)
        }
    }
}
//:
