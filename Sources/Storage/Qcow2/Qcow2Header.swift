internal import HostInterface

/// The first cluster of a qcow2 file, checked: every number here is within
/// the bounds that the rest of the code counts on.
struct Qcow2Header {
    static let magic: [UInt8] = [0x51, 0x46, 0x49, 0xfb]

    /// Bits without which the file cannot be understood.
    struct IncompatibleFeatures: OptionSet {
        let rawValue: UInt64
        static let dirty = Self(rawValue: 1 << 0)
        static let corrupt = Self(rawValue: 1 << 1)
        static let externalData = Self(rawValue: 1 << 2)
        static let compressionType = Self(rawValue: 1 << 3)
        static let extendedL2 = Self(rawValue: 1 << 4)
        static let understood: Self = [.dirty, .corrupt, .compressionType]
    }

    enum Compression: UInt8 { case zlib, zstd }

    /// Where the fields are that are written again.
    enum Field {
        static let refcountTable: UInt64 = 48
        static let autoclearFeatures: UInt64 = 88
    }

    enum Extension {
        static let backingFormat: UInt32 = 0xe279_2aca
        static let featureNames: UInt32 = 0x6803_f857
    }

    static let clusterBits = 9...21
    /// The format's own readers go no further, either.
    static let l1ByteLimit = 32 << 20
    static let refcountTableByteLimit = 8 << 20

    let version: UInt32
    let clusterBits: Int
    let byteCount: UInt64
    let l1Offset: UInt64
    /// As many as the disk's size asks for; the file may have more.
    let l1Count: Int
    let refcountTableOffset: UInt64
    let refcountTableClusters: Int
    let refcountOrder: Int
    let snapshotCount: Int
    let snapshotsOffset: UInt64
    let features: IncompatibleFeatures
    let autoclearFeatures: UInt64
    let compression: Compression
    let backingName: String?
    let backingFormat: String?

    var clusterSize: Int { 1 << clusterBits }

    /// Reads the header of a file that begins with the magic number.
    init(_ file: DiskFile) throws(HostError) {
        let start = try Self.read(file, 4096)
        func refuse(_ why: String, _ advice: String = "") -> HostError {
            HostError("cannot use \(file.path): \(why)", advice: advice)
        }
        func field<T: FixedWidthInteger & UnsignedInteger>(_ offset: Int, as type: T.Type = T.self) throws(HostError)
            -> T
        {
            guard let value = start.bigEndian(at: offset, as: T.self) else {
                throw refuse("its qcow2 header is cut short")
            }
            return value
        }
        guard start.starts(with: Self.magic) else { throw refuse("it is no qcow2 image") }
        version = try field(4)
        guard version == 2 || version == 3 else { throw refuse("qcow2 version \(version) is not known") }
        let bits: UInt32 = try field(20)
        guard let bits = Int(exactly: bits), Self.clusterBits.contains(bits) else {
            throw refuse("its qcow2 clusters have 2^\(bits) bytes, which is out of range")
        }
        clusterBits = bits
        guard try field(32, as: UInt32.self) == 0 else {
            throw refuse("it is encrypted", "qemu-img convert decrypts it")
        }

        let cluster = try Self.read(file, 1 << bits)
        let headerLength = version == 2 ? 72 : Int(try field(100, as: UInt32.self))
        guard version == 2 || (headerLength >= 104 && headerLength % 8 == 0 && headerLength <= cluster.count) else {
            throw refuse("its qcow2 header claims to have \(headerLength) bytes")
        }
        features = IncompatibleFeatures(rawValue: version == 2 ? 0 : try field(72))
        autoclearFeatures = version == 2 ? 0 : try field(88)
        let order: UInt32 = version == 2 ? 4 : try field(96)
        guard order <= 6 else { throw refuse("its reference counts have 2^\(order) bits") }
        refcountOrder = Int(order)

        let extensions = Self.extensions(cluster, from: headerLength)
        let strange = features.subtracting(.understood)
        guard strange.isEmpty else {
            throw refuse(
                "it uses the qcow2 feature \(Self.name(of: strange, cluster, extensions))",
                "qemu-img convert makes a plain copy")
        }
        let type = headerLength > 104 ? cluster.bigEndian(at: 104, as: UInt8.self) ?? 0 : 0
        guard let compression = Compression(rawValue: type), (type != 0) == features.contains(.compressionType) else {
            throw refuse("its compression is of type \(type), which is not known")
        }
        self.compression = compression

        byteCount = try field(24)
        guard byteCount > 0, byteCount % 512 == 0 else {
            throw refuse("its \(byteCount) bytes are not a multiple of 512", "qemu-img resize gives it another size")
        }
        // One L1 entry leads to a cluster of L2 entries, of 8 bytes each.
        let reach = UInt64(1) << UInt64(2 * bits - 3)
        let needed = (byteCount - 1) / reach + 1
        guard needed <= UInt64(Self.l1ByteLimit / 8), needed <= UInt64(try field(36, as: UInt32.self)) else {
            throw refuse("its \(byteCount) bytes do not fit its L1 table")
        }
        l1Count = Int(needed)
        l1Offset = try field(40)
        refcountTableOffset = try field(48)
        let tableClusters: UInt32 = try field(56)
        guard Int(tableClusters) <= Self.refcountTableByteLimit >> bits else {
            throw refuse("its refcount table has \(tableClusters) clusters")
        }
        refcountTableClusters = Int(tableClusters)
        let mask = UInt64(1) << UInt64(bits) - 1
        guard l1Offset != 0, l1Offset & mask == 0, refcountTableOffset & mask == 0 else {
            throw refuse("its tables do not begin where clusters do")
        }
        snapshotCount = Int(try field(60, as: UInt32.self))
        snapshotsOffset = try field(64)

        let (nameOffset, nameSize): (UInt64, UInt32) = (try field(8), try field(16))
        if nameOffset == 0 || nameSize == 0 {
            backingName = nil
        } else {
            guard nameSize <= 1023, let start = Int(exactly: nameOffset), start <= cluster.count - Int(nameSize) else {
                throw refuse("the name of its backing file is not within its first cluster")
            }
            let bytes = cluster[start..<start + Int(nameSize)]
            guard let name = String(validating: bytes, as: UTF8.self), !name.utf8.contains(0) else {
                throw refuse("the name of its backing file is not text")
            }
            backingName = name
        }
        backingFormat = extensions.first { $0.type == Extension.backingFormat }.map {
            String(decoding: cluster[$0.range].prefix { $0 != 0 }, as: UTF8.self)
        }
    }

    private static func read(_ file: DiskFile, _ limit: Int) throws(HostError) -> [UInt8] {
        do { return try file.read(at: 0, upTo: limit) } catch {
            throw HostError("cannot read \(file.path)", errno: error)
        }
    }

    private typealias Part = (type: UInt32, range: Range<Int>)

    /// The extensions behind the header, as far as they make sense.
    private static func extensions(_ cluster: [UInt8], from start: Int) -> [Part] {
        var parts: [Part] = []
        var position = start
        while let type: UInt32 = cluster.bigEndian(at: position), type != 0,
            let length: UInt32 = cluster.bigEndian(at: position + 4), Int(length) <= cluster.count - position - 8
        {
            parts.append((type, position + 8..<position + 8 + Int(length)))
            position += 8 + (Int(length) + 7) & ~7
        }
        return parts
    }

    /// What we or the file itself call the first of the features.
    private static func name(of features: IncompatibleFeatures, _ cluster: [UInt8], _ extensions: [Part]) -> String {
        if features.contains(.externalData) { return "'external data file'" }
        if features.contains(.extendedL2) { return "'extended L2 entries'" }
        let bit = features.rawValue.trailingZeroBitCount
        let table = extensions.first { $0.type == Extension.featureNames }?.range ?? 0..<0
        // Each entry: the kind of feature (0: incompatible), its bit, 46 bytes of name.
        for entry in stride(from: table.lowerBound, through: table.upperBound - 48, by: 48)
        where cluster[entry] == 0 && cluster[entry + 1] == bit {
            let name = cluster[entry + 2..<entry + 48].prefix { (0x20..<0x7f).contains($0) }
            return "'\(String(decoding: name, as: UTF8.self))'"
        }
        return "of incompatible bit \(bit)"
    }
}
