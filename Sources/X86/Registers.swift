/// General registers by their number in an instruction (SDM 2, table 2-1).
package enum Register {
    package static let rax = 0, rcx = 1, rdx = 2, rbx = 3, rsp = 4, rbp = 5, rsi = 6, rdi = 7
}

/// Bits of RFLAGS (SDM 1, 3.4.3).
package enum RFlags {
    package static let carry: UInt64 = 1 << 0
    package static let alwaysOne: UInt64 = 1 << 1
    package static let parity: UInt64 = 1 << 2
    package static let auxiliary: UInt64 = 1 << 4
    package static let zero: UInt64 = 1 << 6
    package static let sign: UInt64 = 1 << 7
    package static let trap: UInt64 = 1 << 8
    package static let interrupt: UInt64 = 1 << 9
    package static let direction: UInt64 = 1 << 10
    package static let overflow: UInt64 = 1 << 11
    package static let ioPrivilege: UInt64 = 3 << 12
    package static let nestedTask: UInt64 = 1 << 14
    package static let resume: UInt64 = 1 << 16
    package static let virtual8086: UInt64 = 1 << 17
    package static let alignmentCheck: UInt64 = 1 << 18
    package static let virtualInterrupt: UInt64 = 1 << 19
    package static let virtualInterruptPending: UInt64 = 1 << 20
    package static let identification: UInt64 = 1 << 21

    /// The six that arithmetic sets.
    package static let arithmetic: UInt64 = carry | parity | auxiliary | zero | sign | overflow
    /// All that a program may ever set.
    package static let writable: UInt64 =
        arithmetic | trap | interrupt | direction | ioPrivilege | nestedTask | resume | virtual8086 | alignmentCheck
        | virtualInterrupt | virtualInterruptPending | identification
}

/// Bits of CR0 (SDM 3A, 2.5).
package enum CR0 {
    package static let protectedMode: UInt64 = 1 << 0
    package static let monitorCoprocessor: UInt64 = 1 << 1
    package static let emulation: UInt64 = 1 << 2
    package static let taskSwitched: UInt64 = 1 << 3
    package static let extensionType: UInt64 = 1 << 4
    package static let numericError: UInt64 = 1 << 5
    package static let writeProtect: UInt64 = 1 << 16
    package static let alignmentMask: UInt64 = 1 << 18
    package static let notWriteThrough: UInt64 = 1 << 29
    package static let cacheDisable: UInt64 = 1 << 30
    package static let paging: UInt64 = 1 << 31
}

/// Bits of CR4 (SDM 3A, 2.5).
package enum CR4 {
    package static let virtual8086Extensions: UInt64 = 1 << 0
    package static let protectedModeVirtualInterrupts: UInt64 = 1 << 1
    package static let timeStampDisable: UInt64 = 1 << 2
    package static let debuggingExtensions: UInt64 = 1 << 3
    package static let pageSizeExtensions: UInt64 = 1 << 4
    package static let physicalAddressExtension: UInt64 = 1 << 5
    package static let machineCheck: UInt64 = 1 << 6
    package static let globalPages: UInt64 = 1 << 7
    package static let performanceCounters: UInt64 = 1 << 8
    package static let osFXSR: UInt64 = 1 << 9
    package static let osXMMExceptions: UInt64 = 1 << 10
    package static let umip: UInt64 = 1 << 11
    package static let fsGSBase: UInt64 = 1 << 16
    package static let pcid: UInt64 = 1 << 17
    package static let osXSave: UInt64 = 1 << 18
    package static let smep: UInt64 = 1 << 20
    package static let smap: UInt64 = 1 << 21
}

/// Bits of IA32_EFER (SDM 3A, 2.2.1).
package enum EFER {
    package static let systemCallEnable: UInt64 = 1 << 0
    package static let longModeEnable: UInt64 = 1 << 8
    package static let longModeActive: UInt64 = 1 << 10
    package static let noExecuteEnable: UInt64 = 1 << 11
}

/// Model-specific registers that the machine knows, by their numbers in SDM 4 and AMD APM 2.
package enum MSR {
    package static let timeStampCounter: UInt32 = 0x10
    package static let platformID: UInt32 = 0x17
    package static let apicBase: UInt32 = 0x1b
    package static let featureControl: UInt32 = 0x3a
    package static let tscAdjust: UInt32 = 0x3b
    package static let speculationControl: UInt32 = 0x48
    package static let predictionCommand: UInt32 = 0x49
    package static let biosSignature: UInt32 = 0x8b
    package static let mtrrCapability: UInt32 = 0xfe
    package static let archCapabilities: UInt32 = 0x10a
    package static let sysenterCS: UInt32 = 0x174
    package static let sysenterESP: UInt32 = 0x175
    package static let sysenterEIP: UInt32 = 0x176
    package static let machineCheckCapability: UInt32 = 0x179
    package static let machineCheckStatus: UInt32 = 0x17a
    package static let miscEnable: UInt32 = 0x1a0
    package static let debugControl: UInt32 = 0x1d9
    package static let mtrrVariableFirst: UInt32 = 0x200
    package static let mtrrVariableLast: UInt32 = 0x20f
    package static let pat: UInt32 = 0x277
    package static let mtrrDefaultType: UInt32 = 0x2ff
    package static let tscDeadline: UInt32 = 0x6e0
    package static let x2apicFirst: UInt32 = 0x800
    package static let x2apicTaskPriority: UInt32 = 0x808
    package static let x2apicLast: UInt32 = 0x8ff
    package static let efer: UInt32 = 0xc000_0080
    package static let star: UInt32 = 0xc000_0081
    package static let lstar: UInt32 = 0xc000_0082
    package static let cstar: UInt32 = 0xc000_0083
    package static let syscallMask: UInt32 = 0xc000_0084
    package static let fsBase: UInt32 = 0xc000_0100
    package static let gsBase: UInt32 = 0xc000_0101
    package static let kernelGSBase: UInt32 = 0xc000_0102
    package static let tscAux: UInt32 = 0xc000_0103
    /// KVM's paravirtual clock (Linux Documentation/virt/kvm/x86/msr.rst).
    package static let kvmWallClock: UInt32 = 0x4b56_4d00
    package static let kvmSystemTime: UInt32 = 0x4b56_4d01
}
