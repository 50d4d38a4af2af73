import CPUOracle
import Glibc
import HostInterface
import Testing
import Virtio
import VirtioTesting

/// Drivers made of noise: the host lives, and the device works for the next
/// driver. `ROOST_FUZZ_SEED` runs the one that a failure named, and
/// `ROOST_CASES` makes it more of them (a thousand for each 300 000).
@Suite struct NoiseTests {
    private static let rounds = max(100, (environmentVariable("ROOST_CASES").flatMap { Int($0) } ?? 0) / 300)
    private static let seeds: [UInt64] = {
        if let text = environmentVariable("ROOST_FUZZ_SEED"), let seed = UInt64(text, radix: 16) { return [seed] }
        let first = UInt64.random(in: 0 ... .max)
        return (0..<UInt64(rounds)).map { first &+ $0 }
    }()

    private static func script(_ seed: UInt64) -> DriverScript {
        var random = SeededGenerator(seed: seed)
        // What a driver must do first, and then what it likes.
        return DriverScript([0xff] + (0..<random.below(600)).map { _ in UInt8(truncatingIfNeeded: random.next()) })
    }

    @Test(arguments: TestedDevice.all)
    func devicesSurviveNoise(_ device: TestedDevice) throws {
        let driver = try GuestDriver(device)
        for seed in Self.seeds {
            var script = Self.script(seed)
            do {
                try script.run(on: driver, device)
                try driver.bringUp()
                try driver.perform(device.request, on: driver.queues[device.queue])
            } catch {
                Issue.record("seed \(String(seed, radix: 16)): \(error)")
                return
            }
        }
    }

    @Test func queuesSurviveNoise() throws {
        var breaches = 0
        for seed in Self.seeds {
            let queue = try BareQueue(size: 1 << UInt16(seed % 7))
            var script = Self.script(seed)
            do { if try script.run(on: queue) != nil { breaches += 1 } } catch {
                Issue.record("seed \(String(seed, radix: 16)): \(error)")
                return
            }
        }
        #expect(breaches > 0 || Self.seeds.count == 1)
    }
}

private func environmentVariable(_ name: String) -> String? {
    unsafe getenv(name).map { unsafe String(cString: $0) }
}
