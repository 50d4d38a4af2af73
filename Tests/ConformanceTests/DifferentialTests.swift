import CPUOracle
import EngineTesting
import Glibc
import GuestMemory
import Testing
import VirtualCPU
import X86

/// `ROOST_SEED`, `ROOST_CASES`: another stream of cases, a longer one.
/// `ROOST_ONLY='shld,pcmp*,BMI1'`: those mnemonics and instruction sets alone.
enum DifferentialSettings {
    static func variable(_ name: String) -> String? { unsafe getenv(name).map { unsafe String(cString: $0) } }
    static var seed: UInt64 { variable("ROOST_SEED").flatMap { UInt64($0) } ?? UInt64.random(in: 0..<1 << 48) }
    /// For each engine; the Translator is two, with exact flags and without.
    static var cases: Int { variable("ROOST_CASES").flatMap { Int($0) } ?? 150_000 }
    /// Every tenth case is a sequence; it takes about ten times as long to make.
    static var sequences: Int { max(1, cases / 10) }
    /// `ROOST_REPORT=FILE`: all mismatches go there in full.
    static var report: String? { variable("ROOST_REPORT") }
    /// `ROOST_TRACE=FILE`: has the case that is being run, should it take the process with it. Slow.
    static let trace = variable("ROOST_TRACE")
    static var only: String { variable("ROOST_ONLY") ?? "" }
}

@Suite(.serialized) struct DifferentialTests {
    /// Sanity of the adapter: with the host behind it, everything it carries must come through.
    @Test func adapterCarriesEverything() throws {
        let seed = DifferentialSettings.seed
        print("seed \(seed)")
        let image = MemoryImage(seed: seed)
        let memory = try GuestCPU.makeMemory()
        let vcpu = HostPlayedVCPU(memory: memory, host: HostCPU(image: image))
        let guest = try GuestCPU(engine: vcpu, memory: memory, image: image)
        let host = HostCPU(image: image)
        var generator = InstructionGenerator(forms: InstructionForms(), seed: seed)
        var mismatches: [Mismatch] = []
        for _ in 0..<3000 {
            let (test, instruction) = generator.next()
            vcpu.current = test
            let native = host.run(test)
            if native.changeCount > 96 { continue }  // more than the stand-in is told
            let found = compare(test, instruction, native: native, engine: guest.run(test))
            if let found { mismatches.append(found) }
        }
        #expect(mismatches.isEmpty, "\(summary(mismatches))")
    }

    @Test(.everyEngine) func engineAgreesWithTheHost() throws {
        let memory = try GuestCPU.makeMemory()
        try compareWithHost(try TestedEngine.current.makeVCPU(memory, VCPURequests(), nil), memory)
    }

    private func compareWithHost(_ engine: some VCPU, _ memory: GuestMemory) throws {
        let seed = DifferentialSettings.seed, count = DifferentialSettings.cases
        print("\(type(of: engine).engineName): \(count) cases from ROOST_SEED=\(seed)")
        let image = MemoryImage(seed: seed)
        let guest = try GuestCPU(engine: engine, memory: memory, image: image)
        let host = HostCPU(image: image)
        var generator = InstructionGenerator(forms: InstructionForms(), seed: seed, only: DifferentialSettings.only)
        var mismatches: [Mismatch] = []
        var failures = 0, done = 0
        while done < count {
            let batch = (0..<min(HostCPU.batchSize, count - done)).map { _ in generator.next() }
            let natives = host.run(batch.map(\.test))
            for (index, (test, instruction)) in batch.enumerated() {
                if let trace = DifferentialSettings.trace { try save(Mismatch.describe(test), trace) }
                guard
                    let found = compare(test, instruction, native: natives[index], engine: guest.run(test))
                else { continue }
                if !TestedEngine.current.exactFaultFlags && found.isFlagsOfFaultOnly { continue }
                failures += 1
                if mismatches.count < 20_000 { mismatches.append(found) }
            }
            done += batch.count
        }
        if let path = DifferentialSettings.report { try save(summary(mismatches, shown: 5, groups: .max), path) }
        #expect(failures == 0, "\(failures) of \(count) cases from ROOST_SEED=\(seed):\n\(summary(mismatches))")
    }

    /// What a single instruction cannot show: one instruction's results in the hands of the next.
    @Test(.everyEngine) func sequencesAgreeWithTheHost() throws {
        let seed = DifferentialSettings.seed, count = DifferentialSettings.sequences
        let memory = try GuestCPU.makeMemory()
        let vcpu = try TestedEngine.current.makeVCPU(memory, VCPURequests(), nil)
        print("\(TestedEngine.current.name): \(count) sequences from ROOST_SEED=\(seed)")
        let image = MemoryImage(seed: seed)
        let guest = try GuestCPU(engine: vcpu, memory: memory, image: image)
        let host = HostCPU(image: image)
        var generator = SequenceGenerator(
            forms: InstructionForms(), seed: seed, only: DifferentialSettings.only, host: host)
        var mismatches: [Mismatch] = []
        var failures = 0, done = 0, instructions = 0
        while done < count {
            let batch = generator.next(min(HostCPU.batchSize, count - done))
            for sequence in batch {
                instructions += sequence.count
                guard let found = sequence.compare(on: guest, with: host) else { continue }
                if !TestedEngine.current.exactFaultFlags && found.isFlagsOfFaultOnly { continue }
                failures += 1
                if mismatches.count < 20_000 { mismatches.append(found) }
            }
            done += batch.count
        }
        print("\(instructions) instructions in \(done) sequences")
        #expect(instructions > done * 8, "\(instructions) instructions in \(done) sequences")
        if let path = DifferentialSettings.report { try save(summary(mismatches, shown: 5, groups: .max), path) }
        #expect(failures == 0, "\(failures) of \(count) sequences from ROOST_SEED=\(seed):\n\(summary(mismatches))")
    }

    private func save(_ text: String, _ path: String) throws {
        let file = unsafe fopen(path, "w")
        try #require(unsafe file != nil)
        unsafe fputs(text, file)
        unsafe fclose(file)
    }
}
