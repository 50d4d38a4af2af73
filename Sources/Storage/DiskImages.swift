package import HostInterface

/// Opens disks, with all that lies below them.
package enum DiskImages {
    /// More overlays upon each other than anybody keeps track of.
    static let chainLimit = 16

    /// Opens, checks and locks an image, and its backing files, which are only read.
    ///
    /// - Parameter format: nil to go by the file's first bytes.
    /// - Throws: one line with the path, the reason and the way out.
    package static func open(
        path: String, format: DiskFormat? = nil, readOnly: Bool = false
    ) throws(HostError) -> any DiskImage & Sendable {
        let file = try DiskFile(opening: path, readOnly: readOnly)
        try file.lock()
        let format = if let format { format } else { try detect(file) }
        switch format {
        case .raw: return try RawImage(file)
        case .qcow2: return try openQcow2(file, above: [])
        }
    }

    private static func openQcow2(_ file: DiskFile, above: [DiskFile]) throws(HostError) -> Qcow2Image {
        let header = try Qcow2Header(file)
        if !file.isReadOnly { try header.refuseWriting(file.path) }
        var backing: (any DiskImage & Sendable)?
        if let below = try header.backing(of: file.path) { backing = try open(below, above: above + [file]) }
        return try Qcow2Image(file, header, backing: backing)
    }

    private static func open(_ backing: BackingFile, above: [DiskFile]) throws(HostError) -> any DiskImage & Sendable {
        let file = try openBackingFile(backing, above: above)
        try file.lock()
        switch try backing.format(of: file) {
        case .raw: return try RawImage(file, padding: true)
        case .qcow2: return try openQcow2(file, above: above)
        }
    }

    /// The file, once it is clear that the chain ends.
    static func openBackingFile(_ backing: BackingFile, above: [DiskFile]) throws(HostError) -> DiskFile {
        guard above.count <= chainLimit else {
            throw HostError(
                "cannot open \(above[0].path): more than \(chainLimit) backing files below it",
                advice: "qemu-img convert makes one file of them")
        }
        let file: DiskFile
        do throws(HostError) { file = try DiskFile(opening: backing.path, readOnly: true) } catch {
            throw HostError("\(error.summary), the backing file of \(backing.overlay)", errno: error.errno)
        }
        guard !above.contains(where: { $0.identity == file.identity }) else {
            throw HostError(
                "cannot open \(above[0].path): its backing files go in a circle, by way of \(file.path)",
                advice: "qemu-img rebase -u names another one")
        }
        return file
    }

    /// The format that the file's first bytes speak of.
    static func detect(_ file: DiskFile) throws(HostError) -> DiskFormat {
        do { return try file.read(at: 0, upTo: 4) == Qcow2Header.magic ? .qcow2 : .raw } catch {
            throw HostError("cannot read \(file.path)", errno: error)
        }
    }
}

/// A backing file as its overlay's header has it.
struct BackingFile {
    let path: String
    let overlay: String
    let declaredFormat: DiskFormat?

    /// The format is what the overlay says. Where it says nothing, the file
    /// is raw, and one that does not look so is refused: its contents may be
    /// a guest's, who would then choose what its disk is made of.
    func format(of file: DiskFile) throws(HostError) -> DiskFormat {
        if let declaredFormat { return declaredFormat }
        guard try DiskImages.detect(file) == .raw else {
            throw HostError(
                "cannot open \(overlay): it does not say the format of its backing file \(path), which looks like qcow2",
                advice: "qemu-img rebase -u -b … -F qcow2 \(overlay) says it")
        }
        return .raw
    }
}

extension Qcow2Header {
    /// What is below an image at `overlay`; nil if nothing is.
    func backing(of overlay: String) throws(HostError) -> BackingFile? {
        guard var name = backingName else { return nil }
        if name.hasPrefix("file:") { name.removeFirst("file:".count) }
        guard !name.hasPrefix("json:"), !name.contains("://"), !name.isEmpty else {
            throw HostError(
                "cannot open \(overlay): its backing file '\(name.oneLine)' is not a file",
                advice: "qemu-img convert makes one image of both")
        }
        var format: DiskFormat?
        if let backingFormat {
            format = DiskFormat(rawValue: backingFormat)
            guard format != nil else {
                throw HostError(
                    "cannot open \(overlay): its backing file is of the format '\(backingFormat.oneLine)'",
                    advice: "qemu-img convert makes one image of both")
            }
        }
        if !name.hasPrefix("/"), let slash = overlay.lastIndex(of: "/") { name = overlay[...slash] + name }
        return BackingFile(path: name.oneLine, overlay: overlay, declaredFormat: format)
    }

    /// What must be repaired first.
    func refuseWriting(_ path: String) throws(HostError) {
        if features.contains(.corrupt) {
            throw HostError(
                "cannot write to \(path): it is marked as corrupt",
                advice: "qemu-img check -r all \(path) repairs it; open it with ,ro to only read it")
        }
        if features.contains(.dirty) {
            throw HostError(
                "cannot write to \(path): its reference counts were left out of date",
                advice: "qemu-img check -r all \(path) repairs it; open it with ,ro to only read it")
        }
    }
}

extension String {
    /// A stranger's words, fit for a message of one line.
    var oneLine: String { String(map { $0.isNewline || $0.unicodeScalars.contains { $0.value < 0x20 } ? "?" : $0 }) }
}
