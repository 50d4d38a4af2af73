internal import HostInterface
internal import GuestMemory

//L:170 The zero page
//
// `boot_params` is one page (Documentation/arch/x86/zero-page.rst) in which
// the loader returns the form filled in: the setup header at the offset where
// it was in the file, with our answers, and around it what the real-mode code
// would have asked the BIOS for. Nearly all of it may stay zero. What counts:
// the map of memory (E820, named after the BIOS call that used to give it),
// the command line, the initrd, and the ACPI tables' address, which spares the
// kernel a walk through the BIOS area.

enum BootParams {
    static let byteCount = 4096
    /// Offsets outside of the setup header.
    enum Offset {
        static let rsdp = 0x070, e820Count = 0x1e8, e820Table = 0x2d0
    }
    /// A loader without a number of its own.
    static let loaderUndefined: UInt8 = 0xff
    /// "Normal": leave the screen that is not there as it is.
    static let videoModeNormal: UInt16 = 0xffff
    /// COMMAND_LINE_SIZE of x86, without its NUL.
    static let commandLineLimit = 2047
}

extension KernelLoader {
    /// An ELF64 vmlinux from a file of its own.
    func loadVmlinux() throws(HostError) -> BootEntry {
        let elf: ELFImage
        do { elf = try ELFImage(ImageBytes(source.kernel)) } catch { throw source.refuse(error) }
        return try enterLinux(elf, nil)
    }

    func enterLinux(_ elf: ELFImage, _ header: SetupHeader?) throws(HostError) -> BootEntry {
        guard elf.isLoaded(physical: elf.entry) else {
            throw source.refuse(
                "its entry point is in none of its segments", advice: "the file is damaged: fetch it again")
        }
        let span = try loadSegments(of: elf)
        return try enterLinux(at: elf.entry, span, header)
    }

    /// Fills the zero page in for a kernel that is in memory, and says how to enter it.
    func enterLinux(
        at entry: UInt64, _ kernel: Range<UInt64>, _ header: SetupHeader?, code32Start: UInt32? = nil
    ) throws(HostError) -> BootEntry {
        let lineLimit = min(header?.commandLineLimit ?? BootParams.commandLineLimit, BootArea.commandLineLimit)
        let commandLine = try source.commandLineBytes(limit: lineLimit)
        let initrd = try placeInitrd(below: header?.initrdEnd ?? 0x8000_0000, above: kernel)

        var page = WireBytes(count: BootParams.byteCount)
        if let header {
            page.put(header.bytes, at: SetupHeader.Offset.start)
        } else {
            // A vmlinux has lost its form: we write the one that it would have had.
            page.put(UInt16(0xaa55), at: SetupHeader.Offset.bootFlag)
            page.put(SetupHeader.magic, at: SetupHeader.Offset.magic)
            page.put(UInt16(0x20c), at: SetupHeader.Offset.version)
            page.put(UInt8(1), at: SetupHeader.Offset.loadFlags)
            page.put(UInt32(0x20_0000), at: SetupHeader.Offset.kernelAlignment)
            page.put(UInt32(BootParams.commandLineLimit), at: SetupHeader.Offset.commandLineSize)
        }
        page.put(BootParams.videoModeNormal, at: SetupHeader.Offset.videoMode)
        page.put(BootParams.loaderUndefined, at: SetupHeader.Offset.typeOfLoader)
        page.put(UInt32(BootArea.commandLine), at: SetupHeader.Offset.commandLine)
        if let code32Start { page.put(code32Start, at: SetupHeader.Offset.code32Start) }
        if let initrd {
            page.put(UInt32(truncatingIfNeeded: initrd.lowerBound), at: SetupHeader.Offset.initrdAddress)
            page.put(UInt32(truncatingIfNeeded: initrd.count), at: SetupHeader.Offset.initrdSize)
        }
        page.put(rsdp.rawValue, at: BootParams.Offset.rsdp)
        let map = MemoryRange.map(of: memory)
        page.put(UInt8(map.count), at: BootParams.Offset.e820Count)
        for (index, range) in map.enumerated() {
            let base = BootParams.Offset.e820Table + index * 20
            page.put(range.start, at: base)
            page.put(range.byteCount, at: base + 8)
            page.put(range.kind.rawValue, at: base + 16)
        }
        try write(page.bytes, at: BootArea.bootParams)
        try write(commandLine, at: BootArea.commandLine)
        try writeLongModeTables()
        return BootEntry(mode: .long, entry: entry, argument: BootArea.bootParams, kernel: kernel, initrd: initrd)
    }
}
//:
