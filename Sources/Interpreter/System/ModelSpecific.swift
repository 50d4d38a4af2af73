internal import CZydis
internal import HostInterface
internal import VirtualCPU
internal import X86

// RDMSR, WRMSR, CPUID, RDTSC(P), RDPID, RDPMC. MSRs that are not the CPU's
// own, those of the APIC and the paravirtual ones, are the Host's business.

extension LoweringTable {
    mutating func addModelSpecific() {
        unsafe self[ZYDIS_MNEMONIC_RDMSR] = { _ in unsafe Handlers.rdmsr }
        unsafe self[ZYDIS_MNEMONIC_WRMSR] = { lowering in
            lowering.endsBlock = true
            return unsafe Handlers.wrmsr
        }
        unsafe self[ZYDIS_MNEMONIC_CPUID] = { _ in unsafe Handlers.cpuid }
        unsafe self[ZYDIS_MNEMONIC_RDTSC] = { _ in unsafe Handlers.rdtsc }
        unsafe self[ZYDIS_MNEMONIC_RDTSCP] = { _ in unsafe Handlers.rdtscp }
        unsafe self[ZYDIS_MNEMONIC_RDPID] = { lowering in
            unsafe lowering.record.r1 = lowering.gpr(0) ?? 0
            return unsafe Handlers.rdpid
        }
        unsafe self[ZYDIS_MNEMONIC_RDPMC] = { _ in unsafe Handlers.generalProtection }
    }
}

extension CPU {
    var timeStamp: UInt64 { HostClock.timeStampCounter &+ state.tscOffset }

    /// An address that an MSR holds must be canonical.
    private func canonical(_ value: UInt64) throws(Stop) -> UInt64 {
        if !isCanonical(value) { throw generalProtection() }
        return value
    }

    func readModelSpecific() throws(Stop) {
        try requireSupervisor()
        let number = UInt32(truncatingIfNeeded: rcx)
        let value: UInt64
        switch number {
        case MSR.timeStampCounter: value = timeStamp
        case MSR.tscAdjust: value = state.tscAdjust
        case MSR.efer: value = state.efer
        case MSR.star: value = state.star
        case MSR.lstar: value = state.lstar
        case MSR.cstar: value = state.cstar
        case MSR.syscallMask: value = state.syscallMask
        case MSR.fsBase: value = state.segments[SegmentName.fs].base
        case MSR.gsBase: value = state.segments[SegmentName.gs].base
        case MSR.kernelGSBase: value = state.kernelGSBase
        case MSR.tscAux: value = state.tscAux
        case MSR.sysenterCS: value = state.sysenterCS
        case MSR.sysenterESP: value = state.sysenterESP
        case MSR.sysenterEIP: value = state.sysenterEIP
        case MSR.pat: value = state.pat
        case MSR.mtrrDefaultType: value = state.mtrrDefaultType
        case MSR.miscEnable: value = state.miscEnable
        case MSR.speculationControl: value = state.speculationControl
        case MSR.archCapabilities: value = CPUFeatures.archCapabilities
        default: value = try ask(.readMSR(number))
        }
        self[Register.rax] = value & 0xffff_ffff
        self[Register.rdx] = value >> 32
    }

    func writeModelSpecific() throws(Stop) {
        try requireSupervisor()
        let number = UInt32(truncatingIfNeeded: rcx)
        let value = self[Register.rdx] &<< 32 | self[Register.rax] & 0xffff_ffff
        switch number {
        case MSR.timeStampCounter:
            // The adjustment moves along (SDM 3B, 17.17.3).
            let change = value &- timeStamp
            state.tscOffset &+= change
            state.tscAdjust &+= change
        case MSR.tscAdjust:
            state.tscOffset &+= value &- state.tscAdjust
            state.tscAdjust = value
        case MSR.efer:
            if value & ~owner.features.eferMask != 0 { throw generalProtection() }
            if (value ^ state.efer) & EFER.longModeEnable != 0 && state.cr0 & CR0.paging != 0 {
                throw generalProtection()
            }
            let old = state.efer
            state.efer = value & ~EFER.longModeActive | old & EFER.longModeActive
            if (old ^ value) & EFER.noExecuteEnable != 0 { flushTLB() }
            modeChanged()
            owner.accelerator?.systemCallsChanged()
        case MSR.star:
            state.star = value
            owner.accelerator?.systemCallsChanged()
        case MSR.lstar: state.lstar = try canonical(value)
        case MSR.cstar: state.cstar = try canonical(value)
        case MSR.syscallMask:
            state.syscallMask = value & 0xffff_ffff
            owner.accelerator?.systemCallsChanged()
        case MSR.fsBase: setSegmentBase(SegmentName.fs, try canonical(value))
        case MSR.gsBase: setSegmentBase(SegmentName.gs, try canonical(value))
        case MSR.kernelGSBase: state.kernelGSBase = try canonical(value)
        case MSR.tscAux:
            if value >> 32 != 0 { throw generalProtection() }
            state.tscAux = value
        case MSR.sysenterCS: state.sysenterCS = value & 0xffff
        case MSR.sysenterESP: state.sysenterESP = try canonical(value)
        case MSR.sysenterEIP: state.sysenterEIP = try canonical(value)
        case MSR.pat:
            // Each byte a type: 0, 1, 4, 5, 6 or 7.
            for byte in 0..<8 where ![0, 1, 4, 5, 6, 7].contains(value >> UInt64(byte * 8) & 0xff) {
                throw generalProtection()
            }
            state.pat = value
        case MSR.mtrrDefaultType: state.mtrrDefaultType = value & 0xcff
        case MSR.miscEnable: state.miscEnable = value
        case MSR.speculationControl:
            if value & ~owner.features.speculationControlMask != 0 { throw generalProtection() }
            state.speculationControl = value
        case MSR.archCapabilities: throw generalProtection()
        default: _ = try ask(.writeMSR(number, value: value))
        }
    }

    func setSegmentBase(_ segment: Int, _ base: UInt64) {
        state.segments[segment].base = base
        self[AddressSlot.segmentBases + segment] = base
    }

    func identify() {
        let leaf = owner.features.leaf(
            UInt32(truncatingIfNeeded: self[Register.rax]), UInt32(truncatingIfNeeded: rcx),
            cr4: state.cr4, xcr0: state.xcr0, tscFrequency: HostClock.timeStampFrequency)
        self[Register.rax] = UInt64(leaf.eax)
        self[Register.rbx] = UInt64(leaf.ebx)
        rcx = UInt64(leaf.ecx)
        self[Register.rdx] = UInt64(leaf.edx)
    }

    func readTimeStamp() throws(Stop) {
        if unsafe core.privilege != 0 && state.cr4 & CR4.timeStampDisable != 0 { throw generalProtection() }
        let value = timeStamp
        self[Register.rax] = value & 0xffff_ffff
        self[Register.rdx] = value >> 32
    }
}

extension Handlers {
    static let rdmsr: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in try cpu.readModelSpecific() } }
    static let wrmsr: Handler = { unsafe performLast($0, $1) { cpu, i throws(Stop) in try cpu.writeModelSpecific() } }
    static let cpuid: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in cpu.identify() } }
    static let rdtsc: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in try cpu.readTimeStamp() } }
    static let rdtscp: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in
            try cpu.readTimeStamp()
            cpu.rcx = cpu.state.tscAux
        }
    }
    static let rdpid: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in
            unsafe cpu.setRegister(i.pointee.r1, cpu.state.tscAux)
        }
    }
    static let generalProtection: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in throw cpu.generalProtection() }
    }
}
