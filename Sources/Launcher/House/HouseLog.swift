internal import HostInterface
internal import Synchronization

/// What `roost up` prints: each Guest's lines behind its name, and a few of
/// our own; kernels' logs and our own lines go to standard error. Lines come whole, whoever prints what at the same time; one that
/// does not end, a prompt for one, is shown as it is once nothing more comes.
///
/// Any thread. While the reader of our output waits, whoever prints does too.
final class HouseLog: Sendable {
    /// How long the end of a line may take.
    private static let patience: UInt64 = 200_000_000

    private struct Stream {
        let prefix: [UInt8]
        let output: StandardStream
        var lines = PlainLines()
        /// When the last of a line without an end came.
        var last: UInt64?
    }

    private let streams: Mutex<[Stream]>
    private let wake: EventFD
    private let ended = Atomic(false)
    private let thread: Mutex<HostThread?> = Mutex(nil)

    /// - Parameter names: of the Guests, which are numbers from here on.
    init(names: [String]) throws(HostError) {
        let width = names.map(\.utf8.count).max() ?? 0
        streams = Mutex(
            names.flatMap { name in
                let prefix = Array((name + String(repeating: " ", count: width - name.utf8.count) + " |").utf8)
                return [Stream(prefix: prefix, output: .output), Stream(prefix: prefix, output: .error)]
            })
        wake = try EventFD()
        let thread = try HostThread(name: "house log") { [self] in while !ended.load(ordering: .acquiring) { tick() } }
        self.thread.withLock { $0 = thread }
    }

    /// What a Guest printed, or its kernel.
    func print(_ bytes: [UInt8], of guest: Int, isLog: Bool = false) {
        let index = 2 * guest + (isLog ? 1 : 0)
        let waits = streams.withLock { streams in
            write(streams[index].lines.take(bytes), of: streams[index])
            let waited = streams[index].last != nil
            streams[index].last = streams[index].lines.isPartial ? HostClock.monotonicNanoseconds : nil
            return !waited && streams[index].lines.isPartial
        }
        if waits { wake.signal() }
    }

    /// A line of our own, and lines of a Guest that belong to it.
    func say(_ text: String, of guest: Int? = nil, details: String = "") {
        streams.withLock { streams in
            guard let guest else { return _ = StandardStream.error.write("roost: \(text)\n") }
            for index in 2 * guest...2 * guest + 1 { flush(&streams[index]) }
            StandardStream.error.write("roost: \(text)\n")
            write(details.split(separator: "\n").map { Array($0.utf8) }, of: streams[2 * guest + 1])
        }
    }

    /// Ends the thread. At most once, when nobody prints any more.
    func end() {
        ended.store(true, ordering: .releasing)
        wake.signal()
        thread.withLock { $0.take() }?.join()
        streams.withLock { streams in for index in streams.indices { flush(&streams[index]) } }
    }

    private func tick() {
        let oldest = streams.withLock { $0.compactMap(\.last).min() }
        let now = HostClock.monotonicNanoseconds
        let rest = oldest.map { $0 &+ Self.patience > now ? Int32(($0 &+ Self.patience &- now) / 1_000_000) + 1 : 0 }
        if waitReadable([wake.rawValue], milliseconds: rest ?? -1)[0] { wake.drain() }
        let due = HostClock.monotonicNanoseconds &- Self.patience
        streams.withLock { streams in
            for index in streams.indices {
                if let last = streams[index].last, last <= due { flush(&streams[index]) }
            }
        }
    }

    private func flush(_ stream: inout Stream) {
        if let line = stream.lines.flush() { write([line], of: stream) }
        stream.last = nil
    }

    private func write(_ lines: [[UInt8]], of stream: Stream) {
        guard !lines.isEmpty else { return }
        stream.output.write(lines.flatMap { stream.prefix + ($0.isEmpty ? [] : [0x20]) + $0 + [0x0a] })
    }
}
