import CPUOracle
import Glibc
import GuestMemory
import Testing
import VirtualCPU
import X86

/// `ROOST_SEED`, `ROOST_CASES`: another stream of cases, a longer one.
/// `ROOST_ONLY=shld` or `ROOST_ONLY='pcmp*'`: those mnemonics alone.
enum DifferentialSettings {
    static func variable(_ name: String) -> String? { unsafe getenv(name).map { unsafe String(cString: $0) } }
    static var seed: UInt64 { variable("ROOST_SEED").flatMap { UInt64($0) } ?? UInt64.random(in: 0..<1 << 48) }
    static var cases: Int { variable("ROOST_CASES").flatMap { Int($0) } ?? 300_000 }
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
}
