internal import Interpreter
internal import X86

//S:495 What is not worth a call
//
// To call the Interpreter costs some forty nanoseconds, most of it for putting
// registers away. A kernel that enters and leaves itself half a million times
// a second notices. So the system instructions that it does that with are
// written out here, and what its entries and fault handlers are full of: CLD,
// MOV from CR2, CR3 and segment registers. Each reads or changes the vCPU's
// state, and of the CPU's nothing but general registers, and flags that have
// been put aside. (SERIALIZE is nothing at all, as it is to the Interpreter:
// code that changes is noticed without it.) The conditions under which they
// would fault are in the mode that the code was translated for, or are left to
// the Interpreter.

extension BlockTranslator {
    /// CLI and STI at CPL 0, where IOPL cannot forbid them. STI's shadow of one
    /// instruction comes by itself: requests are looked at where blocks begin.
    func emitInterruptFlag(_ index: Int) {
        let sets = unsafe instruction(index).pointee.kind == .setInterrupts
        spillFlags(index)
        e.immediate(sets ? 1 : 4, Host.rsp, offsets.rflags, value: sets ? 0x200 : ~0x200)
        e.immediate(sets ? 1 : 4, Host.rsp, offsets.pollMask, value: sets ? 1 : ~1)
    }

    /// CLD: DF is the state's alone, and asked for there (S:497). The CPU's is always
    /// clear, for what goes backwards is the Interpreter's.
    func emitClearDirection(_ index: Int) {
        spillFlags(index)
        e.immediate(4, Host.rsp, offsets.rflags, value: ~Int32(truncatingIfNeeded: RFlags.direction))
    }

    /// MOV from CR2 or CR3 at CPL 0, which changes no flag.
    func emitReadControl(_ index: Int) {
        let d = unsafe instruction(index).pointee
        let number = Int(d.named[0].number)
        let target = host(number) < 0 ? Host.r13 : host(number)
        e.load(target, Host.rsp, d.immediate == 2 ? offsets.cr2 : offsets.cr3)
        if host(number) < 0 { e.store(Host.r13, Host.rsp, Int32(number * 8)) }
    }

    /// STAC and CLAC: what follows is code of another mode.
    func emitOverride(_ index: Int) {
        let d = unsafe instruction(index).pointee
        let sets = d.kind == .setOverride
        spillFlags(index)
        e.immediate(
            sets ? 1 : 4, Host.rsp, offsets.rflags,
            value: Int32(truncatingIfNeeded: sets ? RFlags.alignmentCheck : ~RFlags.alignmentCheck))
        if mode.contains(.smap) {
            e.load(Host.r13, Host.rsp, sets ? Slot.openSet : Slot.closedSet)
            e.store(Host.r13, Host.rsp, offsets.tlb)
        }
        emitDirectJump(to: Int64(d.offset) + Int64(d.length), flagsLive: d.liveAfter)
    }

    /// FS' and GS' bases are in two places: where addresses are made from, and in the segment.
    private func emitSetBase(_ segment: Int, _ register: Int) {
        e.store(register, Host.rsp, StateOffsets.segmentBase(segment))
        e.store(register, Host.rsp, offsets.base(segment))
    }

    func emitSwapGS() {
        e.load(Host.r13, Host.rsp, offsets.kernelGSBase)
        e.load(Host.r14, Host.rsp, StateOffsets.segmentBase(SegmentName.gs))
        emitSetBase(SegmentName.gs, Host.r13)
        e.store(Host.r14, Host.rsp, offsets.kernelGSBase)
    }

    /// RDTSC: the Host's, and what the Guest's is ahead of it.
    func emitTimeStamp(_ index: Int) {
        spillFlags(index)
        e.bytes(0x0f, 0x31)
        e.shift(4, Host.rdx, 32)
        e.op(0x09, Host.rdx, rm: Host.rax)  // or rax, rdx
        e.op(0x03, Host.rax, base: Host.rsp, offsets.tscOffset)
        e.move(Host.rdx, Host.rax)
        e.shift(5, Host.rdx, 32)
        e.move(Host.rax, Host.rax, wide: false)
        if unsafe instruction(index).pointee.kind == .timeStampAndAux {
            e.load(Host.rcx, Host.rsp, offsets.tscAux, wide: false)
        }
    }

    /// MOV from a segment register to a general one.
    func emitReadSegment(_ index: Int) {
        let d = unsafe instruction(index).pointee
        let number = Int(d.named[0].number)
        if d.named[0].bytes == 2 {
            // Only the low word changes.
            let target = host(number) < 0 ? Host.r13 : host(number)
            e.byte(0x66)
            e.load(target, Host.rsp, offsets.selector(Int(d.immediate)), wide: false)
            if host(number) < 0 {
                e.byte(0x66)
                e.store(target, Host.rsp, Int32(number * 8), wide: false)
            }
            return
        }
        let target = host(number) < 0 ? Host.r13 : host(number)
        e.rex(false, target, -1, Host.rsp)
        e.bytes(0x0f, 0xb7)  // movzx r32, word
        e.memory(target, base: Host.rsp, offsets.selector(Int(d.immediate)))
        if target == Host.r13 { e.store(Host.r13, Host.rsp, Int32(number * 8)) }
    }

    /// RDFSBASE, WRFSBASE and those of GS, 64 bits wide.
    func emitBase(_ index: Int) {
        let d = unsafe instruction(index).pointee
        let number = Int(d.named[0].number)
        let segment = Int(d.immediate)
        var register = host(number)
        if d.kind == .readBase {
            if register < 0 { register = Host.r13 }
            e.load(register, Host.rsp, StateOffsets.segmentBase(segment))
            if register == Host.r13 { e.store(Host.r13, Host.rsp, Int32(number * 8)) }
            return
        }
        if register < 0 {
            e.load(Host.r14, Host.rsp, Int32(number * 8))
            register = Host.r14
        }
        spillFlags(index)
        // Not canonical: #GP, by the Interpreter.
        e.compareCanonical(register)
        var cold = Cold(.slow, index: index, place: e.jump(if: Condition.above), back: e.at)
        cold.info = SiteInfo(d)
        colds.append(cold)
        emitSetBase(segment, register)
    }

    // MARK: System calls

    /// The way out of both, for the Interpreter: nothing has been done yet.
    private func leaveToInterpreter(_ index: Int, _ places: BufferPlace...) {
        for place in places {
            var cold = Cold(.slow, index: index, place: place, back: e.at)
            cold.info = unsafe SiteInfo(instruction(index).pointee)
            colds.append(cold)
        }
    }

    /// CS and SS, as they were prepared at `template`.
    private func emitSegments(_ template: Int32) {
        let stride = Int32(MemoryLayout<Segment>.stride)
        for (number, from) in [(SegmentName.cs, template), (SegmentName.ss, template + stride)] {
            for word in 0..<(stride / 8) {
                e.load(Host.r13, Host.rsp, from + word * 8)
                e.store(Host.r13, Host.rsp, offsets.selector(number) + word * 8)
            }
        }
    }

    /// The Interpreter's idea of the mode follows.
    private func emitPrivilege(_ level: UInt8, tlbSet: Int32) {
        e.byte(0xc6)  // mov byte
        e.memory(0, base: Host.rsp, offsets.privilege)
        e.byte(level)
        e.immediate(level == 3 ? 1 : 4, Host.rsp, offsets.modeKey, value: level == 3 ? 8 : ~8)
        e.load(Host.r13, Host.rsp, tlbSet)
        e.store(Host.r13, Host.rsp, offsets.tlb)
    }

    /// R14 = RFLAGS without RF, from the state and the flags in their slot.
    private func emitFlagsImage() {
        e.load(Host.r13, Host.rsp, Slot.flags, wide: false)
        e.move(Host.r14, Host.r13, wide: false)
        e.immediate(4, Host.r14, 1, wide: false)
        e.shift(4, Host.r14, 11, wide: false)
        e.shift(5, Host.r13, 8, wide: false)
        e.immediate(4, Host.r13, 0xd5, wide: false)
        e.op(0x09, Host.r13, rm: Host.r14, wide: false)
        e.load(Host.r13, Host.rsp, offsets.rflags, wide: false)
        e.immediate(
            4, Host.r13, ~Int32(truncatingIfNeeded: RFlags.arithmetic | RFlags.resume | RFlags.virtual8086),
            wide: false)
        e.op(0x09, Host.r13, rm: Host.r14, wide: false)
    }

    /// SYSCALL (SDM 2B), where `systemCallTemplates` allows it: RCX and R11
    /// take RIP and RFLAGS, the masked flags go, LSTAR is where it leads.
    func emitSystemCall(_ index: Int) {
        let d = unsafe instruction(index).pointee
        spillFlags(index)
        e.immediate(7, Host.rsp, Slot.systemCalls, value: 0)
        leaveToInterpreter(index, e.jump(if: Condition.equal))
        emitFlagsImage()
        e.move(Host.r11, Host.r14)
        e.load(Host.r13, Host.rsp, offsets.syscallMask)
        e.rex(true, 0, -1, Host.r13)
        e.bytes(0xf7, 0xd0 | UInt8(Host.r13 & 7))  // not r13
        e.op(0x21, Host.r13, rm: Host.r14)  // and r14, r13
        e.immediate(1, Host.r14, 2)
        e.store(Host.r14, Host.rsp, offsets.rflags)
        e.storeConstant(Host.rsp, Slot.flags, 0x200)
        e.immediate(4, Host.rsp, offsets.pollMask, value: ~1)
        emitRIP(Int64(d.offset) + Int64(d.length))
        e.move(Host.rcx, Host.r14)
        emitSegments(Slot.kernelSegments)
        let isClosed = mode.contains(.smap)
        emitPrivilege(0, tlbSet: isClosed ? Slot.closedSet : Slot.openSet)
        e.load(Host.r14, Host.rsp, offsets.lstar)
        emitJumpTable(index, to: isClosed ? [] : .open)
    }

    /// SYSRET to 64-bit code in the lower half, without TF and AC.
    func emitSystemReturn(_ index: Int) {
        spillFlags(index)
        e.immediate(7, Host.rsp, Slot.systemCalls, value: 0)
        let isOff = e.jump(if: Condition.equal)
        e.rex(false, 0, -1, Host.r11)
        e.bytes(0xf7, 0xc0 | UInt8(Host.r11 & 7))  // test r11d, imm32
        e.word(Int32(truncatingIfNeeded: RFlags.trap | RFlags.alignmentCheck))
        let isWatched = e.jump(if: Condition.notEqual)
        e.move(Host.r13, Host.rcx)
        e.shift(5, Host.r13, 47)
        let isUpper = e.jump(if: Condition.notEqual)
        leaveToInterpreter(index, isOff, isWatched, isUpper)
        // RFLAGS' bits 0…7 → 8…15 of the slot, bit 11 → 0.
        e.move(Host.r13, Host.r11, wide: false)
        e.immediate(4, Host.r13, 0xd5, wide: false)
        e.shift(4, Host.r13, 8, wide: false)
        e.move(Host.r14, Host.r11, wide: false)
        e.shift(5, Host.r14, 11, wide: false)
        e.immediate(4, Host.r14, 1, wide: false)
        e.op(0x09, Host.r14, rm: Host.r13, wide: false)
        e.store(Host.r13, Host.rsp, Slot.flags, wide: false)
        e.move(Host.r13, Host.r11, wide: false)
        e.immediate(4, Host.r13, 0x3c_7fd7, wide: false)
        e.immediate(1, Host.r13, 2, wide: false)
        e.store(Host.r13, Host.rsp, offsets.rflags)
        // IF decides whether interrupts are heard.
        e.load(Host.r14, Host.rsp, offsets.pollMask, wide: false)
        e.immediate(4, Host.r14, ~1, wide: false)
        e.shift(5, Host.r13, 9, wide: false)
        e.immediate(4, Host.r13, 1, wide: false)
        e.op(0x09, Host.r13, rm: Host.r14, wide: false)
        e.store(Host.r14, Host.rsp, offsets.pollMask, wide: false)
        emitSegments(Slot.userSegments)
        emitPrivilege(3, tlbSet: Slot.userSet)
        e.move(Host.r14, Host.rcx)
        emitJumpTable(index, to: .user)
    }

    /// PUSHFQ: the arithmetic flags, from their slot, among those of the state.
    func emitPushFlags(_ index: Int) {
        spillFlags(index)
        let p = emitAccess(index, stackOperand(-8), writes: true, freeR14: true, isStack: true)
        e.store(Host.r13, Host.rsp, Slot.operand)
        emitFlagsImage()
        e.load(Host.r13, Host.rsp, Slot.operand)
        e.op(0x89, Host.r14, base: p.base, index: p.index, p.displacement)
        e.lea(Host.guestStack, base: Host.guestStack, -8)
    }
}
//:
