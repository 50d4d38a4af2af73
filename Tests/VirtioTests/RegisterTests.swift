import GuestMemory
import HostInterface
import Testing
import Virtio
import VirtioDevices
import VirtioTesting

/// virtio-mmio as a driver that keeps the rules finds it (virtio 1.2, 4.2.2).
@Suite struct RegisterTests {
    @Test(arguments: TestedDevice.all)
    func aDeviceSaysWhatItIs(_ tested: TestedDevice) throws {
        let device = try tested.make()
        let driver = try GuestDriver(device)
        #expect(driver.read(.magic) == 0x7472_6976)
        #expect(driver.read(.version) == 2)
        #expect(driver.read(.deviceID) == device.type.rawValue)
        #expect(driver.offered == device.features | VirtioFeature.ring)
        for (index, size) in device.queueSizes.enumerated() { #expect(driver.maximumSize(ofQueue: index) == size) }
        #expect(driver.maximumSize(ofQueue: device.queueSizes.count) == 0)
        #expect(driver.read(.sharedMemoryLengthLow) == .max && driver.read(.sharedMemoryLengthHigh) == .max)
    }

    @Test func ringFeaturesAreNotTheDevices() throws {
        final class Boaster: VirtioDevice {
            var type: VirtioDeviceType { .entropy }
            var queueSizes: [UInt16] { [1] }
            var features: UInt64 { .max }
            func start(_ activation: DeviceActivation) throws(HostError) {}
            func stop() {}
        }
        let driver = try GuestDriver(Boaster())
        #expect(driver.offered == ~VirtioFeature.reserved | VirtioFeature.ring)
    }

    // MARK: Status

    @Test func statusGoesStepByStep() throws {
        let driver = try GuestDriver(EchoDevice())
        func write(_ bits: DeviceStatus, finds expected: DeviceStatus) {
            driver.write(.status, bits.rawValue)
            #expect(driver.status == expected)
        }
        write([.driver], finds: [])
        write([.acknowledge], finds: [.acknowledge])
        write([.driverOK], finds: [.acknowledge])
        write([.driver], finds: [.acknowledge, .driver])
        write([.featuresOK], finds: [.acknowledge, .driver])
        driver.accept(VirtioFeature.version1)
        write([.needsReset], finds: [.acknowledge, .driver])
        write([.featuresOK], finds: [.acknowledge, .driver, .featuresOK])
        write([.acknowledge], finds: [.acknowledge, .driver, .featuresOK])
        write([.driverOK], finds: [.acknowledge, .driver, .featuresOK, .driverOK])
        write([.failed], finds: [.acknowledge, .driver, .featuresOK, .driverOK, .failed])
        write([], finds: [])
    }

    @Test func aRefusedDriverMayTryAgain() throws {
        let driver = try GuestDriver(EchoDevice())
        #expect(!driver.negotiate(0))
        #expect(driver.negotiate(VirtioFeature.version1))
        try driver.setUpQueues()
        driver.add(.driverOK)
        try driver.perform(.echo, on: driver.queues[0])
    }

    // MARK: Queues

    @Test func aQueueCanBeTakenBackBeforeDriverOK() throws {
        let driver = try GuestDriver(EchoDevice())
        driver.negotiate(driver.offered)
        driver.announce(try driver.layOut(queue: 0, size: 16).layout, queue: 0)
        #expect(driver.read(.queueReady) == 1)
        driver.write(.queueReady, 0)
        #expect(driver.read(.queueReady) == 0)
        try driver.setUpQueues()
        driver.add(.driverOK)
        try driver.perform(.echo, on: driver.queues[0])
    }

    @Test(arguments: [2, 4, 128, 256] as [UInt16])
    func aQueueMayBeShorterThanItsMaximum(size: UInt16) throws {
        let driver = try GuestDriver(EchoDevice())
        try driver.bringUp(queueSize: size)
        for _ in 0..<2 * Int(size) + 1 {
            try driver.perform(.echo, on: driver.queues[0])
        }
    }

    /// The last bytes of RAM are as good as any.
    @Test func aQueueMayLieAtTheEndOfRAM() throws {
        let driver = try GuestDriver(TestedDevice.rng.make())
        driver.negotiate(driver.offered)
        var layout = QueueLayout()
        layout.size = 4
        let end = driver.memory.lowEnd
        layout.used = GuestPhysicalAddress(end - 40)  // 38 bytes, aligned
        layout.available = GuestPhysicalAddress(end - 40 - 14)
        layout.descriptors = GuestPhysicalAddress(end - 128)
        driver.announce(layout, queue: 0)
        #expect(driver.read(.queueReady) == 1)
    }

    // MARK: Configuration

    @Test func configurationIsReadInEveryWidth() throws {
        let driver = try GuestDriver(EchoDevice())
        #expect((0..<8).map { driver.read(offset: 0x100 + $0, bytes: 1) } == [1, 2, 3, 4, 5, 6, 7, 8])
        #expect(driver.read(offset: 0x102, bytes: 2) == 0x0403)
        #expect(driver.read(offset: 0x104, bytes: 4) == 0x0807_0605)
        #expect(driver.read(offset: 0x108, bytes: 4) == 0)
    }

    @Test func configurationIsWrittenInsideItsBounds() throws {
        let device = EchoDevice()
        let driver = try GuestDriver(device)
        driver.write(offset: 0x100, bytes: 1, 0xff)
        #expect(device.configuration == [1, 2, 3, 4, 5, 6, 7, 8])
        driver.add(.acknowledge)
        driver.add(.driver)
        driver.write(offset: 0x100, bytes: 1, 0xff)
        driver.write(offset: 0x102, bytes: 2, 0xaabb)
        driver.write(offset: 0x104, bytes: 4, 0x1234_5678)
        let written: [UInt8] = [0xff, 2, 0xbb, 0xaa, 0x78, 0x56, 0x34, 0x12]
        #expect(device.configuration == written)
        for (offset, bytes) in [(0x101, 2), (0x101, 4), (0x102, 4), (0x108, 1), (0x108, 4), (0x1fc, 4), (0xff8, 8)] {
            driver.write(offset: UInt64(offset), bytes: bytes, 0)
        }
        #expect(device.configuration == written)
    }

    @Test func generationChangesWithTheConfiguration() throws {
        let device = EchoDevice()
        let driver = try GuestDriver(device)
        try driver.bringUp()
        var seen: Set<UInt32> = [driver.read(.configurationGeneration)]
        for value in 0..<10 as Range<UInt8> {
            #expect(seen.contains(driver.read(.configurationGeneration)))
            device.change(configuration: [value])
            #expect(driver.interruptReason.contains(.configuration))
            #expect(seen.insert(driver.read(.configurationGeneration)).inserted)
        }
    }
}
