import GuestMemory
import HostInterface
import Platform
import Testing
import VirtualCPU
import X86

@Suite struct LoaderTests {
    static let packers: [(name: String, pack: @Sendable ([UInt8]) -> [UInt8])] = [
        ("gzip", Pack.gzip), ("zstd", Pack.zstd), ("xz", Pack.xz), ("lz4", Pack.lz4),
        ("stored", { $0 }),
    ]

    @Test(arguments: packers.indices) func unpacksAndEntersBzImage(_ index: Int) throws {
        let bench = try Bench()
        let relocations = [UInt8](repeating: 0, count: 64)
        let entry = try bench.load(
            Synthetic.bzImage(payload: Self.packers[index].pack(Synthetic.vmlinux() + relocations)))
        #expect(entry.mode == .long)
        #expect(entry.entry == 0x100_0010)
        #expect(entry.kernel == 0x100_0000..<0x120_1000)
        #expect(try bench.bytes(0x100_0000, 3000) == Synthetic.text)
        #expect(try bench.bytes(0x120_0000, 4) == [1, 2, 3, 0])
    }

    /// More than one chunk of 8 MiB.
    @Test func unpacksLongLZ4() throws {
        let bench = try Bench()
        let long = Synthetic.vmlinux(extra: [
            .init(
                virtual: Synthetic.kernelMap + 0x200_0000, physical: 0x200_0000,
                bytes: (0..<(9 << 20)).map { UInt8(truncatingIfNeeded: $0 >> 11) }, memoryBytes: 9 << 20)
        ])
        _ = try bench.load(Synthetic.bzImage(payload: Pack.lz4(long)))
        #expect(
            try bench.read(0x200_0000 + 0x88_0000 as UInt64, as: UInt8.self)
                == UInt8(truncatingIfNeeded: 0x88_0000 >> 11))
    }

    @Test func fillsTheZeroPage() throws {
        let bench = try Bench(mebibytes: 64)
        let initrd: [UInt8] = (0..<5000).map { UInt8(truncatingIfNeeded: $0) }
        let entry = try bench.load(
            Synthetic.bzImage(payload: Pack.zstd(Synthetic.vmlinux())), initrd: initrd, commandLine: "a=b ro")
        let page = entry.argument
        #expect(try bench.read(page + 0x1fe) == UInt16(0xaa55))
        #expect(try bench.bytes(page + 0x202, 4) == Array("HdrS".utf8))
        #expect(try bench.read(page + 0x210) == UInt8(0xff))
        #expect(try bench.read(page + 0x070) == UInt64(0xf_0000))
        #expect(try bench.read(page + 0x1ef) == UInt8(0), "a sentinel that is not 0 makes the kernel clear the page")
        #expect(try bench.text(UInt64(try bench.read(page + 0x228, as: UInt32.self))) == "a=b ro")
        let address = UInt64(try bench.read(page + 0x218, as: UInt32.self))
        #expect(address == 64 << 20 - 8192, "as high as possible, on a page")
        #expect(try bench.read(page + 0x21c) == UInt32(5000))
        #expect(try bench.bytes(address, 5000) == initrd)
        #expect(entry.initrd == address..<address + 5000)

        let count = Int(try bench.read(page + 0x1e8, as: UInt8.self))
        var map: [[UInt64]] = []
        for index in 0..<UInt64(count) {
            let base = page + 0x2d0 + index * 20
            map.append([
                try bench.read(base), try bench.read(base + 8), UInt64(try bench.read(base + 16, as: UInt32.self)),
            ])
        }
        #expect(map == [[0, 0x9_fc00, 1], [0x9_fc00, 0x400, 2], [0xe_0000, 0x2_0000, 2], [0x10_0000, 63 << 20, 1]])
    }

    @Test func mapsMemoryAboveTheHole() throws {
        let memory = try GuestMemory(byteCount: 5 << 30)
        let map = MemoryRange.map(of: memory)
        #expect(map.suffix(2) == [MemoryRange(0x10_0000..<3 << 30, .ram), MemoryRange(4 << 30..<6 << 30, .ram)])
        #expect(zip(map, map.dropFirst()).allSatisfy { $0.start + $0.byteCount <= $1.start })
    }

    @Test func keepsOffWhatOthersSee() throws {
        let memory = try GuestMemory(byteCount: 64 << 20)
        let region = try SharedRegion(name: "shared", byteCount: 2 << 20)
        try memory.map(region, at: GuestPhysicalAddress(60 << 20))
        #expect(
            MemoryRange.map(of: memory).suffix(3) == [
                MemoryRange(0x10_0000..<60 << 20, .ram), MemoryRange(60 << 20..<62 << 20, .reserved),
                MemoryRange(62 << 20..<64 << 20, .ram),
            ])
        let kernel = Synthetic.bzImage(payload: Pack.gzip(Synthetic.vmlinux()))
        let source = BootSource(kernel: kernel, kernelName: "k", initrd: [UInt8](repeating: 1, count: 3 << 20))
        let entry = try loadKernel(source, into: memory, rsdp: GuestPhysicalAddress(0))
        #expect(entry.initrd == 57 << 20..<60 << 20, "not in the smaller piece above")

        let other = try GuestMemory(byteCount: 64 << 20)
        try other.map(region, at: GuestPhysicalAddress(entry.kernel.lowerBound))
        let error = #expect(throws: HostError.self) {
            try loadKernel(source, into: other, rsdp: GuestPhysicalAddress(0))
        }
        #expect(error?.description.contains("over the region at") == true)
    }

    @Test func respectsTheInitrdLimit() throws {
        let bench = try Bench(mebibytes: 128)
        let kernel = Synthetic.bzImage(payload: Pack.gzip(Synthetic.vmlinux())) {
            $0.put(UInt32(0x37f_ffff), at: 0x22c)
        }
        #expect(try bench.load(kernel, initrd: [1, 2, 3]).initrd == 0x37f_f000..<0x37f_f003)
    }

    @Test func startsTheKernelsOwnDecompressor() throws {
        let bench = try Bench()
        for magic: [UInt8] in [[0x42, 0x5a, 0x68], [0x5d, 0, 0], [0x89, 0x4c, 0x5a, 0x4f]] {
            let kernel = Synthetic.bzImage(payload: magic + Synthetic.text) { $0.put(UInt64(0xf0_1000), at: 0x258) }
            let entry = try bench.load(kernel)
            #expect(entry.entry == 0x100_0200, "the preferred address, rounded up to the alignment, and 0x200")
            #expect(entry.kernel == 0x100_0000..<0x140_0000, "init_size counts")
            #expect(try bench.bytes(0x100_0600, magic.count) == magic)
            #expect(try bench.read(entry.argument + 0x214) == UInt32(0x100_0000))
        }
        let forced = try bench.load(Synthetic.bzImage(payload: Pack.xz(Synthetic.vmlinux())), .decompressor)
        #expect(forced.entry == 0x100_0200)
        let fixed = Synthetic.bzImage(payload: [0x5d, 0, 0] + Synthetic.text) { $0[0x234] = 0 }
        #expect(try bench.load(fixed).entry == 0x10_0200)
    }

    @Test func entersVmlinux() throws {
        let bench = try Bench()
        let entry = try bench.load(Synthetic.vmlinux())
        #expect(entry.mode == .long && entry.entry == 0x100_0010)
        #expect(try bench.bytes(entry.argument + 0x202, 4) == Array("HdrS".utf8))
    }

    @Test func choosesAmongTwoEntries() throws {
        let both = Synthetic.vmlinux(extra: [Synthetic.pvhNote(entry: 0x100_0020)])
        let bench = try Bench()
        #expect(try bench.load(both).mode == .long)
        let forced = try bench.load(both, .pvh)
        #expect(forced.mode == .protected && forced.entry == 0x100_0020)
        #expect(
            bench.refusal(both, .multiboot)
                == "cannot boot dir/kernel: it has no entry for the multiboot protocol (leave the protocol to be found)"
        )
    }

    @Test func entersABzImagesKernelByPVH() throws {
        let kernel = Synthetic.vmlinux(extra: [Synthetic.pvhNote(entry: 0x100_0020)])
        let bench = try Bench()
        let image = Synthetic.bzImage(payload: Pack.lz4(kernel))
        #expect(try bench.load(image).mode == .long)
        let entry = try bench.load(image, initrd: [1, 2], commandLine: "x", .pvh)
        #expect(entry.mode == .protected && entry.entry == 0x100_0020)
        #expect(try bench.read(entry.argument) == UInt32(0x336e_c578))
        #expect(
            bench.refusal(Synthetic.bzImage(payload: Pack.lz4(Synthetic.vmlinux())), .pvh)
                == "cannot boot dir/kernel: it has no PVH entry (pass a kernel with CONFIG_PVH, or do without --xen)")
        #expect(
            bench.refusal(Synthetic.bzImage(payload: [0x42, 0x5a, 0x68] + Synthetic.text), .pvh)
                .contains("a method that only it knows"))
    }

    /// A kernel that looks for free addresses, to see others' pages at, is not to look among the devices.
    @Test func whereOthersPagesMayComeTheDeviceHoleIsReserved() throws {
        for size: UInt64 in [64 << 20, 3 << 30, 5 << 30] {
            let windows = MemoryMap.foreignWindows(ramBytes: size)
            let map = MemoryRange.map(of: try GuestMemory(byteCount: size, foreignWindows: windows))
            #expect(map.contains(MemoryRange(0xd000_0000..<0x1_0000_0000, .reserved)))
            #expect(map.map(\.start) == map.map(\.start).sorted())
            for window in windows {
                #expect(
                    map.allSatisfy { $0.kind == .reserved || !($0.start..<$0.start + $0.byteCount).overlaps(window) })
            }
            #expect(!MemoryRange.map(of: try GuestMemory(byteCount: size)).contains { $0.start == 0xd000_0000 })
        }
    }

    @Test(arguments: [true, false]) func entersPVH(wide: Bool) throws {
        let bench = try Bench()
        let segment = Synthetic.Segment(
            virtual: 0x20_0000, physical: 0x20_0000, bytes: Synthetic.text, memoryBytes: 8192)
        let segments = [segment, Synthetic.pvhNote(entry: 0x20_0100)]
        let kernel = wide ? Synthetic.elf64(entry: 0x20_0000, segments) : Synthetic.elf32(entry: 0x20_0000, segments)
        let entry = try bench.load(kernel, initrd: [7, 8, 9], commandLine: "x")
        #expect(entry.mode == .protected && entry.entry == 0x20_0100 && entry.magic == 0)
        let info = entry.argument
        #expect(try bench.read(info) == UInt32(0x336e_c578))
        #expect(try bench.read(info + 4) == UInt32(1))
        #expect(try bench.read(info + 12) == UInt32(1))
        let modules: UInt64 = try bench.read(info + 16)
        #expect(try bench.bytes(try bench.read(modules), 3) == [7, 8, 9])
        #expect(try bench.read(modules + 8) == UInt64(3))
        #expect(try bench.text(try bench.read(info + 24)) == "x")
        #expect(try bench.read(info + 32) == UInt64(0xf_0000))
        let map: UInt64 = try bench.read(info + 40)
        #expect(try bench.read(info + 48) == UInt32(4))
        #expect(try bench.read(map + 3 * 24) == UInt64(0x10_0000))
        #expect(try bench.read(map + 3 * 24 + 8) == UInt64(63 << 20))
        #expect(try bench.read(map + 3 * 24 + 16) == UInt32(1))
    }

    @Test func entersMultibootELF() throws {
        let bench = try Bench()
        let entry = try bench.load(Synthetic.multiboot(), initrd: [5, 6], commandLine: "one two")
        #expect(entry.mode == .protected && entry.entry == 0x40_000c && entry.magic == 0x2bad_b002)
        let info = entry.argument
        let flags: UInt32 = try bench.read(info)
        #expect(flags & 0b100_1101 == 0b100_1101)
        #expect(try bench.read(info + 8) == UInt32(63 << 10))
        #expect(try bench.text(UInt64(try bench.read(info + 16, as: UInt32.self))) == "kernel one two")
        let modules = UInt64(try bench.read(info + 24, as: UInt32.self))
        #expect(try bench.read(modules) == UInt32(0x40_4000), "right above the kernel")
        #expect(try bench.read(modules + 4) == UInt32(0x40_4002))
        #expect(try bench.text(UInt64(try bench.read(modules + 8, as: UInt32.self))) == "ramdisk")
        #expect(try bench.bytes(0x40_4000, 2) == [5, 6])
        let map = UInt64(try bench.read(info + 48, as: UInt32.self))
        #expect(try bench.read(info + 44) == UInt32(4 * 24))
        #expect(try bench.read(map) == UInt32(20))
        #expect(try bench.read(map + 4 + 8) == UInt64(0x9_fc00))
    }

    @Test func entersMultibootByAddresses() throws {
        let bench = try Bench()
        let entry = try bench.load(Synthetic.flatMultiboot())
        #expect(entry.entry == 0x10_0030 && entry.kernel == 0x10_0000..<0x11_0000)
        #expect(try bench.bytes(0x10_0000, 3) == [0xee, 0xee, 0xee])
        #expect(try bench.read(0x10_0010) == UInt32(0x1bad_b002))
    }

    @Test func setsLongModeUp() throws {
        let bench = try Bench()
        let entry = try bench.load(Synthetic.vmlinux())
        var state = VCPUState()
        entry.apply(to: &state)
        #expect(state.rip == 0x100_0010 && state.gpr[Register.rsi] == entry.argument)
        #expect(state.rflags == RFlags.alwaysOne, "interrupts off")
        #expect(state.efer == EFER.longModeEnable | EFER.longModeActive)
        #expect(state.cr0 & (CR0.paging | CR0.protectedMode) == CR0.paging | CR0.protectedMode)
        #expect(state.cr4 & CR4.physicalAddressExtension != 0)
        let code = state.segments[SegmentName.cs], data = state.segments[SegmentName.ds]
        #expect(code.selector == 0x10 && code.isLong && code.isCode && !code.isDefaultBig)
        #expect(data.selector == 0x18 && data.isWritableData && data.limit == .max)
        // The descriptors in memory say what the registers hold.
        #expect(try bench.read(state.gdtr.base + 0x10) == UInt64(0x00af_9b00_0000_ffff))
        #expect(try bench.read(state.gdtr.base + 0x18) == UInt64(0x00cf_9300_0000_ffff))
        // Every address below 4 GiB is mapped to itself.
        for address: UInt64 in [0, 0x10_0000, 0x8_8000, 0xbfff_ffff, 0xfee0_0000, 0xffff_ffff] {
            let directory = try bench.read(state.cr3 + (address >> 39) * 8, as: UInt64.self)
            let table = try bench.read(directory & ~0xfff + (address >> 30 & 511) * 8, as: UInt64.self)
            let leaf = try bench.read(table & ~0xfff + (address >> 21 & 511) * 8, as: UInt64.self)
            #expect(directory & 3 == 3 && table & 3 == 3 && leaf & 0x83 == 0x83)
            #expect(leaf & ~0x1f_ffff == address & ~0x1f_ffff)
        }
    }

    @Test func setsProtectedModeUp() throws {
        let bench = try Bench()
        let entry = try bench.load(Synthetic.multiboot())
        var state = VCPUState()
        entry.apply(to: &state)
        #expect(state.gpr[Register.rax] == 0x2bad_b002 && state.gpr[Register.rbx] == entry.argument)
        #expect(state.cr0 == CR0.protectedMode | CR0.extensionType && state.cr4 == 0 && state.efer == 0)
        let code = state.segments[SegmentName.cs]
        #expect(code.isCode && code.isDefaultBig && !code.isLong && code.base == 0 && code.limit == .max)
        #expect(state.tr.limit == 0x67 && state.tr.type == SystemSegmentType.tssBusy)
        #expect(state.mxcsr == 0x1f80, "what no protocol names stays as RESET left it")
    }
}
