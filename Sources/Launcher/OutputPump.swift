internal import HostInterface
internal import Synchronization

/// Carries what the Guest says to one of our streams.
///
/// A serial port speaks a byte at a time, and a system call for each would be
/// most of the cost. So bytes are gathered, and a thread of its own writes all
/// that there is by the time it gets to it.
final class OutputPump: Sendable {
    /// With so much unwritten, the Guest has to wait for the reader.
    private static let most = 1 << 20

    private struct Buffer {
        var bytes: [UInt8] = []
        var ended = false
    }

    private let buffer = Mutex(Buffer())
    private let writing = Mutex(())
    private let stream: StandardStream
    private let wake: EventFD
    private let thread: Mutex<HostThread?> = Mutex(nil)

    init(to stream: StandardStream) throws(HostError) {
        self.stream = stream
        wake = try EventFD()
        let thread = try HostThread(name: "output") { [self] in
            while !drained() { _ = waitReadable([wake.rawValue]) }
        }
        self.thread.withLock { $0 = thread }
    }

    func append(_ bytes: some Sequence<UInt8>) {
        let (first, full) = buffer.withLock { buffer in
            let first = buffer.bytes.isEmpty
            buffer.bytes += bytes
            return (first, buffer.bytes.count > Self.most)
        }
        if full { drain() } else if first { wake.signal() }
    }

    /// Writes all that there is.
    func drain() {
        // One writer at a time, or the order would be lost.
        writing.withLock { _ in
            let bytes = buffer.withLock { buffer in
                defer { buffer.bytes = [] }
                return buffer.bytes
            }
            if !bytes.isEmpty { stream.write(bytes) }
        }
    }

    /// All is written, and the thread is gone.
    func end() {
        buffer.withLock { $0.ended = true }
        wake.signal()
        if let thread = thread.withLock({ $0.take() }) { thread.join() }
        drain()
    }

    private func drained() -> Bool {
        wake.drain()
        drain()
        return buffer.withLock { $0.ended && $0.bytes.isEmpty }
    }
}
