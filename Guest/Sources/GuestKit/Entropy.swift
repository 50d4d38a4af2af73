/// A virtio source of random bytes: a queue, and nothing else.
public struct Entropy: ~Copyable, LguestDriver {
    /// virtio's number for it.
    public static let type: UInt8 = 4

    private var queue: Virtqueue
    private let page = Pages.take()
    private var unused = Region(address: 0, count: 0)

    /// Starts it; it is asked for bytes when some are wanted.
    public init?(_ device: LguestDevice) {
        guard device.accept() != nil, let queue = device.queue(0), device.start() else {
            device.fail()
            return nil
        }
        self.queue = queue
    }

    /// A random byte; a page of them is fetched at a time.
    public mutating func byte() -> UInt8 {
        while unused.count == 0 {
            queue.add([.write(page)])
            queue.notify()
            unused = page.prefix(min(queue.wait().written, page.count))
        }
        let byte = unused[0]
        unused = unused.part(1, unused.count - 1)
        return byte
    }

    /// A number below `bound`, each as likely as the other: bytes from the
    /// incomplete last round of `bound` are thrown away.
    public mutating func number(below bound: UInt8) -> UInt8 {
        precondition(bound > 0)
        let rounds = 256 / Int(bound) * Int(bound)
        while true {
            let byte = byte()
            if Int(byte) < rounds { return byte % bound }
        }
    }
}
