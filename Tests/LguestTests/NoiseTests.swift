import CPUOracle
import HostInterface
import LguestTesting
import Testing

/// Guests made of noise: what they do to their descriptor page and rings, and what they ask of their Host.
/// `ROOST_SEED` chooses them, `ROOST_CASES` makes it more (a thousand for each 300,000).
@Suite struct NoiseTests {
    private static let rounds = max(100, (environmentVariable("ROOST_CASES").flatMap { Int($0) } ?? 0) / 300)

    private func play(_ name: String, _ body: ([UInt8]) throws -> Void) {
        let seed = environmentVariable("ROOST_SEED").flatMap { UInt64($0) } ?? .random(in: 0 ... .max)
        print("NoiseTests, \(name): ROOST_SEED=\(seed)")
        var random = SeededGenerator(seed: seed)
        for round in 0..<Self.rounds {
            let bytes = (0..<100 + random.below(900)).map { _ in UInt8(truncatingIfNeeded: random.next() >> 17) }
            do { try body(bytes) } catch {
                Issue.record("seed \(seed), round \(round): \(error)")
                return
            }
        }
    }

    @Test func aNoisyDriverHurtsOnlyItself() {
        play("bus") { bytes in
            var script = BusScript(bytes)
            try script.run()
        }
    }

    @Test func noisyGuestsHurtOnlyThemselves() {
        play("calls") { bytes in
            var script = try CallScript(bytes)
            try script.run()
        }
    }
}
