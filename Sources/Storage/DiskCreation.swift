package import HostInterface

/// A disk to be made, as `roost disk create` is told.
package struct DiskCreation: Sendable {
    package var path: String
    package var format: DiskFormat = .qcow2
    /// Nil for the backing file's.
    package var byteCount: UInt64?
    /// Relative to the folder that we are in.
    package var backing: String?
    /// Nil to go by the backing file's first bytes.
    package var backingFormat: DiskFormat?

    package init(path: String) { self.path = path }

    /// Makes the file; on an error there is none. One that is there already stays as it is.
    package func run() throws(HostError) {
        var base: (name: String, format: DiskFormat)?
        var size = byteCount
        if let backing {
            guard format == .qcow2 else {
                throw HostError(
                    "cannot create \(path): a raw disk has no backing file", advice: "leave out --format raw")
            }
            // Opened with all that is below it, so that the overlay is sure to open, too.
            guard try DiskInfo(path: backing, format: backingFormat).chain.count < DiskImages.chainLimit else {
                throw HostError(
                    "cannot create \(path): \(backing) has \(DiskImages.chainLimit) files below it already",
                    advice: "qemu-img convert makes one file of them")
            }
            let image = try DiskImages.open(path: backing, format: backingFormat, readOnly: true)
            let name = try nameForHeader(of: backing)
            guard name.utf8.count <= 1023 else {
                throw HostError("cannot create \(path): the path of \(backing) is longer than the 1023 bytes allowed")
            }
            base = (name, image.format)
            size = size ?? image.byteCount
        }
        guard let size else { throw HostError("cannot create \(path): it has no size", advice: "say --size 10G") }
        guard size > 0, size % 512 == 0, size <= (format == .raw ? UInt64(Int64.max) : Qcow2Creation.byteLimit) else {
            throw HostError(
                "cannot create \(path): a disk of \(size) bytes cannot be",
                advice: "the size is a multiple of 512, and at most \(Qcow2Creation.byteLimit >> 40)T")
        }
        let file = try DiskFile(creating: path)
        do throws(Errno) {
            switch format {
            case .raw: try file.resize(to: size)
            case .qcow2: try Qcow2Creation.write(file, byteCount: size, backing: base)
            }
        } catch {
            Files.removeFile(path)
            throw HostError("cannot create \(path)", errno: error)
        }
    }

    /// The backing file's path as it is written into the overlay, where it is
    /// relative to the overlay's folder: two files in one folder may move
    /// together, and any other stays where it is.
    private func nameForHeader(of backing: String) throws(HostError) -> String {
        let folder = path.lastIndex(of: "/").map { path[...$0] } ?? ""
        if !backing.hasPrefix("/"), backing.hasPrefix(folder) {
            let name = backing.dropFirst(folder.count)
            return name.contains(":") ? "./" + name : String(name)  // Or it would be a protocol to QEMU.
        }
        return try Files.absolutePath(backing)
    }
}
