internal import GuestMemory
internal import HostInterface

//L:200 Multiboot: for kernels of a weekend
//
// The first multiboot specification (GNU, 0.6.96) is what people who write
// their own kernel, and people who test CPUs, know best: twelve bytes near the
// start of the file, an ELF32 or just addresses, and one arrives in 32-bit
// protected mode without ever having met a BIOS.

/// A multiboot-1 header as found in a file.
package struct MultibootHeader: Equatable, Sendable {
    static let magic: UInt32 = 0x1bad_b002, loaderMagic: UInt32 = 0x2bad_b002
    /// It must be in the first 8192 bytes, at a multiple of 4.
    static let searchLimit = 8192

    let offset: Int
    let flags: UInt32

    /// Its own addresses count, not the ELF header's.
    var hasAddresses: Bool { flags & 1 << 16 != 0 }
    /// Bits 0…15 are demands. We meet "align modules" and "tell me the memory";
    /// to one for a video mode (bit 2) we answer that there is none.
    var unknownDemands: UInt32 { flags & 0xfff8 }

    static func find(in image: ImageBytes) -> MultibootHeader? {
        for offset in stride(from: 0, to: min(searchLimit, image.count) - 11, by: 4) {
            guard image.load(offset, as: UInt32.self) == magic, let flags: UInt32 = image.load(offset + 4),
                let checksum: UInt32 = image.load(offset + 8), magic &+ flags &+ checksum == 0
            else { continue }
            return MultibootHeader(offset: offset, flags: flags)
        }
        return nil
    }
}

/// The information structure and the lists it points at, all in one page.
private enum MultibootInfo {
    static let flags = 0, lowerKiB = 4, upperKiB = 8, commandLine = 16, moduleCount = 20, modules = 24
    static let mapBytes = 44, map = 48, loaderName = 64
    static let hasMemory: UInt32 = 1 << 0, hasCommandLine: UInt32 = 1 << 2, hasModules: UInt32 = 1 << 3
    static let hasMap: UInt32 = 1 << 6, hasLoaderName: UInt32 = 1 << 9
    /// Offsets in the page of what it points at.
    static let moduleList = 0x100, mapList = 0x200, nameText = 0x400, moduleText = 0x500
    static let rangeBytes = 24
}

extension KernelLoader {
    func loadMultiboot(_ header: MultibootHeader) throws(HostError) -> BootEntry {
        guard header.unknownDemands == 0 else {
            throw source.refuse(
                "its multiboot header demands something unknown (flags 0x\(String(header.flags, radix: 16)))")
        }
        let image = ImageBytes(source.kernel)
        // As GRUB does it, the file's name comes first: argv[0] of the kernel.
        let fileName = source.kernelName.split(separator: "/").last.map(String.init) ?? "kernel"
        let prefix = source.commandLine.isEmpty ? fileName : fileName + " "
        let commandLine = try source.commandLineBytes(limit: BootArea.commandLineLimit, prefix: prefix)
        let (entry, kernel) = header.hasAddresses ? try loadByAddresses(image, header) : try loadELF32(image)
        let module = try placeModule(above: kernel)
        try write(informationPage(module), at: BootArea.info)
        try write(commandLine, at: BootArea.commandLine)
        try writeGDT(.protected)
        return BootEntry(
            mode: .protected, entry: entry, argument: BootArea.info, magic: MultibootHeader.loaderMagic, kernel: kernel,
            initrd: module)
    }

    private func loadELF32(_ image: ImageBytes) throws(HostError) -> (UInt64, Range<UInt64>) {
        let elf: ELFImage
        do { elf = try ELFImage(image) } catch { throw source.refuse(error) }
        guard elf.isLoaded(physical: elf.entry) else {
            throw source.refuse("its entry point is in none of its segments", advice: "set the ELF entry point")
        }
        return (elf.entry, try loadSegments(of: elf))
    }

    /// Section 3.1.3, "The address fields of Multiboot header".
    private func loadByAddresses(_ image: ImageBytes, _ header: MultibootHeader) throws(HostError) -> (
        UInt64, Range<UInt64>
    ) {
        func field(_ offset: Int) throws(HostError) -> UInt64 {
            guard let value: UInt32 = image.load(header.offset + offset) else {
                throw source.refuse("the multiboot header is cut short", advice: "the file is damaged: fetch it again")
            }
            return UInt64(value)
        }
        let headerAddress = try field(12), loadAddress = try field(16), loadEnd = try field(20)
        let bssEnd = try field(24), entry = try field(28)
        let impossible = source.refuse("the multiboot header's addresses contradict each other")
        guard loadAddress <= headerAddress, headerAddress - loadAddress <= UInt64(header.offset) else {
            throw impossible
        }
        let start = UInt64(header.offset) - (headerAddress - loadAddress)
        let rest = UInt64(image.count) - start
        guard loadEnd == 0 || loadEnd >= loadAddress, bssEnd == 0 || bssEnd >= loadEnd else { throw impossible }
        let count = loadEnd == 0 ? rest : loadEnd - loadAddress
        guard let file = image.range(start, count) else {
            throw source.refuse("the file is cut short", advice: "fetch it again")
        }
        let span = loadAddress..<max(loadAddress + count, bssEnd)
        guard span.contains(entry) else { throw impossible }
        try checkPlacement(span)
        try checkMemory(span)
        try write(image, file, at: loadAddress)
        return (entry, span)
    }

    /// Right above the kernel, where small kernels with small page tables look.
    private func placeModule(above kernel: Range<UInt64>) throws(HostError) -> Range<UInt64>? {
        guard let initrd = source.initrd else { return nil }
        let bottom = pageAligned(max(kernel.upperBound, 0x10_0000))
        return try placeInitrd(below: bottom + UInt64(initrd.count) + 4095, above: kernel)
    }

    private func informationPage(_ module: Range<UInt64>?) -> [UInt8] {
        func address(_ offset: Int) -> UInt32 { UInt32(BootArea.info) + UInt32(offset) }
        var page = WireBytes(count: 4096)
        var flags =
            MultibootInfo.hasMemory | MultibootInfo.hasCommandLine | MultibootInfo.hasMap | MultibootInfo.hasLoaderName
        page.put(UInt32(BootArea.firmware.lowerBound >> 10), at: MultibootInfo.lowerKiB)
        page.put(UInt32((memory.lowEnd - 0x10_0000) >> 10), at: MultibootInfo.upperKiB)
        page.put(UInt32(BootArea.commandLine), at: MultibootInfo.commandLine)
        if let module {
            flags |= MultibootInfo.hasModules
            page.put(UInt32(1), at: MultibootInfo.moduleCount)
            page.put(address(MultibootInfo.moduleList), at: MultibootInfo.modules)
            page.put(UInt32(truncatingIfNeeded: module.lowerBound), at: MultibootInfo.moduleList)
            page.put(UInt32(truncatingIfNeeded: module.upperBound), at: MultibootInfo.moduleList + 4)
            page.put(address(MultibootInfo.moduleText), at: MultibootInfo.moduleList + 8)
            page.put(Array(source.initrdName.utf8.prefix(1024)), at: MultibootInfo.moduleText)
        }
        let map = MemoryRange.map(of: memory)
        for (index, range) in map.enumerated() {
            let base = MultibootInfo.mapList + index * MultibootInfo.rangeBytes
            page.put(UInt32(20), at: base)  // of what follows this field
            page.put(range.start, at: base + 4)
            page.put(range.byteCount, at: base + 12)
            page.put(range.kind.rawValue, at: base + 20)
        }
        page.put(UInt32(map.count * MultibootInfo.rangeBytes), at: MultibootInfo.mapBytes)
        page.put(address(MultibootInfo.mapList), at: MultibootInfo.map)
        page.put(Array("Roost".utf8), at: MultibootInfo.nameText)
        page.put(address(MultibootInfo.nameText), at: MultibootInfo.loaderName)
        page.put(flags, at: MultibootInfo.flags)
        return page.bytes
    }
}
//:
