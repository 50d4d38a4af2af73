internal import Glibc
package import GuestMemory
internal import HostInterface
internal import Platform
internal import Synchronization
package import Virtio

/// The registers of virtio-mmio (virtio 1.2, 4.2.2), with the widths of all but the last being 32 bits.
package enum Register: UInt64, CaseIterable, Sendable {
    case magic = 0x000
    case version = 0x004
    case deviceID = 0x008
    case vendorID = 0x00c
    case deviceFeatures = 0x010
    case deviceFeaturesSelect = 0x014
    case driverFeatures = 0x020
    case driverFeaturesSelect = 0x024
    case queueSelect = 0x030
    case queueSizeMaximum = 0x034
    case queueSize = 0x038
    case queueReady = 0x044
    case queueNotify = 0x050
    case interruptStatus = 0x060
    case interruptAcknowledge = 0x064
    case status = 0x070
    case queueDescriptorsLow = 0x080
    case queueDescriptorsHigh = 0x084
    case queueAvailableLow = 0x090
    case queueAvailableHigh = 0x094
    case queueUsedLow = 0x0a0
    case queueUsedHigh = 0x0a4
    case sharedMemorySelect = 0x0ac
    case sharedMemoryLengthLow = 0x0b0
    case sharedMemoryLengthHigh = 0x0b4
    case configurationGeneration = 0x0fc
    case configuration = 0x100
}

/// What a device's monitor has said about its driver.
package final class Notes: Sendable {
    private let lines = Mutex<[String]>([])
    package var all: [String] { lines.withLock { $0 } }
    func add(_ line: String) { lines.withLock { $0.append(line) } }
}

/// A driver of virtio devices, as far as a device can tell: a Guest's RAM, a
/// device behind virtio-mmio on a bus, an interrupt line, and the steps of
/// virtio 1.2, 3.1. It does them right if it is not told otherwise.
package final class GuestDriver {
    /// In the hole, where nothing is RAM.
    package static let window: UInt64 = 0xfeb0_0000
    package static let memoryBytes = 1 << 20

    package let ram: WatchedMemory
    package let mmio: VirtioMMIO
    package let interrupt = ObservedLine()
    package let notes = Notes()
    package private(set) var queues: [DriverQueue] = []
    private let bus = Bus()
    private let nudge: () -> Void
    private var arena: UInt64 = 0x1000

    package convenience init(_ tested: TestedDevice) throws {
        let device = try tested.make()
        try self.init(device) { tested.nudge(device) }
    }

    /// - Parameter nudge: called after each notification.
    package init(
        _ device: any VirtioDevice, memoryBytes: Int = GuestDriver.memoryBytes, nudge: @escaping () -> Void = {}
    ) throws {
        self.nudge = nudge
        ram = try WatchedMemory(byteCount: memoryBytes)
        mmio = try VirtioMMIO(device, memory: ram.memory, line: interrupt.line) { [notes] in notes.add($0) }
        bus.register(mmio, at: Self.window, count: 0x1000)
    }

    deinit { mmio.reset() }

    package var memory: GuestMemory { ram.memory }

    // MARK: Registers

    package func read(offset: UInt64, bytes: Int = 4) -> UInt64 { bus.read(Self.window + offset, bytes: bytes) }
    package func write(offset: UInt64, bytes: Int = 4, _ value: UInt64) {
        bus.write(Self.window + offset, bytes: bytes, value: value)
    }
    package func read(_ register: Register) -> UInt32 { UInt32(truncatingIfNeeded: read(offset: register.rawValue)) }
    package func write(_ register: Register, _ value: UInt32) { write(offset: register.rawValue, UInt64(value)) }

    package var status: DeviceStatus { DeviceStatus(rawValue: read(.status)) }
    package func add(_ bit: DeviceStatus) { write(.status, status.union(bit).rawValue) }
    package var interruptReason: InterruptReason { InterruptReason(rawValue: read(.interruptStatus)) }
    /// Says that every interrupt has been seen.
    package func acknowledge() { write(.interruptAcknowledge, read(.interruptStatus)) }

    // MARK: The steps

    package var offered: UInt64 {
        write(.deviceFeaturesSelect, 0)
        let low = read(.deviceFeatures)
        write(.deviceFeaturesSelect, 1)
        return UInt64(read(.deviceFeatures)) << 32 | UInt64(low)
    }

    package func accept(_ features: UInt64) {
        for half in 0..<2 {
            write(.driverFeaturesSelect, UInt32(half))
            write(.driverFeatures, UInt32(truncatingIfNeeded: features >> UInt64(32 * half)))
        }
    }

    /// The device as after power-on, and RAM for the driver's own again.
    package func reset() throws {
        write(.status, 0)
        queues = []
        arena = 0x1000
        try ram.acceptAll()
    }

    /// - Returns: whether the device is content.
    @discardableResult
    package func negotiate(_ features: UInt64) -> Bool {
        add(.acknowledge)
        add(.driver)
        accept(features)
        add(.featuresOK)
        return status.contains(.featuresOK)
    }

    /// Bytes that `allocate` still has.
    package var room: Int { Int(ram.memory.lowEnd - arena) }

    /// Some RAM that nothing else is in.
    package func allocate(_ count: Int, alignment: UInt64 = 16) -> UInt64 {
        let start = (arena + alignment - 1) & ~(alignment - 1)
        // A gap of a page would hide nothing, one of some bytes neither: all of RAM is watched.
        arena = start + UInt64(count) + 24
        precondition(arena <= ram.memory.lowEnd, "the driver's RAM is full")
        return start
    }

    /// Tables for a queue, side by side, zeroed.
    package func layOut(queue index: Int, size: UInt16) throws -> DriverQueue {
        var layout = QueueLayout()
        layout.size = size
        layout.descriptors = GuestPhysicalAddress(allocate(16 * Int(size), alignment: 16))
        layout.available = GuestPhysicalAddress(allocate(6 + 2 * Int(size), alignment: 2))
        layout.used = GuestPhysicalAddress(allocate(6 + 8 * Int(size), alignment: 4))
        let queue = DriverQueue(index: index, layout: layout, ram: ram)
        try queue.clear()
        return queue
    }

    /// Tells the device where a queue is, and how long, or says that it is longer.
    package func announce(_ layout: QueueLayout, queue index: Int, size: UInt32? = nil) {
        write(.queueSelect, UInt32(index))
        write(.queueSize, size ?? UInt32(layout.size))
        for (low, high, address) in [
            (Register.queueDescriptorsLow, Register.queueDescriptorsHigh, layout.descriptors.rawValue),
            (.queueAvailableLow, .queueAvailableHigh, layout.available.rawValue),
            (.queueUsedLow, .queueUsedHigh, layout.used.rawValue),
        ] {
            write(low, UInt32(truncatingIfNeeded: address))
            write(high, UInt32(truncatingIfNeeded: address >> 32))
        }
        write(.queueReady, 1)
    }

    /// The longest that queue `index` can be; 0 if there is none.
    package func maximumSize(ofQueue index: Int) -> UInt16 {
        write(.queueSelect, UInt32(index))
        return UInt16(truncatingIfNeeded: read(.queueSizeMaximum))
    }

    /// All queues of the device, of `size` entries or as many as they can have.
    package func setUpQueues(size: UInt16 = 64) throws {
        while true {
            let maximum = maximumSize(ofQueue: queues.count)
            if maximum == 0 { return }
            let queue = try layOut(queue: queues.count, size: min(size, maximum))
            announce(queue.layout, queue: queue.index)
            queues.append(queue)
        }
    }

    /// From reset to DRIVER_OK, by the book.
    ///
    /// - Parameter features: as far as they are offered.
    package func bringUp(features: UInt64 = .max, queueSize: UInt16 = 64) throws {
        try reset()
        guard negotiate(offered & features) else { throw DriverError("the device refuses its own features") }
        try setUpQueues(size: queueSize)
        add(.driverOK)
        guard status.isSuperset(of: [.driverOK, .featuresOK]), !status.contains(.needsReset) else {
            throw DriverError("the device does not start: \(notes.all)")
        }
    }

    package func notify(_ queue: Int) {
        write(.queueNotify, UInt32(queue))
        nudge()
    }

    // MARK: Waiting

    /// Looks until `isTrue` is.
    ///
    /// - Returns: false if that takes more than half a minute.
    package func wait(_ isTrue: () throws -> Bool) rethrows -> Bool {
        let end = HostClock.monotonicNanoseconds &+ 30_000_000_000
        while HostClock.monotonicNanoseconds < end {
            if try isTrue() { return true }
            var pause = timespec(tv_sec: 0, tv_nsec: 20_000)
            unsafe nanosleep(&pause, nil)
        }
        return false
    }

    /// The next chain that comes back.
    package func waitUsed(_ queue: DriverQueue) throws -> DriverQueue.Used {
        var used: DriverQueue.Used?
        _ = try wait {
            used = try queue.takeUsed()
            return used != nil || status.contains(.needsReset)
        }
        guard let used = try used ?? queue.takeUsed() else {
            throw DriverError("queue \(queue.index): nothing comes back; status \(status.rawValue); \(notes.all)")
        }
        return used
    }
}
