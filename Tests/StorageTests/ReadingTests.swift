import HostInterface
import Storage
import Testing

/// Images that QEMU made read as QEMU reads them.
@Suite(.enabled(if: QEMU.isHere, QEMU.reason)) struct ReadingTests {
    /// A disk of some text, some noise, some zeros.
    private func source(_ folder: String, megabytes: Int = 4, seed: UInt64 = 1) throws -> String {
        var generator = SeededGenerator(seed: seed)
        var bytes = [UInt8](repeating: 0, count: megabytes << 20)
        for block in stride(from: 0, to: bytes.count, by: 32 << 10) {
            switch generator.next() % 4 {
            case 0: bytes.replaceSubrange(block..<block + 32 << 10, with: generator.bytes(32 << 10))
            case 1, 2:
                let word = generator.bytes(16)
                for index in block..<block + 32 << 10 { bytes[index] = word[index & 15] }
            default: break
            }
        }
        let path = "\(folder)/source-\(seed).raw"
        try Files.writeAtomically(bytes, to: path)
        return path
    }

    private func expectReadsAsQEMUDoes(
        _ path: String, readOnly: Bool = true, at place: SourceLocation = #_sourceLocation
    ) throws {
        let image = try DiskImages.open(path: path, readOnly: readOnly)
        let (ours, theirs) = (try image.everything(), try QEMU.contents(path))
        #expect(ours == theirs, "\(path) reads differently", sourceLocation: place)
        // In odd pieces, too.
        var generator = SeededGenerator(seed: 7)
        for _ in 0..<50 {
            let offset = Int(generator.next() % UInt64(theirs.count))
            let count = min(theirs.count - offset, Int(generator.next() % 200_000))
            #expect(
                try image.read(UInt64(offset), count: count) == Array(theirs[offset..<offset + count]),
                sourceLocation: place)
        }
    }

    @Test(arguments: [
        "compat=1.1", "compat=0.10", "cluster_size=512", "cluster_size=4k", "cluster_size=2M", "refcount_bits=1",
        "refcount_bits=64", "lazy_refcounts=on", "preallocation=metadata", "preallocation=falloc",
    ])
    func plain(_ options: String) throws {
        try withFolder { folder in
            let path = folder + "/disk.qcow2"
            try QEMU.image("convert", "-f", "raw", "-O", "qcow2", "-o", options, try source(folder), path)
            try expectReadsAsQEMUDoes(path, readOnly: false)
        }
    }

    @Test(arguments: ["compression_type=zlib", "compression_type=zstd"], ["4k", "64k", "2M"])
    func compressed(_ type: String, _ cluster: String) throws {
        try withFolder { folder in
            let path = folder + "/disk.qcow2"
            let options = "\(type),cluster_size=\(cluster)"
            try QEMU.image("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, try source(folder), path)
            try expectReadsAsQEMUDoes(path)
        }
    }

    @Test func overlays() throws {
        try withFolder { folder in
            let source = try source(folder)
            try QEMU.image("convert", "-c", "-f", "raw", "-O", "qcow2", source, folder + "/base.qcow2")
            // Larger than what is below, and of other cluster sizes; names relative to the overlay's folder.
            try QEMU.image(
                "create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "-o", "cluster_size=4k",
                folder + "/middle.qcow2", "6M")
            try QEMU.io(folder + "/middle.qcow2", "write -P 0x11 1M 100k", "write -z 2M 1M", "write -P 0x22 5M 4k")
            try QEMU.image(
                "create", "-f", "qcow2", "-b", folder + "/middle.qcow2", "-F", "qcow2", folder + "/top.qcow2", "8M")
            try QEMU.io(folder + "/top.qcow2", "write -P 0x33 1050k 10k", "discard 3M 128k", "write -P 0x44 7M 64k")
            try expectReadsAsQEMUDoes(folder + "/top.qcow2", readOnly: false)
            try QEMU.image(
                "create", "-f", "qcow2", "-b", source, "-F", "raw", folder + "/onraw.qcow2", "5M")
            try expectReadsAsQEMUDoes(folder + "/onraw.qcow2", readOnly: false)
        }
    }

    @Test func snapshots() throws {
        try withFolder { folder in
            let path = folder + "/disk.qcow2"
            try QEMU.image("convert", "-f", "raw", "-O", "qcow2", try source(folder), path)
            try QEMU.image("snapshot", "-c", "before", path)
            try QEMU.io(path, "write -P 0x55 1M 300k")
            try expectReadsAsQEMUDoes(path)
            // What is written then is not the snapshot's.
            let before = try QEMU.contents(path, "-l", "before")
            var model = try QEMU.contents(path)
            do {
                let image = try DiskImages.open(path: path)
                for (offset, count) in [(0, 4096), (900 << 10, 400 << 10), (3 << 20, 1 << 20)] {
                    let bytes = [UInt8](repeating: 0x66, count: count)
                    try image.store(bytes, at: UInt64(offset))
                    model.replaceSubrange(offset..<offset + count, with: bytes)
                }
                try image.flush()
                #expect(try image.everything() == model)
            }
            let check = try QEMU.check(path)
            #expect(check.status == 0, "\(check.text)")
            #expect(try QEMU.contents(path) == model)
            #expect(try QEMU.contents(path, "-l", "before") == before)
        }
    }
}
