package import HostInterface

/// Opens disks.
package enum DiskImages {
    /// Opens, checks and locks an image.
    ///
    /// - Parameter format: nil to look at the file's first bytes.
    /// - Throws: one line with the path, the reason and the way out.
    package static func open(
        path: String, format: DiskFormat? = nil, readOnly: Bool = false
    ) throws(HostError) -> any DiskImage & Sendable {
        let file = try DiskFile(opening: path, readOnly: readOnly)
        try file.lock()
        let format = if let format { format } else { try detect(file) }
        switch format {
        case .raw: return try RawImage(file)
        case .qcow2: throw HostError("cannot open \(path): qcow2 is not supported yet")
        }
    }

    /// The format that the file's first bytes speak of.
    static func detect(_ file: DiskFile) throws(HostError) -> DiskFormat {
        do {
            return try file.read(at: 0, upTo: 4) == [0x51, 0x46, 0x49, 0xfb] ? .qcow2 : .raw
        } catch {
            throw HostError("cannot read \(file.path)", errno: error)
        }
    }
}
