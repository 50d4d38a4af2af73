// Constants here are computed properties: the compiler folds an inlinable getter
// in another room, but reads a stored constant there through a call and a lock.

/// General registers by their number in an instruction (SDM 2, table 2-1).
package enum Register {
    @inlinable package static var rax: Int { 0 }
    @inlinable package static var rcx: Int { 1 }
    @inlinable package static var rdx: Int { 2 }
    @inlinable package static var rbx: Int { 3 }
    @inlinable package static var rsp: Int { 4 }
    @inlinable package static var rbp: Int { 5 }
    @inlinable package static var rsi: Int { 6 }
    @inlinable package static var rdi: Int { 7 }
}

/// Bits of RFLAGS (SDM 1, 3.4.3).
package enum RFlags {
    @inlinable package static var carry: UInt64 { 1 << 0 }
    @inlinable package static var alwaysOne: UInt64 { 1 << 1 }
    @inlinable package static var parity: UInt64 { 1 << 2 }
    @inlinable package static var auxiliary: UInt64 { 1 << 4 }
    @inlinable package static var zero: UInt64 { 1 << 6 }
    @inlinable package static var sign: UInt64 { 1 << 7 }
    @inlinable package static var trap: UInt64 { 1 << 8 }
    @inlinable package static var interrupt: UInt64 { 1 << 9 }
    @inlinable package static var direction: UInt64 { 1 << 10 }
    @inlinable package static var overflow: UInt64 { 1 << 11 }
    @inlinable package static var ioPrivilege: UInt64 { 3 << 12 }
    @inlinable package static var nestedTask: UInt64 { 1 << 14 }
    @inlinable package static var resume: UInt64 { 1 << 16 }
    @inlinable package static var virtual8086: UInt64 { 1 << 17 }
    @inlinable package static var alignmentCheck: UInt64 { 1 << 18 }
    @inlinable package static var virtualInterrupt: UInt64 { 1 << 19 }
    @inlinable package static var virtualInterruptPending: UInt64 { 1 << 20 }
    @inlinable package static var identification: UInt64 { 1 << 21 }

    /// The six that arithmetic sets.
    @inlinable package static var arithmetic: UInt64 { carry | parity | auxiliary | zero | sign | overflow }
    /// All that a program may ever set.
    @inlinable package static var writable: UInt64 {
        arithmetic | trap | interrupt | direction | ioPrivilege | nestedTask | resume | virtual8086 | alignmentCheck
            | virtualInterrupt | virtualInterruptPending | identification
    }
}

/// Bits of CR0 (SDM 3A, 2.5).
package enum CR0 {
    @inlinable package static var protectedMode: UInt64 { 1 << 0 }
    @inlinable package static var monitorCoprocessor: UInt64 { 1 << 1 }
    @inlinable package static var emulation: UInt64 { 1 << 2 }
    @inlinable package static var taskSwitched: UInt64 { 1 << 3 }
    @inlinable package static var extensionType: UInt64 { 1 << 4 }
    @inlinable package static var numericError: UInt64 { 1 << 5 }
    @inlinable package static var writeProtect: UInt64 { 1 << 16 }
    @inlinable package static var alignmentMask: UInt64 { 1 << 18 }
    @inlinable package static var notWriteThrough: UInt64 { 1 << 29 }
    @inlinable package static var cacheDisable: UInt64 { 1 << 30 }
    @inlinable package static var paging: UInt64 { 1 << 31 }
}

/// Bits of CR4 (SDM 3A, 2.5).
package enum CR4 {
    @inlinable package static var virtual8086Extensions: UInt64 { 1 << 0 }
    @inlinable package static var protectedModeVirtualInterrupts: UInt64 { 1 << 1 }
    @inlinable package static var timeStampDisable: UInt64 { 1 << 2 }
    @inlinable package static var debuggingExtensions: UInt64 { 1 << 3 }
    @inlinable package static var pageSizeExtensions: UInt64 { 1 << 4 }
    @inlinable package static var physicalAddressExtension: UInt64 { 1 << 5 }
    @inlinable package static var machineCheck: UInt64 { 1 << 6 }
    @inlinable package static var globalPages: UInt64 { 1 << 7 }
    @inlinable package static var performanceCounters: UInt64 { 1 << 8 }
    @inlinable package static var osFXSR: UInt64 { 1 << 9 }
    @inlinable package static var osXMMExceptions: UInt64 { 1 << 10 }
    @inlinable package static var umip: UInt64 { 1 << 11 }
    @inlinable package static var fsGSBase: UInt64 { 1 << 16 }
    @inlinable package static var pcid: UInt64 { 1 << 17 }
    @inlinable package static var osXSave: UInt64 { 1 << 18 }
    @inlinable package static var smep: UInt64 { 1 << 20 }
    @inlinable package static var smap: UInt64 { 1 << 21 }
}

/// Bits of IA32_EFER (SDM 3A, 2.2.1).
package enum EFER {
    @inlinable package static var systemCallEnable: UInt64 { 1 << 0 }
    @inlinable package static var longModeEnable: UInt64 { 1 << 8 }
    @inlinable package static var longModeActive: UInt64 { 1 << 10 }
    @inlinable package static var noExecuteEnable: UInt64 { 1 << 11 }
    @inlinable package static var automaticIBRS: UInt64 { 1 << 21 }
}

/// Model-specific registers that the machine knows, by their numbers in SDM 4 and AMD APM 2.
package enum MSR {
    @inlinable package static var timeStampCounter: UInt32 { 0x10 }
    @inlinable package static var platformID: UInt32 { 0x17 }
    @inlinable package static var apicBase: UInt32 { 0x1b }
    @inlinable package static var featureControl: UInt32 { 0x3a }
    @inlinable package static var tscAdjust: UInt32 { 0x3b }
    @inlinable package static var speculationControl: UInt32 { 0x48 }
    @inlinable package static var predictionCommand: UInt32 { 0x49 }
    @inlinable package static var biosSignature: UInt32 { 0x8b }
    @inlinable package static var mtrrCapability: UInt32 { 0xfe }
    @inlinable package static var archCapabilities: UInt32 { 0x10a }
    @inlinable package static var sysenterCS: UInt32 { 0x174 }
    @inlinable package static var sysenterESP: UInt32 { 0x175 }
    @inlinable package static var sysenterEIP: UInt32 { 0x176 }
    @inlinable package static var machineCheckCapability: UInt32 { 0x179 }
    @inlinable package static var machineCheckStatus: UInt32 { 0x17a }
    @inlinable package static var miscEnable: UInt32 { 0x1a0 }
    @inlinable package static var debugControl: UInt32 { 0x1d9 }
    @inlinable package static var mtrrVariableFirst: UInt32 { 0x200 }
    @inlinable package static var mtrrVariableLast: UInt32 { 0x20f }
    @inlinable package static var pat: UInt32 { 0x277 }
    @inlinable package static var mtrrDefaultType: UInt32 { 0x2ff }
    @inlinable package static var tscDeadline: UInt32 { 0x6e0 }
    @inlinable package static var x2apicFirst: UInt32 { 0x800 }
    @inlinable package static var x2apicTaskPriority: UInt32 { 0x808 }
    @inlinable package static var x2apicLast: UInt32 { 0x8ff }
    @inlinable package static var efer: UInt32 { 0xc000_0080 }
    @inlinable package static var star: UInt32 { 0xc000_0081 }
    @inlinable package static var lstar: UInt32 { 0xc000_0082 }
    @inlinable package static var cstar: UInt32 { 0xc000_0083 }
    @inlinable package static var syscallMask: UInt32 { 0xc000_0084 }
    @inlinable package static var fsBase: UInt32 { 0xc000_0100 }
    @inlinable package static var gsBase: UInt32 { 0xc000_0101 }
    @inlinable package static var kernelGSBase: UInt32 { 0xc000_0102 }
    @inlinable package static var tscAux: UInt32 { 0xc000_0103 }
    /// KVM's paravirtual clock (Linux Documentation/virt/kvm/x86/msr.rst).
    @inlinable package static var kvmWallClock: UInt32 { 0x4b56_4d00 }
    @inlinable package static var kvmSystemTime: UInt32 { 0x4b56_4d01 }
}
