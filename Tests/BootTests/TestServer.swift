import Glibc
import HostInterface
import Synchronization
import Testing

/// A TCP server on the loopback interface, for Guests to talk to: to every
/// connection it sends what it has, and counts and sums what comes.
final class TestServer: @unchecked Sendable {
    let port: UInt16
    private let listener: Int32
    private let content: [UInt8]
    private let seen = Mutex<[Received]>([])

    struct Received: Equatable {
        var count = 0
        /// FNV-1a.
        var sum: UInt64 = 0xcbf2_9ce4_8422_2325

        mutating func add(_ bytes: UnsafeRawBufferPointer) {
            count += bytes.count
            for index in bytes.indices { sum = unsafe (sum ^ UInt64(bytes[index])) &* 0x100_0000_01b3 }
        }
    }

    init(sending content: [UInt8] = []) throws {
        self.content = content
        signal(SIGPIPE, SIG_IGN)
        let number = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        try #require(number >= 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let bound = unsafe withUnsafeMutableBytes(of: &address) { bytes in
            let pointer = unsafe bytes.assumingMemoryBound(to: sockaddr.self).baseAddress
            return unsafe bind(number, pointer, length) == 0 && listen(number, 128) == 0
                && getsockname(number, pointer, &length) == 0
        }
        try #require(bound)
        listener = number
        port = UInt16(bigEndian: address.sin_port)
        _ = try HostThread(name: "test server") { [self] in serve() }
    }

    deinit { close(listener) }

    /// A port that nobody had a moment ago.
    static func freePort() throws -> UInt16 {
        let server = try TestServer()
        server.stop()
        return server.port
    }

    /// What has been received by connections that have ended.
    var received: [Received] { seen.withLock { $0 } }

    func stop() { shutdown(listener, Int32(SHUT_RDWR)) }

    private func serve() {
        while true {
            let connection = accept(listener, nil, nil)
            if connection < 0 { return }
            _ = try? HostThread(name: "test connection") { [self] in talk(connection) }
        }
    }

    private func talk(_ connection: Int32) {
        defer { close(connection) }
        var sent = 0
        while sent < content.count {
            let count = unsafe content.withUnsafeBytes {
                unsafe write(connection, $0.baseAddress.map { unsafe $0 + sent }, min($0.count - sent, 1 << 16))
            }
            if count <= 0 { return }
            sent += count
        }
        if sent > 0 { shutdown(connection, Int32(SHUT_WR)) }
        var received = Received()
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = unsafe read(connection, &buffer, buffer.count)
            if count <= 0 { break }
            unsafe buffer.withUnsafeBytes { unsafe received.add(UnsafeRawBufferPointer(rebasing: $0[..<count])) }
        }
        seen.withLock { $0.append(received) }
    }
}
