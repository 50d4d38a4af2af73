internal import CZlib
internal import CZstd
internal import HostInterface

/// A cluster that is stored compressed: anywhere in the file, in whole
/// sectors, of which the last may be shared with the next such cluster.
struct CompressedCluster: Equatable {
    let offset: UInt64
    /// What the entry claims; the file may end before it.
    let byteCount: Int

    /// From an L2 entry: the offset, and above it the number of sectors beyond the first.
    init(entry: UInt64, clusterBits: Int) {
        let offsetBits = UInt64(62 - (clusterBits - 8))
        offset = entry & (1 << offsetBits - 1)
        let sectors = Int(entry >> offsetBits & (1 << UInt64(clusterBits - 8) - 1)) + 1
        byteCount = sectors * 512 - Int(offset % 512)
    }

    /// The clusters of the file that it touches, by number.
    func clusters(_ clusterBits: Int) -> ClosedRange<UInt64> {
        offset >> clusterBits...(offset + UInt64(byteCount - 1)) >> clusterBits
    }

    /// All of the cluster; nothing less will do.
    func unpack(_ storage: ClusterFile, _ compression: Qcow2Header.Compression) throws(Errno) -> [UInt8] {
        guard offset < storage.end else { throw .inputOutput }
        let packed = try storage.file.read(at: offset, upTo: byteCount)
        let size = storage.clusterSize
        let bytes = unsafe packed.withUnsafeBytes { input in
            unsafe [UInt8](unsafeUninitializedCapacity: size) { room, filled in
                let output = unsafe UnsafeMutableRawBufferPointer(start: room.baseAddress, count: size)
                switch compression {
                case .zlib: filled = unsafe Self.inflate(input, output)
                case .zstd: filled = unsafe Self.decodeZstd(input, output)
                }
            }
        }
        guard bytes.count == size else { throw .inputOutput }
        return bytes
    }

    // SAFETY: both are given the bounds of both buffers, and the libraries
    // keep within; they are fuzzed for just that.

    /// Deflate without a wrapper; what follows its end is somebody else's.
    private static func inflate(_ input: UnsafeRawBufferPointer, _ output: UnsafeMutableRawBufferPointer) -> Int {
        var stream = unsafe z_stream()
        guard unsafe inflateInit2_(&stream, -15, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size)) == Z_OK else {
            return 0
        }
        defer { unsafe inflateEnd(&stream) }
        unsafe stream.next_in = UnsafeMutablePointer(mutating: input.bindMemory(to: UInt8.self).baseAddress)
        unsafe stream.avail_in = UInt32(input.count)
        unsafe stream.next_out = output.bindMemory(to: UInt8.self).baseAddress
        unsafe stream.avail_out = UInt32(output.count)
        let result = unsafe CZlib.inflate(&stream, Z_FINISH)
        guard result == Z_STREAM_END || result == Z_BUF_ERROR || result == Z_OK else { return 0 }
        return unsafe output.count - Int(stream.avail_out)
    }

    /// One frame; its own end is looked for first, for the sector goes on behind it.
    private static func decodeZstd(_ input: UnsafeRawBufferPointer, _ output: UnsafeMutableRawBufferPointer) -> Int {
        let frame = unsafe ZSTD_findFrameCompressedSize(input.baseAddress, input.count)
        guard ZSTD_isError(frame) == 0 else { return 0 }
        let count = unsafe ZSTD_decompress(output.baseAddress, output.count, input.baseAddress, frame)
        return ZSTD_isError(count) == 0 ? count : 0
    }
}
