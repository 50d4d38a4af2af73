internal import CZydis
internal import X86

/// What a decoded instruction touches, as far as a thunk must know.
struct InstructionForm {
    /// One bit per general register.
    var gprRead: UInt16 = 0
    var gprWritten: UInt16 = 0
    /// Vector registers: read as 16 or as 32 bytes, written.
    var xmmRead: UInt16 = 0
    var ymmRead: UInt16 = 0
    var vectorWritten: UInt16 = 0
    var usesYMM = false
    var usesXMM = false
    var usesMMX = false
    var usesX87 = false
    /// AH, CH, DH or BH: no REX prefix may appear.
    var usesHighByte = false
    /// SPL, BPL, SIL, DIL: a REX prefix must appear.
    var usesLowByte = false
    /// The stack pointer, by name.
    var usesStackPointer = false
    var memoryIndex: Int?
    var readsFlags = false
    /// Arithmetic flags that are changed or left undefined.
    var flagsWritten: Int32 = 0

    /// Nil if the instruction touches anything that a thunk does not carry:
    /// segment, control and debug registers, RIP, addresses but one.
    init?(_ instruction: UnsafePointer<ZydisDecodedInstruction>, _ operands: UnsafePointer<ZydisDecodedOperand>) {
        for index in 0..<Int(unsafe instruction.pointee.operand_count) {
            let operand = unsafe operands + index
            switch unsafe operand.pointee.type {
            case ZYDIS_OPERAND_TYPE_REGISTER:
                guard unsafe note(register: operand) else { return nil }
            case ZYDIS_OPERAND_TYPE_MEMORY:
                // Explicit, in ModRM, and truly accessed: no string, no stack, no moffs, no LEA, no VSIB.
                guard memoryIndex == nil, unsafe operand.pointee.mem.type == ZYDIS_MEMOP_TYPE_MEM,
                    unsafe operand.pointee.encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM,
                    unsafe operand.pointee.visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT
                else { return nil }
                memoryIndex = index
            case ZYDIS_OPERAND_TYPE_IMMEDIATE: break
            default: return nil
            }
        }
        unsafe noteFlags(instruction)
        // BSF and BSR of 0 keep their destination, which Zydis gives as written only.
        let mnemonic = unsafe instruction.pointee.mnemonic
        if mnemonic == ZYDIS_MNEMONIC_BSF || mnemonic == ZYDIS_MNEMONIC_BSR { gprRead |= gprWritten }
    }

    private mutating func noteFlags(_ instruction: UnsafePointer<ZydisDecodedInstruction>) {
        switch unsafe instruction.pointee.mnemonic {
        // Zydis 4.0 knows the flags of PTEST only.
        case ZYDIS_MNEMONIC_VPTEST, ZYDIS_MNEMONIC_VTESTPS, ZYDIS_MNEMONIC_VTESTPD:
            flagsWritten = Int32(RFlags.arithmetic)
            return
        // By a count of 0 they keep all flags: Zydis says so of CL alone, but a constant may be 0 too.
        case ZYDIS_MNEMONIC_SHLD, ZYDIS_MNEMONIC_SHRD, ZYDIS_MNEMONIC_SHL, ZYDIS_MNEMONIC_SHR, ZYDIS_MNEMONIC_SAR,
            ZYDIS_MNEMONIC_ROL, ZYDIS_MNEMONIC_ROR, ZYDIS_MNEMONIC_RCL, ZYDIS_MNEMONIC_RCR:
            readsFlags = true
        default: break
        }
        guard let flags = unsafe instruction.pointee.cpu_flags?.pointee else { return }
        let mask = ZyanU32(RFlags.arithmetic)
        if flags.tested & mask != 0 { readsFlags = true }
        flagsWritten = Int32((flags.modified | flags.set_0 | flags.set_1 | flags.undefined) & mask)
    }

    private mutating func note(register operand: UnsafePointer<ZydisDecodedOperand>) -> Bool {
        let register = unsafe operand.pointee.reg.value
        let actions = unsafe operand.pointee.actions
        let reads = actions & UInt8(ZYDIS_OPERAND_ACTION_MASK_READ.rawValue) != 0
        let conditional = actions & UInt8(ZYDIS_OPERAND_ACTION_CONDWRITE.rawValue) != 0
        let writes = actions & UInt8(ZYDIS_OPERAND_ACTION_MASK_WRITE.rawValue) != 0

        if let gpr = RegisterName(register) {
            if gpr.number == Register.rsp {
                guard unsafe operand.pointee.visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT else { return false }
                usesStackPointer = true
            }
            if gpr.isHighByte { usesHighByte = true }
            if gpr.bytes == 1, !gpr.isHighByte, 4...7 ~= gpr.number { usesLowByte = true }
            let bit = UInt16(1) << gpr.number
            // A write of less than 4 bytes leaves the others as they were.
            if reads || conditional || gpr.bytes < 4 { gprRead |= bit }
            if writes { gprWritten |= bit }
            return true
        }
        switch register.rawValue {
        case ZYDIS_REGISTER_XMM0.rawValue...ZYDIS_REGISTER_XMM15.rawValue:
            let bit = UInt16(1) << (register.rawValue - ZYDIS_REGISTER_XMM0.rawValue)
            usesXMM = true
            if reads || conditional { xmmRead |= bit }
            if writes { vectorWritten |= bit }
        case ZYDIS_REGISTER_YMM0.rawValue...ZYDIS_REGISTER_YMM15.rawValue:
            let bit = UInt16(1) << (register.rawValue - ZYDIS_REGISTER_YMM0.rawValue)
            usesYMM = true
            if reads || conditional { ymmRead |= bit }
            if writes { vectorWritten |= bit }
        case ZYDIS_REGISTER_MM0.rawValue...ZYDIS_REGISTER_MM7.rawValue: usesMMX = true
        case ZYDIS_REGISTER_ST0.rawValue...ZYDIS_REGISTER_ST7.rawValue,
            ZYDIS_REGISTER_X87CONTROL.rawValue, ZYDIS_REGISTER_X87STATUS.rawValue, ZYDIS_REGISTER_X87TAG.rawValue:
            usesX87 = true
        case ZYDIS_REGISTER_FLAGS.rawValue, ZYDIS_REGISTER_EFLAGS.rawValue, ZYDIS_REGISTER_RFLAGS.rawValue:
            // Shifts by a count that may be 0 write the flags on condition only.
            if reads || conditional { readsFlags = true }
        default: return false
        }
        return true
    }
}

/// A general register, or the part of one, that Zydis names.
struct RegisterName {
    let number: Int
    let bytes: Int
    var isHighByte = false

    init?(_ register: ZydisRegister) {
        let value = register.rawValue
        switch value {
        case ZYDIS_REGISTER_AL.rawValue...ZYDIS_REGISTER_R15B.rawValue:
            // al…bl, ah…bh, spl…dil, r8b…r15b
            let place = Int(value - ZYDIS_REGISTER_AL.rawValue)
            number = place < 4 ? place : place - 4
            isHighByte = 4...7 ~= place
            bytes = 1
        case ZYDIS_REGISTER_AX.rawValue...ZYDIS_REGISTER_R15W.rawValue:
            number = Int(value - ZYDIS_REGISTER_AX.rawValue)
            bytes = 2
        case ZYDIS_REGISTER_EAX.rawValue...ZYDIS_REGISTER_R15D.rawValue:
            number = Int(value - ZYDIS_REGISTER_EAX.rawValue)
            bytes = 4
        case ZYDIS_REGISTER_RAX.rawValue...ZYDIS_REGISTER_R15.rawValue:
            number = Int(value - ZYDIS_REGISTER_RAX.rawValue)
            bytes = 8
        default: return nil
        }
    }
}
