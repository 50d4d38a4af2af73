package import HostInterface

/// Byte n of the disk is byte n of the file.
///
/// Sendable without a check: all of it is constant, and the file is.
package final class RawImage: DiskImage, @unchecked Sendable {
    private let file: DiskFile
    package let byteCount: UInt64
    /// What is past this is zeros; less than `byteCount` only below an overlay.
    private let storedCount: UInt64

    package var path: String { file.path }
    package var format: DiskFormat { .raw }
    package var isReadOnly: Bool { file.isReadOnly }
    package var descriptor: Int32 { file.descriptor }
    package var needsWriteBack: Bool { false }

    /// - Parameter padding: a last sector that is incomplete is filled up with zeros, not refused.
    init(_ file: DiskFile, padding: Bool = false) throws(HostError) {
        self.file = file
        do { storedCount = try file.size() } catch { throw HostError("cannot examine \(file.path)", errno: error) }
        let missing = (512 - storedCount % 512) % 512
        guard missing == 0 || padding else {
            throw HostError(
                "cannot use \(file.path) as a disk: its \(storedCount) bytes are not a multiple of 512",
                advice: "truncate -s %512 \(file.path) fills it up")
        }
        guard storedCount > 0 || padding else {
            throw HostError(
                "cannot use \(file.path) as a disk: it is empty", advice: "truncate -s 1G \(file.path) gives it a size")
        }
        byteCount = storedCount + missing
    }

    package func locate(_ offset: UInt64, count: Int, into extents: inout [Extent]) throws(Errno) {
        guard count >= 0, contains(offset, UInt64(count)) else { throw .invalid }
        let stored = offset < storedCount ? Int(min(UInt64(count), storedCount - offset)) : 0
        extents.add(.file(descriptor: descriptor, offset: offset, count: stored))
        extents.add(.zeros(count: count - stored))
    }

    package func allocate(_ offset: UInt64, count: Int, into extents: inout [Extent]) throws(Errno) {
        guard !isReadOnly else { throw .readOnly }
        guard count >= 0, contains(offset, UInt64(count)) else { throw .invalid }
        extents.add(.file(descriptor: descriptor, offset: offset, count: count))
    }

    package func writeBack() throws(Errno) {}

    package func discard(_ offset: UInt64, count: UInt64) throws(Errno) {
        guard !isReadOnly else { throw .readOnly }
        guard contains(offset, count) else { throw .invalid }
        try file.punchHole(at: offset, count: count)
    }

    package func writeZeroes(_ offset: UInt64, count: UInt64, mayUnmap: Bool) throws(Errno) {
        guard !isReadOnly else { throw .readOnly }
        guard contains(offset, count) else { throw .invalid }
        try file.writeZeros(at: offset, count: count, unmap: mayUnmap)
    }
}
