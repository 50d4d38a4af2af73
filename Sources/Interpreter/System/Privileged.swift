internal import CZydis
internal import VirtualCPU
internal import X86

// Flags that only a kernel may change, ports, HLT, the descriptor-table
// registers, TLB and cache control, and FS and GS bases.

extension LoweringTable {
    mutating func addPrivileged() {
        unsafe self[ZYDIS_MNEMONIC_CLI] = { _ in unsafe Handlers.cli }
        unsafe self[ZYDIS_MNEMONIC_STI] = { _ in unsafe Handlers.sti }
        unsafe self[ZYDIS_MNEMONIC_CLAC] = { _ in unsafe Handlers.clac }
        unsafe self[ZYDIS_MNEMONIC_STAC] = { _ in unsafe Handlers.stac }
        unsafe set([ZYDIS_MNEMONIC_PUSHF, ZYDIS_MNEMONIC_PUSHFD, ZYDIS_MNEMONIC_PUSHFQ]) { lowering in
            unsafe lowering.record.operandBytes = lowering.stackBytes
            return unsafe Handlers.pushf
        }
        unsafe set([ZYDIS_MNEMONIC_POPF, ZYDIS_MNEMONIC_POPFD, ZYDIS_MNEMONIC_POPFQ]) { lowering in
            unsafe lowering.record.operandBytes = lowering.stackBytes
            return unsafe Handlers.popf
        }
        unsafe self[ZYDIS_MNEMONIC_HLT] = { lowering in
            lowering.endsBlock = true
            return unsafe Handlers.hlt
        }
        unsafe self[ZYDIS_MNEMONIC_IN] = { lowering in
            unsafe lowering.record.operandBytes = UInt8(lowering.operandBytes(0))
            lowering.setPort(1)
            return unsafe Handlers.input
        }
        unsafe self[ZYDIS_MNEMONIC_OUT] = { lowering in
            unsafe lowering.record.operandBytes = UInt8(lowering.operandBytes(1))
            lowering.setPort(0)
            return unsafe Handlers.output
        }
        unsafe set([ZYDIS_MNEMONIC_LGDT, ZYDIS_MNEMONIC_LIDT, ZYDIS_MNEMONIC_SGDT, ZYDIS_MNEMONIC_SIDT]) { lowering in
            lowering.setMemory(0)
            unsafe lowering.record.operandBytes = unsafe lowering.isLong ? 8 : lowering.d.pointee.operand_width / 8
            switch lowering.mnemonic {
            case ZYDIS_MNEMONIC_LGDT: return unsafe Handlers.lgdt
            case ZYDIS_MNEMONIC_LIDT: return unsafe Handlers.lidt
            case ZYDIS_MNEMONIC_SGDT: return unsafe Handlers.sgdt
            default: return unsafe Handlers.sidt
            }
        }
        unsafe set([ZYDIS_MNEMONIC_SLDT, ZYDIS_MNEMONIC_STR]) { lowering in
            lowering.setDestination(0)
            return unsafe lowering.mnemonic == ZYDIS_MNEMONIC_SLDT ? Handlers.sldt : Handlers.str
        }
        unsafe self[ZYDIS_MNEMONIC_INVLPG] = { lowering in
            lowering.setMemory(0)
            lowering.endsBlock = true
            return unsafe Handlers.invlpg
        }
        unsafe self[ZYDIS_MNEMONIC_INVPCID] = { lowering in
            guard let type = lowering.gpr(0) else { return nil }
            unsafe lowering.record.r1 = type
            lowering.setMemory(1)
            lowering.endsBlock = true
            return unsafe Handlers.invpcid
        }
        unsafe set([ZYDIS_MNEMONIC_INVD, ZYDIS_MNEMONIC_WBINVD]) { _ in unsafe Handlers.supervisorNop }
        unsafe set([ZYDIS_MNEMONIC_CLFLUSH, ZYDIS_MNEMONIC_CLFLUSHOPT, ZYDIS_MNEMONIC_CLWB]) { lowering in
            lowering.setMemory(0)
            return unsafe Handlers.clflush
        }
        unsafe self[ZYDIS_MNEMONIC_SWAPGS] = { _ in unsafe Handlers.swapgs }
        let bases: [(ZydisMnemonic, Int, Bool)] = [
            (ZYDIS_MNEMONIC_RDFSBASE, SegmentName.fs, false), (ZYDIS_MNEMONIC_RDGSBASE, SegmentName.gs, false),
            (ZYDIS_MNEMONIC_WRFSBASE, SegmentName.fs, true), (ZYDIS_MNEMONIC_WRGSBASE, SegmentName.gs, true),
        ]
        for (mnemonic, segment, writes) in bases {
            unsafe self[mnemonic] = { lowering in
                unsafe lowering.record.small = UInt8(segment)
                unsafe lowering.record.operandBytes = UInt8(lowering.operandBytes(0))
                unsafe lowering.record.r1 = lowering.gpr(0) ?? 0
                return unsafe writes ? Handlers.writeBase : Handlers.readBase
            }
        }
    }
}

extension Lowering {
    /// The port: DX (`small` 1) or a byte.
    mutating func setPort(_ n: Int) {
        if isImmediate(n) { unsafe record.immediate = immediate(n) & 0xff } else { unsafe record.small = 1 }
    }
}

extension CPU {
    private var ioPrivilege: UInt8 { UInt8(truncatingIfNeeded: state.rflags >> 12 & 3) }

    // MARK: Interrupt flag

    private func checkInterruptFlag() throws(Stop) {
        if unsafe core.privilege > ioPrivilege { throw generalProtection() }
    }

    /// STI. The next instruction is run before any interrupt is taken: run it
    /// right here, with the old poll mask, where it is in this block.
    func setInterruptFlag(_ i: InstructionPointer) -> UnsafeRawPointer? {
        do throws(Stop) { try checkInterruptFlag() } catch { return unsafe stopped(self, i) }
        let next = unsafe i + 1
        if state.rflags & RFlags.interrupt != 0 { return unsafe UnsafeRawPointer(next) }
        state.rflags |= RFlags.interrupt
        if unsafe next.pointee.length == 0 {
            unsafe core.shadow = true
            unsafe state.rip = nextRIP(i)
            unsafe core.event = .lookup
            return nil
        }
        let record = unsafe next.pointee.handler(raw, UnsafeRawPointer(next))
        interruptsChanged()
        if let record = unsafe record, isRequested {
            unsafe state.rip = rip(record.assumingMemoryBound(to: Instruction.self))
            unsafe core.event = .lookup
            return nil
        }
        return unsafe record
    }

    func pushFlags(_ bytes: Int) throws(Stop) {
        if isVirtual8086 && ioPrivilege < 3 { throw generalProtection() }
        try push(rflags & ~(RFlags.resume | RFlags.virtual8086), bytes)
    }

    /// POPF in all modes (SDM 2B). True if the mode may be another.
    func popFlags(_ bytes: Int) throws(Stop) -> Bool {
        if isVirtual8086 && ioPrivilege < 3 { throw generalProtection() }
        let value = try pop(bytes)
        var mask =
            RFlags.arithmetic | RFlags.trap | RFlags.direction | RFlags.nestedTask | RFlags.alignmentCheck
            | RFlags.identification
        if unsafe core.privilege == 0 { mask |= RFlags.ioPrivilege }
        if unsafe core.privilege <= ioPrivilege { mask |= RFlags.interrupt }
        if bytes == 2 { mask &= 0xffff }
        let old = state.rflags
        setArithmeticFlags(value & mask & RFlags.arithmetic | arithmeticFlags & ~mask)
        let new = old & ~mask & ~RFlags.resume | value & mask & ~RFlags.arithmetic | RFlags.alwaysOne
        state.rflags = new
        if (old ^ new) & (RFlags.trap | RFlags.alignmentCheck) != 0 {
            modeChanged()
            return true
        }
        if (old ^ new) & RFlags.interrupt != 0 { interruptsChanged() }
        return isRequested
    }

    // MARK: Ports

    /// #GP(0) unless the program may use these ports: CPL ≤ IOPL, or the TSS's
    /// bitmap says so (SDM 1, 19.5).
    func checkPort(_ port: UInt16, _ bytes: Int) throws(Stop) {
        guard state.cr0 & CR0.protectedMode != 0, unsafe core.privilege > ioPrivilege || isVirtual8086 else { return }
        let type = state.tr.type
        guard type == SystemSegmentType.tssAvailable || type == SystemSegmentType.tssBusy, state.tr.limit >= 0x67 else {
            throw generalProtection()
        }
        let map = try read(state.tr.base &+ 0x66, 2, .implicit)
        let position = map &+ UInt64(port >> 3)
        if position &+ 1 > UInt64(state.tr.limit) { throw generalProtection() }
        let bits = try read(state.tr.base &+ position, 2, .implicit)
        let mask = (UInt64(1) << UInt64(bytes)) &- 1
        if bits >> UInt64(port & 7) & mask != 0 { throw generalProtection() }
    }

    private func port(_ i: InstructionPointer) -> UInt16 {
        unsafe i.pointee.small != 0
            ? UInt16(truncatingIfNeeded: self[Register.rdx]) : UInt16(truncatingIfNeeded: i.pointee.immediate)
    }

    func input(_ i: InstructionPointer) throws(Stop) {
        let bytes = unsafe Int(i.pointee.operandBytes), port = unsafe port(i)
        try checkPort(port, bytes)
        setRegister(number: Register.rax, bytes: bytes, try ask(.portRead(port: port, bytes: bytes)))
        if unsafe core.watching { noteWatchedPort(port, bytes) }
    }

    func output(_ i: InstructionPointer) throws(Stop) {
        let bytes = unsafe Int(i.pointee.operandBytes), port = unsafe port(i)
        try checkPort(port, bytes)
        let mask: UInt64 = bytes == 4 ? 0xffff_ffff : bytes == 2 ? 0xffff : 0xff
        _ = try ask(.portWrite(port: port, bytes: bytes, value: UInt32(self[Register.rax] & mask)))
        if unsafe core.watching { noteWatchedPort(port, bytes) }
    }

    // MARK: Descriptor-table registers

    private func tableAddress(_ i: InstructionPointer, write: Bool) throws(Stop) -> UInt64 {
        unsafe try address(i, i.pointee.operandBytes == 8 ? 10 : 6, write: write)
    }

    func loadTable(_ i: InstructionPointer) throws(Stop) -> DescriptorTable {
        try requireSupervisor()
        let address = unsafe try tableAddress(i, write: false)
        let limit = try load(address, UInt16.self)
        if unsafe i.pointee.operandBytes == 8 {
            let base = try load(address &+ 2, UInt64.self)
            if !isCanonical(base) { throw generalProtection() }
            return DescriptorTable(base: base, limit: limit)
        }
        let base = UInt64(try load(wrap(address &+ 2), UInt32.self))
        return unsafe DescriptorTable(base: i.pointee.operandBytes == 2 ? base & 0xff_ffff : base, limit: limit)
    }

    func storeTable(_ i: InstructionPointer, _ table: DescriptorTable) throws(Stop) {
        try checkUserModePrevention()
        let address = unsafe try tableAddress(i, write: true)
        let bytes = unsafe i.pointee.operandBytes == 8 ? 10 : 6
        try checkWritable(address, bytes)
        try store(address, table.limit)
        if bytes == 10 {
            try store(address &+ 2, table.base)
        } else {
            try store(wrap(address &+ 2), UInt32(truncatingIfNeeded: table.base))
        }
    }

    // MARK: TLB

    func invalidatePage(_ i: InstructionPointer) throws(Stop) {
        try requireSupervisor()
        var linear = unsafe offset(i)
        let segment = unsafe Int(i.pointee.segment)
        if unsafe core.codeSize != .bits64 {
            linear = (linear &+ state.segments[segment].base) & 0xffff_ffff
        } else if segment >= SegmentName.fs {
            linear &+= state.segments[segment].base
        }
        // A non-canonical address is no error (SDM 2A, "INVLPG").
        if unsafe core.codeSize != .bits64 || isCanonical(linear) { flushTLB(page: linear) }
    }

    func invalidateByContext(_ i: InstructionPointer) throws(Stop) {
        try requireSupervisor()
        let type = unsafe register(i.pointee.r1, UInt64.self)
        let address = unsafe try address(i, 16, write: false)
        let context = try load(address, UInt64.self)
        let linear = try load(address &+ 8, UInt64.self)
        if type > 3 { throw generalProtection() }
        if type <= 1 && (context >> 12 != 0 || state.cr4 & CR4.pcid == 0 && context != 0) { throw generalProtection() }
        if type == 0 && !isCanonical(linear) { throw generalProtection() }
        // SDM 2A, "INVPCID": one address, one PCID, all with the global ones, all but those.
        switch type {
        case 0: flushTLB(.pageOf(pcid: context, address: linear))
        case 1: flushTLB(.context(pcid: context))
        case 2: flushTLB()
        default: flushTLB(.allContexts)
        }
    }

    // MARK: Bases

    private func checkBaseInstructions() throws(Stop) {
        if state.cr4 & CR4.fsGSBase == 0 { throw undefined() }
    }

    func readBase(_ i: InstructionPointer) throws(Stop) {
        try checkBaseInstructions()
        let base = unsafe state.segments[Int(i.pointee.small)].base
        unsafe setRegister(number: Int(i.pointee.r1 >> 3), bytes: Int(i.pointee.operandBytes), base)
    }

    func writeBase(_ i: InstructionPointer) throws(Stop) {
        try checkBaseInstructions()
        var value = unsafe register(i.pointee.r1, UInt64.self)
        if unsafe i.pointee.operandBytes == 4 { value &= 0xffff_ffff }
        if !isCanonical(value) { throw generalProtection() }
        unsafe setSegmentBase(Int(i.pointee.small), value)
    }

    func setSMAPOverride(_ open: Bool) throws(Stop) {
        if unsafe core.privilege != 0 { throw undefined() }
        if open { state.rflags |= RFlags.alignmentCheck } else { state.rflags &= ~RFlags.alignmentCheck }
        selectTLB()
    }
}

extension Handlers {
    static let cli: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in
            if unsafe cpu.core.privilege > UInt8(truncatingIfNeeded: cpu.state.rflags >> 12 & 3) {
                throw cpu.generalProtection()
            }
            cpu.state.rflags &= ~RFlags.interrupt
            unsafe cpu.core.pollMask &= ~VCPURequests.Request.interrupt.rawValue
        }
    }
    static let sti: Handler = { unsafe branch($0, $1) { cpu, i in unsafe cpu.setInterruptFlag(i) } }
    static let clac: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in try cpu.setSMAPOverride(false) } }
    static let stac: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in try cpu.setSMAPOverride(true) } }
    static let pushf: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in
            unsafe try cpu.pushFlags(Int(i.pointee.operandBytes))
        }
    }
    static let popf: Handler = {
        unsafe branch($0, $1) { cpu, i in
            do throws(Stop) {
                if unsafe try !cpu.popFlags(Int(i.pointee.operandBytes)) { return unsafe UnsafeRawPointer(i + 1) }
                unsafe cpu.state.rip = cpu.nextRIP(i)
                unsafe cpu.core.event = .lookup
                return nil
            } catch { return unsafe stopped(cpu, i) }
        }
    }
    static let hlt: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in
            try cpu.requireSupervisor()
            unsafe cpu.state.rip = cpu.nextRIP(i)
            throw cpu.leave(.halt)
        }
    }
    static let input: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.input(i) } }
    static let output: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.output(i) } }
    static let lgdt: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.state.gdtr = try cpu.loadTable(i) }
    }
    static let lidt: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.state.idtr = try cpu.loadTable(i) }
    }
    static let sgdt: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.storeTable(i, cpu.state.gdtr) }
    }
    static let sidt: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.storeTable(i, cpu.state.idtr) }
    }
    static let sldt: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in
            try cpu.requireProtectedMode()
            try cpu.checkUserModePrevention()
            unsafe try cpu.storeDestination(i, UInt64(cpu.state.ldtr.selector), memoryBytes: 2)
        }
    }
    static let str: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in
            try cpu.requireProtectedMode()
            try cpu.checkUserModePrevention()
            unsafe try cpu.storeDestination(i, UInt64(cpu.state.tr.selector), memoryBytes: 2)
        }
    }
    static let invlpg: Handler = {
        unsafe performLast($0, $1) { cpu, i throws(Stop) in unsafe try cpu.invalidatePage(i) }
    }
    static let invpcid: Handler = {
        unsafe performLast($0, $1) { cpu, i throws(Stop) in unsafe try cpu.invalidateByContext(i) }
    }
    static let supervisorNop: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in try cpu.requireSupervisor() }
    }
    static let clflush: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in
            unsafe try cpu.checkReadable(cpu.address(i, 1, write: false), 1)
        }
    }
    static let swapgs: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in
            try cpu.requireSupervisor()
            let base = cpu.state.segments[SegmentName.gs].base
            cpu.setSegmentBase(SegmentName.gs, cpu.state.kernelGSBase)
            cpu.state.kernelGSBase = base
        }
    }
    static let readBase: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.readBase(i) } }
    static let writeBase: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.writeBase(i) } }
}
