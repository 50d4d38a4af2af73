import EngineTesting
import Testing
import VirtualCPU
import X86

/// Values that control registers may not take (SDM 2B, "MOV—Move to/from
/// Control Registers"; SDM 3A, 2.5 and 9.8.5).
@Suite(.everyEngine) struct ControlRegisterTests {
    typealias Place = Machine.Place

    /// One MOV to a control register, or WRMSR to EFER.
    struct Change: CustomStringConvertible, Sendable {
        enum Register: Sendable { case cr0, cr3, cr4, cr8, efer }
        let register: Register
        let set: UInt64
        var clear: UInt64 = 0
        /// CR4 bits to be set beforehand.
        var with: UInt64 = 0
        let faults: Bool
        let description: String
    }

    static let long: [Change] = [
        Change(register: .cr0, set: 0, clear: CR0.protectedMode, faults: true, description: "PE cleared, PG set"),
        Change(register: .cr0, set: CR0.notWriteThrough, faults: true, description: "NW without CD"),
        Change(register: .cr0, set: CR0.notWriteThrough | CR0.cacheDisable, faults: false, description: "NW and CD"),
        Change(register: .cr0, set: 1 << 32, faults: true, description: "CR0 bit 32"),
        Change(register: .cr0, set: 1 << 6, faults: false, description: "CR0 bit 6 is ignored"),
        Change(register: .cr0, set: 0, clear: CR0.paging, faults: true, description: "PG cleared in 64-bit mode"),
        Change(
            register: .cr4, set: 0, clear: CR4.physicalAddressExtension, faults: true,
            description: "PAE cleared in long mode"),
        Change(register: .cr4, set: CR4.virtual8086Extensions, faults: true, description: "VME, which is not shown"),
        Change(register: .cr4, set: CR4.protectedModeVirtualInterrupts, faults: true, description: "PVI"),
        Change(register: .cr4, set: 1 << 12, faults: true, description: "LA57"),
        Change(register: .cr4, set: 1 << 13, faults: true, description: "VMXE"),
        Change(register: .cr4, set: 1 << 22, faults: true, description: "PKE"),
        Change(register: .cr4, set: 1 << 23, faults: true, description: "CET"),
        Change(register: .cr4, set: 1 << 32, faults: true, description: "CR4 bit 32"),
        Change(register: .cr4, set: CR4.pcid, faults: false, description: "PCIDE, CR3's low bits 0"),
        Change(
            register: .cr4, set: CR4.umip | CR4.fsGSBase | CR4.osXSave | CR4.globalPages, faults: false,
            description: "what is shown"),
        Change(register: .cr3, set: 1 << 63, faults: true, description: "bit 63 without PCIDs"),
        Change(register: .cr3, set: 1 << 63, with: CR4.pcid, faults: false, description: "bit 63 with PCIDs"),
        Change(register: .cr3, set: 1 << 62, with: CR4.pcid, faults: true, description: "bit 62"),
        Change(register: .cr3, set: 1 << 40, faults: true, description: "beyond MAXPHYADDR"),
        Change(register: .cr3, set: 0x18, faults: false, description: "PWT and PCD"),
        Change(register: .cr8, set: 15, faults: false, description: "TPR 15"),
        Change(register: .cr8, set: 16, faults: true, description: "TPR 16"),
        Change(
            register: .efer, set: 0, clear: EFER.longModeEnable, faults: true, description: "LME changed under paging"),
        Change(register: .efer, set: 1 << 1, faults: true, description: "EFER bit 1"),
        Change(register: .efer, set: 1 << 12, faults: true, description: "SVME"),
        Change(
            register: .efer, set: 0, clear: EFER.noExecuteEnable | EFER.systemCallEnable, faults: false,
            description: "NXE, SCE"),
    ]

    @Test(arguments: long)
    func longMode(_ change: Change) throws {
        let controller = FakeController()
        let machine = try Machine(controller)
        try machine.enterLongMode()
        let code: [UInt8] =
            switch change.register {
            case .cr0: [0x0f, 0x22, 0xc0]
            case .cr3: [0x0f, 0x22, 0xd8]
            case .cr4: [0x0f, 0x22, 0xe0]
            case .cr8: [0x44, 0x0f, 0x22, 0xc0]
            case .efer: [0x0f, 0x30]
            }
        try machine.put(code + [0xf4], at: Place.code)
        let old = machine.vcpu.withState { state in
            state.cr4 |= change.with
            let old: UInt64 =
                switch change.register {
                case .cr0: state.cr0
                case .cr3: state.cr3
                case .cr4: state.cr4
                case .cr8: 0
                case .efer: state.efer
                }
            let value = old & ~change.clear | change.set
            state.gpr[Register.rax] = change.register == .efer ? value & 0xffff_ffff : value
            state.gpr[Register.rdx] = value >> 32
            state.gpr[Register.rcx] = UInt64(MSR.efer)
            return old
        }
        if change.faults {
            let frame = machine.runToHandler(Vector.generalProtection)
            #expect(try machine.get64(frame) == 0)
            #expect(try machine.get64(frame + 8) == Place.code)
            let now = machine.vcpu.withState { ($0.cr0, $0.cr3, $0.cr4, $0.efer) }
            switch change.register {
            case .cr0: #expect(now.0 == old)
            case .cr3: #expect(now.1 == old)
            case .cr4: #expect(now.2 == old)
            case .cr8: #expect(controller.taskPriorityClass == 0)
            case .efer: #expect(now.3 == old)
            }
        } else {
            #expect(machine.runToHalt() == Place.code + UInt64(code.count) + 1)
            if change.register == .cr8 { #expect(controller.taskPriorityClass == 15) }
            // Bit 63 of CR3 is an order, and is not kept (SDM 3A, 4.10.4.1).
            if change.register == .cr3 { #expect(machine.vcpu.withState { $0.cr3 } >> 63 == 0) }
        }
    }

    // SDM 3A, 4.10.1: PCIDE needs IA-32e mode, and CR3's low 12 bits 0.
    @Test func pcidNeedsLongMode() throws {
        let machine = try Machine()
        try machine.enterProtectedMode()
        try machine.put([0x0f, 0x22, 0xe0, 0xf4], at: Place.code)
        machine.vcpu.withState { $0.gpr[Register.rax] = CR4.pcid }
        _ = machine.runToHandler(Vector.generalProtection)
        try machine.enterLongMode()
        machine.vcpu.withState { state in
            state.cr3 |= 0x18
            state.gpr[Register.rax] = state.cr4 | CR4.pcid
        }
        try machine.put([0x0f, 0x22, 0xe0, 0xf4], at: Place.code)
        _ = machine.runToHandler(Vector.generalProtection)
    }

    // SDM 3A, 9.8.5: paging with LME needs PAE, and CS.L clear until then.
    @Test func enteringLongMode() throws {
        for (pae, long, faults) in [(true, false, false), (false, false, true), (true, true, true)] {
            let machine = try Machine()
            try machine.enterLongMode()
            try machine.put([0x0f, 0x22, 0xc0, 0xf4], at: Place.code)  // mov cr0, eax; hlt
            machine.vcpu.withState { state in
                state.gpr[Register.rax] = state.cr0
                state.cr0 &= ~CR0.paging
                state.efer &= ~EFER.longModeActive
                if !pae { state.cr4 &= ~CR4.physicalAddressExtension }
                state.segments[SegmentName.cs] = Machine.flat(Machine.Selector.code, long ? 0xe09b : 0xc09b)
            }
            if faults {
                // Where the fault leads is open, as the IDT is a 64-bit one; but not on, and not into long mode.
                _ = machine.run()
                #expect(machine.vcpu.withState { $0.rip } != Place.code + 4)
                #expect(machine.vcpu.withState { $0.efer } & EFER.longModeActive == 0)
            } else {
                #expect(machine.runToHalt() == Place.code + 4)
                #expect(machine.vcpu.withState { $0.efer } & EFER.longModeActive != 0)
            }
        }
    }

    // CR1, CR5, CR7 and the rest do not exist: #UD.
    @Test func absentRegisters() throws {
        for code: [UInt8] in [[0x0f, 0x20, 0xc8], [0x0f, 0x22, 0xe8], [0x0f, 0x20, 0xf8], [0x44, 0x0f, 0x20, 0xc8]] {
            let machine = try Machine()
            try machine.enterLongMode()
            try machine.put(code, at: Place.code)
            _ = machine.runToHandler(Vector.invalidOpcode)
        }
    }
}
