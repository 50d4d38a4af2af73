import EngineTesting
import Testing
import VirtualCPU
import X86

/// What Intel's and AMD's CPUs do differently: a Guest gets what its vendor's manual, or silicon, has.
@Suite(.everyEngine) struct VendorTests {
    typealias Place = Machine.Place

    /// 64-bit user code in long mode, RBX and RDI at the data.
    private func machine(_ isIntel: Bool, _ code: [UInt8]) throws -> Machine {
        let machine = try Machine(features: .forThisHost.followingRules(ofIntel: isIntel))
        try machine.enterLongMode()
        machine.enterUser(long: true)
        try machine.put(code + [0xcd, 0x40], at: Place.user)
        machine.vcpu.withState { state in
            state.cr0 |= CR0.alignmentMask
            state.cr4 |= CR4.osFXSR
            state.gpr[Register.rbx] = Place.data
            state.gpr[Register.rdi] = Place.data
        }
        return machine
    }

    // SDM 2B, "PREFETCHW" names no register form; APM 3, "PREFETCHlevel": #UD.
    @Test(arguments: [true, false]) func prefetchOfARegister(isIntel: Bool) throws {
        let machine = try machine(isIntel, [0x0f, 0x0d, 0xca])
        _ = machine.runToHandler(isIntel ? 0x40 : Vector.invalidOpcode)
    }

    @Test(arguments: [true, false]) func pauseOfR8(isIntel: Bool) throws {
        let machine = try machine(isIntel, [0xf3, 0x49, 0x90])
        machine.vcpu.withState { $0.gpr[8] = 8 }
        _ = machine.runToHandler(0x40)
        #expect(machine.vcpu.withState { $0.gpr[8] == 8 } == isIntel)
    }

    // SDM 2A, "SYSENTER"; APM 3, "SYSENTER": not in long mode.
    @Test(arguments: [true, false]) func fastEntryInLongMode(isIntel: Bool) throws {
        let machine = try machine(isIntel, [0x0f, 0x34])
        _ = machine.runToHandler(isIntel ? Vector.generalProtection : Vector.invalidOpcode)
    }

    // movups xmm0, [rbx] with AC, at half of the way.
    @Test(arguments: [true, false]) func alignmentOfVectors(isIntel: Bool) throws {
        let machine = try machine(isIntel, [0x0f, 0x10, 0x03])
        machine.vcpu.withState { state in
            state.gpr[Register.rbx] += 8
            state.rflags |= RFlags.alignmentCheck
        }
        _ = machine.runToHandler(isIntel ? 0x40 : Vector.alignmentCheck)
    }

    // A store of an empty register, which is a stack underflow, and unmasked, to where no page is (SDM 1, 8.5).
    @Test(arguments: [true, false]) func storeOfAnExceptionToNowhere(isIntel: Bool) throws {
        let machine = try machine(isIntel, [0xdf, 0x1b])  // fistp word [rbx]
        machine.vcpu.withState { state in
            state.gpr[Register.rbx] = Place.hole
            state.x87[0] &= ~0x3f
        }
        _ = machine.runToHandler(isIntel ? 0x40 : Vector.pageFault)
    }

    // repne scasb over the end of what is mapped: SDM 2B, "REP".
    @Test(arguments: [true, false]) func flagsOfAScanThatFaults(isIntel: Bool) throws {
        let machine = try machine(isIntel, [0xf2, 0xae])
        machine.vcpu.withState { state in
            state.gpr[Register.rdi] = Place.hole - 2
            state.gpr[Register.rcx] = 10
            state.gpr[Register.rax] = 1
            state.rflags |= 0x80
        }
        let frame = machine.runToHandler(Vector.pageFault)
        // 1 - 0: neither sign nor zero.
        #expect(try machine.get64(frame + 24) & 0x80 == (isIntel ? 0x80 : 0))
    }

    private func leaf(_ number: UInt32, _ subleaf: UInt32 = 0, isIntel: Bool) -> CPUFeatures.Leaf {
        CPUFeatures.forThisHost.followingRules(ofIntel: isIntel)
            .leaf(number, subleaf, cr4: 0, xcr0: 1, tscFrequency: 1_000_000_000)
    }

    // What lets a kernel do without guards against speculation; SDM 2A and APM 3, "CPUID".
    @Test func nothingToGuardAgainst() {
        #expect(leaf(7, isIntel: true).eax == 2)
        #expect(leaf(7, 2, isIntel: true).edx == 1 << 4)  // BHI_CTRL
        #expect(leaf(0x8000_0000, isIntel: true).eax == 0x8000_0008)
        #expect(leaf(0x8000_0000, isIntel: false).eax == 0x8000_0021)
        #expect(leaf(0x8000_0021, isIntel: false).eax & 0x2000_0100 == 0x2000_0100)  // SRSO_NO, automatic IBRS
        #expect(leaf(0x8000_0021, isIntel: false).ecx == 6)  // TSA_SQ_NO, TSA_L1_NO
        #expect(leaf(0x8000_0008, isIntel: false).ebx == 0x2400_0004)  // BTC_NO, SSB_NO, RstrFpErrPtrs
        #expect(leaf(7, 2, isIntel: false).edx == 0)
        #expect(leaf(0x8000_0021, isIntel: true).eax == 0)
    }

    /// Whether the kernel may write the register.
    private func accepts(_ number: UInt32, _ value: UInt64, isIntel: Bool) throws -> Bool {
        let machine = try Machine(features: .forThisHost.followingRules(ofIntel: isIntel))
        try machine.enterLongMode()
        try machine.put([0x0f, 0x30, 0xf4], at: Place.code)  // wrmsr; hlt
        machine.vcpu.withState { state in
            state.gpr[Register.rcx] = UInt64(number)
            state.gpr[Register.rax] = value & 0xffff_ffff
            state.gpr[Register.rdx] = value >> 32
        }
        return machine.runToHalt() == Place.code + 3
    }

    // Each vendor's controls of speculation are taken, and the other's refused.
    @Test(arguments: [true, false]) func speculationControls(isIntel: Bool) throws {
        let efer = EFER.longModeEnable | EFER.longModeActive
        #expect(try accepts(MSR.speculationControl, 1, isIntel: isIntel))
        #expect(try accepts(MSR.speculationControl, 1 << 10, isIntel: isIntel) == isIntel)
        #expect(try accepts(MSR.efer, efer | EFER.automaticIBRS, isIntel: isIntel) == !isIntel)
        #expect(try !accepts(MSR.efer, efer | 1 << 20, isIntel: isIntel))
    }

    // movsxd ax, dword [rbx], the second half of which is in the hole.
    @Test(arguments: [true, false]) func narrowMOVSXD(isIntel: Bool) throws {
        let machine = try machine(isIntel, [0x66, 0x63, 0x03])
        machine.vcpu.withState { $0.gpr[Register.rbx] = Place.hole - 2 }
        _ = machine.runToHandler(isIntel ? 0x40 : Vector.pageFault)
    }
}
