internal import Glibc

/// An error number of the host's kernel, named as in errno(3).
package struct Errno: Error, RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    package let rawValue: Int32

    package init(rawValue: Int32) { self.rawValue = rawValue }

    /// The calling thread's last error.
    package static var current: Errno { Errno(rawValue: errno) }

    package static let notFound = Errno(rawValue: ENOENT)
    package static let accessDenied = Errno(rawValue: EACCES)
    package static let notPermitted = Errno(rawValue: EPERM)
    package static let busy = Errno(rawValue: EBUSY)
    package static let interrupted = Errno(rawValue: EINTR)
    package static let again = Errno(rawValue: EAGAIN)
    package static let invalid = Errno(rawValue: EINVAL)
    package static let noMemory = Errno(rawValue: ENOMEM)
    package static let inputOutput = Errno(rawValue: EIO)
    package static let noSpace = Errno(rawValue: ENOSPC)
    package static let readOnly = Errno(rawValue: EROFS)
    package static let permissionDenied = Errno(rawValue: EACCES)
    package static let notSupported = Errno(rawValue: EOPNOTSUPP)
    package static let badAddress = Errno(rawValue: EFAULT)
    package static let badDescriptor = Errno(rawValue: EBADF)
    package static let noProcess = Errno(rawValue: ESRCH)
    package static let exists = Errno(rawValue: EEXIST)
    package static let noSystemCall = Errno(rawValue: ENOSYS)
    /// What the kernel says to itself, and lguest said to its Launcher: start over.
    package static let restart = Errno(rawValue: 85)

    /// Makes it the calling thread's last error, for a caller in C.
    package func set() { errno = rawValue }

    package var description: String {
        guard let text = unsafe strerror(rawValue) else { return "error \(rawValue)" }
        return unsafe String(cString: text)
    }
}

/// What went wrong on the host's side: the operation, on what, why, and what
/// the user can do about it. Its description is the one line a user reads.
package struct HostError: Error, CustomStringConvertible, Sendable {
    /// What was tried, as in "cannot open vmlinuz".
    package let summary: String
    package let errno: Errno?
    /// The way out, as in "pass --kernel FILE"; empty where there is none.
    package let advice: String

    package init(_ summary: String, errno: Errno? = nil, advice: String = "") {
        self.summary = summary
        self.errno = errno
        self.advice = advice
    }

    package var description: String {
        var line = summary
        if let errno { line += ": \(errno)" }
        if !advice.isEmpty { line += " (\(advice))" }
        return line
    }
}
