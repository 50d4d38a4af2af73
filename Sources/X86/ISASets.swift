package import CZydis

//S:300 Which instructions exist
//
// A Guest may run what its CPUID shows, and nothing else: an instruction that
// works without being announced is a trap for whoever moves the Guest to
// another Host one day. Zydis says of every instruction to which set it
// belongs; this table says which feature announces the set. The CPUID policy
// and the thunks both read it, so that they cannot disagree.

/// Features of the CPU that bring instructions with them, as the Guest may see them.
package struct ISAFeatures: OptionSet, Hashable, Sendable {
    package let rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }

    /// What every x86-64 CPU has: up to SSE2, with FXSR, CMOV, CX8, MMX, NX.
    package static let baseline = ISAFeatures(rawValue: 1 << 0)
    package static let sse3 = ISAFeatures(rawValue: 1 << 1)
    package static let ssse3 = ISAFeatures(rawValue: 1 << 2)
    package static let sse41 = ISAFeatures(rawValue: 1 << 3)
    package static let sse42 = ISAFeatures(rawValue: 1 << 4)
    package static let popcnt = ISAFeatures(rawValue: 1 << 5)
    package static let cmpxchg16b = ISAFeatures(rawValue: 1 << 6)
    package static let lahf64 = ISAFeatures(rawValue: 1 << 7)
    package static let aes = ISAFeatures(rawValue: 1 << 8)
    package static let pclmulqdq = ISAFeatures(rawValue: 1 << 9)
    package static let avx = ISAFeatures(rawValue: 1 << 10)
    package static let f16c = ISAFeatures(rawValue: 1 << 11)
    package static let fma = ISAFeatures(rawValue: 1 << 12)
    package static let avx2 = ISAFeatures(rawValue: 1 << 13)
    package static let bmi1 = ISAFeatures(rawValue: 1 << 14)
    package static let bmi2 = ISAFeatures(rawValue: 1 << 15)
    package static let lzcnt = ISAFeatures(rawValue: 1 << 16)
    package static let movbe = ISAFeatures(rawValue: 1 << 17)
    package static let sha = ISAFeatures(rawValue: 1 << 18)
    package static let adx = ISAFeatures(rawValue: 1 << 19)
    package static let rdrand = ISAFeatures(rawValue: 1 << 20)
    package static let rdseed = ISAFeatures(rawValue: 1 << 21)
    package static let xsave = ISAFeatures(rawValue: 1 << 22)
    package static let xsaveopt = ISAFeatures(rawValue: 1 << 23)
    /// Emulated whatever the host has.
    package static let fsgsbase = ISAFeatures(rawValue: 1 << 24)
    package static let invpcid = ISAFeatures(rawValue: 1 << 25)
    package static let smap = ISAFeatures(rawValue: 1 << 26)
    package static let rdtscp = ISAFeatures(rawValue: 1 << 27)
    package static let clflushopt = ISAFeatures(rawValue: 1 << 28)
    package static let prefetchw = ISAFeatures(rawValue: 1 << 29)
    package static let serialize = ISAFeatures(rawValue: 1 << 30)

    /// Those that no host needs to have, because no thunk runs them.
    package static let emulated: ISAFeatures = [
        .baseline, .xsave, .xsaveopt, .fsgsbase, .invpcid, .smap, .rdtscp, .clflushopt, .prefetchw,
        .serialize,
    ]

    /// What a host offers, from its CPUID (SDM 2A, CPUID) and XCR0, with the
    /// `emulated` ones added. AVX counts only where the host's kernel saves it.
    package init(leaf1ECX: UInt32, leaf7EBX: UInt32, extendedECX: UInt32, xcr0: UInt64) {
        var found = ISAFeatures.emulated
        func add(_ feature: ISAFeatures, _ word: UInt32, _ bit: Int) {
            if word >> bit & 1 != 0 { found.insert(feature) }
        }
        add(.sse3, leaf1ECX, 0)
        add(.pclmulqdq, leaf1ECX, 1)
        add(.ssse3, leaf1ECX, 9)
        add(.cmpxchg16b, leaf1ECX, 13)
        add(.sse41, leaf1ECX, 19)
        add(.sse42, leaf1ECX, 20)
        add(.movbe, leaf1ECX, 22)
        add(.popcnt, leaf1ECX, 23)
        add(.aes, leaf1ECX, 25)
        add(.rdrand, leaf1ECX, 30)
        add(.bmi1, leaf7EBX, 3)
        add(.bmi2, leaf7EBX, 8)
        add(.rdseed, leaf7EBX, 18)
        add(.adx, leaf7EBX, 19)
        add(.sha, leaf7EBX, 29)
        add(.lahf64, extendedECX, 0)
        add(.lzcnt, extendedECX, 5)
        if leaf1ECX >> 27 & 1 != 0, xcr0 & 6 == 6 {
            add(.avx, leaf1ECX, 28)
            if found.contains(.avx) {
                add(.fma, leaf1ECX, 12)
                add(.f16c, leaf1ECX, 29)
                add(.avx2, leaf7EBX, 5)
            }
        }
        self = found
    }

    /// What must be visible for an instruction of `set` to exist; nil if we
    /// never show it: #UD.
    package static func required(by set: ZydisISASet) -> ISAFeatures? {
        switch set {
        case ZYDIS_ISA_SET_I86, ZYDIS_ISA_SET_I186, ZYDIS_ISA_SET_I286REAL, ZYDIS_ISA_SET_I286PROTECTED,
            ZYDIS_ISA_SET_I386, ZYDIS_ISA_SET_I486, ZYDIS_ISA_SET_I486REAL, ZYDIS_ISA_SET_PENTIUMREAL,
            ZYDIS_ISA_SET_PENTIUMMMX, ZYDIS_ISA_SET_PPRO, ZYDIS_ISA_SET_CMOV, ZYDIS_ISA_SET_FCMOV, ZYDIS_ISA_SET_X87,
            ZYDIS_ISA_SET_FXSAVE, ZYDIS_ISA_SET_FXSAVE64, ZYDIS_ISA_SET_SSE, ZYDIS_ISA_SET_SSE2,
            ZYDIS_ISA_SET_SSE2MMX, ZYDIS_ISA_SET_SSEMXCSR, ZYDIS_ISA_SET_SSE_PREFETCH, ZYDIS_ISA_SET_CLFSH,
            ZYDIS_ISA_SET_LONGMODE, ZYDIS_ISA_SET_FAT_NOP, ZYDIS_ISA_SET_PAUSE, ZYDIS_ISA_SET_RDPMC:
            .baseline
        case ZYDIS_ISA_SET_PREFETCH_NOP: .prefetchw
        case ZYDIS_ISA_SET_SERIALIZE: .serialize
        case ZYDIS_ISA_SET_LAHF: .lahf64
        case ZYDIS_ISA_SET_CMPXCHG16B: .cmpxchg16b
        case ZYDIS_ISA_SET_SSE3, ZYDIS_ISA_SET_SSE3X87: .sse3
        case ZYDIS_ISA_SET_SSSE3, ZYDIS_ISA_SET_SSSE3MMX: .ssse3
        case ZYDIS_ISA_SET_SSE4: .sse41
        case ZYDIS_ISA_SET_SSE42: .sse42
        case ZYDIS_ISA_SET_POPCNT: .popcnt
        case ZYDIS_ISA_SET_AES: .aes
        case ZYDIS_ISA_SET_PCLMULQDQ: .pclmulqdq
        case ZYDIS_ISA_SET_AVX: .avx
        case ZYDIS_ISA_SET_AVXAES: [.avx, .aes]
        case ZYDIS_ISA_SET_F16C: .f16c
        case ZYDIS_ISA_SET_FMA: .fma
        case ZYDIS_ISA_SET_AVX2, ZYDIS_ISA_SET_AVX2GATHER: .avx2
        case ZYDIS_ISA_SET_BMI1: .bmi1
        case ZYDIS_ISA_SET_BMI2: .bmi2
        case ZYDIS_ISA_SET_LZCNT: .lzcnt
        case ZYDIS_ISA_SET_MOVBE: .movbe
        case ZYDIS_ISA_SET_SHA: .sha
        case ZYDIS_ISA_SET_ADOX_ADCX: .adx
        case ZYDIS_ISA_SET_RDRAND: .rdrand
        case ZYDIS_ISA_SET_RDSEED: .rdseed
        case ZYDIS_ISA_SET_XSAVE: .xsave
        case ZYDIS_ISA_SET_XSAVEOPT: .xsaveopt
        case ZYDIS_ISA_SET_RDWRFSGS: .fsgsbase
        case ZYDIS_ISA_SET_INVPCID: .invpcid
        case ZYDIS_ISA_SET_SMAP: .smap
        case ZYDIS_ISA_SET_RDTSCP, ZYDIS_ISA_SET_RDPID: .rdtscp
        case ZYDIS_ISA_SET_CLFLUSHOPT: .clflushopt
        default: nil
        }
    }

    /// Whether an instruction of `set` exists on a CPU with these features.
    package func include(_ set: ZydisISASet) -> Bool {
        guard let required = Self.required(by: set) else { return false }
        return isSuperset(of: required)
    }
}
//:
