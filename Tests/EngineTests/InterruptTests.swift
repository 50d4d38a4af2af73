import EngineTesting
import GuestMemory
import HostInterface
import Synchronization
import Testing
import VirtualCPU
import X86

private final class PostingTime: Sendable { let value = Atomic<UInt64>(0) }

/// When an interrupt is taken, and when not (SDM 3A, 6.8; SDM 2B, "STI").
@Suite(.everyEngine) struct InterruptTests {
    typealias Place = Machine.Place
    let controller = FakeController()
    let machine: Machine

    init() throws {
        machine = try Machine(controller)
        try machine.enterLongMode()
    }

    private func setInterrupts(_ on: Bool) {
        machine.vcpu.withState { if on { $0.rflags |= RFlags.interrupt } else { $0.rflags &= ~RFlags.interrupt } }
    }

    /// The RIP that the handler of `vector` is to return to.
    private func returnAddress(_ vector: UInt8, _ location: SourceLocation = #_sourceLocation) throws -> UInt64 {
        try machine.get64(machine.runToHandler(vector, location))
    }

    @Test func takenAtOnceWhereAllowed() throws {
        setInterrupts(true)
        controller.raise(0x50)
        #expect(try returnAddress(0x50) == Place.code)
        // An interrupt gate clears IF (SDM 3A, 6.12.1.2).
        #expect(machine.vcpu.withState { $0.rflags } & RFlags.interrupt == 0)
    }

    @Test func notTakenWithoutIF() throws {
        try machine.put([0x90, 0x90, 0xf4], at: Place.code)
        controller.raise(0x50)
        #expect(machine.runToHalt() == Place.code + 3)
        #expect(controller.count == 1)
    }

    // STI's effect is delayed by one instruction.
    @Test func shadowOfSTI() throws {
        try machine.put([0xfb, 0xff, 0xc0, 0xff, 0xc0, 0xf4], at: Place.code)  // sti; inc eax; inc eax; hlt
        controller.raise(0x50)
        #expect(try returnAddress(0x50) == Place.code + 3)
    }

    // STI; CLI: no window at all.
    @Test func noWindowBetweenSTIAndCLI() throws {
        try machine.put([0xfb, 0xfa, 0x90, 0xf4], at: Place.code)
        controller.raise(0x50)
        #expect(machine.runToHalt() == Place.code + 4)
    }

    // STI; NOP; CLI: a window, between NOP and CLI.
    @Test func windowOfOneNOP() throws {
        try machine.put([0xfb, 0x90, 0xfa, 0xf4], at: Place.code)
        controller.raise(0x50)
        #expect(try returnAddress(0x50) == Place.code + 2)
    }

    // STI; HLT: the shadow covers HLT, which then is woken.
    @Test func haltAfterSTIIsWoken() throws {
        try machine.put([0xfb, 0xf4, 0x90], at: Place.code)
        controller.raise(0x50)
        #expect(machine.runToHalt() == Place.code + 2)
        #expect(try returnAddress(0x50) == Place.code + 2)
    }

    // STI at the end of a page: the shadow reaches the next one.
    @Test func shadowAcrossPages() throws {
        let start = Place.code + 0xfff
        try machine.put([0xfb, 0x90, 0xf4], at: start)
        machine.vcpu.withState { $0.rip = start }
        controller.raise(0x50)
        #expect(try returnAddress(0x50) == start + 2)
    }

    // SDM 3A, 6.8.3: MOV SS holds interrupts back for one instruction more.
    @Test func shadowOfStackSegment() throws {
        try machine.put([0xfb, 0x8e, 0xd0, 0x90, 0x90, 0xf4], at: Place.code)  // sti; mov ss, eax; nop; nop; hlt
        machine.vcpu.withState { $0.gpr[Register.rax] = UInt64(Machine.Selector.data) }
        controller.raise(0x50)
        #expect(try returnAddress(0x50) == Place.code + 4)
    }

    // NMIs too. This one comes while MOV SS waits for a device.
    @Test func shadowOfStackSegmentForNMI() throws {
        try machine.put64(0xfee0_0000 | 7, at: 0x4000 + (Place.hole >> 12) * 8)
        try machine.put([0x8e, 0x14, 0x25, 0, 0, 0x10, 0, 0x90, 0x90, 0xf4], at: Place.code)  // mov ss, [0x100000]; nop; nop; hlt
        guard case .mmioRead(_, 2) = machine.run() else { Issue.record("no question"); return }
        machine.requests.post(.nonMaskableInterrupt)
        machine.vcpu.complete(UInt64(Machine.Selector.data))
        #expect(try returnAddress(Vector.nonMaskable) == Place.code + 8)
    }

    @Test func windowOfPOPF() throws {
        try machine.put([0x9d, 0x90, 0xf4], at: Place.code)  // popfq; nop; hlt
        try machine.put64(0x202, at: Place.stack - 8)
        machine.vcpu.withState { $0.gpr[Register.rsp] = Place.stack - 8 }
        controller.raise(0x50)
        // POPF has no shadow.
        #expect(try returnAddress(0x50) == Place.code + 1)
    }

    @Test func windowOfIRET() throws {
        for (n, value) in [
            Place.code + 0x100, UInt64(Machine.Selector.code), 0x202, Place.stack, UInt64(Machine.Selector.data),
        ].enumerated() {
            try machine.put64(value, at: Place.stack - 40 + UInt64(n) * 8)
        }
        try machine.put([0x48, 0xcf], at: Place.code)
        machine.vcpu.withState { $0.gpr[Register.rsp] = Place.stack - 40 }
        controller.raise(0x50)
        #expect(try returnAddress(0x50) == Place.code + 0x100)
    }

    // SDM 3A, 10.8.6: CR8 keeps out interrupts of its class and below.
    @Test func taskPriority() throws {
        // mov cr8, rax; nop; mov cr8, rcx; nop; hlt
        try machine.put([0x44, 0x0f, 0x22, 0xc0, 0x90, 0x44, 0x0f, 0x22, 0xc1, 0x90, 0xf4], at: Place.code)
        machine.vcpu.withState { state in
            state.gpr[Register.rax] = 5
            state.gpr[Register.rcx] = 4
        }
        controller.taskPriorityClass = 5
        controller.raise(0x50)
        setInterrupts(true)
        #expect(try returnAddress(0x50) == Place.code + 9)
        // MOV from CR8 gives the class back.
        try machine.put([0x44, 0x0f, 0x20, 0xc2, 0xf4], at: Place.code + 0x200)
        machine.vcpu.withState { $0.rip = Place.code + 0x200 }
        _ = machine.runToHalt()
        #expect(machine.vcpu.withState { $0.gpr[Register.rdx] } == 4)
    }

    // SDM 3A, 6.7.1: no second NMI before the IRET of the first, which needs no IF.
    @Test func nmiIsBlockedUntilIRET() throws {
        let handler = Place.code + 0x300
        try machine.setLongGate(Vector.nonMaskable, to: handler)
        // inc ebx; hlt; nop; iretq
        try machine.put([0xff, 0xc3, 0xf4, 0x90, 0x48, 0xcf], at: handler)
        try machine.put([0x90, 0xf4], at: Place.code)
        machine.vcpu.withState { $0.gpr[Register.rbx] = 0 }
        machine.requests.post(.nonMaskableInterrupt)
        #expect(machine.runToHalt() == handler + 3)
        machine.requests.post(.nonMaskableInterrupt)
        #expect(machine.runToHalt() == handler + 3)  // the second one, after IRET
        #expect(machine.vcpu.withState { $0.gpr[Register.rbx] } == 2)
        #expect(machine.runToHalt() == Place.code + 2)
    }

    // An IRET that faults unblocks NMIs all the same (SDM 3A, 6.7.1).
    @Test func faultingIRETUnblocks() throws {
        try machine.setLongGate(Vector.nonMaskable, to: Place.code + 0x300)
        // mov qword [rsp+8], 0 (a null CS); iretq
        try machine.put([0x48, 0xc7, 0x44, 0x24, 0x08, 0, 0, 0, 0, 0x48, 0xcf], at: Place.code + 0x300)
        machine.requests.post(.nonMaskableInterrupt)
        _ = machine.runToHandler(Vector.generalProtection)
        machine.requests.post(.nonMaskableInterrupt)
        // The HLT of #GP's handler is done with; the NMI comes, fails, and ends in the same handler.
        _ = machine.runToHandler(Vector.generalProtection)
    }

    // SDM 3A, 6.9, table 6-2: an NMI goes before an interrupt.
    @Test func nmiGoesFirst() throws {
        setInterrupts(true)
        controller.raise(0x50)
        machine.requests.post(.nonMaskableInterrupt)
        #expect(try returnAddress(Vector.nonMaskable) == Place.code)
    }

    // SDM 2B, "REP": interrupted between iterations with RSI, RDI, RCX telling how far it got.
    @Test func longStringIsInterrupted() throws {
        let machine = try Machine(controller)
        try machine.enterLongMode()
        let handler = Place.code + 0x300
        try machine.setLongGate(0x50, to: handler)
        // inc ebx; mov r8, rcx; mov r9, [rsp]; iretq
        try machine.put([0xff, 0xc3, 0x49, 0x89, 0xc8, 0x4c, 0x8b, 0x0c, 0x24, 0x48, 0xcf], at: handler)
        try machine.put([0xf3, 0xa4, 0xf4], at: Place.code)  // rep movsb; hlt
        let start: UInt64 = 0x20_0000, count: UInt64 = 0x3000_0000
        // From 2 MiB to 1 GiB, one page of data, again and again.
        for n in 1..<UInt64(512) { try machine.put64(0x70000 | 7, at: 0x3000 + n * 8) }
        for page in 0..<UInt64(512) { try machine.put64(0x80000 | 7, at: 0x70000 + page * 8) }
        // The thread may come too early or too late; once it will come in the middle.
        for attempt in 1...200 {
            machine.vcpu.withState { state in
                state.rip = Place.code
                state.rflags |= RFlags.interrupt
                state.gpr[Register.rbx] = 0
                state.gpr[Register.rsi] = start
                state.gpr[Register.rdi] = start
                state.gpr[Register.rcx] = count
            }
            let controller = self.controller
            let raiser = try HostThread(name: "raiser") {
                let start = HostClock.monotonicNanoseconds
                while HostClock.monotonicNanoseconds &- start < UInt64(attempt) * 20_000 {}
                controller.raise(0x50)
            }
            let rip = machine.runToHalt()
            raiser.join()
            let (taken, left, at, rsi) = machine.vcpu.withState {
                ($0.gpr[Register.rbx], $0.gpr[8], $0.gpr[9], $0.gpr[Register.rsi])
            }
            if rip != Place.code + 3 || taken > 1 { Issue.record("RIP \(rip), taken \(taken)"); return }
            #expect(rsi == start + count)
            if taken == 0 {
                // Too late: it is still waiting.
                _ = controller.acknowledgeInterrupt()
            } else if left < count {
                #expect(left > 0 && at == Place.code)
                return
            }
        }
        Issue.record("never in the middle")
    }

    // `.stop` ends whatever the guest does, soon.
    @Test(
        arguments: [
            [0xeb, 0xfe],  // jmp $
            [0xff, 0xc0, 0x75, 0xfc, 0xeb, 0xfa],  // L: inc eax; jnz L; jmp L
            [0xff, 0xe3],  // jmp rbx
            [0xe8, 0xfb, 0xff, 0xff, 0xff],  // call $ (down to the stack's end, where #PF loops)
            [0xe2, 0xfe, 0xeb, 0xfc],  // loop $
            [0xe8, 0x02, 0x00, 0x00, 0x00, 0xeb, 0xf9, 0xc3],  // L: call F; jmp L; F: ret
            [0x48, 0x11, 0xc8, 0x71, 0xfb, 0xeb, 0xf9],  // L: adc rax, rcx; jno L; jmp L
            [0x53, 0xc3],  // push rbx; ret
            [0x48, 0x01, 0x0f, 0x48, 0x11, 0x06, 0x72, 0xf8, 0xeb, 0xf6],  // L: add [rdi], rcx; adc [rsi], rax; jc L; jmp L
            [0xf3, 0xaa, 0xeb, 0xfc],  // rep stosb
            [0xf3, 0xa4, 0xeb, 0xfc],  // rep movsb
            [0xf3, 0x48, 0xa5, 0xeb, 0xfb],  // rep movsq
            [0xf3, 0xa6, 0xeb, 0xfc],  // repe cmpsb
            [0xf2, 0xae, 0xeb, 0xfc],  // repne scasb
            [0x9d, 0x9c, 0xeb, 0xfc],  // popf; pushf
            [0xfb, 0xfa, 0xeb, 0xfc],  // sti; cli
            [0xcd, 0x40],  // int 0x40, whose handler is this
        ] as [[UInt8]])
    func stopEndsEndlessLoops(_ code: [UInt8]) throws {
        try machine.setLongGate(0x40, to: Place.code)
        for vector in [Vector.pageFault, Vector.stackFault, Vector.generalProtection, Vector.doubleFault] {
            try machine.setLongGate(vector, ist: 1, to: Place.code)
        }
        try machine.put(code, at: Place.code)
        for round in 0..<5 {
            machine.vcpu.withState { state in
                state.rip = Place.code
                state.gpr[Register.rbx] = Place.code
                state.gpr[Register.rcx] = .max >> 1
                state.gpr[Register.rax] = round == 0 ? 0x7f : 0
                state.gpr[Register.rdi] = Place.data
                state.gpr[Register.rsi] = Place.data
                state.gpr[Register.rsp] = Place.stack - 64
            }
            let requests = machine.requests
            let posted = PostingTime()
            let stopper = try HostThread(name: "stopper") {
                let start = HostClock.monotonicNanoseconds
                while HostClock.monotonicNanoseconds &- start < 2_000_000 {}
                posted.value.store(HostClock.monotonicNanoseconds, ordering: .releasing)
                requests.post(.stop)
            }
            let exit = machine.vcpu.run()
            let late = HostClock.monotonicNanoseconds &- posted.value.load(ordering: .acquiring)
            stopper.join()
            guard case .stopped = exit else { Issue.record("\(exit)"); return }
            #expect(late < 200_000_000, "\(late / 1_000_000) ms")
        }
    }

    // Ten thousand interrupts from another thread into STI; HLT, none lost, none doubled.
    @Test func noWakeUpIsLost() throws {
        let handler = Place.code + 0x300
        try machine.setLongGate(0x50, to: handler)
        try machine.put([0x48, 0xff, 0x04, 0x25, 0, 0, 3, 0, 0x48, 0xcf], at: handler)  // inc qword [0x30000]; iretq
        try machine.put([0xfb, 0xf4, 0xfa, 0xeb, 0xfb], at: Place.code)  // L: sti; hlt; cli; jmp L
        let total: UInt64 = 10_000
        let (controller, memory) = (self.controller, machine.memory)
        func seen() -> UInt64 { (try? memory.load(at: GuestPhysicalAddress(Place.data), as: UInt64.self)) ?? 0 }
        let poster = try HostThread(name: "poster") {
            for n in 1...total {
                controller.raise(0x50)
                // Now and then wait until all have come, so that the CPU does sleep.
                if n % 8 == 0 || n == total {
                    let deadline = HostClock.monotonicNanoseconds &+ 10_000_000_000
                    while (try? memory.load(at: GuestPhysicalAddress(Place.data), as: UInt64.self)) ?? 0 < n,
                        HostClock.monotonicNanoseconds < deadline
                    {}
                }
            }
            controller.requests.post(.stop)
        }
        loop: while true {
            switch machine.vcpu.run() {
            case .halt: controller.requests.wait(for: [.interrupt, .stop])
            case .stopped: break loop
            case let exit: Issue.record("\(exit)"); break loop
            }
        }
        poster.join()
        #expect(seen() == total)
    }
}
