internal import CHost
internal import Glibc

/// An eventfd(2): a counter that poll(2) can wait for.
package struct EventFD: ~Copyable, Sendable {
    private let descriptor: FileDescriptor

    package var rawValue: Int32 { descriptor.rawValue }

    package init() throws(HostError) {
        let number = eventfd(0, Int32(EFD_CLOEXEC) | Int32(EFD_NONBLOCK))
        guard number >= 0 else { throw HostError("cannot create an eventfd", errno: .current) }
        descriptor = FileDescriptor(owning: number)
    }

    /// Another door to somebody's eventfd.
    ///
    /// - Throws: EBADF for no file, EINVAL for one of another kind.
    package init(duplicating number: Int32) throws(Errno) {
        let copy = fcntl(number, F_DUPFD_CLOEXEC, 0)
        guard copy >= 0 else { throw .current }
        let owned = FileDescriptor(owning: copy)
        guard Files.link(at: "/proc/self/fd/\(copy)") == "anon_inode:[eventfd]" else { throw .invalid }
        descriptor = owned
    }

    /// Adds one to the counter. Any thread.
    package func signal() {
        var one: UInt64 = 1
        _ = unsafe Glibc.write(rawValue, &one, 8)
    }

    /// Sleeps until the counter is not zero, or until `descriptor`, if it is not negative, can be read.
    ///
    /// - Returns: whether the counter is not zero.
    package func wait(or descriptor: Int32) -> Bool {
        var polled = (
            pollfd(fd: rawValue, events: Int16(POLLIN), revents: 0),
            pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        )
        return unsafe withUnsafeMutablePointer(to: &polled) { polled in
            let list = unsafe UnsafeMutableRawPointer(polled).assumingMemoryBound(to: pollfd.self)
            while unsafe poll(list, descriptor < 0 ? 1 : 2, -1) < 0, Errno.current == .interrupted {}
            return unsafe list.pointee.revents != 0
        }
    }

    /// Resets the counter.
    package func drain() {
        var count: UInt64 = 0
        _ = unsafe Glibc.read(rawValue, &count, 8)
    }
}

/// Waits until one of `descriptors` can be read or has ended; says which.
package func waitReadable(_ descriptors: [Int32], milliseconds: Int32 = -1) -> [Bool] {
    var polled = descriptors.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
    while unsafe poll(&polled, nfds_t(polled.count), milliseconds) < 0, Errno.current == .interrupted {}
    return polled.map { $0.revents != 0 }
}
