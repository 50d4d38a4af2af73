package import HostInterface

/// What `roost disk info` tells of an image; looked at without a lock, so
/// that a disk in use can be asked about.
package struct DiskInfo: Sendable {
    package let path: String
    package let format: DiskFormat
    package let byteCount: UInt64
    /// What the file takes of the disk that it is on.
    package let bytesOnDisk: UInt64
    package let clusterSize: Int?
    package let snapshotCount: Int
    /// Who has it open.
    package let user: String?
    /// What is below it, nearest first.
    package let chain: [DiskInfo]

    package init(path: String, format: DiskFormat? = nil) throws(HostError) {
        let file = try DiskFile(opening: path, readOnly: true)
        try self.init(file, format, above: [])
    }

    private init(_ file: DiskFile, _ format: DiskFormat?, above: [DiskFile]) throws(HostError) {
        path = file.path
        self.format = if let format { format } else { try DiskImages.detect(file) }
        user = file.lockHolder()
        do throws(Errno) { bytesOnDisk = try file.allocatedSize() } catch {
            throw HostError("cannot examine \(file.path)", errno: error)
        }
        switch self.format {
        case .raw:
            byteCount = try RawImage(file, padding: true).byteCount
            clusterSize = nil
            snapshotCount = 0
            chain = []
        case .qcow2:
            let header = try Qcow2Header(file)
            byteCount = header.byteCount
            clusterSize = header.clusterSize
            snapshotCount = header.snapshotCount
            if let backing = try header.backing(of: file.path) {
                let below = try DiskImages.openBackingFile(backing, above: above + [file])
                let info = try DiskInfo(below, try backing.format(of: below), above: above + [file])
                chain = [info] + info.chain
            } else {
                chain = []
            }
        }
    }
}
