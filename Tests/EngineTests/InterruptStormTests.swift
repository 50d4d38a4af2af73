import EngineTesting
import GuestMemory
import HostInterface
import Synchronization
import Testing
import VirtualCPU
import X86

/// Interrupts from another thread, as many as will go, while the Guest
/// computes: nothing that it computes may change, and every one must be taken.
@Suite(.everyEngine, .serialized) struct InterruptStormTests {
    typealias Place = Machine.Place
    private static let iterations: UInt64 = 4_000_000

    /// A loop that adds up something in RAX, RCX times, with RBX at data, and
    /// leaves a checksum there; all registers and flags alive.
    struct Work: Sendable, CustomTestStringConvertible {
        let testDescription: String
        let emit: @Sendable (inout Program) -> Void
    }

    static let work: [Work] = [
        Work(testDescription: "arithmetic") { p in
            p.label("again")
            p.raw(0x48, 0x01, 0xc8, 0x48, 0xd1, 0xc0, 0x48, 0x31, 0xd0, 0x48, 0x83, 0xd2, 7)
            // add rax, rcx; rol rax, 1; xor rax, rdx; adc rdx, 7
            p.decrement(.rcx)
            p.jump(.ne, "again")
        },
        Work(testDescription: "flags across a jump") { p in
            p.label("again")
            p.raw(0x48, 0x01, 0xc8)  // add rax, rcx
            p.jump("on")
            p.label("on")
            p.raw(0x48, 0x11, 0xc2, 0x48, 0x11, 0xd0)  // adc rdx, rax; adc rax, rdx
            p.decrement(.rcx)
            p.jump(.ne, "again")
        },
        Work(testDescription: "calls and returns") { p in
            p.label("again")
            p.call("function")
            p.decrement(.rcx)
            p.jump(.ne, "again")
            p.jump("end")
            p.label("function")
            p.raw(0x50, 0x48, 0x01, 0xc8, 0x5a, 0x48, 0x31, 0xd0, 0xc3)  // push rax; add rax, rcx; pop rdx; xor rax, rdx; ret
            p.label("end")
        },
        Work(testDescription: "memory") { p in
            p.label("again")
            p.op(0x01, reg: 1, Memory(.rbx))  // add [rbx], rcx
            p.op(0x11, reg: 0, Memory(.rbx, 8))  // adc [rbx+8], rax
            p.op(0x03, reg: 0, Memory(.rbx))
            p.op(0x0f, 0xc1, reg: 0, Memory(.rbx, 16), prefix: [0xf0])  // lock xadd
            p.decrement(.rcx)
            p.jump(.ne, "again")
        },
        Work(testDescription: "strings") { p in
            p.raw(0x49, 0x89, 0xc8, 0x49, 0xc1, 0xe8, 1)  // mov r8, rcx; shr r8, 1
            p.label("again")
            p.raw(0x48, 0x89, 0xde, 0x48, 0x8d, 0x7b, 0x20)  // mov rsi, rbx; lea rdi, [rbx+0x20]
            p.raw(0xb9, 24, 0, 0, 0, 0xf3, 0xa4, 0x48, 0x01, 0x03)  // mov ecx, 24; rep movsb; add [rbx], rax
            p.op(0x03, reg: 0, Memory(.rbx, 0x20))
            p.raw(0x48, 0xff, 0xc0)
            p.decrement(.r8)
            p.jump(.ne, "again")
        },
        Work(testDescription: "indirect jumps") { p in
            p.move(.rdi, addressOf: "table")
            p.label("again")
            p.raw(0x89, 0xce, 0x83, 0xe6, 0x07, 0x8d, 0x34, 0x76)  // mov esi, ecx; and esi, 7; lea esi, [rsi+rsi·2]
            p.raw(0x8d, 0x34, 0x76, 0x48, 0x01, 0xfe, 0xff, 0xe6)  // lea esi, [rsi+rsi·2]; add rsi, rdi; jmp rsi
            p.label("table")
            for n in UInt8(0)..<8 { p.raw(0x48, 0x83, 0xc0, n, 0xe9, 8 * 9 - 9 - n * 9, 0, 0, 0) }
            p.label("joined")
            p.raw(0x48, 0xd1, 0xc0)
            p.decrement(.rcx)
            p.jump(.ne, "again")
        },
        Work(testDescription: "vectors") { p in
            p.label("again")
            p.raw(0x66, 0x48, 0x0f, 0x6e, 0xc1, 0x66, 0x0f, 0xd4, 0xc8, 0x66, 0x0f, 0xef, 0xd1)
            // movq xmm0, rcx; paddq xmm1, xmm0; pxor xmm2, xmm1
            p.decrement(.rcx)
            p.jump(.ne, "again")
            p.raw(0x66, 0x48, 0x0f, 0x7e, 0xd0)  // movq rax, xmm2
        },
    ]

    private func program(_ work: Work) -> Program {
        var program = Program(at: Place.code)
        work.emit(&program)
        program.label("done")
        program.store(.rax, Memory(.rbx, 0x40))
        program.raw(0xfa, 0xf4)  // cli; hlt
        return program
    }

    private func prepare(_ controller: FakeController, _ work: Work) throws -> (Machine, Program) {
        let machine = try Machine(controller)
        try machine.enterLongMode()
        let program = program(work)
        try machine.put(program)
        // Ruins what it may: flags, a register that it saves; counts at data + 0x800.
        var handler = Program(at: Place.code + 0x800)
        handler.raw(0x50, 0x48, 0xff, 0x04, 0x25)  // push rax; inc qword [count]
        handler.raw((0..<4).map { UInt8(truncatingIfNeeded: (Place.data + 0x800) >> ($0 * 8)) })
        handler.raw(0x48, 0x31, 0xc0, 0xf9, 0x58, 0x48, 0xcf)  // xor rax, rax; stc; pop rax; iretq
        try machine.put(handler)
        try machine.setLongGate(0x50, to: handler.origin)
        machine.vcpu.withState { state in
            state.cr4 |= CR4.osFXSR
            state.rflags |= RFlags.interrupt
            for register in 0..<16 where register != Register.rsp {
                state.gpr[register] = UInt64(register) &* 0x1234_5679
            }
            state.gpr[Register.rcx] = Self.iterations
            state.gpr[Register.rbx] = Place.data
        }
        return (machine, program)
    }

    private func registers(_ machine: Machine) -> [UInt64] {
        machine.vcpu.withState { state in
            (0..<16).map { state.gpr[$0] } + (0..<16).map { state.ymm[$0] } + [state.rflags & RFlags.arithmetic]
        }
    }

    @Test(arguments: work) func nothingChangesAndNoneIsLost(_ work: Work) throws {
        let (quiet, program) = try prepare(FakeController(), work)
        #expect(quiet.runToHalt() == program.here)
        let expected = registers(quiet), sum = try quiet.get64(Place.data + 0x40)

        let controller = FakeController()
        let (machine, _) = try prepare(controller, work)
        let raised = RaisedCount()
        let storm = try HostThread(name: "storm") {
            // A few at a time, and some room between for the Guest: one that has an interrupt
            // waiting at every IRET never gets on.
            while !raised.isOver.load(ordering: .acquiring) {
                let start = HostClock.monotonicNanoseconds
                for _ in 0..<3 { controller.raise(0x50) }
                raised.count.wrappingAdd(3, ordering: .releasing)
                while controller.count > 0 || HostClock.monotonicNanoseconds &- start < 20_000 {
                    if raised.isOver.load(ordering: .acquiring) { break }
                }
            }
        }
        while raised.count.load(ordering: .acquiring) == 0 {}
        let rip = machine.runToHalt()
        raised.isOver.store(true, ordering: .releasing)
        storm.join()
        #expect(rip == program.here)
        #expect(registers(machine) == expected)
        #expect(try machine.get64(Place.data + 0x40) == sum)
        let taken = try machine.get64(Place.data + 0x800)
        #expect(taken > 0, "not much of a storm")
        #expect(taken + UInt64(controller.count) == raised.count.load(ordering: .relaxed))
    }

    private final class RaisedCount: Sendable {
        let count = Atomic<UInt64>(0)
        let isOver = Atomic<Bool>(false)
    }
}
