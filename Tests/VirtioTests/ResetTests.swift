import CPUOracle
import Glibc
import GuestMemory
import HostInterface
import Synchronization
import Testing
import Virtio
import VirtioTesting

/// What is left of a device after its driver has written 0 to the status.
@Suite struct ResetTests {
    @Test func everythingIsAsAfterPowerOn() throws {
        let driver = try GuestDriver(EchoDevice())
        let before = Register.allCases.map { driver.read($0) }
        try driver.bringUp()
        driver.write(.queueSelect, 1)
        driver.write(.deviceFeaturesSelect, 1)
        try driver.perform(.echo, on: driver.queues[0])
        try driver.reset()
        #expect(Register.allCases.map { driver.read($0) } == before)
        // A driver that forgets its queues finds none.
        #expect(driver.negotiate(driver.offered))
        driver.write(.queueSelect, 0)
        #expect(driver.read(.queueReady) == 0)
    }

    /// Requests in flight are given up, and what the host finds later goes nowhere.
    @Test func requestsInFlightTouchNothingAfterwards() throws {
        let device = HoldingDevice()
        let driver = try GuestDriver(device)
        for _ in 0..<20 {
            try driver.bringUp()
            let queue = driver.queues[0]
            for _ in 0..<30 { try queue.add([Buffer(driver.allocate(512), 512, isWritable: true)]) }
            driver.notify(0)
            #expect(driver.wait { device.heldCount == 30 })
            device.release(3)
            for _ in 0..<3 { _ = try driver.waitUsed(queue) }
            #expect(queue.chainsWithDevice == 27)
            driver.write(.status, 0)
            try driver.ram.acceptAll()
            device.release(100)
            #expect(try driver.ram.strayWrites().isEmpty)
        }
    }

    /// The same with requests that are done at the very moment.
    @Test func resetsAndCompletionsMayCross() throws {
        final class Done: Sendable { let isOver = Atomic(false) }
        let device = HoldingDevice()
        let driver = try GuestDriver(device)
        let done = Done()
        let host = try HostThread(name: "host") {
            while !done.isOver.load(ordering: .acquiring) { device.release(1) }
        }
        defer {
            done.isOver.store(true, ordering: .releasing)
            host.join()
        }
        for round in 0..<300 {
            try driver.bringUp()
            let queue = driver.queues[0]
            for _ in 0..<30 { try queue.add([Buffer(driver.allocate(512), 512, isWritable: true)]) }
            driver.notify(0)
            for _ in 0..<round % 5 { _ = try driver.waitUsed(queue) }
            driver.write(.status, 0)
            try driver.ram.acceptAll()
            _ = driver.offered
            let stray = try driver.ram.strayWrites()
            guard stray.isEmpty, !driver.interrupt.isHigh else {
                Issue.record("round \(round): wrote to \(stray)")
                return
            }
        }
    }

    /// A breach on one queue stops all of them, even those whose threads are still to be born.
    @Test func aBreachStopsEveryQueue() throws {
        let driver = try GuestDriver(LateStarter())
        try driver.reset()
        driver.negotiate(driver.offered)
        let (bad, good) = (try driver.layOut(queue: 0, size: 8), try driver.layOut(queue: 1, size: 8))
        try bad.offer(.max)
        try bad.publish()
        try good.add(try driver.buffers(.echo))
        driver.announce(bad.layout, queue: 0)
        driver.announce(good.layout, queue: 1)
        driver.add(.driverOK)
        #expect(driver.wait { driver.status.contains(.needsReset) })
        driver.write(.status, 0)
        #expect(try driver.ram.loadShared(at: good.usedIndex) == 0)
    }
}

/// A device of two queues, the second of which starts when the first has ended.
private final class LateStarter: VirtioDevice {
    private let threads = Mutex<[QueueThread]>([])

    var type: VirtioDeviceType { .network }
    var queueSizes: [UInt16] { [8, 8] }
    var features: UInt64 { 0 }

    func start(_ activation: DeviceActivation) throws(HostError) {
        for queue in activation.queues {
            guard let queue else { continue }
            let thread = try QueueThread(queue, of: activation, name: "echo") { queue throws(DriverBreach) in
                try queue.serve { _ in 0 }
            }
            threads.withLock { $0.append(thread) }
            guard queue.index == 0 else { continue }
            // Some seconds, and then the test fails without it.
            for _ in 0..<50_000 where !queue.doorbell.isStopped { usleep(100) }
        }
    }

    func stop() {
        threads.withLock { threads in
            for thread in threads { thread.stop() }
            threads = []
        }
    }
}
