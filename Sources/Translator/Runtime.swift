internal import Interpreter

//S:420 In and out
//
// A few routines stand at the front of the code buffer, written by the same
// assembler as all that follows: one that enters translated code, some that
// call back into Swift, some that look into a table's second way (S:435) before
// it comes to that, and one that leaves. To call Swift is to put the
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
struct Runtime {
    /// `@convention(c) (image, code)`: runs until something calls `leave`.
    let enter: UInt
    /// Called with what is to be done in R13 (`SiteInfo`) and R14.
    let slow: BufferPlace
    /// The same for an access that a table's first way does not know, in the
    /// order of `SoftTLB.allTables`: looks in the second.
    let refills: [BufferPlace]
    /// Jumped to with a RIP in R14 that a jump table's first way does not
    /// know, flags in their slot; in the order of `SoftTLB.allJumpTables`.
    let lookups: [BufferPlace]
    /// The same, where what the jump table says has died.
    let renew: BufferPlace
    /// Jumped to with the number of a link in R13, flags in the CPU.
    let link: BufferPlace
    /// The same with the flags in their slot.
    let linkViaSlot: BufferPlace
    /// Called with RIP in R14, flags in their slot, when the request word is not
    /// zero; returns if nothing of it is to be heard now.
    let poll: BufferPlace
    /// Jumped to with RIP in R14, flags in their slot.
    let leave: BufferPlace

    /// Registers that hold the Guest's of the same name.
    static let resident = [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12]

    init(
        _ e: inout Emitter, offsets: StateOffsets, hasAVX: Bool, slowFunction: UInt, lookupFunction: UInt,
        renewFunction: UInt,
        linkFunction: UInt
    ) {
        // leave's second half: back to whoever called `enter`.
        e.align(16)
        let out = e.at
        e.load(Host.rsp, Host.rsp, Slot.hostStack)
        e.bytes(0x48, 0x83, 0xc4, 8)  // add rsp, 8
        e.bytes(0x41, 0x5f, 0x41, 0x5e)  // pop r15, r14, r13, r12, rbp, rbx
        e.bytes(0x41, 0x5d, 0x41, 0x5c)
        e.bytes(0x5d, 0x5b, 0xc3)

        e.align(16)
        let resume = e.at
        Self.restore(&e, offsets, hasAVX)
        e.move(Host.r13, Host.rax)
        e.load(Host.rax, Host.rsp, Slot.flags, wide: false)
        e.bytes(0x04, 0x7f, 0x9e)  // add al, 7f; sahf
        e.move(Host.rax, Host.r13)
        // Code that does not know its page finds it by RIP, in R14.
        e.load(Host.r14, Host.rsp, offsets.rip)
        e.rex(false, 4, -1, Host.rsp)
        e.byte(0xff)  // jmp [returnAddress]
        e.memory(4, base: Host.rsp, Slot.returnAddress)

        // RAX is what Swift returned, RBX the image that called.
        e.align(16)
        let answered = e.at
        e.load(Host.rsp, Host.rbx, Slot.image)
        e.immediate(7, Host.rax, 2)
        let isOut = e.jump(if: Condition.equal)
        Emitter.patch(isOut, to: out)
        let isCode = e.jump(if: Condition.above)
        e.load(Host.r14, Host.rsp, Slot.returnAddress)
        // 1: past the jump that does it again, which is five bytes long.
        e.lea(Host.r14, base: Host.r14, index: Host.rax, scale: 2, 0)
        e.op(0x01, Host.rax, rm: Host.r14)
        e.store(Host.r14, Host.rsp, Slot.returnAddress)
        e.jump(to: resume)
        e.patchHere(isCode)
        e.store(Host.rax, Host.rsp, Slot.returnAddress)
        e.jump(to: resume)

        func callSwift(_ function: UInt) {
            e.move(Host.rbx, Host.rsp)
            e.move(Host.rdi, Host.rsp)
            e.load(Host.rsp, Host.rsp, Slot.hostStack)
            e.constant(Host.rax, UInt64(function))
            e.bytes(0xff, 0xd0)  // call rax
            e.jump(to: answered)
        }

        e.align(16)
        slow = e.at
        // The return address is on the stack: everything is 8 further away.
        e.store(Host.r13, Host.rsp, Slot.info + 8)
        e.store(Host.r14, Host.rsp, Slot.address + 8)
        e.bytes(0x41, 0x5e)  // pop r14
        e.store(Host.r14, Host.rsp, Slot.returnAddress)
        Self.save(&e, offsets, hasAVX)
        e.load(Host.rsi, Host.rsp, Slot.address)
        e.load(Host.rdx, Host.rsp, Slot.info)
        callSwift(slowFunction)

        var refills: [BufferPlace] = []
        for table in SoftTLB.allTables {
            e.align(16)
            refills.append(e.at)
            Self.refill(&e, table, slow: slow)
        }
        self.refills = refills

        e.align(16)
        let lookup = e.at
        e.store(Host.r14, Host.rsp, offsets.rip)
        Self.save(&e, offsets, hasAVX)
        callSwift(lookupFunction)
        lookups = SoftTLB.allJumpTables.map { table in
            e.align(16)
            let place = e.at
            Self.lookUp(&e, table, unknown: lookup)
            return place
        }

        e.align(16)
        renew = e.at
        e.store(Host.r14, Host.rsp, offsets.rip)
        Self.save(&e, offsets, hasAVX)
        callSwift(renewFunction)

        e.align(16)
        link = e.at
        e.store(Host.r13, Host.rsp, Slot.info)
        e.saveFlags()
        let linkCommon = e.jump()
        e.align(16)
        linkViaSlot = e.at
        e.store(Host.r13, Host.rsp, Slot.info)
        e.patchHere(linkCommon)
        Self.save(&e, offsets, hasAVX)
        e.load(Host.rsi, Host.rsp, Slot.info)
        callSwift(linkFunction)

        e.align(16)
        leave = e.at
        e.store(Host.r14, Host.rsp, offsets.rip)
        Self.save(&e, offsets, hasAVX)
        e.jump(to: out)

        e.align(16)
        poll = e.at
        e.load(Host.r13, Host.rsp, Layout.requestWord + 8, wide: false)
        e.op(0x85, Host.r13, base: Host.rsp, offsets.pollMask + 8, wide: false)  // test
        let isHeard = e.jump(if: Condition.notEqual)
        e.byte(0xc3)  // ret
        e.patchHere(isHeard)
        e.lea(Host.rsp, base: Host.rsp, 8)
        e.jump(to: leave)

        e.align(16)
        enter = e.address
        e.bytes(0x53, 0x55)  // push rbx, rbp, r12, r13, r14, r15
        e.bytes(0x41, 0x54, 0x41, 0x55)
        e.bytes(0x41, 0x56, 0x41, 0x57)
        e.bytes(0x48, 0x83, 0xec, 8)  // sub rsp, 8: aligned to 16 where Swift is called
        e.store(Host.rsp, Host.rdi, Slot.hostStack)
        e.move(Host.rsp, Host.rdi)
        e.store(Host.rsi, Host.rsp, Slot.returnAddress)
        e.jump(to: resume)
        e.align(16)
    }

    /// R14 is an address, R13 what `slow` wants; the flags are in their slot, if anybody
    /// wants them. Returns, to try the access again, if the page was in the second way.
    private static func refill(_ e: inout Emitter, _ table: Int32, slow: BufferPlace) {
        // The return address is on the stack: everything is 8 further away.
        let first = table + 8, second = table + Layout.secondWay + 8
        e.store(Host.r13, Host.rsp, Slot.info + 8)
        e.move(Host.r13, Host.r14, wide: false)
        e.shift(5, Host.r13, 12, wide: false)
        e.immediate(4, Host.r13, Int32(Layout.tlbEntries - 1), wide: false)
        e.op(0x33, Host.r14, base: Host.rsp, index: Host.r13, scale: 3, second)
        e.immediate(7, Host.r14, 0xfff)
        let isUnknown = e.jump(if: Condition.above)
        e.store(Host.rax, Host.rsp, Slot.temporary + 8)
        for word in [0, Layout.addends] {
            e.op(0x8b, Host.rax, base: Host.rsp, index: Host.r13, scale: 3, first + word)
            e.op(0x8b, Host.r14, base: Host.rsp, index: Host.r13, scale: 3, second + word)
            e.op(0x89, Host.r14, base: Host.rsp, index: Host.r13, scale: 3, first + word)
            e.op(0x89, Host.rax, base: Host.rsp, index: Host.r13, scale: 3, second + word)
        }
        e.load(Host.rax, Host.rsp, Slot.temporary + 8)
        e.byte(0xc3)  // ret
        e.patchHere(isUnknown)
        e.op(0x33, Host.r14, base: Host.rsp, index: Host.r13, scale: 3, second)
        e.load(Host.r13, Host.rsp, Slot.info + 8)
        e.jump(to: slow)
    }

    /// R14 is a RIP. Goes on there, if the second way knows it.
    private static func lookUp(_ e: inout Emitter, _ table: JumpTable, unknown: BufferPlace) {
        e.jumpSlot(table)
        e.op(0x3b, Host.r14, base: Host.rsp, index: Host.r13, scale: 3, table.secondTags)
        Emitter.patch(e.jump(if: Condition.notEqual), to: unknown)
        e.store(Host.rax, Host.rsp, Slot.temporary)
        e.store(Host.rcx, Host.rsp, Slot.address)
        for (first, second) in [(table.tags, table.secondTags), (table.codes, table.secondCodes)] {
            e.op(0x8b, Host.rax, base: Host.rsp, index: Host.r13, scale: 3, first)
            e.op(0x8b, Host.rcx, base: Host.rsp, index: Host.r13, scale: 3, second)
            e.op(0x89, Host.rcx, base: Host.rsp, index: Host.r13, scale: 3, first)
            e.op(0x89, Host.rax, base: Host.rsp, index: Host.r13, scale: 3, second)
        }
        e.move(Host.r13, Host.rcx)
        e.load(Host.rax, Host.rsp, Slot.temporary)
        e.load(Host.rcx, Host.rsp, Slot.address)
        e.jump(register: Host.r13)
    }

    private static func save(_ e: inout Emitter, _ offsets: StateOffsets, _ hasAVX: Bool) {
        for register in resident { e.store(register, Host.rsp, Int32(register * 8)) }
        e.store(Host.guestStack, Host.rsp, 4 * 8)
        vectors(&e, 0x11, offsets, hasAVX)
        if hasAVX { e.bytes(0xc5, 0xf8, 0x77) }  // vzeroupper
        // Only what has happened: the masks are those of `restore`.
        e.bytes(0x0f, 0xae)  // stmxcsr
        e.memory(3, base: Host.rsp, Slot.temporary)
        e.load(Host.rax, Host.rsp, Slot.temporary, wide: false)
        e.immediate(4, Host.rax, 0x3f, wide: false)
        e.op(0x09, Host.rax, base: Host.rsp, offsets.mxcsr, wide: false)
    }

    private static func restore(_ e: inout Emitter, _ offsets: StateOffsets, _ hasAVX: Bool) {
        // All exceptions masked: with one that is not, the Interpreter does the vectors.
        e.load(Host.rax, Host.rsp, offsets.mxcsr, wide: false)
        e.immediate(1, Host.rax, 0x1f80, wide: false)
        e.store(Host.rax, Host.rsp, Slot.temporary, wide: false)
        e.bytes(0x0f, 0xae)  // ldmxcsr
        e.memory(2, base: Host.rsp, Slot.temporary)
        vectors(&e, 0x10, offsets, hasAVX)
        for register in resident { e.load(register, Host.rsp, Int32(register * 8)) }
        e.load(Host.guestStack, Host.rsp, 4 * 8)
    }

    /// (V)MOVUPS of all registers, to memory (11) or from it (10).
    private static func vectors(_ e: inout Emitter, _ opcode: UInt8, _ offsets: StateOffsets, _ hasAVX: Bool) {
        for register in 0..<16 {
            let disp = offsets.ymm + Int32(register * 32)
            if hasAVX {
                e.bytes(0xc5, register < 8 ? 0xfc : 0x7c, opcode)
            } else {
                e.rex(false, register, -1, Host.rsp)
                e.bytes(0x0f, opcode)
            }
            e.memory(register, base: Host.rsp, disp)
        }
    }
}

extension Emitter {
    /// R13 = the slot of the RIP in R14.
    mutating func jumpSlot(_ table: JumpTable) {
        move(Host.r13, Host.r14, wide: false)
        shift(5, Host.r13, 12, wide: false)
        op(0x31, Host.r14, rm: Host.r13, wide: false)  // xor r13d, r14d
        immediate(4, Host.r13, Int32(table.count - 1), wide: false)
    }

    /// Compares: ABOVE after it, unless the address in `register` is canonical. R13 is lost.
    mutating func compareCanonical(_ register: Int) {
        move(Host.r13, register)
        shift(7, Host.r13, 47)
        lea(Host.r13, base: Host.r13, 1)
        immediate(7, Host.r13, 1)
    }

    /// Arithmetic flags → `Slot.flags`. R13 is lost, the flags stay.
    mutating func saveFlags() {
        move(Host.r13, Host.rax)
        bytes(0x9f, 0x0f, 0x90, 0xc0)  // lahf; seto al
        store(Host.rax, Host.rsp, Slot.flags, wide: false)
        move(Host.rax, Host.r13)
    }

    /// `Slot.flags` → arithmetic flags; no register is lost.
    mutating func restoreFlags() {
        store(Host.rax, Host.rsp, Slot.temporary)
        load(Host.rax, Host.rsp, Slot.flags, wide: false)
        bytes(0x04, 0x7f, 0x9e)  // add al, 7f; sahf
        load(Host.rax, Host.rsp, Slot.temporary)
    }
}
//:
