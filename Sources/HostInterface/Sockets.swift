internal import CHost
internal import Glibc

/// What the host's network can do, and what is done to sockets that others made.
package enum Sockets {
    /// Lets a listening socket have as many connections in waiting as the system allows.
    package static func raiseBacklog(_ socket: Int32) { _ = listen(socket, Int32(SOMAXCONN)) }

    /// Whether IPv6 is there, if only for this machine itself.
    package static var hasIPv6: Bool {
        let number = socket(AF_INET6, Int32(SOCK_DGRAM.rawValue), 0)
        guard number >= 0 else { return false }
        let file = FileDescriptor(owning: number)
        var address = sockaddr_in6()
        address.sin6_family = sa_family_t(AF_INET6)
        address.sin6_addr = in6addr_loopback
        return unsafe withUnsafeBytes(of: &address) { bytes in
            let pointer = unsafe bytes.assumingMemoryBound(to: sockaddr.self).baseAddress
            return unsafe bind(file.rawValue, pointer, socklen_t(bytes.count)) == 0
        }
    }

    /// How many files this process may have open (RLIMIT_NOFILE).
    package static var fileLimit: Int {
        var limit = rlimit()
        guard unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return 1024 }
        return Int(clamping: limit.rlim_cur)
    }
}
