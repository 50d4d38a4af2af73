package import HostInterface

/// The names of running houses, as sockets in the user's runtime folder.
package struct ControlSocket: ~Copyable {
    private static let suffix = ".sock"

    private let folder: RuntimeFolder
    private let name: String
    let descriptor: FileDescriptor

    /// Takes the name for this process.
    ///
    /// - Throws: if another house has it.
    package init(claiming name: String) throws(HostError) {
        let folder = try RuntimeFolder()
        let file = name + Self.suffix
        let listener = try folder.locked { () throws(HostError) in
            if try UnixSockets.connect(file, in: folder) != nil {
                throw HostError(
                    "there is a running house called \(name) already",
                    advice: "give this one another \"name\", or see roost ps --house \(name)")
            }
            folder.remove(file)  // Left by a process that could not do it itself.
            return try UnixSockets.listen(file, in: folder)
        }
        descriptor = listener
        self.name = file
        self.folder = folder
    }

    /// Nobody finds the house from now on.
    consuming func close() { folder.remove(name) }

    /// A connection to the house of that name; nil if it does not run.
    static func connect(to house: String) throws(HostError) -> FileDescriptor? {
        let folder = try RuntimeFolder()
        return try UnixSockets.connect(house + suffix, in: folder)
    }

    /// The houses that run. The sockets of those that do not are removed.
    static func houses() throws(HostError) -> [String] {
        let folder = try RuntimeFolder()
        return try folder.locked { () throws(HostError) in
            var houses: [String] = []
            for file in folder.names where file.hasSuffix(suffix) {
                let isThere: Bool
                // One that has too many callers to answer is there all the same.
                do { isThere = try UnixSockets.connect(file, in: folder) != nil } catch { isThere = true }
                if isThere { houses.append(String(file.dropLast(suffix.count))) } else { folder.remove(file) }
            }
            return houses
        }
    }
}
