internal import Interpreter
internal import X86

//S:495 What is not worth a call
//
// To call the Interpreter costs some forty nanoseconds, most of it for putting
// registers away. A kernel that enters and leaves itself half a million times
// a second notices. So the system instructions that it does that with are
// written out here: each changes the vCPU's state and nothing of the CPU's.
// The conditions under which they would fault are in the mode that the code
// was translated for, or are left to the Interpreter.

extension BlockTranslator {
    /// Runs `body`, which spoils the flags, with the Guest's put aside if they are wanted.
    private func keepingFlags(_ index: Int, _ body: () -> Void) {
        let isLive = instruction(index).pointee.liveBefore != 0
        if isLive { e.saveFlags() }
        body()
        if isLive { e.restoreFlags() }
    }

    /// CLI and STI at CPL 0, where IOPL cannot forbid them. STI's shadow of one
    /// instruction comes by itself: requests are looked at where blocks begin.
    func emitInterruptFlag(_ index: Int) {
        let sets = instruction(index).pointee.kind == .setInterrupts
        keepingFlags(index) {
            e.immediate(sets ? 1 : 4, Host.rsp, offsets.rflags, value: sets ? 0x200 : ~0x200)
            e.immediate(sets ? 1 : 4, Host.rsp, offsets.pollMask, value: sets ? 1 : ~1)
        }
    }

    /// STAC and CLAC: what follows is code of another mode.
    func emitOverride(_ index: Int) {
        let d = instruction(index).pointee
        let sets = d.kind == .setOverride
        keepingFlags(index) {
            e.immediate(
                sets ? 1 : 4, Host.rsp, offsets.rflags,
                value: Int32(truncatingIfNeeded: sets ? RFlags.alignmentCheck : ~RFlags.alignmentCheck))
        }
        if mode.contains(.smap) {
            e.load(Host.r13, Host.rsp, sets ? Slot.openSet : Slot.closedSet)
            e.store(Host.r13, Host.rsp, offsets.tlb)
        }
        emitDirectJump(to: Int64(d.offset) + Int64(d.length), flagsLive: d.liveAfter)
    }

    /// GS' base is in two places: where addresses are made from, and in its segment.
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
        keepingFlags(index) {
            e.bytes(0x0f, 0x31)
            e.shift(4, Host.rdx, 32)
            e.op(0x09, Host.rdx, rm: Host.rax)  // or rax, rdx
            e.op(0x03, Host.rax, base: Host.rsp, offsets.tscOffset)
            e.move(Host.rdx, Host.rax)
            e.shift(5, Host.rdx, 32)
            e.move(Host.rax, Host.rax, wide: false)
        }
    }

    /// MOV from a segment register to a general one of 32 or 64 bits.
    func emitReadSegment(_ index: Int) {
        let d = instruction(index).pointee
        let number = Int(d.named[0].number)
        let target = host(number) < 0 ? Host.r13 : host(number)
        e.rex(false, target, -1, Host.rsp)
        e.bytes(0x0f, 0xb7)  // movzx r32, word
        e.memory(target, base: Host.rsp, offsets.selector(Int(d.immediate)))
        if target == Host.r13 { e.store(Host.r13, Host.rsp, Int32(number * 8)) }
    }

    /// RDFSBASE, WRFSBASE and those of GS, 64 bits wide.
    func emitBase(_ index: Int) {
        let d = instruction(index).pointee
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
        let isLive = d.liveBefore != 0
        if isLive { e.saveFlags() }
        // Not canonical: #GP, by the Interpreter.
        e.move(Host.r13, register)
        e.shift(7, Host.r13, 47)
        e.lea(Host.r13, base: Host.r13, 1)
        e.immediate(7, Host.r13, 1)
        var cold = Cold(.slow, index: index, place: e.jump(if: Condition.above), back: e.at)
        cold.info = SiteInfo(d)
        colds.append(cold)
        emitSetBase(segment, register)
        if isLive { e.restoreFlags() }
    }

    /// PUSHFQ: the CPU's arithmetic flags among those of the state.
    func emitPushFlags(_ index: Int) {
        let d = instruction(index).pointee
        e.saveFlags()
        let p = emitAccess(index, stackOperand(-8), writes: true, freeR14: true, isStack: true, saves: false, restores: false)
        // AH → bits 0…7, AL → bit 11, of what LAHF and SETO have left.
        e.store(Host.rax, Host.rsp, Slot.temporary)
        e.load(Host.rax, Host.rsp, Slot.flags, wide: false)
        e.move(Host.r14, Host.rax, wide: false)
        e.immediate(4, Host.r14, 1, wide: false)
        e.shift(4, Host.r14, 11, wide: false)
        e.shift(5, Host.rax, 8, wide: false)
        e.immediate(4, Host.rax, 0xd5, wide: false)
        e.op(0x09, Host.rax, rm: Host.r14, wide: false)  // or r14d, eax
        e.load(Host.rax, Host.rsp, offsets.rflags, wide: false)
        e.immediate(4, Host.rax, ~Int32(truncatingIfNeeded: RFlags.arithmetic | RFlags.resume | RFlags.virtual8086), wide: false)
        e.op(0x09, Host.rax, rm: Host.r14, wide: false)
        e.load(Host.rax, Host.rsp, Slot.temporary)
        e.op(0x89, Host.r14, base: p.base, index: p.index, p.displacement)
        e.lea(Host.guestStack, base: Host.guestStack, -8)
        if d.liveAfter != 0 { e.restoreFlags() }
    }
}
//:
