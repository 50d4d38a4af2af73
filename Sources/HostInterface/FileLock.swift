internal import CHost
internal import Glibc

/// Keeps a second writer away from a disk.
///
/// The locks are of the open file description (fcntl(2), F_OFD_SETLK): they
/// end with it, however it ends, and two in one process keep each other out.
/// They lie where QEMU has its own, so that we and it respect each other. A
/// QEMU that writes holds a shared lock on byte 101; one that wants nobody
/// else to write holds one on byte 201, and so do our readers. Our writers
/// have both to themselves.
extension DiskFile {
    private static let qemuWrites: off_t = 101
    private static let nobodyWrites: off_t = 201

    /// Alone if the file was opened for writing, with other readers if not;
    /// held until the file is closed. A file system that has no locks is let by.
    ///
    /// - Throws: if others are in the way, with who they are.
    package func lock() throws(HostError) {
        if isReadOnly {
            guard try take(Self.nobodyWrites, alone: false) else { return }
            if chost_range_is_free(descriptor, Self.qemuWrites, 1) == 0 { throw inUse() }
        } else {
            guard try take(Self.qemuWrites, alone: true) else { return }
            _ = try take(Self.nobodyWrites, alone: true)
        }
    }

    /// False where the file system has no locks.
    private func take(_ byte: off_t, alone: Bool) throws(HostError) -> Bool {
        if chost_lock_range(descriptor, alone ? 1 : 0, byte, 1) == 0 { return true }
        switch Errno.current {
        case .again, .permissionDenied: throw inUse()
        case .notSupported, Errno(rawValue: ENOLCK), Errno(rawValue: ENOSYS), .invalid: return false
        default: throw HostError("cannot lock \(path)", errno: .current)
        }
    }

    /// Who has the file locked; nil if nobody has.
    package func lockHolder() -> String? {
        let isFree = [Self.qemuWrites, Self.nobodyWrites].allSatisfy { chost_range_is_free(descriptor, $0, 1) != 0 }
        return isFree ? nil : holderInWords
    }

    private func inUse() -> HostError {
        HostError(
            "cannot open \(path): it is in use by \(holderInWords)",
            advice: "open it with ,ro there and here, or write to an overlay: "
                + "roost disk create --backing \(path) FILE, and ,ro there")
    }

    /// The kernel names no process for a lock of this kind; but what a process
    /// has open, and which of that is locked, can be read in /proc.
    private var holderInWords: String {
        for process in Files.list("/proc") {
            guard let pid = Int32(process) else { continue }
            for number in Files.list("/proc/\(process)/fd") {
                if pid == getpid(), number == String(descriptor) { continue }
                var status = stat()
                guard unsafe stat("/proc/\(process)/fd/\(number)", &status) == 0, Identity(status) == identity,
                    Self.text("/proc/\(process)/fdinfo/\(number)").contains("lock:")
                else { continue }
                if pid == getpid() { return "this very process" }
                let name = Self.text("/proc/\(process)/comm").prefix { $0 != "\n" }
                return "\(name) (process \(pid))"
            }
        }
        return "another process"
    }

    /// A file of /proc, whose size nobody knows before it is read.
    private static func text(_ path: String) -> String {
        guard let file = try? FileDescriptor.open(path, O_RDONLY) else { return "" }
        var buffer = [UInt8](repeating: 0, count: 4096)
        let count = unsafe buffer.withUnsafeMutableBytes { unsafe (try? file.read(into: $0)) ?? 0 }
        return String(decoding: buffer[..<count], as: UTF8.self)
    }
}
