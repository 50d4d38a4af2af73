internal import HostInterface
package import VirtualCPU
internal import X86

//L:180 What the CPU looks like at entry
//
// A CPU after RESET is an 8086 with airs. Both kinds of entry want something
// else, and as we own the machine we need not travel there by mode switches:
// we write down the state and the CPU has always been like that.
//
//              Linux, 64-bit            PVH, multiboot
//     mode     long mode, paging on     protected mode, paging off
//     CR3      the first 4 GiB mapped
//              to themselves, by 2 MiB
//     CS       0x10: 64-bit code        0x08: flat 32-bit code
//     DS ES SS 0x18: flat data          0x10: flat data
//     RSI/EBX  boot_params              hvm_start_info or multiboot info
//     EAX                               multiboot: 0x2badb002
//     RFLAGS   interrupts off           interrupts off
//     IDT      none: an exception here is a triple fault, and the end

/// The first CPU's state where a kernel was loaded: what differs from RESET.
package struct BootEntry: Equatable, Sendable {
    package enum Mode: Equatable, Sendable {
        case long
        /// 32-bit, without paging.
        case protected
    }
    package let mode: Mode
    /// Of the first instruction; physical, and as paging is the identity also linear.
    package let entry: UInt64
    /// Where the structure for the kernel is: RSI in long mode, else EBX.
    package let argument: UInt64
    /// EAX: multiboot's magic number; else 0.
    package var magic: UInt32 = 0
    /// Physical ranges taken, for a report.
    package let kernel: Range<UInt64>
    package let initrd: Range<UInt64>?

    /// Changes a CPU that was just reset into one that is about to run the
    /// kernel's first instruction. What the protocols do not name is left as it was.
    package func apply(to state: inout VCPUState) {
        for register in 0..<16 { state.gpr[register] = 0 }
        state.gpr[Register.rsp] = BootArea.stackTop
        state.rip = entry
        state.rflags = RFlags.alwaysOne
        state.idtr = DescriptorTable(base: 0, limit: 0)
        state.cr2 = 0
        state.cr0 = CR0.protectedMode | CR0.extensionType
        let table: GlobalDescriptors
        switch mode {
        case .long:
            state.gpr[Register.rsi] = argument
            state.cr0 |= CR0.paging | CR0.numericError
            state.cr3 = BootArea.pageTables
            state.cr4 = CR4.physicalAddressExtension
            state.efer = EFER.longModeEnable | EFER.longModeActive
            table = .long
        case .protected:
            state.gpr[Register.rbx] = argument
            state.gpr[Register.rax] = UInt64(magic)
            state.cr3 = 0
            state.cr4 = 0
            state.efer = 0
            table = .protected
        }
        state.gdtr = DescriptorTable(base: BootArea.gdt, limit: UInt16(table.descriptors.count * 8 - 1))
        for name in 0..<6 {
            state.segments[name] = name == SegmentName.cs ? table.code : table.data
            state.gpr[AddressSlot.segmentBases + name] = 0
        }
        state.ldtr = Segment(attributes: 0x82 | Segment.unusableBit)
        state.tr = table.task
    }
}

/// The descriptors that we leave in memory, and the segment registers loaded with them.
struct GlobalDescriptors {
    let descriptors: [UInt64]
    let code: Segment
    let data: Segment
    let task: Segment

    /// boot.rst demands 0x10 and 0x18 by number (__BOOT_CS, __BOOT_DS).
    static let long = GlobalDescriptors(
        descriptors: [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, taskDescriptor, 0],
        code: Segment(selector: 0x10, base: 0, limit: .max, attributes: 0xa09b),
        data: Segment(selector: 0x18, base: 0, limit: .max, attributes: 0xc093), task: taskSegment(selector: 0x20))

    /// PVH and multiboot leave the numbers open; these are what most kernels would choose.
    static let protected = GlobalDescriptors(
        descriptors: [0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff, taskDescriptor],
        code: Segment(selector: 0x08, base: 0, limit: .max, attributes: 0xc09b),
        data: Segment(selector: 0x10, base: 0, limit: .max, attributes: 0xc093), task: taskSegment(selector: 0x18))

    /// PVH wants a busy 32-bit TSS with a limit of 0x67, base 0. Ours has its own
    /// page: an interrupt from ring 3 would read it, and page 0 may be the kernel's.
    private static let taskDescriptor: UInt64 = 0x0000_8b00_0000_0067 | BootArea.tss << 16

    private static func taskSegment(selector: UInt16) -> Segment {
        Segment(selector: selector, base: BootArea.tss, limit: 0x67, attributes: 0x8b)
    }
}

extension KernelLoader {
    func writeLongModeTables() throws(HostError) {
        try writeGDT(.long)
        // SDM 3A, 4.5: present, writable; in a page directory also "is a 2 MiB page".
        var tables = WireBytes(count: 6 * 4096)
        tables.put(BootArea.pageTables + 0x1000 | 3, at: 0)
        for gibibyte in 0..<4 {
            tables.put(BootArea.pageTables + 0x2000 + UInt64(gibibyte) * 0x1000 | 3, at: 0x1000 + gibibyte * 8)
        }
        for page in 0..<2048 { tables.put(UInt64(page) << 21 | 0x83, at: 0x2000 + page * 8) }
        try write(tables.bytes, at: BootArea.pageTables)
    }

    func writeGDT(_ table: GlobalDescriptors) throws(HostError) {
        var bytes = WireBytes()
        for descriptor in table.descriptors { bytes.append(descriptor) }
        try write(bytes.bytes, at: BootArea.gdt)
    }
}
//:
