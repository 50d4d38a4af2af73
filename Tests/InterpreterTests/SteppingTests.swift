import EngineTesting
import GuestMemory
import Interpreter
import Testing
import VirtualCPU
import X86

/// `run(atMost:)`: stops where it is told, and counts what was done.
@Suite struct SteppingTests {
    // mov ecx, 10; L: dec ecx; jnz L; hlt: 1 + 10·2 + 1 instructions.
    let loop: [UInt8] = [0xb9, 0x0a, 0x00, 0x00, 0x00, 0xff, 0xc9, 0x75, 0xfc, 0xf4]

    @Test func countsUpToTheExit() throws {
        let guest = try LongModeGuest(loop)
        let (exit, executed) = guest.vcpu.run(atMost: 1000)
        guard case .halt = exit else { Issue.record("no halt: \(guest.vcpu.describe())"); return }
        #expect(executed == 22)
    }

    @Test(arguments: [UInt64(0), 1, 2, 3, 20, 21])
    func stopsAtTheLimit(_ limit: UInt64) throws {
        let guest = try LongModeGuest(loop)
        let (exit, executed) = guest.vcpu.run(atMost: limit)
        #expect(exit == nil && executed == limit)
        if limit > 0 { #expect(guest.register(Register.rcx) == 10 - limit / 2) }
        // The rest, at full speed.
        guard case .halt = guest.vcpu.run() else { Issue.record("no halt: \(guest.vcpu.describe())"); return }
        #expect(guest.register(Register.rcx) == 0)
    }

    /// An instruction that asks is done when it is answered, and counted once.
    @Test func countsAnInstructionThatAsksOnce() throws {
        let guest = try LongModeGuest([0xe4, 0x60, 0xf4])  // in al, 0x60; hlt
        let first = guest.vcpu.run(atMost: 10)
        guard case .portRead(port: 0x60, bytes: 1) = first.exit else { Issue.record("no read"); return }
        #expect(first.executed == 0)
        guest.vcpu.complete(0x5a)
        let second = guest.vcpu.run(atMost: 1)
        #expect(second.exit == nil && second.executed == 1)
        #expect(guest.register(Register.rax) & 0xff == 0x5a)
    }

    /// A fault is delivered, and does not count: the handler's instructions do.
    @Test func faultsDoNotCount() throws {
        let machine = try Machine()
        try machine.enterLongMode()
        try machine.put([0x0f, 0x0b], at: Machine.Place.code)  // ud2
        let vcpu = try #require(machine.vcpu as? InterpreterVCPU)
        let (exit, executed) = vcpu.run(atMost: 100)
        guard case .halt = exit else { Issue.record("no halt: \(vcpu.describe())"); return }
        #expect(executed == 1)  // the handler's HLT
    }
}
