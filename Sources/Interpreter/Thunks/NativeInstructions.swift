internal import CZydis
internal import X86

//S:340 What may run as it is
//
// Of the integer sets, a thunk takes only what is on the first list: they
// also hold all that is privileged, that jumps, that touches the stack or a
// segment. DIV and IDIV are missing because a #DE in a thunk would be ours.
// The newer sets came in one piece each, and there the second list names the
// exceptions: what loads the Host's MXCSR with the Guest's traps, what names
// more than one address, what is only a hint.

enum NativeInstructions {
    private static func table(_ mnemonics: [ZydisMnemonic]) -> [Bool] {
        var table = [Bool](repeating: false, count: Int(ZYDIS_MNEMONIC_MAX_VALUE.rawValue) + 1)
        for mnemonic in mnemonics { table[Int(mnemonic.rawValue)] = true }
        return table
    }

    private static let integer = table([
        ZYDIS_MNEMONIC_ADC, ZYDIS_MNEMONIC_ADD, ZYDIS_MNEMONIC_AND, ZYDIS_MNEMONIC_BSF, ZYDIS_MNEMONIC_BSR,
        ZYDIS_MNEMONIC_BSWAP, ZYDIS_MNEMONIC_BT, ZYDIS_MNEMONIC_BTC, ZYDIS_MNEMONIC_BTR, ZYDIS_MNEMONIC_BTS,
        ZYDIS_MNEMONIC_CBW, ZYDIS_MNEMONIC_CDQ, ZYDIS_MNEMONIC_CDQE, ZYDIS_MNEMONIC_CLC, ZYDIS_MNEMONIC_CMC,
        ZYDIS_MNEMONIC_CMOVB, ZYDIS_MNEMONIC_CMOVBE, ZYDIS_MNEMONIC_CMOVL, ZYDIS_MNEMONIC_CMOVLE,
        ZYDIS_MNEMONIC_CMOVNB, ZYDIS_MNEMONIC_CMOVNBE, ZYDIS_MNEMONIC_CMOVNL, ZYDIS_MNEMONIC_CMOVNLE,
        ZYDIS_MNEMONIC_CMOVNO, ZYDIS_MNEMONIC_CMOVNP, ZYDIS_MNEMONIC_CMOVNS, ZYDIS_MNEMONIC_CMOVNZ,
        ZYDIS_MNEMONIC_CMOVO, ZYDIS_MNEMONIC_CMOVP, ZYDIS_MNEMONIC_CMOVS, ZYDIS_MNEMONIC_CMOVZ, ZYDIS_MNEMONIC_CMP,
        ZYDIS_MNEMONIC_CMPXCHG, ZYDIS_MNEMONIC_CMPXCHG16B, ZYDIS_MNEMONIC_CMPXCHG8B, ZYDIS_MNEMONIC_CQO,
        ZYDIS_MNEMONIC_CWD, ZYDIS_MNEMONIC_CWDE, ZYDIS_MNEMONIC_DEC, ZYDIS_MNEMONIC_IMUL, ZYDIS_MNEMONIC_INC,
        ZYDIS_MNEMONIC_LAHF, ZYDIS_MNEMONIC_MOV, ZYDIS_MNEMONIC_MOVSX, ZYDIS_MNEMONIC_MOVSXD, ZYDIS_MNEMONIC_MOVZX,
        ZYDIS_MNEMONIC_MUL, ZYDIS_MNEMONIC_NEG, ZYDIS_MNEMONIC_NOT, ZYDIS_MNEMONIC_OR, ZYDIS_MNEMONIC_RCL,
        ZYDIS_MNEMONIC_RCR, ZYDIS_MNEMONIC_ROL, ZYDIS_MNEMONIC_ROR, ZYDIS_MNEMONIC_SAHF, ZYDIS_MNEMONIC_SAR,
        ZYDIS_MNEMONIC_SBB, ZYDIS_MNEMONIC_SETB, ZYDIS_MNEMONIC_SETBE, ZYDIS_MNEMONIC_SETL, ZYDIS_MNEMONIC_SETLE,
        ZYDIS_MNEMONIC_SETNB, ZYDIS_MNEMONIC_SETNBE, ZYDIS_MNEMONIC_SETNL, ZYDIS_MNEMONIC_SETNLE,
        ZYDIS_MNEMONIC_SETNO, ZYDIS_MNEMONIC_SETNP, ZYDIS_MNEMONIC_SETNS, ZYDIS_MNEMONIC_SETNZ, ZYDIS_MNEMONIC_SETO,
        ZYDIS_MNEMONIC_SETP, ZYDIS_MNEMONIC_SETS, ZYDIS_MNEMONIC_SETZ, ZYDIS_MNEMONIC_SHL, ZYDIS_MNEMONIC_SHLD,
        ZYDIS_MNEMONIC_SHR, ZYDIS_MNEMONIC_SHRD, ZYDIS_MNEMONIC_STC, ZYDIS_MNEMONIC_SUB, ZYDIS_MNEMONIC_TEST,
        ZYDIS_MNEMONIC_XADD, ZYDIS_MNEMONIC_XCHG, ZYDIS_MNEMONIC_XOR,
    ])

    private static let refused = table([
        ZYDIS_MNEMONIC_LDMXCSR, ZYDIS_MNEMONIC_STMXCSR, ZYDIS_MNEMONIC_VLDMXCSR, ZYDIS_MNEMONIC_VSTMXCSR,
        ZYDIS_MNEMONIC_MASKMOVDQU, ZYDIS_MNEMONIC_MASKMOVQ, ZYDIS_MNEMONIC_VMASKMOVDQU,
        ZYDIS_MNEMONIC_VMASKMOVPS, ZYDIS_MNEMONIC_VMASKMOVPD, ZYDIS_MNEMONIC_VPMASKMOVD, ZYDIS_MNEMONIC_VPMASKMOVQ,
        ZYDIS_MNEMONIC_VZEROALL, ZYDIS_MNEMONIC_VZEROUPPER, ZYDIS_MNEMONIC_PREFETCHNTA, ZYDIS_MNEMONIC_PREFETCHT0,
        ZYDIS_MNEMONIC_PREFETCHT1, ZYDIS_MNEMONIC_PREFETCHT2, ZYDIS_MNEMONIC_CLFLUSH, ZYDIS_MNEMONIC_PAUSE,
    ])

    /// Whether the instruction, if visible to the Guest, may run in a thunk.
    static func allow(_ instruction: UnsafePointer<ZydisDecodedInstruction>) -> Bool {
        let mnemonic = Int(unsafe instruction.pointee.mnemonic.rawValue)
        guard unsafe instruction.pointee.meta.branch_type == ZYDIS_BRANCH_TYPE_NONE,
            unsafe instruction.pointee.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED == 0
        else { return false }
        if unsafe isX87(instruction) { return true }
        switch unsafe instruction.pointee.meta.isa_set {
        case ZYDIS_ISA_SET_I86, ZYDIS_ISA_SET_I186, ZYDIS_ISA_SET_I386, ZYDIS_ISA_SET_I486, ZYDIS_ISA_SET_I486REAL,
            ZYDIS_ISA_SET_PENTIUMREAL, ZYDIS_ISA_SET_PPRO, ZYDIS_ISA_SET_CMOV, ZYDIS_ISA_SET_LONGMODE,
            ZYDIS_ISA_SET_LAHF, ZYDIS_ISA_SET_CMPXCHG16B:
            return integer[mnemonic]
        case ZYDIS_ISA_SET_X87, ZYDIS_ISA_SET_FCMOV, ZYDIS_ISA_SET_SSE3X87, ZYDIS_ISA_SET_PENTIUMMMX,
            ZYDIS_ISA_SET_SSE, ZYDIS_ISA_SET_SSE2, ZYDIS_ISA_SET_SSE2MMX, ZYDIS_ISA_SET_SSE3, ZYDIS_ISA_SET_SSSE3,
            ZYDIS_ISA_SET_SSSE3MMX, ZYDIS_ISA_SET_SSE4, ZYDIS_ISA_SET_SSE42, ZYDIS_ISA_SET_POPCNT,
            ZYDIS_ISA_SET_AES, ZYDIS_ISA_SET_PCLMULQDQ, ZYDIS_ISA_SET_AVX, ZYDIS_ISA_SET_AVXAES, ZYDIS_ISA_SET_F16C,
            ZYDIS_ISA_SET_FMA, ZYDIS_ISA_SET_AVX2, ZYDIS_ISA_SET_BMI1, ZYDIS_ISA_SET_BMI2, ZYDIS_ISA_SET_LZCNT,
            ZYDIS_ISA_SET_MOVBE, ZYDIS_ISA_SET_SHA, ZYDIS_ISA_SET_ADOX_ADCX, ZYDIS_ISA_SET_RDRAND,
            ZYDIS_ISA_SET_RDSEED:
            return !refused[mnemonic]
        default: return false
        }
    }

    // MARK: - Floating point

    /// May raise SIMD floating-point exceptions: the exception classes that say
    /// so (SDM 2, 2.4), and the six conversions between XMM and MMX.
    static func raisesSIMDExceptions(
        _ instruction: UnsafePointer<ZydisDecodedInstruction>, _ form: InstructionForm
    ) -> Bool {
        switch unsafe instruction.pointee.meta.exception_class {
        case ZYDIS_EXCEPTION_CLASS_SSE2, ZYDIS_EXCEPTION_CLASS_SSE3, ZYDIS_EXCEPTION_CLASS_AVX2,
            ZYDIS_EXCEPTION_CLASS_AVX3, ZYDIS_EXCEPTION_CLASS_AVX11:
            return true
        default: break
        }
        switch unsafe instruction.pointee.mnemonic {
        case ZYDIS_MNEMONIC_CVTPI2PS, ZYDIS_MNEMONIC_CVTPI2PD, ZYDIS_MNEMONIC_CVTPS2PI, ZYDIS_MNEMONIC_CVTTPS2PI,
            ZYDIS_MNEMONIC_CVTPD2PI, ZYDIS_MNEMONIC_CVTTPD2PI:
            return true
        default: return false
        }
    }

    /// A legacy SSE operand of 16 bytes must be aligned but for these (SDM 2,
    /// table 2-21); a VEX one need not, but for the moves that say "aligned".
    static func alignment(
        _ instruction: UnsafePointer<ZydisDecodedInstruction>, _ form: InstructionForm, memoryBytes: Int,
        isIntel: Bool
    ) -> UInt8 {
        switch unsafe instruction.pointee.mnemonic {
        case ZYDIS_MNEMONIC_CMPXCHG16B: return 16
        case ZYDIS_MNEMONIC_VMOVAPS, ZYDIS_MNEMONIC_VMOVAPD, ZYDIS_MNEMONIC_VMOVDQA, ZYDIS_MNEMONIC_VMOVNTPS,
            ZYDIS_MNEMONIC_VMOVNTPD, ZYDIS_MNEMONIC_VMOVNTDQ, ZYDIS_MNEMONIC_VMOVNTDQA:
            return UInt8(memoryBytes)
        case ZYDIS_MNEMONIC_MOVUPS, ZYDIS_MNEMONIC_MOVUPD, ZYDIS_MNEMONIC_MOVDQU, ZYDIS_MNEMONIC_LDDQU,
            ZYDIS_MNEMONIC_PCMPESTRI, ZYDIS_MNEMONIC_PCMPESTRM, ZYDIS_MNEMONIC_PCMPISTRI, ZYDIS_MNEMONIC_PCMPISTRM:
            return 1
        default:
            // SHA's operands may lie anywhere on AMD's CPUs. A thunk can only be as lenient as the Host is.
            if unsafe instruction.pointee.meta.isa_set == ZYDIS_ISA_SET_SHA,
                !isIntel, !CPUFeatures.forThisHost.isIntel
            {
                return 1
            }
            let isLegacy = unsafe instruction.pointee.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY
            // CVTPI2PD reads 8 bytes: asked by size, it is not meant. CVTPD2PI is, though it names no XMM register.
            return isLegacy && memoryBytes == 16 ? 16 : 1
        }
    }

    // MARK: - x87

    /// By the escape opcodes, and FWAIT: FCOMI and FISTTP came with other sets (SDM 2D, A.5).
    static func isX87(_ instruction: UnsafePointer<ZydisDecodedInstruction>) -> Bool {
        let opcode = unsafe instruction.pointee.opcode
        return unsafe instruction.pointee.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY
            && instruction.pointee.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT
            && (opcode & 0xf8 == 0xd8 || opcode == 0x9b)
    }

    static func record(_ mnemonic: ZydisMnemonic) -> Thunk.FPURecord {
        switch mnemonic {
        case ZYDIS_MNEMONIC_FNINIT: .cleared
        case ZYDIS_MNEMONIC_FNSAVE: .saved
        case ZYDIS_MNEMONIC_FNSTENV: .stored
        case ZYDIS_MNEMONIC_FLDENV, ZYDIS_MNEMONIC_FRSTOR: .loaded
        case ZYDIS_MNEMONIC_FNCLEX, ZYDIS_MNEMONIC_FLDCW, ZYDIS_MNEMONIC_FNSTCW, ZYDIS_MNEMONIC_FNSTSW,
            ZYDIS_MNEMONIC_FWAIT, ZYDIS_MNEMONIC_FENI8087_NOP,
            ZYDIS_MNEMONIC_FDISI8087_NOP, ZYDIS_MNEMONIC_FSETPM287_NOP:
            .kept
        default: .recorded
        }
    }

    /// Those that do not look for a pending exception first (SDM 1, 8.6).
    static func waits(_ mnemonic: ZydisMnemonic) -> Bool {
        switch mnemonic {
        case ZYDIS_MNEMONIC_FNINIT, ZYDIS_MNEMONIC_FNSAVE, ZYDIS_MNEMONIC_FNCLEX, ZYDIS_MNEMONIC_FNSTCW,
            ZYDIS_MNEMONIC_FNSTSW, ZYDIS_MNEMONIC_FNSTENV, ZYDIS_MNEMONIC_FENI8087_NOP,
            ZYDIS_MNEMONIC_FDISI8087_NOP, ZYDIS_MNEMONIC_FSETPM287_NOP:
            false
        default: true
        }
    }
}
//:
