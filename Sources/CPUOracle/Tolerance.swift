internal import CZydis

//M:130 What the manual leaves open
//
// Some results the manual calls undefined: a flag, a register, the order of
// two writes of which one faults. There CPUs differ from each other, and an
// engine may too. This is the list, as short as it can be; everything that
// is not on it is compared bit for bit.

/// What of an outcome counts for a case.
package struct Tolerance {
    /// Arithmetic, DF, AC, ID, NT and what else user code can see change. TF and RF are the trap's business.
    package var flags: UInt64 = 0x3f_ffff & ~(1 << 16 | 1 << 8)
    package var gpr = InlineArray<16, UInt64>(repeating: ~0)
    /// Numbers of YMM registers that do not count.
    package var freeVectors: UInt64 = 0
    package var memory = true
    /// False: TOP and the tags do not count, and ST0…7 are compared by the physical registers behind them.
    package var x87InOrder = true
    package var errorCode: UInt64 = ~0
    package var faultAddress: UInt64 = ~0
    package var mxcsr: UInt64 = 0xffff
    /// False: it may be another fault, but must be one.
    package var faultKind = true
    /// There may be no fault at all; then nothing else counts.
    package var mayGoOn = false
    /// There may be a fault where the host has none; then nothing else counts.
    package var mayFault = false
    /// Ranges of memory that do not count.
    package var freeMemory: [Range<UInt64>] = []

    private static let carry: UInt64 = 1, parity: UInt64 = 4, auxiliary: UInt64 = 0x10, zero: UInt64 = 0x40
    private static let sign: UInt64 = 0x80, overflow: UInt64 = 0x800

    /// Everything counts.
    init() {}

    package init(_ test: TestCase, _ instruction: Disassembler.Instruction, native: Outcome) {
        // Linux sets P for what lies in its own half, so that nobody can feel about there.
        if native.vector == 14, native.cr2 >= 0x7fff_ffff_f000 { errorCode &= ~1 }
        // A fault at another RIP is one of the next instruction's fetch: this one has done its work.
        if native.vector == 3 || native.rip != test.rip {
            tolerateResults(test, instruction, native)
        } else {
            tolerateFault(test, instruction, native)
        }
    }

    private mutating func tolerateResults(
        _ test: TestCase, _ instruction: Disassembler.Instruction, _ native: Outcome
    ) {
        let name = instruction.name
        let width = instruction.operands.first.map { Int($0.size) } ?? 64
        if instruction.isRepeated, instruction.addressWidth == 32, test.gpr[1] & 0xffff_ffff == 0 {
            // No turn at all: Intel CPUs write ECX back all the same, and clear RCX's upper half.
            for register in [1, 6, 7] { gpr[register] = 0xffff_ffff }
        }
        switch name {
        case "and", "or", "xor", "test", "andn", "blsi", "blsr", "blsmsk":
            flags &= ~Self.auxiliary
            if name.hasPrefix("bls") { flags &= ~Self.parity }
            if name == "andn" { flags &= ~Self.parity }
        case "bextr": flags &= ~(Self.auxiliary | Self.sign | Self.parity)
        case "bzhi": flags &= ~(Self.auxiliary | Self.parity)
        case "mul", "imul": flags &= ~(Self.sign | Self.zero | Self.auxiliary | Self.parity)
        case "div", "idiv": flags &= ~0x8d5
        case "lzcnt", "tzcnt": flags &= ~(Self.overflow | Self.sign | Self.parity | Self.auxiliary)
        case "bt", "bts", "btr", "btc": flags &= ~(Self.overflow | Self.sign | Self.auxiliary | Self.parity)
        case "bsf", "bsr":
            flags &= ~(Self.carry | Self.overflow | Self.sign | Self.auxiliary | Self.parity)
            // Source 0 leaves the destination alone, on AMD by the manual and on Intel in fact. Whether
            // a 32-bit one loses its upper half is another matter.
            if width == 32, let register = instruction.operands[0].generalRegister { gpr[register] = 0xffff_ffff }
        case "shl", "shr", "sar", "shld", "shrd", "rol", "ror", "rcl", "rcr":
            tolerateShift(test, instruction, name, width)
        case "fnstenv", "fnsave":
            // The last x87 instruction's address and opcode; ours was none.
            if let place = instruction.operands.lazy.filter(\.isMemory).compactMap({
                effectiveAddress(of: $0, test, instruction)
            }).first {
                freeMemory.append(
                    instruction.operandWidth == 16 ? place &+ 6..<place &+ 14 : place &+ 12..<place &+ 28)
            }
        case "ldmxcsr", "vldmxcsr":
            // MXCSR.MM, which AMD's CPUs have and a Guest is not offered.
            mayFault = native.fxsave[3] & 1 << 17 != 0
        default: break
        }
    }

    /// SDM 2, SAL/SAR/SHL/SHR, SHLD, RCL/RCR/ROL/ROR.
    private mutating func tolerateShift(
        _ test: TestCase, _ instruction: Disassembler.Instruction, _ name: String, _ width: Int
    ) {
        let explicit = instruction.operands.filter { $0.visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN }
        guard let last = explicit.last else { return }
        let given = last.type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? (unsafe last.imm.value.u) : test.gpr[1]
        let count = Int(given & (width == 64 ? 63 : 31))
        if count == 0 { return }
        if count > 1 { flags &= ~Self.overflow }
        if name.hasPrefix("r") { return }
        flags &= ~Self.auxiliary
        if name.count == 4 {
            guard count > width else { return }
            flags &= ~0x8d5
            if let register = explicit[0].generalRegister {
                gpr[register] = ~((1 << UInt64(width)) - 1)
            } else {
                memory = false
            }
        } else if name != "sar", count >= width {
            flags &= ~Self.carry
        }
    }

    /// DPPS and DPPD multiply, then add, then add again, and an unmasked exception stops them in between
    /// (SDM 2A, DPPS). Looked at from outside, only the sum of all flags and the last result can be seen.
    private mutating func tolerateDotProduct(
        _ test: TestCase, _ instruction: Disassembler.Instruction, _ native: Outcome
    ) {
        guard instruction.name.contains("dpp"), test.mxcsr & 0x1f80 != 0x1f80, native.vector == 19 else { return }
        mxcsr &= ~0x3f
        mayGoOn = true
    }

    private mutating func tolerateFault(_ test: TestCase, _ instruction: Disassembler.Instruction, _ native: Outcome) {
        let name = instruction.name
        let isString = instruction.category == ZYDIS_CATEGORY_STRINGOP
        tolerateDotProduct(test, instruction, native)
        // Which of its two operands CMPS reads first is nowhere said.
        if isString, name.hasPrefix("cmps") {
            faultAddress = 0
            faultKind = false
            errorCode = 0
        }
        // Nor whether CALL looks at its target before or after it has pushed.
        if name == "call" {
            faultAddress = 0
            faultKind = false
            errorCode = 0
        }
        // Nor whether UD1 fetches its ModRM byte and what comes with that before it is refused (SDM 2B, "UD").
        if name == "ud1" {
            faultAddress = 0
            faultKind = false
            errorCode = 0
        }
        if isString, instruction.addressWidth == 32 {
            // Intel CPUs write ECX, ESI and EDI back, and so clear their upper halves, before the first element is done.
            for register in [1, 6, 7] { gpr[register] = 0xffff_ffff }
        }
        // Several writes, any of which may have happened before the one that faults; of CALL to a bad address, the push.
        if ["fnsave", "fnstenv", "enter", "maskmovdqu", "maskmovq", "call", "fbstp", "fstp"].contains(name) {
            memory = false
        }
        // Of an operand in many parts, or with some masked out, the byte that faults is the CPU's choice; not the page.
        if ["fnsave", "fnstenv", "frstor", "fldenv", "fbstp", "fbld"].contains(name) || name.contains("maskmov") {
            faultAddress = ~0xfff
        }
        // Where such an operand wraps at 4 GiB, its parts may or may not.
        if name.contains("maskmov"), instruction.addressWidth == 32 { faultAddress &= 0xffff_ffff }
        // One such part may lack its page, the next be beyond all pages.
        let isLong = instruction.operands.contains { $0.isMemory && $0.size == 80 }
        if isLong || ["fnsave", "fnstenv", "frstor", "fldenv"].contains(name) || name.contains("maskmov") {
            faultKind = false
            errorCode = 0
        }
        // A store of an MMX register that faults, or a conversion that raises #XM, may have entered MMX state already.
        if instruction.operands.contains(where: \.isMMXRegister) { x87InOrder = false }
        // With overflow or underflow unmasked, PE tells whether the result would be exact had the exponent
        // no limits (SDM 1, 4.9.1.4 and 4.9.1.5). No trial run with these masked can tell.
        if native.vector == 19, native.mxcsr & ~(native.mxcsr >> 7) & 0x18 != 0 { mxcsr &= ~0x20 }
        // It has converted, and noted how, or found a fault in it, before it stores.
        if name == "vcvtps2ph" {
            mxcsr = 0
            faultKind = false
            errorCode = 0
        }
        if instruction.category == ZYDIS_CATEGORY_AVX2GATHER || instruction.category == ZYDIS_CATEGORY_GATHER {
            // Elements may be gathered in any order below the one that faults (SDM 2, VPGATHERDD).
            for operand in instruction.operands where operand.isVectorRegister && operand.writes {
                freeVectors |= 1 << UInt64(ZydisRegisterGetId(operand.reg.value))
            }
        }
    }
}
//:
