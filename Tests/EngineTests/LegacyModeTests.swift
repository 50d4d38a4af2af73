import EngineTesting
import GuestMemory
import Testing
import VirtualCPU
import X86

/// Real, protected and virtual-8086 mode.
@Suite(.everyEngine) struct LegacyModeTests {
    typealias Place = Machine.Place
    typealias Selector = Machine.Selector
    let machine: Machine

    init() throws { machine = try Machine() }

    private func enterRealMode() {
        machine.vcpu.withState { state in
            state.segments[SegmentName.cs] = .realMode(selector: 0x100, type: 0x9b)
            state.rip = 0
            state.gpr[Register.rsp] = 0x8000
            state.idtr = DescriptorTable(base: 0, limit: 0x3ff)
        }
    }

    // SDM 3B, 20.1.4: FLAGS, CS, IP; IF and TF cleared; IRET undoes it.
    @Test func realModeInterruptAndReturn() throws {
        enterRealMode()
        try machine.put([0xcd, 0x21, 0xf4], at: 0x1000)  // int 0x21; hlt
        try machine.put16(0x10, at: 0x84)
        try machine.put16(0x200, at: 0x86)
        try machine.put([0xf4, 0xcf], at: 0x2010)  // hlt; iret
        machine.vcpu.withState { $0.rflags |= RFlags.interrupt | RFlags.zero }
        #expect(machine.runToHalt() == 0x11)
        #expect(try machine.get16(0x7ffa) == 2)
        #expect(try machine.get16(0x7ffc) == 0x100)
        #expect(try machine.get16(0x7ffe) == 0x242)
        #expect(machine.vcpu.withState { $0.rflags } & RFlags.interrupt == 0)
        #expect(machine.runToHalt() == 3)
        #expect(machine.vcpu.withState { $0.rflags } == 0x242)
        #expect(machine.vcpu.withState { $0.gpr[Register.rsp] } == 0x8000)
    }

    @Test func realModeFarCallAndReturn() throws {
        enterRealMode()
        try machine.put([0x9a, 0x04, 0x00, 0x00, 0x03, 0xf4], at: 0x1000)  // call 0x300:4; hlt
        try machine.put([0xcb], at: 0x3004)  // retf
        #expect(machine.runToHalt() == 6)
        #expect(machine.vcpu.withState { $0.segments[SegmentName.cs].base } == 0x1000)
    }

    // SDM 3A, 9.9.1: PE set, then a far jump makes CS a 32-bit segment.
    @Test func farJumpIntoProtectedMode() throws {
        try machine.enterProtectedMode()
        machine.vcpu.withState { state in
            state.segments[SegmentName.cs] = .realMode(selector: 0, type: 0x9b)
            state.segments[SegmentName.ss].attributes = 0x93
            state.rip = 0x8000
        }
        try machine.put([0x66, 0xea, 0x00, 0x00, 0x01, 0x00, 0x08, 0x00], at: 0x8000)  // jmp dword 8:0x10000
        try machine.put([0xb8, 0x78, 0x56, 0x34, 0x12, 0xf4], at: Place.code)  // mov eax, 0x12345678; hlt
        #expect(machine.runToHalt() == Place.code + 6)
        #expect(machine.vcpu.withState { $0.gpr[Register.rax] } == 0x1234_5678)
    }

    @Test func accessBeyondTheLimit() throws {
        try machine.enterProtectedMode()
        machine.vcpu.withState { $0.segments[SegmentName.ds].limit = 0xfff }
        try machine.put([0xa1, 0xfd, 0x0f, 0x00, 0x00], at: Place.code)  // mov eax, [0xffd]
        let frame = machine.runToHandler(Vector.generalProtection)
        #expect(frame == Place.stack - 16)
        #expect(try machine.get32(frame) == 0)
        #expect(try machine.get32(frame + 4) == UInt32(Place.code))
    }

    // SDM 3A, 3.4.3 and 5.5: DPL of data must not be below CPL; the accessed bit is set on success.
    @Test func segmentLoadsAreChecked() throws {
        try machine.enterProtectedMode()
        try machine.setDescriptor(Selector.free, 0x00cf_f200_0000_ffff)
        try machine.put([0x8e, 0xd8, 0x8e, 0xc1], at: Place.code)  // mov ds, eax; mov es, ecx
        machine.vcpu.withState { state in
            state.gpr[Register.rax] = UInt64(Selector.free)
            state.gpr[Register.rcx] = 0x68  // an empty descriptor
        }
        let frame = machine.runToHandler(Vector.generalProtection)
        #expect(try machine.get32(frame) == 0x68)
        #expect(try machine.get64(Place.gdt + UInt64(Selector.free)) == 0x00cf_f300_0000_ffff)
    }

    @Test func absentSegment() throws {
        try machine.enterProtectedMode()
        try machine.setDescriptor(Selector.free, 0x00cf_1300_0000_ffff)
        try machine.put([0x8e, 0xd0], at: Place.code)  // mov ss, eax
        machine.vcpu.withState { $0.gpr[Register.rax] = UInt64(Selector.free) }
        // #NP for data, but #SS for a stack (SDM 2B, "MOV").
        let frame = machine.runToHandler(Vector.stackFault)
        #expect(try machine.get32(frame) == UInt32(Selector.free))
    }

    // SDM 3A, 5.8.5: new stack from the TSS, the old SS:ESP, parameters, CS:EIP; RETF 8 undoes it.
    @Test func callGateCopiesParameters() throws {
        try machine.enterProtectedMode()
        machine.enterUser(long: false)
        try machine.setDescriptor(Selector.free, Machine.gate(Selector.code, Place.code + 0x100, type: 0xec, extra: 2))
        // push 0x11; push 0x22; call 0x43:0; int 0x40
        try machine.put([0x6a, 0x11, 0x6a, 0x22, 0x9a, 0, 0, 0, 0, 0x43, 0, 0xcd, 0x40], at: Place.user)
        try machine.put([0xf4, 0xca, 0x08, 0x00], at: Place.code + 0x100)  // hlt; retf 8
        #expect(machine.runToHalt() == Place.code + 0x101)
        let top = Place.kernelStack
        #expect(machine.vcpu.withState { $0.gpr[Register.rsp] } == top - 24)
        let frame = try (0..<6).map { try machine.get32(top - 24 + UInt64($0) * 4) }
        #expect(
            frame == [
                UInt32(Place.user) + 11, UInt32(Selector.userCode32), 0x22, 0x11, UInt32(Place.userStack) - 8,
                UInt32(Selector.userData),
            ])
        let after = machine.runToHandler(0x40)
        #expect(try machine.get32(after + 12) == UInt32(Place.userStack))
        #expect(try machine.get32(after + 4) == UInt32(Selector.userCode32))
    }

    private func makeTask(eip: UInt64, flags: UInt32 = 2) throws {
        let tss = Place.otherTSS
        try machine.setDescriptor(Selector.free, Machine.descriptor(base: tss, limit: 0x67, attributes: 0x89))
        try machine.put32(UInt32(eip), at: tss + 0x20)
        try machine.put32(flags, at: tss + 0x24)
        try machine.put32(0xabcd, at: tss + 0x28)  // EAX
        try machine.put32(UInt32(Place.ist), at: tss + 0x38)  // ESP
        for (n, selector) in [Selector.data, Selector.code, Selector.data, Selector.data, 0, 0].enumerated() {
            try machine.put32(UInt32(selector), at: tss + 0x48 + UInt64(n) * 4)
        }
    }

    // SDM 3A, 7.3 and table 7-2: CALL nests, IRET with NT comes back.
    @Test func taskCallAndReturn() throws {
        try machine.enterProtectedMode()
        try makeTask(eip: Place.code + 0x200)
        try machine.put([0xb8, 0x01, 0, 0, 0, 0x9a, 0, 0, 0, 0, 0x40, 0, 0xf4], at: Place.code)  // mov eax, 1; call 0x40:0; hlt
        try machine.put([0xf4, 0xcf], at: Place.code + 0x200)  // hlt; iret
        #expect(machine.runToHalt() == Place.code + 0x201)
        #expect(machine.vcpu.withState { $0.gpr[Register.rax] } == 0xabcd)
        #expect(machine.vcpu.withState { $0.rflags } & RFlags.nestedTask != 0)
        #expect(machine.vcpu.withState { $0.cr0 } & CR0.taskSwitched != 0)
        #expect(try machine.get32(Place.otherTSS) & 0xffff == UInt32(Selector.tss))
        #expect(try machine.get32(Place.tss + 0x20) == UInt32(Place.code) + 12)
        // Both are busy now.
        #expect(try machine.get64(Place.gdt + 0x40) >> 40 & 0xf == 11)
        #expect(try machine.get64(Place.gdt + 0x30) >> 40 & 0xf == 11)
        #expect(machine.runToHalt() == Place.code + 13)
        #expect(machine.vcpu.withState { $0.gpr[Register.rax] } == 1)
        #expect(machine.vcpu.withState { $0.tr.selector } == Selector.tss)
        #expect(machine.vcpu.withState { $0.rflags } & RFlags.nestedTask == 0)
        #expect(try machine.get64(Place.gdt + 0x40) >> 40 & 0xf == 9)
    }

    // SDM 3A, 6.12.2: an exception by a task gate; its error code is on the new task's stack.
    @Test func faultByTaskGate() throws {
        try machine.enterProtectedMode()
        try makeTask(eip: Place.code + 0x200)
        try machine.put64(Machine.gate(Selector.free, 0, type: 0x85), at: Place.idt + 13 * 8)
        try machine.put([0x8e, 0xd9], at: Place.code)  // mov ds, ecx
        try machine.put([0xf4], at: Place.code + 0x200)
        machine.vcpu.withState { $0.gpr[Register.rcx] = 0x68 }
        #expect(machine.runToHalt() == Place.code + 0x201)
        #expect(machine.vcpu.withState { $0.gpr[Register.rsp] } == Place.ist - 4)
        #expect(try machine.get32(Place.ist - 4) == 0x68)
        #expect(try machine.get32(Place.tss + 0x20) == UInt32(Place.code))
    }

    // SDM 3A, 7.3, step 12: what is wrong with the new task is the new task's fault.
    @Test func taskThatCannotBegin() throws {
        try machine.enterProtectedMode()
        try makeTask(eip: Place.code + 0x200)
        try machine.put32(UInt32(Selector.userData), at: Place.otherTSS + 0x54)  // DS of DPL 3: fine
        try machine.put32(0x68, at: Place.otherTSS + 0x50)  // SS: an empty descriptor
        try machine.put([0xea, 0, 0, 0, 0, 0x40, 0], at: Place.code)  // jmp 0x40:0
        // The handler has a good stack of its own only by another task.
        try machine.setDescriptor(Selector.free + 8, Machine.descriptor(base: 0x7c00, limit: 0x67, attributes: 0x89))
        try machine.put(try machine.memory.read(.init(Place.otherTSS), count: 0x68), at: 0x7c00)
        try machine.put32(UInt32(Selector.data), at: 0x7c50)
        try machine.put64(Machine.gate(Selector.free + 8, 0, type: 0x85), at: Place.idt + 10 * 8)
        try machine.put([0xf4], at: Place.code + 0x200)
        #expect(machine.runToHalt() == Place.code + 0x201)
        #expect(try machine.get32(Place.ist - 4) == 0x68)
        #expect(machine.vcpu.withState { $0.tr.selector } == Selector.free + 8)
    }

    // A new task whose descriptors lie beyond RAM: the switch cannot be begun
    // again once a device has answered. A Guest of noise found this.
    @Test func taskWithDescriptorsInADevice() throws {
        try machine.enterProtectedMode()
        try makeTask(eip: Place.code + 0x200)
        let table: UInt64 = (4 << 20) - 0x40
        try machine.put(try machine.memory.read(.init(Place.gdt), count: 0x38), at: table)
        try machine.put64(try machine.get64(Place.gdt + 0x40), at: table + 0x38)
        try machine.put32(0x40, at: Place.otherTSS + 0x4c)  // CS
        try machine.put([0xea, 0, 0, 0, 0, 0x38, 0], at: Place.code)  // jmp 0x38:0
        machine.vcpu.withState { $0.gdtr.base = table }
        guard case .shutdown(let reason) = machine.run() else { Issue.record("still alive"); return }
        #expect(reason.contains("#TS"))
        // It may be asked again, and asks nothing itself.
        _ = machine.run()
    }

    // SDM 3B, 20.2: into virtual-8086 mode by IRETD; CLI at IOPL 0 is #GP, with all segments in the frame.
    @Test func virtual8086() throws {
        try machine.enterProtectedMode()
        let flags = UInt32(RFlags.virtual8086 | RFlags.alwaysOne)
        let image: [UInt32] = [4, 0x1800, flags, 0xfff0, 0x2000, 0x111, 0x222, 0x333, 0x444]
        let top = Place.stack - UInt64(image.count) * 4
        for (n, value) in image.enumerated() { try machine.put32(value, at: top + UInt64(n) * 4) }
        machine.vcpu.withState { $0.gpr[Register.rsp] = top }
        try machine.put([0xcf], at: Place.code)
        try machine.put([0x8c, 0xd8, 0xfa], at: Place.user + 4)  // mov ax, ds; cli
        let frame = machine.runToHandler(Vector.generalProtection)
        #expect(frame == Place.kernelStack - 40)
        let pushed = try (0..<10).map { try machine.get32(frame + UInt64($0) * 4) }
        #expect(pushed == [0, 6, 0x1800, flags | UInt32(RFlags.resume), 0xfff0, 0x2000, 0x111, 0x222, 0x333, 0x444])
        #expect(machine.vcpu.withState { $0.gpr[Register.rax] } & 0xffff == 0x222)
        #expect(machine.vcpu.withState { $0.segments[SegmentName.ds].selector } == 0)
    }
}
