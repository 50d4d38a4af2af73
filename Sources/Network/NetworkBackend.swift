package import HostInterface

/// Where the frames of a Guest's network card go to and come from.
///
/// A frame travels with the 12 bytes of virtio's header before it (`FrameHeader`),
/// in both directions. `send` is for one thread and `receive` for one thread; they
/// may run at the same time. All the rest is for whoever holds neither.
package protocol NetworkBackend: AnyObject, Sendable {
    /// What it can do beyond carrying finished frames.
    var offloads: NetworkOffloads { get }

    /// The largest IP packet that it carries.
    var mtu: Int { get }

    /// What the card is to be called, where the network has a say in it.
    var cardAddress: MACAddress? { get }

    /// What the driver accepted; before `start`, and again after each reset.
    ///
    /// - Parameter largestPacket: the largest IP packet for which its receive buffers
    ///   have room: 1500 if it has neither agreed to the MTU nor to guest segments nor
    ///   to merging buffers, else `FrameHeader.largestPacket`.
    func configure(_ accepted: NetworkOffloads, largestPacket: Int) throws(HostError)

    /// Frames go both ways from now on.
    func start() throws(HostError)

    /// Ends what `start` began: no thread is left behind, and frames that nobody
    /// received are forgotten. May be started again.
    func stop()

    /// Can be polled for reading (and for nothing else): readable while `receive`
    /// may have a frame. Belongs to the back end, and stays the same for its life.
    var readable: Int32 { get }

    /// The Guest's next frame, in private memory: whatever its bytes are, the host
    /// is safe.
    ///
    /// - Returns: false if it was dropped; `statistics` says so too.
    func send(_ frame: UnsafeMutableRawBufferPointer) -> Bool

    /// Moves the next frame for the Guest into `buffer`, of at least
    /// `FrameHeader.largestFrame` bytes.
    ///
    /// - Returns: how long it is, its header included; nil if there is none now, in
    ///   which case `readable` tells of the next.
    func receive(into buffer: UnsafeMutableRawBufferPointer) -> Int?

    var statistics: NetworkStatistics { get }
}

extension NetworkBackend {
    package var cardAddress: MACAddress? { nil }
}

/// Work on frames that the two ends of a virtual cable may leave to each other.
/// Each is the feature bit that virtio has for it (virtio 1.2, 5.1.3); "guest"
/// means what the Guest leaves to be done in frames that it is given.
package struct NetworkOffloads: OptionSet, Sendable, Hashable {
    package let rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }

    /// Completes checksums in frames from the Guest (VIRTIO_NET_F_CSUM).
    package static let checksum = NetworkOffloads(rawValue: 1 << 0)
    /// Hands over frames with checksums incomplete, or known to be right.
    package static let guestChecksum = NetworkOffloads(rawValue: 1 << 1)
    /// Hands over TCP segments larger than the MTU.
    package static let guestTSO4 = NetworkOffloads(rawValue: 1 << 7)
    package static let guestTSO6 = NetworkOffloads(rawValue: 1 << 8)
    /// … also those with congestion marks (ECN).
    package static let guestECN = NetworkOffloads(rawValue: 1 << 9)
    /// Takes TCP segments larger than the MTU.
    package static let tso4 = NetworkOffloads(rawValue: 1 << 11)
    package static let tso6 = NetworkOffloads(rawValue: 1 << 12)
    package static let ecn = NetworkOffloads(rawValue: 1 << 13)
}

/// What became of frames, counted by the back end.
package struct NetworkStatistics: Sendable, Equatable {
    package var sentFrames: UInt64 = 0
    package var sentBytes: UInt64 = 0
    package var receivedFrames: UInt64 = 0
    package var receivedBytes: UInt64 = 0
    /// From the Guest: not what it claims to be, and dropped.
    package var refusedFrames: UInt64 = 0
    /// For the Guest: dropped since it did not fetch frames in time.
    package var droppedFrames: UInt64 = 0

    package init() {}
}
