internal import Interpreter

//S:420 In and out
//
// A few routines stand at the front of the code buffer, written by the same
// assembler as all that follows: one that enters translated code, some that
// call back into Swift, and one that leaves. To call Swift is to put the
// Guest's registers where the Interpreter expects them, go back to the
// thread's own stack, and call. What Swift returns says how to go on:
//
//      0        the same instruction again: its page is in the TLB now
//      1        the next instruction: the Interpreter has done this one
//      2        out, to the run loop
//      other    there: the address of translated code
//
// The Guest's arithmetic flags travel in `Slot.flags` (LAHF and SETO are a
// tenth of the price of PUSHF and POPF), its vectors in `VCPUState.ymm`.

/// What generated code calls, and what it leads to. Addresses in the writable view.
@unsafe struct Runtime {
    /// `@convention(c) (image, code)`: runs until something calls `leave`.
    let enter: UInt
    /// Called with what is to be done in R13 (`SiteInfo`) and R14.
    let slow: UnsafeMutablePointer<UInt8>
    /// Jumped to with a RIP in R14, flags in their slot.
    let lookup: UnsafeMutablePointer<UInt8>
    /// The same, where what the jump table says has died.
    let renew: UnsafeMutablePointer<UInt8>
    /// Jumped to with the number of a link in R13, flags in the CPU.
    let link: UnsafeMutablePointer<UInt8>
    /// The same with the flags in their slot.
    let linkViaSlot: UnsafeMutablePointer<UInt8>
    /// Jumped to with RIP in R14, flags in their slot.
    let leave: UnsafeMutablePointer<UInt8>

    /// Registers that hold the Guest's of the same name.
    static let resident = [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12]

    init(
        _ e: inout Emitter, offsets: StateOffsets, hasAVX: Bool, slowFunction: UInt, lookupFunction: UInt, renewFunction: UInt,
        linkFunction: UInt
    ) {
        // leave's second half: back to whoever called `enter`.
        unsafe e.align(16)
        let out = unsafe e.at
        unsafe e.load(Host.rsp, Host.rsp, Slot.hostStack)
        unsafe e.bytes(0x48, 0x83, 0xc4, 8)  // add rsp, 8
        unsafe e.bytes(0x41, 0x5f, 0x41, 0x5e)  // pop r15, r14, r13, r12, rbp, rbx
        unsafe e.bytes(0x41, 0x5d, 0x41, 0x5c)
        unsafe e.bytes(0x5d, 0x5b, 0xc3)

        unsafe e.align(16)
        let resume = unsafe e.at
        unsafe Self.restore(&e, offsets, hasAVX)
        unsafe e.move(Host.r13, Host.rax)
        unsafe e.load(Host.rax, Host.rsp, Slot.flags, wide: false)
        unsafe e.bytes(0x04, 0x7f, 0x9e)  // add al, 7f; sahf
        unsafe e.move(Host.rax, Host.r13)
        unsafe e.jump(register: Host.r14)

        // RAX is what Swift returned, RBX the image that called.
        unsafe e.align(16)
        let answered = unsafe e.at
        unsafe e.load(Host.rsp, Host.rbx, Slot.image)
        unsafe e.immediate(7, Host.rax, 2)
        let isOut = unsafe e.jump(if: Condition.equal)
        unsafe Emitter.patch(isOut, to: out)
        let isCode = unsafe e.jump(if: Condition.above)
        unsafe e.load(Host.r14, Host.rsp, Slot.returnAddress)
        // 1: past the jump that does it again, which is five bytes long.
        unsafe e.lea(Host.r14, base: Host.r14, index: Host.rax, scale: 2, 0)
        unsafe e.op(0x01, Host.rax, rm: Host.r14)
        unsafe e.jump(to: resume)
        unsafe e.patchHere(isCode)
        unsafe e.move(Host.r14, Host.rax)
        unsafe e.jump(to: resume)

        func callSwift(_ function: UInt) {
            unsafe e.move(Host.rbx, Host.rsp)
            unsafe e.move(Host.rdi, Host.rsp)
            unsafe e.load(Host.rsp, Host.rsp, Slot.hostStack)
            unsafe e.constant(Host.rax, UInt64(function))
            unsafe e.bytes(0xff, 0xd0)  // call rax
            unsafe e.jump(to: answered)
        }

        unsafe e.align(16)
        unsafe slow = unsafe e.at
        // The return address is on the stack: everything is 8 further away.
        unsafe e.store(Host.r13, Host.rsp, Slot.info + 8)
        unsafe e.store(Host.r14, Host.rsp, Slot.address + 8)
        unsafe e.bytes(0x41, 0x5e)  // pop r14
        unsafe e.store(Host.r14, Host.rsp, Slot.returnAddress)
        unsafe Self.save(&e, offsets, hasAVX)
        unsafe e.load(Host.rsi, Host.rsp, Slot.address)
        unsafe e.load(Host.rdx, Host.rsp, Slot.info)
        callSwift(slowFunction)

        unsafe e.align(16)
        unsafe lookup = unsafe e.at
        unsafe e.store(Host.r14, Host.rsp, offsets.rip)
        unsafe Self.save(&e, offsets, hasAVX)
        callSwift(lookupFunction)

        unsafe e.align(16)
        unsafe renew = unsafe e.at
        unsafe e.store(Host.r14, Host.rsp, offsets.rip)
        unsafe Self.save(&e, offsets, hasAVX)
        callSwift(renewFunction)

        unsafe e.align(16)
        unsafe link = unsafe e.at
        unsafe e.store(Host.r13, Host.rsp, Slot.info)
        unsafe e.saveFlags()
        let linkCommon = unsafe e.jump()
        unsafe e.align(16)
        unsafe linkViaSlot = unsafe e.at
        unsafe e.store(Host.r13, Host.rsp, Slot.info)
        unsafe e.patchHere(linkCommon)
        unsafe Self.save(&e, offsets, hasAVX)
        unsafe e.load(Host.rsi, Host.rsp, Slot.info)
        callSwift(linkFunction)

        unsafe e.align(16)
        unsafe leave = unsafe e.at
        unsafe e.store(Host.r14, Host.rsp, offsets.rip)
        unsafe Self.save(&e, offsets, hasAVX)
        unsafe e.jump(to: out)

        unsafe e.align(16)
        unsafe enter = unsafe e.address
        unsafe e.bytes(0x53, 0x55)  // push rbx, rbp, r12, r13, r14, r15
        unsafe e.bytes(0x41, 0x54, 0x41, 0x55)
        unsafe e.bytes(0x41, 0x56, 0x41, 0x57)
        unsafe e.bytes(0x48, 0x83, 0xec, 8)  // sub rsp, 8: aligned to 16 where Swift is called
        unsafe e.store(Host.rsp, Host.rdi, Slot.hostStack)
        unsafe e.move(Host.rsp, Host.rdi)
        unsafe e.move(Host.r14, Host.rsi)
        unsafe e.jump(to: resume)
        unsafe e.align(16)
    }

    private static func save(_ e: inout Emitter, _ offsets: StateOffsets, _ hasAVX: Bool) {
        for register in unsafe resident { unsafe e.store(register, Host.rsp, Int32(register * 8)) }
        unsafe e.store(Host.guestStack, Host.rsp, 4 * 8)
        unsafe vectors(&e, 0x11, offsets, hasAVX)
        if hasAVX { unsafe e.bytes(0xc5, 0xf8, 0x77) }  // vzeroupper
        unsafe e.bytes(0x0f, 0xae)  // stmxcsr
        unsafe e.memory(3, base: Host.rsp, offsets.mxcsr)
    }

    private static func restore(_ e: inout Emitter, _ offsets: StateOffsets, _ hasAVX: Bool) {
        unsafe e.bytes(0x0f, 0xae)  // ldmxcsr
        unsafe e.memory(2, base: Host.rsp, offsets.mxcsr)
        unsafe vectors(&e, 0x10, offsets, hasAVX)
        for register in unsafe resident { unsafe e.load(register, Host.rsp, Int32(register * 8)) }
        unsafe e.load(Host.guestStack, Host.rsp, 4 * 8)
    }

    /// (V)MOVUPS of all registers, to memory (11) or from it (10).
    private static func vectors(_ e: inout Emitter, _ opcode: UInt8, _ offsets: StateOffsets, _ hasAVX: Bool) {
        for register in 0..<16 {
            let disp = offsets.ymm + Int32(register * 32)
            if hasAVX {
                unsafe e.bytes(0xc5, register < 8 ? 0xfc : 0x7c, opcode)
            } else {
                unsafe e.rex(false, register, -1, Host.rsp)
                unsafe e.bytes(0x0f, opcode)
            }
            unsafe e.memory(register, base: Host.rsp, disp)
        }
    }
}

extension Emitter {
    /// Arithmetic flags → `Slot.flags`. R13 is lost, the flags stay.
    mutating func saveFlags() {
        unsafe move(Host.r13, Host.rax)
        unsafe bytes(0x9f, 0x0f, 0x90, 0xc0)  // lahf; seto al
        unsafe store(Host.rax, Host.rsp, Slot.flags, wide: false)
        unsafe move(Host.rax, Host.r13)
    }

    /// `Slot.flags` → arithmetic flags; no register is lost.
    mutating func restoreFlags() {
        unsafe store(Host.rax, Host.rsp, Slot.temporary)
        unsafe load(Host.rax, Host.rsp, Slot.flags, wide: false)
        unsafe bytes(0x04, 0x7f, 0x9e)  // add al, 7f; sahf
        unsafe load(Host.rax, Host.rsp, Slot.temporary)
    }
}
//:
