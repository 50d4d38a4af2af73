internal import Glibc

/// Standard output and standard error, written at once and whole.
package struct StandardStream: Sendable {
    private let descriptor: Int32

    package static let output = StandardStream(descriptor: STDOUT_FILENO)
    package static let error = StandardStream(descriptor: STDERR_FILENO)

    /// - Returns: false if nobody can read it any more.
    @discardableResult
    package func write(_ bytes: some Collection<UInt8>) -> Bool {
        var rest = Array(bytes)[...]
        while !rest.isEmpty {
            let count = unsafe rest.withUnsafeBytes { unsafe Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count >= 0 {
                rest = rest.dropFirst(count)
            } else if Errno.current == .again {
                // Somebody made the terminal non-blocking, perhaps for its other users too.
                var polled = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                unsafe poll(&polled, 1, -1)
            } else if Errno.current != .interrupted {
                return false
            }
        }
        return true
    }

    @discardableResult
    package func write(_ text: String) -> Bool { write(Array(text.utf8)) }
}

/// Reads once from standard input; nil at its end or on an error.
package func readStandardInput(limit: Int = 4096) -> [UInt8]? {
    var buffer = [UInt8](repeating: 0, count: limit)
    while true {
        let count = unsafe Glibc.read(STDIN_FILENO, &buffer, limit)
        if count > 0 { return Array(buffer[..<count]) }
        if count == 0 || Errno.current != .interrupted { return nil }
    }
}
