package import HostInterface

//L:120 What kind of kernel is this?
//
// No two of these formats keep their magic number in the same place, and some
// files are two things at once: a bzImage is also an EFI program (its first
// two bytes, "MZ", are a valid and pointless x86 instruction pair), a Linux
// `vmlinux` also carries a PVH note. We ask in the order that gives the kernel
// the shortest way in. A file that is none of them deserves better than "exec
// format error": the common mistakes are recognized and named.

/// The formats that we can boot, with what was found on the way.
package enum KernelFormat: Equatable, Sendable {
    case bzImage
    /// ELF64, entered by Linux's 64-bit protocol.
    case vmlinux
    /// ELF with XEN_ELFNOTE_PHYS32_ENTRY.
    case pvh(entry: UInt32)
    case multiboot(MultibootHeader)
    /// ELF64 with lguest's note: a Guest that knows what it is, and wants no PC (docs/lguest-abi.md).
    case lguest

    /// - Throws: that this is no kernel, and what it is instead if we can tell.
    package static func detect(_ source: BootSource) throws(HostError) -> KernelFormat {
        let image = ImageBytes(source.kernel)
        guard image.count > 0 else { throw source.refuse("the file is empty", advice: "pass another --kernel") }
        if image.has(ELFImage.magic, at: 0) { return try detectELF(image, source) }
        if SetupHeader.isPresent(in: image) {
            try require(source, .automatic, .linux, .decompressor, .pvh)
            return .bzImage
        }
        if let header = MultibootHeader.find(in: image) {
            try require(source, .automatic, .multiboot)
            return .multiboot(header)
        }
        throw describe(image, source)
    }

    private static func detectELF(_ image: ImageBytes, _ source: BootSource) throws(HostError) -> KernelFormat {
        let elf: ELFImage
        do { elf = try ELFImage(image) } catch { throw source.refuse(error) }
        guard elf.machine == ELFImage.machine386 || elf.machine == ELFImage.machineX86_64 else {
            throw source.refuse(
                "it is for \(machineName(elf.machine)), not for x86-64", advice: "pass an x86-64 kernel")
        }
        if source.preference == .automatic, elf.note(owner: "Lguest", type: 1) != nil { return .lguest }
        let multiboot = MultibootHeader.find(in: image)
        let pvh = pvhEntry(of: elf)
        let linux = elf.is64Bit && elf.machine == ELFImage.machineX86_64 && elf.isLoaded(physical: elf.entry)
        switch source.preference {
        case .automatic:
            if linux, isLinux(elf) || (pvh == nil && multiboot == nil) { return .vmlinux }
            if let pvh { return .pvh(entry: pvh) }
            if let multiboot { return .multiboot(multiboot) }
        case .linux: if linux { return .vmlinux }
        case .pvh: if let pvh { return .pvh(entry: pvh) }
        case .multiboot: if let multiboot { return .multiboot(multiboot) }
        case .decompressor: break
        }
        guard source.preference == .automatic else { throw mismatch(source) }
        guard elf.is64Bit else {
            throw source.refuse(
                "a 32-bit ELF file with neither a PVH note nor a multiboot header", advice: "pass an x86-64 kernel")
        }
        throw source.refuse(
            "its ELF entry point is in none of its segments: a program or a library, not a kernel",
            advice: "pass a bzImage (vmlinuz) or vmlinux")
    }

    /// Linux and not merely like it: it runs at __START_KERNEL_map and is
    /// entered at a physical address. (FreeBSD lives up there too, but its
    /// ELF entry is virtual.)
    private static func isLinux(_ elf: ELFImage) -> Bool {
        elf.loadable.contains {
            $0.virtualAddress >= 0xffff_ffff_8000_0000 && elf.entry >= $0.physicalAddress
                && elf.entry - $0.physicalAddress < $0.memoryBytes
        }
    }

    /// Where an ELF with XEN_ELFNOTE_PHYS32_ENTRY is entered.
    static func pvhEntry(of elf: ELFImage) -> UInt32? {
        guard let note = elf.note(owner: "Xen", type: 18), note.count == 4 || note.count == 8 else { return nil }
        return elf.image.load(note.lowerBound, as: UInt32.self)
    }

    private static func require(_ source: BootSource, _ allowed: BootPreference...) throws(HostError) {
        guard allowed.contains(source.preference) else { throw mismatch(source) }
    }

    private static func mismatch(_ source: BootSource) -> HostError {
        source.preference == .pvh
            ? source.withoutPVH
            : source.refuse(
                "it has no entry for the \(source.preference) protocol", advice: "leave the protocol to be found")
    }
}
//:

extension BootSource {
    var withoutPVH: HostError {
        refuse("it has no PVH entry", advice: "pass a kernel with CONFIG_PVH, or do without --xen")
    }

    package func refuse(_ failure: ELFImage.Failure) -> HostError {
        switch failure {
        case .notELF: refuse("it is not an ELF file", advice: "the file is damaged: fetch it again")
        case .truncated: refuse("the ELF file is cut short", advice: "fetch it again")
        case .malformed(let why): refuse(why, advice: "pass a bzImage (vmlinuz) or vmlinux")
        }
    }
}

extension KernelFormat {
    /// ELF e_machine, for those that people have lying about.
    private static func machineName(_ machine: UInt16) -> String {
        switch machine {
        case 8: "MIPS"
        case 20, 21: "PowerPC"
        case 22: "s390"
        case 40: "32-bit ARM"
        case 183: "ARM64"
        case 243: "RISC-V"
        case 258: "LoongArch"
        default: "ELF machine \(machine)"
        }
    }

    private static func describe(_ image: ImageBytes, _ source: BootSource) -> HostError {
        let other = "pass an x86-64 kernel"
        // Documentation/arch/{arm64/booting,riscv/boot-image-header}.rst; arm's zImage.
        if image.has(Array("ARM\u{64}".utf8), at: 0x38) { return source.refuse("it is an ARM64 kernel", advice: other) }
        if image.has(Array("RSC\u{5}".utf8), at: 0x38) { return source.refuse("it is a RISC-V kernel", advice: other) }
        if image.load(0x24, as: UInt32.self) == 0x016f_2818 {
            return source.refuse("it is a 32-bit ARM kernel", advice: other)
        }
        let packed: [(magic: [UInt8], name: String)] = [
            ([0x1f, 0x8b], "gzip"), ([0x28, 0xb5, 0x2f, 0xfd], "zstd"), ([0xfd, 0x37, 0x7a, 0x58, 0x5a], "xz"),
            ([0x42, 0x5a, 0x68], "bzip2"), ([0x02, 0x21, 0x4c, 0x18], "lz4"), ([0x04, 0x22, 0x4d, 0x18], "lz4"),
        ]
        for (magic, name) in packed where image.has(magic, at: 0) {
            return source.refuse("it is a \(name) file, not a kernel", advice: "unpack it first")
        }
        if image.has(Array("!<arch>\n".utf8), at: 0) {
            return source.refuse("it is a package or an archive", advice: "pass the vmlinuz inside")
        }
        if image.has(Array("0707".utf8), at: 0) {
            return source.refuse("it is a cpio archive", advice: "did you mean --initrd?")
        }
        if image.has(Array("MZ".utf8), at: 0) {
            if image.count < SetupHeader.minimumFileBytes {
                return source.refuse("the file is cut short", advice: "fetch it again")
            }
            return source.refuse(
                "it is an EFI program, not a bzImage", advice: "pass the vmlinuz that it was made from")
        }
        if image.count < 64 { return source.refuse("the file has only \(image.count) bytes: not a kernel") }
        return source.refuse(
            "it is not a kernel", advice: "pass a bzImage (vmlinuz), a vmlinux, a PVH or a multiboot kernel")
    }
}
