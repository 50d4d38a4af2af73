internal import HostInterface

/// A file of clusters, and where it ends.
final class ClusterFile {
    let file: DiskFile
    let clusterBits: Int
    /// What lies from here on was never written, and reads as zeros once the file gets there.
    private(set) var end: UInt64

    /// Something that was to be on the disk is not, and nobody knows what.
    private(set) var isBroken = false

    /// No pointer in the format can go further (bits 9 to 55 of an entry).
    static let limit: UInt64 = 1 << 56

    init(_ file: DiskFile, clusterBits: Int) throws(Errno) {
        self.file = file
        self.clusterBits = clusterBits
        end = try file.size()
    }

    var clusterSize: Int { 1 << clusterBits }
    var offsetMask: UInt64 { UInt64(clusterSize) - 1 }

    /// Whether a cluster begins there, and within the file; the header's does not count.
    func isCluster(_ offset: UInt64) -> Bool { offset != 0 && offset & offsetMask == 0 && offset < end }

    /// A table; what the file has not all of is none.
    func readTable(at offset: UInt64) throws(Errno) -> [UInt8] {
        guard isCluster(offset) else { throw .inputOutput }
        return try file.read(at: offset, count: clusterSize)
    }

    func write(_ bytes: some Collection<UInt8>, at offset: UInt64) throws(Errno) {
        // A write that fails may have got part of the way.
        end = max(end, offset + UInt64(bytes.count))
        try file.write(bytes, at: offset)
    }

    /// Makes the file reach to `offset`.
    func extend(to offset: UInt64) throws(Errno) {
        guard offset > end else { return }
        try file.resize(to: offset)
        end = offset
    }

    func writeZeros(at offset: UInt64, count: Int) throws(Errno) {
        end = max(end, offset + UInt64(count))
        try file.writeZeros(at: offset, count: UInt64(count), unmap: false)
    }

    /// What was written is on the disk when this returns. If it fails once, it has failed for good.
    func synchronize() throws(Errno) {
        guard !isBroken else { throw .inputOutput }
        do { try file.synchronize() } catch {
            isBroken = true
            throw error
        }
    }
}
