internal import CZydis
internal import Glibc

/// Which instructions are to be tested: those that a Guest is offered, the
/// host has, and that do the same thing in any user program.
package struct InstructionSets: Sendable {
    private var allowed: Set<String>

    /// ISA sets by Zydis' names, with the flag of /proc/cpuinfo that says whether the host has them.
    private static let flags: [(set: String, flag: String)] = [
        ("I86", ""), ("I186", ""), ("I386", ""), ("I486", ""), ("I486REAL", ""), ("PENTIUMREAL", ""),
        ("PENTIUMMMX", "mmx"),
        ("PPRO", ""), ("LONGMODE", ""), ("X87", ""), ("FCMOV", ""), ("CMOV", ""), ("FAT_NOP", ""), ("PAUSE", ""),
        ("PREFETCH_NOP", ""), ("LAHF", "lahf_lm"), ("CMPXCHG16B", "cx16"), ("CLFSH", "clflush"), ("SSE", "sse"),
        ("SSE2", "sse2"), ("SSE2MMX", "sse2"), ("SSEMXCSR", "sse"), ("SSE_PREFETCH", "sse"), ("SSE3", "pni"),
        ("SSE3X87", "pni"), ("SSSE3", "ssse3"), ("SSSE3MMX", "ssse3"), ("SSE4", "sse4_1"), ("SSE42", "sse4_2"),
        ("POPCNT", "popcnt"), ("LZCNT", "abm"), ("BMI1", "bmi1"), ("BMI2", "bmi2"), ("MOVBE", "movbe"),
        ("F16C", "f16c"),
        ("FMA", "fma"), ("AVX", "avx"), ("AVX2", "avx2"), ("AVX2GATHER", "avx2"), ("AES", "aes"), ("AVXAES", "aes"),
        ("PCLMULQDQ", "pclmulqdq"), ("SHA", "sha_ni"), ("ADOX_ADCX", "adx"),
    ]

    /// What issue x86-64-v3 and its customary companions are, as far as the host has them.
    package static let offered = InstructionSets()

    private init() {
        let host = Self.hostFlags
        allowed = Set(Self.flags.filter { $0.flag.isEmpty || host.contains($0.flag) }.map { "\($0.set)" })
        // VEX without the state for it would be #UD.
        if !host.contains("avx") { allowed.subtract(["AVX2", "AVX2GATHER", "AVXAES", "FMA", "F16C", "BMI1", "BMI2"]) }
    }

    /// The words of /proc/cpuinfo's first line of flags.
    static let hostFlags: Set<String> = {
        var text = [UInt8](repeating: 0, count: 16384)
        let file = unsafe open("/proc/cpuinfo", O_RDONLY)
        guard file >= 0 else { return [] }
        let count = unsafe read(file, &text, text.count)
        close(file)
        let lines = String(decoding: text.prefix(max(0, count)), as: UTF8.self).split(separator: "\n")
        return Set(lines.first { $0.hasPrefix("flags") }?.split(separator: " ").map(String.init) ?? [])
    }()

    /// A locked access across two cache lines costs 10 ms where the kernel punishes it.
    static let splitLocksArePunished = hostFlags.contains("split_lock_detect")

    /// Privileged, sensitive, different on every machine or on every run, or tested elsewhere.
    private static let excluded: Set<String> = [
        "cpuid", "rdtsc", "rdtscp", "rdpmc", "syscall", "sysenter", "sysexit", "int", "int1", "into", "iret", "iretd",
        "iretq",
        "rsm", "smsw", "ud0", "lfs", "lgs", "lss", "lds", "les", "monitor", "mwait", "xabort", "xbegin", "getsec",
        "wbnoinvd",
    ]

    /// A user program gets #GP(0) for these, whatever their operands: that is worth a test.
    private static let refused: Set<String> = [
        "hlt", "cli", "sti", "in", "out", "insb", "insw", "insd", "outsb", "outsw", "outsd", "wbinvd", "invd", "invlpg",
        "wrmsr", "rdmsr", "clts", "lmsw", "swapgs", "lgdt", "lidt", "lldt", "ltr",
    ]

    func offers(_ decoded: Disassembler.Instruction, _ prefixes: [UInt8]) -> Bool {
        if Self.refused.contains(decoded.name) { return true }
        guard allowed.contains(decoded.isaSet) else { return false }
        guard !decoded.isPrivileged, !decoded.isFarBranch, !Self.excluded.contains(decoded.name) else { return false }
        // An operand-size prefix on a near branch: Intel ignores it, AMD cuts RIP to 16 bits (SDM 2, JMP; APM 3, JMP).
        let branches = [ZYDIS_CATEGORY_CALL, ZYDIS_CATEGORY_RET, ZYDIS_CATEGORY_COND_BR, ZYDIS_CATEGORY_UNCOND_BR]
        if prefixes.contains(0x66), branches.contains(decoded.category) { return false }
        // Repeat prefixes are for strings; elsewhere the outcome is "unpredictable" (APM 3, 1.2.6). Intel's CPUs
        // ignore one before LOOPE and LOOPNE, AMD's take it to choose which of the two it is.
        let isRepeated = prefixes.contains(0xf2) || prefixes.contains(0xf3)
        if isRepeated, ["loope", "loopne"].contains(decoded.name) { return false }
        for operand in decoded.operands where operand.type == ZYDIS_OPERAND_TYPE_REGISTER {
            switch ZydisRegisterGetClass(operand.reg.value) {
            case ZYDIS_REGCLASS_CONTROL, ZYDIS_REGCLASS_DEBUG, ZYDIS_REGCLASS_TEST: return false
            case ZYDIS_REGCLASS_SEGMENT: if operand.writes { return false }
            default: break
            }
        }
        return true
    }
}
