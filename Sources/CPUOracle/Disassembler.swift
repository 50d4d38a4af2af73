package import CZydis

/// Zydis, for 64-bit code.
package struct Disassembler {
    private var decoder = ZydisDecoder()

    package init() {
        unsafe ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64)
    }

    /// An instruction with all its operands, and the line of Zydis' tables that it is.
    @safe package struct Instruction: @unchecked Sendable {
        fileprivate var raw = unsafe ZydisDecodedInstruction()
        package fileprivate(set) var operands: [ZydisDecodedOperand] = []
        /// Equal for two instructions if and only if they are of the same definition.
        package fileprivate(set) var definition = 0

        package var length: Int { unsafe Int(raw.length) }
        package var mnemonic: ZydisMnemonic { unsafe raw.mnemonic }
        package var name: String { Disassembler.name(of: mnemonic) }
        package var isaSet: String { unsafe Disassembler.name(of: raw.meta.isa_set) }
        package var category: ZydisInstructionCategory { unsafe raw.meta.category }
        package var attributes: UInt64 { unsafe raw.attributes }
        package var isFarBranch: Bool { unsafe raw.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR }
        package var addressWidth: Int { unsafe Int(raw.address_width) }
        package var operandWidth: Int { unsafe Int(raw.operand_width) }
        package var opcode: UInt8 { unsafe raw.opcode }
        /// Offset and bits of a displacement in the bytes; bits 0 if there is none.
        package var displacement: (offset: Int, bits: Int) { unsafe (Int(raw.raw.disp.offset), Int(raw.raw.disp.size)) }
        /// Offset and bits of the first immediate.
        package var immediate: (offset: Int, bits: Int) { unsafe (Int(raw.raw.imm.0.offset), Int(raw.raw.imm.0.size)) }
        /// Whether a SIB says "disp32 and no base". Zydis 4.0 gives such an operand a base of r13d where
        /// there are both an address-size prefix and REX.B, which takes no part here (SDM 2, 2.2.1.2).
        package var hasNoBase: Bool {
            unsafe attributes & 2 != 0 && raw.raw.modrm.mod == 0 && raw.raw.sib.base & 7 == 5
        }
        /// The number of the base register of a memory operand.
        func base(of operand: ZydisDecodedOperand) -> Int? {
            if operand.visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT, hasNoBase { return nil }
            return generalNumber(operand.mem.base)
        }
        package var isRelative: Bool { attributes & 1 << 7 != 0 }
        package var isPrivileged: Bool { attributes & 1 << 8 != 0 }
        package var hasLock: Bool { attributes & 1 << 27 != 0 }
        package var isRepeated: Bool { attributes & 7 << 28 != 0 }
        /// Of the flags, those that the tables call undefined after it, whatever the operands.
        package var undefinedFlags: UInt64 {
            guard let flags = unsafe raw.cpu_flags else { return 0 }
            return unsafe UInt64(flags.pointee.undefined)
        }
        /// Of the arithmetic flags, those that what it does depends on.
        package var testedFlags: UInt64 {
            if name.hasPrefix("pushf") || name == "lahf" { return 0x8d5 }
            guard let flags = unsafe raw.cpu_flags else { return 0 }
            return unsafe UInt64(flags.pointee.tested) & 0x8d5
        }
        /// Those that have a new value after it, whatever the operands.
        package var surelyWrittenFlags: UInt64 {
            // A count of 0 writes none.
            let mayCountZero = ["shl", "shr", "sar", "shld", "shrd", "rol", "ror", "rcl", "rcr"].contains(name)
            guard !mayCountZero, !isRepeated, let flags = unsafe raw.cpu_flags else { return 0 }
            return unsafe UInt64(flags.pointee.modified | flags.pointee.set_0 | flags.pointee.set_1)
        }
    }

    package static func name(of mnemonic: ZydisMnemonic) -> String {
        guard let text = unsafe ZydisMnemonicGetString(mnemonic) else { return "?" }
        return unsafe String(cString: text)
    }

    package static func name(of set: ZydisISASet) -> String {
        guard let text = unsafe ZydisISASetGetString(set) else { return "?" }
        return unsafe String(cString: text)
    }

    /// Everything but the operands.
    package func decodeHead(_ bytes: [UInt8], into result: inout Instruction) -> Bool {
        var context = unsafe ZydisDecoderContext()
        return unsafe decodeHead(bytes, into: &result, context: &context)
    }

    private func decodeHead(
        _ bytes: [UInt8], into result: inout Instruction, context: inout ZydisDecoderContext
    ) -> Bool {
        let status = unsafe withUnsafePointer(to: decoder) { decoder in
            unsafe bytes.withUnsafeBytes { buffer in
                unsafe ZydisDecoderDecodeInstruction(
                    decoder, &context, buffer.baseAddress, buffer.count, &result.raw)
            }
        }
        result.definition = unsafe Int(bitPattern: context.definition)
        return status & 0x8000_0000 == 0
    }

    package func decode(_ bytes: [UInt8]) -> Instruction? {
        var result = Instruction()
        var context = unsafe ZydisDecoderContext()
        guard unsafe decodeHead(bytes, into: &result, context: &context) else { return nil }
        let count = unsafe Int(result.raw.operand_count)
        result.operands = unsafe [ZydisDecodedOperand](unsafeUninitializedCapacity: count) { buffer, filled in
            let status = unsafe withUnsafePointer(to: decoder) { decoder in
                unsafe ZydisDecoderDecodeOperands(
                    decoder, &context, &result.raw, buffer.baseAddress, UInt8(count))
            }
            filled = status & 0x8000_0000 == 0 ? count : 0
        }
        return result
    }

    /// As an Intel manual would print it.
    package func text(_ bytes: [UInt8], at address: UInt64) -> String {
        guard var decoded = decode(bytes) else { return "(undefined)" }
        var formatter = ZydisFormatter()
        unsafe ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL)
        var line = [CChar](repeating: 0, count: 256)
        unsafe ZydisFormatterFormatInstruction(
            &formatter, &decoded.raw, &decoded.operands, decoded.raw.operand_count_visible, &line, 256, address, nil)
        return String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

extension ZydisDecodedOperand {
    package var reads: Bool { actions & 0x05 != 0 }
    package var writes: Bool { actions & 0x0a != 0 }
    /// Read, and not only under a condition.
    package var isMemory: Bool {
        type == ZYDIS_OPERAND_TYPE_MEMORY && (mem.type == ZYDIS_MEMOP_TYPE_MEM || mem.type == ZYDIS_MEMOP_TYPE_VSIB)
    }
    package var byteCount: Int { Int(size) / 8 }

    /// The number of the general register that this is, or is a part of.
    package var generalRegister: Int? { type == ZYDIS_OPERAND_TYPE_REGISTER ? generalNumber(reg.value) : nil }

    package var isVectorRegister: Bool {
        guard type == ZYDIS_OPERAND_TYPE_REGISTER else { return false }
        let kind = ZydisRegisterGetClass(reg.value)
        return kind == ZYDIS_REGCLASS_XMM || kind == ZYDIS_REGCLASS_YMM
    }

    package var isMMXRegister: Bool {
        type == ZYDIS_OPERAND_TYPE_REGISTER && ZydisRegisterGetClass(reg.value) == ZYDIS_REGCLASS_MMX
    }
}

/// The number, 0…15, of the 64-bit register that `register` is a part of.
package func generalNumber(_ register: ZydisRegister) -> Int? {
    let widest = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, register)
    guard ZydisRegisterGetClass(widest) == ZYDIS_REGCLASS_GPR64 else { return nil }
    return Int(ZydisRegisterGetId(widest))
}
