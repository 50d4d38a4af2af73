internal import CZydis
internal import Interpreter
internal import X86

//S:440 What kind of instruction it is
//
// Most of a program is copied. To know what may be copied we ask Zydis about
// every operand: general and vector registers, constants, and one operand in
// memory are fine; whatever else an instruction touches, in the open or
// behind its back, makes it the Interpreter's, unless it is one of those that
// are named below and written out by us (S:490 to S:500). So an instruction
// that this file has never heard of is slow, not wrong.

/// What is done with an instruction.
enum Kind: UInt8 {
    /// Copied; registers that live elsewhere are replaced.
    case plain
    /// Copied with an operand in memory.
    case memory
    /// LEA.
    case address
    case nothing
    case divide
    case push, pop, leave
    case jump, jumpIf, call, ret, jumpIndirect, callIndirect
    case clearInterrupts, setInterrupts, clearOverride, setOverride
    case clearDirection, swapGS, timeStamp, readSegment, readControl, readBase, writeBase, pushFlags
    case systemCall, systemReturn, timeStampAndAux
    /// REP STOS and REP MOVS.
    case fill, copy
    /// Left to the Interpreter.
    case interpret
    /// The same, and what follows is not run next.
    case interpretLast

    var endsBlock: Bool {
        switch self {
        case .jump, .call, .ret, .jumpIndirect, .callIndirect, .clearOverride, .setOverride, .systemCall,
            .systemReturn, .interpretLast:
            true
        default: false
        }
    }
}

/// An operand in memory, its registers by the Guest's numbers, -1 for none.
struct MemoryOperand {
    var base = -1
    var index = -1
    var scale: UInt8 = 0
    var displacement: Int64 = 0
    var isRIPRelative = false
    /// FS or GS; 0: none that matters.
    var segment = 0
    var bytes = 0
    var writes = false
    /// 16, or what the address must be a multiple of.
    var alignment = 1
    /// BTS and its like with the bit's number in a register.
    var bitIndex = -1
}

/// One general register that an instruction names.
struct NamedRegister {
    enum Place: UInt8 { case reg, rm, opcode, vvvv }
    var number: UInt8
    var place: Place
    var bytes: UInt8
    var reads: Bool
    var writes: Bool
    var operand: UInt8
}

/// One instruction of the block being translated.
struct Decoded {
    var kind = Kind.interpret
    var offset: UInt16 = 0
    var length: UInt8 = 0
    /// Flags it reads; flags it surely writes.
    var reads: UInt32 = 0
    var writes: UInt32 = 0
    /// Flags that it may write, or leave undefined.
    var changes: UInt32 = 0
    /// Flags that somebody may read, before it and after.
    var liveBefore: UInt32 = 0
    var liveAfter: UInt32 = 0
    var condition: UInt8 = 0
    /// Of a relative branch: the target's distance from the page's start.
    var target: Int64 = 0
    var memory = MemoryOperand()
    var namedCount: UInt8 = 0
    var named = InlineArray<4, NamedRegister>(
        repeating: NamedRegister(number: 0, place: .reg, bytes: 0, reads: false, writes: false, operand: 0))
    var hasHighByte = false
    var immediate: Int64 = 0
    var mnemonic: UInt16 = 0
    /// General registers that it writes, named or not.
    var clobbers: UInt16 = 0
    /// The groups that its operand's access and its stack's belong to (S:475); -1: none.
    var group: Int8 = -1
    var stackGroup: Int8 = -1
    /// What RSP has become since the block's start, before this instruction.
    var stackDelta: Int32 = 0
    /// What it adds to RSP; nil if that cannot be said.
    var stackChange: Int32? = 0
}

/// The arithmetic flags, where EFLAGS has them.
enum Flags {
    static let all: UInt32 = 0x8d5
}

/// Says of decoded instructions what is to be done with them.
@safe struct Classifier {
    let features: CPUFeatures

    /// Categories whose instructions do nothing but what their operands say.
    private static let copied: [Bool] = {
        var table = [Bool](repeating: false, count: Int(ZYDIS_CATEGORY_MAX_VALUE.rawValue) + 1)
        let categories: [ZydisInstructionCategory] = [
            ZYDIS_CATEGORY_BINARY, ZYDIS_CATEGORY_LOGICAL, ZYDIS_CATEGORY_LOGICAL_FP, ZYDIS_CATEGORY_DATAXFER,
            ZYDIS_CATEGORY_CMOV, ZYDIS_CATEGORY_SETCC, ZYDIS_CATEGORY_SHIFT, ZYDIS_CATEGORY_ROTATE,
            ZYDIS_CATEGORY_BITBYTE, ZYDIS_CATEGORY_CONVERT, ZYDIS_CATEGORY_SEMAPHORE, ZYDIS_CATEGORY_SSE,
            ZYDIS_CATEGORY_AVX, ZYDIS_CATEGORY_AVX2, ZYDIS_CATEGORY_AES, ZYDIS_CATEGORY_PCLMULQDQ,
            ZYDIS_CATEGORY_STTNI, ZYDIS_CATEGORY_SHA, ZYDIS_CATEGORY_BMI1, ZYDIS_CATEGORY_BMI2,
            ZYDIS_CATEGORY_LZCNT, ZYDIS_CATEGORY_ADOX_ADCX, ZYDIS_CATEGORY_BROADCAST, ZYDIS_CATEGORY_VFMA,
            ZYDIS_CATEGORY_NOP, ZYDIS_CATEGORY_WIDENOP, ZYDIS_CATEGORY_PREFETCH, ZYDIS_CATEGORY_BLEND,
        ]
        for category in categories { table[Int(category.rawValue)] = true }
        return table
    }()

    static func copies(_ category: ZydisInstructionCategory) -> Bool { copied[Int(category.rawValue)] }

    /// Fills in `decoded` from what Zydis found; its `offset` is set already.
    func classify(
        _ d: UnsafePointer<ZydisDecodedInstruction>, _ operands: UnsafePointer<ZydisDecodedOperand>,
        mode: TranslationMode, _ decoded: inout Decoded
    ) {
        decoded.length = unsafe d.pointee.length
        decoded.mnemonic = unsafe UInt16(truncatingIfNeeded: d.pointee.mnemonic.rawValue)
        unsafe flags(d, &decoded)
        decoded.kind = unsafe kind(d, operands, mode, &decoded)
        for index in unsafe 0..<Int(d.pointee.operand_count)
        where unsafe operands[index].type == ZYDIS_OPERAND_TYPE_REGISTER
            && operands[index].actions & UInt8(ZYDIS_OPERAND_ACTION_MASK_WRITE.rawValue) != 0
        {
            if let register = unsafe general(operands[index].reg.value.rawValue) {
                decoded.clobbers |= 1 << UInt16(register.number)
            }
        }
        decoded.stackChange = unsafe stackChange(d, operands, decoded)
    }

    /// What the instruction adds to RSP, if that is all it does to it; nil for what cannot be said.
    private func stackChange(
        _ d: UnsafePointer<ZydisDecodedInstruction>, _ operands: UnsafePointer<ZydisDecodedOperand>, _ decoded: Decoded
    ) -> Int32? {
        switch decoded.kind {
        case .push, .pushFlags, .call, .callIndirect: return -8
        case .pop: return decoded.named[0].number == 4 ? nil : 8
        case .address:
            guard decoded.clobbers & 1 << 4 != 0 else { return 0 }
            return decoded.memory.base == 4 && decoded.memory.index < 0 && decoded.named[0].bytes == 8
                ? Int32(truncatingIfNeeded: decoded.memory.displacement) : nil
        case .plain:
            guard decoded.clobbers & 1 << 4 != 0 else { return 0 }
            guard unsafe d.pointee.operand_width == 64, unsafe operands[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE else {
                return nil
            }
            let value = unsafe Int32(truncatingIfNeeded: operands[1].imm.value.s)
            switch unsafe d.pointee.mnemonic {
            case ZYDIS_MNEMONIC_ADD: return value
            case ZYDIS_MNEMONIC_SUB: return 0 &- value
            default: return nil
            }
        default: return decoded.clobbers & 1 << 4 != 0 ? nil : 0
        }
    }

    // MARK: Flags

    func flags(_ d: UnsafePointer<ZydisDecodedInstruction>, _ decoded: inout Decoded) {
        guard let accessed = unsafe d.pointee.cpu_flags else { return }
        // MOV of control and debug registers: undefined by the manual, and left alone by CPUs.
        if unsafe d.pointee.mnemonic == ZYDIS_MNEMONIC_MOV { return }
        let flags = unsafe accessed.pointee
        decoded.reads = flags.tested & Flags.all
        decoded.writes = (flags.modified | flags.set_0 | flags.set_1 | flags.undefined) & Flags.all
        decoded.changes = decoded.writes
        switch unsafe d.pointee.meta.category {
        case ZYDIS_CATEGORY_SHIFT:
            // A count of zero leaves them.
            if unsafe !shiftsForSure(d) { decoded.writes = 0 }
        case ZYDIS_CATEGORY_ROTATE:
            decoded.writes = 0
        case ZYDIS_CATEGORY_STRINGOP, ZYDIS_CATEGORY_IOSTRINGOP:
            // REP with RCX = 0.
            decoded.writes = 0
        default: break
        }
    }

    /// SHL, SHR, SAR by a constant other than zero.
    private func shiftsForSure(_ d: UnsafePointer<ZydisDecodedInstruction>) -> Bool {
        guard unsafe d.pointee.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT else { return false }
        if unsafe d.pointee.opcode == 0xd0 || d.pointee.opcode == 0xd1 { return true }
        guard unsafe d.pointee.opcode == 0xc0 || d.pointee.opcode == 0xc1 else { return false }
        return unsafe d.pointee.raw.imm.0.value.u & (d.pointee.operand_width == 64 ? 63 : 31) != 0
    }

    /// 0F 0D and 0F 18…1F without the feature that gave them a meaning: they do nothing.
    private func isReservedNop(_ d: UnsafePointer<ZydisDecodedInstruction>) -> Bool {
        unsafe d.pointee.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && d.pointee.opcode_map == ZYDIS_OPCODE_MAP_0F
            && (d.pointee.opcode == 0x0d || d.pointee.opcode >= 0x18 && d.pointee.opcode <= 0x1f)
    }

    // MARK: Kinds

    private func kind(
        _ d: UnsafePointer<ZydisDecodedInstruction>, _ operands: UnsafePointer<ZydisDecodedOperand>,
        _ mode: TranslationMode, _ decoded: inout Decoded
    ) -> Kind {
        let category = unsafe d.pointee.meta.category
        let mnemonic = unsafe d.pointee.mnemonic
        switch category {
        case ZYDIS_CATEGORY_SYSCALL, ZYDIS_CATEGORY_SYSRET, ZYDIS_CATEGORY_INTERRUPT:
            if mnemonic == ZYDIS_MNEMONIC_SYSCALL && mode.contains(.user) { return .systemCall }
            if unsafe mnemonic == ZYDIS_MNEMONIC_SYSRET && d.pointee.operand_width == 64 && !mode.contains(.user) {
                return .systemReturn
            }
            return .interpretLast
        default: break
        }
        switch mnemonic {
        case ZYDIS_MNEMONIC_UD0, ZYDIS_MNEMONIC_UD1, ZYDIS_MNEMONIC_UD2, ZYDIS_MNEMONIC_IRET, ZYDIS_MNEMONIC_IRETD,
            ZYDIS_MNEMONIC_IRETQ, ZYDIS_MNEMONIC_HLT:
            return .interpretLast
        default: break
        }
        guard unsafe features.offers(d.pointee.meta.isa_set) else {
            return unsafe isReservedNop(d) ? .nothing : .interpretLast
        }
        // 67 is rare, and one more form of everything.
        guard unsafe d.pointee.address_width == 64 else { return stopping(category) }
        switch category {
        case ZYDIS_CATEGORY_COND_BR: return unsafe conditional(d, operands, &decoded)
        case ZYDIS_CATEGORY_UNCOND_BR, ZYDIS_CATEGORY_CALL, ZYDIS_CATEGORY_RET:
            return unsafe branch(d, operands, &decoded)
        case ZYDIS_CATEGORY_PUSH, ZYDIS_CATEGORY_POP: return unsafe stack(d, operands, mode, &decoded)
        default: break
        }
        // What the vendors differ in: 0F 0D of a register, F3 90 with REX.B.
        if unsafe d.pointee.opcode_map == ZYDIS_OPCODE_MAP_0F && d.pointee.opcode == 0x0d
            && d.pointee.raw.modrm.mod == 3
            || d.pointee.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && d.pointee.opcode == 0x90 && d.pointee.raw.rex.B != 0
        {
            return .interpret
        }
        switch mnemonic {
        case ZYDIS_MNEMONIC_LEAVE: return unsafe d.pointee.operand_width == 64 ? .leave : .interpret
        case ZYDIS_MNEMONIC_LEA:
            guard unsafe named(d, operands, &decoded), unsafe memory(d, operands, 1, &decoded) else {
                return .interpret
            }
            return .address
        case ZYDIS_MNEMONIC_CLAC: return mode.contains(.user) ? .interpretLast : .clearOverride
        case ZYDIS_MNEMONIC_STAC: return mode.contains(.user) ? .interpretLast : .setOverride
        case ZYDIS_MNEMONIC_SWAPGS: return mode.contains(.user) ? .interpretLast : .swapGS
        case ZYDIS_MNEMONIC_RDTSC:
            return mode.contains(.user) && mode.contains(.noTimeStamp) ? .interpret : .timeStamp
        case ZYDIS_MNEMONIC_RDTSCP:
            return mode.contains(.user) && mode.contains(.noTimeStamp) ? .interpret : .timeStampAndAux
        case ZYDIS_MNEMONIC_STOSB, ZYDIS_MNEMONIC_STOSW, ZYDIS_MNEMONIC_STOSD, ZYDIS_MNEMONIC_STOSQ,
            ZYDIS_MNEMONIC_MOVSB, ZYDIS_MNEMONIC_MOVSW, ZYDIS_MNEMONIC_MOVSD, ZYDIS_MNEMONIC_MOVSQ:
            return unsafe repeated(d, operands, mode, &decoded)
        case ZYDIS_MNEMONIC_RDFSBASE, ZYDIS_MNEMONIC_RDGSBASE, ZYDIS_MNEMONIC_WRFSBASE, ZYDIS_MNEMONIC_WRGSBASE:
            guard mode.contains(.bases), unsafe d.pointee.operand_width == 64, unsafe named(d, operands, &decoded),
                decoded.namedCount == 1, decoded.named[0].bytes == 8
            else { return .interpret }
            let isFS = mnemonic == ZYDIS_MNEMONIC_RDFSBASE || mnemonic == ZYDIS_MNEMONIC_WRFSBASE
            decoded.immediate = Int64(isFS ? SegmentName.fs : SegmentName.gs)
            let reads = mnemonic == ZYDIS_MNEMONIC_RDFSBASE || mnemonic == ZYDIS_MNEMONIC_RDGSBASE
            return reads ? .readBase : .writeBase
        case ZYDIS_MNEMONIC_MOV
        where unsafe d.pointee.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && d.pointee.opcode == 0x8c:
            guard unsafe operands[0].type == ZYDIS_OPERAND_TYPE_REGISTER, unsafe named(d, operands, &decoded),
                decoded.namedCount == 1, decoded.named[0].bytes >= 2
            else { return .interpret }
            decoded.immediate = unsafe Int64(operands[1].reg.value.rawValue &- ZYDIS_REGISTER_ES.rawValue)
            return .readSegment
        case ZYDIS_MNEMONIC_SERIALIZE: return .nothing
        case ZYDIS_MNEMONIC_MOV where unsafe d.pointee.opcode_map == ZYDIS_OPCODE_MAP_0F && d.pointee.opcode == 0x20:
            return unsafe readControl(operands, mode, &decoded)
        case ZYDIS_MNEMONIC_CLD: return .clearDirection
        case ZYDIS_MNEMONIC_CLI: return mode.contains(.user) ? .interpret : .clearInterrupts
        case ZYDIS_MNEMONIC_STI: return mode.contains(.user) ? .interpret : .setInterrupts
        case ZYDIS_MNEMONIC_PAUSE, ZYDIS_MNEMONIC_LFENCE, ZYDIS_MNEMONIC_MFENCE, ZYDIS_MNEMONIC_SFENCE,
            ZYDIS_MNEMONIC_CLC, ZYDIS_MNEMONIC_STC, ZYDIS_MNEMONIC_CMC, ZYDIS_MNEMONIC_LAHF, ZYDIS_MNEMONIC_SAHF:
            return .plain
        case ZYDIS_MNEMONIC_LDMXCSR, ZYDIS_MNEMONIC_STMXCSR, ZYDIS_MNEMONIC_VLDMXCSR, ZYDIS_MNEMONIC_VSTMXCSR:
            return .interpret
        case ZYDIS_MNEMONIC_MOVBE, ZYDIS_MNEMONIC_CRC32, ZYDIS_MNEMONIC_POPCNT: break
        default: guard Self.copied[Int(category.rawValue)] else { return .interpret }
        }
        return unsafe copying(d, operands, mode, &decoded)
    }

    /// MOV from CR2 and CR3, which fault handlers and flushes read.
    private func readControl(
        _ operands: UnsafePointer<ZydisDecodedOperand>, _ mode: TranslationMode, _ decoded: inout Decoded
    ) -> Kind {
        let source = unsafe operands[1].reg.value
        guard !mode.isUser, source == ZYDIS_REGISTER_CR2 || source == ZYDIS_REGISTER_CR3,
            let target = unsafe general(operands[0].reg.value.rawValue), target.bytes == 8
        else { return .interpret }
        decoded.named[0] = NamedRegister(
            number: target.number, place: .rm, bytes: 8, reads: false, writes: true, operand: 0)
        decoded.namedCount = 1
        decoded.immediate = source == ZYDIS_REGISTER_CR2 ? 2 : 3
        return .readControl
    }

    /// REP STOS, REP MOVS without a segment of their own. (SSE's MOVSD has an operand that is seen.)
    private func repeated(
        _ d: UnsafePointer<ZydisDecodedInstruction>, _ operands: UnsafePointer<ZydisDecodedOperand>,
        _ mode: TranslationMode, _ decoded: inout Decoded
    ) -> Kind {
        guard unsafe d.pointee.meta.category == ZYDIS_CATEGORY_STRINGOP else {
            return unsafe copying(d, operands, mode, &decoded)
        }
        guard unsafe d.pointee.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE) != 0,
            unsafe d.pointee.attributes & (ZYDIS_ATTRIB_HAS_SEGMENT_FS | ZYDIS_ATTRIB_HAS_SEGMENT_GS) == 0
        else { return .interpret }
        decoded.immediate = unsafe Int64(operands[0].size / 8)
        return unsafe d.pointee.opcode & 0xfe == 0xaa ? .fill : .copy
    }

    private func stopping(_ category: ZydisInstructionCategory) -> Kind {
        switch category {
        case ZYDIS_CATEGORY_UNCOND_BR, ZYDIS_CATEGORY_CALL, ZYDIS_CATEGORY_RET: .interpretLast
        default: .interpret
        }
    }

    private func conditional(
        _ d: UnsafePointer<ZydisDecodedInstruction>, _ operands: UnsafePointer<ZydisDecodedOperand>,
        _ decoded: inout Decoded
    ) -> Kind {
        // LOOP and JRCXZ have opcodes of their own.
        let isShort = unsafe d.pointee.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && d.pointee.opcode & 0xf0 == 0x70
        let isNear = unsafe d.pointee.opcode_map == ZYDIS_OPCODE_MAP_0F && d.pointee.opcode & 0xf0 == 0x80
        guard isShort || isNear, unsafe d.pointee.operand_width == 64 else { return .interpret }
        decoded.condition = unsafe d.pointee.opcode & 15
        decoded.target = unsafe target(operands, decoded)
        return .jumpIf
    }

    private func target(_ operands: UnsafePointer<ZydisDecodedOperand>, _ decoded: Decoded) -> Int64 {
        unsafe Int64(decoded.offset) &+ Int64(decoded.length) &+ operands[0].imm.value.s
    }

    private func branch(
        _ d: UnsafePointer<ZydisDecodedInstruction>, _ operands: UnsafePointer<ZydisDecodedOperand>,
        _ decoded: inout Decoded
    ) -> Kind {
        let isNear =
            unsafe d.pointee.meta.branch_type == ZYDIS_BRANCH_TYPE_NEAR
            || d.pointee.meta.branch_type == ZYDIS_BRANCH_TYPE_SHORT
        guard isNear, unsafe d.pointee.operand_width == 64 else { return .interpretLast }
        if unsafe d.pointee.meta.category == ZYDIS_CATEGORY_RET {
            guard unsafe d.pointee.mnemonic == ZYDIS_MNEMONIC_RET else { return .interpretLast }
            decoded.immediate =
                unsafe d.pointee.operand_count_visible > 0
                ? Int64(truncatingIfNeeded: operands[0].imm.value.u & 0xffff) : 0
            return .ret
        }
        let isCall = unsafe d.pointee.meta.category == ZYDIS_CATEGORY_CALL
        switch unsafe operands[0].type {
        case ZYDIS_OPERAND_TYPE_IMMEDIATE:
            decoded.target = unsafe target(operands, decoded)
            return isCall ? .call : .jump
        case ZYDIS_OPERAND_TYPE_REGISTER:
            guard unsafe named(d, operands, &decoded) else { return .interpretLast }
        case ZYDIS_OPERAND_TYPE_MEMORY:
            guard unsafe named(d, operands, &decoded), unsafe memory(d, operands, 0, &decoded) else {
                return .interpretLast
            }
        default: return .interpretLast
        }
        return isCall ? .callIndirect : .jumpIndirect
    }

    private func stack(
        _ d: UnsafePointer<ZydisDecodedInstruction>, _ operands: UnsafePointer<ZydisDecodedOperand>,
        _ mode: TranslationMode, _ decoded: inout Decoded
    ) -> Kind {
        guard unsafe d.pointee.operand_width == 64 else { return .interpret }
        switch unsafe d.pointee.mnemonic {
        case ZYDIS_MNEMONIC_PUSHFQ: return .pushFlags
        case ZYDIS_MNEMONIC_PUSH:
            switch unsafe operands[0].type {
            case ZYDIS_OPERAND_TYPE_IMMEDIATE:
                decoded.immediate = unsafe operands[0].imm.value.s
                return .push
            case ZYDIS_OPERAND_TYPE_REGISTER:
                return unsafe named(d, operands, &decoded) && decoded.namedCount == 1 ? .push : .interpret
            case ZYDIS_OPERAND_TYPE_MEMORY:
                guard unsafe named(d, operands, &decoded), unsafe memory(d, operands, 0, &decoded) else {
                    return .interpret
                }
                return .push
            default: return .interpret
            }
        case ZYDIS_MNEMONIC_POP:
            // FS and GS are registers too, but not of those that are named.
            guard unsafe operands[0].type == ZYDIS_OPERAND_TYPE_REGISTER, unsafe named(d, operands, &decoded),
                decoded.namedCount == 1
            else { return .interpret }
            return .pop
        default: return .interpret
        }
    }

    // MARK: Operands

    private func copying(
        _ d: UnsafePointer<ZydisDecodedInstruction>, _ operands: UnsafePointer<ZydisDecodedOperand>,
        _ mode: TranslationMode, _ decoded: inout Decoded
    ) -> Kind {
        let isVEX = unsafe d.pointee.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX
        guard unsafe isVEX || d.pointee.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY else { return .interpret }
        // CVTSD2SI of memory names no vector register, and raises what the others raise.
        var usesVectors =
            unsafe d.pointee.meta.category == ZYDIS_CATEGORY_CONVERT && d.pointee.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT
        var memoryIndex = -1
        let visible = unsafe Int(d.pointee.operand_count_visible)
        for index in unsafe 0..<Int(d.pointee.operand_count) {
            let operand = unsafe operands[index]
            switch operand.type {
            case ZYDIS_OPERAND_TYPE_REGISTER:
                let register = operand.reg.value.rawValue
                if general(register) != nil {
                    // RSP behind the instruction's back: some stack operation.
                    if index >= visible, general(register)?.number == 4 { return .interpret }
                } else if register >= ZYDIS_REGISTER_XMM0.rawValue && register <= ZYDIS_REGISTER_XMM15.rawValue
                    || register >= ZYDIS_REGISTER_YMM0.rawValue && register <= ZYDIS_REGISTER_YMM15.rawValue
                {
                    usesVectors = true
                } else if register == ZYDIS_REGISTER_MXCSR.rawValue {
                    usesVectors = true
                } else if !(register >= ZYDIS_REGISTER_FLAGS.rawValue && register <= ZYDIS_REGISTER_RFLAGS.rawValue) {
                    return .interpret
                }
            case ZYDIS_OPERAND_TYPE_MEMORY:
                if index >= visible { return .interpret }
                memoryIndex = index
            case ZYDIS_OPERAND_TYPE_IMMEDIATE: break
            default: return .interpret
            }
        }
        if unsafe usesVectors || d.pointee.meta.category == ZYDIS_CATEGORY_AVX {
            if isVEX ? mode.contains(.noAVX) : mode.contains(.noSSE) { return .interpret }
        }
        switch unsafe d.pointee.meta.category {
        case ZYDIS_CATEGORY_NOP, ZYDIS_CATEGORY_WIDENOP, ZYDIS_CATEGORY_PREFETCH: return .nothing
        default: break
        }
        guard unsafe named(d, operands, &decoded) else { return .interpret }
        let mnemonic = unsafe d.pointee.mnemonic
        let isDivision = mnemonic == ZYDIS_MNEMONIC_DIV || mnemonic == ZYDIS_MNEMONIC_IDIV
        if unsafe isDivision && d.pointee.operand_width < 32 || isDivision && operands[0].size < 32 {
            return .interpret
        }
        if memoryIndex < 0 { return isDivision ? .divide : .plain }
        guard unsafe memory(d, operands, memoryIndex, &decoded), !decoded.hasHighByte else { return .interpret }
        guard decoded.memory.bytes > 0, decoded.memory.bytes <= 32 else { return .interpret }
        // One more register in the state than there is room for.
        var inState = 0
        for n in 0..<Int(decoded.namedCount) where decoded.named[n].number > 12 { inState += 1 }
        if inState > 1 { return .interpret }
        switch mnemonic {
        case ZYDIS_MNEMONIC_BT, ZYDIS_MNEMONIC_BTS, ZYDIS_MNEMONIC_BTR, ZYDIS_MNEMONIC_BTC:
            if unsafe operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER {
                guard unsafe d.pointee.operand_width >= 32, let bit = unsafe general(operands[1].reg.value.rawValue),
                    decoded.memory.index < 13
                else { return .interpret }
                decoded.memory.bitIndex = Int(bit.number)
            }
        case ZYDIS_MNEMONIC_CMPXCHG16B: decoded.memory.alignment = 16
        default: decoded.memory.alignment = unsafe alignment(d, isVEX, usesVectors, decoded.memory.bytes)
        }
        return isDivision ? .divide : .memory
    }

    /// SDM 1, 10.4.1.1 and 14.9: legacy SSE wants 16-byte operands aligned, VEX only where the name says so.
    private func alignment(
        _ d: UnsafePointer<ZydisDecodedInstruction>, _ isVEX: Bool, _ usesVectors: Bool, _ bytes: Int
    ) -> Int {
        guard usesVectors else { return 1 }
        switch unsafe d.pointee.mnemonic {
        case ZYDIS_MNEMONIC_VMOVAPS, ZYDIS_MNEMONIC_VMOVAPD, ZYDIS_MNEMONIC_VMOVDQA, ZYDIS_MNEMONIC_VMOVNTDQ,
            ZYDIS_MNEMONIC_VMOVNTDQA, ZYDIS_MNEMONIC_VMOVNTPS, ZYDIS_MNEMONIC_VMOVNTPD:
            return bytes
        case ZYDIS_MNEMONIC_MOVUPS, ZYDIS_MNEMONIC_MOVUPD, ZYDIS_MNEMONIC_MOVDQU, ZYDIS_MNEMONIC_LDDQU,
            ZYDIS_MNEMONIC_PCMPESTRI, ZYDIS_MNEMONIC_PCMPESTRM, ZYDIS_MNEMONIC_PCMPISTRI, ZYDIS_MNEMONIC_PCMPISTRM:
            return 1
        default: return !isVEX && bytes == 16 ? 16 : 1
        }
    }

    /// A general register by number, its width in bytes, and whether it is AH…BH.
    private func general(_ register: UInt32) -> (number: UInt8, bytes: UInt8, isHigh: Bool)? {
        func number(_ first: ZydisRegister) -> UInt8 { UInt8(truncatingIfNeeded: register &- first.rawValue) }
        if register >= ZYDIS_REGISTER_RAX.rawValue && register <= ZYDIS_REGISTER_R15.rawValue {
            return (number(ZYDIS_REGISTER_RAX), 8, false)
        }
        if register >= ZYDIS_REGISTER_EAX.rawValue && register <= ZYDIS_REGISTER_R15D.rawValue {
            return (number(ZYDIS_REGISTER_EAX), 4, false)
        }
        if register >= ZYDIS_REGISTER_AX.rawValue && register <= ZYDIS_REGISTER_R15W.rawValue {
            return (number(ZYDIS_REGISTER_AX), 2, false)
        }
        if register >= ZYDIS_REGISTER_AL.rawValue && register <= ZYDIS_REGISTER_R15B.rawValue {
            let n = number(ZYDIS_REGISTER_AL)
            return n < 4 ? (n, 1, false) : n < 8 ? (n - 4, 1, true) : (n - 4, 1, false)
        }
        return nil
    }

    /// Collects the general registers that the encoding names. False: more than we handle.
    private func named(
        _ d: UnsafePointer<ZydisDecodedInstruction>, _ operands: UnsafePointer<ZydisDecodedOperand>,
        _ decoded: inout Decoded
    ) -> Bool {
        decoded.namedCount = 0
        decoded.hasHighByte = false
        for index in unsafe 0..<Int(d.pointee.operand_count_visible) {
            let operand = unsafe operands[index]
            guard operand.type == ZYDIS_OPERAND_TYPE_REGISTER, let register = general(operand.reg.value.rawValue)
            else { continue }
            if register.isHigh { decoded.hasHighByte = true }
            let place: NamedRegister.Place
            switch operand.encoding {
            case ZYDIS_OPERAND_ENCODING_MODRM_REG: place = .reg
            case ZYDIS_OPERAND_ENCODING_MODRM_RM: place = .rm
            case ZYDIS_OPERAND_ENCODING_OPCODE: place = .opcode
            case ZYDIS_OPERAND_ENCODING_NDSNDD: place = .vvvv
            default:
                // CL, AL, RAX, where the opcode says so.
                if register.number > 3 { return false }
                continue
            }
            if decoded.namedCount == 4 { return false }
            let actions = operand.actions
            let reads = actions & UInt8(ZYDIS_OPERAND_ACTION_MASK_READ.rawValue) != 0
            let writes = actions & UInt8(ZYDIS_OPERAND_ACTION_MASK_WRITE.rawValue) != 0
            // Narrow or conditional writes leave part of the old value.
            // BSF and BSR of zero leave all of it.
            let conditional =
                unsafe actions & UInt8(ZYDIS_OPERAND_ACTION_CONDWRITE.rawValue) != 0
                || d.pointee.mnemonic == ZYDIS_MNEMONIC_BSF || d.pointee.mnemonic == ZYDIS_MNEMONIC_BSR
            decoded.named[Int(decoded.namedCount)] = NamedRegister(
                number: register.number, place: place, bytes: register.bytes,
                reads: reads || register.bytes < 4 || conditional, writes: writes, operand: UInt8(index))
            decoded.namedCount += 1
        }
        return true
    }

    private func memory(
        _ d: UnsafePointer<ZydisDecodedInstruction>, _ operands: UnsafePointer<ZydisDecodedOperand>, _ index: Int,
        _ decoded: inout Decoded
    ) -> Bool {
        let operand = unsafe operands[index]
        let memory = operand.mem
        guard memory.type == ZYDIS_MEMOP_TYPE_MEM || memory.type == ZYDIS_MEMOP_TYPE_AGEN else { return false }
        var result = MemoryOperand()
        result.displacement = memory.disp.value
        result.bytes = Int(operand.size / 8)
        result.writes = operand.actions & UInt8(ZYDIS_OPERAND_ACTION_MASK_WRITE.rawValue) != 0
        if memory.base == ZYDIS_REGISTER_RIP {
            result.isRIPRelative = true
            result.displacement += Int64(decoded.offset) + Int64(decoded.length)
        } else if memory.base != ZYDIS_REGISTER_NONE {
            guard let base = general(memory.base.rawValue) else { return false }
            result.base = Int(base.number)
        }
        if memory.index != ZYDIS_REGISTER_NONE {
            guard let index = general(memory.index.rawValue) else { return false }
            result.index = Int(index.number)
            result.scale = UInt8(truncatingIfNeeded: Int(max(1, memory.scale)).trailingZeroBitCount)
        }
        guard Int64(Int32(truncatingIfNeeded: result.displacement)) == result.displacement else { return false }
        // A displacement of eight bytes (opcodes A0 to A3) has no other form.
        if unsafe d.pointee.attributes & ZYDIS_ATTRIB_HAS_MODRM == 0 { return false }
        if memory.type == ZYDIS_MEMOP_TYPE_MEM {
            if memory.segment == ZYDIS_REGISTER_FS { result.segment = SegmentName.fs }
            if memory.segment == ZYDIS_REGISTER_GS { result.segment = SegmentName.gs }
        }
        decoded.memory = result
        return true
    }
}
//:
