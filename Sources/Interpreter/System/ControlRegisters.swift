internal import CZydis
internal import GuestMemory
internal import VirtualCPU
internal import X86

// MOV to and from CR and DR, LMSW, SMSW, CLTS, XSETBV (SDM 3A, 2.5 and 2.6;
// SDM 2B, "MOV—Move to/from Control Registers").

extension LoweringTable {
    mutating func addControlRegisters() {
        unsafe self[ZYDIS_MNEMONIC_CLTS] = { _ in unsafe Handlers.clts }
        unsafe self[ZYDIS_MNEMONIC_LMSW] = { lowering in
            lowering.endsBlock = true
            lowering.setSource(0)
            return unsafe Handlers.lmsw
        }
        unsafe self[ZYDIS_MNEMONIC_SMSW] = { lowering in
            lowering.setDestination(0)
            return unsafe Handlers.smsw
        }
        unsafe self[ZYDIS_MNEMONIC_XSETBV] = { lowering in
            lowering.endsBlock = true
            return unsafe Handlers.xsetbv
        }
        unsafe self[ZYDIS_MNEMONIC_XGETBV] = { _ in unsafe Handlers.xgetbv }
    }
}

extension Lowering {
    /// MOV to and from segment, control and debug registers.
    mutating func moveSystem() -> Handler? {
        for n in 0..<2 where isRegister(n) {
            let value = register(n).rawValue
            if Lowering.segment(register(n)) != nil { return unsafe moveSegment() }
            let isControl = value >= ZYDIS_REGISTER_CR0.rawValue && value <= ZYDIS_REGISTER_CR15.rawValue
            let isDebug = value >= ZYDIS_REGISTER_DR0.rawValue && value <= ZYDIS_REGISTER_DR15.rawValue
            guard isControl || isDebug, let general = gpr(1 - n) else { continue }
            unsafe record.r1 = general
            unsafe record.operandBytes = isLong ? 8 : 4
            unsafe record.small = UInt8(
                truncatingIfNeeded: value &- (isControl ? ZYDIS_REGISTER_CR0 : ZYDIS_REGISTER_DR0).rawValue)
            if n == 0 { endsBlock = true }
            if isControl { return unsafe n == 0 ? Handlers.writeControl : Handlers.readControl }
            return unsafe n == 0 ? Handlers.writeDebug : Handlers.readDebug
        }
        return nil
    }

    /// A one-operand instruction that reads a general register (`r1`) or memory.
    mutating func setSource(_ n: Int) {
        unsafe record.operandBytes = UInt8(operandBytes(n))
        if let register = gpr(n) { unsafe record.r1 = register } else { setMemory(n) }
    }

    /// A one-operand instruction that writes a general register or memory.
    mutating func setDestination(_ n: Int) { setSource(n) }
}

extension CPU {
    func requireSupervisor() throws(Stop) {
        if unsafe core.privilege != 0 { throw generalProtection() }
    }

    /// The operand that `Lowering.setSource` set.
    func sourceOperand(_ i: InstructionPointer) throws(Stop) -> UInt64 {
        let bytes = unsafe Int(i.pointee.operandBytes)
        if unsafe i.pointee.options.contains(.memory) { return unsafe try loadOperand(i, bytes) }
        return unsafe register(i.pointee.r1, bytes: bytes)
    }

    /// Stores to what `Lowering.setDestination` set; memory takes `memoryBytes`.
    func storeDestination(_ i: InstructionPointer, _ value: UInt64, memoryBytes: Int? = nil) throws(Stop) {
        let bytes = unsafe Int(i.pointee.operandBytes)
        if unsafe i.pointee.options.contains(.memory) {
            let count = memoryBytes ?? bytes
            unsafe try store(address(i, count, write: true), value, bytes: count)
        } else {
            unsafe setRegister(number: Int(i.pointee.r1 >> 3), bytes: bytes, value)
        }
    }

    func readControl(_ i: InstructionPointer) throws(Stop) {
        try requireSupervisor()
        let value: UInt64 =
            switch unsafe i.pointee.small {
            case 0: state.cr0
            case 2: state.cr2
            case 3: state.cr3
            case 4: state.cr4
            case 8: UInt64(owner.interruptController?.taskPriorityClass ?? 0)
            default: throw undefined()
            }
        unsafe setRegister(number: Int(i.pointee.r1 >> 3), bytes: Int(i.pointee.operandBytes), value)
    }

    func writeControl(_ i: InstructionPointer) throws(Stop) {
        try requireSupervisor()
        var value = unsafe register(i.pointee.r1, UInt64.self)
        if unsafe i.pointee.operandBytes == 4 { value &= 0xffff_ffff }
        switch unsafe i.pointee.small {
        case 0: try setCR0(value)
        case 2: state.cr2 = value
        case 3: try setCR3(value)
        case 4: try setCR4(value)
        case 8:
            if value > 15 { throw generalProtection() }
            owner.interruptController?.taskPriorityClass = UInt8(value)
        default: throw undefined()
        }
    }

    func setCR0(_ value: UInt64) throws(Stop) {
        if value >> 32 != 0 { throw generalProtection() }
        let known =
            CR0.protectedMode | CR0.monitorCoprocessor | CR0.emulation | CR0.taskSwitched | CR0.extensionType
            | CR0.numericError | CR0.writeProtect | CR0.alignmentMask | CR0.notWriteThrough | CR0.cacheDisable
            | CR0.paging
        let new = value & known | CR0.extensionType
        let old = state.cr0
        if new & CR0.paging != 0 && new & CR0.protectedMode == 0 { throw generalProtection() }
        if new & CR0.notWriteThrough != 0 && new & CR0.cacheDisable == 0 { throw generalProtection() }
        let enabling = new & CR0.paging != 0 && old & CR0.paging == 0
        let disabling = new & CR0.paging == 0 && old & CR0.paging != 0
        if enabling && state.efer & EFER.longModeEnable != 0 {
            if state.cr4 & CR4.physicalAddressExtension == 0 || state.segments[SegmentName.cs].isLong {
                throw generalProtection()
            }
            state.efer |= EFER.longModeActive
        } else if enabling && state.cr4 & CR4.physicalAddressExtension != 0 {
            try loadPageDirectoryPointers(state.cr3)
        }
        if disabling {
            if unsafe core.codeSize == .bits64 || state.cr4 & CR4.pcid != 0 { throw generalProtection() }
            state.efer &= ~EFER.longModeActive
        }
        state.cr0 = new
        if (old ^ new) & (CR0.paging | CR0.writeProtect | CR0.protectedMode) != 0 { flushTLB() }
        modeChanged()
    }

    func setCR3(_ value: UInt64) throws(Stop) {
        var value = value
        var keeps = false
        if state.efer & EFER.longModeActive != 0 {
            // Bit 63 with PCIDs: the translations may be kept. Our own TLB need not, and does not.
            if state.cr4 & CR4.pcid != 0 {
                keeps = value >> 63 != 0
                value &= ~(1 << 63)
            }
            if value & ~PhysicalAddress.mask != 0 { throw generalProtection() }
        } else if state.cr0 & CR0.paging != 0 && state.cr4 & CR4.physicalAddressExtension != 0 {
            try loadPageDirectoryPointers(value)
        }
        state.cr3 = value
        flushTLB(.addressSpace(keepsTranslations: keeps))
    }

    func setCR4(_ value: UInt64) throws(Stop) {
        if value & ~owner.features.cr4Mask != 0 { throw generalProtection() }
        let old = state.cr4
        let isLong = state.efer & EFER.longModeActive != 0
        if isLong && value & CR4.physicalAddressExtension == 0 { throw generalProtection() }
        if value & CR4.pcid != 0 && old & CR4.pcid == 0 && (!isLong || state.cr3 & 0xfff != 0) {
            throw generalProtection()
        }
        let paging =
            CR4.physicalAddressExtension | CR4.pageSizeExtensions | CR4.globalPages | CR4.pcid | CR4.smep | CR4.smap
        let pae = CR4.physicalAddressExtension | CR4.pageSizeExtensions | CR4.globalPages | CR4.smep
        if state.cr0 & CR0.paging != 0 && !isLong && value & CR4.physicalAddressExtension != 0
            && (old ^ value) & pae != 0
        {
            try loadPageDirectoryPointers(state.cr3)
        }
        state.cr4 = value
        if (old ^ value) & paging != 0 { flushTLB() }
        modeChanged()
    }

    /// PAE's four page-directory pointers (SDM 3A, 4.4.1): reserved bits in a
    /// present one are #GP(0) at once.
    private func loadPageDirectoryPointers(_ cr3: UInt64) throws(Stop) {
        var entries = InlineArray<4, UInt64>(repeating: 0)
        for n in 0..<4 {
            let slot = GuestPhysicalAddress((cr3 & 0xffff_ffe0) &+ UInt64(n * 8))
            let entry = (try? owner.memory.load(at: slot, as: UInt64.self)) ?? 0
            if entry & PageEntry.present != 0 && entry & (0xffff_ff00_0000_01e6 & ~PhysicalAddress.frame) != 0 {
                throw generalProtection()
            }
            entries[n] = entry
        }
        unsafe core.pageDirectoryPointers = entries
    }

    /// The same for a state that was set from outside.
    func loadPageDirectoryPointersUnchecked() {
        guard PagingMode.of(cr0: state.cr0, cr4: state.cr4, efer: state.efer) == .pae else { return }
        do throws(Stop) { try loadPageDirectoryPointers(state.cr3) } catch { unsafe core.event = .lookup }
    }

    // MARK: Debug registers

    private func debugNumber(_ i: InstructionPointer) throws(Stop) -> Int {
        try requireSupervisor()
        var number = unsafe Int(i.pointee.small)
        if number > 7 { throw undefined() }
        if number == 4 || number == 5 {
            if state.cr4 & CR4.debuggingExtensions != 0 { throw undefined() }
            number += 2
        }
        if state.dr[7] & 1 << 13 != 0 {
            // General detect (SDM 3B, 17.2.4): the handler itself gets through, as delivery clears GD.
            state.dr[6] |= 1 << 13
            throw fault(Vector.debug)
        }
        return number
    }

    func readDebug(_ i: InstructionPointer) throws(Stop) {
        let number = unsafe try debugNumber(i)
        unsafe setRegister(number: Int(i.pointee.r1 >> 3), bytes: Int(i.pointee.operandBytes), state.dr[number])
    }

    func writeDebug(_ i: InstructionPointer) throws(Stop) {
        let number = unsafe try debugNumber(i)
        var value = unsafe register(i.pointee.r1, UInt64.self)
        if unsafe i.pointee.operandBytes == 4 { value &= 0xffff_ffff }
        switch number {
        case 6:
            if value >> 32 != 0 { throw generalProtection() }
            state.dr[6] = value & 0xe00f | 0xffff_0ff0
        case 7:
            if value >> 32 != 0 { throw generalProtection() }
            state.dr[7] = value & 0xffff_2bff | 0x400
        default: state.dr[number] = value
        }
        flushTLB()
        modeChanged()
    }

    func loadMachineStatusWord(_ i: InstructionPointer) throws(Stop) {
        try requireSupervisor()
        let value = unsafe try sourceOperand(i)
        // PE can be set, not cleared (SDM 2A, "LMSW").
        try setCR0(state.cr0 & ~0xe | value & 0xf)
    }

    /// SGDT, SIDT, SLDT, STR, SMSW: #GP for programs under UMIP.
    func checkUserModePrevention() throws(Stop) {
        if unsafe core.privilege == 3 && state.cr4 & CR4.umip != 0 { throw generalProtection() }
    }

    func setExtendedControl() throws(Stop) {
        if state.cr4 & CR4.osXSave == 0 { throw undefined() }
        try requireSupervisor()
        let value = self[Register.rdx] &<< 32 | self[Register.rax] & 0xffff_ffff
        if rcx & 0xffff_ffff != 0 || value & 1 == 0 || value & ~owner.features.xcr0Mask != 0 || value & 6 == 4 {
            throw generalProtection()
        }
        state.xcr0 = value
        gatesChanged()
    }

    func getExtendedControl() throws(Stop) {
        if state.cr4 & CR4.osXSave == 0 { throw undefined() }
        let value: UInt64
        switch rcx & 0xffff_ffff {
        case 0: value = state.xcr0
        case 1: value = state.xcr0  // XINUSE: everything may be in use
        default: throw generalProtection()
        }
        self[Register.rax] = value & 0xffff_ffff
        self[Register.rdx] = value >> 32
    }
}

extension Handlers {
    static let readControl: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.readControl(i) }
    }
    static let writeControl: Handler = {
        unsafe performLast($0, $1) { cpu, i throws(Stop) in unsafe try cpu.writeControl(i) }
    }
    static let readDebug: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.readDebug(i) } }
    static let writeDebug: Handler = {
        unsafe performLast($0, $1) { cpu, i throws(Stop) in unsafe try cpu.writeDebug(i) }
    }
    static let clts: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in
            try cpu.requireSupervisor()
            cpu.state.cr0 &= ~CR0.taskSwitched
            cpu.gatesChanged()
        }
    }
    static let lmsw: Handler = {
        unsafe performLast($0, $1) { cpu, i throws(Stop) in unsafe try cpu.loadMachineStatusWord(i) }
    }
    static let smsw: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in
            try cpu.checkUserModePrevention()
            unsafe try cpu.storeDestination(i, cpu.state.cr0, memoryBytes: 2)
        }
    }
    static let xsetbv: Handler = { unsafe performLast($0, $1) { cpu, i throws(Stop) in try cpu.setExtendedControl() } }
    static let xgetbv: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in try cpu.getExtendedControl() } }
}
