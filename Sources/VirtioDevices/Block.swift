package import HostInterface
package import Storage
internal import Synchronization
package import Virtio

//D:110 A disk
//
// One queue (virtio 1.2, 5.2), and each request in it is a chain like this:
//
//      readable  type 32, reserved 32, sector 64     what is wanted, and where
//      readable  … data to write                     or, to discard: ranges
//      writable  … room for data that is read
//      writable  status 8                            the last byte of all
//
// in as many pieces as the driver likes, cut wherever it likes. The data never
// passes through our hands: the image says where in which file it lies, and
// the kernel moves it between that file and the pieces of the chain, with many
// requests under way at once and each ending when it ends.
//
// A flush is the promise that a file system stands on: what was written before
// it is on the disk when it ends. We make the Guest's promise with the host's
// own, fdatasync(2), and no sooner. What is wrong with a request, or with the
// file behind it, is said in its status byte; the Guest lives with it as it
// would with a bad sector.

/// The block device.
package final class Block: VirtioDevice, @unchecked Sendable {
    package static let sectorBytes = 512
    private static let queueSize: UInt16 = 256
    /// A chain has a header and a status besides its data.
    private static let mostSegments = UInt32(queueSize) - 2
    private static let segmentBytes: UInt32 = 1 << 20
    /// What these two allow, and so the most that any request may ask for.
    static let mostBytes = Int(mostSegments) * Int(segmentBytes)
    static let mostRanges = 16
    /// Longer than this no range is cleared at once: 1 GiB.
    static let mostRangeSectors: UInt32 = 1 << 21
    static let serialBytes = 20

    /// Feature bits (virtio 1.2, 5.2.3).
    private enum Feature {
        static let segmentSize: UInt64 = 1 << 1
        static let segmentCount: UInt64 = 1 << 2
        static let readOnly: UInt64 = 1 << 5
        static let blockSize: UInt64 = 1 << 6
        static let flush: UInt64 = 1 << 9
        static let discard: UInt64 = 1 << 13
        static let writeZeroes: UInt64 = 1 << 14
    }

    /// Used by the queue's thread only, while there is one.
    private let image: any DiskImage & Sendable
    private let serial: [UInt8]
    private let threads = QueueThreads()
    private let errors = Atomic<UInt64>(0)

    /// - Parameter serial: what /sys/block/vda/serial says: 20 bytes at most count.
    package init(_ image: any DiskImage & Sendable, serial: String = "") {
        self.image = image
        let bytes = Array(serial.utf8.prefix(Self.serialBytes))
        self.serial = bytes + [UInt8](repeating: 0, count: Self.serialBytes - bytes.count)
    }

    package var type: VirtioDeviceType { .block }
    package var queueSizes: [UInt16] { [Self.queueSize] }

    package var features: UInt64 {
        let always = Feature.segmentSize | Feature.segmentCount | Feature.blockSize | Feature.flush
        return always | (image.isReadOnly ? Feature.readOnly : Feature.discard | Feature.writeZeroes)
    }

    /// struct virtio_blk_config (5.2.4).
    package var configuration: [UInt8] {
        var space = ConfigurationSpace(byteCount: 60)
        space.put(image.byteCount / UInt64(Self.sectorBytes), at: 0)
        space.put(Self.segmentBytes, at: 8)
        space.put(Self.mostSegments, at: 12)
        space.put(UInt32(Self.sectorBytes), at: 20)
        space.put(Self.mostRangeSectors, at: 36)
        space.put(UInt32(Self.mostRanges), at: 40)
        space.put(UInt32(4096 / Self.sectorBytes), at: 44)
        space.put(Self.mostRangeSectors, at: 48)
        space.put(UInt32(Self.mostRanges), at: 52)
        space.put(UInt8(1), at: 56)
        return space.bytes
    }

    package func start(_ activation: DeviceActivation) throws(HostError) {
        try threads.start(queue: 0, of: activation, name: "disk") { [self] queue throws(DriverBreach) in
            let service = BlockService(queue, image, serial: serial)
            defer {
                service.drain()
                errors.add(service.errors, ordering: .relaxed)
            }
            try service.run()
        }
    }

    package func stop() {
        threads.stop()
        // The Guest may be at its end, and we with it. It was promised nothing, but it costs little.
        try? image.writeBack()
    }

    package var remarks: [String] {
        let count = errors.load(ordering: .relaxed)
        return count == 0 ? [] : ["\(count) requests ended in an error"]
    }
}
//:
