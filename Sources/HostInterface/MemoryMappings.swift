internal import CHost
internal import Glibc

/// A place in memory that can be mapped at several addresses, by several
/// processes: what is there is the same, whatever the address. As the key of a
/// futex(2) that is not private.
@frozen public struct MemoryPlace: Hashable, BitwiseCopyable, Sendable {
    public let device: UInt64
    public let inode: UInt64
    /// In bytes.
    public let offset: UInt64

    public init(device: UInt64, inode: UInt64, offset: UInt64) {
        (self.device, self.inode, self.offset) = (device, inode, offset)
    }
}

/// What this process has mapped at an address.
package struct MemoryMapping: Equatable, Sendable {
    package let addresses: Range<UInt>
    package let isReadable: Bool
    package let isWritable: Bool
    /// MAP_SHARED. Of these, where in the file it begins.
    package let place: MemoryPlace?

    /// The mappings that touch `range`, in order (proc_pid_maps(5)).
    package static func inside(_ range: Range<UInt>) throws(HostError) -> [MemoryMapping] {
        let text = String(decoding: try readProcFile("/proc/self/maps"), as: UTF8.self)
        return text.split(separator: "\n").compactMap { MemoryMapping(line: $0) }.filter {
            $0.addresses.overlaps(range)
        }
    }

    /// `start-end perms offset major:minor inode …`, all but the inode in hexadecimal.
    init?(line: Substring) {
        let words = line.split(separator: " ", maxSplits: 5)
        guard words.count >= 5 else { return nil }
        let ends = words[0].split(separator: "-").compactMap { UInt($0, radix: 16) }
        let device = words[3].split(separator: ":").compactMap { UInt64($0, radix: 16) }
        let flags = Array(words[1].utf8)
        guard ends.count == 2, ends[0] < ends[1], device.count == 2, flags.count == 4,
            let offset = UInt64(words[2], radix: 16), let inode = UInt64(words[4])
        else { return nil }
        addresses = ends[0]..<ends[1]
        isReadable = flags[0] == UInt8(ascii: "r")
        isWritable = flags[1] == UInt8(ascii: "w")
        place =
            flags[3] == UInt8(ascii: "s")
            ? MemoryPlace(device: device[0] << 32 | device[1], inode: inode, offset: offset) : nil
    }
}

extension MemoryFile {
    /// Where it begins, as `MemoryMapping` sees it.
    package var place: MemoryPlace {
        get throws(HostError) {
            var status = stat()
            guard unsafe fstat(descriptor.rawValue, &status) == 0 else {
                throw HostError("cannot tell one memory file from another", errno: .current)
            }
            // makedev(3)'s encoding, taken apart.
            let device = UInt64(status.st_dev)
            let major = (device >> 8) & 0xfff | (device >> 32) & ~0xfff
            let minor = device & 0xff | (device >> 12) & ~0xff
            return MemoryPlace(device: major << 32 | minor & 0xffff_ffff, inode: UInt64(status.st_ino), offset: 0)
        }
    }
}
