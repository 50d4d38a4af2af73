internal import X86

//S:360 Around the instruction
//
// The thunk is called as a C function: state in rdi, memory operand in rsi.
// The instruction may want both for the Guest, so the two pointers move to
// registers that it leaves alone, and its RSP is played by a third.

/// Which host register does what in a thunk.
struct RegisterPlan {
    /// Holds the pointer to the state.
    let state: Int
    /// Holds the address of the memory operand.
    let memory: Int
    /// Stands for the Guest's RSP.
    let substitute: Int
    /// Free in the end, for the flags.
    let spare: Int
    /// All that the thunk changes.
    let used: UInt16

    init(_ form: InstructionForm) {
        var taken = (form.gprRead | form.gprWritten) & ~(1 << Register.rsp) | 1 << Register.rsp
        /// The first free one of `choices`; there are always enough: no
        /// instruction names more than four registers.
        func take(_ choices: InlineArray<9, Int>) -> Int {
            for index in choices.indices where taken & 1 << choices[index] == 0 {
                taken |= 1 << choices[index]
                return choices[index]
            }
            preconditionFailure("an instruction with too many registers")
        }
        let own: UInt16 = taken
        // rsi is the memory operand's until that has moved.
        let holdsRSI = taken & 1 << Register.rsi == 0
        state = take([Register.rdi, 11, 10, 9, 8, Register.rcx, Register.rdx, Register.rax, Register.rbx])
        // Neither rsp, rbp, r12 nor r13 (SDM 2A, table 2-2); with AH…BH none that needs REX.
        memory =
            holdsRSI
            ? take([Register.rsi, 8, 9, 10, 11, Register.rcx, Register.rdx, Register.rax, Register.rbx])
            : take([8, 9, 10, 11, Register.rcx, Register.rdx, Register.rax, Register.rbx, 15])
        substitute = take([Register.rcx, Register.rdx, Register.rax, Register.rbx, 8, 9, 10, 11, 14])
        spare = take([11, 10, 9, 8, Register.rcx, Register.rdx, Register.rax, Register.rbx, 15])
        used =
            own | 1 << state | 1 << memory | (form.usesStackPointer ? 1 << substitute : 0)
            | (form.flagsWritten != 0 ? 1 << spare : 0)
    }
}

/// What a thunk does before and after the Guest's instruction.
struct ThunkFrame {
    typealias Layout = (rflags: Int, mxcsr: Int, ymm: Int, x87: Int)

    let form: InstructionForm
    let registers: RegisterPlan
    let isVEX: Bool
    let usesX87: Bool
    let usesMXCSR: Bool
    /// Bit strings: the bit number's register and what is left of it for the
    /// instruction. The rest went into the address.
    let bitMask: Int32?
    let bitRegister: Int?

    /// rbx, rbp, r12…r15 belong to our caller (System V ABI).
    private static let preserved: UInt16 = 1 << 3 | 1 << 5 | 0xf000
    /// At this offset in the FXSAVE image is an MXCSR: always the Host's, 0x1f80.
    private static let hostMXCSR = 24

    private func host(_ register: Int) -> Int { register == Register.rsp ? registers.substitute : register }

    func enter(_ code: inout Assembler, _ layout: Layout) {
        let state = registers.state
        var saved = registers.used & Self.preserved
        while saved != 0 {
            code.push(saved.trailingZeroBitCount)
            saved &= saved &- 1
        }
        if state != Register.rdi { code.move(state, from: Register.rdi) }
        if form.memoryIndex != nil, registers.memory != Register.rsi { code.move(registers.memory, from: Register.rsi) }
        // FXRSTOR loads MXCSR and the XMM registers too, so it comes first.
        if usesX87 { code.stateGroup(1, wide: true, state, layout.x87) }
        if usesMXCSR { code.stateGroup(2, wide: false, state, layout.mxcsr) }
        for register in 0..<16 {
            let bit = UInt16(1) << register
            if form.ymmRead & bit != 0 {
                code.loadYMM(register, state, layout.ymm + 32 * register)
            } else if form.xmmRead & bit != 0 || !isVEX && form.vectorWritten & bit != 0 {
                // Most legacy SSE instructions leave a part of the register as it was.
                code.loadXMM(register, state, layout.ymm + 32 * register)
            }
        }
        for register in 0..<16 where form.gprRead & 1 << register != 0 {
            code.load(host(register), state, 8 * register)
        }
        if let bitMask, let bitRegister { code.and(host(bitRegister), bitMask) }
        if form.readsFlags { code.loadFlags(state, layout.rflags, mask: Int32(RFlags.arithmetic)) }
    }

    func leave(_ code: inout Assembler, _ layout: Layout) {
        let state = registers.state
        if form.flagsWritten != 0 {
            code.byte(0x9c)  // pushfq
            code.pop(registers.spare)
            code.and(registers.spare, form.flagsWritten)
            code.and(memory: state, layout.rflags, ~form.flagsWritten)
            code.or(memory: state, layout.rflags, registers.spare)
        }
        for register in 0..<16 where form.gprWritten & 1 << register != 0 {
            code.store(host(register), state, 8 * register)
        }
        for register in 0..<16 where form.vectorWritten & 1 << register != 0 {
            // VEX zeroes what it does not write, up to the end; legacy SSE leaves it (SDM 2A, 2.3.10).
            if isVEX {
                code.storeYMM(register, state, layout.ymm + 32 * register)
            } else {
                code.storeXMM(register, state, layout.ymm + 32 * register)
            }
        }
        if usesMXCSR {
            code.stateGroup(3, wide: false, state, layout.mxcsr)
            // The Guest's MXCSR stays in the CPU: the next such thunk loads
            // the same value again, which is cheap, where a change from and
            // to the Host's is not (n-body took five times as long). The engine
            // puts the Host's back when it leaves `run`. FXSAVE must not see it.
            if usesX87 { code.stateGroup(2, wide: false, state, layout.x87 + Self.hostMXCSR) }
        }
        if usesX87 {
            code.stateGroup(0, wide: true, state, layout.x87)
            code.emit(0xdb, 0xe3)  // fninit: the Host finds its own x87 as it was.
        }
        if form.usesYMM { code.emit(0xc5, 0xf8, 0x77) }  // vzeroupper
        var saved = registers.used & Self.preserved
        while saved != 0 {
            let last = 15 - saved.leadingZeroBitCount
            code.pop(last)
            saved &= ~(1 << last)
        }
    }
}
//:
