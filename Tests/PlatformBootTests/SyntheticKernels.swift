import GuestMemory
import HostInterface
import Platform

/// Kernels made up for the tests: right in every field, and without a single instruction.
enum Synthetic {
    struct Segment {
        var virtual: UInt64
        var physical: UInt64
        var bytes: [UInt8]
        var memoryBytes: UInt64
        var type: UInt32 = 1
    }

    static let text: [UInt8] = (0..<3000).map { UInt8(truncatingIfNeeded: $0 * 7) }
    static let kernelMap: UInt64 = 0xffff_ffff_8000_0000

    static func elf64(entry: UInt64, machine: UInt16 = 62, _ segments: [Segment]) -> [UInt8] {
        var header: [UInt8] = [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1] + [UInt8](repeating: 0, count: 9)
        header += le(UInt16(2)) + le(machine) + le(UInt32(1)) + le(entry) + le(UInt64(64)) + le(UInt64(0))
        header += le(UInt32(0)) + le(UInt16(64)) + le(UInt16(56)) + le(UInt16(segments.count)) + [0, 0, 0, 0, 0, 0]
        var data: [UInt8] = []
        let start = 64 + 56 * segments.count
        for segment in segments {
            header += le(segment.type) + le(UInt32(5)) + le(UInt64(start + data.count)) + le(segment.virtual)
            header += le(segment.physical) + le(UInt64(segment.bytes.count)) + le(segment.memoryBytes) + le(UInt64(4))
            data += segment.bytes
        }
        return header + data
    }

    static func elf32(entry: UInt32, machine: UInt16 = 3, _ segments: [Segment]) -> [UInt8] {
        var header: [UInt8] = [0x7f, 0x45, 0x4c, 0x46, 1, 1, 1] + [UInt8](repeating: 0, count: 9)
        header += le(UInt16(2)) + le(machine) + le(UInt32(1)) + le(entry) + le(UInt32(52)) + le(UInt32(0))
        header += le(UInt32(0)) + le(UInt16(52)) + le(UInt16(32)) + le(UInt16(segments.count)) + [0, 0, 0, 0, 0, 0]
        var data: [UInt8] = []
        let start = 52 + 32 * segments.count
        for segment in segments {
            header +=
                le(segment.type) + le(UInt32(start + data.count)) + le(UInt32(truncatingIfNeeded: segment.virtual))
            header += le(UInt32(segment.physical)) + le(UInt32(segment.bytes.count)) + le(UInt32(segment.memoryBytes))
            header += le(UInt32(5)) + le(UInt32(4))
            data += segment.bytes
        }
        return header + data
    }

    /// Two segments, the second with a .bss; entered inside the first.
    static func vmlinux(machine: UInt16 = 62, extra: [Segment] = []) -> [UInt8] {
        elf64(
            entry: 0x100_0010, machine: machine,
            [
                Segment(virtual: kernelMap + 0x100_0000, physical: 0x100_0000, bytes: text, memoryBytes: 4096),
                Segment(virtual: kernelMap + 0x120_0000, physical: 0x120_0000, bytes: [1, 2, 3], memoryBytes: 0x1000),
            ] + extra)
    }

    static func pvhNote(entry: UInt32) -> Segment {
        // A note of another owner before it, as in life.
        let other = le(UInt32(6)) + le(UInt32(2)) + le(UInt32(0x100)) + Array("Linux\0\0\0".utf8) + [9, 9, 0, 0]
        let note = le(UInt32(4)) + le(UInt32(4)) + le(UInt32(18)) + Array("Xen\0".utf8) + le(entry)
        return Segment(virtual: 0, physical: 0, bytes: other + note, memoryBytes: 0, type: 4)
    }

    /// A bzImage of boot protocol 2.15 around a payload.
    static func bzImage(payload: [UInt8], edit: (inout [UInt8]) -> Void = { _ in }) -> [UInt8] {
        var setup = [UInt8](repeating: 0, count: 2 * 512)
        setup[0x1f1] = 1
        setup[0x200] = 0xeb
        setup[0x201] = 0x6a
        setup.put(UInt16(0xaa55), at: 0x1fe)
        setup.replaceSubrange(0x202..<0x206, with: Array("HdrS".utf8))
        setup.put(UInt16(0x20f), at: 0x206)
        setup[0x211] = 1
        setup.put(UInt32(0x10_0000), at: 0x214)
        setup.put(UInt32(0x7fff_ffff), at: 0x22c)
        setup.put(UInt32(0x20_0000), at: 0x230)
        setup[0x234] = 1
        setup[0x235] = 21
        setup.put(UInt16(0x7f), at: 0x236)
        setup.put(UInt32(2047), at: 0x238)
        setup.put(UInt32(0x600), at: 0x248)
        setup.put(UInt32(payload.count), at: 0x24c)
        setup.put(UInt64(0x100_0000), at: 0x258)
        setup.put(UInt32(0x40_0000), at: 0x260)
        var kernel = [UInt8](repeating: 0x90, count: 0x600) + payload
        kernel += [UInt8](repeating: 0, count: -kernel.count & 15)
        setup.put(UInt32(kernel.count / 16), at: 0x1f4)
        edit(&setup)
        return setup + kernel
    }

    /// The header in the segment's first bytes, which the file's first 8 KiB hold.
    static func multibootHeader(flags: UInt32, addresses: [UInt32] = []) -> [UInt8] {
        le(UInt32(0x1bad_b002)) + le(flags) + le(0 &- 0x1bad_b002 &- flags) + addresses.flatMap { le($0) }
    }

    static func multiboot() -> [UInt8] {
        let body = multibootHeader(flags: 3) + text
        return elf32(
            entry: 0x40_000c, [Segment(virtual: 0x40_0000, physical: 0x40_0000, bytes: body, memoryBytes: 0x4000)])
    }

    static func flatMultiboot() -> [UInt8] {
        // Loaded from the file's byte 16, where the address fields say.
        [UInt8](repeating: 0xee, count: 32)
            + multibootHeader(flags: 1 << 16, addresses: [0x10_0010, 0x10_0000, 0, 0x11_0000, 0x10_0030]) + text
    }
}

/// A machine to boot into.
struct Bench {
    let memory: GuestMemory
    init(mebibytes: UInt64 = 64) throws { memory = try GuestMemory(byteCount: mebibytes << 20) }

    func load(
        _ kernel: [UInt8], initrd: [UInt8]? = nil, commandLine: String = "console=ttyS0",
        _ preference: BootPreference = .automatic
    ) throws -> BootEntry {
        try loadKernel(
            BootSource(
                kernel: kernel, kernelName: "dir/kernel", initrd: initrd, initrdName: "ramdisk",
                commandLine: commandLine,
                preference: preference),
            into: memory, rsdp: ACPITables.rsdp)
    }

    func read<T: FixedWidthInteger & BitwiseCopyable>(_ address: UInt64, as type: T.Type = T.self) throws -> T {
        try memory.load(at: GuestPhysicalAddress(address), as: T.self)
    }

    func bytes(_ address: UInt64, _ count: Int) throws -> [UInt8] {
        try memory.read(GuestPhysicalAddress(address), count: count)
    }

    func text(_ address: UInt64) throws -> String {
        String(decoding: try bytes(address, 4096).prefix { $0 != 0 }, as: UTF8.self)
    }

    /// The one line with which loading fails; "" if it does not.
    func refusal(
        _ kernel: [UInt8], initrd: [UInt8]? = nil, commandLine: String = "", _ preference: BootPreference = .automatic
    ) -> String {
        do {
            _ = try load(kernel, initrd: initrd, commandLine: commandLine, preference)
            return ""
        } catch { return "\(error)" }
    }
}
