package import HostInterface
package import Network
package import Virtio

//D:130 A network card
//
// Two queues (virtio 1.2, 5.1), and in both a frame has twelve bytes before it
// (`FrameHeader`) that say which of its work has been left to us, or need not
// be done by the driver:
//
//      queue 0   driver: empty buffers      device: frames that came
//      queue 1   driver: frames to go       device: nothing
//      configuration   MAC address 48, status 16, queue pairs 16, MTU 16
//
// What is behind the card is a `NetworkBackend`'s affair: a network in this
// process, or a TAP of the host's. The card copies: a frame that the Guest
// sends is looked at only once it is in memory of ours, where nobody can
// change a checksum's offset after it has been found to be inside the frame.
//
// Frames may be of 64 KiB, and buffers for such would be a waste for all the
// small ones. So we offer to use several buffers for one frame
// (VIRTIO_NET_F_MRG_RXBUF), and the first says how many there were.

/// The network card.
package final class Net: VirtioDevice, @unchecked Sendable {
    private enum QueueIndex {
        static let receive = 0
        static let transmit = 1
    }

    /// Feature bits that are not the back end's (5.1.3).
    private enum Feature {
        static let mtu: UInt64 = 1 << 3
        static let mac: UInt64 = 1 << 5
        static let mergeableBuffers: UInt64 = 1 << 15
        static let status: UInt64 = 1 << 16
    }

    /// QEMU's first card has it too: what people's Guests expect.
    package static let defaultAddress: [UInt8] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56]

    private let backend: any NetworkBackend
    private let address: [UInt8]
    private let threads = QueueThreads()

    package init(_ backend: any NetworkBackend, address: [UInt8] = Net.defaultAddress) {
        precondition(address.count == 6)
        self.backend = backend
        self.address = address
    }

    package var type: VirtioDeviceType { .network }
    package var queueSizes: [UInt16] { [256, 256] }

    package var features: UInt64 {
        Feature.mtu | Feature.mac | Feature.mergeableBuffers | Feature.status | backend.offloads.rawValue
    }

    package var configuration: [UInt8] {
        var space = ConfigurationSpace(byteCount: 12)
        space.put(address, at: 0)
        space.put(UInt16(1), at: 6)  // The link is up.
        space.put(UInt16(1), at: 8)
        space.put(UInt16(clamping: backend.mtu), at: 10)
        return space.bytes
    }

    package func start(_ activation: DeviceActivation) throws(HostError) {
        let offloads = NetworkOffloads(rawValue: activation.features).intersection(backend.offloads)
        // A driver that was told of none of these has buffers for plain Ethernet.
        let large = Feature.mtu | Feature.mergeableBuffers | NetworkOffloads([.guestTSO4, .guestTSO6]).rawValue
        try backend.configure(
            offloads, largestPacket: activation.features & large == 0 ? 1500 : FrameHeader.largestPacket)
        try backend.start()
        let merges = activation.features & Feature.mergeableBuffers != 0
        try threads.start(queue: QueueIndex.receive, of: activation, name: "net in") {
            [backend] queue throws(DriverBreach) in
            try Receiver(queue, backend, merges: merges).run()
        }
        try threads.start(queue: QueueIndex.transmit, of: activation, name: "net out") {
            [backend] queue throws(DriverBreach) in
            let frame = FrameBuffer()
            try queue.serve { chain in
                // One byte more than may be, to see that there was more.
                let count = unsafe chain.readable.read(into: frame.bytes)
                unsafe _ = backend.send(UnsafeMutableRawBufferPointer(rebasing: frame.bytes[..<count]))
                return 0
            }
        }
    }

    package func stop() {
        threads.stop()
        backend.stop()
    }

    package var remarks: [String] {
        let seen = backend.statistics
        return [
            "\(seen.sentFrames) frames sent, \(seen.receivedFrames) received, "
                + "\(seen.refusedFrames) refused, \(seen.droppedFrames) dropped"
        ]
    }
}

/// Room for one frame.
@safe private final class FrameBuffer {
    let bytes: UnsafeMutableRawBufferPointer
    init() { unsafe bytes = .allocate(byteCount: FrameHeader.largestFrame + 1, alignment: 16) }
    deinit { unsafe bytes.deallocate() }
}

/// The work of the receive queue, on its thread.
private final class Receiver {
    private let queue: Virtqueue
    private let backend: any NetworkBackend
    private let merges: Bool
    private let frame = FrameBuffer()
    /// What is in `frame` and not yet in the Guest.
    private var length = 0
    /// Taken for a frame, and not yet enough for it.
    private var chains: [DescriptorChain] = []
    private var room = 0

    init(_ queue: Virtqueue, _ backend: any NetworkBackend, merges: Bool) {
        self.queue = queue
        self.backend = backend
        self.merges = merges
    }

    func run() throws(DriverBreach) {
        // While there is a frame and no buffer we wait for the driver alone.
        while queue.doorbell.wait(or: length > 0 ? -1 : backend.readable) {
            repeat {
                queue.suppressNotifications()
                while !queue.doorbell.isStopped, try deliver() {}
                // Without a frame there is nothing that we want of the driver.
            } while length > 0 && !queue.doorbell.isStopped && queue.wantNotifications()
            queue.interruptIfWanted()
        }
    }

    /// False when there is no frame, or not enough room for it.
    private func deliver() throws(DriverBreach) -> Bool {
        if length == 0 {
            guard let count = unsafe backend.receive(into: frame.bytes) else { return false }
            length = count
        }
        while room < length {
            guard let chain = try queue.next() else { return false }
            chains.append(chain)
            room += chain.writable.byteCount
            guard merges || room >= length else {
                // The driver's buffers are too small for the frame; nobody said that they may be added up.
                queue.complete(chain, written: 0)
                forget()
                return true
            }
        }
        var rest = unsafe UnsafeRawBufferPointer(rebasing: frame.bytes[..<length])
        // How many buffers there are is the header's last field.
        unsafe frame.bytes.storeBytes(of: UInt16(chains.count).littleEndian, toByteOffset: 10, as: UInt16.self)
        for (index, chain) in chains.enumerated() {
            let written = unsafe chain.writable.write(rest)
            unsafe rest = UnsafeRawBufferPointer(rebasing: rest[written...])
            queue.complete(chain, written: written, isLast: index == chains.count - 1)
        }
        forget()
        return true
    }

    private func forget() {
        chains.removeAll(keepingCapacity: true)
        (length, room) = (0, 0)
    }
}
//:
