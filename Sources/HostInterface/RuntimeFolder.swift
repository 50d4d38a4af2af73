internal import CHost
internal import Glibc

/// A folder that is this user's alone, for the sockets of running processes.
///
/// It is used through its descriptor from the moment it was looked at: whoever
/// can rename folders in /tmp can put another in its place, and gains nothing.
package struct RuntimeFolder: ~Copyable {
    package let path: String
    private let descriptor: FileDescriptor

    /// $XDG_RUNTIME_DIR/roost where there is such a folder (XDG Base Directory Specification), else /tmp/roost-UID.
    package static var defaultPath: String {
        if let base = environmentVariable("XDG_RUNTIME_DIR"), base.hasPrefix("/"), Files.exists(base) {
            return base + "/roost"
        }
        return "/tmp/roost-\(geteuid())"
    }

    /// Opens it, and creates it if it is not there.
    ///
    /// - Throws: also if it is a link, somebody else's, or open to others.
    package init(path: String = RuntimeFolder.defaultPath) throws(HostError) {
        if unsafe mkdir(path, 0o700) != 0, Errno.current.rawValue != EEXIST {
            throw HostError("cannot create the folder \(path)", errno: .current)
        }
        let folder = try FileDescriptor.open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
        var status = stat()
        guard unsafe fstat(folder.rawValue, &status) == 0 else {
            throw HostError("cannot examine \(path)", errno: .current)
        }
        guard status.st_uid == geteuid(), status.st_mode & 0o077 == 0 else {
            throw HostError(
                "cannot use the folder \(path): it is open to others, or another user's",
                advice: "remove it, or set XDG_RUNTIME_DIR to a folder of your own")
        }
        descriptor = folder
        self.path = path
    }

    /// The names in it, sorted.
    package var names: [String] { Files.list("/proc/self/fd/\(descriptor.rawValue)") }

    package func remove(_ name: String) { _ = unsafe unlinkat(descriptor.rawValue, name, 0) }

    /// Holds other processes off (flock(2)) while `body` runs.
    package func locked<Result: ~Copyable>(_ body: () throws(HostError) -> Result) throws(HostError) -> Result {
        while flock(descriptor.rawValue, LOCK_EX) != 0 {
            guard Errno.current == .interrupted else { throw HostError("cannot lock \(path)", errno: .current) }
        }
        defer { _ = flock(descriptor.rawValue, LOCK_UN) }
        return try body()
    }

    /// A path to a name in it that is short enough for any socket.
    func shortPath(_ name: String) -> String { "/proc/self/fd/\(descriptor.rawValue)/\(name)" }
}
