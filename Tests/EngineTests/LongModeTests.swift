import EngineTesting
import Testing
import VirtualCPU
import X86

/// Exceptions, stacks and system calls of 64-bit mode.
@Suite(.everyEngine) struct LongModeTests {
    typealias Place = Machine.Place
    typealias Selector = Machine.Selector
    let machine: Machine

    init() throws {
        // SYSENTER is in long mode by Intel's rules alone.
        machine = try Machine(features: .forThisHost.followingRules(ofIntel: true))
        try machine.enterLongMode()
    }

    // FS and GS are on the stack's instructions' list too, and are no general registers: RAX
    // must neither be pushed nor popped in their stead. The last access is to what RAX names then.
    @Test func segmentRegistersOnTheStack() throws {
        let program: [UInt8] = [
            0x0f, 0xa0,  // push fs
            0x58,  // pop rax
            0xbb, 0x00, 0x00, 0x03, 0x00,  // mov ebx, data
            0x6a, 0x10,  // push 16
            0x48, 0x89, 0x03,  // mov [rbx], rax
            0x0f, 0xa9,  // pop gs
            0x8c, 0xe9,  // mov ecx, gs
            0x48, 0x89, 0x4b, 0x08,  // mov [rbx + 8], rcx
            0x0f, 0xa8,  // push gs
            0x5a,  // pop rdx
            0xf4,  // hlt
        ]
        try machine.put(program, at: Place.code)
        machine.vcpu.withState { state in
            state.gpr[Register.rax] = 0x1234
            state.segments[SegmentName.fs].selector = Selector.data
        }
        guard case .halt = machine.vcpu.run() else { Issue.record("no HLT"); return }
        #expect(machine.vcpu.withState { $0.gpr[Register.rax] } == UInt64(Selector.data))
        #expect(machine.vcpu.withState { $0.gpr[Register.rdx] } == 16)
        #expect(try machine.get64(Place.data) == UInt64(Selector.data))
        #expect(try machine.get64(Place.data + 8) == 16)
    }

    // SDM 2A, 2.2.1: a REX that does not come last of the prefixes is void, and those behind it are not.
    @Test func voidREX() throws {
        let program: [UInt8] = [
            0xbb, 0x00, 0x00, 0x03, 0x00,  // mov ebx, data
            0x48, 0x66, 0x8b, 0x0b,  // REX.W, mov cx, [rbx]
            0x4c, 0x66, 0x41, 0x01, 0x0b,  // REX.WR, add [r11], cx
            0xf4,  // hlt
        ]
        try machine.put(program, at: Place.code)
        try machine.put64(0x1122_3344_5566_7788, at: Place.data)
        machine.vcpu.withState {
            $0.gpr[Register.rcx] = .max
            $0.gpr[11] = Place.data
        }
        guard case .halt = machine.vcpu.run() else { Issue.record("no HLT"); return }
        #expect(machine.vcpu.withState { $0.gpr[Register.rcx] } == 0xffff_ffff_ffff_7788)
        #expect(try machine.get64(Place.data) == 0x1122_3344_5566_ef10)
    }

    @Test func controlRegistersAreRead() throws {
        try machine.put([0x0f, 0x20, 0xd0, 0x41, 0x0f, 0x20, 0xdd, 0xf4], at: Place.code)  // mov rax, cr2; mov r13, cr3; hlt
        machine.vcpu.withState { $0.cr2 = 0xffff_8000_1234_5678 }
        guard case .halt = machine.vcpu.run() else { Issue.record("no HLT"); return }
        #expect(machine.vcpu.withState { $0.gpr[Register.rax] } == 0xffff_8000_1234_5678)
        #expect(machine.vcpu.withState { $0.gpr[13] == $0.cr3 && $0.cr3 != 0 })
    }

    // CLD, and a string instruction that goes by it.
    @Test func directionIsCleared() throws {
        try machine.put([0xfd, 0xa4, 0xfc, 0xa4, 0xf4], at: Place.code)  // std; movsb; cld; movsb; hlt
        machine.vcpu.withState { state in
            state.gpr[Register.rsi] = Place.data
            state.gpr[Register.rdi] = Place.data + 0x100
        }
        guard case .halt = machine.vcpu.run() else { Issue.record("no HLT"); return }
        #expect(machine.vcpu.withState { $0.gpr[Register.rsi] } == Place.data)
        #expect(machine.vcpu.withState { $0.rflags & RFlags.direction } == 0)
    }

    // SDM 3A, 6.14.2: SS:RSP is always pushed, the frame is aligned to 16 bytes.
    @Test func pageFaultPushesCodeAndLoadsCR2() throws {
        try machine.put([0x48, 0x8b, 0x04, 0x25, 0x08, 0x00, 0x10, 0x00], at: Place.code)  // mov rax, [0x100008]
        machine.vcpu.withState { $0.gpr[Register.rsp] = Place.stack - 4 }
        let frame = machine.runToHandler(Vector.pageFault)
        #expect(frame == Place.stack - 16 - 48)
        #expect(try machine.get64(frame) == 0)  // not present, read, supervisor
        #expect(try machine.get64(frame + 8) == Place.code)
        #expect(try machine.get64(frame + 16) == UInt64(Selector.code))
        // A fault's image has RF set (SDM 3B, 17.3.1.1).
        #expect(try machine.get64(frame + 24) == RFlags.alwaysOne | RFlags.resume)
        #expect(try machine.get64(frame + 32) == Place.stack - 4)
        #expect(try machine.get64(frame + 40) == UInt64(Selector.data))
        #expect(machine.vcpu.withState { $0.cr2 } == Place.hole + 8)
    }

    @Test func userFaultSwitchesToRSP0() throws {
        machine.enterUser(long: true)
        try machine.put([0x89, 0x04, 0x25, 0x00, 0x00, 0x10, 0x00], at: Place.user)  // mov [0x100000], eax
        let frame = machine.runToHandler(Vector.pageFault)
        #expect(frame == Place.kernelStack - 48)
        #expect(try machine.get64(frame) == 6)  // write, user
        #expect(try machine.get64(frame + 16) == UInt64(Selector.userCode64))
        #expect(try machine.get64(frame + 40) == UInt64(Selector.userData))
        // SDM 3A, 6.14.4: SS becomes a null selector with the new CPL.
        #expect(machine.vcpu.withState { $0.segments[SegmentName.ss].selector } == 0)
    }

    // SDM 3A, table 6-5: a contributory exception while delivering #PF is a double fault.
    @Test func faultInDeliveryOfPageFaultDoubles() throws {
        try machine.setLongGate(Vector.pageFault, type: 0x0e)  // not present
        try machine.put([0x8b, 0x04, 0x25, 0x00, 0x00, 0x10, 0x00], at: Place.code)  // mov eax, [0x100000]
        let frame = machine.runToHandler(Vector.doubleFault)
        #expect(try machine.get64(frame) == 0)
        #expect(try machine.get64(frame + 8) == Place.code)
    }

    // The same table: #NP for the gate of a benign #UD is handled in its own right.
    @Test func faultInDeliveryOfBenignIsSerial() throws {
        try machine.setLongGate(Vector.invalidOpcode, type: 0x0e)
        try machine.put([0x0f, 0x0b], at: Place.code)  // ud2
        let frame = machine.runToHandler(Vector.segmentNotPresent)
        #expect(try machine.get64(frame) == UInt64(Vector.invalidOpcode) * 8 + 3)  // IDT, EXT
    }

    @Test func thirdFaultShutsDown() throws {
        try machine.setLongGate(Vector.pageFault, type: 0x0e)
        try machine.setLongGate(Vector.doubleFault, type: 0x0e)
        try machine.put([0x8b, 0x04, 0x25, 0x00, 0x00, 0x10, 0x00], at: Place.code)
        guard case .shutdown(let reason) = machine.run() else {
            Issue.record("still alive")
            return
        }
        #expect(reason.contains("triple fault: #NP(0x43) while delivering #DF"))
        #expect(reason.contains("#PF(0x0) at 0x100000"))
    }

    // SDM 3A, 6.14.5; INT3 is a trap: RIP past it.
    @Test func breakpointOnItsOwnStack() throws {
        try machine.setLongGate(Vector.breakpoint, ist: 1, type: 0xee)
        try machine.put([0xcc], at: Place.code)
        let frame = machine.runToHandler(Vector.breakpoint)
        #expect(frame == Place.ist - 40)
        #expect(try machine.get64(frame) == Place.code + 1)
        #expect(try machine.get64(frame + 16) == RFlags.alwaysOne)
    }

    // SDM 3A, 6.12.1.1: a program may use only gates of DPL ≥ CPL; EXT is 0.
    @Test func softwareInterruptNeedsTheGatesPrivilege() throws {
        machine.enterUser(long: true)
        try machine.put([0xcd, 0x20], at: Place.user)  // int 0x20
        let frame = machine.runToHandler(Vector.generalProtection)
        #expect(try machine.get64(frame) == 0x20 * 8 + 2)
        #expect(try machine.get64(frame + 8) == Place.user)
    }

    @Test func interruptBeyondTheTable() throws {
        try machine.put([0xcd, 0x70], at: Place.code)
        let frame = machine.runToHandler(Vector.generalProtection)
        #expect(try machine.get64(frame) == 0x70 * 8 + 2)
    }

    /// IRETQ to CPL 3, SYSCALL, SYSRET, INT 0x40.
    @Test func toUserAndBack() throws {
        for (n, value) in [
            Place.user, UInt64(Selector.userCode64), RFlags.alwaysOne | RFlags.interrupt | RFlags.carry,
            Place.userStack,
            UInt64(Selector.userData),
        ].enumerated() {
            try machine.put64(value, at: Place.stack - 40 + UInt64(n) * 8)
        }
        try machine.put([0x48, 0xcf], at: Place.code)  // iretq
        try machine.put([0x0f, 0x05, 0xcd, 0x40], at: Place.user)  // syscall; int 0x40
        try machine.put([0x49, 0x89, 0xca, 0x48, 0x0f, 0x07], at: Place.code + 0x100)  // mov r10, rcx; sysretq
        machine.vcpu.withState { state in
            state.gpr[Register.rsp] = Place.stack - 40
            state.star = 0x001b_0008 << 32
            state.lstar = Place.code + 0x100
            state.syscallMask = RFlags.interrupt
        }
        let frame = machine.runToHandler(0x40)
        #expect(frame == Place.kernelStack - 40)
        #expect(try machine.get64(frame) == Place.user + 4)
        #expect(try machine.get64(frame + 8) == UInt64(Selector.userCode64))
        #expect(try machine.get64(frame + 16) == RFlags.alwaysOne | RFlags.interrupt | RFlags.carry)
        #expect(try machine.get64(frame + 24) == Place.userStack)
        #expect(try machine.get64(frame + 32) == UInt64(Selector.userData))
        #expect(machine.vcpu.withState { $0.gpr[10] } == Place.user + 2)
        // DS was the kernel's: IRET to an outer privilege drops it (SDM 2A, "IRET").
        #expect(machine.vcpu.withState { $0.segments[SegmentName.ds].selector } == 0)
    }

    // SDM 2B, "SYSRET": a non-canonical RCX is #GP in the kernel.
    @Test func sysretChecksRCX() throws {
        try machine.put([0x48, 0x0f, 0x07], at: Place.code)
        machine.vcpu.withState { $0.gpr[Register.rcx] = 1 << 47 }
        let frame = machine.runToHandler(Vector.generalProtection)
        #expect(frame == Place.stack - 48)
        #expect(try machine.get64(frame + 8) == Place.code)
    }

    // SDM 3A, 6.8.1 and "IRET": NT in long mode is #GP.
    @Test func nestedTaskReturnIsRefused() throws {
        try machine.put([0x48, 0xcf], at: Place.code)
        machine.vcpu.withState { $0.rflags |= RFlags.nestedTask }
        _ = machine.runToHandler(Vector.generalProtection)
    }

    @Test func sysenterAndSysexit() throws {
        machine.enterUser(long: true)
        try machine.put([0x0f, 0x34], at: Place.user)  // sysenter
        try machine.put([0x48, 0x0f, 0x35], at: Place.code + 0x100)  // sysexit, 64-bit
        try machine.put([0xcd, 0x40], at: Place.user + 0x100)
        machine.vcpu.withState { state in
            state.sysenterCS = 0x08
            state.sysenterESP = Place.stack
            state.sysenterEIP = Place.code + 0x100
            state.gpr[Register.rcx] = Place.userStack - 8
            state.gpr[Register.rdx] = Place.user + 0x100
        }
        let frame = machine.runToHandler(0x40)
        #expect(try machine.get64(frame + 8) == 0x2b)
        #expect(try machine.get64(frame + 24) == Place.userStack - 8)
        #expect(try machine.get64(frame + 32) == 0x33)
    }

    // SDM 3A, 5.8.3.1 and 5.8.5.1: a 64-bit call gate, from CPL 3 to 0 and back by RETF.
    @Test func callGateSwitchesStacks() throws {
        let gate = Selector.free
        try machine.setDescriptor(gate, Machine.gate(Selector.code, Place.code + 0x100, type: 0xec))
        try machine.setDescriptor(gate + 8, 0)
        machine.enterUser(long: true)
        // call far [0x30000]; int 0x40
        try machine.put([0xff, 0x1c, 0x25, 0x00, 0x00, 0x03, 0x00, 0xcd, 0x40], at: Place.user)
        try machine.put([0, 0, 0, 0, UInt8(gate | 3), 0], at: Place.data)
        try machine.put([0x48, 0x89, 0xe3, 0x48, 0xcb], at: Place.code + 0x100)  // mov rbx, rsp; retfq
        let frame = machine.runToHandler(0x40)
        #expect(machine.vcpu.withState { $0.gpr[Register.rbx] } == Place.kernelStack - 32)
        #expect(try machine.get64(frame) == Place.user + 9)
        #expect(try machine.get64(frame + 24) == Place.userStack)
    }

    @Test func nullStackSegmentOnlyForTheKernel() throws {
        try machine.put([0x31, 0xc0, 0x8e, 0xd0, 0xf4], at: Place.code)  // xor eax, eax; mov ss, eax; hlt
        #expect(machine.runToHalt() == Place.code + 5)
        machine.enterUser(long: true)
        try machine.put([0x31, 0xc0, 0x8e, 0xd0], at: Place.user)
        let frame = machine.runToHandler(Vector.generalProtection)
        #expect(try machine.get64(frame) == 0)
        #expect(try machine.get64(frame + 8) == Place.user + 2)
    }
}
