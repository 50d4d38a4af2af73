internal import GuestMemory
internal import HostInterface
internal import Synchronization
internal import Virtio

//D:200 A page instead of a bus
//
// virtio-mmio is registers, and a register is an access that must be caught,
// decoded and answered: a dozen exits before a driver so much as knows what
// device it has. lguest asked what a bus is for and put the answer on a sheet
// of paper: one page above the top of memory, and on it, one after the other,
// what each device is.
//
//      +------+--------+----------+--------+--------+
//      | type | queues | features | config | status |    a byte each
//      +------+--------+----------+--------+--------+
//      | entries 16 | irq 16 | page of the ring 32  |    for each queue
//      +--------------------------------------------+
//      | features that the device offers            |
//      | features that the driver accepts           |
//      +--------------------------------------------+
//      | configuration                              |
//      +--------------------------------------------+
//      | type of the next device; 0: that was all   |
//
// The Guest reads it as memory, and it is memory: no exit at all. It writes as
// to memory, too, and the Host would not notice; so whoever has written
// something that matters notifies the descriptor's address. The rings are in
// pages behind this one, where the Host has put them: a driver need not
// allocate what it cannot use for anything else.

/// Where in the Guest's memory one device's descriptor is, and the parts of it.
struct DescriptorLayout {
    let address: GuestPhysicalAddress
    let queueCount: Int
    let configurationBytes: Int
    /// Of each of the two arrays of bits: all 64 that there can be.
    static let featureBytes = 8

    var status: GuestPhysicalAddress { address + LguestDescriptor.status }
    func queue(_ index: Int) -> GuestPhysicalAddress {
        address + LguestDescriptor.headerBytes + UInt64(index) * LguestDescriptor.queueBytes
    }
    var offered: GuestPhysicalAddress { queue(queueCount) }
    var accepted: GuestPhysicalAddress { offered + UInt64(Self.featureBytes) }
    var configuration: GuestPhysicalAddress { accepted + UInt64(Self.featureBytes) }
    var end: GuestPhysicalAddress { configuration + UInt64(configurationBytes) }
}

/// Where one queue's ring is: as in `QueueLayout`, in one piece.
struct RingPlace {
    let address: GuestPhysicalAddress
    let size: UInt16
    let irq: Int

    private var availableOffset: UInt64 { UInt64(QueueLayout.descriptorBytes) * UInt64(size) }
    private var usedOffset: UInt64 {
        let end = availableOffset + 6 + 2 * UInt64(size)
        return (end + LguestDescriptor.ringAlignment - 1) / LguestDescriptor.ringAlignment
            * LguestDescriptor.ringAlignment
    }
    var pageCount: UInt64 { (usedOffset + 6 + 8 * UInt64(size) + 4095) / 4096 }

    var layout: QueueLayout {
        var layout = QueueLayout()
        layout.size = size
        layout.descriptors = address
        layout.available = address + availableOffset
        layout.used = address + usedOffset
        return layout
    }
}

/// One device on the page. The vCPU's thread; what the Guest sees of a change is told by the device's.
final class LguestDevice: @unchecked Sendable {
    let layout: DescriptorLayout
    let rings: [RingPlace]
    let transport: VirtioTransport
    private let memory: GuestMemory
    private let changed = ConfigurationChange()
    /// The configuration as the Guest was last told it: what differs from that is the driver's doing.
    private let told: Mutex<[UInt8]>
    private(set) var isRunning = false

    init(
        _ device: any VirtioDevice, layout: DescriptorLayout, rings: [RingPlace], memory: GuestMemory,
        raise: @escaping @Sendable (Int) -> Void, isGuestAsleep: @escaping @Sendable () -> Bool,
        note: @escaping @Sendable (String) -> Void
    ) throws(HostError) {
        self.layout = layout
        self.rings = rings
        self.memory = memory
        told = Mutex(device.configuration)
        transport = try VirtioTransport(
            device, memory: memory,
            raise: { [changed] interrupt in
                switch interrupt {
                case .usedBuffer(let queue): raise(rings[queue].irq)
                case .configuration: changed.tell()
                }
            }, isGuestAsleep: isGuestAsleep, note: note)
        changed.body = { [weak self] in
            self?.refresh()
            // There is no interrupt for this alone: its first queue's has to do.
            if let first = rings.first { raise(first.irq) }
        }
        try describe()
    }

    private func describe() throws(HostError) {
        do {
            let header: [UInt8] = [
                UInt8(transport.device.type.rawValue), UInt8(rings.count), UInt8(DescriptorLayout.featureBytes),
                UInt8(layout.configurationBytes), 0,
            ]
            try memory.write(header, at: layout.address)
            for (index, ring) in rings.enumerated() {
                try memory.store(ring.size, at: layout.queue(index))
                try memory.store(UInt16(ring.irq), at: layout.queue(index) + 2)
                try memory.store(UInt32(ring.address.page), at: layout.queue(index) + 4)
            }
            try memory.store(transport.features, at: layout.offered)
            try memory.store(UInt64(0), at: layout.accepted)
            try memory.write(told.withLock { $0 }, at: layout.configuration)
        } catch { throw HostError("cannot describe a device: \(error)") }
    }

    /// What the Guest sees of configuration and status is what they are now.
    private func refresh() {
        told.withLock { told in
            let bytes = transport.device.configuration
            guard bytes.count == layout.configurationBytes else { return }
            told = bytes
            try? memory.write(bytes, at: layout.configuration)
        }
        if transport.status.contains(.needsReset) { put(status: LguestDescriptor.needsReset) }
    }

    /// The device's threads add a bit while the Guest may be writing.
    private var statusByte: UnsafePointer<Atomic<UInt8>>? {
        // SAFETY: as long as the memory, which we keep; any byte is aligned.
        unsafe memory.hostPointer(layout.status, 1).map {
            unsafe UnsafePointer($0.assumingMemoryBound(to: Atomic<UInt8>.self))
        }
    }
    private var status: UInt8 { unsafe statusByte?.pointee.load(ordering: .acquiring) ?? 0 }
    private func put(status bits: UInt8) {
        unsafe _ = statusByte?.pointee.bitwiseOr(bits, ordering: .acquiringAndReleasing)
        memory.noteWrite(layout.status, 1)
    }

    // MARK: What the Guest tells

    /// The Guest has changed status, features or configuration.
    ///
    /// - Returns: whether it is running now.
    func statusChanged(note: (String) -> Void) -> Bool {
        let status = status
        // Ours may have come into the Guest's 0.
        if status & ~LguestDescriptor.needsReset == 0 {
            reset()
        } else if status & LguestDescriptor.failed != 0 {
            note("\(transport.device.type.name): the driver has failed")
            stop()
        } else if isRunning {
            writeConfiguration()
        } else if status & LguestDescriptor.driverOK != 0 {
            start()
        }
        return isRunning
    }

    /// What virtio-mmio's driver does in a dozen writes.
    func start() {
        let accepted = (try? memory.load(at: layout.accepted, as: UInt64.self)) ?? 0
        let steps = DeviceStatus([.acknowledge, .driver])
        transport.write(status: steps.rawValue)
        transport.write(driverFeatures: UInt32(truncatingIfNeeded: accepted), half: 0)
        transport.write(driverFeatures: UInt32(truncatingIfNeeded: accepted >> 32), half: 1)
        transport.write(status: steps.union(.featuresOK).rawValue)
        guard transport.status.contains(.featuresOK) else {
            transport.breach(
                DriverBreach("features 0x\(String(accepted, radix: 16)) are not what was offered, with VERSION_1"))
            return changed.tell()
        }
        writeConfiguration()
        for (index, ring) in rings.enumerated() {
            transport.change(queue: index) { $0 = ring.layout }
            transport.setReady(queue: index, true)
        }
        transport.write(status: steps.union([.featuresOK, .driverOK]).rawValue)
        isRunning = !transport.status.contains(.needsReset)
        if !isRunning { changed.tell() }
    }

    /// What the Guest has written to the configuration, for the device to hear of.
    private func writeConfiguration() {
        guard let now = try? memory.read(layout.configuration, count: layout.configurationBytes) else { return }
        let old = told.withLock { $0 }
        if let first = now.indices.first(where: { now[$0] != old[$0] }),
            let last = now.indices.last(where: { now[$0] != old[$0] })
        {
            transport.writeConfiguration(offset: first, Array(now[first...last]))
        }
        refresh()
    }

    func stop() {
        transport.reset()
        isRunning = false
    }

    /// To the state before the driver came.
    func reset() {
        stop()
        try? memory.store(UInt8(0), at: layout.status)
        try? memory.store(UInt64(0), at: layout.accepted)
        refresh()
        for ring in rings {
            try? memory.write(repeatElement(0, count: Int(ring.pageCount) * 4096), at: ring.address)
        }
    }
}
//:

/// A change of configuration is told of by an object that does not exist yet when it is first spoken of.
private final class ConfigurationChange: @unchecked Sendable {
    /// Set before the device starts.
    var body: (@Sendable () -> Void)?
    func tell() { body?() }
}
