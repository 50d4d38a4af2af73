internal import CHost
internal import Glibc

/// Stream sockets with names in a `RuntimeFolder`; all of them non-blocking.
package enum UnixSockets {
    /// A socket of that name that takes connections, from this user's processes alone: its mode is 0600.
    package static func listen(_ name: String, in folder: borrowing RuntimeFolder) throws(HostError) -> FileDescriptor {
        let file = try make()
        // A name that is bound has the socket's own mode, less the umask: it is never anything but this.
        guard fchmod(file.rawValue, 0o600) == 0, unsafe chost_unix_bind(file.rawValue, folder.shortPath(name)) == 0,
            Glibc.listen(file.rawValue, 16) == 0
        else { throw HostError("cannot listen at \(folder.path)/\(name)", errno: .current) }
        return file
    }

    /// A connection to the socket of that name; nil if nobody listens there any more.
    package static func connect(_ name: String, in folder: borrowing RuntimeFolder) throws(HostError) -> FileDescriptor?
    {
        let file = try make()
        if unsafe chost_unix_connect(file.rawValue, folder.shortPath(name)) == 0 { return file }
        let error = Errno.current
        if error.rawValue == ECONNREFUSED || error == .notFound { return nil }
        throw HostError(
            "cannot connect to \(folder.path)/\(name)", errno: error,
            advice: error == .again ? "too many are waiting there; try again" : "")
    }

    /// The next that has connected, if it is this user; nil if there is none.
    package static func accept(_ listener: Int32) -> FileDescriptor? {
        while true {
            let number = chost_accept(listener)
            guard number >= 0 else {
                if Errno.current == .interrupted { continue }
                return nil
            }
            let file = FileDescriptor(owning: number)
            var user: UInt32 = 0
            guard unsafe chost_peer_user(number, &user) == 0, user == geteuid() else {
                continue  // Closed.
            }
            return file
        }
    }

    /// What of `bytes` the other end's buffer had room for; nil if it is gone.
    package static func send(_ bytes: ArraySlice<UInt8>, to socket: Int32) -> Int? {
        while true {
            let count = unsafe bytes.withUnsafeBytes {
                unsafe Glibc.send(socket, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            if count >= 0 { return count }
            if Errno.current == .again { return 0 }
            if Errno.current != .interrupted { return nil }
        }
    }

    /// What has arrived, if anything has; nil if the other end is gone.
    package static func receive(from socket: Int32, limit: Int = 1 << 16) -> [UInt8]? {
        var buffer = [UInt8](repeating: 0, count: limit)
        while true {
            let count = unsafe recv(socket, &buffer, limit, 0)
            if count > 0 { return Array(buffer[..<count]) }
            if count == 0 { return nil }
            if Errno.current == .again { return [] }
            if Errno.current != .interrupted { return nil }
        }
    }

    private static func make() throws(HostError) -> FileDescriptor {
        let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
        let number = socket(AF_UNIX, kind, 0)
        guard number >= 0 else { throw HostError("cannot create a socket", errno: .current) }
        return FileDescriptor(owning: number)
    }
}
