internal import HostInterface

/// A table of the file that is one cluster long, in memory.
final class Table {
    let offset: UInt64
    private(set) var bytes: [UInt8]
    /// The bytes that the file does not have yet.
    fileprivate(set) var dirty: Range<Int>?
    fileprivate var lastUse: UInt64 = 0

    fileprivate init(offset: UInt64, bytes: [UInt8]) {
        self.offset = offset
        self.bytes = bytes
    }

    /// The 64-bit entry, as L2 tables have them.
    subscript(index: Int) -> UInt64 { bytes.bigEndian(at: index * 8) ?? 0 }

    func put<T: FixedWidthInteger & UnsignedInteger>(_ value: T, at byte: Int) {
        bytes.putBigEndian(value, at: byte)
        let end = byte + MemoryLayout<T>.size
        dirty = min(dirty?.lowerBound ?? byte, byte)..<max(dirty?.upperBound ?? end, end)
    }
}

/// Tables by their place in the file: as many as there is room for, and those
/// that are to be written whether there is or not.
final class TableCache {
    private let storage: ClusterFile
    private let limit: Int
    private var tables: [UInt64: Table] = [:]
    private var clock: UInt64 = 0

    init(_ storage: ClusterFile, byteLimit: Int) {
        self.storage = storage
        limit = max(8, byteLimit >> storage.clusterBits)
    }

    /// Half of the room is taken by what is to be written.
    var isCrowded: Bool { dirtyCount > limit / 2 }
    private(set) var dirtyCount = 0

    func table(at offset: UInt64) throws(Errno) -> Table {
        clock += 1
        if let table = tables[offset] {
            table.lastUse = clock
            return table
        }
        return insert(Table(offset: offset, bytes: try storage.readTable(at: offset)))
    }

    /// A new table, of which the file knows nothing yet; empty, or a copy.
    func create(at offset: UInt64, bytes: [UInt8]? = nil) -> Table {
        clock += 1
        remove(offset)
        let table = Table(offset: offset, bytes: bytes ?? [UInt8](repeating: 0, count: storage.clusterSize))
        table.dirty = 0..<storage.clusterSize
        dirtyCount += 1
        return insert(table)
    }

    func put<T: FixedWidthInteger & UnsignedInteger>(_ value: T, at byte: Int, in table: Table) {
        if table.dirty == nil {
            dirtyCount += 1
            tables[table.offset] = table  // It may have been forgotten since the caller looked it up.
        }
        table.put(value, at: byte)
    }

    /// The cluster is no table any more.
    func remove(_ offset: UInt64) {
        if let table = tables.removeValue(forKey: offset), table.dirty != nil { dirtyCount -= 1 }
    }

    /// Writes what the file does not have, in the order of the file.
    func writeBack() throws(Errno) {
        guard dirtyCount > 0 else { return }
        for table in tables.values.filter({ $0.dirty != nil }).sorted(by: { $0.offset < $1.offset }) {
            guard let range = table.dirty else { continue }
            try storage.write(table.bytes[range], at: table.offset + UInt64(range.lowerBound))
            table.dirty = nil
            dirtyCount -= 1
        }
    }

    private func insert(_ table: Table) -> Table {
        if tables.count >= limit { shrink() }
        table.lastUse = clock
        tables[table.offset] = table
        return table
    }

    /// Forgets the half that was not used for longest; not one by one, since to find them takes a look at all.
    private func shrink() {
        let clean = tables.values.filter { $0.dirty == nil }.sorted { $0.lastUse < $1.lastUse }
        for table in clean.prefix((clean.count + 1) / 2) { tables[table.offset] = nil }
    }
}
