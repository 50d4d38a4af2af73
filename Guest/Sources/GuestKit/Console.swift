//G:100 A terminal
//
// Two queues. The first is for what is typed: we put in an empty page and get
// it back with some bytes in it. The second is for what we say. An interrupt
// tells no more than that something has happened somewhere; the queue knows what.

/// A virtio console: bytes in, bytes out.
public struct Console: ~Copyable, LguestDriver {
    /// virtio's number for it.
    public static let type: UInt8 = 3
    /// What a terminal sends for ^D: no more will come.
    public static let endOfTransmission: UInt8 = 4

    private var input: Virtqueue
    private var output: Virtqueue
    private let inputPage = Pages.take()
    private let outputPage = Pages.take()
    private var unread = Region(address: 0, count: 0)

    /// Starts it, and is ready for what is typed.
    public init?(_ device: LguestDevice) {
        guard device.accept() != nil, let input = device.queue(0), let output = device.queue(1), device.start() else {
            device.fail()
            return nil
        }
        self.input = input
        self.output = output
        ask()
    }

    /// Whether `read` would return at once.
    public var hasInput: Bool { unread.count > 0 || input.hasCompletion }

    /// The next byte that was typed. Sleeps until there is one.
    public mutating func read() -> UInt8 {
        while unread.count == 0 {
            unread = inputPage.prefix(min(input.wait().written, inputPage.count))
            if unread.count == 0 { ask() }
        }
        let byte = unread[0]
        unread = unread.part(1, unread.count - 1)
        if unread.count == 0 { ask() }
        return byte
    }

    /// A line without its end. Nil: there will be no more.
    public mutating func readLine() -> Text? {
        var line = Text()
        while true {
            switch read() {
            case UInt8(ascii: "\n"), UInt8(ascii: "\r"): return line
            case Console.endOfTransmission: return line.isEmpty ? nil : line
            case let byte: line.append(byte)
            }
        }
    }

    /// Sleeps until the Host has taken it.
    public mutating func write(_ text: Text) {
        text.withRegion { write($0) }
    }

    /// Sleeps until the Host has taken all of it.
    public mutating func write(_ region: Region) {
        var rest = region
        while rest.count > 0 {
            let count = outputPage.copy(from: rest)
            output.add([.read(outputPage.prefix(count))])
            output.notify()
            _ = output.wait()
            rest = rest.part(count, rest.count - count)
        }
    }

    private mutating func ask() {
        input.add([.write(inputPage)])
        input.notify()
    }
}
//:
