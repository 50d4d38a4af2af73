internal import HostInterface
internal import Synchronization

/// A frame on its way through a switch, and what is known of it.
struct SwitchedFrame {
    /// Without virtio's header.
    let bytes: FrameBytes
    /// The header for a receiver who takes the frame as it is.
    let header: FrameHeader
    /// What that receiver must have agreed to.
    let offloads: NetworkOffloads
    /// The frame for others, if it is a large segment.
    let segments: TCPSegments?
    /// Where its packet begins.
    let packetOffset: Int

    /// - Parameter header: as its sender wrote it, checked.
    /// - Returns: nil if the frame is not what it says.
    init?(_ bytes: FrameBytes, _ header: FrameHeader) {
        self.bytes = bytes
        packetOffset = bytes.typeOffset + 2
        // What a sender says of checksums being right, a receiver finds out itself.
        var passed = FrameHeader()
        passed.flags = header.flags.intersection(.needsChecksum)
        passed.checksumStart = passed.flags.isEmpty ? 0 : header.checksumStart
        passed.checksumOffset = passed.flags.isEmpty ? 0 : header.checksumOffset
        switch header.segmentKind {
        case .none: (offloads, segments) = ([], nil)
        case .tcp4, .tcp6:
            guard let segments = TCPSegments(bytes, header) else { return nil }
            self.segments = segments
            passed.segmentKind = header.segmentKind
            passed.congestionMarked = header.congestionMarked
            passed.segmentSize = header.segmentSize
            passed.headersLength = UInt16(truncatingIfNeeded: segments.headersLength)
            let kind: NetworkOffloads = header.segmentKind == .tcp4 ? .guestTSO4 : .guestTSO6
            offloads = header.congestionMarked ? [.guestChecksum, kind, .guestECN] : [.guestChecksum, kind]
        }
        self.header = passed
    }
}

/// The frames for one port of a switch, from all the others.
final class SwitchQueue: Sendable {
    let port: Int
    private let frames: GuestFrames
    private let state = Mutex(State())

    /// What senders must agree on; they write to the ring one at a time.
    private struct State {
        var isOpen = false
        var accepted: NetworkOffloads = []
        var largestPacket = 0
    }

    init(port: Int) throws(HostError) {
        self.port = port
        frames = try GuestFrames()
    }

    // MARK: The receiver's

    var readable: Int32 { frames.arrived.rawValue }
    var droppedFrames: UInt64 { frames.droppedFrames }

    func configure(_ accepted: NetworkOffloads, largestPacket: Int) {
        state.withLock { state in
            state.accepted = accepted
            state.largestPacket = largestPacket
        }
    }

    func open() { state.withLock { $0.isOpen = true } }

    /// Forgets all frames, and takes none until it is open again.
    func close() {
        state.withLock { state in
            state.isOpen = false
            frames.removeAll()
        }
    }

    func take(into buffer: UnsafeMutableRawBufferPointer) -> Int? { unsafe frames.take(into: buffer)?.count }

    // MARK: The senders'

    /// Adds a frame, in the form that the receiver has agreed to; or drops it.
    func add(_ frame: SwitchedFrame) {
        guard let segments = frame.segments, !takes(frame) else {
            append(frame.bytes.count, packetOffset: frame.packetOffset, frame.offloads) { place in
                frame.bytes.copy(0..<frame.bytes.count, to: 0, of: place)
                return frame.header
            }
            return
        }
        // Each on its own: a frame of a great many tiny segments does not keep the lock.
        for index in 0..<segments.count {
            let isAdded = append(segments.byteCount(index), packetOffset: frame.packetOffset, []) { place in
                segments.write(index, to: place)
            }
            // Without one of them the others are not worth much.
            guard isAdded else { return }
        }
    }

    private func takes(_ frame: SwitchedFrame) -> Bool {
        state.withLock { state in
            state.accepted.isSuperset(of: frame.offloads)
                && frame.bytes.count - frame.packetOffset <= state.largestPacket
        }
    }

    /// Adds a frame of `count` bytes, which `fill` writes, returning its header. A
    /// checksum that the receiver does not want to complete is completed.
    ///
    /// - Returns: false if it was dropped.
    @discardableResult
    private func append(
        _ count: Int, packetOffset: Int, _ offloads: NetworkOffloads, _ fill: (FrameBytes) -> FrameHeader
    ) -> Bool {
        state.withLock { state in
            guard state.isOpen else { return false }
            guard count - packetOffset <= state.largestPacket, state.accepted.isSuperset(of: offloads) else {
                frames.drop()
                return false
            }
            return unsafe frames.append(FrameHeader.byteCount + count) { place in
                let header = unsafe fill(
                    FrameBytes(UnsafeMutableRawBufferPointer(rebasing: place[FrameHeader.byteCount...])))
                if header.flags.contains(.needsChecksum), !state.accepted.contains(.guestChecksum) {
                    unsafe FrameHeader.completeChecksum(place, header)
                    unsafe FrameHeader().write(to: place)
                } else {
                    unsafe header.write(to: place)
                }
            }
        }
    }
}
