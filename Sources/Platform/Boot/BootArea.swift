package import GuestMemory
internal import HostInterface

//L:130 Where boot puts things
//
// A loader has to leave things in RAM that the kernel is about to call its
// own: a GDT, page tables, the letter itself. They want to be low, where
// every protocol can point at them, and out of the way of the kernel. Test
// kernels are linked at 4 MiB, at 1 MiB, some at 16 KiB; hardly any reaches
// the last quarter of conventional memory. So:
//
//     0x8_0000  GDT, and a task state segment that nobody uses
//     0x8_1000  hvm_start_info or multiboot info, with their lists
//     0x8_2000  page tables: one PML4, one PDPT, four page directories
//     0x8_8000  boot_params, Linux's "zero page"
//     0x8_9000  the command line
//     0x8_a000  a page of stack, for kernels that push before they think
//     0x8_b000  free again
//     0x9_fc00  the end of conventional memory: the EBDA, if there were a BIOS
//
// All of it is in RAM that the memory map calls usable: once the kernel has
// read its letter, the envelope is its own.

/// Addresses of what the loaders leave behind, besides the kernel itself.
package enum BootArea {
    package static let gdt: UInt64 = 0x8_0000
    package static let tss: UInt64 = 0x8_0800
    package static let info: UInt64 = 0x8_1000
    package static let pageTables: UInt64 = 0x8_2000
    package static let bootParams: UInt64 = 0x8_8000
    package static let commandLine: UInt64 = 0x8_9000
    /// With the NUL, it fills its page.
    package static let commandLineLimit = 4095
    package static let stackTop: UInt64 = 0x8_b000

    package static let range: Range<UInt64> = 0x8_0000..<0x8_b000
    /// No RAM to the kernel: EBDA, VGA, option ROMs, ACPI tables, BIOS.
    package static let firmware: Range<UInt64> = 0x9_fc00..<0x10_0000
    /// Where the ACPI tables are (see `ACPITables`).
    package static let acpi: Range<UInt64> = 0xe_0000..<0x10_0000
}

/// One line of the machine's memory map, with the types of ACPI 6.5, table
/// 15.9, which E820, PVH and multiboot all share.
package struct MemoryRange: Equatable, Sendable {
    package enum Kind: UInt32, Sendable {
        case ram = 1, reserved = 2
    }
    package var start: UInt64
    package var byteCount: UInt64
    package var kind: Kind

    package init(_ range: Range<UInt64>, _ kind: Kind) {
        start = range.lowerBound
        byteCount = range.upperBound - range.lowerBound
        self.kind = kind
    }

    /// The map of a machine with this memory, in ascending order. What other
    /// Guests see, too, is reserved: a kernel that took it for RAM would give
    /// it to whoever asks.
    package static func map(of memory: GuestMemory) -> [MemoryRange] {
        var map = [
            MemoryRange(0..<BootArea.firmware.lowerBound, .ram),
            MemoryRange(BootArea.firmware.lowerBound..<0xa_0000, .reserved),
            MemoryRange(BootArea.acpi, .reserved),
        ]
        for ram in [
            0x10_0000..<max(0x10_0000, memory.lowEnd), GuestMemory.holeEnd..<max(GuestMemory.holeEnd, memory.highEnd),
        ] {
            var start = ram.lowerBound
            for shared in memory.sharedRanges where shared.overlaps(ram) {
                if shared.lowerBound > start { map.append(MemoryRange(start..<shared.lowerBound, .ram)) }
                map.append(MemoryRange(shared, .reserved))
                start = shared.upperBound
            }
            if start < ram.upperBound { map.append(MemoryRange(start..<ram.upperBound, .ram)) }
        }
        // A kernel that looks for free addresses to see others' pages at is to look elsewhere.
        if !memory.foreignWindows.isEmpty {
            map.append(MemoryRange(MemoryMap.virtioFirst.rawValue..<GuestMemory.holeEnd, .reserved))
            map.sort { $0.start < $1.start }
        }
        return map
    }
}
//:

extension KernelLoader {
    /// Stores bytes whose place was checked before. Still an error, not a
    /// trap, should the check have been wrong.
    func write(_ bytes: some Sequence<UInt8>, at address: UInt64) throws(HostError) {
        do { try memory.write(bytes, at: GuestPhysicalAddress(address)) } catch { throw source.refuse("\(error)") }
    }

    /// The same for a part of a large file, without copying it on the way.
    func write(_ image: ImageBytes, _ range: Range<Int>, at address: UInt64) throws(HostError) {
        let result: Result<Void, GuestMemoryError> = unsafe image.bytes.withUnsafeBytes { buffer in
            do throws(GuestMemoryError) {
                let part = unsafe UnsafeRawBufferPointer(rebasing: buffer[range])
                return .success(unsafe try memory.write(part, at: GuestPhysicalAddress(address)))
            } catch { return .failure(error) }
        }
        do { try result.get() } catch { throw source.refuse("\(error)") }
    }

    /// That the kernel's own bytes may be in `range`: below the hole, and over nothing of ours.
    func checkPlacement(_ range: Range<UInt64>) throws(HostError) {
        guard range.upperBound <= GuestMemory.holeStart else {
            throw source.refuse(
                "it wants to be loaded at \(GuestPhysicalAddress(range.lowerBound)), where there can be no RAM below 3 GiB"
            )
        }
        for taken in [BootArea.range, BootArea.firmware] where range.overlaps(taken) {
            throw source.refuse(
                "it wants to be loaded at \(GuestPhysicalAddress(range.lowerBound)), over the machine's own "
                    + "\(GuestPhysicalAddress(taken.lowerBound))–\(GuestPhysicalAddress(taken.upperBound - 1))",
                advice: "link it at 1 MiB or above")
        }
    }

    func checkMemory(_ kernel: Range<UInt64>) throws(HostError) {
        for shared in memory.sharedRanges where shared.overlaps(kernel) {
            throw source.refuse(
                "it wants to be loaded over the region at \(GuestPhysicalAddress(shared.lowerBound))",
                advice: "have the region begin at \(GuestPhysicalAddress(pageAligned(kernel.upperBound))) or above")
        }
        guard kernel.upperBound > memory.lowEnd else { return }
        let mebibytes = (kernel.upperBound + 0xf_ffff) >> 20
        throw source.refuse(
            "it needs at least \(mebibytes) MiB of memory, the guest has \(memory.byteCount >> 20) MiB",
            advice: "pass --memory \(mebibytes)M or more")
    }

    /// Copies the ELF's PT_LOADs to their physical addresses.
    ///
    /// - Returns: the physical range that they take.
    func loadSegments(of elf: ELFImage) throws(HostError) -> Range<UInt64> {
        var span: Range<UInt64>?
        var pieces: [(file: Range<Int>, address: UInt64)] = []
        for segment in elf.loadable {
            guard segment.fileBytes <= segment.memoryBytes else {
                throw source.refuse(
                    "an ELF segment is larger in the file than in memory", advice: "the file is damaged: fetch it again"
                )
            }
            guard let file = elf.image.range(segment.offset, segment.fileBytes) else { throw source.refuse(.truncated) }
            let (end, overflow) = segment.physicalAddress.addingReportingOverflow(segment.memoryBytes)
            guard !overflow else { throw source.refuse("an ELF segment wraps around the address space") }
            try checkPlacement(segment.physicalAddress..<end)
            pieces.append((file, segment.physicalAddress))
            span = min(span?.lowerBound ?? .max, segment.physicalAddress)..<max(span?.upperBound ?? 0, end)
        }
        guard let span else { throw source.refuse("the ELF file has nothing to load", advice: "pass a kernel") }
        try checkMemory(span)
        // What lies between fileBytes and memoryBytes is zero already.
        for piece in pieces { try write(elf.image, piece.file, at: piece.address) }
        return span
    }

    /// Copies the initrd as high as it may be.
    ///
    /// - Parameter end: the first address that it must not touch.
    /// - Returns: where it is; nil without an initrd.
    func placeInitrd(below end: UInt64, above kernel: Range<UInt64>) throws(HostError) -> Range<UInt64>? {
        guard let initrd = source.initrd else { return nil }
        let bottom = pageAligned(max(kernel.upperBound, 0x10_0000))
        // In the largest piece of RAM there is: regions may lie in the midst of it.
        let shared = memory.sharedRanges.filter { $0.lowerBound < memory.lowEnd }
        let gaps = zip([bottom] + shared.map(\.upperBound), shared.map(\.lowerBound) + [memory.lowEnd])
        let gap = gaps.max { Int64($0.1) - Int64($0.0) < Int64($1.1) - Int64($1.0) } ?? (bottom, memory.lowEnd)
        let top = min(end, gap.1)
        let count = UInt64(initrd.count)
        if top < bottom || count > top - bottom || (top - count) & ~0xfff < max(bottom, gap.0) {
            let needed = bottom + count + 4095
            guard needed <= min(end, GuestMemory.holeStart) else {
                throw HostError(
                    "\(source.initrdName) does not fit: \(count >> 20) MiB, but \(source.kernelName) takes an initrd "
                        + "only between \(GuestPhysicalAddress(bottom)) and \(GuestPhysicalAddress(min(end, GuestMemory.holeStart)))",
                    advice: "pass a smaller --initrd")
            }
            let mebibytes = (needed + 0xf_ffff) >> 20
            throw HostError(
                "\(source.initrdName) does not fit: with \(source.kernelName) it needs at least \(mebibytes) MiB of memory, "
                    + "the guest has \(memory.byteCount >> 20) MiB",
                advice: "pass --memory \(mebibytes)M or more")
        }
        let start = (top - count) & ~0xfff
        try write(ImageBytes(initrd), 0..<initrd.count, at: start)
        return start..<start + count
    }

    func pageAligned(_ address: UInt64) -> UInt64 { (address + 4095) & ~4095 }
}
