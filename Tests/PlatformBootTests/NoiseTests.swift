import GuestMemory
import Platform
import Testing

/// Files with noise in them: any answer is right, but there has to be one.
@Suite struct NoiseTests {
    @Test func survivesDamagedFiles() throws {
        let seed = UInt64.random(in: 0 ... .max)
        print("PlatformBoot noise: seed \(seed)")
        var random = SplitMix(state: seed)
        let bench = try Bench(mebibytes: 32)
        let pvh = Synthetic.elf64(
            entry: 0x20_0000,
            [
                .init(virtual: 0x20_0000, physical: 0x20_0000, bytes: Synthetic.text, memoryBytes: 8192),
                Synthetic.pvhNote(entry: 0x20_0100),
            ])
        let originals =
            LoaderTests.packers.map { Synthetic.bzImage(payload: $0.pack(Synthetic.vmlinux())) } + [
                Synthetic.bzImage(payload: [0x5d, 0, 0] + Synthetic.text), Synthetic.vmlinux(), pvh,
                Synthetic.multiboot(),
                Synthetic.flatMultiboot(),
            ]
        let preferences: [BootPreference] = [.automatic, .automatic, .linux, .pvh, .multiboot, .decompressor]
        var loaded = 0, refused = 0
        for round in 0..<4000 {
            var kernel = originals[round % originals.count]
            for _ in 0..<Int.random(in: 1...8, using: &random) {
                // Mostly in the headers.
                let limit = Bool.random(using: &random) ? min(kernel.count, 0x300) : kernel.count
                let index = Int.random(in: 0..<limit, using: &random)
                kernel[index] =
                    [0, 0xff, 0x7f, 0x80, UInt8.random(in: 0...255, using: &random)].randomElement(using: &random) ?? 0
            }
            if Int.random(in: 0..<8, using: &random) == 0 {
                kernel = Array(kernel[..<Int.random(in: 0...kernel.count, using: &random)])
            }
            let preference = preferences.randomElement(using: &random) ?? .automatic
            if bench.refusal(kernel, initrd: [1, 2, 3], preference).isEmpty { loaded += 1 } else { refused += 1 }
        }
        #expect(loaded > 100 && refused > 100, "noise that tries both ways: \(loaded) loaded, \(refused) refused")
    }

    @Test func survivesRandomBytes() throws {
        let seed = UInt64.random(in: 0 ... .max)
        print("PlatformBoot random bytes: seed \(seed)")
        var random = SplitMix(state: seed)
        let bench = try Bench(mebibytes: 16)
        for _ in 0..<500 {
            let count = Int.random(in: 0...4096, using: &random)
            let kernel = (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
            #expect(bench.refusal(kernel).hasPrefix("cannot boot dir/kernel: "))
        }
    }
}

struct SplitMix: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var value = state
        value = (value ^ value >> 30) &* 0xbf58_476d_1ce4_e5b9
        value = (value ^ value >> 27) &* 0x94d0_49bb_1331_11eb
        return value ^ value >> 31
    }
}
