import Glibc
import HostInterface
import Storage
import Testing

/// What cannot be a disk: one line that names the file, the reason and the way out.
@Suite struct RefusalTests {
    private func expectRefusal(
        _ path: String, format: DiskFormat? = nil, readOnly: Bool = true, naming words: String...,
        at place: SourceLocation = #_sourceLocation
    ) {
        let error = #expect(throws: HostError.self, sourceLocation: place) {
            _ = try DiskImages.open(path: path, format: format, readOnly: readOnly)
        }
        guard let error else { return }
        let line = "\(error)"
        #expect(!line.utf8.contains { $0 < 0x20 }, "\(line)", sourceLocation: place)
        for word in words { #expect(line.contains(word), "\(line)", sourceLocation: place) }
    }

    private func create(_ path: String, size: UInt64? = 1 << 20, backing: String? = nil) throws {
        var creation = DiskCreation(path: path)
        creation.byteCount = size
        creation.backing = backing
        try creation.run()
    }

    private func change(_ path: String, _ body: (inout [UInt8]) -> Void) throws {
        var bytes = try readFile(path)
        body(&bytes)
        try Files.writeAtomically(bytes, to: path)
    }

    @Test func filesThatAreNoDisks() throws {
        try withFolder { folder in
            expectRefusal(folder + "/none", naming: folder + "/none", "No such file")
            expectRefusal(folder, naming: folder, "folder")
            expectRefusal("/dev/null", naming: "/dev/null", "neither")
            let pipe = folder + "/pipe"
            #expect(unsafe mkfifo(pipe, 0o600) == 0)
            expectRefusal(pipe, naming: pipe, "neither")
            try Files.writeAtomically([], to: folder + "/empty")
            expectRefusal(folder + "/empty", naming: "empty")
            try Files.writeAtomically([UInt8](repeating: 1, count: 1000), to: folder + "/odd")
            expectRefusal(folder + "/odd", naming: "1000", "512", "truncate")
            expectRefusal(folder + "/odd", format: .qcow2, naming: "no qcow2 image")
            if getuid() != 0 {
                #expect(unsafe chmod(folder + "/odd", 0o400) == 0)
                expectRefusal(folder + "/odd", readOnly: false, naming: "Permission denied", ",ro")
            }
        }
    }

    /// A guest chooses what is in its raw disk; whose format was said stays raw.
    @Test func qcow2IsRawOnlyIfThatIsSaid() throws {
        try withFolder { folder in
            try create(folder + "/disk")
            #expect(try DiskImages.open(path: folder + "/disk").format == .qcow2)
            #expect(try DiskImages.open(path: folder + "/disk", format: .raw).byteCount == 4 << 16)
            // Below an overlay that says nothing, it is nothing.
            try create(folder + "/overlay", backing: folder + "/disk")
            try change(folder + "/overlay") { putBigEndian(UInt32(0x1234_5678), at: 104, in: &$0) }
            expectRefusal(folder + "/overlay", naming: "does not say the format", "disk", "qemu-img rebase")
        }
    }

    struct Damage: CustomTestStringConvertible, Sendable {
        let testDescription: String
        let words: String
        let change: @Sendable (inout [UInt8]) -> Void

        init(_ what: String, naming words: String, _ change: @escaping @Sendable (inout [UInt8]) -> Void) {
            (testDescription, self.words, self.change) = (what, words, change)
        }
    }

    static let headers: [Damage] = [
        Damage("version 1", naming: "version 1") { putBigEndian(UInt32(1), at: 4, in: &$0) },
        Damage("version 4", naming: "version 4") { putBigEndian(UInt32(4), at: 4, in: &$0) },
        Damage("cluster of 256 bytes", naming: "2^8") { putBigEndian(UInt32(8), at: 20, in: &$0) },
        Damage("cluster of 4 MiB", naming: "2^22") { putBigEndian(UInt32(22), at: 20, in: &$0) },
        Damage("cluster of 2^4294967295", naming: "4294967295") { putBigEndian(UInt32.max, at: 20, in: &$0) },
        Damage("no size", naming: "512") { putBigEndian(UInt64(0), at: 24, in: &$0) },
        Damage("size of 1000", naming: "1000") { putBigEndian(UInt64(1000), at: 24, in: &$0) },
        Damage("huge size", naming: "L1 table") { putBigEndian(UInt64.max & ~511, at: 24, in: &$0) },
        Damage("size past the L1 table", naming: "L1 table") { putBigEndian(UInt64(1 << 40), at: 24, in: &$0) },
        Damage("encryption", naming: "encrypted") { putBigEndian(UInt32(2), at: 32, in: &$0) },
        Damage("no L1 table", naming: "tables") { putBigEndian(UInt64(0), at: 40, in: &$0) },
        Damage("L1 table anywhere", naming: "tables") { putBigEndian(UInt64(3 << 16 + 8), at: 40, in: &$0) },
        Damage("L1 table past the end", naming: "tables") { putBigEndian(UInt64(1 << 62), at: 40, in: &$0) },
        Damage("L1 table at the end of all", naming: "tables") { putBigEndian(UInt64.max << 16, at: 40, in: &$0) },
        Damage("refcount table anywhere", naming: "tables") { putBigEndian(UInt64(1), at: 48, in: &$0) },
        Damage("refcount table past the end", naming: "tables") { putBigEndian(UInt64(1 << 62), at: 48, in: &$0) },
        Damage("no refcount table", naming: "tables") { putBigEndian(UInt32(0), at: 56, in: &$0) },
        Damage("huge refcount table", naming: "4294967295 clusters") { putBigEndian(UInt32.max, at: 56, in: &$0) },
        Damage("dirty", naming: "qemu-img check -r all") { putBigEndian(UInt64(1), at: 72, in: &$0) },
        Damage("corrupt", naming: "corrupt") { putBigEndian(UInt64(2), at: 72, in: &$0) },
        Damage("external data", naming: "'external data file'") { putBigEndian(UInt64(4), at: 72, in: &$0) },
        Damage("extended L2", naming: "'extended L2 entries'") { putBigEndian(UInt64(16), at: 72, in: &$0) },
        Damage("a feature without a name", naming: "bit 40") { putBigEndian(UInt64(1) << 40, at: 72, in: &$0) },
        Damage("a feature with a name", naming: "'time travel'") {
            putBigEndian(UInt64(1) << 41, at: 72, in: &$0)
            putBigEndian(UInt32(0x6803_f857), at: 104, in: &$0)
            putBigEndian(UInt32(48), at: 108, in: &$0)
            $0.replaceSubrange(112..<125, with: [0, 41] + Array("time travel".utf8))
        },
        Damage("compression bit without a type", naming: "compression") { putBigEndian(UInt64(8), at: 72, in: &$0) },
        Damage("compression of type 9", naming: "type 9") {
            putBigEndian(UInt64(8), at: 72, in: &$0)
            putBigEndian(UInt32(112), at: 100, in: &$0)
            $0[104] = 9
        },
        Damage("counts of 128 bits", naming: "2^7") { putBigEndian(UInt32(7), at: 96, in: &$0) },
        Damage("a short header", naming: "96 bytes") { putBigEndian(UInt32(96), at: 100, in: &$0) },
        Damage("a long header", naming: "header") { putBigEndian(UInt32(1 << 30), at: 100, in: &$0) },
        Damage("a cut header", naming: "cut short") { $0 = Array($0.prefix(70)) },
        Damage("a cut file", naming: "tables") { $0 = Array($0.prefix(3 << 16)) },
        Damage("backing name past its cluster", naming: "backing file") {
            putBigEndian(UInt64(65530), at: 8, in: &$0)
            putBigEndian(UInt32(100), at: 16, in: &$0)
        },
        Damage("backing name of 2 KiB", naming: "backing file") {
            putBigEndian(UInt64(200), at: 8, in: &$0)
            putBigEndian(UInt32(2048), at: 16, in: &$0)
        },
        Damage("backing name far away", naming: "backing file") {
            putBigEndian(UInt64.max, at: 8, in: &$0)
            putBigEndian(UInt32(10), at: 16, in: &$0)
        },
        Damage("backing over the network", naming: "nbd://x") {
            $0.replaceSubrange(200..<207, with: Array("nbd://x".utf8))
            putBigEndian(UInt64(200), at: 8, in: &$0)
            putBigEndian(UInt32(7), at: 16, in: &$0)
        },
        Damage("backing name with a newline", naming: "a?b") {
            $0.replaceSubrange(200..<203, with: Array("a\nb".utf8))
            putBigEndian(UInt64(200), at: 8, in: &$0)
            putBigEndian(UInt32(3), at: 16, in: &$0)
        },
    ]

    @Test(arguments: headers) func headersThatMakeNoSense(_ damage: Damage) throws {
        try withFolder { folder in
            let path = folder + "/disk"
            try create(path)
            try change(path, damage.change)
            let before = try readFile(path)
            expectRefusal(path, readOnly: false, naming: path, damage.words)
            #expect(try readFile(path) == before)
        }
    }

    /// What is damaged or out of date can still be read.
    @Test(arguments: [UInt64(1), 2]) func dirtyAndCorruptImagesAreRead(_ feature: UInt64) throws {
        try withFolder { folder in
            try create(folder + "/disk")
            try change(folder + "/disk") { putBigEndian(feature, at: 72, in: &$0) }
            let image = try DiskImages.open(path: folder + "/disk", readOnly: true)
            #expect(try image.everything() == [UInt8](repeating: 0, count: 1 << 20))
            #expect(throws: Errno.readOnly) { try image.store([1], at: 0) }
            #expect(throws: Errno.readOnly) { try image.discard(0, count: 512) }
        }
    }

    @Test func chainsThatDoNotEnd() throws {
        try withFolder { folder in
            try create(folder + "/b")
            try create(folder + "/a", size: nil, backing: folder + "/b")
            // The path of a's backing file ends in its name.
            let name = 128 + folder.utf8.count + 1
            try change(folder + "/b") { bytes in
                bytes = (try? readFile(folder + "/a")) ?? []
                bytes[name] = UInt8(ascii: "a")
            }
            expectRefusal(folder + "/a", naming: "circle", folder + "/a")
            try change(folder + "/a") { $0[name] = UInt8(ascii: "a") }
            expectRefusal(folder + "/a", naming: "circle")
            // Long, but not endless.
            try create(folder + "/0")
            for index in 1...16 { try create("\(folder)/\(index)", size: nil, backing: "\(folder)/\(index - 1)") }
            #expect(try DiskImages.open(path: folder + "/16").byteCount == 1 << 20)
            #expect(throws: HostError.self) { try create(folder + "/17", size: nil, backing: folder + "/16") }
            #expect(!Files.exists(folder + "/17"))
        }
    }

    @Test func missingBackingFilesAreNamedWithTheirOverlay() throws {
        try withFolder { folder in
            try create(folder + "/base")
            try create(folder + "/overlay", size: nil, backing: folder + "/base")
            Files.remove(folder + "/base")
            expectRefusal(folder + "/overlay", naming: folder + "/base", folder + "/overlay")
        }
    }

    /// Entries of tables that lead astray: an I/O error of who goes there, and of nobody else.
    static let strayEntries: [UInt64] = [
        0x8000_0000_0001_0008, 0x0000_0010_0000_0000, 0x80ff_ffff_ffff_0000, 0x8000_0000_0000_0000,
        0x1000_0000_0005_0000,
        0x0000_0000_0002_0001, 0xffff_ffff_ffff_ffff, 0x7fff_0000_0000_0000, 0xc000_0000_0000_0000,
        0x4000_0000_0003_0000,
        0x0080_0000_0000_0000,
    ]

    @Test(arguments: strayEntries)
    func entriesThatLeadAstray(_ entry: UInt64) throws {
        try withFolder { folder in
            let path = folder + "/disk"
            try create(path)
            do {
                let image = try DiskImages.open(path: path)
                try image.store([UInt8](repeating: 7, count: 1 << 17), at: 0)
                try image.flush()
            }
            // The L2 table is cluster 4, behind the L1 table.
            try change(path) { putBigEndian(entry, at: 4 << 16, in: &$0) }
            let image = try DiskImages.open(path: path)
            let isZero = entry == 0x2_0001
            if isZero {
                #expect(try image.read(0, count: 512) == [UInt8](repeating: 0, count: 512))
            } else {
                #expect(throws: Errno.inputOutput) { _ = try image.read(0, count: 512) }
            }
            if !isZero { #expect(throws: Errno.inputOutput) { try image.store([1], at: 100) } }
            #expect(try image.read(1 << 16, count: 512) == [UInt8](repeating: 7, count: 512))
            try image.flush()
        }
    }

    /// Data that is said to lie where tables are is not written there.
    @Test(arguments: [UInt64(0x1_0000), 0x2_0000, 0x3_0000, 0x4_0000]) func tablesAreNotOverwritten(_ place: UInt64)
        throws
    {
        try withFolder { folder in
            let path = folder + "/disk"
            try create(path)
            do {
                let image = try DiskImages.open(path: path)
                try image.store([1], at: 0)
                try image.flush()
            }
            try change(path) { putBigEndian(1 << 63 | place, at: 4 << 16, in: &$0) }
            let image = try DiskImages.open(path: path)
            #expect(throws: Errno.inputOutput) { try image.store([1], at: 0) }
            // Nor are they handed out where their counts say that they are free.
            try change(path) { bytes in
                putBigEndian(UInt64(0), at: 4 << 16, in: &bytes)
                for cluster in 0..<5 { putBigEndian(UInt16(0), at: 2 << 16 + 2 * cluster, in: &bytes) }
            }
            let other = try DiskImages.open(path: path)
            #expect(throws: Errno.inputOutput) { try other.store([1], at: 0) }
        }
    }

    @Test func requestsPastTheEnd() throws {
        try withFolder { folder in
            for format in DiskFormat.allCases {
                var creation = DiskCreation(path: folder + "/\(format)")
                creation.byteCount = 1 << 20
                creation.format = format
                try creation.run()
                let image = try DiskImages.open(path: creation.path)
                for (offset, count) in [
                    (UInt64(1 << 20), 1), (1 << 20 - 511, 512), (.max, 512), (0, 1 << 20 + 1), (0, -1),
                ] {
                    var extents: [Extent] = []
                    #expect(throws: Errno.invalid) { try image.locate(offset, count: count, into: &extents) }
                    #expect(throws: Errno.invalid) { try image.allocate(offset, count: count, into: &extents) }
                    #expect(extents == [])
                }
                #expect(throws: Errno.invalid) { try image.discard(512, count: .max) }
                #expect(throws: Errno.invalid) { try image.writeZeroes(.max, count: 2, mayUnmap: true) }
            }
        }
    }
}
