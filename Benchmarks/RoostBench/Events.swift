import HostInterface
import Interpreter
import VirtualCPU
import X86

/// What an engine does now and then, and what each costs: a loop around the
/// event, less the same loop without it.
enum Events {
    struct Event {
        let name: String
        /// What is timed, RBX times.
        let body: [UInt8]
        var handler: [UInt8] = [0xf4]
        var isUser = false
    }

    static let all = [
        // mov rax, [rdx]; add rdx, 4096; cmp rdx, r8; cmovae rdx, r9. More pages than the TLB holds.
        Event(
            name: "tlb-miss",
            body: [0x48, 0x8b, 0x02, 0x48, 0x81, 0xc2, 0x00, 0x10, 0, 0, 0x4c, 0x39, 0xc2, 0x49, 0x0f, 0x43, 0xd1]),
        // ud2; the handler: add qword [rsp], 2; iretq.
        Event(name: "exception", body: [0x0f, 0x0b], handler: [0x48, 0x83, 0x04, 0x24, 0x02, 0x48, 0xcf]),
        // syscall; the handler: test rbx, rbx; jz to the HLT; sysretq.
        Event(name: "syscall", body: [0x0f, 0x05], isUser: true),
        // mov eax, [r10], in the hole.
        Event(name: "mmio-exit", body: [0x41, 0x8b, 0x02]),
        // in al, 0x80
        Event(name: "port-exit", body: [0xe4, 0x80]),
        // addsd xmm0, xmm1; addps xmm0, [r11]; each runs in a thunk.
        Event(name: "vector-register", body: [0xf2, 0x0f, 0x58, 0xc1]),
        Event(name: "vector-memory", body: [0x41, 0x0f, 0x58, 0x03]),
        // push rax; pop rax
        Event(name: "push-pop", body: [0x50, 0x58]),
        // call F; jmp over F; F: ret
        Event(name: "call-return", body: [0xe8, 0x02, 0, 0, 0, 0xeb, 0x01, 0xc3]),
    ]

    static func measure() throws {
        for event in all {
            let empty = try nanoseconds(Event(name: "", body: [], isUser: event.isUser))
            print("event \(event.name) \(max(0, try nanoseconds(event) - empty))")
        }
        print("event decode \(try decode())")
    }

    /// L: body; dec rbx; jnz L; then HLT, to which only ring 0 has a right.
    private static func nanoseconds(_ event: Event) throws -> Double {
        var program = event.body + [0x48, 0xff, 0xcb]
        let back = -(program.count + 6)
        program += [0x0f, 0x85] + withBytes(of: Int32(back))
        program += event.isUser ? [0x0f, 0x05] : [0xf4]
        let guest = try BareGuest(program)
        try guest.put(event.handler, at: BareGuest.handler)
        try guest.put([0x48, 0x85, 0xdb, 0x74, 0x03, 0x48, 0x0f, 0x07, 0xf4], at: BareGuest.systemCall)
        guest.vcpu.withState { state in
            state.gpr[Register.rdx] = BareGuest.smallPages
            state.gpr[8] = BareGuest.smallPages + BareGuest.smallPageCount * 4096
            state.gpr[9] = BareGuest.smallPages
            state.gpr[10] = 0xd000_0000
            state.gpr[11] = BareGuest.sharedPage
        }
        var rounds: UInt64 = 1000
        while true {
            if event.isUser { guest.enterUser() } else { guest.enterKernel() }
            guest.start(rounds: rounds)
            let elapsed = try guest.runToHalt()
            if elapsed > 50_000_000 { return Double(elapsed) / Double(rounds) }
            rounds *= 4
        }
    }

    /// A long run of common instructions, each met for the first time: the
    /// first pass less the second, for one instruction.
    private static func decode() throws -> Double {
        let pattern: [[UInt8]] = [
            [0x48, 0x89, 0xc8], [0x48, 0x8b, 0x44, 0x24, 0x08], [0x48, 0x83, 0xc0, 0x10], [0x85, 0xc0], [0x74, 0x00],
            [0x0f, 0xb6, 0xc0], [0x48, 0x8d, 0x44, 0x88, 0x20], [0x31, 0xd2], [0x48, 0xc1, 0xe0, 0x03], [0x75, 0x00],
        ]
        let repetitions = 10_000
        let guest = try BareGuest(Array(repeatElement(pattern.joined(), count: repetitions).joined()) + [0xf4])
        guest.start(rounds: 0)
        let first = try guest.runToHalt()
        guest.start(rounds: 0)
        let second = try guest.runToHalt()
        return Double(first) - Double(second) < 0
            ? 0 : (Double(first) - Double(second)) / Double(repetitions * pattern.count)
    }

    private static func withBytes(of value: Int32) -> [UInt8] {
        (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * Int32($0))) }
    }
}
