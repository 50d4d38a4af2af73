import CPUOracle
import Testing

@Suite struct InstructionGeneratorTests {
    static let forms = InstructionForms()

    @Test func findsTheInstructionsThereAre() {
        let forms = Self.forms
        for row in forms.countsBySet { print("\(row.set): \(row.forms) forms of \(row.definitions) instructions") }
        print(
            "\(forms.all.count) forms of \(forms.groups.count) instructions, \(Set(forms.all.map(\.name)).count) mnemonics"
        )
        #expect(forms.groups.count >= 1500)
        let names = Set(forms.all.map(\.name))
        for name in [
            "add", "adc", "imul", "idiv", "shld", "bts", "cmpxchg16b", "xadd", "movsb", "scasq", "enter", "leave",
            "call", "ret",
            "jnz", "loopne", "jrcxz", "popfq", "lahf", "xlat", "bswap", "movbe", "crc32", "fsin", "fbstp", "fnsave",
            "emms",
            "pmaddwd", "maskmovdqu", "addsubps", "pcmpestri", "aesdec", "sha256rnds2", "vpgatherdd", "vfmadd231ps",
            "vperm2i128",
            "vcvtph2ps", "pdep", "andn", "adox", "lzcnt", "tzcnt", "popcnt", "ldmxcsr", "pclmulqdq", "ud2", "int3",
            "hlt", "in", "outsb", "lgdt", "wrmsr",
        ] { #expect(names.contains(name), "\(name)") }
        for name in ["syscall", "cpuid", "rdtsc", "iretq", "fxsave", "xsave", "wrfsbase", "sgdt", "sysenter", "int"] {
            #expect(!names.contains(name), "\(name)")
        }
    }

    /// What a user program may not do it gets #GP(0) for, or the fault of fetching the instruction.
    @Test func privilegedInstructionsAreRefused() {
        var generator = InstructionGenerator(
            forms: Self.forms, seed: 1, only: "hlt,in,out,cli,sti,lgdt,wrmsr,invlpg,swapgs,insb")
        let cases = (0..<2000).map { _ in generator.next().test }
        for (test, outcome) in zip(cases, HostCPU(image: MemoryImage(seed: 1)).run(cases)) {
            #expect(outcome.vector == 13 && outcome.errorCode == 0 || outcome.vector == 14, "\(test.codeBytes)")
        }
    }

    @Test func hostAgreesWithItself() {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("seed \(seed)")
        var generator = InstructionGenerator(forms: Self.forms, seed: seed)
        let cases = (0..<20_000).map { _ in generator.next() }
        let image = MemoryImage(seed: seed)
        let first = HostCPU(image: image).run(cases.map(\.test))
        let second = HostCPU(image: image).run(cases.map(\.test))
        var mismatches: [Mismatch] = []
        for index in cases.indices {
            if let found = compare(
                cases[index].test, cases[index].instruction, native: first[index], engine: second[index])
            {
                mismatches.append(found)
            }
        }
        #expect(mismatches.isEmpty, "\(summary(mismatches))")
        var vectors: [UInt64: Int] = [:]
        for outcome in first { vectors[outcome.vector, default: 0] += 1 }
        print("vectors \(vectors.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" })")
        // Most must go well, and every kind of fault must occur.
        #expect(vectors[3, default: 0] > 10_000)
        for vector: UInt64 in [0, 6, 12, 13, 14, 16, 17, 19] {
            #expect(vectors[vector, default: 0] > 0, "vector \(vector)")
        }
        #expect(vectors[Outcome.died] == nil && vectors[Outcome.timedOut] == nil)
    }
}
