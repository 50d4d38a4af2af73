package import HostInterface

//L:320 qcow2: a disk that remembers only what changed
//
// A qcow2 file (QEMU's docs/interop/qcow2.txt) has the disk in clusters, of
// 64 KiB if nobody wished otherwise, and two levels of tables that say where
// each is, just as a CPU's page tables do for memory:
//
//     disk offset   │ L1 index │ L2 index │ within │
//
//     L1 table ──▶ L2 table ──▶ 0                  ask the backing file; zeros if there is none
//                               the zero bit       zeros, whatever is below
//                               an offset          there, and bit 63 says that it is ours alone
//                               bit 62 and more    compressed, at any sector
//
// What is not in the table comes from the backing file, which is never
// written: a fresh overlay on a system that took an hour to install has four
// clusters, and is thrown away as easily.
//
// Like page tables these are data that somebody else made. Every offset is
// checked where it is followed; one that leads nowhere is an I/O error for the
// Guest that asked, and for nobody else.

/// A disk in clusters, found through tables.
///
/// Sendable without a check: one thread at a time has it, says `DiskImage`.
package final class Qcow2Image: DiskImage, @unchecked Sendable {
    let storage: ClusterFile
    let header: Qcow2Header
    let backing: (any DiskImage & Sendable)?
    var l1: [UInt64]
    var dirtyL1: Set<Int> = []
    let l2: TableCache
    /// Only where there is to be written.
    let refcounts: Refcounts?
    /// Clusters that one user less will have, once no table on the disk says otherwise; by number.
    var retired: [UInt64] = []
    /// Where the L2 tables are: no place for data.
    var l2Places: Set<UInt64> = []
    /// The bits that we do not keep up to date are still set.
    var hasAutoclearFeatures: Bool
    private var unpacked: (cluster: CompressedCluster, bytes: [UInt8])?

    static let l2ByteLimit = 8 << 20

    package let byteCount: UInt64
    package var path: String { storage.file.path }
    package var format: DiskFormat { .qcow2 }
    package var isReadOnly: Bool { storage.file.isReadOnly }
    package var descriptor: Int32 { storage.file.descriptor }

    init(_ file: DiskFile, _ header: Qcow2Header, backing: (any DiskImage & Sendable)?) throws(HostError) {
        self.header = header
        self.backing = backing
        byteCount = header.byteCount
        hasAutoclearFeatures = header.autoclearFeatures != 0
        do throws(Errno) {
            storage = try ClusterFile(file, clusterBits: header.clusterBits)
            l2 = TableCache(storage, byteLimit: Self.l2ByteLimit)
            let bytes = try file.read(at: header.l1Offset, count: header.l1Count * 8)
            l1 = (0..<header.l1Count).map { bytes.bigEndian(at: $0 * 8) ?? 0 }
            refcounts = file.isReadOnly ? nil : try Refcounts(storage, header)
        } catch {
            throw HostError("cannot read the tables of \(file.path)", errno: error, advice: "qemu-img check says more")
        }
        if !isReadOnly { for entry in l1 where entry != 0 { l2Places.insert(entry & Entry.offsetMask) } }
    }

    /// The bits of L1's and L2's entries.
    enum Entry {
        static let zero: UInt64 = 1
        static let offsetMask: UInt64 = 0x00ff_ffff_ffff_fe00
        static let compressed: UInt64 = 1 << 62
        /// Nobody else uses the cluster: it may be written where it is.
        static let ours: UInt64 = 1 << 63
    }

    /// Where a cluster of the disk is.
    enum Mapping: Equatable {
        case unallocated
        /// A cluster of the file may be kept for it.
        case zero(host: UInt64?, isOurs: Bool)
        case data(host: UInt64, isOurs: Bool)
        case compressed(CompressedCluster)
    }

    /// One L2 table's share of the disk, as a power of two.
    var l2Bits: Int { 2 * header.clusterBits - 3 }

    func l1Index(_ offset: UInt64) -> Int { Int(offset >> UInt64(l2Bits)) }

    func l2Index(_ offset: UInt64) -> Int {
        Int(offset >> UInt64(header.clusterBits)) & (1 << (header.clusterBits - 3) - 1)
    }

    /// The L2 table of an L1 entry that is not 0.
    func table(_ entry: UInt64) throws(Errno) -> Table {
        guard entry & ~(Entry.offsetMask | Entry.ours) == 0 else { throw .inputOutput }
        return try l2.table(at: entry & Entry.offsetMask)
    }

    func mapping(_ offset: UInt64) throws(Errno) -> Mapping {
        let entry = l1[l1Index(offset)]
        return entry == 0 ? .unallocated : try mapping(of: try table(entry)[l2Index(offset)])
    }

    /// What an L2 entry says; the file may be anybody's, so all of it is looked at.
    func mapping(of entry: UInt64) throws(Errno) -> Mapping {
        let isOurs = entry & Entry.ours != 0
        if entry & Entry.compressed != 0 {
            guard !isOurs else { throw .inputOutput }
            return .compressed(CompressedCluster(entry: entry, clusterBits: header.clusterBits))
        }
        let host = entry & Entry.offsetMask
        guard entry & ~(Entry.offsetMask | Entry.ours | Entry.zero) == 0,
            host == 0 ? !isOurs : storage.isCluster(host), entry & Entry.zero == 0 || header.version > 2
        else { throw .inputOutput }
        if entry & Entry.zero != 0 { return .zero(host: host == 0 ? nil : host, isOurs: isOurs) }
        return host == 0 ? .unallocated : .data(host: host, isOurs: isOurs)
    }

    package func locate(_ offset: UInt64, count: Int, into extents: inout [Extent]) throws(Errno) {
        guard count >= 0, contains(offset, UInt64(count)) else { throw .invalid }
        var position = offset
        let end = offset + UInt64(count)
        while position < end {
            let within = Int(position & storage.offsetMask)
            let step = Int(min(end - position, UInt64(storage.clusterSize - within)))
            switch try mapping(position) {
            case .unallocated: try locateBelow(position, count: step, into: &extents)
            case .zero: extents.add(.zeros(count: step))
            case .data(let host, _):
                // The last cluster of a file need not be there as a whole.
                let start = host + UInt64(within)
                let stored = start < storage.end ? Int(min(UInt64(step), storage.end - start)) : 0
                extents.add(.file(descriptor: descriptor, offset: start, count: stored))
                extents.add(.zeros(count: step - stored))
            case .compressed(let cluster):
                extents.add(.bytes(Array(try unpack(cluster)[within..<within + step])))
            }
            position += UInt64(step)
        }
    }

    /// What the backing file has there; past its end there are zeros.
    func locateBelow(_ offset: UInt64, count: Int, into extents: inout [Extent]) throws(Errno) {
        var below = 0
        if let backing, offset < backing.byteCount {
            below = Int(min(UInt64(count), backing.byteCount - offset))
            try backing.locate(offset, count: below, into: &extents)
        }
        extents.add(.zeros(count: count - below))
    }

    /// A cluster is read in many small pieces, and unpacked once for all of them.
    private func unpack(_ cluster: CompressedCluster) throws(Errno) -> [UInt8] {
        if let unpacked, unpacked.cluster == cluster { return unpacked.bytes }
        let bytes = try cluster.unpack(storage, header.compression)
        unpacked = (cluster, bytes)
        return bytes
    }

    /// Clusters of the file may have other contents from now on.
    func forgetUnpacked() { unpacked = nil }
}
//:
