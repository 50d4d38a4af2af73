internal import HostInterface

/// A new, empty qcow2 image: version 3, clusters of 64 KiB, counts of 16 bits.
///
///     cluster 0   the header, its extensions, the name of the backing file
///     cluster 1   the refcount table, with one entry
///     cluster 2   the refcount block: all of these clusters once
///     cluster 3…  the L1 table, empty
enum Qcow2Creation {
    static let clusterBits = 16
    static let clusterSize = 1 << clusterBits
    /// What an L1 table of the largest size leads to.
    static let byteLimit = UInt64(Qcow2Header.l1ByteLimit / 8) << UInt64(2 * clusterBits - 3)

    static func write(
        _ file: DiskFile, byteCount: UInt64, backing: (name: String, format: DiskFormat)?
    ) throws(Errno) {
        let l1Count = Int((byteCount - 1) >> UInt64(2 * clusterBits - 3)) + 1
        let l1Clusters = (l1Count * 8 - 1) >> clusterBits + 1

        var header = [UInt8](repeating: 0, count: clusterSize)
        header.replaceSubrange(0..<4, with: Qcow2Header.magic)
        header.putBigEndian(UInt32(3), at: 4)
        header.putBigEndian(UInt32(clusterBits), at: 20)
        header.putBigEndian(byteCount, at: 24)
        header.putBigEndian(UInt32(l1Count), at: 36)
        header.putBigEndian(UInt64(3 * clusterSize), at: 40)
        header.putBigEndian(UInt64(clusterSize), at: Int(Qcow2Header.Field.refcountTable))
        header.putBigEndian(UInt32(1), at: 56)
        header.putBigEndian(UInt32(4), at: 96)
        let headerLength = 104
        header.putBigEndian(UInt32(headerLength), at: 100)
        if let backing {
            let (name, format) = (Array(backing.name.utf8), Array(backing.format.rawValue.utf8))
            header.putBigEndian(Qcow2Header.Extension.backingFormat, at: headerLength)
            header.putBigEndian(UInt32(format.count), at: headerLength + 4)
            header.replaceSubrange(headerLength + 8..<headerLength + 8 + format.count, with: format)
            // The format's name, padded to 8 bytes, and an extension of type 0, which is the last.
            let nameOffset = headerLength + 8 + 8 + 8
            header.replaceSubrange(nameOffset..<nameOffset + name.count, with: name)
            header.putBigEndian(UInt64(nameOffset), at: 8)
            header.putBigEndian(UInt32(name.count), at: 16)
        }
        var table = [UInt8](repeating: 0, count: clusterSize)
        table.putBigEndian(UInt64(2 * clusterSize), at: 0)
        var counts = [UInt8](repeating: 0, count: clusterSize)
        for cluster in 0..<3 + l1Clusters { counts.putBigEndian(UInt16(1), at: cluster * 2) }

        try file.write(header + table + counts, at: 0)
        try file.resize(to: UInt64((3 + l1Clusters) * clusterSize))
        try file.synchronize()
    }
}
