import EngineTesting
import Testing
import VirtualCPU
import X86

/// TF over whole programs (SDM 3B, 17.3.1.4): a trap after each instruction,
/// and what the program computes is what it computes without.
@Suite(.everyEngine) struct SingleStepTests {
    typealias Place = Machine.Place

    private func machine(_ program: Program) throws -> Machine {
        let machine = try Machine()
        try machine.enterLongMode()
        try machine.put(program)
        // inc qword [0x30800]; iretq
        try machine.put([0x48, 0xff, 0x04, 0x25, 0, 8, 3, 0, 0x48, 0xcf], at: Place.code + 0x800)
        try machine.setLongGate(Vector.debug, to: Place.code + 0x800)
        machine.vcpu.withState { state in
            state.cr4 |= CR4.osFXSR
            state.gpr[Register.rbx] = Place.data
            state.gpr[Register.rax] = 0x1234_5678_9abc_def0
        }
        return machine
    }

    /// Programs, and how many instructions each is until its INT 0x40.
    static let programs: [(name: String, count: UInt64, emit: @Sendable (inout Program) -> Void)] = [
        (
            "loop", 1 + 3 * 100,
            { p in
                p.move(.rcx, 100)
                p.label("again")
                p.raw(0x48, 0x11, 0xc2)
                p.decrement(.rcx)
                p.jump(.ne, "again")
            }
        ),
        (
            "calls", 1 + 5 * 20,
            { p in
                p.move(.rcx, 20)
                p.label("again")
                p.call("function")
                p.decrement(.rcx)
                p.jump(.ne, "again")
                p.jump("end")
                p.label("function")
                p.increment(.rdx)
                p.ret()
                p.label("end")
            }
        ),
        (
            "memory and vectors", 9,
            { p in
                p.store(.rax, Memory(.rbx))
                p.op(0x01, reg: 0, Memory(.rbx, 4))
                p.op(0x0f, 0x10, reg: 1, Memory(.rbx), size: 4)
                p.raw(0x66, 0x0f, 0xd4, 0xc9)
                p.op(0x0f, 0x11, reg: 1, Memory(.rbx, 16), size: 4)
                p.raw(0x50, 0x5a, 0x9c, 0x5e)  // push rax; pop rdx; pushfq; pop rsi
            }
        ),
        // The string counts an iteration a time.
        (
            "string", 2 + 1 + 5,
            { p in
                p.move(.rcx, 5)
                p.raw(0x48, 0x89, 0xdf, 0xfc)  // mov rdi, rbx; cld
                p.raw(0xf3, 0xaa)
            }
        ),
        (
            "indirect jumps", 6,
            { p in
                p.move(.r14, addressOf: "there")
                p.move(.r15, addressOf: "function")
                p.jump(.r14)
                p.raw(0x0f, 0x0b)
                p.label("there")
                p.call(.r15)
                p.jump("end")
                p.label("function")
                p.ret()
                p.label("end")
            }
        ),
        ("cpuid, rdtsc", 3, { $0.raw(0x31, 0xc0, 0x0f, 0xa2, 0x0f, 0x31) }),
    ]

    @Test(arguments: programs.indices) func countsAndChangesNothing(_ index: Int) throws {
        let (name, count, emit) = Self.programs[index]
        var program = Program(at: Place.code)
        emit(&program)
        program.int(0x40)
        func registers(_ machine: Machine) -> [UInt64] {
            machine.vcpu.withState { state in (0..<16).map { state.gpr[$0] } + [state.ymm[4], state.ymm[5]] }
        }
        let free = try machine(program)
        _ = free.runToHandler(0x40)
        let stepped = try machine(program)
        stepped.vcpu.withState { $0.rflags |= RFlags.trap }
        let frame = stepped.runToHandler(0x40)
        // The jump that a program ends with is one of them.
        let steps = try stepped.get64(Place.data + 0x800)
        #expect(name == "calls" ? steps == count + 1 : steps == count, "\(name): \(steps)")
        #expect(try stepped.get64(frame + 16) & RFlags.trap != 0)
        if name != "cpuid, rdtsc" && name != "memory and vectors" {
            #expect(registers(stepped) == registers(free), "\(name)")
        }
        #expect(try stepped.get64(Place.data) == free.get64(Place.data), "\(name)")
    }

    // POPF sets TF: the trap comes after the instruction behind it. IRET does the same.
    @Test func trapBeginsOneInstructionLater() throws {
        var program = Program(at: Place.code)
        program.raw(0x9c, 0x81, 0x0c, 0x24, 0, 1, 0, 0, 0x9d)  // pushfq; or dword [rsp], TF; popfq
        for _ in 0..<5 { program.raw(0x90) }
        program.int(0x40)
        let machine = try machine(program)
        _ = machine.runToHandler(0x40)
        #expect(try machine.get64(Place.data + 0x800) == 5)
    }

    // In the middle of a loop that has been run often before.
    @Test func hotLoopIsStepped() throws {
        var program = Program(at: Place.code)
        program.move(.rcx, 2000)
        program.label("again")
        program.raw(0x48, 0x01, 0xc8, 0x48, 0x31, 0xc2)
        program.decrement(.rcx)
        program.jump(.ne, "again")
        program.raw(0xf4)
        let machine = try machine(program)
        _ = machine.runToHalt()
        machine.vcpu.withState { state in
            state.rip = program.address("again")
            state.gpr[Register.rcx] = 50
            state.rflags |= RFlags.trap
        }
        _ = machine.runToHalt()
        // HLT is one too, and its trap wakes it.
        #expect([200, 201].contains(try machine.get64(Place.data + 0x800)))
    }
}
