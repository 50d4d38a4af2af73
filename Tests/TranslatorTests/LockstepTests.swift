import GuestMemory
import Testing
import Translator
import VirtualCPU
import X86

/// What `--engine lockstep` finds, and what it must not take for a find.
@Suite struct LockstepTests {
    /// Ring 0 in 64-bit mode, the low 16 MiB mapped to themselves; all else is a page fault, and that is death.
    private struct Guest {
        static let code: UInt64 = 0x10000, data: UInt64 = 0x20000, stack: UInt64 = 0x80000
        let memory: GuestMemory
        let vcpu: LockstepVCPU

        init(
            _ program: [UInt8], trials: Int? = nil,
            spoil: ((_ guest: [UInt8], _ host: UnsafeMutableRawBufferPointer) -> Void)? = nil
        ) throws {
            memory = try GuestMemory(byteCount: 16 << 20)
            vcpu = unsafe try LockstepVCPU(
                memory: memory, requests: VCPURequests(), interruptController: nil, trials: trials, spoil: spoil)
            try memory.write(program, at: GuestPhysicalAddress(Self.code))
            // PML4 at 0x1000, PDPT at 0x2000, page directory at 0x3000 with eight large pages.
            try memory.store(UInt64(0x2003), at: GuestPhysicalAddress(0x1000))
            try memory.store(UInt64(0x3003), at: GuestPhysicalAddress(0x2000))
            for number in 0..<UInt64(8) {
                try memory.store(number << 21 | 0x83, at: GuestPhysicalAddress(0x3000 + 8 * number))
            }
            vcpu.withState { state in
                state.cr0 = CR0.protectedMode | CR0.paging | CR0.extensionType | CR0.numericError | CR0.writeProtect
                state.cr3 = 0x1000
                state.cr4 = CR4.physicalAddressExtension | CR4.osFXSR | CR4.osXMMExceptions
                state.efer = EFER.longModeEnable | EFER.longModeActive | EFER.noExecuteEnable
                state.segments[SegmentName.cs] = Segment(selector: 8, limit: .max, attributes: 0xa09b)
                for name in [SegmentName.ss, SegmentName.ds, SegmentName.es] {
                    state.segments[name] = Segment(selector: 16, limit: .max, attributes: 0xc093)
                }
                state.rip = Self.code
                state.gpr[Register.rsp] = Self.stack
                state.gpr[Register.rdi] = Self.data
                state.gpr[Register.rax] = 0
                state.rflags = RFlags.alwaysOne
            }
        }

        var rax: UInt64 { vcpu.withState { $0.gpr[Register.rax] } }

        func reason() -> String? {
            if case .shutdown(let reason) = vcpu.run() { reason } else { nil }
        }

        var halts: Bool { if case .halt = vcpu.run() { true } else { false } }
    }

    /// Replaces the first `old` in the host code of blocks whose guest code begins with `start`.
    private func replacing(
        _ old: [UInt8], by new: [UInt8], inBlocksWith start: [UInt8]
    ) -> (_ guest: [UInt8], _ host: UnsafeMutableRawBufferPointer) -> Void {
        { guest, host in
            guard guest.starts(with: start),
                let place = host.indices.first(where: { unsafe host[$0...].starts(with: old) })
            else { return }
            for (number, byte) in new.enumerated() { unsafe host[place + number] = byte }
        }
    }

    /// mov ecx, 10; loop: add eax, 5; dec ecx; jnz loop; hlt
    private let sum: [UInt8] = [0xb9, 10, 0, 0, 0, 0x83, 0xc0, 5, 0xff, 0xc9, 0x75, 0xf9, 0xf4]

    @Test(arguments: [nil, 1, 4]) func goesOnWhereBothAgree(trials: Int?) throws {
        let guest = unsafe try Guest(sum, trials: trials)
        #expect(guest.halts)
        #expect(guest.rax == 50)
    }

    @Test func findsAWrongRegister() throws {
        let guest = unsafe try Guest(
            sum, trials: 4, spoil: replacing([0x83, 0xc0, 5], by: [0x83, 0xc0, 6], inBlocksWith: [0x83, 0xc0]))
        let reason = try #require(guest.reason())
        // The block before it, with the first turn of the loop, is another one.
        #expect(reason.contains("differ after the block at rip 0000000000010005, physical 0000000000010005"))
        #expect(reason.contains("* rax       0000000000000005  000000000000000a  000000000000000b"))
        #expect(reason.contains("  rcx       0000000000000009  0000000000000008  0000000000000008"))
        #expect(reason.contains("> 0000000000010005  83 c0 05                        add eax, 0x05"))
        #expect(reason.contains("add eax, 0x06"))
        // State and memory are those before the block.
        #expect(guest.rax == 5)
    }

    @Test func findsAWrongFlag() throws {
        // xor edx, edx; cmp eax, 1; setz dl; hlt – with the CMP, and so the flags behind the block, spoiled
        let guest = unsafe try Guest(
            [0x31, 0xd2, 0x83, 0xf8, 1, 0xf4],
            spoil: replacing([0x83, 0xf8, 1], by: [0x83, 0xf8, 0], inBlocksWith: [0x31, 0xd2]))
        #expect(try #require(guest.reason()).contains("* rflags"))
    }

    @Test func findsAWrongStore() throws {
        // mov dword [rdi], 0x11223344; hlt
        let guest = unsafe try Guest(
            [0xc7, 0x07, 0x44, 0x33, 0x22, 0x11, 0xf4],
            spoil: replacing([0x44, 0x33, 0x22, 0x11], by: [0x44, 0x33, 0x22, 0x10], inBlocksWith: [0xc7]))
        let reason = try #require(guest.reason())
        #expect(reason.contains("* 4 bytes at physical 0000000000020000"))
        #expect(reason.contains("interpreter: 44 33 22 11"))
        #expect(reason.contains("translator:  44 33 22 10"))
        #expect(try guest.memory.load(at: GuestPhysicalAddress(Guest.data), as: UInt32.self) == 0)
    }

    /// What must happen once happens once: the value is read, and the addition before it is not doubled.
    @Test func asksADeviceOnce() throws {
        // add dword [rdi], 1; rdtsc; in al, 0x60; movzx eax, al; add [rdi], eax; hlt
        let guest = unsafe try Guest([0x83, 0x07, 1, 0x0f, 0x31, 0xe4, 0x60, 0x0f, 0xb6, 0xc0, 0x01, 0x07, 0xf4])
        guard case .portRead(port: 0x60, bytes: 1) = guest.vcpu.run() else {
            Issue.record("the first exit is another")
            return
        }
        guest.vcpu.complete(7)
        #expect(guest.halts)
        #expect(try guest.memory.load(at: GuestPhysicalAddress(Guest.data), as: UInt32.self) == 8)
    }

    /// A store into the block that is running ends it, for both.
    @Test func followsCodeThatChangesItself() throws {
        // mov byte [rip+1], 7; mov eax, 1 – the 1 becomes a 7; hlt
        let guest = unsafe try Guest([0xc6, 0x05, 1, 0, 0, 0, 7, 0xb8, 1, 0, 0, 0, 0xf4])
        #expect(guest.halts)
        #expect(guest.rax == 7)
    }

    /// A fault in the middle, after a write, and at the end of a page that a store crosses.
    @Test func agreesOnFaults() throws {
        // add dword [rdi], 1; lea rsi, [rdi+0xffc]; mov [rsi], rax – across pages; mov rax, [0x40000000]
        let guest = unsafe try Guest([
            0x83, 0x07, 1, 0x48, 0x8d, 0xb7, 0xfc, 0x0f, 0, 0, 0x48, 0x89, 0x06, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0x40,
        ])
        let reason = try #require(guest.reason())
        #expect(reason.contains("triple fault"), "\(reason)")
        #expect(try guest.memory.load(at: GuestPhysicalAddress(Guest.data), as: UInt32.self) == 1)
    }
}
