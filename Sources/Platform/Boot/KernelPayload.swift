internal import CLZ4
internal import CLZMA
internal import CZlib
internal import CZstd

//L:160 Unpacking
//
// The kernel's build appends the unpacked size, 32 bits, to whatever the
// compressor wrote (gzip already ends like that). So the room needed is known
// before the first byte is unpacked, and a kernel that yields one byte more or
// less is not the kernel that somebody packed.

/// The packed kernel within a bzImage.
struct KernelPayload {
    enum Compression: Sendable {
        case gzip, bzip2, lzma, xz, lzo, lz4, zstd
        /// No compression: an ELF file as it is.
        case stored

        /// By the first bytes (Linux's lib/decompress.c knows the same ones).
        static let magics: [(bytes: [UInt8], compression: Compression)] = [
            ([0x1f, 0x8b], .gzip), ([0x42, 0x5a, 0x68], .bzip2), ([0x5d, 0, 0], .lzma),
            ([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0], .xz), ([0x89, 0x4c, 0x5a, 0x4f], .lzo),
            ([0x02, 0x21, 0x4c, 0x18], .lz4), ([0x28, 0xb5, 0x2f, 0xfd], .zstd), (ELFImage.magic, .stored),
        ]

        /// Whether we can, or leave it to the kernel's own decompressor.
        var isUnpackedHere: Bool {
            switch self {
            case .gzip, .xz, .lz4, .zstd, .stored: true
            case .bzip2, .lzma, .lzo: false
            }
        }
    }

    struct Corrupt: Error, Equatable { var why: String }

    /// More than any kernel, less than would hurt: Linux allows its image 1 GiB of address space.
    static let unpackedLimit = 1 << 30
    /// xz allocates the dictionary that its header asks for; kernels ask for 128 MiB at most.
    static let xzMemoryLimit: UInt64 = 256 << 20

    let image: ImageBytes
    let range: Range<Int>

    var compression: Compression? {
        Compression.magics.first { range.count >= $0.bytes.count && image.has($0.bytes, at: range.lowerBound) }?
            .compression
    }

    func unpack() throws(Corrupt) -> [UInt8] {
        guard let compression else { throw Corrupt(why: "packed by no known method") }
        if compression == .stored { return Array(image.bytes[range]) }
        guard range.count > 8, let size = image.load(range.upperBound - 4, as: UInt32.self) else {
            throw Corrupt(why: "it is too short")
        }
        guard size > 0, size <= Self.unpackedLimit else { throw Corrupt(why: "it claims to unpack to \(size) bytes") }
        let packed = compression == .gzip ? range : range.lowerBound..<range.upperBound - 4
        var failure: Corrupt?
        let bytes = unsafe image.bytes.withUnsafeBytes { file in
            let input = unsafe UnsafeRawBufferPointer(rebasing: file[packed])
            return unsafe [UInt8](unsafeUninitializedCapacity: Int(size)) { output, filled in
                do throws(Corrupt) {
                    let room = unsafe UnsafeMutableRawBufferPointer(
                        rebasing: UnsafeMutableRawBufferPointer(output)[..<Int(size)])
                    switch compression {
                    case .gzip: filled = unsafe try Self.inflateGzip(input, room)
                    case .xz: filled = unsafe try Self.decodeXZ(input, room)
                    case .lz4: filled = unsafe try Self.decodeLZ4(input, room)
                    case .zstd: filled = unsafe try Self.decodeZstd(input, room)
                    case .bzip2, .lzma, .lzo, .stored: throw Corrupt(why: "not unpacked here")
                    }
                } catch { failure = error }
            }
        }
        if let failure { throw failure }
        guard bytes.count == Int(size) else {
            throw Corrupt(why: "it unpacks to \(bytes.count) bytes instead of \(size)")
        }
        return bytes
    }
}

// SAFETY: all of these are given the bounds of both buffers and trust the
// libraries to keep within; the libraries are fuzzed for just that.
extension KernelPayload {
    private static func inflateGzip(
        _ input: UnsafeRawBufferPointer, _ output: UnsafeMutableRawBufferPointer
    ) throws(Corrupt) -> Int {
        var stream = unsafe z_stream()
        // 16 + 15: a gzip wrapper, with its checksum, around the largest window.
        guard unsafe inflateInit2_(&stream, 16 + 15, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size)) == Z_OK else {
            throw Corrupt(why: "no memory to unpack it")
        }
        defer { unsafe inflateEnd(&stream) }
        // zlib counts in 32 bits; our limit, and the file's 32-bit length, fit.
        unsafe stream.next_in = UnsafeMutablePointer(mutating: input.bindMemory(to: UInt8.self).baseAddress)
        unsafe stream.avail_in = UInt32(input.count)
        unsafe stream.next_out = output.bindMemory(to: UInt8.self).baseAddress
        unsafe stream.avail_out = UInt32(output.count)
        guard unsafe inflate(&stream, Z_FINISH) == Z_STREAM_END else { throw Corrupt(why: "gzip cannot read it") }
        return unsafe output.count - Int(stream.avail_out)
    }

    private static func decodeXZ(
        _ input: UnsafeRawBufferPointer, _ output: UnsafeMutableRawBufferPointer
    ) throws(Corrupt) -> Int {
        var memoryLimit = xzMemoryLimit
        var inputPosition = 0, outputPosition = 0
        // Also undoes the x86 branch filter, which kernels use.
        let result = unsafe lzma_stream_buffer_decode(
            &memoryLimit, 0, nil, input.bindMemory(to: UInt8.self).baseAddress, &inputPosition, input.count,
            output.bindMemory(to: UInt8.self).baseAddress, &outputPosition, output.count)
        guard result == LZMA_OK else { throw Corrupt(why: "xz cannot read it (error \(result.rawValue))") }
        return outputPosition
    }

    /// `lz4 -l`, the format that the kernel's build uses: a magic number, then
    /// chunks of at most 8 MiB unpacked, each after its packed length.
    private static func decodeLZ4(
        _ input: UnsafeRawBufferPointer, _ output: UnsafeMutableRawBufferPointer
    ) throws(Corrupt) -> Int {
        let chunkLimit = 8 << 20
        let packedLimit = Int(LZ4_compressBound(Int32(chunkLimit)))
        var position = 4, filled = 0
        while position < input.count {
            guard input.count - position >= 4 else { throw Corrupt(why: "an lz4 chunk is cut short") }
            let length = Int(unsafe input.loadUnaligned(fromByteOffset: position, as: UInt32.self).littleEndian)
            position += 4
            guard length > 0, length <= input.count - position else { throw Corrupt(why: "an lz4 chunk is cut short") }
            // Also keeps the length within the 32 bits that liblz4 takes.
            guard length <= packedLimit else { throw Corrupt(why: "an lz4 chunk is longer than 8 MiB can become") }
            let room = min(chunkLimit, output.count - filled)
            let count = unsafe LZ4_decompress_safe(
                input.baseAddress?.advanced(by: position).assumingMemoryBound(to: CChar.self),
                output.baseAddress?.advanced(by: filled).assumingMemoryBound(to: CChar.self), Int32(length), Int32(room)
            )
            guard count >= 0 else { throw Corrupt(why: "lz4 cannot read it") }
            position += length
            filled += Int(count)
        }
        return filled
    }

    private static func decodeZstd(
        _ input: UnsafeRawBufferPointer, _ output: UnsafeMutableRawBufferPointer
    ) throws(Corrupt) -> Int {
        let result = unsafe ZSTD_decompress(output.baseAddress, output.count, input.baseAddress, input.count)
        guard ZSTD_isError(result) == 0 else {
            throw Corrupt(why: "zstd cannot read it: \(unsafe String(cString: ZSTD_getErrorName(result)))")
        }
        return result
    }
}
//:
