import HostInterface
import Synchronization
import Testing
import Virtio
import VirtioTesting

/// InterruptStatus and the line.
@Suite struct InterruptTests {
    @Test func lineIsHighUntilAllReasonsAreAcknowledged() throws {
        let device = EchoDevice()
        let driver = try GuestDriver(device)
        try driver.bringUp()
        #expect(!driver.interrupt.isHigh && driver.interruptReason == [])
        try driver.perform(.echo, on: driver.queues[0])
        #expect(driver.wait { driver.interrupt.isHigh })
        device.change(configuration: [9, 9])
        #expect(driver.interruptReason == [.usedBuffer, .configuration])
        driver.write(.interruptAcknowledge, InterruptReason.usedBuffer.rawValue)
        #expect(driver.interrupt.isHigh && driver.interruptReason == [.configuration])
        driver.write(.interruptAcknowledge, 0xffff_fffc)
        #expect(driver.interrupt.isHigh)
        driver.write(.interruptAcknowledge, InterruptReason.configuration.rawValue)
        #expect(!driver.interrupt.isHigh && driver.interruptReason == [])
    }

    @Test func aResetTakesTheLineDown() throws {
        let device = EchoDevice()
        let driver = try GuestDriver(device)
        try driver.bringUp()
        device.change(configuration: [1])
        #expect(driver.interrupt.isHigh)
        try driver.reset()
        #expect(!driver.interrupt.isHigh && driver.interruptReason == [])
    }

    @Test func nobodyIsInterruptedBeforeDriverOK() throws {
        let device = EchoDevice()
        let driver = try GuestDriver(device)
        try driver.bringUp()
        try driver.reset()
        device.change(configuration: [1])
        #expect(!driver.interrupt.isHigh && driver.interruptReason == [])
    }

    /// Whoever comes first: in the end the line says what the register says.
    @Test func lineAndRegisterAgreeUnderFire() throws {
        final class Fire: Sendable {
            let round = Atomic(0)
            let done = Atomic(0)
        }
        let device = EchoDevice()
        let driver = try GuestDriver(device)
        try driver.bringUp()
        let fire = Fire()
        let rounds = 30_000
        let gunner = try HostThread(name: "gunner") {
            for round in 1...rounds {
                while fire.round.load(ordering: .acquiring) < round {}
                device.change(configuration: [1])
                fire.done.store(round, ordering: .releasing)
            }
        }
        defer {
            fire.round.store(rounds, ordering: .releasing)
            gunner.join()
        }
        for round in 1...rounds {
            fire.round.store(round, ordering: .releasing)
            // A driver that polls sees the bit and takes it away as early as it can.
            while fire.done.load(ordering: .acquiring) < round {
                if driver.interruptReason != [] { driver.acknowledge() }
            }
            guard driver.interrupt.isHigh == (driver.interruptReason != []) else {
                Issue.record(
                    "round \(round): status \(driver.interruptReason.rawValue), line \(driver.interrupt.isHigh)")
                return
            }
            driver.acknowledge()
        }
    }
}
