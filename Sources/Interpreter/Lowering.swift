internal import CZydis
internal import VirtualCPU
internal import X86

//S:160 From Zydis to a record
//
// `LoweringTable` knows, for each mnemonic, a closure that looks at the
// decoded operands, fills the record's fields and returns the handler for
// just this form, or nil for "not mine". What nobody claims is run by the
// real CPU in a thunk, if it is one of the instructions for which that is
// safe, and is an invalid opcode otherwise. So the tables name what the
// Interpreter does itself; every other instruction that Zydis knows and the
// Guest's CPUID offers works without a line about it.

/// One decoded instruction on its way to becoming a record.
@safe struct Lowering {
    let d: UnsafePointer<ZydisDecodedInstruction>
    let operands: UnsafePointer<ZydisDecodedOperand>
    let codeSize: CodeSize
    /// Whose rules hold where the vendors differ.
    let isIntel: Bool
    var record: Instruction
    /// No record of the same block may follow.
    var endsBlock = false

    init(_ decoder: Decoder, _ codeSize: CodeSize, isIntel: Bool, offset: Int) {
        unsafe d = UnsafePointer(decoder.instruction)
        unsafe operands = UnsafePointer(decoder.operands)
        self.codeSize = codeSize
        self.isIntel = isIntel
        unsafe record = unsafe Instruction(Handlers.undefined)
        unsafe record.offset = UInt16(truncatingIfNeeded: offset)
        unsafe record.length = d.pointee.length
        unsafe record.mnemonic = UInt16(truncatingIfNeeded: d.pointee.mnemonic.rawValue)
        unsafe record.operandBytes = d.pointee.operand_width / 8
        if codeSize == .bits64 { unsafe record.options.insert(.long) }
        if codeSize == .bits16 { unsafe record.options.insert(.code16) }
        let attributes = unsafe d.pointee.attributes
        if attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE) != 0 { unsafe record.options.insert(.rep) }
        if attributes & ZYDIS_ATTRIB_HAS_REPNE != 0 { unsafe record.options.insert(.repne) }
        if attributes & ZYDIS_ATTRIB_HAS_LOCK != 0 { unsafe record.options.insert(.lock) }
        switch unsafe d.pointee.address_width {
        case 32: unsafe record.options.insert(.address32)
        case 16: unsafe record.options.insert(.address16)
        default: break
        }
    }

    var mnemonic: ZydisMnemonic { unsafe d.pointee.mnemonic }
    var bytes: Int { unsafe Int(record.operandBytes) }
    var isLong: Bool { codeSize == .bits64 }
    var isLocked: Bool { unsafe record.options.contains(.lock) }

    // MARK: Operands

    func isRegister(_ n: Int) -> Bool { unsafe operands[n].type == ZYDIS_OPERAND_TYPE_REGISTER }
    func isMemory(_ n: Int) -> Bool { unsafe operands[n].type == ZYDIS_OPERAND_TYPE_MEMORY }
    func isImmediate(_ n: Int) -> Bool { unsafe operands[n].type == ZYDIS_OPERAND_TYPE_IMMEDIATE }
    func operandBytes(_ n: Int) -> Int { unsafe Int(operands[n].size) / 8 }
    func register(_ n: Int) -> ZydisRegister { unsafe operands[n].reg.value }
    func immediate(_ n: Int) -> UInt64 { unsafe operands[n].imm.value.u }

    /// Byte offset in `gpr` of a general register; nil for any other.
    func gpr(_ n: Int) -> UInt8? { isRegister(n) ? Lowering.gpr(register(n)) : nil }

    static func gpr(_ register: ZydisRegister) -> UInt8? {
        let value = register.rawValue
        func number(_ first: ZydisRegister) -> UInt8 { UInt8(truncatingIfNeeded: value &- first.rawValue) }
        if value >= ZYDIS_REGISTER_RAX.rawValue && value <= ZYDIS_REGISTER_R15.rawValue {
            return number(ZYDIS_REGISTER_RAX) * 8
        }
        if value >= ZYDIS_REGISTER_EAX.rawValue && value <= ZYDIS_REGISTER_R15D.rawValue {
            return number(ZYDIS_REGISTER_EAX) * 8
        }
        if value >= ZYDIS_REGISTER_AX.rawValue && value <= ZYDIS_REGISTER_R15W.rawValue {
            return number(ZYDIS_REGISTER_AX) * 8
        }
        if value >= ZYDIS_REGISTER_AL.rawValue && value <= ZYDIS_REGISTER_R15B.rawValue {
            let n = number(ZYDIS_REGISTER_AL)
            // AL…BL, AH…BH, SPL…DIL, R8B…R15B.
            return n < 4 ? n * 8 : n < 8 ? (n - 4) * 8 + 1 : (n - 4) * 8
        }
        return nil
    }

    static func segment(_ register: ZydisRegister) -> Int? {
        let value = register.rawValue
        guard value >= ZYDIS_REGISTER_ES.rawValue && value <= ZYDIS_REGISTER_GS.rawValue else { return nil }
        return Int(value - ZYDIS_REGISTER_ES.rawValue)
    }

    /// Fills in the address of memory operand `n`.
    mutating func setMemory(_ n: Int) {
        let operand = unsafe operands[n].mem
        unsafe record.options.insert(.memory)
        if n == 0 { unsafe record.options.insert(.memoryFirst) }
        let segment = Lowering.segment(operand.segment) ?? SegmentName.ds
        unsafe record.segment = UInt8(segment)
        let displacement = unsafe hasNoBase ? d.pointee.raw.disp.value : operand.disp.value
        unsafe record.displacement = Int32(truncatingIfNeeded: displacement)
        if let index = Lowering.gpr(operand.index) {
            unsafe record.index = index
            unsafe record.scaleShift = UInt8(truncatingIfNeeded: max(1, Int(operand.scale)).trailingZeroBitCount)
        }
        if operand.base == ZYDIS_REGISTER_RIP || operand.base == ZYDIS_REGISTER_EIP {
            // codePage + offset + length + displacement.
            unsafe record.base = UInt8(AddressSlot.codePage * 8)
            unsafe record.displacement = unsafe record.displacement &+ Int32(record.offset) &+ Int32(record.length)
        } else if let base = Lowering.gpr(operand.base), !hasNoBase {
            unsafe record.base = base
        }
        // A 64-bit moffs does not fit the displacement; nothing else is wider.
        if unsafe Int64(record.displacement) != displacement, unsafe record.base == UInt8(Instruction.noRegister) {
            unsafe record.spare = UInt32(truncatingIfNeeded: displacement >> 32)
            unsafe record.options.insert(.complexAddress)
        }
        if isLong {
            if segment >= SegmentName.fs {
                unsafe record.segmentSlot = UInt8((AddressSlot.segmentBases + segment) * 8)
            }
            if unsafe d.pointee.address_width != 64 { unsafe record.options.insert(.complexAddress) }
        } else {
            unsafe record.options.insert(.complexAddress)
        }
    }

    /// SIB with base 101 and mod 0: a displacement alone, whatever REX.B says
    /// (SDM 2A, 2.1.5). Zydis 4.0 makes it R13D, without displacement, where there is a 67 prefix.
    private var hasNoBase: Bool {
        let raw = unsafe d.pointee.raw
        return unsafe d.pointee.attributes & ZYDIS_ATTRIB_HAS_SIB != 0 && raw.modrm.mod == 0 && raw.sib.base == 5
    }

    // MARK: The usual forms

    /// Two operands, general registers, memory and constants.
    mutating func binary(_ forms: BinaryForms) -> Handler? {
        let width = operandBytes(0)
        guard width <= 8, width > 0 else { return nil }
        if let destination = gpr(0) {
            unsafe record.r1 = destination
            if let source = gpr(1) {
                unsafe record.r2 = source
                return unsafe forms.rr[width]
            }
            if isImmediate(1) {
                unsafe record.immediate = immediate(1)
                return unsafe forms.ri[width]
            }
            guard isMemory(1) else { return nil }
            setMemory(1)
            return unsafe forms.rm[width]
        }
        guard isMemory(0), !isLocked else { return nil }
        setMemory(0)
        if let source = gpr(1) {
            unsafe record.r2 = source
            return unsafe forms.mr[width]
        }
        guard isImmediate(1) else { return nil }
        unsafe record.immediate = immediate(1)
        return unsafe forms.mi[width]
    }

    mutating func unary(_ forms: UnaryForms) -> Handler? {
        let width = operandBytes(0)
        if let register = gpr(0) {
            unsafe record.r1 = register
            return unsafe forms.r[width]
        }
        guard isMemory(0), !isLocked else { return nil }
        setMemory(0)
        return unsafe forms.m[width]
    }

    mutating func shift(_ forms: ShiftForms) -> Handler? {
        let width = operandBytes(0)
        let byCL = isRegister(1)
        if isImmediate(1) { unsafe record.immediate = immediate(1) }
        unsafe record.small = byCL ? 1 : 0
        if let register = gpr(0) {
            unsafe record.r1 = register
            return unsafe byCL ? forms.rc[width] : forms.ri[width]
        }
        guard isMemory(0) else { return nil }
        setMemory(0)
        return unsafe forms.m[width]
    }
}

/// By mnemonic: how its records are made.
@safe struct LoweringTable {
    typealias Entry = (inout Lowering) -> Handler?
    private var entries = unsafe [Entry?](repeating: nil, count: Int(ZYDIS_MNEMONIC_MAX_VALUE.rawValue) + 1)

    subscript(mnemonic: ZydisMnemonic) -> Entry? {
        get { unsafe entries[Int(mnemonic.rawValue)] }
        set { unsafe entries[Int(mnemonic.rawValue)] = unsafe newValue }
    }

    /// One entry for several mnemonics.
    mutating func set(_ mnemonics: [ZydisMnemonic], _ entry: @escaping Entry) {
        for mnemonic in mnemonics { unsafe self[mnemonic] = unsafe entry }
    }

    init() {
        addIntegers()
        addMoves()
        addControlFlow()
        addStack()
        addStrings()
        addSystem()
    }
}
//:
