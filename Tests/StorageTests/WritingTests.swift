import Glibc
import HostInterface
import Storage
import Testing

/// What is written is there, for us and for QEMU, and the image stays sound.
@Suite struct WritingTests {
    /// What an image is made like.
    struct Kind: CustomTestStringConvertible, Sendable {
        let options: String
        let backing: Bool
        var testDescription: String { options + (backing ? " with a backing file" : "") }
    }

    static let kinds: [Kind] = [
        "cluster_size=64k", "cluster_size=4k", "cluster_size=512,refcount_bits=64", "compat=0.10",
        "refcount_bits=1,cluster_size=8k", "cluster_size=2M",
    ].flatMap { [Kind(options: $0, backing: false), Kind(options: $0, backing: true)] }

    /// One step of a guest, upon the disk and upon the model.
    private func step(
        _ image: any DiskImage, _ model: inout [UInt8], _ generator: inout SeededGenerator, granularity: Int
    ) throws {
        let offset = Int(generator.next() % UInt64(model.count / 512)) * 512
        let most = [granularity, 4 * granularity, 300 << 10][Int(generator.next() % 3)]
        let count = min(model.count - offset, Int(generator.next() % UInt64(most / 512 + 1) + 1) * 512)
        switch generator.next() % 8 {
        case 0...3:
            let bytes = generator.bytes(count)
            if image.needsWriteBack { try image.writeBack() }
            try image.store(bytes, at: UInt64(offset))
            model.replaceSubrange(offset..<offset + count, with: bytes)
        case 4:
            try image.writeZeroes(UInt64(offset), count: UInt64(count), mayUnmap: generator.next() % 2 == 0)
            model.replaceSubrange(offset..<offset + count, with: repeatElement(0, count: count))
        case 5:
            // The disk may do it or not; the model learns which.
            try image.discard(UInt64(offset), count: UInt64(count))
            let now = try image.read(UInt64(offset), count: count)
            for index in 0..<count where now[index] != model[offset + index] {
                #expect(now[index] == 0)
                model[offset + index] = 0
            }
        case 6:
            try image.flush()
        default:
            #expect(try image.read(UInt64(offset), count: count) == Array(model[offset..<offset + count]))
        }
    }

    @Test(.enabled(if: QEMU.isHere, QEMU.reason), arguments: kinds)
    func random(_ kind: Kind) throws {
        let seed = environmentVariable("ROOST_SEED").flatMap { UInt64($0) } ?? .random(in: 0...UInt64.max)
        try withFolder { folder in
            var generator = SeededGenerator(seed: seed)
            let path = folder + "/disk.qcow2"
            let size = 8 << 20
            var model = [UInt8](repeating: 0, count: size)
            if kind.backing {
                // Shorter than the overlay, and compressed.
                let base = generator.bytes(5 << 20)
                try Files.writeAtomically(base, to: folder + "/base.raw")
                try QEMU.image("convert", "-c", "-O", "qcow2", folder + "/base.raw", folder + "/base.qcow2")
                model.replaceSubrange(0..<base.count, with: base)
                try QEMU.image(
                    "create", "-f", "qcow2", "-o", kind.options, "-b", "base.qcow2", "-F", "qcow2", path, "\(size)")
            } else {
                try QEMU.image("create", "-f", "qcow2", "-o", kind.options, path, "\(size)")
            }
            for round in 0..<3 {
                do {
                    let image = try DiskImages.open(path: path)
                    #expect(try image.everything() == model, "seed \(seed), round \(round), reopened")
                    for _ in 0..<60 { try step(image, &model, &generator, granularity: 64 << 10) }
                    #expect(try image.everything() == model, "seed \(seed), round \(round)")
                    try image.flush()
                }
                let check = try QEMU.check(path)
                #expect(check.status == 0, "seed \(seed), round \(round): \(check.text)")
                #expect(try QEMU.contents(path) == model, "seed \(seed), round \(round)")
                // A count of one bit cannot count a snapshot.
                if round == 1, !kind.options.contains("bits=1,") { try QEMU.image("snapshot", "-c", "half", path) }
            }
        }
    }

    /// The same without QEMU, on images of our own.
    @Test(arguments: [DiskFormat.raw, .qcow2]) func randomOnOurOwn(_ format: DiskFormat) throws {
        let seed = environmentVariable("ROOST_SEED").flatMap { UInt64($0) } ?? .random(in: 0...UInt64.max)
        try withFolder { folder in
            var generator = SeededGenerator(seed: seed)
            var creation = DiskCreation(path: folder + "/disk")
            creation.format = format
            creation.byteCount = 4 << 20
            try creation.run()
            var model = [UInt8](repeating: 0, count: 4 << 20)
            for round in 0..<4 {
                let image = try DiskImages.open(path: folder + "/disk")
                #expect(image.format == format)
                for _ in 0..<60 { try step(image, &model, &generator, granularity: 64 << 10) }
                #expect(try image.everything() == model, "seed \(seed), round \(round)")
                try image.flush()
            }
        }
    }

    /// What was freed is used again: a disk written over and over does not grow.
    @Test func freedClustersAreUsedAgain() throws {
        try withFolder { folder in
            var creation = DiskCreation(path: folder + "/disk")
            creation.byteCount = 4 << 20
            try creation.run()
            let image = try DiskImages.open(path: folder + "/disk")
            for round in 0..<10 {
                try image.store([UInt8](repeating: UInt8(round + 1), count: 2 << 20), at: UInt64(round % 2) << 21)
                try image.discard(UInt64(round % 2) << 21, count: 2 << 20)
                try image.flush()
            }
            let file = try DiskFile(opening: folder + "/disk", readOnly: true)
            #expect(try file.size() < 4 << 20)
            #expect(try file.allocatedSize() < 1 << 20)
        }
    }

    /// Past what the first refcount table counts, and on: with clusters of 512 bytes that is soon.
    @Test(.enabled(if: QEMU.isHere, QEMU.reason), arguments: ["refcount_bits=16", "refcount_bits=64"])
    func theRefcountTableGrows(_ bits: String) throws {
        try withFolder { folder in
            let path = folder + "/disk.qcow2"
            try QEMU.image("create", "-f", "qcow2", "-o", "cluster_size=512,\(bits)", path, "48M")
            do {
                let image = try DiskImages.open(path: path)
                for offset in stride(from: 0, to: 40 << 20, by: 1 << 20) {
                    if image.needsWriteBack { try image.flush() }
                    try image.store([UInt8](repeating: UInt8(offset >> 20 + 1), count: 1 << 20), at: UInt64(offset))
                }
                try image.flush()
            }
            let check = try QEMU.check(path)
            #expect(check.status == 0, "\(check.text)")
            let contents = try QEMU.contents(path)
            #expect((0..<48).allSatisfy { contents[$0 << 20 + 12345] == ($0 < 40 ? UInt8($0 + 1) : 0) })
        }
    }
}
