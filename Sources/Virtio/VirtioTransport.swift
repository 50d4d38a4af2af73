package import GuestMemory
package import HostInterface
internal import Synchronization

//D:040 From reset to DRIVER_OK
//
// Whatever the transport, a driver and a device get to know each other in the
// same steps (virtio 1.2, 3.1.1), and a bit of the device status stands for
// each:
//
//      ACKNOWLEDGE  somebody has seen the device
//      DRIVER       … and knows how to drive it; it may accept features now
//      FEATURES_OK  … and has accepted some. We let the bit stand only if we
//                   offered all of them and VERSION_1 is among them
//                   now it may say where the queues are
//      DRIVER_OK    the queues are the device's; it starts
//
// Any other order is ignored. Bits are only ever added; to take one away the
// driver must take all, by writing 0, which is a reset. One bit is ours:
// DEVICE_NEEDS_RESET says that the driver has broken a rule. From then on the
// device does nothing, and why is in the log.

/// Bits of the device status (virtio 1.2, 2.1).
package struct DeviceStatus: OptionSet, Sendable {
    package let rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }

    package static let acknowledge = DeviceStatus(rawValue: 1)
    package static let driver = DeviceStatus(rawValue: 2)
    package static let driverOK = DeviceStatus(rawValue: 4)
    package static let featuresOK = DeviceStatus(rawValue: 8)
    package static let needsReset = DeviceStatus(rawValue: 64)
    package static let failed = DeviceStatus(rawValue: 128)
}

/// Why the driver is interrupted.
package enum VirtioInterrupt: Sendable {
    /// There are used buffers in the queue of that index.
    case usedBuffer(queue: Int)
    /// The configuration has changed, or the device needs a reset.
    case configuration
}

/// A device and what its driver has told it so far: what every transport has in
/// common. Called on a vCPU's thread, but for `breach` and interrupts.
package final class VirtioTransport: @unchecked Sendable {
    package let device: any VirtioDevice
    private let memory: GuestMemory
    private let raise: @Sendable (VirtioInterrupt) -> Void
    private let isGuestAsleep: @Sendable () -> Bool
    private let note: @Sendable (String) -> Void
    private let queueSizes: [UInt16]
    private let doorbells: [Doorbell]
    package let counters: [QueueCounters]

    /// Its own threads set bits, too.
    private let statusBits = Atomic<UInt32>(0)
    private var generation: UInt32 = 0
    /// The configuration when the driver last asked for its generation.
    private var configurationSeen: [UInt8] = []
    private var driverFeatures: UInt64 = 0
    private var queues: [QueueLayout]
    private var isStarted = false

    /// - Parameters:
    ///   - raise: tells the driver. Any thread.
    ///   - isGuestAsleep: whether all its vCPUs wait for an interrupt. A hint, for any thread.
    ///   - note: takes a line about what the driver did wrong.
    package init(
        _ device: any VirtioDevice, memory: GuestMemory, raise: @escaping @Sendable (VirtioInterrupt) -> Void,
        isGuestAsleep: @escaping @Sendable () -> Bool,
        note: @escaping @Sendable (String) -> Void
    ) throws(HostError) {
        self.device = device
        self.memory = memory
        self.raise = raise
        self.isGuestAsleep = isGuestAsleep
        self.note = note
        queueSizes = device.queueSizes
        precondition(queueSizes.allSatisfy { $0 <= 32768 && $0.nonzeroBitCount == 1 })
        var doorbells: [Doorbell] = []
        for _ in queueSizes { doorbells.append(try Doorbell()) }
        self.doorbells = doorbells
        counters = queueSizes.map { _ in QueueCounters() }
        queues = queueSizes.map { _ in QueueLayout() }
    }

    package var status: DeviceStatus { DeviceStatus(rawValue: statusBits.load(ordering: .acquiring)) }
    package var queueCount: Int { queueSizes.count }
    package var features: UInt64 { device.features & ~VirtioFeature.reserved | VirtioFeature.ring }
    package func maximumSize(ofQueue index: Int) -> UInt16 {
        queueSizes.indices.contains(index) ? queueSizes[index] : 0
    }

    /// Counts changes of the configuration, so that a driver can tell a mixture of two.
    /// Not when the device says so, which is after the change, but when the driver looks.
    package var configurationGeneration: UInt32 {
        let now = device.configuration
        if now != configurationSeen { (generation, configurationSeen) = (generation &+ 1, now) }
        return generation
    }

    // MARK: The steps

    /// The driver writes the status.
    package func write(status value: UInt32) {
        if value == 0 { return reset() }
        let old = status
        // What the driver can add, one step after the other.
        let wish = DeviceStatus(rawValue: value)
        var new = old.union(wish.intersection([.acknowledge, .failed]))
        if wish.contains(.driver), new.contains(.acknowledge) { new.insert(.driver) }
        if wish.contains(.featuresOK), !old.contains(.featuresOK), new.contains(.driver), featuresAreAcceptable {
            new.insert(.featuresOK)
        }
        let starts = wish.contains(.driverOK) && !old.contains(.driverOK) && new.contains(.featuresOK)
        if starts { new.insert(.driverOK) }
        statusBits.bitwiseOr(new.rawValue, ordering: .releasing)
        if starts, !new.contains(.needsReset) { start() }
    }

    private var featuresAreAcceptable: Bool {
        let strange = driverFeatures & ~features
        if strange != 0 {
            note(
                "\(device.type.name): the driver accepts features 0x\(String(strange, radix: 16)), which were not offered"
            )
        }
        return strange == 0 && driverFeatures & VirtioFeature.version1 != 0
    }

    /// The driver accepts features, in halves of 32 bits.
    package func write(driverFeatures value: UInt32, half: UInt32) {
        guard status.contains(.driver), !status.contains(.featuresOK), half < 2 else { return }
        let shift = UInt64(half) * 32
        driverFeatures = driverFeatures & ~(0xffff_ffff << shift) | UInt64(value) << shift
    }

    /// Whether queues may be set up now.
    private var acceptsQueues: Bool {
        let now = status
        return now.contains(.featuresOK) && now.isDisjoint(with: [.driverOK, .needsReset])
    }

    package func layout(ofQueue index: Int) -> QueueLayout? { queues.indices.contains(index) ? queues[index] : nil }

    /// The driver says something of a queue that is not ready yet.
    package func change(queue index: Int, _ body: (inout QueueLayout) -> Void) {
        guard acceptsQueues, queues.indices.contains(index), !queues[index].isReady else { return }
        body(&queues[index])
    }

    /// The driver says that a queue is ready, or is not.
    package func setReady(queue index: Int, _ isReady: Bool) {
        guard acceptsQueues, queues.indices.contains(index), queues[index].isReady != isReady else { return }
        if isReady {
            do throws(DriverBreach) { try queues[index].check(in: memory, maximum: queueSizes[index]) } catch {
                return breach(DriverBreach("queue \(index): \(error)"))
            }
        }
        queues[index].isReady = isReady
    }

    /// The eventfd that wakes a queue's thread: what `notify` writes to.
    package func doorbell(ofQueue index: Int) -> Int32 { doorbells[index].descriptor }

    /// The driver has put something into a queue. From the vCPU's thread to
    /// the queue's by one write(2), and no lock.
    package func notify(queue index: UInt32) {
        let bits = status
        guard index < UInt32(doorbells.count), bits.contains(.driverOK), !bits.contains(.needsReset) else { return }
        doorbells[Int(index)].ring()
    }

    /// The driver writes to the configuration space.
    package func writeConfiguration(offset: Int, _ bytes: [UInt8]) {
        guard status.contains(.driver), !status.contains(.needsReset) else { return }
        guard offset >= 0, offset <= device.configuration.count - bytes.count else { return }
        device.writeConfiguration(offset: offset, bytes)
    }

    private func start() {
        isStarted = true
        // All of them now: the first thread may break off before the second is born.
        for doorbell in doorbells { doorbell.reset() }
        let ready = queues.indices.map { index -> Virtqueue? in
            guard queues[index].isReady else { return nil }
            return Virtqueue(
                queues[index], index: index, memory: memory, features: driverFeatures, doorbell: doorbells[index],
                counters: counters[index], interrupt: { [raise] in raise(.usedBuffer(queue: index)) },
                isGuestAsleep: isGuestAsleep)
        }
        let activation = DeviceActivation(
            memory: memory, queues: ready, features: driverFeatures,
            configurationChanged: { [weak self] in self?.configurationChanged() },
            breach: { [weak self] breach in self?.breach(breach) })
        do throws(HostError) { try device.start(activation) } catch {
            needReset("\(error)")
        }
    }

    /// Back to before the driver came, with every thread of the device at rest.
    package func reset() {
        if isStarted { device.stop() }
        isStarted = false
        driverFeatures = 0
        queues = queueSizes.map { _ in QueueLayout() }
        statusBits.store(0, ordering: .releasing)
    }

    // MARK: From the device's threads

    private func configurationChanged() {
        if status.contains(.driverOK) { raise(.configuration) }
    }

    /// The driver has broken a rule: the device stops where it is.
    package func breach(_ breach: DriverBreach) { needReset("\(breach)") }

    private func needReset(_ reason: String) {
        let bit = DeviceStatus.needsReset.rawValue
        let old = statusBits.bitwiseOr(bit, ordering: .acquiringAndReleasing).oldValue
        guard old & bit == 0 else { return }
        note("\(device.type.name) needs a reset: \(reason)")
        for doorbell in doorbells { doorbell.stop() }
        if DeviceStatus(rawValue: old).contains(.driverOK) { raise(.configuration) }
    }
}
//:
