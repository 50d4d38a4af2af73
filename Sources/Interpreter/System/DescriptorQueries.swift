internal import CZydis
internal import VirtualCPU
internal import X86

// LLDT and LTR, and the instructions that ask about a selector: LAR, LSL,
// VERR, VERW, ARPL (SDM 3A, 5.10).

extension LoweringTable {
    mutating func addDescriptorQueries() {
        unsafe set([ZYDIS_MNEMONIC_LLDT, ZYDIS_MNEMONIC_LTR]) { lowering in
            lowering.setSource(0)
            unsafe lowering.record.operandBytes = 2
            return unsafe lowering.mnemonic == ZYDIS_MNEMONIC_LLDT ? Handlers.lldt : Handlers.ltr
        }
        unsafe set([ZYDIS_MNEMONIC_VERR, ZYDIS_MNEMONIC_VERW]) { lowering in
            lowering.setSource(0)
            unsafe lowering.record.operandBytes = 2
            unsafe lowering.record.small = lowering.mnemonic == ZYDIS_MNEMONIC_VERW ? 1 : 0
            return unsafe Handlers.verify
        }
        unsafe set([ZYDIS_MNEMONIC_LAR, ZYDIS_MNEMONIC_LSL]) { lowering in
            guard let destination = lowering.gpr(0) else { return nil }
            let width = lowering.operandBytes(0)
            lowering.setSource(1)
            unsafe lowering.record.operandBytes = 2
            unsafe lowering.record.r2 = destination
            unsafe lowering.record.small = (lowering.mnemonic == ZYDIS_MNEMONIC_LSL ? 0x80 : 0) | UInt8(width)
            return unsafe Handlers.query
        }
        unsafe self[ZYDIS_MNEMONIC_ARPL] = { lowering in
            guard let source = lowering.gpr(1) else { return nil }
            lowering.setDestination(0)
            unsafe lowering.record.r2 = source
            return unsafe Handlers.arpl
        }
    }
}

extension CPU {
    func setZero(_ value: Bool) {
        setArithmeticFlags(arithmeticFlags & ~RFlags.zero | (value ? RFlags.zero : 0))
    }

    func loadLocalTable(_ i: InstructionPointer) throws(Stop) {
        try requireProtectedMode()
        try requireSupervisor()
        let selector = unsafe UInt16(truncatingIfNeeded: try sourceOperand(i))
        if selector.isNullSelector {
            state.ldtr = Segment(selector: selector, attributes: Segment.unusableBit | 0x82)
            return
        }
        let code = selector.selectorIndex
        if selector & 4 != 0 { throw generalProtection(code) }
        let descriptor = try systemDescriptor(selector)
        if !descriptor.isSystem || Int(descriptor.low >> 40 & 15) != SystemSegmentType.ldt {
            throw generalProtection(code)
        }
        if !descriptor.isPresent { throw fault(Vector.segmentNotPresent, code: code) }
        if isLongActive && !isCanonical(descriptor.base) { throw generalProtection(code) }
        state.ldtr = descriptor.segment(selector)
    }

    func loadTask(_ i: InstructionPointer) throws(Stop) {
        try requireProtectedMode()
        try requireSupervisor()
        let selector = unsafe UInt16(truncatingIfNeeded: try sourceOperand(i))
        if selector.isNullSelector { throw generalProtection() }
        let code = selector.selectorIndex
        if selector & 4 != 0 { throw generalProtection(code) }
        let descriptor = try systemDescriptor(selector)
        let type = Int(descriptor.low >> 40 & 15)
        let isAvailable =
            type == SystemSegmentType.tssAvailable || !isLongActive && type == SystemSegmentType.tss16Available
        if !descriptor.isSystem || !isAvailable { throw generalProtection(code) }
        if !descriptor.isPresent { throw fault(Vector.segmentNotPresent, code: code) }
        if isLongActive && !isCanonical(descriptor.base) { throw generalProtection(code) }
        // Busy, in the table and in the register.
        try systemWrite(try descriptorAddress(selector) &+ 5, descriptor.low >> 40 & 0xff | 2, 1)
        state.tr = descriptor.segment(selector)
        state.tr.attributes |= 2
    }

    /// The descriptor of a selector that a program asks about; nil where it may not know.
    private func visibleDescriptor(_ selector: UInt16, types: Set<Int>) throws(Stop) -> Descriptor? {
        if selector.isNullSelector { return nil }
        let limit = selector & 4 == 0 ? UInt32(state.gdtr.limit) : state.ldtr.isUnusable ? 0 : state.ldtr.limit
        if UInt32(selector | 7) > limit { return nil }
        let descriptor = try descriptor(selector)
        if descriptor.isSystem && !types.contains(Int(descriptor.low >> 40 & 15)) { return nil }
        let asked = unsafe max(Int(core.privilege), selector.requestedPrivilege)
        if !(descriptor.isCode && descriptor.isConforming && !descriptor.isSystem) && descriptor.privilegeLevel < asked
        {
            return nil
        }
        return descriptor
    }

    /// LAR and LSL: ZF says whether the destination was written.
    func queryDescriptor(_ i: InstructionPointer) throws(Stop) {
        try requireProtectedMode()
        let selector = unsafe UInt16(truncatingIfNeeded: try sourceOperand(i))
        let isLimit = unsafe i.pointee.small & 0x80 != 0
        let width = unsafe Int(i.pointee.small & 0x7f)
        let types: Set<Int> =
            isLimit
            ? (isLongActive ? [2, 9, 11] : [1, 2, 3, 9, 11])
            : (isLongActive ? [2, 9, 11, 12] : [1, 2, 3, 4, 5, 9, 11, 12])
        guard let descriptor = try visibleDescriptor(selector, types: types) else { return setZero(false) }
        let value = isLimit ? UInt64(descriptor.limit) : descriptor.low >> 32 & 0x00f0_ff00
        unsafe setRegister(number: Int(i.pointee.r2 >> 3), bytes: width, value)
        setZero(true)
    }

    /// VERR and VERW: ZF says whether the segment could be read or written.
    func verifySegment(_ i: InstructionPointer) throws(Stop) {
        try requireProtectedMode()
        let selector = unsafe UInt16(truncatingIfNeeded: try sourceOperand(i))
        guard let segment = try visibleDescriptor(selector, types: [])?.segment(selector) else { return setZero(false) }
        unsafe setZero(i.pointee.small != 0 ? segment.isWritableData : segment.isReadable)
    }

    func adjustPrivilege(_ i: InstructionPointer) throws(Stop) {
        try requireProtectedMode()
        let wanted = unsafe register(i.pointee.r2, UInt16.self) & 3
        if unsafe i.pointee.options.contains(.memory) {
            let address = unsafe try address(i, 2, write: true)
            try checkWritable(address, 2)
            let old = try load(address, UInt16.self)
            if old & 3 < wanted { try store(address, old & ~3 | wanted) }
            setZero(old & 3 < wanted)
        } else {
            let old = unsafe register(i.pointee.r1, UInt16.self)
            if old & 3 < wanted { unsafe setRegister(i.pointee.r1, old & ~3 | wanted) }
            setZero(old & 3 < wanted)
        }
    }
}

extension Handlers {
    static let lldt: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.loadLocalTable(i) } }
    static let ltr: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.loadTask(i) } }
    static let verify: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.verifySegment(i) } }
    static let query: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.queryDescriptor(i) } }
    static let arpl: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.adjustPrivilege(i) } }
}
