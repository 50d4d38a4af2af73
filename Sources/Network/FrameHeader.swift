/// What virtio puts before each frame (`struct virtio_net_hdr_v1`; virtio 1.2, 5.1.6),
/// little-endian:
///
///      0       1        2           4          6           8            10
///     | flags | segment | headers'  | segment  | checksum: | … its      | buffers |
///     |       | kind    | length    | size     | start     | offset     |         |
package struct FrameHeader: Equatable, Sendable {
    /// Its length in bytes.
    package static let byteCount = 12

    /// No IP packet is larger, whatever its own header says.
    package static let largestPacket = 65_536
    /// No frame of either direction is larger: this header, Ethernet's 14 bytes, a packet.
    package static let largestFrame = byteCount + 14 + largestPacket

    package struct Flags: OptionSet, Sendable {
        package let rawValue: UInt8
        package init(rawValue: UInt8) { self.rawValue = rawValue }

        /// The checksum of all bytes from `checksumStart` on is to be put
        /// `checksumOffset` bytes after that.
        package static let needsChecksum = Flags(rawValue: 1)
        /// The checksums are right: nobody need look.
        package static let dataValid = Flags(rawValue: 2)
    }

    package enum SegmentKind: UInt8, Sendable {
        case none = 0
        case tcp4 = 1
        case tcp6 = 4
    }

    package var flags: Flags = []
    package var segmentKind: SegmentKind = .none
    /// Congestion is marked in the segment (ECN).
    package var congestionMarked = false
    package var headersLength: UInt16 = 0
    package var segmentSize: UInt16 = 0
    package var checksumStart: UInt16 = 0
    package var checksumOffset: UInt16 = 0

    package init() {}

    /// The header of a frame from the Guest, if it asks for nothing but what was
    /// agreed on, and within the frame.
    package init?(checking frame: UnsafeRawBufferPointer, accepted: NetworkOffloads) {
        // GUEST: the frame is a private copy; each field is checked before anybody acts on it.
        guard frame.count >= FrameHeader.byteCount + 14, frame.count <= FrameHeader.largestFrame else { return nil }
        let length = frame.count - FrameHeader.byteCount
        func field(_ offset: Int) -> UInt16 {
            unsafe UInt16(littleEndian: frame.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
        }
        unsafe flags = Flags(rawValue: frame[0])
        guard let kind = unsafe SegmentKind(rawValue: frame[1] & 0x7f) else { return nil }
        segmentKind = kind
        unsafe congestionMarked = frame[1] & 0x80 != 0
        headersLength = field(2)
        segmentSize = field(4)
        checksumStart = field(6)
        checksumOffset = field(8)
        if flags.contains(.needsChecksum) {
            guard accepted.contains(.checksum), checksumStart >= 14,
                Int(checksumStart) + Int(checksumOffset) + 2 <= length
            else { return nil }
        }
        switch segmentKind {
        case .none:
            if congestionMarked { return nil }
        case .tcp4, .tcp6:
            // A segment to be cut up has a size, and a checksum for each piece to come (5.1.6.2.1).
            guard accepted.contains(kind == .tcp4 ? .tso4 : .tso6), !congestionMarked || accepted.contains(.ecn),
                segmentSize > 0, flags.contains(.needsChecksum)
            else { return nil }
        }
    }

    /// Puts it in front of a frame for the Guest. Buffers are the device's affair: one.
    package func write(to frame: UnsafeMutableRawBufferPointer) {
        let kind = segmentKind.rawValue | (congestionMarked ? 0x80 : 0)
        unsafe frame[0] = flags.rawValue
        unsafe frame[1] = kind
        let fields = [headersLength, segmentSize, checksumStart, checksumOffset, 1]
        for (index, value) in fields.enumerated() {
            unsafe frame.storeBytes(of: value.littleEndian, toByteOffset: 2 + 2 * index, as: UInt16.self)
        }
    }

    /// Computes the checksum that the Guest left to be done. `frame` has its header.
    package static func completeChecksum(_ frame: UnsafeMutableRawBufferPointer, _ header: FrameHeader) {
        guard header.flags.contains(.needsChecksum) else { return }
        let start = byteCount + Int(header.checksumStart)
        // What is in its place is the sum of the pseudo header; it is part of the sum.
        let sum = unsafe InternetChecksum.sum(UnsafeRawBufferPointer(rebasing: frame[start...]))
        // In UDP zero says "none", and in TCP both zeros are the same.
        let checksum = sum == 0xffff ? 0xffff : ~sum
        unsafe frame.storeBytes(of: checksum, toByteOffset: start + Int(header.checksumOffset), as: UInt16.self)
    }

    /// The header for a frame whose checksums are right, from one who is known to
    /// make TCP segments of any size. Where `offloads` allow it a large one is marked
    /// as segments of an ordinary Ethernet's size; for that the place of its checksum
    /// must hold the pseudo header's sum instead, so that each piece can get its own.
    init(marking frame: UnsafeMutableRawBufferPointer, _ offloads: NetworkOffloads) {
        guard offloads.contains(.guestChecksum) else { return }
        flags = .dataValid
        guard frame.count > 14 + 1500 else { return }
        let isIPv4 = unsafe frame[12] == 0x08 && frame[13] == 0x00 && frame[14] == 0x45 && frame[23] == 6
        let isIPv6 = unsafe frame[12] == 0x86 && frame[13] == 0xdd && frame[20] == 6
        guard isIPv4 && offloads.contains(.guestTSO4) || isIPv6 && offloads.contains(.guestTSO6) else { return }
        let start = isIPv4 ? 34 : 54
        let addresses = isIPv4 ? 26..<34 : 22..<54
        let headers = unsafe start + Int(frame[start + 12] >> 4) * 4
        flags = .needsChecksum
        segmentKind = isIPv4 ? .tcp4 : .tcp6
        headersLength = UInt16(headers)
        segmentSize = UInt16(14 + 1500 - headers)
        checksumStart = UInt16(start)
        checksumOffset = 16
        let sum = unsafe InternetChecksum.sum(
            UnsafeRawBufferPointer(rebasing: frame[addresses]),
            from: InternetChecksum.pseudoHeader(ofTCP: frame.count - start))
        unsafe frame.storeBytes(of: sum, toByteOffset: start + 16, as: UInt16.self)
    }
}
