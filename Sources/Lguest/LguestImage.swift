package import GuestMemory
package import HostInterface
package import Platform
internal import X86

//L:225 Where Guests come from
//
// lguest's Launcher had a hundred lines for this, most of them for a decade of
// ways to pack a kernel. A Guest of ours is an ELF file, and each of its
// segments says where it belongs. What it cannot bring along is a page table,
// for it does not know how much memory there will be: so it gets a plain one,
// everything mapped to itself, by pages of 2 MiB, and makes its own when it
// likes. All this is at the ends of RAM, where it is the least in the way:
//
//      0        boot parameters
//      4096     command line
//      0x4000   from here on, the Guest's program
//      …
//      top      page table, then the initrd, then the end of RAM
//               then devices

/// A Guest's file, checked as far as it can be without its memory.
package struct LguestImage {
    private let source: BootSource
    private let elf: ELFImage

    /// - Throws: that it is no such Guest, with the file's name.
    package init(_ source: BootSource) throws(HostError) {
        self.source = source
        do { elf = try ELFImage(ImageBytes(source.kernel)) } catch { throw source.refuse(error) }
        let name = LguestNote.name.description
        guard let note = elf.note(owner: name, type: LguestNote.type) else {
            throw source.refuse("it has no \(name) note", advice: "link it with GuestKit: see Guest/README.md")
        }
        guard elf.is64Bit, elf.machine == ELFImage.machineX86_64 else {
            throw source.refuse("it is not for x86-64", advice: "build it for x86_64-unknown-none-elf")
        }
        let version = elf.image.load(note.lowerBound, as: UInt32.self) ?? 0
        guard note.count == 4, version == LguestNote.version else {
            throw source.refuse(
                "it wants version \(version) of lguest's interface", advice: "this roost has \(LguestNote.version)")
        }
        guard elf.isLoaded(physical: elf.entry) else {
            throw source.refuse("its entry point is in none of its segments", advice: "link it with Guest/link.ld")
        }
    }

    /// Puts the Guest into `memory`, which must be zero.
    ///
    /// - Parameter ramBytes: of RAM; what is above is devices'.
    /// - Returns: for INITIALIZE.
    /// - Throws: what does not fit.
    package func load(
        into memory: GuestMemory, ramBytes: UInt64
    ) throws(HostError) -> (pgdir: UInt64, start: UInt64) {
        var top = ramBytes
        if let initrd = source.initrd {
            let size = (UInt64(initrd.count) + 4095) & ~4095
            guard size < top else { throw source.refuse("its initrd does not fit", advice: "use more --memory") }
            top -= size
            try write(initrd, to: top, memory)
        }
        let initrd = top..<top + UInt64(source.initrd?.count ?? 0)
        let tables = PageTables(mapping: memory.highEnd, below: top)
        guard let tables else { throw source.refuse("it does not fit", advice: "use more --memory") }
        try write(tables.bytes, to: tables.start, memory)
        for segment in elf.loadable {
            let start = segment.physicalAddress
            guard segment.fileBytes <= segment.memoryBytes,
                let bytes = elf.image.range(segment.offset, segment.fileBytes)
            else { throw source.refuse("the ELF file is cut short", advice: "build it again") }
            guard start >= LguestBoot.firstFreeAddress, start <= tables.start,
                segment.memoryBytes <= tables.start - start
            else {
                throw source.refuse(
                    "it wants \(segment.memoryBytes) bytes at 0x\(String(start, radix: 16)), which are not free",
                    advice: "use more --memory, or link it elsewhere")
            }
            try write(elf.image.bytes[bytes], to: start, memory)
        }
        try write(try bootParameters(ramBytes: ramBytes, initrd: initrd), to: 0, memory)
        try write(
            try source.commandLineBytes(limit: LguestBoot.commandLineBytes - 1), to: LguestBoot.commandLineAddress,
            memory)
        return (tables.start, elf.entry)
    }

    private func bootParameters(ramBytes: UInt64, initrd: Range<UInt64>) throws(HostError) -> [UInt8] {
        var page = WireBytes(count: 4096)
        page.put(UInt8(1), at: Int(LguestBoot.e820Count))
        page.put(ramBytes, at: Int(LguestBoot.e820Table) + 8)
        page.put(UInt32(1), at: Int(LguestBoot.e820Table) + 16)
        page.put(UInt16(0x207), at: Int(LguestBoot.version))
        page.put(UInt8(0xff), at: Int(LguestBoot.loaderType))
        page.put(UInt32(LguestBoot.commandLineAddress), at: Int(LguestBoot.commandLinePointer))
        page.put(UInt32(1), at: Int(LguestBoot.subarchitecture))
        if !initrd.isEmpty {
            guard initrd.upperBound <= 1 << 32 else {
                throw source.refuse("its initrd would be above 4 GiB", advice: "use less --memory")
            }
            page.put(UInt32(initrd.lowerBound), at: Int(LguestBoot.initrdAddress))
            page.put(UInt32(initrd.count), at: Int(LguestBoot.initrdBytes))
        }
        return page.bytes
    }

    private func write(
        _ bytes: some Collection<UInt8>, to address: UInt64, _ memory: GuestMemory
    ) throws(HostError) {
        do { try memory.write(bytes, at: GuestPhysicalAddress(address)) } catch {
            throw source.refuse("\(error)", advice: "use more --memory")
        }
    }
}

/// A table that maps every address below `end` to itself (SDM 3A, 4.5), up to 512 GiB.
private struct PageTables {
    let start: UInt64
    let bytes: [UInt8]

    /// Nil if there is no room.
    init?(mapping end: UInt64, below top: UInt64) {
        let gibibytes = Int((end + (1 << 30) - 1) >> 30)
        let count = UInt64(2 + gibibytes) * 4096
        guard gibibytes <= 512, count < top else { return nil }
        start = top - count
        var page = WireBytes(count: Int(count))
        let flags = PageEntry.present | PageEntry.writable
        page.put(start + 4096 | flags, at: 0)
        for gibibyte in 0..<gibibytes {
            page.put(start + UInt64(2 + gibibyte) * 4096 | flags, at: 4096 + 8 * gibibyte)
        }
        for large in 0..<Int((end + (1 << 21) - 1) >> 21) {
            page.put(UInt64(large) << 21 | flags | PageEntry.large, at: 8192 + 8 * large)
        }
        bytes = page.bytes
    }
}
//:
