internal import Synchronization
internal import X86

//H:230 MSRs that are nobody's
//
// An engine keeps the MSRs that change how instructions work, the APIC and
// the clock have theirs, and then there are hundreds that describe a board, a
// firmware or one model of CPU. A kernel reads some of these without being
// ready for #GP, since no real machine lacks them. Those are here: a few with
// a constant, a few that remember what was written. The rest is #GP, which is
// what a kernel that asks carefully expects of a machine that has none.

/// MSRs of the board: memory types, microcode, machine checks.
final class MachineRegisters: Sendable {
    /// Read as this; writes are let go.
    private static let constants: [UInt32: UInt64] = [
        MSR.platformID: 0,
        0x2a: 0,  // EBL_CR_POWERON
        0x33: 0,  // TEST_CTRL
        0x34: 0,  // SMI_COUNT
        0x79: 0,  // BIOS_UPDT_TRIG: microcode, which this CPU has none of
        MSR.biosSignature: 1 << 32,
        0xcd: 0,  // FSB_FREQ
        0xce: 0,  // PLATFORM_INFO
        0x140: 0,  // MISC_FEATURES_ENABLES
        0x198: 0, 0x199: 0, 0x19a: 0, 0x19b: 0, 0x19c: 0,  // Speed and temperature
        MSR.debugControl: 0,
        0x1db: 0, 0x1dc: 0, 0x1dd: 0, 0x1de: 0,  // Last branch and exception
        0x606: 0, 0x611: 0, 0x619: 0, 0x639: 0, 0x641: 0,  // RAPL
        0xc001_001a: 0, 0xc001_001d: 0,  // AMD TOP_MEM, TOP_MEM2
        0xc001_0020: 0,  // AMD PATCH_LOADER
        0xc001_0058: 0,  // AMD MMIO_CFG_BASE
        0xc001_0062: 0, 0xc001_0063: 0, 0xc001_0064: 0,  // AMD P-states
        0xc001_0114: 0,  // AMD VM_CR
        0xc001_0140: 0, 0xc001_0141: 0,  // AMD OSVW
    ]

    /// Read as this; a write is #GP.
    private static let readOnly: [UInt32: UInt64] = [
        MSR.featureControl: 1,  // Locked, nothing enabled
        MSR.mtrrCapability: 0x508,  // Eight variable ranges, the fixed ones, write-combining
        MSR.machineCheckCapability: 0,  // No banks
    ]

    /// Remember what is written.
    private static let remembered: [UInt32: UInt64] = [
        MSR.machineCheckStatus: 0,
        0xc001_0010: 0,  // AMD SYSCFG
        0xc001_0015: 1 << 24,  // AMD HWCR: the TSC counts at the nominal frequency
        0xc001_001f: 0,  // AMD NB_CFG
        0xc001_0055: 0,  // AMD interrupt pending
        0xc001_1020: 0, 0xc001_1022: 0, 0xc001_1023: 0, 0xc001_102a: 0,  // AMD LS, DC, BU configuration
        0xc001_1029: 2,  // AMD DE_CFG: LFENCE serializes
    ]

    private static let fixedMTRRs: [UInt32] = [0x250, 0x258, 0x259] + Array(0x268...0x26f)

    /// RAM is write-back, and the rest does not matter to us.
    private static var initial: [UInt32: UInt64] {
        var values = remembered
        for index in fixedMTRRs { values[index] = 0x0606_0606_0606_0606 }
        for index in MSR.mtrrVariableFirst...MSR.mtrrVariableLast { values[index] = 0 }
        return values
    }

    private let values = Mutex(initial)

    func reset() { values.withLock { $0 = Self.initial } }

    /// Nil: #GP.
    func read(_ index: UInt32) -> UInt64? {
        Self.constants[index] ?? Self.readOnly[index] ?? values.withLock { $0[index] }
    }

    /// Whether it may be written so; if not, #GP.
    func write(_ index: UInt32, _ value: UInt64) -> Bool {
        // IBPB, write-only: we keep no predictions from one program to another.
        if index == MSR.predictionCommand { return value & ~1 == 0 }
        if Self.constants[index] != nil { return true }
        guard Self.isValid(index, value) else { return false }
        return values.withLock { values in
            guard values[index] != nil else { return false }
            values[index] = value
            return true
        }
    }

    /// Memory types 2, 3 and above 6 are reserved (SDM 3A, 12.11.2.1).
    private static func isValid(_ index: UInt32, _ value: UInt64) -> Bool {
        func isType(_ byte: UInt64) -> Bool { [0, 1, 4, 5, 6].contains(byte & 0xff) }
        if fixedMTRRs.contains(index) { return (0..<8).allSatisfy { isType(value >> ($0 * 8)) } }
        guard (MSR.mtrrVariableFirst...MSR.mtrrVariableLast).contains(index) else { return true }
        return index & 1 == 0 ? value & 0xf00 == 0 && isType(value) : value & 0x7ff == 0
    }
}
//:
