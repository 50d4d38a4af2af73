internal import CZydis
internal import X86

//S:350 The same instruction, in 64-bit mode
//
// A Guest's instruction may come from 16-bit code, name an address through
// three registers and a segment, and use RSP, on which our own stack rests.
// In the thunk it stands in 64-bit mode with its address in one register, and
// RSP gives way to a register that the instruction leaves alone. Zydis has an
// encoder, which searches its tables for a form; we know the form, so the
// parts that Zydis took apart are put together again, with only those fields
// changed: prefixes, REX or VEX, opcode, ModRM, immediate (SDM 2A, 2.1, 2.3).

/// An instruction's bytes, as a thunk holds them.
struct Reencoding {
    private(set) var bytes = SIMD16<UInt8>(repeating: 0)
    private(set) var count = 0

    private mutating func byte(_ value: UInt8) {
        bytes[count] = value
        count += 1
    }

    /// - Parameters:
    ///   - source: the instruction's bytes in the Guest.
    ///   - base: the register that will hold the memory operand's address: none
    ///     whose low three bits are 4 or 5, which ask for SIB or displacement.
    ///   - substitute: the register that stands for RSP.
    /// Nil if the encoding is of a kind that no thunk holds.
    init?(
        _ instruction: UnsafePointer<ZydisDecodedInstruction>, _ operands: UnsafePointer<ZydisDecodedOperand>,
        source: UnsafePointer<UInt8>, form: InstructionForm, base: Int, substitute: Int
    ) {
        let isLong = unsafe instruction.pointee.machine_mode == ZYDIS_MACHINE_MODE_LONG_64
        let isVEX = unsafe instruction.pointee.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX
        guard unsafe isVEX || instruction.pointee.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY else { return nil }

        // The fields, 4 bits each, from the Guest's own bytes.
        let modrm = unsafe instruction.pointee.raw.modrm
        let hasModRM = unsafe instruction.pointee.attributes & ZYDIS_ATTRIB_HAS_MODRM != 0
        var opcode = unsafe instruction.pointee.opcode
        var map: UInt8
        var (wide, r, b) = (false, UInt8(0), UInt8(0))
        var (v, length256, pp) = (UInt8(0), UInt8(0), UInt8(0))
        if isVEX {
            let at = Int(unsafe instruction.pointee.raw.vex.offset)
            let first = unsafe source[at + 1]
            r = first >> 7 ^ 1
            let last: UInt8
            if unsafe source[at] == 0xc5 {
                map = 1
                last = first
            } else {
                map = first & 31
                b = first >> 5 & 1 ^ 1
                last = unsafe source[at + 2]
                wide = last & 0x80 != 0
            }
            v = last >> 3 & 15 ^ 15
            length256 = last & 4
            pp = last & 3
            if !isLong {
                // Only eight registers, and no 64-bit integers (SDM 2A, 2.3.5.6 and each instruction's page).
                (r, b, v) = (0, 0, v & 7)
                if unsafe Self.widthMeansInteger(instruction, map: map) { wide = false }
            }
        } else {
            switch unsafe instruction.pointee.opcode_map {
            case ZYDIS_OPCODE_MAP_DEFAULT: map = 0
            case ZYDIS_OPCODE_MAP_0F: map = 1
            case ZYDIS_OPCODE_MAP_0F38: map = 2
            case ZYDIS_OPCODE_MAP_0F3A: map = 3
            default: return nil
            }
            if isLong {
                let rex = unsafe instruction.pointee.raw.rex
                (wide, r, b) = (rex.W != 0, rex.R, rex.B)
            }
        }
        // 82 is a second 80, gone from 64-bit mode.
        if map == 0, !isVEX, opcode == 0x82 { opcode = 0x80 }
        var reg = modrm.reg | r << 3
        var rm = modrm.rm | b << 3
        var mod: UInt8 = 3
        var needsModRM = hasModRM
        if map == 0, !isVEX, !isLong, opcode & 0xf0 == 0x40 {
            // INC and DEC of one byte: in 64-bit mode these are the REX prefixes.
            (reg, rm) = (opcode >> 3 & 1, opcode & 7)
            (opcode, needsModRM) = (0xff, true)
            if form.usesStackPointer { rm = UInt8(substitute) }
        } else if form.usesStackPointer {
            for index in 0..<Int(unsafe instruction.pointee.operand_count_visible) {
                guard unsafe operands[index].type == ZYDIS_OPERAND_TYPE_REGISTER,
                    let name = unsafe RegisterName(operands[index].reg.value), name.number == Register.rsp,
                    !name.isHighByte
                else { continue }
                switch unsafe operands[index].encoding {
                case ZYDIS_OPERAND_ENCODING_MODRM_REG: reg = UInt8(substitute)
                case ZYDIS_OPERAND_ENCODING_MODRM_RM: rm = UInt8(substitute)
                case ZYDIS_OPERAND_ENCODING_NDSNDD: v = UInt8(substitute)
                case ZYDIS_OPERAND_ENCODING_OPCODE:
                    opcode = opcode & 0xf8 | UInt8(substitute) & 7
                    b = UInt8(substitute) >> 3
                    rm = b << 3
                default: return nil
                }
            }
        }
        if form.memoryIndex != nil { (mod, rm) = (0, UInt8(base)) }

        if isVEX {
            byte(0xc4)
            byte((reg < 8 ? 0x80 : 0) | 0x40 | (rm < 8 ? 0x20 : 0) | map)
            byte((wide ? 0x80 : 0) | (v ^ 15) << 3 | length256 | pp)
        } else {
            if unsafe instruction.pointee.attributes & ZYDIS_ATTRIB_HAS_LOCK != 0 { byte(0xf0) }
            let mandatory = unsafe Self.mandatoryPrefixes(instruction)
            if unsafe mandatory.operandSize || Self.needsOperandSize(instruction, operands, form) { byte(0x66) }
            if mandatory.repeat != 0 { byte(mandatory.repeat) }
            let isWideByte = form.usesLowByte
            let rex = (wide ? 8 : 0) | (reg >> 3) << 2 | rm >> 3
            if rex != 0 || isWideByte {
                if form.usesHighByte { return nil }
                byte(0x40 | rex)
            }
            if map > 0 { byte(0x0f) }
            if map > 1 { byte(map == 2 ? 0x38 : 0x3a) }
        }
        byte(opcode)
        if needsModRM { byte(mod << 6 | (reg & 7) << 3 | rm & 7) }
        let immediate = unsafe instruction.pointee.raw.imm.0
        if immediate.size != 0 {
            let end = Int(unsafe instruction.pointee.length)
            for at in Int(immediate.offset)..<end { unsafe byte(source[at]) }
            // A register in an immediate's upper half: eight of them outside 64-bit mode.
            if isVEX, !isLong, unsafe Self.hasRegisterImmediate(instruction, operands) { bytes[count - 1] &= 0x7f }
        }
    }

    private static func hasRegisterImmediate(
        _ instruction: UnsafePointer<ZydisDecodedInstruction>, _ operands: UnsafePointer<ZydisDecodedOperand>
    ) -> Bool {
        for index in 0..<Int(unsafe instruction.pointee.operand_count_visible)
        where unsafe operands[index].encoding == ZYDIS_OPERAND_ENCODING_IS4 { return true }
        return false
    }

    /// VEX.W chooses between 32- and 64-bit integers, so that outside 64-bit
    /// mode it is ignored. Elsewhere (FMA, VPERMQ, …) it is part of the opcode.
    private static func widthMeansInteger(_ instruction: UnsafePointer<ZydisDecodedInstruction>, map: UInt8) -> Bool {
        switch unsafe instruction.pointee.meta.isa_set {
        case ZYDIS_ISA_SET_BMI1, ZYDIS_ISA_SET_BMI2: return true
        default: break
        }
        switch (map, unsafe instruction.pointee.opcode) {
        case (1, 0x2a), (1, 0x2c), (1, 0x2d), (1, 0x6e), (1, 0x7e), (3, 0x16), (3, 0x22): return true
        default: return false
        }
    }

    /// The prefixes that are part of the opcode.
    private static func mandatoryPrefixes(
        _ instruction: UnsafePointer<ZydisDecodedInstruction>
    ) -> (operandSize: Bool, repeat: UInt8) {
        var result = (operandSize: false, repeat: UInt8(0))
        let count = Int(unsafe instruction.pointee.raw.prefix_count)
        if count == 0 { return result }
        let prefixes = unsafe instruction.pointee.raw.prefixes
        unsafe withUnsafeBytes(of: prefixes) { buffer in
            let list = unsafe buffer.bindMemory(to: ZydisDecodedInstructionRawPrefixes_.self)
            for index in 0..<min(count, list.count) {
                let prefix = unsafe list[index]
                guard prefix.type == ZYDIS_PREFIX_TYPE_MANDATORY else { continue }
                if prefix.value == 0x66 { result.operandSize = true } else { result.repeat = prefix.value }
            }
        }
        return result
    }

    /// 66 as an operand-size prefix: 16-bit integers, and the short formats of
    /// the x87's environment and state (SDM 1, 8.1.10).
    private static func needsOperandSize(
        _ instruction: UnsafePointer<ZydisDecodedInstruction>, _ operands: UnsafePointer<ZydisDecodedOperand>,
        _ form: InstructionForm
    ) -> Bool {
        if unsafe instruction.pointee.meta.isa_set == ZYDIS_ISA_SET_X87 {
            guard let index = form.memoryIndex else { return false }
            return unsafe operands[index].size == 14 * 8 || operands[index].size == 94 * 8
        }
        if form.usesXMM || form.usesYMM || form.usesMMX || form.usesX87 { return false }
        guard unsafe instruction.pointee.operand_count_visible > 0 else {
            // CBW and CWD. Nothing else without operands cares, and EMMS with 66 is no instruction.
            return unsafe instruction.pointee.mnemonic == ZYDIS_MNEMONIC_CBW
                || instruction.pointee.mnemonic == ZYDIS_MNEMONIC_CWD
        }
        if unsafe instruction.pointee.mnemonic == ZYDIS_MNEMONIC_CRC32 { return unsafe operands[1].size == 16 }
        return unsafe operands[0].size == 16
    }
}
//:
