// Constants here are computed properties: the compiler folds an inlinable getter
// in another room, but reads a stored constant there through a call and a lock.

/// General registers by their number in an instruction (SDM 2, table 2-1).
package enum Register {
    @_transparent package static var rax: Int { 0 }
    @_transparent package static var rcx: Int { 1 }
    @_transparent package static var rdx: Int { 2 }
    @_transparent package static var rbx: Int { 3 }
    @_transparent package static var rsp: Int { 4 }
    @_transparent package static var rbp: Int { 5 }
    @_transparent package static var rsi: Int { 6 }
    @_transparent package static var rdi: Int { 7 }
}

/// Bits of RFLAGS (SDM 1, 3.4.3).
package enum RFlags {
    @_transparent package static var carry: UInt64 { 1 << 0 }
    @_transparent package static var alwaysOne: UInt64 { 1 << 1 }
    @_transparent package static var parity: UInt64 { 1 << 2 }
    @_transparent package static var auxiliary: UInt64 { 1 << 4 }
    @_transparent package static var zero: UInt64 { 1 << 6 }
    @_transparent package static var sign: UInt64 { 1 << 7 }
    @_transparent package static var trap: UInt64 { 1 << 8 }
    @_transparent package static var interrupt: UInt64 { 1 << 9 }
    @_transparent package static var direction: UInt64 { 1 << 10 }
    @_transparent package static var overflow: UInt64 { 1 << 11 }
    @_transparent package static var ioPrivilege: UInt64 { 3 << 12 }
    @_transparent package static var nestedTask: UInt64 { 1 << 14 }
    @_transparent package static var resume: UInt64 { 1 << 16 }
    @_transparent package static var virtual8086: UInt64 { 1 << 17 }
    @_transparent package static var alignmentCheck: UInt64 { 1 << 18 }
    @_transparent package static var virtualInterrupt: UInt64 { 1 << 19 }
    @_transparent package static var virtualInterruptPending: UInt64 { 1 << 20 }
    @_transparent package static var identification: UInt64 { 1 << 21 }

    /// The six that arithmetic sets.
    @_transparent package static var arithmetic: UInt64 { carry | parity | auxiliary | zero | sign | overflow }
    /// All that a program may ever set.
    @_transparent package static var writable: UInt64 {
        arithmetic | trap | interrupt | direction | ioPrivilege | nestedTask | resume | virtual8086 | alignmentCheck
        | virtualInterrupt | virtualInterruptPending | identification
    }
}

/// Bits of CR0 (SDM 3A, 2.5).
package enum CR0 {
    @_transparent package static var protectedMode: UInt64 { 1 << 0 }
    @_transparent package static var monitorCoprocessor: UInt64 { 1 << 1 }
    @_transparent package static var emulation: UInt64 { 1 << 2 }
    @_transparent package static var taskSwitched: UInt64 { 1 << 3 }
    @_transparent package static var extensionType: UInt64 { 1 << 4 }
    @_transparent package static var numericError: UInt64 { 1 << 5 }
    @_transparent package static var writeProtect: UInt64 { 1 << 16 }
    @_transparent package static var alignmentMask: UInt64 { 1 << 18 }
    @_transparent package static var notWriteThrough: UInt64 { 1 << 29 }
    @_transparent package static var cacheDisable: UInt64 { 1 << 30 }
    @_transparent package static var paging: UInt64 { 1 << 31 }
}

/// Bits of CR4 (SDM 3A, 2.5).
package enum CR4 {
    @_transparent package static var virtual8086Extensions: UInt64 { 1 << 0 }
    @_transparent package static var protectedModeVirtualInterrupts: UInt64 { 1 << 1 }
    @_transparent package static var timeStampDisable: UInt64 { 1 << 2 }
    @_transparent package static var debuggingExtensions: UInt64 { 1 << 3 }
    @_transparent package static var pageSizeExtensions: UInt64 { 1 << 4 }
    @_transparent package static var physicalAddressExtension: UInt64 { 1 << 5 }
    @_transparent package static var machineCheck: UInt64 { 1 << 6 }
    @_transparent package static var globalPages: UInt64 { 1 << 7 }
    @_transparent package static var performanceCounters: UInt64 { 1 << 8 }
    @_transparent package static var osFXSR: UInt64 { 1 << 9 }
    @_transparent package static var osXMMExceptions: UInt64 { 1 << 10 }
    @_transparent package static var umip: UInt64 { 1 << 11 }
    @_transparent package static var fsGSBase: UInt64 { 1 << 16 }
    @_transparent package static var pcid: UInt64 { 1 << 17 }
    @_transparent package static var osXSave: UInt64 { 1 << 18 }
    @_transparent package static var smep: UInt64 { 1 << 20 }
    @_transparent package static var smap: UInt64 { 1 << 21 }
}

/// Bits of IA32_EFER (SDM 3A, 2.2.1).
package enum EFER {
    @_transparent package static var systemCallEnable: UInt64 { 1 << 0 }
    @_transparent package static var longModeEnable: UInt64 { 1 << 8 }
    @_transparent package static var longModeActive: UInt64 { 1 << 10 }
    @_transparent package static var noExecuteEnable: UInt64 { 1 << 11 }
}

/// Model-specific registers that the machine knows, by their numbers in SDM 4 and AMD APM 2.
package enum MSR {
    @_transparent package static var timeStampCounter: UInt32 { 0x10 }
    @_transparent package static var platformID: UInt32 { 0x17 }
    @_transparent package static var apicBase: UInt32 { 0x1b }
    @_transparent package static var featureControl: UInt32 { 0x3a }
    @_transparent package static var tscAdjust: UInt32 { 0x3b }
    @_transparent package static var speculationControl: UInt32 { 0x48 }
    @_transparent package static var predictionCommand: UInt32 { 0x49 }
    @_transparent package static var biosSignature: UInt32 { 0x8b }
    @_transparent package static var mtrrCapability: UInt32 { 0xfe }
    @_transparent package static var archCapabilities: UInt32 { 0x10a }
    @_transparent package static var sysenterCS: UInt32 { 0x174 }
    @_transparent package static var sysenterESP: UInt32 { 0x175 }
    @_transparent package static var sysenterEIP: UInt32 { 0x176 }
    @_transparent package static var machineCheckCapability: UInt32 { 0x179 }
    @_transparent package static var machineCheckStatus: UInt32 { 0x17a }
    @_transparent package static var miscEnable: UInt32 { 0x1a0 }
    @_transparent package static var debugControl: UInt32 { 0x1d9 }
    @_transparent package static var mtrrVariableFirst: UInt32 { 0x200 }
    @_transparent package static var mtrrVariableLast: UInt32 { 0x20f }
    @_transparent package static var pat: UInt32 { 0x277 }
    @_transparent package static var mtrrDefaultType: UInt32 { 0x2ff }
    @_transparent package static var tscDeadline: UInt32 { 0x6e0 }
    @_transparent package static var x2apicFirst: UInt32 { 0x800 }
    @_transparent package static var x2apicTaskPriority: UInt32 { 0x808 }
    @_transparent package static var x2apicLast: UInt32 { 0x8ff }
    @_transparent package static var efer: UInt32 { 0xc000_0080 }
    @_transparent package static var star: UInt32 { 0xc000_0081 }
    @_transparent package static var lstar: UInt32 { 0xc000_0082 }
    @_transparent package static var cstar: UInt32 { 0xc000_0083 }
    @_transparent package static var syscallMask: UInt32 { 0xc000_0084 }
    @_transparent package static var fsBase: UInt32 { 0xc000_0100 }
    @_transparent package static var gsBase: UInt32 { 0xc000_0101 }
    @_transparent package static var kernelGSBase: UInt32 { 0xc000_0102 }
    @_transparent package static var tscAux: UInt32 { 0xc000_0103 }
    /// KVM's paravirtual clock (Linux Documentation/virt/kvm/x86/msr.rst).
    @_transparent package static var kvmWallClock: UInt32 { 0x4b56_4d00 }
    @_transparent package static var kvmSystemTime: UInt32 { 0x4b56_4d01 }
}
