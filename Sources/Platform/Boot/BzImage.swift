internal import GuestMemory
internal import HostInterface

//L:150 How a kernel is found in a bzImage
//
// A bzImage is three programs in one file: real-mode code that asks the BIOS
// its questions, a decompressor, and in the decompressor's belly, packed, the
// kernel proper, an ELF file. A boot loader normally starts the decompressor.
// For an interpreted CPU that would be the most tedious second of its life, so
// we reach past it: `payload_offset` tells where the packed kernel begins, its
// first bytes tell by what it is packed, and the host unpacks it natively in a
// blink (measured: Debian's cloud kernel, lz4, 0.13 s; its ordinary one, xz, 0.9 s).
//
//     |boot sector|setup  |decompressor ......................|
//     0          512      |                                   |
//                         +-- payload: xz/zstd/lz4/gzip --+size
//                                        |
//                                        v
//                         ELF64: PT_LOAD, PT_LOAD … then relocations
//
// What we skip besides unpacking is KASLR: the relocations at the payload's
// end stay unread, and the kernel runs where it was linked. Who unpacks with
// bzip2, lzma or lzo (nobody, these days) still gets his own decompressor run.
//
// A payload that does not unpack is a broken file, and we say so. To start
// its own decompressor then would only let the guest say it, later, worse.

extension KernelLoader {
    func loadBzImage() throws(HostError) -> BootEntry {
        let image = ImageBytes(source.kernel)
        let header = try SetupHeader(image, source)
        guard header.isLoadedHigh else { throw source.refuse("it is a zImage", advice: "pass a bzImage") }
        if header.has64BitEntry == false { throw thirtyTwoBit }

        if source.preference != .decompressor, let payload = header.payload {
            guard let range = image.range(payload.offset, payload.count) else {
                throw source.refuse("the file is cut short: its packed kernel ends outside", advice: "fetch it again")
            }
            let packed = KernelPayload(image: image, range: range)
            switch packed.compression {
            case .some(let compression) where compression.isUnpackedHere:
                let unpacked: [UInt8]
                do { unpacked = try packed.unpack() } catch {
                    throw source.refuse("its \(compression) payload is corrupt: \(error.why)", advice: "fetch it again")
                }
                return try loadVmlinux(ImageBytes(unpacked), header)
            case .some where source.preference == .pvh:
                throw source.refuse(
                    "its PVH entry is packed by a method that only it knows", advice: "pass the vmlinux")
            case .some: break
            case nil:
                throw source.refuse("its payload is corrupt: packed by no known method", advice: "fetch it again")
            }
        }
        return try loadDecompressor(image, header)
    }

    var thirtyTwoBit: HostError {
        source.refuse("it is a 32-bit kernel", advice: "pass an x86-64 kernel")
    }

    private func loadVmlinux(_ image: ImageBytes, _ header: SetupHeader) throws(HostError) -> BootEntry {
        let elf: ELFImage
        do { elf = try ELFImage(image) } catch {
            throw source.refuse("its payload is corrupt: unpacked, it is no ELF file", advice: "fetch it again")
        }
        guard elf.machine != ELFImage.machine386 else { throw thirtyTwoBit }
        guard elf.is64Bit, elf.machine == ELFImage.machineX86_64 else {
            throw source.refuse("its payload is for ELF machine \(elf.machine)", advice: "pass an x86-64 kernel")
        }
        guard source.preference == .pvh else { return try enterLinux(elf, header) }
        guard let entry = KernelFormat.pvhEntry(of: elf) else { throw source.withoutPVH }
        return try enterPVH(elf, entry)
    }

    /// Lets the kernel unpack itself: boot.rst, "64-bit Boot Protocol". The
    /// 64-bit entry is 0x200 past the start of the protected-mode part.
    private func loadDecompressor(_ image: ImageBytes, _ header: SetupHeader) throws(HostError) -> BootEntry {
        guard header.has64BitEntry == true else {
            throw source.refuse(
                "it has no 64-bit entry: a 32-bit kernel, or one older than Linux 3.8",
                advice: "pass a newer x86-64 kernel")
        }
        let count = UInt64(image.count - header.kernelOffset)
        // The header counts in 16s and rounds up.
        guard header.kernelBytes <= (count + 15) & ~15 else {
            throw source.refuse("the file is cut short", advice: "fetch it again")
        }
        guard count > 0x200 else { throw source.refuse("the file is cut short", advice: "fetch it again") }

        var start: UInt64 = 0x10_0000
        let alignment = UInt64(header.kernelAlignment)
        if header.isRelocatable {
            guard alignment.nonzeroBitCount == 1, alignment >= 16, header.preferredAddress < GuestMemory.holeStart
            else {
                throw source.refuse("its setup header asks for an impossible address", advice: "fetch it again")
            }
            start = (max(start, header.preferredAddress) + alignment - 1) & ~(alignment - 1)
        }
        // It moves itself about in init_size bytes from where it is loaded or,
        // if it cannot choose, from where it was linked.
        let runtime = header.isRelocatable ? start : max(start, min(header.preferredAddress, GuestMemory.holeStart))
        let span = start..<max(start + count, runtime + header.initSize)
        try checkPlacement(span)
        try checkMemory(span)
        try write(image, header.kernelOffset..<image.count, at: start)
        return try enterLinux(at: start + 0x200, span, header, code32Start: UInt32(truncatingIfNeeded: start))
    }
}
//:
