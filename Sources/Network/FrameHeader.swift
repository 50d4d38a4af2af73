/// What virtio puts before each frame (`struct virtio_net_hdr_v1`; virtio 1.2, 5.1.6):
///
///      0      1         2          4          6            8             10
///     | flags | segment | headers' | segment  | checksum's | where it    | buffers |
///     |       | kind    | length   | size     | start      | goes, after |         |
package struct FrameHeader: Equatable, Sendable {
    /// Its length in bytes.
    package static let byteCount = 12

    /// A frame of 64 KiB, the Ethernet header's 14 bytes and this header: no
    /// frame of either direction is larger.
    package static let largestFrame = byteCount + 14 + 65_536

    package struct Flags: OptionSet, Sendable {
        package let rawValue: UInt8
        package init(rawValue: UInt8) { self.rawValue = rawValue }

        /// The checksum from `checksumStart` on is to be completed.
        package static let needsChecksum = Flags(rawValue: 1)
        /// The checksum has been looked at, or cannot be wrong.
        package static let dataValid = Flags(rawValue: 2)
    }

    package enum SegmentKind: UInt8, Sendable {
        case none = 0
        case tcp4 = 1
        case tcp6 = 4
    }

    package var flags: Flags = []
    package var segmentKind: SegmentKind = .none
    package var congestionMarked = false
    package var headersLength: UInt16 = 0
    package var segmentSize: UInt16 = 0
    package var checksumStart: UInt16 = 0
    package var checksumOffset: UInt16 = 0

    package init() {}
}
