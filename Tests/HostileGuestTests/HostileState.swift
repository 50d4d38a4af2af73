import CPUOracle
import GuestMemory
import VirtualCPU
import X86

/// Where a hostile Guest keeps what: all within its 1 MiB.
enum Layout {
    static let memoryBytes: UInt64 = 1 << 20
    /// Four pages of page tables, then GDT, IDT, LDT and task-state segments.
    static let tables: UInt64 = 0x1000, gdt: UInt64 = 0x6000, idt: UInt64 = 0x7000, tss: UInt64 = 0x8000
    /// Code, everywhere from here on.
    static let code: UInt64 = 0x10000
}

enum HostileMode: CaseIterable {
    case real, virtual8086, protected16, protected32, paging32, pae, compatibility16, compatibility32, long

    var isLong: Bool { self == .compatibility16 || self == .compatibility32 || self == .long }
    var isProtected: Bool { self != .real }
}

extension SeededGenerator {
    /// A value that is likely to be of consequence: an address, a count, a selector.
    mutating func interesting() -> UInt64 {
        switch below(13) {
        case 0, 1, 2: return UInt64(below(Int(Layout.memoryBytes)))
        case 3: return UInt64(below(256)) << 12 &- UInt64(below(64))
        case 4:
            return pick([0xfee0_0000, 0xfec0_0000, 0xa0000, 0xf_fff0, 0x4000_0000, 0xffff_fff0, 1 << 32])
                &+ UInt64(below(4096))
        case 5: return pick([1 << 47, (1 << 47) - 4, ~0, 0xffff_8000_0000_0000, 1 << 39, 1 << 63]) &+ UInt64(below(16))
        case 6: return UInt64(below(64)) * 8 | UInt64(below(8))
        case 8:
            // Ports that a PC has.
            return pick([0x20, 0x40, 0x60, 0x70, 0x92, 0xa0, 0x3f8, 0x4d0, 0x600, 0xcf8]) &+ UInt64(below(9))
        case 7:
            return UInt64(
                pick(
                    [
                        0x10, 0x1b, 0x3b, 0x48, 0x174, 0x175, 0x176, 0x1a0, 0x1d9, 0x200, 0x277, 0x2ff, 0x6e0, 0x800,
                        0x808, 0x80b, 0x830,
                        0x832, 0x838, 0x83f, 0xc000_0080, 0xc000_0081, 0xc000_0082, 0xc000_0084, 0xc000_0100,
                        0xc000_0102, 0x4b56_4d00,
                        0x4b56_4d01,
                    ] as [UInt32]))
        default: return integer()
        }
    }
}

/// Fills memory and state; every number here is the Guest's to choose.
struct HostileState {
    var random: SeededGenerator

    // MARK: Memory

    mutating func fill(_ memory: GuestMemory) throws {
        let isSoup = random.chance(80)
        var code: [UInt8] =
            isSoup
            ? InstructionSoup.make(1 << 15, &random)
            : (0..<1 << 15).map { _ in UInt8(truncatingIfNeeded: random.next()) }
        var address: UInt64 = 0
        while address < Layout.memoryBytes {
            try memory.write(code, at: GuestPhysicalAddress(address))
            address += UInt64(code.count)
            // The same soup, from another spoon.
            code = Array(code[101...] + code[..<101])
        }
        try fillPageTables(memory)
        if random.chance(80) { try fillDescriptors(memory) }
    }

    /// Tables at four levels that mostly lead to RAM; then entries that do not.
    private mutating func fillPageTables(_ memory: GuestMemory) throws {
        for level in 0..<UInt64(4) {
            for entry in 0..<UInt64(512) {
                let target = level < 3 ? Layout.tables + (level + 1) * 0x1000 : UInt64(random.below(256)) << 12
                try memory.store(
                    target | (random.chance(90) ? 7 : random.next() & 0xfff),
                    at: GuestPhysicalAddress(Layout.tables + level * 0x1000 + entry * 8))
            }
        }
        if random.chance(50) {
            // The programs' own view: low memory at its own address, which makes them live longer.
            for entry in 0..<UInt64(256) {
                try memory.store(entry << 12 | 7, at: GuestPhysicalAddress(Layout.tables + 0x3000 + entry * 8))
            }
        }
        for _ in 0..<random.pick([0, 4, 64, 1024]) {
            let slot = Layout.tables + UInt64(random.below(2048)) * 8
            let flags = random.next() & 0xfff | (random.chance(80) ? 1 : 0)
            let target: UInt64 =
                switch random.below(6) {
                case 0: random.next()
                case 1: random.pick([0xfee0_0000, 0xfec0_0000, 0xf_f000, Layout.memoryBytes, 0xff_ffff_f000])
                case 2: Layout.tables + UInt64(random.below(5)) * 0x1000
                default: UInt64(random.below(257)) << 12
                }
            try memory.store(target & ~0xfff | flags, at: GuestPhysicalAddress(slot))
        }
    }

    private mutating func fillDescriptors(_ memory: GuestMemory) throws {
        let types: [UInt64] = [
            0x9b, 0x93, 0xfb, 0xf3, 0x9f, 0x97, 0xff, 0x89, 0x8b, 0x81, 0x83, 0x82, 0x85, 0x8c, 0x84, 0xec, 0xe4, 0xe5,
            0x8e, 0x8f,
        ]
        for slot in 0..<UInt64(512) {
            let isGate = slot >= 256 || random.chance(10)
            var value: UInt64
            if isGate {
                let type = random.pick([0x8e, 0xee, 0x8f, 0xef, 0x85, 0x86, 0xe7, 0x8c, 0xec, 0xe5] as [UInt64])
                let offset = UInt64(random.below(Int(Layout.memoryBytes)))
                value =
                    offset & 0xffff | UInt64(random.below(64) * 8) << 16 | UInt64(random.below(32)) << 32 | type << 40
                    | (offset & 0xffff_0000) << 32
            } else {
                let base = random.chance(60) ? 0 : UInt64(random.below(Int(Layout.memoryBytes)))
                value =
                    0xffff | base << 16 | random.pick(types) << 40 | random.pick(
                        [0x0, 0x4, 0x8, 0xa, 0xc, 0xf] as [UInt64]) << 52 | 0xf << 48
            }
            if random.chance(5) { value ^= 1 << (random.next() & 63) }
            try memory.store(value, at: GuestPhysicalAddress(Layout.gdt + slot * 8))
        }
        for slot in 0..<UInt64(128) where random.chance(50) {
            try memory.store(random.interesting(), at: GuestPhysicalAddress(Layout.tss + slot * 4))
        }
    }

    // MARK: State: what a CPU can be in

    mutating func set(_ state: inout VCPUState, _ mode: HostileMode, features: CPUFeatures) {
        let privilege: UInt32 = mode == .virtual8086 ? 3 : mode == .real ? 0 : random.pick([0, 0, 3])
        state.cr0 =
            CR0.extensionType | (mode.isProtected ? CR0.protectedMode : 0) | random.next()
            & (CR0.writeProtect | CR0.alignmentMask | CR0.numericError | CR0.monitorCoprocessor)
        if random.chance(10) { state.cr0 |= random.next() & (CR0.taskSwitched | CR0.emulation) }
        state.cr4 = random.next() & features.cr4Mask & ~(CR4.pcid | CR4.physicalAddressExtension)
        if random.chance(80) { state.cr4 |= CR4.osFXSR | CR4.osXSave | CR4.osXMMExceptions }
        state.efer = random.next() & (EFER.systemCallEnable | EFER.noExecuteEnable)
        switch mode {
        case .paging32: state.cr0 |= CR0.paging
        case .pae:
            state.cr0 |= CR0.paging
            state.cr4 |= CR4.physicalAddressExtension
        case _ where mode.isLong:
            state.cr0 |= CR0.paging
            state.cr4 |= CR4.physicalAddressExtension | random.next() & CR4.pcid
            state.efer |= EFER.longModeEnable | EFER.longModeActive
        case .virtual8086, .protected16, .protected32: if random.chance(30) { state.cr0 |= CR0.paging }
        default: break
        }
        let root = mode == .pae ? Layout.tables + UInt64(random.below(3)) * 0x1000 : Layout.tables
        state.cr3 = random.chance(90) ? root : random.next() & PhysicalAddress.frame
        state.cr2 = random.next()
        state.xcr0 = random.pick([1, 3, 7]) & features.xcr0Mask
        state.mxcsr = random.chance(70) ? 0x1f80 : UInt32(truncatingIfNeeded: random.next() & 0xffff)
        setSegments(&state, mode, privilege)
        state.gdtr = DescriptorTable(base: Layout.gdt, limit: random.pick([0x7ff, 0xfff, 0xffff, 0x17]))
        state.idtr =
            mode == .real
            ? DescriptorTable(base: 0, limit: 0x3ff)
            : DescriptorTable(base: Layout.idt - 0x800, limit: random.pick([0xfff, 0x7ff, 0xffff, 7]))
        if random.chance(10) { state.gdtr.base = random.next() & 0x7fff_ffff }
        var flags = random.next() & RFlags.writable & ~(RFlags.virtual8086 | RFlags.trap | RFlags.nestedTask)
        if mode == .virtual8086 { flags |= RFlags.virtual8086 }
        if random.chance(15) { flags |= RFlags.trap }
        if random.chance(10) { flags |= RFlags.nestedTask }
        state.rflags = flags | RFlags.alwaysOne
        for n in 0..<4 { state.dr[n] = random.interesting() }
        state.dr[7] = random.chance(15) ? random.next() & 0xffff_2bff | 0x400 : 0x400
        for n in 0..<16 { state.gpr[n] = random.interesting() }
        state.gpr[Register.rsp] = UInt64(random.below(Int(Layout.memoryBytes)))
        for n in 0..<64 { state.ymm[n] = random.integer() }
        state.rip =
            mode == .real || mode == .virtual8086 ? random.next() & 0xffff : Layout.code + UInt64(random.below(0xe0000))
        if random.chance(2) { state.rip = random.next() }
        if mode != .long { state.rip &= 0xffff_ffff }
        state.star = random.next()
        state.lstar = Layout.code + UInt64(random.below(0x8000))
        state.sysenterCS = UInt64(random.below(64) * 8)
        state.sysenterEIP = Layout.code + UInt64(random.below(0x8000))
        state.sysenterESP = UInt64(random.below(Int(Layout.memoryBytes)))
        state.syscallMask = random.next() & 0xffff_ffff
        state.kernelGSBase = UInt64(random.below(Int(Layout.memoryBytes)))
    }

    private mutating func setSegments(_ state: inout VCPUState, _ mode: HostileMode, _ privilege: UInt32) {
        for number in 0..<6 {
            let selector = UInt16(truncatingIfNeeded: UInt64(random.below(128) * 8) | UInt64(privilege))
            if mode == .real || mode == .virtual8086 {
                state.segments[number] = .realMode(
                    selector: UInt16(random.below(0x10000)), type: mode == .real ? (number == 1 ? 0x9b : 0x93) : 0xf3)
                continue
            }
            var attributes: UInt32 = 0x93 | privilege << 5 | (random.chance(70) ? 0xc000 : 0)
            if number == SegmentName.cs {
                attributes = 0x9b | privilege << 5
                switch mode {
                case .long: attributes |= 0xa000
                case .protected16, .compatibility16: break
                default: attributes |= 0xc000
                }
            } else if number != SegmentName.ss, random.chance(20) {
                attributes =
                    random.chance(50) ? Segment.unusableBit : random.pick([0x9b, 0x91, 0x97, 0x99]) | privilege << 5
            }
            let base =
                random.chance(70)
                ? 0 : random.interesting() & (mode == .long && number >= SegmentName.fs ? ~0 : 0xffff_ffff)
            state.segments[number] = Segment(
                selector: selector, base: isCanonical(base) ? base : 0,
                limit: random.chance(80) ? .max : UInt32(truncatingIfNeeded: random.next()),
                attributes: attributes)
        }
        let wide = mode.isLong || random.chance(70)
        state.tr = Segment(
            selector: UInt16(random.below(128) * 8), base: Layout.tss + UInt64(random.below(256)),
            limit: random.pick([0x67, 0xfff, 0x2b, 0xffff]),
            attributes: wide ? 0x8b : 0x83)
        state.ldtr =
            random.chance(50)
            ? Segment(attributes: Segment.unusableBit | 0x82)
            : Segment(
                selector: UInt16(random.below(128) * 8), base: Layout.gdt, limit: UInt32(random.below(0x10000)),
                attributes: 0x82)
    }
}
