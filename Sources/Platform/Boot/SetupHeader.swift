internal import HostInterface

//L:140 The setup header
//
// In 1991 the first sector of a Linux kernel was a boot sector for a floppy
// disk. The floppy has gone, the sector has stayed, and the space before its
// 0xaa55 has become a form to be filled in (Documentation/arch/x86/boot.rst).
// It begins at 0x1f1, in the middle of what had been code, and grows at its
// end, whose place the second byte of a jump instruction tells: the jump that
// would have led over it.

/// The part of a bzImage from 0x1f1 to the end of its setup header.
struct SetupHeader {
    /// Offsets in the file's first sectors, the same in boot_params.
    enum Offset {
        static let start = 0x1f1, setupSectors = 0x1f1, systemSize = 0x1f4, videoMode = 0x1fa, bootFlag = 0x1fe
        static let jumpLength = 0x201, magic = 0x202, version = 0x206, typeOfLoader = 0x210, loadFlags = 0x211
        static let code32Start = 0x214, initrdAddress = 0x218, initrdSize = 0x21c, commandLine = 0x228
        static let initrdLimit = 0x22c, kernelAlignment = 0x230, relocatable = 0x234, extendedFlags = 0x236
        static let commandLineSize = 0x238, payloadOffset = 0x248, payloadLength = 0x24c
        static let preferredAddress = 0x258, initSize = 0x260
        /// boot_params has something else from here on.
        static let limit = 0x290
    }

    static let magic = Array("HdrS".utf8)
    /// No kernel with a setup header has fewer than two sectors.
    static let minimumFileBytes = 1024

    /// As they go into boot_params.
    let bytes: [UInt8]
    let version: UInt16
    let loadFlags: UInt8
    let extendedFlags: UInt16
    let kernelAlignment: UInt32
    let isRelocatable: Bool
    /// The first address that an initrd may not touch.
    let initrdEnd: UInt64
    let commandLineLimit: Int
    let preferredAddress: UInt64
    let initSize: UInt64
    /// The file's offset of what runs in protected mode.
    let kernelOffset: Int
    /// How long that part says it is.
    let kernelBytes: UInt64
    /// Where in the file the compressed kernel is; nil before version 2.08.
    let payload: (offset: UInt64, count: UInt64)?

    static func isPresent(in image: ImageBytes) -> Bool {
        image.has([0x55, 0xaa], at: Offset.bootFlag) && image.has(magic, at: Offset.magic)
    }

    /// - Throws: in the words of `source` what is wrong with it.
    init(_ image: ImageBytes, _ source: BootSource) throws(HostError) {
        let truncated = source.refuse("the file is cut short", advice: "fetch it again")
        guard let jump = image.load(Offset.jumpLength, as: UInt8.self),
            let version = image.load(Offset.version, as: UInt16.self),
            let sectors = image.load(Offset.setupSectors, as: UInt8.self),
            let paragraphs = image.load(Offset.systemSize, as: UInt32.self)
        else { throw truncated }
        let end = min(Offset.magic + Int(jump), Offset.limit)
        guard image.count >= max(end, Self.minimumFileBytes) else { throw truncated }
        guard end > Offset.loadFlags, version >= 0x200 else {
            throw source.refuse("its boot protocol is older than 2.00", advice: "pass a kernel of this century")
        }
        self.version = version
        var header = Array(image.bytes[Offset.start..<end])
        header += [UInt8](repeating: 0, count: Offset.limit - end)
        bytes = header

        // A field that the header's version, or its length, does not reach reads as nil.
        func field<T: FixedWidthInteger & UnsignedInteger>(_ offset: Int, since: UInt16) -> T? {
            guard version >= since, offset + MemoryLayout<T>.size <= end else { return nil }
            return image.load(offset, as: T.self)
        }
        loadFlags = field(Offset.loadFlags, since: 0x200) ?? 0
        extendedFlags = field(Offset.extendedFlags, since: 0x20c) ?? 0
        kernelAlignment = field(Offset.kernelAlignment, since: 0x205) ?? 0
        isRelocatable = field(Offset.relocatable, since: 0x205) ?? UInt8(0) != 0
        initrdEnd = UInt64(field(Offset.initrdLimit, since: 0x203) ?? UInt32(0x37ff_ffff)) + 1
        commandLineLimit = Int(field(Offset.commandLineSize, since: 0x206) ?? UInt32(255))
        preferredAddress = field(Offset.preferredAddress, since: 0x20a) ?? UInt64(0x10_0000)
        initSize = UInt64(field(Offset.initSize, since: 0x20a) ?? UInt32(0))
        kernelOffset = (Int(sectors == 0 ? 4 : sectors) + 1) * 512
        kernelBytes = UInt64(paragraphs) * 16
        if let offset: UInt32 = field(Offset.payloadOffset, since: 0x208),
            let count: UInt32 = field(Offset.payloadLength, since: 0x208), offset > 0, count > 0
        {
            payload = (UInt64(kernelOffset) + UInt64(offset), UInt64(count))
        } else {
            payload = nil
        }
        guard kernelOffset < image.count else { throw truncated }
    }

    /// LOADED_HIGH: a bzImage and not a zImage.
    var isLoadedHigh: Bool { loadFlags & 1 != 0 }
    /// XLF_KERNEL_64; older kernels do not say.
    var has64BitEntry: Bool? { version >= 0x20c ? extendedFlags & 1 != 0 : nil }
}
//:
