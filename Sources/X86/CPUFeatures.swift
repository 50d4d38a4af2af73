internal import CHost
package import CZydis

//S:060 What the Guest is told it runs on
//
// CPUID is a promise. The rule is: show what works, hide what does not. As
// vector and other rare instructions are run by the Host's own CPU, what
// works depends on the Host; what the engine does by itself (paging, system
// instructions, timers) it does everywhere. So the leaves below start from
// the Host's and are cut down to `visible`, then get what is ours.

/// What the Guest's CPUID offers, and so which instructions exist.
package struct CPUFeatures: Sendable {
    package static let forThisHost = CPUFeatures()

    /// The instruction sets that the Guest has.
    package let sets: ISAFeatures
    /// By `ZydisISASet`: offered.
    private let offered: [Bool]
    private let host: HostLeaves
    /// Of a second hypervisor interface, besides KVM's or instead of it.
    package var hypervisor = HypervisorLeaves()

    private init() {
        host = HostLeaves()
        isIntel = host.leaf0.ebx == 0x756e_6547
        let sets = ISAFeatures(
            leaf1ECX: host.leaf1.ecx, leaf7EBX: host.leaf7.ebx, extendedECX: host.extended1.ecx, xcr0: host.xcr0)
        self.sets = sets
        offered = (0...Int(ZYDIS_ISA_SET_MAX_VALUE.rawValue)).map { raw in
            sets.include(ZydisISASet(rawValue: UInt32(raw)))
        }
    }

    /// Whether instructions of this set may be used; others are invalid opcodes.
    package func offers(_ set: ZydisISASet) -> Bool { offered[Int(set.rawValue)] }

    /// Whose manual is followed where the vendors differ: GenuineIntel's, or AMD's for all others.
    package private(set) var isIntel: Bool

    /// The same instructions under one vendor's rules, whoever made the Host.
    package func followingRules(ofIntel: Bool) -> CPUFeatures {
        var other = self
        other.isIntel = ofIntel
        return other
    }

    /// XCR0 bits that the Guest may set: x87, SSE, and AVX where it is.
    package var xcr0Mask: UInt64 { sets.contains(.avx) ? 7 : 3 }

    /// Bits of CR4 that may be set; others are reserved.
    package var cr4Mask: UInt64 {
        CR4.timeStampDisable | CR4.debuggingExtensions | CR4.pageSizeExtensions | CR4.physicalAddressExtension
            | CR4.machineCheck | CR4.globalPages | CR4.performanceCounters | CR4.osFXSR | CR4.osXMMExceptions | CR4.umip
            | CR4.fsGSBase | CR4.pcid | CR4.osXSave | CR4.smep | CR4.smap
    }

    /// IA32_ARCH_CAPABILITIES: there is no speculation here that a Guest would
    /// have to guard against, so it need not pay for guards. RDCL_NO, IBRS_ALL,
    /// SKIP_L1DFL, SSB_NO, MDS_NO, PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO,
    /// FBSDP_NO, PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO, ITS_NO.
    package static let archCapabilities: UInt64 =
        1 << 0 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 13 | 1 << 14 | 1 << 15 | 1 << 20 | 1 << 24
        | 1 << 26 | 1 << 27 | 1 << 62

    /// Bits of IA32_SPEC_CTRL that may be set, and do nothing: IBRS, STIBP, SSBD, and Intel's BHI_DIS_S.
    package var speculationControlMask: UInt64 { isIntel ? 7 | 1 << 10 : 7 }

    /// Bits of EFER that may be set: SCE, LME, LMA, NXE, and AMD's automatic IBRS, which does nothing.
    package var eferMask: UInt64 {
        let common = EFER.systemCallEnable | EFER.longModeEnable | EFER.longModeActive | EFER.noExecuteEnable
        return isIntel ? common : common | EFER.automaticIBRS
    }

    package struct Leaf: Sendable, Equatable {
        package var eax, ebx, ecx, edx: UInt32

        package init(eax: UInt32 = 0, ebx: UInt32 = 0, ecx: UInt32 = 0, edx: UInt32 = 0) {
            (self.eax, self.ebx, self.ecx, self.edx) = (eax, ebx, ecx, edx)
        }
    }

    /// Bus clock of the local APIC's timer, and crystal of leaf 0x15.
    package static var crystalFrequency: UInt64 { 1_000_000_000 }

    private static func bits(_ numbers: Int...) -> UInt32 { numbers.reduce(0) { $0 | 1 << UInt32($1) } }

    /// CPUID with this leaf in EAX and subleaf in ECX (SDM 2A, "CPUID").
    ///
    /// - Parameters:
    ///   - state: of the vCPU that asks: OSXSAVE and the XSAVE area's size depend on it.
    ///   - tscFrequency: in Hz.
    package func leaf(
        _ leaf: UInt32, _ subleaf: UInt32, cr4: UInt64, xcr0: UInt64, apicID: UInt32 = 0, tscFrequency: UInt64
    ) -> Leaf {
        if let leaf = hypervisor.leaf(leaf) { return leaf }
        switch leaf {
        case 0: return Leaf(eax: 0x16, ebx: host.leaf0.ebx, ecx: host.leaf0.ecx, edx: host.leaf0.edx)
        case 1:
            var result = host.leaf1
            result.ebx = apicID << 24 | 1 << 16 | 8 << 8
            // SSE3, PCLMULQDQ, SSSE3, FMA, CX16, SSE4.1, SSE4.2, MOVBE, POPCNT, AES, XSAVE, AVX, F16C, RDRAND:
            // the Host's; PCID, x2APIC, TSC deadline, hypervisor: ours.
            result.ecx &= Self.bits(0, 1, 9, 13, 19, 20, 22, 23, 25, 30)
            if sets.contains(.fma) { result.ecx |= Self.bits(12) }
            if sets.contains(.avx) { result.ecx |= Self.bits(28) }
            if sets.contains(.f16c) { result.ecx |= Self.bits(29) }
            result.ecx |= Self.bits(17, 21, 24, 26, 31)
            if cr4 & CR4.osXSave != 0 { result.ecx |= Self.bits(27) }
            result.edx = Self.bits(0, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26, 27)
            return result
        case 4 where isIntel:
            var result = HostLeaves.query(4, subleaf)
            result.eax &= 0x3ff  // one thread, one core
            return result
        case 6: return Leaf(eax: Self.bits(2))  // ARAT: the APIC timer never stops
        case 7 where subleaf == 0:
            var result = Leaf(eax: isIntel ? 2 : 0, ebx: host.leaf7.ebx & Self.bits(3, 5, 8, 18, 19, 29))
            if !sets.contains(.avx2) { result.ebx &= ~Self.bits(5) }
            // FSGSBASE, TSC_ADJUST, SMEP, ERMS, INVPCID, SMAP, CLFLUSHOPT.
            result.ebx |= Self.bits(0, 1, 7, 9, 10, 20, 23)
            // UMIP, RDPID.
            result.ecx = Self.bits(2, 22)
            // FSRM, SERIALIZE (or Linux serializes by an IRET, 100,000 times during its boot),
            // SPEC_CTRL, ARCH_CAPABILITIES.
            result.edx = Self.bits(4, 14, 26, 29)
            return result
        // BHI_CTRL: kernels that do not take BHI_NO's word set SPEC_CTRL.BHI_DIS_S once, and
        // need no loop at each system call.
        case 7 where subleaf == 2 && isIntel: return Leaf(edx: Self.bits(4))
        case 0xb:
            // One thread, one core: level 0 SMT, level 1 core (SDM 2A, leaf 0BH).
            switch subleaf {
            case 0: return Leaf(eax: 0, ebx: 1, ecx: 0x100, edx: apicID)
            case 1: return Leaf(eax: 0, ebx: 1, ecx: 0x201, edx: apicID)
            default: return Leaf(ecx: subleaf & 0xff, edx: apicID)
            }
        case 0xd:
            switch subleaf {
            case 0:
                return Leaf(
                    eax: UInt32(xcr0Mask), ebx: xcr0 & 4 != 0 ? 832 : 576, ecx: xcr0Mask & 4 != 0 ? 832 : 576)
            case 1: return Leaf(eax: Self.bits(0, 2), ebx: xcr0 & 4 != 0 ? 832 : 576)  // XSAVEOPT, XGETBV of XINUSE
            case 2 where xcr0Mask & 4 != 0: return Leaf(eax: 256, ebx: 576)
            default: return Leaf()
            }
        case 0x15:
            return Leaf(
                eax: UInt32(Self.crystalFrequency / 1000), ebx: UInt32(truncatingIfNeeded: tscFrequency / 1000),
                ecx: UInt32(Self.crystalFrequency))
        case 0x16:
            let megahertz = UInt32(truncatingIfNeeded: tscFrequency / 1_000_000)
            return Leaf(eax: megahertz, ebx: megahertz, ecx: 100)
        case 0x4000_0000:
            // "KVMKVMKVM": the paravirtual interface that Linux guests know (Documentation/virt/kvm/x86/cpuid.rst).
            return Leaf(eax: 0x4000_0010, ebx: 0x4b4d_564b, ecx: 0x564b_4d56, edx: 0x4d)
        case 0x4000_0001:
            // CLOCKSOURCE, NOP_IO_DELAY, CLOCKSOURCE2, CLOCKSOURCE_STABLE.
            return Leaf(eax: Self.bits(0, 1, 3, 24))
        case 0x4000_0010:
            return Leaf(
                eax: UInt32(truncatingIfNeeded: tscFrequency / 1000), ebx: UInt32(Self.crystalFrequency / 1000))
        case 0x8000_0000:
            return Leaf(
                eax: isIntel ? 0x8000_0008 : 0x8000_0021, ebx: isIntel ? 0 : host.leaf0.ebx,
                ecx: isIntel ? 0 : host.leaf0.ecx,
                edx: isIntel ? 0 : host.leaf0.edx)
        case 0x8000_0001:
            // LAHF, LZCNT, PREFETCHW; SYSCALL, NX, 1 GiB pages, RDTSCP, LM. On AMD EDX repeats leaf 1's.
            var result = Leaf(eax: isIntel ? 0 : host.extended1.eax)
            result.ecx = host.extended1.ecx & Self.bits(0, 5) | Self.bits(8)
            result.edx = Self.bits(11, 20, 26, 27, 29)
            if !isIntel {
                result.edx |= Self.bits(0, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15, 16, 17, 23, 24)
            }
            return result
        case 0x8000_0002...0x8000_0004: return HostLeaves.query(leaf, 0)
        case 0x8000_0005 where !isIntel, 0x8000_0006: return HostLeaves.query(leaf, 0)
        case 0x8000_0007: return Leaf(edx: Self.bits(8))  // invariant TSC
        case 0x8000_0008:
            // AMD's RstrFpErrPtrs, SSB_NO and BTC_NO.
            return Leaf(eax: UInt32(PhysicalAddress.bits) | 48 << 8, ebx: isIntel ? 0 : Self.bits(2, 26, 29))
        case 0x8000_0021 where !isIntel:
            // There is no predictor of ours between a Guest's tasks and its kernel; the Host guards its own.
            // LFENCE serializes, a null selector clears the base, automatic IBRS, SRSO_NO; TSA_SQ_NO, TSA_L1_NO.
            return Leaf(eax: Self.bits(2, 6, 8, 29), ecx: Self.bits(1, 2))
        default: return Leaf()
        }
    }
}

/// What CPUID answers from 0x40000000 on, where hypervisors introduce themselves.
///
/// Each has a block of 0x100 leaves; a Guest looks through the blocks for a name that it knows.
package struct HypervisorLeaves: Sendable, Equatable {
    package static let first: UInt32 = 0x4000_0000
    package static let blockSize: UInt32 = 0x100

    package var base: UInt32
    /// From `base` on, in order.
    package var leaves: [CPUFeatures.Leaf]

    package init(base: UInt32 = first, leaves: [CPUFeatures.Leaf] = []) {
        self.base = base
        self.leaves = leaves
    }

    /// Nil: not one of ours. Of our block, all are.
    func leaf(_ number: UInt32) -> CPUFeatures.Leaf? {
        guard !leaves.isEmpty, number >= base, number < base + Self.blockSize else { return nil }
        let index = Int(number - base)
        return index < leaves.count ? leaves[index] : CPUFeatures.Leaf()
    }
}

/// The leaves of the Host that ours are cut from.
private struct HostLeaves {
    let leaf0, leaf1, leaf7, extended1: CPUFeatures.Leaf
    let xcr0: UInt64

    init() {
        leaf0 = Self.query(0, 0)
        leaf1 = Self.query(1, 0)
        leaf7 = leaf0.eax >= 7 ? Self.query(7, 0) : CPUFeatures.Leaf()
        extended1 = Self.query(0x8000_0001, 0)
        xcr0 = leaf1.ecx >> 27 & 1 != 0 ? chost_xgetbv(0) : 0
    }

    static func query(_ leaf: UInt32, _ subleaf: UInt32) -> CPUFeatures.Leaf {
        var registers: InlineArray<4, UInt32> = [0, 0, 0, 0]
        var span = registers.mutableSpan
        unsafe span.withUnsafeMutableBufferPointer { unsafe chost_cpuid(leaf, subleaf, $0.baseAddress) }
        return CPUFeatures.Leaf(eax: registers[0], ebx: registers[1], ecx: registers[2], edx: registers[3])
    }
}
//:
