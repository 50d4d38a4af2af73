internal import GuestMemory
internal import HostInterface
internal import Synchronization
package import Virtio

/// Both sides of one queue on one thread, with no device and no transport: for
/// tests that want to know exactly who did what when.
package final class BareQueue {
    private final class Count: Sendable { let value = Atomic(0) }

    package let ram: WatchedMemory
    package let driver: DriverQueue
    package let device: Virtqueue
    private let interruptCount = Count()

    /// - Parameter memoryBytes: a multiple of 4096.
    package init(size: UInt16, features: UInt64 = VirtioFeature.ring, memoryBytes: Int = 1 << 20) throws {
        ram = try WatchedMemory(byteCount: memoryBytes)
        var layout = QueueLayout()
        layout.size = size
        layout.descriptors = GuestPhysicalAddress(0x1000)
        layout.available = layout.descriptors + 16 * UInt64(size)
        layout.used = GuestPhysicalAddress((layout.available.rawValue + 6 + 2 * UInt64(size) + 3) & ~3)
        try layout.check(in: ram.memory, maximum: 32768)
        driver = DriverQueue(index: 0, layout: layout, ram: ram)
        try driver.clear()
        let count = interruptCount
        device = Virtqueue(
            layout, index: 0, memory: ram.memory, features: features, doorbell: try Doorbell(),
            counters: QueueCounters(),
            interrupt: { count.value.wrappingAdd(1, ordering: .relaxed) })
    }

    /// How often the device has interrupted the driver.
    package var interrupts: Int { interruptCount.value.load(ordering: .relaxed) }

    /// Serves so many of the chains that wait, and writes nothing to them.
    package func serve(_ count: Int) throws {
        for _ in 0..<count {
            guard let chain = try device.next() else { throw DriverError("there is no chain") }
            device.complete(chain, written: 0)
        }
    }

    /// Takes back what there is.
    package func takeAll() throws { while try driver.takeUsed() != nil {} }
}
