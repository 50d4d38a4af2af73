// Constants here are computed properties: the compiler folds an inlinable getter
// in another room, but reads a stored constant there through a call and a lock.

/// General registers by their number in an instruction (SDM 2, table 2-1).
public enum Register {
    @inlinable public static var rax: Int { 0 }
    @inlinable public static var rcx: Int { 1 }
    @inlinable public static var rdx: Int { 2 }
    @inlinable public static var rbx: Int { 3 }
    @inlinable public static var rsp: Int { 4 }
    @inlinable public static var rbp: Int { 5 }
    @inlinable public static var rsi: Int { 6 }
    @inlinable public static var rdi: Int { 7 }
}

/// Bits of RFLAGS (SDM 1, 3.4.3).
public enum RFlags {
    @inlinable public static var carry: UInt64 { 1 << 0 }
    @inlinable public static var alwaysOne: UInt64 { 1 << 1 }
    @inlinable public static var parity: UInt64 { 1 << 2 }
    @inlinable public static var auxiliary: UInt64 { 1 << 4 }
    @inlinable public static var zero: UInt64 { 1 << 6 }
    @inlinable public static var sign: UInt64 { 1 << 7 }
    @inlinable public static var trap: UInt64 { 1 << 8 }
    @inlinable public static var interrupt: UInt64 { 1 << 9 }
    @inlinable public static var direction: UInt64 { 1 << 10 }
    @inlinable public static var overflow: UInt64 { 1 << 11 }
    @inlinable public static var ioPrivilege: UInt64 { 3 << 12 }
    @inlinable public static var nestedTask: UInt64 { 1 << 14 }
    @inlinable public static var resume: UInt64 { 1 << 16 }
    @inlinable public static var virtual8086: UInt64 { 1 << 17 }
    @inlinable public static var alignmentCheck: UInt64 { 1 << 18 }
    @inlinable public static var virtualInterrupt: UInt64 { 1 << 19 }
    @inlinable public static var virtualInterruptPending: UInt64 { 1 << 20 }
    @inlinable public static var identification: UInt64 { 1 << 21 }

    /// The six that arithmetic sets.
    @inlinable public static var arithmetic: UInt64 { carry | parity | auxiliary | zero | sign | overflow }
    /// All that a program may ever set.
    @inlinable public static var writable: UInt64 {
        arithmetic | trap | interrupt | direction | ioPrivilege | nestedTask | resume | virtual8086 | alignmentCheck
            | virtualInterrupt | virtualInterruptPending | identification
    }
}

/// Bits of CR0 (SDM 3A, 2.5).
public enum CR0 {
    @inlinable public static var protectedMode: UInt64 { 1 << 0 }
    @inlinable public static var monitorCoprocessor: UInt64 { 1 << 1 }
    @inlinable public static var emulation: UInt64 { 1 << 2 }
    @inlinable public static var taskSwitched: UInt64 { 1 << 3 }
    @inlinable public static var extensionType: UInt64 { 1 << 4 }
    @inlinable public static var numericError: UInt64 { 1 << 5 }
    @inlinable public static var writeProtect: UInt64 { 1 << 16 }
    @inlinable public static var alignmentMask: UInt64 { 1 << 18 }
    @inlinable public static var notWriteThrough: UInt64 { 1 << 29 }
    @inlinable public static var cacheDisable: UInt64 { 1 << 30 }
    @inlinable public static var paging: UInt64 { 1 << 31 }
}

/// Bits of CR4 (SDM 3A, 2.5).
public enum CR4 {
    @inlinable public static var virtual8086Extensions: UInt64 { 1 << 0 }
    @inlinable public static var protectedModeVirtualInterrupts: UInt64 { 1 << 1 }
    @inlinable public static var timeStampDisable: UInt64 { 1 << 2 }
    @inlinable public static var debuggingExtensions: UInt64 { 1 << 3 }
    @inlinable public static var pageSizeExtensions: UInt64 { 1 << 4 }
    @inlinable public static var physicalAddressExtension: UInt64 { 1 << 5 }
    @inlinable public static var machineCheck: UInt64 { 1 << 6 }
    @inlinable public static var globalPages: UInt64 { 1 << 7 }
    @inlinable public static var performanceCounters: UInt64 { 1 << 8 }
    @inlinable public static var osFXSR: UInt64 { 1 << 9 }
    @inlinable public static var osXMMExceptions: UInt64 { 1 << 10 }
    @inlinable public static var umip: UInt64 { 1 << 11 }
    @inlinable public static var fsGSBase: UInt64 { 1 << 16 }
    @inlinable public static var pcid: UInt64 { 1 << 17 }
    @inlinable public static var osXSave: UInt64 { 1 << 18 }
    @inlinable public static var smep: UInt64 { 1 << 20 }
    @inlinable public static var smap: UInt64 { 1 << 21 }
}

/// Bits of IA32_EFER (SDM 3A, 2.2.1).
public enum EFER {
    @inlinable public static var systemCallEnable: UInt64 { 1 << 0 }
    @inlinable public static var longModeEnable: UInt64 { 1 << 8 }
    @inlinable public static var longModeActive: UInt64 { 1 << 10 }
    @inlinable public static var noExecuteEnable: UInt64 { 1 << 11 }
    @inlinable public static var automaticIBRS: UInt64 { 1 << 21 }
}

/// Model-specific registers that the machine knows, by their numbers in SDM 4 and AMD APM 2.
public enum MSR {
    @inlinable public static var timeStampCounter: UInt32 { 0x10 }
    @inlinable public static var platformID: UInt32 { 0x17 }
    @inlinable public static var apicBase: UInt32 { 0x1b }
    @inlinable public static var featureControl: UInt32 { 0x3a }
    @inlinable public static var tscAdjust: UInt32 { 0x3b }
    @inlinable public static var speculationControl: UInt32 { 0x48 }
    @inlinable public static var predictionCommand: UInt32 { 0x49 }
    @inlinable public static var biosSignature: UInt32 { 0x8b }
    @inlinable public static var mtrrCapability: UInt32 { 0xfe }
    @inlinable public static var archCapabilities: UInt32 { 0x10a }
    @inlinable public static var sysenterCS: UInt32 { 0x174 }
    @inlinable public static var sysenterESP: UInt32 { 0x175 }
    @inlinable public static var sysenterEIP: UInt32 { 0x176 }
    @inlinable public static var machineCheckCapability: UInt32 { 0x179 }
    @inlinable public static var machineCheckStatus: UInt32 { 0x17a }
    @inlinable public static var miscEnable: UInt32 { 0x1a0 }
    @inlinable public static var debugControl: UInt32 { 0x1d9 }
    @inlinable public static var mtrrVariableFirst: UInt32 { 0x200 }
    @inlinable public static var mtrrVariableLast: UInt32 { 0x20f }
    @inlinable public static var pat: UInt32 { 0x277 }
    @inlinable public static var mtrrDefaultType: UInt32 { 0x2ff }
    @inlinable public static var tscDeadline: UInt32 { 0x6e0 }
    @inlinable public static var x2apicFirst: UInt32 { 0x800 }
    @inlinable public static var x2apicTaskPriority: UInt32 { 0x808 }
    @inlinable public static var x2apicLast: UInt32 { 0x8ff }
    @inlinable public static var efer: UInt32 { 0xc000_0080 }
    @inlinable public static var star: UInt32 { 0xc000_0081 }
    @inlinable public static var lstar: UInt32 { 0xc000_0082 }
    @inlinable public static var cstar: UInt32 { 0xc000_0083 }
    @inlinable public static var syscallMask: UInt32 { 0xc000_0084 }
    @inlinable public static var fsBase: UInt32 { 0xc000_0100 }
    @inlinable public static var gsBase: UInt32 { 0xc000_0101 }
    @inlinable public static var kernelGSBase: UInt32 { 0xc000_0102 }
    @inlinable public static var tscAux: UInt32 { 0xc000_0103 }
    /// KVM's paravirtual clock (Linux Documentation/virt/kvm/x86/msr.rst).
    @inlinable public static var kvmWallClock: UInt32 { 0x4b56_4d00 }
    @inlinable public static var kvmSystemTime: UInt32 { 0x4b56_4d01 }
}
