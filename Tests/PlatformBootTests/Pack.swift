internal import CLZ4
internal import CLZMA
internal import CZlib
internal import CZstd

/// Packs as a kernel's build does, with the unpacked size behind.
enum Pack {
    static func size(_ bytes: [UInt8]) -> [UInt8] { le(UInt32(bytes.count)) }

    static func gzip(_ bytes: [UInt8]) -> [UInt8] {
        var stream = unsafe z_stream()
        unsafe deflateInit2_(
            &stream, 9, Z_DEFLATED, 16 + 15, 8, Z_DEFAULT_STRATEGY, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size))
        defer { unsafe deflateEnd(&stream) }
        var input = bytes
        let room = bytes.count + 1024
        return unsafe input.withUnsafeMutableBufferPointer { source in
            unsafe stream.next_in = source.baseAddress
            unsafe stream.avail_in = UInt32(source.count)
            return unsafe [UInt8](unsafeUninitializedCapacity: room) { output, count in
                unsafe stream.next_out = output.baseAddress
                unsafe stream.avail_out = UInt32(room)
                unsafe deflate(&stream, Z_FINISH)
                count = unsafe room - Int(stream.avail_out)
            }
        }
    }

    static func zstd(_ bytes: [UInt8]) -> [UInt8] {
        let room = ZSTD_compressBound(bytes.count) + 4
        return unsafe [UInt8](unsafeUninitializedCapacity: room) { output, count in
            // With a checksum, as zstd(1) writes.
            let context = unsafe ZSTD_createCCtx()
            defer { unsafe ZSTD_freeCCtx(context) }
            unsafe ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1)
            count = unsafe ZSTD_compress2(context, output.baseAddress, room, bytes, bytes.count)
        } + size(bytes)
    }

    static func xz(_ bytes: [UInt8]) -> [UInt8] {
        let room = lzma_stream_buffer_bound(bytes.count)
        var options = unsafe lzma_options_lzma()
        unsafe lzma_lzma_preset(&options, 6)
        return unsafe withUnsafeMutablePointer(to: &options) { lzma2 in
            // With the x86 branch filter, as the kernel's build has it.
            var filters = unsafe [
                lzma_filter(id: 0x04, options: nil), lzma_filter(id: 0x21, options: lzma2),
                lzma_filter(id: .max, options: nil),
            ]
            return unsafe [UInt8](unsafeUninitializedCapacity: room) { output, count in
                let result = unsafe lzma_stream_buffer_encode(
                    &filters, LZMA_CHECK_CRC32, nil, bytes, bytes.count, output.baseAddress, &count, room)
                precondition(result == LZMA_OK)
            }
        } + size(bytes)
    }

    static func lz4(_ bytes: [UInt8]) -> [UInt8] {
        var result: [UInt8] = [0x02, 0x21, 0x4c, 0x18]
        for start in stride(from: 0, to: bytes.count, by: 8 << 20) {
            let chunk = Array(bytes[start..<min(start + 8 << 20, bytes.count)])
            let room = Int(LZ4_compressBound(Int32(chunk.count)))
            var packed = [CChar](repeating: 0, count: room)
            let signed = chunk.map { CChar(bitPattern: $0) }
            let count = unsafe LZ4_compress_default(signed, &packed, Int32(chunk.count), Int32(room))
            result += le(UInt32(count)) + packed[..<Int(count)].map { UInt8(bitPattern: $0) }
        }
        return result + size(bytes)
    }
}

func le<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
    (0..<MemoryLayout<T>.size).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
}

extension Array<UInt8> {
    mutating func put<T: FixedWidthInteger>(_ value: T, at offset: Int) {
        replaceSubrange(offset..<offset + MemoryLayout<T>.size, with: le(value))
    }
}
