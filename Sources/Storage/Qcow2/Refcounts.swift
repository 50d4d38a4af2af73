internal import HostInterface

/// Who uses which cluster of the file: the refcount table, and the refcount
/// blocks that it leads to. Clusters are counted by number here.
final class Refcounts {
    private let storage: ClusterFile
    private let order: Int
    private let blocks: TableCache
    private var table: [UInt64]
    private var tableOffset: UInt64
    private var dirtyEntries: Set<Int> = []
    /// Below this no cluster is free.
    private var firstFree: UInt64 = 0
    /// Clusters with a structure of the file in them: never to be written as anything else.
    private(set) var structures: Set<UInt64> = []

    static let byteLimit = 4 << 20

    init(_ storage: ClusterFile, _ header: Qcow2Header) throws(Errno) {
        self.storage = storage
        order = header.refcountOrder
        blocks = TableCache(storage, byteLimit: Self.byteLimit)
        tableOffset = header.refcountTableOffset
        let bytes = try storage.file.read(at: tableOffset, count: header.refcountTableClusters << header.clusterBits)
        table = (0..<bytes.count / 8).map { bytes.bigEndian(at: $0 * 8) ?? 0 }
        guard !table.isEmpty, tableOffset != 0 else { throw .inputOutput }

        structures.insert(0)
        protect(from: tableOffset, byteCount: bytes.count)
        protect(from: header.l1Offset, byteCount: header.l1Count * 8)
        if header.snapshotsOffset != 0 { protect(from: header.snapshotsOffset, byteCount: 1) }
        for entry in table where entry != 0 { protect(from: entry, byteCount: 1) }
    }

    var isDirty: Bool { blocks.dirtyCount > 0 || !dirtyEntries.isEmpty }
    var isCrowded: Bool { blocks.isCrowded }

    func isStructure(at offset: UInt64) -> Bool { structures.contains(offset >> storage.clusterBits) }

    private func protect(from offset: UInt64, byteCount: Int) {
        guard byteCount > 0 else { return }
        let last = offset.addingReportingOverflow(UInt64(byteCount - 1)).partialValue
        guard last >= offset else { return }
        for cluster in offset >> storage.clusterBits...last >> storage.clusterBits { structures.insert(cluster) }
    }

    private var countsPerBlock: Int { (storage.clusterSize * 8) >> order }

    private func block(_ index: Int) throws(Errno) -> Table { try blocks.table(at: table[index]) }

    private func place(_ cluster: UInt64) -> (block: Int, entry: Int)? {
        guard let block = Int(exactly: cluster / UInt64(countsPerBlock)), block < table.count else { return nil }
        return (block, Int(cluster % UInt64(countsPerBlock)))
    }

    private func read(_ block: Table, _ entry: Int) -> UInt64 {
        switch order {
        case 4: UInt64(block.bytes.bigEndian(at: entry * 2, as: UInt16.self) ?? 0)
        case 5: UInt64(block.bytes.bigEndian(at: entry * 4, as: UInt32.self) ?? 0)
        case 6: block[entry]
        case 3: UInt64(block.bytes[entry])
        default:
            // Several to a byte, the first in its lowest bits.
            UInt64(block.bytes[(entry << order) >> 3] >> (entry << order & 7)) & (1 << (1 << order) - 1)
        }
    }

    private func write(_ value: UInt64, _ block: Table, _ entry: Int) {
        switch order {
        case 4: blocks.put(UInt16(truncatingIfNeeded: value), at: entry * 2, in: block)
        case 5: blocks.put(UInt32(truncatingIfNeeded: value), at: entry * 4, in: block)
        case 6: blocks.put(value, at: entry * 8, in: block)
        case 3: blocks.put(UInt8(truncatingIfNeeded: value), at: entry, in: block)
        default:
            let (byte, shift) = ((entry << order) >> 3, entry << order & 7)
            let mask = UInt8(1 << (1 << order) - 1) << shift
            let kept = block.bytes[byte] & ~mask
            blocks.put(kept | UInt8(truncatingIfNeeded: value) << shift & mask, at: byte, in: block)
        }
    }

    /// The offset of a cluster that nobody uses; it is the caller's now.
    func allocate() throws(Errno) -> UInt64 {
        while true {
            guard let (index, first) = place(firstFree) else {
                try growTable()
                continue
            }
            if table[index] == 0 { try addBlock(index) }
            let block = try block(index)
            let start = firstFree - UInt64(first)
            guard let entry = (first..<countsPerBlock).first(where: { read(block, $0) == 0 }) else {
                firstFree = start + UInt64(countsPerBlock)
                continue
            }
            let cluster = start + UInt64(entry)
            // Free, and in use: these counts can decide nothing.
            guard !structures.contains(cluster) else { throw .inputOutput }
            let offset = try offset(of: cluster)
            write(1, block, entry)
            firstFree = cluster + 1
            return offset
        }
    }

    private func offset(of cluster: UInt64) throws(Errno) -> UInt64 {
        guard cluster < ClusterFile.limit >> storage.clusterBits else { throw .noSpace }
        return cluster << storage.clusterBits
    }

    /// One user less.
    ///
    /// - Returns: whether that was the last.
    @discardableResult
    func release(_ cluster: UInt64) throws(Errno) -> Bool {
        guard let place = place(cluster), table[place.block] != 0 else { throw .inputOutput }
        let block = try block(place.block)
        let count = read(block, place.entry)
        guard count > 0, !structures.contains(cluster) else { throw .inputOutput }
        write(count - 1, block, place.entry)
        if count == 1 { firstFree = min(firstFree, cluster) }
        return count == 1
    }

    /// A block lies in the first of the clusters that it counts, and so counts itself.
    private func addBlock(_ index: Int) throws(Errno) {
        let cluster = UInt64(index) * UInt64(countsPerBlock)
        let offset = try offset(of: cluster)
        guard !structures.contains(cluster) else { throw .inputOutput }
        structures.insert(cluster)
        write(1, blocks.create(at: offset), 0)
        table[index] = offset
        dirtyEntries.insert(index)
    }

    //L:340 A table that outgrows its place
    //
    // The refcount table must lie in one piece, and counts the clusters that
    // it lies in itself. So a larger one is put where the old one's world
    // ends, followed by just the blocks that count the table and themselves:
    //
    //     … all that the old table can count │ new table, T clusters │ B blocks │ free …
    //                                         └── counted by the B blocks ──────┘
    //
    // All of that is on the disk before the header is told, by one write of
    // twelve bytes that no sector's edge divides; a crash before it leaves
    // some clusters that nobody knows of.

    /// Replaces the table by one of twice its size.
    private func growTable() throws(Errno) {
        let clusterSize = UInt64(storage.clusterSize)
        let oldCount = table.count
        let oldClusters = (oldCount * 8) >> storage.clusterBits
        let newClusters = oldClusters * 2
        guard newClusters << storage.clusterBits <= Qcow2Header.refcountTableByteLimit else { throw .noSpace }
        var blockCount = 1
        while blockCount * countsPerBlock < newClusters + blockCount { blockCount += 1 }
        let first = UInt64(oldCount) * UInt64(countsPerBlock)
        let newOffset = try offset(of: first)
        let taken = first..<first + UInt64(newClusters + blockCount)
        _ = try offset(of: taken.upperBound)
        guard structures.isDisjoint(with: taken) else { throw .inputOutput }

        // The new table leads to the blocks that the old one leads to: they come first.
        try blocks.writeBack()
        var newTable = table + [UInt64](repeating: 0, count: newClusters << storage.clusterBits / 8 - oldCount)
        var counted = newClusters + blockCount
        for index in 0..<blockCount {
            let offset = newOffset + UInt64(newClusters + index) * clusterSize
            let block = blocks.create(at: offset)
            for entry in 0..<min(counted, countsPerBlock) { write(1, block, entry) }
            counted -= min(counted, countsPerBlock)
            newTable[oldCount + index] = offset
        }
        try blocks.writeBack()
        try storage.write(newTable.flatMap { [UInt8](bigEndian: $0) }, at: newOffset)
        try storage.synchronize()
        try storage.write(
            [UInt8](bigEndian: newOffset) + [UInt8](bigEndian: UInt32(newClusters)), at: Qcow2Header.Field.refcountTable
        )
        try storage.synchronize()

        let old = tableOffset >> storage.clusterBits
        let retired = old..<old + UInt64(oldClusters)
        structures.subtract(retired)
        structures.formUnion(taken)
        table = newTable
        tableOffset = newOffset
        dirtyEntries = []
        for cluster in retired { try release(cluster) }
    }
    //:

    /// Writes the blocks, then the table's entries that lead to new ones.
    func writeBack() throws(Errno) {
        try blocks.writeBack()
        guard !dirtyEntries.isEmpty else { return }
        try storage.synchronize()
        for index in dirtyEntries.sorted() {
            try storage.write([UInt8](bigEndian: table[index]), at: tableOffset + UInt64(index) * 8)
        }
        dirtyEntries = []
    }
}
