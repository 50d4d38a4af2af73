internal import Interpreter
internal import X86

//S:497 Page by page
//
// REP STOS and REP MOVS are how kernels clear pages and libraries copy what is
// long. As long as source and destination stay in a page each, two checks say
// where both are in the Host, and the Host's own REP does the rest, at the
// speed of its microcode: a page is cleared in some 40 ns. What is longer, or
// goes backwards (DF is asked for in the state), or is over before it begins,
// goes to the Interpreter, which does it page by page too.

extension BlockTranslator {
    /// Checks that RCX elements at `register` are in one page; R13 = addend.
    /// Returns the jump that is taken if they are not.
    private func emitStretch(
        _ index: Int, _ register: Int, shift: UInt8, writes: Bool, retry: BufferPlace
    ) -> BufferPlace {
        let tables = SoftTLB.tables(mode)
        let table = writes ? tables.write : tables.read
        e.move(Host.r14, register)
        emitSlot()
        emitTag(table)
        e.immediate(7, Host.r14, 0xfff)
        var operand = MemoryOperand()
        operand.base = register
        operand.bytes = 1
        var unknown = Cold(.slow, index: index, place: e.jump(if: Condition.above), back: retry)
        unknown.operand = operand
        unknown.info = unsafe SiteInfo(instruction(index).pointee, bytes: 1, writes: writes, kind: .access)
        colds.append(unknown)
        e.lea(Host.r14, base: Host.r14, index: Host.rcx, scale: shift, 0)
        e.immediate(7, Host.r14, 0x1000)
        let isLonger = e.jump(if: Condition.above)
        emitAddend(table)
        return isLonger
    }

    func emitRepeated(_ index: Int) {
        let d = unsafe instruction(index).pointee
        let shift = UInt8(Int(d.immediate).trailingZeroBitCount)
        var places: [BufferPlace] = []
        spillFlags(index)
        let retry = e.at
        // Nothing to do is not to touch anything either.
        e.lea(Host.r13, base: Host.rcx, -1)
        e.immediate(7, Host.r13, 0xfff)
        places.append(e.jump(if: Condition.above))
        // test dword [rflags], DF
        e.byte(0xf7)
        e.memory(0, base: Host.rsp, offsets.rflags)
        e.word(Int32(truncatingIfNeeded: RFlags.direction))
        places.append(e.jump(if: Condition.notEqual))
        if d.kind == .copy {
            places.append(emitStretch(index, Host.rsi, shift: shift, writes: false, retry: retry))
            e.store(Host.r13, Host.rsp, Slot.operand)
        }
        places.append(emitStretch(index, Host.rdi, shift: shift, writes: true, retry: retry))
        e.lea(Host.rdi, base: Host.rdi, index: Host.r13, 0)
        if d.kind == .copy {
            e.load(Host.r14, Host.rsp, Slot.operand)
            e.lea(Host.rsi, base: Host.rsi, index: Host.r14, 0)
        }
        emitVerbatim(index)
        e.op(0x29, Host.r13, rm: Host.rdi)  // sub rdi, r13
        if d.kind == .copy { e.op(0x29, Host.r14, rm: Host.rsi) }
        for place in places {
            var cold = Cold(.slow, index: index, place: place, back: e.at)
            cold.info = SiteInfo(d)
            colds.append(cold)
        }
    }
}
//:
