import Glibc
import HostInterface
import Storage
import Testing

/// A writer that ends at any moment leaves an image that is sound, with all
/// that was flushed in it.
@Suite struct CrashTests {
    static let sectors = 8192

    /// What the guest does in its n-th step, by the seed alone.
    enum Step {
        case write(sector: Int, count: Int)
        case zero(sector: Int, count: Int)
        case flush

        init(_ generator: inout SeededGenerator) {
            let sector = Int(generator.next() % UInt64(sectors))
            let count = min(sectors - sector, Int(generator.next() % [8, 64, 512][Int(generator.next() % 3)]) + 1)
            switch generator.next() % 10 {
            case 0...5: self = .write(sector: sector, count: count)
            case 6, 7: self = .zero(sector: sector, count: count)
            default: self = .flush
            }
        }
    }

    /// A sector that knows which step wrote it; 0 is none.
    private static func sector(_ step: Int) -> [UInt8] {
        (0..<512).map { UInt8(truncatingIfNeeded: step >> (8 * ($0 & 3))) }
    }

    /// The child's part: one step after the other, and after each flush a note of how far it is.
    private static func write(_ path: String, seed: UInt64, notes: String, first: Int) throws {
        let image = try DiskImages.open(path: path)
        let note = try DiskFile(opening: notes, readOnly: false)
        var generator = SeededGenerator(seed: seed)
        for step in first... {
            if image.needsWriteBack { try image.writeBack() }
            switch Step(&generator) {
            case .write(let sector, let count):
                let bytes = Array([[UInt8]](repeating: Self.sector(step), count: count).joined())
                try image.store(bytes, at: UInt64(sector) * 512)
            case .zero(let sector, let count):
                try image.writeZeroes(UInt64(sector) * 512, count: UInt64(count) * 512, mayUnmap: step % 2 == 0)
            case .flush:
                try image.flush()
                try note.write(Array("\(step)\n".utf8), at: 0)
            }
        }
    }

    @Test(arguments: ["cluster_size=64k", "cluster_size=512", "cluster_size=4k,compat=0.10"])
    func killedAtAnyMoment(_ options: String) async throws {
        if !QEMU.isHere { print("skipped in part: \(QEMU.reason)") }
        let folder = try Files.createTemporaryFolder(beside: "/tmp/roost-crash")
        defer { Files.remove(folder) }
        let (path, notes) = (folder + "/disk", folder + "/notes")
        if QEMU.isHere {
            try QEMU.image("create", "-f", "qcow2", "-o", options, path, "\(Self.sectors * 512)")
        } else {
            var creation = DiskCreation(path: path)
            creation.byteCount = UInt64(Self.sectors) * 512
            try creation.run()
        }
        // What each sector may be; one thing, but for what was on its way.
        var possible = [Set<Int>](repeating: [0], count: Self.sectors)
        var first = 1
        for _ in 0..<6 {
            let seed = UInt64.random(in: 0...UInt64.max)
            let microseconds = UInt32.random(in: 1000...80_000)
            try Files.writeAtomically(Array("\(first - 1)\n".utf8), to: notes)
            await #expect(processExitsWith: .signal(SIGKILL)) {
                [
                    path = path as String, notes = notes as String, seed = seed as UInt64, first = first as Int,
                    microseconds = microseconds as UInt32
                ] in
                let killer = try HostThread(name: "killer") {
                    usleep(microseconds)
                    kill(getpid(), SIGKILL)
                }
                try Self.write(path, seed: seed, notes: notes, first: first)
                killer.join()
            }
            let text = String(decoding: try readFile(notes), as: UTF8.self)
            let flushed = try #require(text.split(separator: "\n").first.flatMap { Int($0) })
            // Through the next flush it may have come, and no further: then it would have left a note.
            var generator = SeededGenerator(seed: seed)
            var step = first
            var isOver = false
            while !isOver {
                switch Step(&generator) {
                case .write(let sector, let count):
                    for index in sector..<sector + count {
                        if step <= flushed { possible[index] = [step] } else { possible[index].insert(step) }
                    }
                case .zero(let sector, let count):
                    for index in sector..<sector + count {
                        if step <= flushed { possible[index] = [0] } else { possible[index].insert(0) }
                    }
                case .flush: isOver = step > flushed
                }
                step += 1
            }
            first = step + 1
            if QEMU.isHere {
                let check = try QEMU.check(path)
                #expect(check.status == 0 || check.status == 3, "seed \(seed), \(microseconds) µs: \(check.text)")
            }
            let image = try DiskImages.open(path: path, readOnly: true)
            let bytes = try image.everything()
            var wrong: [Int] = []
            for index in 0..<Self.sectors {
                let sector = Array(bytes[index * 512..<index * 512 + 512])
                let step = (0..<4).reduce(0) { $0 | Int(sector[$1]) << (8 * $1) }
                if !possible[index].contains(step) || sector != Self.sector(step) { wrong.append(index) }
                possible[index] = [step]
            }
            #expect(wrong.isEmpty, "seed \(seed), \(microseconds) µs, flushed \(flushed): sectors \(wrong.prefix(10))")
        }
    }

    /// A disk that is full, as RLIMIT_FSIZE makes it: the writes fail, the image does not.
    @Test(arguments: [1 << 20, 3 << 20 + 12345, 7 << 20]) func aFullDisk(_ limit: Int) async throws {
        let folder = try Files.createTemporaryFolder(beside: "/tmp/roost-full")
        defer { Files.remove(folder) }
        let path = folder + "/disk"
        var creation = DiskCreation(path: path)
        creation.byteCount = 64 << 20
        try creation.run()
        await #expect(processExitsWith: .success) {
            [path = path as String, limit = limit as Int] in
            var bounds = rlimit(rlim_cur: rlim_t(limit), rlim_max: rlim_t(limit))
            unsafe #expect(setrlimit(__rlimit_resource_t(1), &bounds) == 0)  // RLIMIT_FSIZE
            let image = try DiskImages.open(path: path)
            var stored: [Int] = []
            var failures = 0
            for index in 0..<200 {
                let block = index * 37 % 200
                do {
                    try image.store(
                        [UInt8](repeating: UInt8(block + 1), count: 100 << 10), at: UInt64(block) * (200 << 10))
                    stored.append(block)
                } catch let error as Errno {
                    #expect(error.rawValue == EFBIG)
                    failures += 1
                }
                if index % 10 == 0 { try image.flush() }
            }
            try image.flush()
            #expect(failures > 0 && !stored.isEmpty)
            // What was stored can be read, and written again where it is.
            for block in stored {
                let offset = UInt64(block) * (200 << 10)
                #expect(try image.read(offset, count: 100 << 10).allSatisfy { $0 == UInt8(block + 1) })
                try image.store([UInt8(block + 1)], at: offset)
            }
        }
        if QEMU.isHere {
            let check = try QEMU.check(path)
            #expect(check.status == 0, "\(check.text)")
        }
    }
}
