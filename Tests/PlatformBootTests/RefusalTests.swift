import GuestMemory
import Platform
import Testing

/// Bad files: one line, which names the file and says what to do.
@Suite struct RefusalTests {
    let bench: Bench
    init() throws { bench = try Bench() }

    private func expect(
        _ kernel: [UInt8], initrd: [UInt8]? = nil, commandLine: String = "", _ words: String...,
        name: String = "kernel", location: SourceLocation = #_sourceLocation
    ) {
        let line = bench.refusal(kernel, initrd: initrd, commandLine: commandLine)
        #expect(line.contains(name), sourceLocation: location)
        for word in words { #expect(line.contains(word), "\(line)", sourceLocation: location) }
        #expect(!line.contains("\n"), sourceLocation: location)
    }

    @Test func whatIsNoKernel() {
        expect([], "empty", "--kernel")
        expect([1, 2, 3], "3 bytes")
        expect([UInt8](repeating: 0x20, count: 5000), "not a kernel", "bzImage")
        expect([0x1f, 0x8b] + Synthetic.text, "gzip", "unpack")
        expect(Array("!<arch>\ndebian-binary".utf8) + Synthetic.text, "archive")
        expect(Array("070701".utf8) + Synthetic.text, "cpio", "--initrd")
        expect(Array("MZ".utf8) + Synthetic.text, "EFI")
        expect(Synthetic.elf64(entry: 0x1000, []), "no program headers")
        expect(
            Synthetic.elf64(entry: 0x1000, [.init(virtual: 0, physical: 0x40_0000, bytes: [1], memoryBytes: 1)]),
            "entry point is in none")
    }

    @Test func kernelsOfOtherMachines() {
        expect(Synthetic.vmlinux(machine: 183), "ARM64", "x86-64")
        expect(Synthetic.vmlinux(machine: 243), "RISC-V")
        var image = [UInt8](repeating: 0, count: 4096)
        image.replaceSubrange(0x38..<0x3c, with: Array("ARMd".utf8))
        expect(image, "ARM64")
        image = [UInt8](repeating: 0, count: 4096)
        image.put(UInt32(0x016f_2818), at: 0x24)
        expect(image, "ARM")
        var bigEndian = Synthetic.vmlinux()
        bigEndian[5] = 2
        expect(bigEndian, "big-endian")
        expect(Synthetic.bzImage(payload: Pack.gzip(Synthetic.vmlinux(machine: 183))), "ELF machine 183")
    }

    @Test func thirtyTwoBitKernels() {
        let payload = Pack.gzip(Synthetic.vmlinux())
        expect(Synthetic.bzImage(payload: payload) { $0.put(UInt16(0x7e), at: 0x236) }, "32-bit", "x86-64")
        // Before 2.12 the header does not say: the payload does.
        let old = Pack.gzip(
            Synthetic.elf32(entry: 0x100_0000, [.init(virtual: 0, physical: 0x100_0000, bytes: [1], memoryBytes: 1)]))
        expect(Synthetic.bzImage(payload: old) { $0.put(UInt16(0x20a), at: 0x206) }, "32-bit")
        expect(
            Synthetic.bzImage(payload: [0x5d, 0, 0] + Synthetic.text) { $0.put(UInt16(0x20a), at: 0x206) },
            "no 64-bit entry")
        expect(
            Synthetic.elf32(entry: 0x100_0000, [.init(virtual: 0, physical: 0x100_0000, bytes: [1], memoryBytes: 1)]),
            "32-bit ELF")
        expect(Synthetic.bzImage(payload: payload) { $0[0x211] = 0 }, "zImage")
    }

    @Test func corruptPayloads() {
        for (name, pack) in LoaderTests.packers where name != "stored" {
            let packed = pack(Synthetic.vmlinux())
            var damaged = packed
            // lz4's legacy format has no checksum: only its structure can be seen to be wrong.
            let place = name == "lz4" ? 5 : damaged.count / 2
            for index in place..<place + 16 { damaged[index] ^= 0x5a }
            expect(Synthetic.bzImage(payload: damaged), name, "corrupt", "fetch it again")
            var wrongSize = packed
            wrongSize.put(UInt32(Synthetic.vmlinux().count + 1), at: wrongSize.count - 4)
            expect(Synthetic.bzImage(payload: wrongSize), name, "corrupt")
            wrongSize.put(UInt32(100), at: wrongSize.count - 4)
            expect(Synthetic.bzImage(payload: wrongSize), name, "corrupt")
            wrongSize.put(UInt32.max, at: wrongSize.count - 4)
            expect(Synthetic.bzImage(payload: wrongSize), name, "corrupt", "claims")
        }
        var longChunk = Pack.lz4(Synthetic.vmlinux())
        longChunk.put(UInt32(9 << 20), at: 4)
        expect(Synthetic.bzImage(payload: longChunk), "lz4", "cut short")
        longChunk.insert(contentsOf: [UInt8](repeating: 0, count: 9 << 20), at: 100)
        expect(Synthetic.bzImage(payload: longChunk), "lz4", "longer than")
        expect(Synthetic.bzImage(payload: Pack.zstd(Synthetic.text)), "corrupt", "no ELF")
        expect(Synthetic.bzImage(payload: Synthetic.text), "corrupt", "no known method")
    }

    @Test func truncatedFiles() {
        let kernel = Synthetic.bzImage(payload: Pack.zstd(Synthetic.vmlinux()))
        // Every header field begins or ends at one of these.
        for count in Array(0x1f1...0x400) + [0x500, 0xa00, kernel.count - 40] {
            expect(Array(kernel[..<count]), "cannot boot")
        }
        expect(Array(kernel[..<0x210]), "cut short")
        expect(Array(kernel[..<(kernel.count - 40)]), "cut short", "fetch it again")
        let unpackable = Synthetic.bzImage(payload: [0x5d, 0, 0] + Synthetic.text)
        expect(Array(unpackable[..<(unpackable.count - 100)]), "cut short")
        for whole in [Synthetic.vmlinux(), Synthetic.multiboot()] {
            for count in Array(4..<300) + [1000, whole.count - 1] { expect(Array(whole[..<count]), "cannot boot") }
            expect(Array(whole[..<(whole.count - 1)]), "cut short")
        }
    }

    @Test func tooLittleMemory() throws {
        let small = try Bench(mebibytes: 16)
        #expect(
            small.refusal(Synthetic.vmlinux())
                == "cannot boot dir/kernel: it needs at least 19 MiB of memory, the guest has 16 MiB (pass --memory 19M or more)"
        )
        let decompressor = Synthetic.bzImage(payload: [0x5d, 0, 0] + Synthetic.text)
        #expect(small.refusal(decompressor).contains("at least 20 MiB"))
        _ = try Bench(mebibytes: 19).load(Synthetic.vmlinux())
    }

    @Test func initrdThatDoesNotFit() throws {
        expect(Synthetic.vmlinux(), initrd: [], "empty", "--initrd", name: "ramdisk")
        let initrd = [UInt8](repeating: 1, count: 60 << 20)
        expect(Synthetic.vmlinux(), initrd: initrd, "at least 79 MiB", "has 64 MiB", "--memory 79M", name: "ramdisk")
        expect(Synthetic.multiboot(), initrd: initrd, "at least 65 MiB", name: "ramdisk")
        _ = try Bench(mebibytes: 79).load(Synthetic.vmlinux(), initrd: initrd)
        let limited = Synthetic.bzImage(payload: Pack.gzip(Synthetic.vmlinux())) {
            $0.put(UInt32(0x1ff_ffff), at: 0x22c)
        }
        expect(limited, initrd: initrd, "only between 0x1201000 and 0x2000000", "smaller --initrd", name: "ramdisk")
    }

    @Test func tooLongACommandLine() throws {
        let long = String(repeating: "x", count: 2048)
        expect(Synthetic.vmlinux(), commandLine: long, "2048 bytes", "takes 2047", "--append")
        _ = try bench.load(Synthetic.vmlinux(), commandLine: String(long.dropLast()))
        let modest = Synthetic.bzImage(payload: Pack.gzip(Synthetic.vmlinux())) { $0.put(UInt32(255), at: 0x238) }
        expect(modest, commandLine: String(repeating: "x", count: 256), "takes 255")
        let generous = Synthetic.bzImage(payload: Pack.gzip(Synthetic.vmlinux())) { $0.put(UInt32.max, at: 0x238) }
        expect(generous, commandLine: String(repeating: "x", count: 4096), "takes 4095")
        expect(Synthetic.multiboot(), commandLine: String(repeating: "x", count: 4095), "takes 4095")
        expect(Synthetic.vmlinux(), commandLine: "a\0b", "NUL", name: "command line")
    }

    @Test func impossiblePlaces() {
        func elf(_ address: UInt64, _ count: UInt64) -> [UInt8] {
            Synthetic.elf64(
                entry: address, [.init(virtual: address, physical: address, bytes: [1], memoryBytes: count)])
        }
        expect(elf(0x8_0000, 16), "machine's own", "1 MiB")
        expect(elf(0xa_0000, 16), "machine's own")
        expect(elf(0x1000, 0x10_0000), "machine's own")
        expect(elf(1 << 40, 16), "no RAM")
        expect(elf(.max - 7, 16), "wraps")
        expect(elf(0x10_0000, .max), "wraps")
        expect(
            Synthetic.elf64(
                entry: 0x20_0000, [.init(virtual: 0, physical: 0x20_0000, bytes: [1, 2, 3], memoryBytes: 2)]),
            "larger in the file")
        expect(
            Synthetic.bzImage(payload: [0x5d, 0, 0] + Synthetic.text) { $0.put(UInt32(3), at: 0x230) },
            "impossible address")
        expect(
            Synthetic.bzImage(payload: [0x5d, 0, 0] + Synthetic.text) { $0.put(UInt64.max, at: 0x258) },
            "impossible address")
    }

    @Test func impossibleMultiboot() {
        func flat(_ flags: UInt32, _ addresses: [UInt32]) -> [UInt8] {
            Synthetic.multibootHeader(flags: flags, addresses: addresses) + Synthetic.text
        }
        expect(flat(1 << 16 | 8, [0x10_0000, 0x10_0000, 0, 0, 0x10_0000]), "demands")
        expect(flat(1 << 16, [0x10_0000, 0x10_0001, 0, 0, 0x10_0000]), "contradict")
        expect(flat(1 << 16, [0x20_0000, 0x10_0000, 0, 0, 0x10_0000]), "contradict")
        expect(flat(1 << 16, [0x10_0000, 0x10_0000, 0x20_0000, 0, 0x10_0000]), "cut short")
        expect(flat(1 << 16, [0x10_0000, 0x10_0000, 0, 0, 0x30_0000]), "contradict")
        expect(flat(0, []), "not an ELF")
        expect(Array(flat(1 << 16, [])[..<14]), "cut short")
    }
}
