internal import GuestMemory
internal import HostInterface

//L:190 PVH: the shortest letter
//
// Xen's "direct boot" is what one designs after having read all the others: an
// ELF note says where to jump, EBX points at 56 bytes, and those point at the
// rest (Xen public headers, arch-x86/hvm/start_info.h). FreeBSD, NetBSD,
// unikernels and Linux itself can be entered so.

/// hvm_start_info, version 1, and the lists it points at.
private enum StartInfo {
    static let magic: UInt32 = 0x336e_c578
    static let byteCount = 56, moduleBytes = 32, rangeBytes = 24
    /// The lists follow in the same page.
    static let modules = 0x100, memoryMap = 0x200
}

extension KernelLoader {
    func loadPVH(entry: UInt32) throws(HostError) -> BootEntry {
        let elf: ELFImage
        do { elf = try ELFImage(ImageBytes(source.kernel)) } catch { throw source.refuse(error) }
        return try enterPVH(elf, entry)
    }

    /// The same with an ELF that may have been in another file.
    func enterPVH(_ elf: ELFImage, _ entry: UInt32) throws(HostError) -> BootEntry {
        guard elf.isLoaded(physical: UInt64(entry)) else {
            throw source.refuse(
                "its PVH entry point is in none of its segments", advice: "the file is damaged: fetch it again")
        }
        let commandLine = try source.commandLineBytes(limit: BootArea.commandLineLimit)
        let kernel = try loadSegments(of: elf)
        let initrd = try placeInitrd(below: 0x8000_0000, above: kernel)
        let map = MemoryRange.map(of: memory)

        var page = WireBytes(count: 4096)
        page.put(StartInfo.magic, at: 0)
        page.put(UInt32(1), at: 4)  // version: there is a memory map
        page.put(BootArea.commandLine, at: 24)
        page.put(rsdp.rawValue, at: 32)
        page.put(BootArea.info + UInt64(StartInfo.memoryMap), at: 40)
        page.put(UInt32(map.count), at: 48)
        if let initrd {
            page.put(UInt32(1), at: 12)
            page.put(BootArea.info + UInt64(StartInfo.modules), at: 16)
            page.put(initrd.lowerBound, at: StartInfo.modules)
            page.put(UInt64(initrd.count), at: StartInfo.modules + 8)
        }
        for (index, range) in map.enumerated() {
            let base = StartInfo.memoryMap + index * StartInfo.rangeBytes
            page.put(range.start, at: base)
            page.put(range.byteCount, at: base + 8)
            page.put(range.kind.rawValue, at: base + 16)
        }
        try write(page.bytes, at: BootArea.info)
        try write(commandLine, at: BootArea.commandLine)
        try writeGDT(.protected)
        return BootEntry(
            mode: .protected, entry: UInt64(entry), argument: BootArea.info, kernel: kernel, initrd: initrd)
    }
}
//:
