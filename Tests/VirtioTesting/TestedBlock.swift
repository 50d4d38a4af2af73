internal import HostInterface
internal import Storage
internal import Virtio
internal import VirtioDevices

/// A disk of 64 sectors, each full of its number.
extension TestedDevice {
    private static let sectors = 64

    package static let block = TestedDevice("block", request: .readSector, cases: blockCases) { try makeDisk() }
    package static let readOnlyBlock = TestedDevice("read-only-block", request: .readSector, cases: readOnlyCases) {
        try makeDisk(readOnly: true)
    }
    /// The same content, as far as it is not zeros, in clusters.
    package static let qcow2Block = TestedDevice("qcow2-block", request: .readSector, cases: blockCases) {
        try makeDisk(format: .qcow2)
    }

    private static func makeDisk(format: DiskFormat = .raw, readOnly: Bool = false) throws -> Block {
        let folder = try Files.createTemporaryFolder(beside: "/tmp/roost-virtio")
        // Whoever has a file open needs no name for it.
        defer { Files.remove(folder) }
        let base = folder + "/base"
        let content = (0..<sectors).flatMap { [UInt8](repeating: UInt8($0), count: Block.sectorBytes) }
        try Files.writeAtomically(content, to: base)
        var path = base
        if format == .qcow2 {
            path = folder + "/overlay"
            var creation = DiskCreation(path: path)
            (creation.backing, creation.backingFormat) = (base, .raw)
            try creation.run()
        }
        return Block(try DiskImages.open(path: path, format: format, readOnly: readOnly), serial: "TESTED")
    }

    // MARK: Rule 16

    fileprivate static func header(_ type: UInt32, _ sector: UInt64) -> [UInt8] {
        (0..<4).map { UInt8(truncatingIfNeeded: type >> ($0 * 8)) } + [0, 0, 0, 0]
            + (0..<8).map { UInt8(truncatingIfNeeded: sector >> ($0 * 8)) }
    }

    /// - Parameter status: that the device must answer with.
    private static func request(
        _ name: String, _ readable: [UInt8], room: Int = 0, status: UInt8
    ) -> HostileCase {
        HostileCase(16, name, .used) { driver, device in
            let queue = driver.queues[device.queue]
            // Another length is for a status that is not behind what is written from the start.
            let request = GoodRequest(readable: readable, writable: room + 1) { written, bytes in
                written <= room + 1 && bytes.last == status
            }
            try driver.perform(request, on: queue)
            try driver.perform(request, on: queue, cut: .ends)
            // No sector has another content for it.
            let whole = GoodRequest(readable: header(0, 0), writable: sectors * Block.sectorBytes + 1) { _, bytes in
                bytes.last == 0
                    && bytes.dropLast().enumerated().allSatisfy { $1 == UInt8($0 / Block.sectorBytes) }
            }
            try driver.perform(whole, on: queue)
        }
    }

    /// One range to discard, or to zero.
    private static func range(_ sector: UInt64, _ count: UInt32, flags: UInt32 = 0) -> [UInt8] {
        (0..<8).map { UInt8(truncatingIfNeeded: sector >> ($0 * 8)) }
            + (0..<4).map { UInt8(truncatingIfNeeded: count >> ($0 * 8)) }
            + (0..<4).map { UInt8(truncatingIfNeeded: flags >> ($0 * 8)) }
    }

    private static let (ioError, unsupported): (UInt8, UInt8) = (1, 2)
    private static let oneSector = [UInt8](repeating: 0xee, count: Block.sectorBytes)
    private static let end = UInt64(sectors)

    private static let readCases: [HostileCase] =
        [
            request("a header of nothing", [], status: ioError),
            request("a header that ends in the sector", Array(header(0, 0).dropLast()), room: 512, status: ioError),
            request("a read behind the end", header(0, end), room: 512, status: ioError),
            request("a read over the end", header(0, end - 1), room: 1024, status: ioError),
            request("a read far behind the end", header(0, .max), room: 512, status: ioError),
            request("a read at 2^64 bytes", header(0, 1 << 55), room: 512, status: ioError),
            request("a read over 2^64 bytes", header(0, (1 << 55) - 1), room: 1024, status: ioError),
            request("a read of a byte", header(0, 0), room: 1, status: ioError),
            request("a read of a sector and a byte", header(0, 0), room: 513, status: ioError),
            HostileCase(16, "a request without a status", .used) { driver, device in
                let queue = driver.queues[device.queue]
                try driver.perform(GoodRequest(readable: header(0, 0)) { written, _ in written == 0 }, on: queue)
            },
        ]
        + [2, 3, 5, 6, 7, 9, 10, 12, 15, 0x8000_0000, .max].map { type in
            request("type \(type)", header(type, 0), room: 512, status: unsupported)
        }

    private static let blockCases: [HostileCase] =
        readCases + [
            request("a write behind the end", header(1, end) + oneSector, status: ioError),
            request("a write over the end", header(1, end - 1) + oneSector + oneSector, status: ioError),
            request("a write at 2^64 bytes", header(1, 1 << 55) + oneSector, status: ioError),
            request("a write of a byte", header(1, 0) + [0xee], status: ioError),
            request("a write of a sector and a byte", header(1, 0) + oneSector + [0xee], status: ioError),
            request("a discard of nothing", header(11, 0), status: ioError),
            request("a discard of half a range", header(11, 0) + range(0, 1).prefix(8), status: ioError),
            request("a discard behind the end", header(11, 0) + range(end, 1), status: ioError),
            request("a discard over the end", header(11, 0) + range(end - 1, 2), status: ioError),
            request("a discard at 2^64 bytes", header(11, 0) + range(1 << 55, 1), status: ioError),
            request("a discard of two TiB", header(11, 0) + range(0, .max), status: ioError),
            request("a discard with flags", header(11, 0) + range(0, 1, flags: 1), status: unsupported),
            request("zeroes over the end", header(13, 0) + range(end - 1, 2), status: ioError),
            request("zeroes with flags", header(13, 0) + range(0, 1, flags: 2), status: unsupported),
            request(
                "more ranges than allowed", header(11, 0) + (0..<17).flatMap { _ in range(0, 0) }, status: ioError),
        ]

    private static let readOnlyCases: [HostileCase] =
        readCases + [
            request("a write to a disk that is read only", header(1, 0) + oneSector, status: ioError),
            request("a discard of a disk that is read only", header(11, 0) + range(0, 1), status: ioError),
            request("zeroes for a disk that is read only", header(13, 0) + range(0, 1), status: ioError),
        ]
}

extension GoodRequest {
    /// Sector 3 of the tested disk, and its status. A noisy driver may have written to it; `blockCases` look.
    fileprivate static let readSector = GoodRequest(
        readable: TestedDevice.header(0, 3), writable: Block.sectorBytes + 1
    ) { written, bytes in
        written == bytes.count && bytes.last == 0
    }
}
