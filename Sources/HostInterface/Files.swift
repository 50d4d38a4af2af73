internal import CHost
internal import Glibc

/// What the Launcher does with files and folders besides reading them.
package enum Files {
    package static func exists(_ path: String) -> Bool { unsafe access(path, F_OK) == 0 }

    package static func isExecutable(_ path: String) -> Bool { unsafe access(path, X_OK) == 0 }

    /// mkdir -p.
    package static func createFolder(_ path: String) throws(HostError) {
        if unsafe mkdir(path, 0o755) == 0 { return }
        let error = Errno.current
        if error.rawValue == EEXIST { return }
        let parent = path.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
        guard error == .notFound, !parent.isEmpty else {
            throw HostError("cannot create the folder \(path)", errno: error)
        }
        try createFolder(parent)
        guard unsafe mkdir(path, 0o755) == 0 || Errno.current.rawValue == EEXIST else {
            throw HostError("cannot create the folder \(path)", errno: .current)
        }
    }

    /// A new folder, of a name of its own, beside `path`: what is made in it
    /// can then be moved to `path` in one step.
    package static func createTemporaryFolder(beside path: String) throws(HostError) -> String {
        var template = Array((path + ".XXXXXX").utf8CString)
        guard unsafe mkdtemp(&template) != nil else {
            throw HostError("cannot create a folder beside \(path)", errno: .current)
        }
        return String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    package static func rename(_ old: String, to new: String) throws(HostError) {
        guard unsafe Glibc.rename(old, new) == 0 else {
            throw HostError("cannot rename \(old) to \(new)", errno: .current)
        }
    }

    /// Writes a file that is there whole or not at all.
    package static func writeAtomically(_ bytes: [UInt8], to path: String) throws(HostError) {
        let temporary = "\(path).\(getpid())"
        let file = try FileDescriptor.open(temporary, O_WRONLY | O_CREAT | O_TRUNC)
        do { try file.write(bytes) } catch {
            unsafe unlink(temporary)
            throw HostError("cannot write \(path)", errno: error)
        }
        try rename(temporary, to: path)
    }

    /// The file's path from the root on, through no links.
    package static func absolutePath(_ path: String) throws(HostError) -> String {
        guard let resolved = unsafe realpath(path, nil) else {
            throw HostError("cannot find \(path)", errno: .current)
        }
        defer { unsafe free(resolved) }
        return unsafe String(cString: resolved)
    }

    /// What a symbolic link says; nil if it is none.
    package static func link(at path: String) -> String? {
        unsafe withUnsafeTemporaryAllocation(byteCount: Int(PATH_MAX), alignment: 1) { buffer in
            guard let base = unsafe buffer.assumingMemoryBound(to: CChar.self).baseAddress else { return nil }
            let count = unsafe readlink(path, base, buffer.count)
            return count < 0 ? nil : unsafe String(decoding: buffer[..<count], as: UTF8.self)
        }
    }

    package static func removeFile(_ path: String) { _ = unsafe unlink(path) }

    /// rm -rf, which is far enough from the hot path to be asked of rm itself.
    package static func remove(_ path: String) { _ = try? Subprocess.run(["rm", "-rf", "--", path]) }

    /// The names in a folder, sorted; none if there is no such folder.
    package static func list(_ path: String) -> [String] {
        guard let folder = unsafe opendir(path) else { return [] }
        defer { unsafe closedir(folder) }
        var names: [String] = []
        while let entry = unsafe readdir(folder) {
            let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) { name in
                unsafe name.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(cString: $0) }
            }
            if name != "." && name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    /// All files below a folder, as paths relative to it, sorted.
    package static func tree(_ path: String) -> [String] {
        var found: [String] = []
        for name in list(path) {
            var status = stat()
            let whole = path + "/" + name
            guard unsafe lstat(whole, &status) == 0 else { continue }
            if status.st_mode & S_IFMT == S_IFDIR {
                found += tree(whole).map { name + "/" + $0 }
            } else {
                found.append(name)
            }
        }
        return found
    }

    /// Holds an exclusive flock(2) on `path` while `body` runs; other
    /// processes that want the same one wait.
    package static func locked<Result>(_ path: String, _ body: () throws -> Result) throws -> Result {
        let file = try FileDescriptor.open(path, O_RDWR | O_CREAT)
        while flock(file.rawValue, LOCK_EX) != 0 {
            guard Errno.current == .interrupted else { throw HostError("cannot lock \(path)", errno: .current) }
        }
        return try body()  // Closing the file gives the lock back.
    }
}

/// An environment variable; nil if unset or empty.
package func environmentVariable(_ name: String) -> String? {
    guard let value = unsafe getenv(name), unsafe value.pointee != 0 else { return nil }
    return unsafe String(cString: value)
}
