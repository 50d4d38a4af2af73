import EngineTesting
import GuestMemory
import HostInterface
import Testing
import VirtualCPU
import X86

/// What may be remembered of the tables, and what ends it (SDM 3A, 4.10); and
/// code that changes while it runs (SDM 3A, 11.6).
@Suite(.everyEngine) struct TranslationCacheTests {
    typealias Place = Machine.Place
    let machine: Machine
    let setup = PagingSetup.all[0]
    /// The leaf entry of `setup.linear`.
    var leaf: UInt64 { setup.slots[3] }
    /// Two more pages of RAM.
    let one: UInt64 = 0x60000, two: UInt64 = 0x61000

    init() throws {
        machine = try Machine()
        try machine.enterPaging(setup)
        try machine.put64(0x1111, at: one)
        try machine.put64(0x2222, at: two)
        try machine.putEntry(one | 3, at: setup.slots[3], setup)
        // RBX: the page; RSI: its entry; RDI: what the entry will be.
        machine.vcpu.withState { [setup, two] state in
            state.gpr[Register.rbx] = setup.linear
            state.gpr[Register.rsi] = setup.slots[3]
            state.gpr[Register.rdi] = two | 3
            state.gpr[9] = 0x1000
        }
    }

    /// mov rax, [rbx]; mov [rsi], rdi; …; mov rdx, [rbx]; hlt
    private func afterChange(_ between: [UInt8]) throws -> (before: UInt64, after: UInt64) {
        try machine.put([0x48, 0x8b, 0x03, 0x48, 0x89, 0x3e] + between + [0x48, 0x8b, 0x13, 0xf4], at: Place.code)
        _ = machine.runToHalt()
        return machine.vcpu.withState { ($0.gpr[Register.rax], $0.gpr[Register.rdx]) }
    }

    // SDM 3A, 4.10.4.1.
    @Test func invlpg() throws {
        #expect(try afterChange([0x0f, 0x01, 0x3b]) == (0x1111, 0x2222))  // invlpg [rbx]
    }

    @Test func controlRegister3() throws {
        #expect(try afterChange([0x41, 0x0f, 0x22, 0xd9]) == (0x1111, 0x2222))  // mov cr3, r9
    }

    // Without an invalidation either answer is right, and none else.
    @Test func nothing() throws {
        let (before, after) = try afterChange([])
        #expect(before == 0x1111 && (after == 0x1111 || after == 0x2222))
    }

    // A global page may survive MOV to CR3; a change of CR4.PGE ends it, INVLPG too.
    @Test func globalPage() throws {
        try machine.putEntry(one | 3 | PageEntry.global, at: leaf, setup)
        machine.vcpu.withState { $0.cr4 |= CR4.globalPages }
        let (_, after) = try afterChange([0x41, 0x0f, 0x22, 0xd9])
        #expect(after == 0x1111 || after == 0x2222)
        try machine.putEntry(one | 3 | PageEntry.global, at: leaf, setup)
        machine.vcpu.withState { $0.cr4 &= ~CR4.globalPages }
        machine.vcpu.withState { state in
            state.cr4 |= CR4.globalPages
            state.rip = Place.code
            state.gpr[10] = state.cr4 & ~CR4.globalPages
        }
        #expect(try afterChange([0x41, 0x0f, 0x22, 0xe2]) == (0x1111, 0x2222))  // mov cr4, r10
    }

    // SDM 3A, 4.10.2.3: INVLPG of any address in a large page ends all of it.
    @Test(arguments: [PagingSetup.all[1], PagingSetup.all[2]])
    func invlpgInLargePage(_ setup: PagingSetup) throws {
        let machine = try Machine()
        try machine.enterPaging(setup)
        // mov al, [rbx]; and byte [rsi], ~1; invlpg [rcx]; mov al, [rbx]
        try machine.put([0x8a, 0x03, 0x80, 0x26, 0xfe, 0x0f, 0x01, 0x39, 0x8a, 0x03, 0xf4], at: Place.code)
        machine.vcpu.withState { state in
            state.gpr[Register.rbx] = setup.linear
            state.gpr[Register.rcx] = setup.linear + 0x10_0000
            state.gpr[Register.rsi] = setup.slots.last!
        }
        let frame = machine.runToHandler(Vector.pageFault)
        #expect(try machine.get64(frame + 8) == Place.code + 8)
    }

    // INVLPG of an address that is not canonical does nothing (SDM 2A, "INVLPG").
    @Test func invlpgOfNothing() throws {
        try machine.put([0x0f, 0x01, 0x38, 0xf4], at: Place.code)  // invlpg [rax]; hlt
        machine.vcpu.withState { $0.gpr[Register.rax] = 1 << 50 }
        #expect(machine.runToHalt() == Place.code + 4)
    }

    // SDM 2A, "INVPCID": all four types; #GP(0) for others and for bad descriptors.
    @Test func invpcid() throws {
        // RAX: type, RCX: PCID, RDX: address, whether #GP.
        let cases: [(UInt64, UInt64, UInt64, Bool)] = [
            (0, 0, 0x1000, false), (1, 0, 0, false), (2, 0, 0, false), (3, 0, 0, false), (4, 0, 0, true),
            (.max, 0, 0, true), (0, 1, 0, true), (1, 0x1000, 0, true), (0, 0, 1 << 47, true), (2, 0, 1 << 47, false),
        ]
        for (type, context, address, fault) in cases {
            try machine.put([0x66, 0x0f, 0x38, 0x82, 0x06, 0xf4], at: Place.code)  // invpcid rax, [rsi]; hlt
            try machine.put64(context, at: 0x30000)
            try machine.put64(address, at: 0x30008)
            machine.vcpu.withState { state in
                state.rip = Place.code
                state.gpr[Register.rax] = type
                state.gpr[Register.rsi] = 0x30000
            }
            #expect(machine.runToHalt() == (fault ? Place.handler(Vector.generalProtection) + 1 : Place.code + 6))
        }
    }

    // SDM 3A, 4.8 and 4.10.2.3: a cached read must not hide the dirty bit of the first write.
    @Test func firstWriteAfterReadsSetsDirty() throws {
        try machine.put([0x8a, 0x03, 0x8a, 0x03, 0xf4, 0x88, 0x03, 0xf4], at: Place.code)  // mov al, [rbx] twice; hlt; mov [rbx], al; hlt
        _ = machine.run()
        #expect(try machine.get64(leaf) & 0x60 == PageEntry.accessed)
        _ = machine.run()
        #expect(try machine.get64(leaf) & 0x60 == PageEntry.accessed | PageEntry.dirty)
    }

    // A store into two pages, the second of which faults, writes nothing
    // (SDM 3A, 6.5: faults leave the state as before the instruction).
    @Test func crossingStoreFaultsWhole() throws {
        try machine.put64(0, at: leaf + 8)
        let stores: [(String, [UInt8])] = [
            ("mov [rbx], rax", [0x48, 0x89, 0x03]), ("add [rbx], rax", [0x48, 0x01, 0x03]),
            ("lock add [rbx], rax", [0xf0, 0x48, 0x01, 0x03]), ("xchg [rbx], rax", [0x48, 0x87, 0x03]),
            ("movups [rbx], xmm0", [0x0f, 0x11, 0x03]), ("movdqu [rbx], xmm0", [0xf3, 0x0f, 0x7f, 0x03]),
            ("fstp tbyte [rbx]", [0xdb, 0x3b]), ("cmpxchg [rbx], rcx", [0x48, 0x0f, 0xb1, 0x0b]),
            ("sgdt [rbx]", [0x0f, 0x01, 0x03]), ("push [rsp rbx]", [0x50]), ("fnsave [rbx]", [0xdd, 0x33]),
            ("movsq", [0x48, 0xa5]), ("rep movsq", [0xf3, 0x48, 0xa5]), ("rep stosq", [0xf3, 0x48, 0xab]),
        ]
        for (name, code) in stores {
            try machine.put64(0x0123_4567_89ab_cdef, at: one + 0xff8)
            try machine.put(code, at: Place.code)
            machine.vcpu.withState { [setup] state in
                state.cr4 |= CR4.osFXSR
                state.rip = Place.code
                state.gpr[Register.rax] = .max
                state.gpr[Register.rbx] = setup.linear + 0xffc
                state.gpr[Register.rdi] = setup.linear + 0xffc
                state.gpr[Register.rsi] = 0x30000
                state.gpr[Register.rcx] = 1
                state.gpr[Register.rsp] = name.hasPrefix("push") ? setup.linear + 0x1004 : Place.stack
                state.ymm[0] = .max
                state.ymm[1] = .max
            }
            if name.hasPrefix("push") {
                // The handler wants a stack that is there.
                try machine.setLongGate(Vector.pageFault, ist: 1)
            } else {
                try machine.setLongGate(Vector.pageFault)
            }
            let frame = machine.runToHandler(Vector.pageFault)
            #expect(try machine.get64(frame) == 2, "\(name)")
            #expect(machine.vcpu.withState { $0.cr2 } == setup.linear + 0x1000, "\(name)")
            #expect(try machine.get64(one + 0xff8) == 0x0123_4567_89ab_cdef, "\(name)")
        }
    }

    // SDM 1, 3.3.7.1: not canonical is #GP(0), by way of the stack #SS(0).
    @Test func notCanonical() throws {
        let cases: [([UInt8], UInt8)] = [
            ([0x8a, 0x03], Vector.generalProtection), ([0x88, 0x03], Vector.generalProtection),
            ([0xff, 0xe3], Vector.generalProtection), ([0xff, 0xd3], Vector.generalProtection),
            ([0x8a, 0x45, 0x00], Vector.stackFault),  // mov al, [rbp]
            ([0x36, 0x8a, 0x03], Vector.generalProtection),  // SS is no override in 64-bit mode
            ([0x50], Vector.stackFault), ([0x58], Vector.stackFault), ([0xc3], Vector.stackFault),
            ([0x48, 0xcf], Vector.stackFault),  // iretq
            ([0x0f, 0x10, 0x45, 0x00], Vector.stackFault),  // movups xmm0, [rbp]
        ]
        for (code, vector) in cases {
            try machine.put(code, at: Place.code)
            try machine.setLongGate(vector, ist: 1)
            machine.vcpu.withState { state in
                state.cr4 |= CR4.osFXSR
                state.rip = Place.code
                state.gpr[Register.rbx] = 1 << 47
                state.gpr[Register.rbp] = 1 << 47
                state.gpr[Register.rsp] = 0xffff_0000_0000_0000
            }
            let frame = machine.runToHandler(vector)
            #expect(try machine.get64(frame) == 0, "\(code)")
            #expect(try machine.get64(frame + 8) == Place.code, "\(code)")
        }
    }

    // MARK: Code

    // SDM 3A, 11.6: code written through another address of the same page.
    @Test func codeWrittenThroughAnAlias() throws {
        // The page of the test, at 0x62000 too: mov eax, 1; ret.
        try machine.put([0xb8, 1, 0, 0, 0, 0xc3], at: 0x62000)
        try machine.putEntry(0x62000 | 3, at: leaf, setup)
        // call rbx; add ecx, eax; mov byte [0x62001], 2; call rbx; add ecx, eax; hlt
        try machine.put(
            [0xff, 0xd3, 0x01, 0xc1, 0xc6, 0x04, 0x25, 0x01, 0x20, 0x06, 0, 2, 0xff, 0xd3, 0x01, 0xc1, 0xf4],
            at: Place.code)
        machine.vcpu.withState { state in
            state.gpr[Register.rbx] &= ~0xfff
            state.gpr[Register.rcx] = 0
        }
        _ = machine.runToHalt()
        #expect(machine.vcpu.withState { $0.gpr[Register.rcx] } == 3)
    }

    // The very next instruction, in the same block.
    @Test func codeThatWritesItsSuccessor() throws {
        // mov byte [rip+1], 7; mov eax, 1 (becomes 7); hlt
        try machine.put([0xc6, 0x05, 0x01, 0, 0, 0, 7, 0xb8, 1, 0, 0, 0, 0xf4], at: Place.code)
        _ = machine.runToHalt()
        #expect(machine.vcpu.withState { $0.gpr[Register.rax] } == 7)
    }

    // A loop that rewrites its own immediate 1000 times, and reads it back by running it.
    @Test func codeThatWritesItselfInALoop() throws {
        // L: mov eax, imm; add edx, eax; inc dword [rip-13 → imm]; dec ecx; jnz L; hlt
        let loop: [UInt8] = [
            0xb8, 0, 0, 0, 0, 0x01, 0xc2, 0xff, 0x05, 0xf4, 0xff, 0xff, 0xff, 0xff, 0xc9, 0x75, 0xef, 0xf4,
        ]
        try machine.put(loop, at: Place.code)
        machine.vcpu.withState { state in
            state.gpr[Register.rcx] = 1000
            state.gpr[Register.rdx] = 0
        }
        _ = machine.runToHalt()
        #expect(machine.vcpu.withState { $0.gpr[Register.rdx] } == 499_500)
    }

    // A page of code is exchanged for another; with INVLPG the new one runs,
    // without it either.
    @Test(arguments: [true, false])
    func codePageExchanged(_ invalidate: Bool) throws {
        try machine.put([0xb8, 1, 0, 0, 0, 0xc3], at: one)
        try machine.put([0xb8, 2, 0, 0, 0, 0xc3], at: two)
        let between: [UInt8] = invalidate ? [0x0f, 0x01, 0x3b] : [0x90, 0x90, 0x90]
        // call rbx; mov r8d, eax; mov [rsi], rdi; …; call rbx; hlt
        try machine.put(
            [0xff, 0xd3, 0x41, 0x89, 0xc0, 0x48, 0x89, 0x3e] + between + [0xff, 0xd3, 0xf4], at: Place.code)
        machine.vcpu.withState { $0.gpr[Register.rbx] &= ~0xfff }
        _ = machine.runToHalt()
        let (first, second) = machine.vcpu.withState { ($0.gpr[8], $0.gpr[Register.rax]) }
        #expect(first == 1)
        #expect(invalidate ? second == 2 : second == 1 || second == 2)
    }

    // Unmapped: the fetch faults, with I set as NX is enabled.
    @Test func codePageUnmapped() throws {
        try machine.put([0xc3], at: one)
        // call rbx; and byte [rsi], ~1; invlpg [rbx]; call rbx
        try machine.put([0xff, 0xd3, 0x80, 0x26, 0xfe, 0x0f, 0x01, 0x3b, 0xff, 0xd3], at: Place.code)
        machine.vcpu.withState { $0.gpr[Register.rbx] &= ~0xfff }
        let frame = machine.runToHandler(Vector.pageFault)
        #expect(try machine.get64(frame) == 0x10)
        #expect(try machine.get64(frame + 8) == setup.linear & ~0xfff)
    }

    // An instruction in two pages whose second page is exchanged, and then gone.
    @Test func straddlingInstruction() throws {
        // mov eax, imm32 begins two bytes before the page's end; ret after it.
        try machine.put([0xb8, 0x11], at: one + 0xffe)
        try machine.put([0, 0, 0, 0xc3], at: two)
        try machine.put([0x22, 0, 0, 0xc3], at: 0x63000)
        try machine.putEntry(two | 3, at: leaf + 8, setup)
        // call rbx; mov r8d, eax; mov [rsi+8], rdi; invlpg [rdx]; call rbx; mov r9d, eax; and byte [rsi+8], ~1; invlpg [rdx]; call rbx
        try machine.put(
            [
                0xff, 0xd3, 0x41, 0x89, 0xc0, 0x48, 0x89, 0x7e, 0x08, 0x0f, 0x01, 0x3a, 0xff, 0xd3, 0x41, 0x89, 0xc1,
                0x80, 0x66,
                0x08, 0xfe, 0x0f, 0x01, 0x3a, 0xff, 0xd3,
            ], at: Place.code)
        machine.vcpu.withState { [setup] state in
            state.gpr[Register.rbx] = setup.linear + 0xffe
            state.gpr[Register.rdx] = setup.linear + 0x1000
            state.gpr[Register.rdi] = 0x63000 | 3
        }
        let frame = machine.runToHandler(Vector.pageFault)
        #expect(machine.vcpu.withState { $0.gpr[8] } == 0x11)
        #expect(machine.vcpu.withState { $0.gpr[9] } == 0x2211)
        #expect(try machine.get64(frame + 8) == setup.linear + 0xffe)
        #expect(machine.vcpu.withState { $0.cr2 } == setup.linear + 0x1000)
    }

    // Up to the last byte of a page with nothing behind it; only then the fault.
    @Test func codeToTheEndOfAPage() throws {
        try machine.put64(0, at: leaf + 8)
        try machine.put([0xff, 0xc0, 0xff, 0xc0], at: one + 0xffc)  // inc eax; inc eax
        try machine.put([0xff, 0xe3], at: Place.code)
        machine.vcpu.withState { [setup] state in
            state.gpr[Register.rax] = 0
            state.gpr[Register.rbx] = setup.linear + 0xffc
        }
        let frame = machine.runToHandler(Vector.pageFault)
        #expect(machine.vcpu.withState { $0.gpr[Register.rax] } == 2)
        #expect(try machine.get64(frame + 8) == setup.linear + 0x1000)
    }

    // A device writes to code while it runs.
    @Test func codeWrittenByADevice() throws {
        // L: cmp byte [rip+imm of the next], 0; mov eax, 0; test eax, eax; jz L; hlt
        try machine.put([0xb8, 0, 0, 0, 0, 0x85, 0xc0, 0x74, 0xf7, 0xf4], at: Place.code)
        let memory = machine.memory
        for value in 1...UInt8(50) {
            try machine.put([0], at: Place.code + 1)
            machine.vcpu.withState { $0.rip = Place.code }
            let writer = try HostThread(name: "device") {
                let start = HostClock.monotonicNanoseconds
                while HostClock.monotonicNanoseconds &- start < UInt64(value) * 20_000 {}
                try? memory.write([value], at: GuestPhysicalAddress(Place.code + 1))
            }
            defer { writer.join() }
            #expect(machine.runToHalt() == Place.code + 10)
            #expect(machine.vcpu.withState { $0.gpr[Register.rax] } == UInt64(value))
        }
    }
}
