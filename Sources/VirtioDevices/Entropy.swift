package import HostInterface
package import Virtio

//D:100 Entropy
//
// The smallest device there is, and so the one to read first (virtio 1.2,
// 5.4): one queue, no features, no configuration. The driver puts in empty
// buffers, and gets them back full of numbers that nobody could have guessed.
//
//      queue 0   driver: buffers to fill      device: random bytes
//
// A Guest can ask for four gigabytes of them at once. It is allowed to be
// disappointed: the device may return fewer bytes than there is room for, and
// ours returns what a driver wants at a time, so that no Guest can keep a
// thread of ours busy for long.

/// Where random bytes come from.
package protocol EntropySource: Sendable {
    /// Fills all of `buffer`.
    func fill(_ buffer: UnsafeMutableRawBufferPointer) throws(Errno)
}

/// getrandom(2).
package struct HostEntropy: EntropySource {
    package init() {}
    package func fill(_ buffer: UnsafeMutableRawBufferPointer) throws(Errno) { unsafe try fillRandom(buffer) }
}

/// The entropy device.
package final class Entropy: VirtioDevice {
    /// Linux asks for 64 bytes at a time; some kernels for a cache line.
    private static let queueSize: UInt16 = 64
    /// The most bytes for one buffer.
    package static let mostBytes = 65536

    private let source: any EntropySource
    private let threads = QueueThreads()

    package init(_ source: any EntropySource = HostEntropy()) { self.source = source }

    package var type: VirtioDeviceType { .entropy }
    package var queueSizes: [UInt16] { [Self.queueSize] }
    package var features: UInt64 { 0 }

    package func start(_ activation: DeviceActivation) throws(HostError) {
        try threads.start(queue: 0, of: activation, name: "rng") { [source] queue throws(DriverBreach) in
            var pieces = IOVectorList()
            try queue.serve { chain in
                pieces.removeAll()
                _ = chain.writable.take(Self.mostBytes, into: &pieces)
                var filled = 0
                for index in 0..<pieces.count {
                    let piece = unsafe UnsafeMutableRawBufferPointer(
                        start: pieces[index].base, count: pieces[index].count)
                    do throws(Errno) { unsafe try source.fill(piece) } catch { break }
                    filled += piece.count
                }
                return filled
            }
        }
    }

    package func stop() { threads.stop() }
}
//:
