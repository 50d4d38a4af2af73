import GuestMemory
import Interpreter
import Testing
import VirtualCPU
import X86

@Suite struct IntegerTests {
    /// Sums 1…1000 in a loop, through a call and the stack.
    @Test func loopsCallsAndReturns() throws {
        let guest = try LongModeGuest([
            0x31, 0xc0,  // xor eax, eax
            0xb9, 0xe8, 0x03, 0x00, 0x00,  // mov ecx, 1000
            0xe8, 0x05, 0x00, 0x00, 0x00,  // call +5
            0xff, 0xc9,  // dec ecx
            0x75, 0xf7,  // jnz -9
            0xf4,  // hlt
            0x51,  // push rcx
            0x01, 0xc8,  // add eax, ecx
            0x59,  // pop rcx
            0xc3,  // ret
        ])
        guard case .halt = guest.vcpu.run() else {
            Issue.record("no halt: \(guest.vcpu.describe())")
            return
        }
        #expect(guest.register(Register.rax) == 500_500)
        #expect(guest.register(Register.rsp) == LongModeGuest.stack)
    }

    /// SDM 3A, 11.6: a store into the instruction stream ahead is seen.
    @Test func seesCodeItChanged() throws {
        let guest = try LongModeGuest([
            0xc6, 0x05, 0x02, 0x00, 0x00, 0x00, 0x07,  // mov byte [rip+2], 7
            0x90, 0xb0, 0x01,  // nop; mov al, 1 (the 1 becomes 7)
            0xf4,
        ])
        guard case .halt = guest.vcpu.run() else { Issue.record("no halt"); return }
        #expect(guest.register(Register.rax) & 0xff == 7)
    }

    /// An answer arrives in the instruction that asked (`VCPU.complete`).
    @Test func asksForPortsAndMemoryMappedRegisters() throws {
        let guest = try LongModeGuest([
            0xe4, 0x60,  // in al, 0x60
            0xbb, 0x00, 0x00, 0xd0, 0x01,  // mov ebx, 0x1d00000 (no RAM: 16 MiB end)
            0x03, 0x03,  // add eax, [rbx]
            0x83, 0x03, 0x05,  // add dword [rbx], 5
            0xf4,
        ])
        guard case .portRead(0x60, 1) = guest.vcpu.run() else { Issue.record("no port read"); return }
        guest.vcpu.complete(0x11)
        let device = GuestPhysicalAddress(0x1d00000)
        guard case .mmioRead(device, 4) = guest.vcpu.run() else { Issue.record("no read"); return }
        guest.vcpu.complete(0x100)
        guard case .mmioRead(device, 4) = guest.vcpu.run() else { Issue.record("no second read"); return }
        guest.vcpu.complete(0x200)
        guard case .mmioWrite(device, 4, let value) = guest.vcpu.run() else { Issue.record("no write"); return }
        #expect(value & 0xffff_ffff == 0x205)
        guest.vcpu.complete(0)
        guard case .halt = guest.vcpu.run() else { Issue.record("no halt"); return }
        #expect(guest.register(Register.rax) == 0x111)
    }
}
