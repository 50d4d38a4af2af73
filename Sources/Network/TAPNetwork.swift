package import HostInterface
internal import Synchronization

//L:370 A TAP, for those who have one
//
// Who is root on the host, or knows somebody who is, can have a real cable: a TAP
// interface, which the host bridges or routes as it does any other. Linux speaks
// virtio here: the header in front of each frame is the one that the Guest wrote,
// and checksums and segmentation that the Guest has left undone the host's kernel
// does, or leaves undone too if the frame never meets a wire. So there is nothing
// between the Guest's ring and the kernel but one read or write per frame, and the
// thread of the receive queue polls the TAP itself.

/// A network of the host's, through one of its TAP interfaces.
@safe package final class TAPNetwork: NetworkBackend {
    package let offloads: NetworkOffloads = [
        .checksum, .tso4, .tso6, .ecn, .guestChecksum, .guestTSO4, .guestTSO6, .guestECN,
    ]

    package var mtu: Int { tap.mtu }
    package var readable: Int32 { tap.descriptor.rawValue }

    private let tap: TAP
    private let accepted = Atomic<UInt64>(0)
    private let sentFrames = Atomic<UInt64>(0)
    private let sentBytes = Atomic<UInt64>(0)
    private let receivedFrames = Atomic<UInt64>(0)
    private let receivedBytes = Atomic<UInt64>(0)
    private let refusedFrames = Atomic<UInt64>(0)
    private let droppedFrames = Atomic<UInt64>(0)

    /// - Throws: with the command that makes such an interface.
    package init(name: String) throws(HostError) {
        tap = try TAP(name: name, headerSize: FrameHeader.byteCount)
        try tap.set([])
    }

    /// A packet for which there is no room would be the host's doing: the interface's MTU is the host's.
    package func configure(_ accepted: NetworkOffloads, largestPacket: Int) throws(HostError) {
        self.accepted.store(accepted.rawValue, ordering: .relaxed)
        var offloads: TAP.Offloads = []
        // Segments come with checksums undone, so without these the kernel takes nothing else.
        if accepted.contains(.guestChecksum) {
            offloads.insert(.checksum)
            if accepted.contains(.guestTSO4) { offloads.insert(.tso4) }
            if accepted.contains(.guestTSO6) { offloads.insert(.tso6) }
            if accepted.contains(.guestECN), !offloads.isDisjoint(with: [.tso4, .tso6]) { offloads.insert(.ecn) }
        }
        try tap.set(offloads)
    }

    /// What came while nobody listened is old news.
    package func start() {
        let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: FrameHeader.largestFrame, alignment: 8)
        defer { unsafe scratch.deallocate() }
        // The queue is bounded (1000 frames by default), but a busy network could refill it forever.
        for _ in 0..<4096 {
            guard let count = unsafe try? tap.descriptor.read(into: scratch), count > 0 else { return }
        }
    }

    package func stop() {}

    package func send(_ frame: UnsafeMutableRawBufferPointer) -> Bool {
        let bytes = UnsafeRawBufferPointer(frame)
        let agreed = NetworkOffloads(rawValue: accepted.load(ordering: .relaxed))
        guard unsafe FrameHeader(checking: bytes, accepted: agreed) != nil else {
            refusedFrames.wrappingAdd(1, ordering: .relaxed)
            return false
        }
        do {
            unsafe try tap.write(bytes)
        } catch {
            // Down, full, or not to the kernel's taste.
            refusedFrames.wrappingAdd(1, ordering: .relaxed)
            return false
        }
        sentFrames.wrappingAdd(1, ordering: .relaxed)
        sentBytes.wrappingAdd(UInt64(bytes.count - FrameHeader.byteCount), ordering: .relaxed)
        return true
    }

    package func receive(into buffer: UnsafeMutableRawBufferPointer) -> Int? {
        while true {
            guard let count = unsafe try? tap.descriptor.read(into: buffer), count > 0 else { return nil }
            guard count >= FrameHeader.byteCount + 14 else {
                droppedFrames.wrappingAdd(1, ordering: .relaxed)
                continue
            }
            // With this header's size it carries a count of buffers, which is the device's to set.
            receivedFrames.wrappingAdd(1, ordering: .relaxed)
            receivedBytes.wrappingAdd(UInt64(count - FrameHeader.byteCount), ordering: .relaxed)
            return count
        }
    }

    package var statistics: NetworkStatistics {
        var statistics = NetworkStatistics()
        statistics.sentFrames = sentFrames.load(ordering: .relaxed)
        statistics.sentBytes = sentBytes.load(ordering: .relaxed)
        statistics.receivedFrames = receivedFrames.load(ordering: .relaxed)
        statistics.receivedBytes = receivedBytes.load(ordering: .relaxed)
        statistics.refusedFrames = refusedFrames.load(ordering: .relaxed)
        statistics.droppedFrames = droppedFrames.load(ordering: .relaxed)
        return statistics
    }
}
//:
