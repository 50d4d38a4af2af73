//G:106 A network card
//
// In front of each frame are 12 bytes in which cards and drivers tell each
// other what the other need not do: checksums, cutting into packets. We accept
// none of that, so they are zeros, and are there nonetheless.
//
// Sixteen frames wait on each side. Those for what comes are with the device
// until one is full; `receive` lends it out, and `recycle` gives it back. A
// frame to send is filled in place: nothing is ever copied here.

/// A virtio network card.
public struct Network: ~Copyable, LguestDriver {
    /// virtio's number for it.
    public static let type: UInt8 = 1
    /// Most bytes of a frame, Ethernet header and all.
    public static let frameBytes = 1514

    private enum Feature {
        static let mac: UInt64 = 1 << 5
    }

    /// A frame that was received: the bytes from the Ethernet header on.
    public struct Frame {
        /// From the Ethernet header on.
        public let bytes: Region
        fileprivate let slot: Int
    }

    private static let headerBytes = 12
    private static let slotBytes = 2048
    private static let slots = 16

    /// Six bytes.
    public let mac: Region
    private var input: Virtqueue
    private var output: Virtqueue
    private let received = Pages.take(slots * slotBytes / Pages.size)
    private let sending = Pages.take(slots * slotBytes / Pages.size)
    /// A bit for each.
    private var freeToSend: UInt16 = 0xffff

    /// Starts it, with room for sixteen frames.
    public init?(_ device: LguestDevice) {
        guard device.accept(Feature.mac) != nil, let input = device.queue(0), let output = device.queue(1),
            let address = device.take(0, as: InlineArray<6, UInt8>.self), device.start()
        else {
            device.fail()
            return nil
        }
        mac = Pages.take().prefix(6)
        for index in 0..<6 { mac[index] = address[index] }
        self.input = input
        self.output = output
        for slot in 0..<Network.slots { post(slot) }
        self.input.notify()
    }

    /// Whether `receive` has something.
    public var hasInput: Bool { input.hasCompletion }

    /// The next frame that has come. It is the caller's until it is recycled.
    public mutating func receive() -> Frame? {
        guard let completion = input.next() else { return nil }
        let slot = Network.slot(received, of: completion.address)
        let length = min(max(completion.written - Network.headerBytes, 0), Network.slotBytes - Network.headerBytes)
        return Frame(bytes: Network.slot(received, slot).part(Network.headerBytes, length), slot: slot)
    }

    /// Gives a frame that was received back to the device.
    public mutating func recycle(_ frame: Frame) {
        post(frame.slot)
        input.notify()
    }

    /// Whether `frame` has one.
    public var hasRoom: Bool { freeToSend != 0 || output.hasCompletion }

    /// Room for a frame to be sent; nil if all are on their way.
    public mutating func frame() -> Frame? {
        while let completion = output.next() {
            freeToSend |= 1 << UInt16(Network.slot(sending, of: completion.address))
        }
        guard freeToSend != 0 else { return nil }
        let slot = freeToSend.trailingZeroBitCount
        freeToSend &= ~(1 << UInt16(slot))
        return Frame(
            bytes: Network.slot(sending, slot).part(Network.headerBytes, Network.frameBytes), slot: slot)
    }

    /// Sends the first `count` bytes of it.
    public mutating func send(_ frame: Frame, _ count: Int) {
        let bytes = Network.slot(sending, frame.slot).prefix(Network.headerBytes + count)
        bytes.prefix(Network.headerBytes).fill()
        output.add([.read(bytes)])
        output.notify()
    }

    private mutating func post(_ slot: Int) {
        input.add([.write(Network.slot(received, slot))])
    }

    private static func slot(_ region: Region, of address: UInt64) -> Int {
        Int(address - region.address) / slotBytes
    }

    private static func slot(_ region: Region, _ slot: Int) -> Region { region.part(slot * slotBytes, slotBytes) }
}
//:
