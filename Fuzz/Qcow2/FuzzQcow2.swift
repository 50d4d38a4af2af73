internal import Glibc
internal import HostInterface
internal import Storage

// libFuzzer's target for disk images. The noise is the file; what it begins
// with is made right, since a fuzzer that guesses magic numbers does nothing
// else. It is opened, read, written all over, flushed and read again; an error
// is as good as an answer, but what was written must be there.

private enum Medium {
    /// A file without a name, which /proc has one for.
    static let file: MemoryFile = {
        do { return try MemoryFile(name: "fuzz", byteCount: 0) } catch { fatalError("\(error)") }
    }()
    static var path: String { "/proc/self/fd/\(file.descriptor.rawValue)" }
}

/// More than this of a disk is not looked at: its size is the noise's to say.
private let window: UInt64 = 1 << 20

private func exercise(_ image: any DiskImage) throws(Errno) {
    let step = 24 << 10 + 512
    for offset in stride(from: 0, to: min(image.byteCount, window), by: step) {
        let count = Int(min(UInt64(step), image.byteCount - offset))
        _ = try? image.read(offset, count: count)
        guard !image.isReadOnly else { continue }
        if image.needsWriteBack { try image.writeBack() }
        var extents: [Extent] = []
        guard (try? image.allocate(offset, count: count, into: &extents)) != nil else { continue }
        precondition(extents.reduce(0) { $0 + $1.count } == count)
        for case .file(let descriptor, let place, let count) in extents.prefix(1) {
            // The header is no place for data, whatever the tables say.
            precondition(place > 0)
            let bytes = [UInt8](repeating: 0x5a, count: min(count, 512))
            _ = unsafe pwrite(descriptor, bytes, bytes.count, off_t(place))
        }
    }
    let last = image.byteCount - 512
    _ = try? image.read(last, count: 512)
    guard !image.isReadOnly else { return }
    try? image.writeZeroes(0, count: min(image.byteCount, 40 << 10), mayUnmap: true)
    try? image.discard(0, count: min(image.byteCount, window))
    try? image.writeZeroes(last, count: 512, mayUnmap: false)
    try image.writeBack()
    var extents: [Extent] = []
    try image.allocate(last, count: 512, into: &extents)
    try image.writeBack()
}

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOne(_ start: UnsafePointer<UInt8>, _ count: Int) -> Int32 {
    var bytes = unsafe [UInt8](UnsafeBufferPointer(start: start, count: count))
    guard bytes.count >= 104 else { return 0 }
    bytes.replaceSubrange(0..<8, with: [0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 2 + bytes[7] & 1])
    for readOnly in [true, false] {
        let descriptor = Medium.file.descriptor.rawValue
        guard ftruncate(descriptor, 0) == 0, unsafe pwrite(descriptor, bytes, bytes.count, 0) == bytes.count else {
            fatalError("the medium is full")
        }
        do {
            let image = try DiskImages.open(path: Medium.path, readOnly: readOnly)
            precondition(image.byteCount % 512 == 0 && image.byteCount > 0)
            try? exercise(image)
        } catch {
            let line = "\(error)"
            precondition(!line.isEmpty && !line.utf8.contains { $0 < 0x20 })
        }
    }
    return 0
}
