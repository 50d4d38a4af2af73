import Glibc
import HostInterface
import Storage
import Testing

/// A folder of its own for a test, gone with it.
func withFolder<Result>(_ body: (String) throws -> Result) throws -> Result {
    let folder = try Files.createTemporaryFolder(beside: "/tmp/roost-storage")
    defer { Files.remove(folder) }
    return try body(folder)
}

/// qemu-img and qemu-io as judges, where they are.
enum QEMU {
    static let isHere =
        (try? Subprocess.run(["qemu-img", "--version"]))?.status == 0
        && (try? Subprocess.run(["qemu-io", "--version"]))?.status == 0
    static let reason: Comment = "this machine has no qemu-img and qemu-io (qemu-utils)"

    @discardableResult
    static func image(_ arguments: String..., at place: SourceLocation = #_sourceLocation) throws -> String {
        let result = try Subprocess.run(["timeout", "60", "qemu-img"] + arguments)
        #expect(result.status == 0, "\(arguments): \(result.errorText)", sourceLocation: place)
        return String(decoding: result.output, as: UTF8.self)
    }

    static func io(_ path: String, _ commands: String..., at place: SourceLocation = #_sourceLocation) throws {
        let result = try Subprocess.run(
            ["timeout", "60", "qemu-io", "-f", "qcow2"] + commands.flatMap { ["-c", $0] } + [path])
        #expect(result.status == 0, "\(commands): \(result.errorText)", sourceLocation: place)
    }

    /// What qemu-img reads in the image.
    static func contents(_ path: String, _ more: String...) throws -> [UInt8] {
        let copy = path + ".copy"
        defer { Files.remove(copy) }
        let result = try Subprocess.run(
            ["timeout", "60", "qemu-img", "convert", "-U", "-O", "raw"] + more + [path, copy])
        try #require(result.status == 0, "\(result.errorText)")
        return try readFile(copy)
    }

    /// 0 if the image is sound, 3 if it has leaks only.
    static func check(_ path: String) throws -> (status: Int32, text: String) {
        let result = try Subprocess.run(["timeout", "60", "qemu-img", "check", "-U", "-f", "qcow2", path])
        return (result.status, String(decoding: result.output, as: UTF8.self) + result.errorText)
    }
}

/// A block device's way with an image: all data goes by the extents.
extension DiskImage {
    func store(_ bytes: [UInt8], at offset: UInt64) throws {
        var extents: [Extent] = []
        try allocate(offset, count: bytes.count, into: &extents)
        #expect(extents.reduce(0) { $0 + $1.count } == bytes.count)
        var rest = bytes[...]
        for extent in extents {
            guard case .file(let descriptor, let place, let count) = extent else {
                Issue.record("an extent to write to is no file: \(extent)")
                return
            }
            let part = Array(rest.prefix(count))
            let written = unsafe pwrite(descriptor, part, count, off_t(place))
            guard written == count else { throw Errno.current }
            rest = rest.dropFirst(count)
        }
    }

    func flush() throws {
        try writeBack()
        #expect(fdatasync(descriptor) == 0)
    }

    func everything() throws -> [UInt8] { try read(0, count: Int(byteCount)) }
}

/// SplitMix64, so that a seed is all that it takes to see a failure again.
struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ mixed >> 30) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ mixed >> 27) &* 0x94d0_49bb_1331_11eb
        return mixed ^ mixed >> 31
    }

    mutating func bytes(_ count: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count + 8)
        while bytes.count < count { unsafe withUnsafeBytes(of: next()) { unsafe bytes.append(contentsOf: $0) } }
        return Array(bytes.prefix(count))
    }
}

func putBigEndian<T: FixedWidthInteger>(_ value: T, at offset: Int, in bytes: inout [UInt8]) {
    for index in 0..<MemoryLayout<T>.size {
        bytes[offset + index] = UInt8(truncatingIfNeeded: value >> T(8 * (MemoryLayout<T>.size - 1 - index)))
    }
}
