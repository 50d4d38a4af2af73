import EngineTesting
import Testing
import VirtualCPU
import X86

/// Single steps and breakpoints (SDM 3B, chapter 17), in 64-bit mode.
@Suite(.everyEngine) struct DebugTests {
    typealias Place = Machine.Place
    let machine: Machine
    /// Counts what #DB was taken for, and goes on: inc qword [0x30000]; mov rbx, [rsp]; iretq
    let counter: [UInt8] = [0x48, 0xff, 0x04, 0x25, 0x00, 0x00, 0x03, 0x00, 0x48, 0x8b, 0x1c, 0x24, 0x48, 0xcf]

    init() throws {
        machine = try Machine()
        try machine.enterLongMode()
        try machine.put(counter, at: Place.code + 0x800)
    }

    private func countDebugTraps() throws { try machine.setLongGate(Vector.debug, to: Place.code + 0x800) }
    private var count: UInt64 { get throws { try machine.get64(Place.data) } }

    @Test func singleStepTrapsAfterEachInstruction() throws {
        try countDebugTraps()
        try machine.put([0x90, 0x90, 0x90, 0x90, 0x90, 0xcd, 0x40], at: Place.code)  // 5 nop; int 0x40
        machine.vcpu.withState { $0.rflags |= RFlags.trap }
        let frame = machine.runToHandler(0x40)
        // INT n clears TF: no trap after it, but TF is in its image.
        #expect(try count == 5)
        #expect(try machine.get64(frame + 16) & RFlags.trap != 0)
        #expect(machine.vcpu.withState { $0.dr[6] } & (1 << 14) != 0)
        #expect(machine.vcpu.withState { $0.gpr[Register.rbx] } == Place.code + 5)
    }

    // SDM 3A, 6.8.3: MOV SS holds the trap back until the next instruction is done.
    @Test func movToStackSegmentHoldsTheTrap() throws {
        try countDebugTraps()
        try machine.put([0x8e, 0xd0, 0x90, 0x90, 0xcd, 0x40], at: Place.code)  // mov ss, eax; nop; nop; int 0x40
        machine.vcpu.withState { state in
            state.gpr[Register.rax] = UInt64(Machine.Selector.data)
            state.rflags |= RFlags.trap
        }
        _ = machine.runToHandler(0x40)
        #expect(try count == 2)
    }

    @Test func stringsTrapAfterEachIteration() throws {
        try countDebugTraps()
        try machine.put([0xf3, 0xaa, 0xcd, 0x40], at: Place.code)  // rep stosb; int 0x40
        machine.vcpu.withState { state in
            state.gpr[Register.rcx] = 4
            state.gpr[Register.rdi] = Place.data + 0x100
            state.rflags |= RFlags.trap
        }
        _ = machine.runToHandler(0x40)
        #expect(try count == 4)
    }

    @Test func dataBreakpointTrapsAfterTheWrite() throws {
        try machine.put([0x90, 0x89, 0x04, 0x25, 0x02, 0x00, 0x03, 0x00, 0x90], at: Place.code)  // nop; mov [0x30002], eax
        machine.vcpu.withState { state in
            state.gpr[Register.rax] = 0x1234
            state.dr[2] = Place.data + 4
            state.dr[7] = 0x400 | 1 << 4 | 0x1 << 24 | 0x3 << 26  // L2, write, 4 bytes
        }
        let frame = machine.runToHandler(Vector.debug)
        #expect(try machine.get64(frame) == Place.code + 8)
        #expect(machine.vcpu.withState { $0.dr[6] } & 0xf == 4)
        #expect(try machine.get32(Place.data + 2) == 0x1234)
    }

    @Test func writeBreakpointIgnoresReads() throws {
        try machine.put([0x8b, 0x04, 0x25, 0x00, 0x00, 0x03, 0x00, 0xf4], at: Place.code)  // mov eax, [0x30000]; hlt
        machine.vcpu.withState { state in
            state.dr[0] = Place.data
            state.dr[7] = 0x400 | 1 | 0x1 << 16
        }
        #expect(machine.runToHalt() == Place.code + 8)
    }

    // A fault, before the instruction; RF in the image lets it pass (SDM 3B, 17.3.1.1).
    @Test func instructionBreakpointAndResume() throws {
        try machine.put([0x90, 0x90, 0xf4], at: Place.code)
        // inc qword [0x30000]; or dword [rsp+16], 0x10000; iretq
        try machine.put(
            [
                0x48, 0xff, 0x04, 0x25, 0x00, 0x00, 0x03, 0x00, 0x81, 0x4c, 0x24, 0x10, 0x00, 0x00, 0x01, 0x00, 0x48,
                0xcf,
            ],
            at: Place.code + 0x800)
        try countDebugTraps()
        machine.vcpu.withState { state in
            state.dr[3] = Place.code + 1
            state.dr[7] = 0x400 | 1 << 7  // G3, execute
        }
        #expect(machine.runToHalt() == Place.code + 3)
        #expect(try count == 1)
        #expect(machine.vcpu.withState { $0.rflags } & RFlags.resume == 0)
    }
}
