package import GuestMemory
package import HostInterface
package import Platform
internal import Synchronization

//D:060 virtio-mmio
//
// The plainest of transports: a page of registers (virtio 1.2, 4.2.2), of 32
// bits each, and from 0x100 on the device's own configuration, read in pieces
// of one, two or four bytes.
//
//      0x000 "virt"           0x030 QueueSel       0x070 Status
//      0x004 version: 2       0x034 QueueNumMax    0x080 QueueDesc     (64 bits, in halves)
//      0x008 DeviceID         0x038 QueueNum       0x090 QueueDriver
//      0x00c VendorID         0x044 QueueReady     0x0a0 QueueDevice
//      0x010 DeviceFeatures   0x050 QueueNotify    0x0b0 SHMLen: none
//      0x014 …Sel             0x060 InterruptStatus  0x0fc ConfigGeneration
//      0x020 DriverFeatures   0x064 InterruptACK   0x100 configuration
//      0x024 …Sel
//
// A register read or written in another width, or in the wrong direction, is
// one that is not there: reads give 0, writes go nowhere.
//
// The interrupt is a level. It is up while a bit of InterruptStatus is, and
// the driver takes bits away by writing them to InterruptACK. Bits are set by
// the queues' threads at any time.

/// A virtio device behind a window of MMIO registers.
package final class VirtioMMIO: BusDevice, @unchecked Sendable {
    private enum Register {
        static let magic: UInt64 = 0x000
        static let version: UInt64 = 0x004
        static let deviceID: UInt64 = 0x008
        static let vendorID: UInt64 = 0x00c
        static let deviceFeatures: UInt64 = 0x010
        static let deviceFeaturesSelect: UInt64 = 0x014
        static let driverFeatures: UInt64 = 0x020
        static let driverFeaturesSelect: UInt64 = 0x024
        static let queueSelect: UInt64 = 0x030
        static let queueSizeMaximum: UInt64 = 0x034
        static let queueSize: UInt64 = 0x038
        static let queueReady: UInt64 = 0x044
        static let queueNotify: UInt64 = 0x050
        static let interruptStatus: UInt64 = 0x060
        static let interruptAcknowledge: UInt64 = 0x064
        static let status: UInt64 = 0x070
        static let queueDescriptors: UInt64 = 0x080
        static let queueAvailable: UInt64 = 0x090
        static let queueUsed: UInt64 = 0x0a0
        static let sharedMemoryFirst: UInt64 = 0x0b0
        static let sharedMemoryLast: UInt64 = 0x0bc
        static let configurationGeneration: UInt64 = 0x0fc
        static let configuration: UInt64 = 0x100
    }

    package let transport: VirtioTransport
    private let interrupts: Interrupts
    private var deviceFeaturesSelect: UInt32 = 0
    private var driverFeaturesSelect: UInt32 = 0
    private var queueSelect: UInt32 = 0

    /// - Parameter line: level-triggered.
    package init(
        _ device: any VirtioDevice, memory: GuestMemory, line: InterruptLine,
        isGuestAsleep: @escaping @Sendable () -> Bool = { false }, note: @escaping @Sendable (String) -> Void
    ) throws(HostError) {
        let interrupts = Interrupts(line)
        self.interrupts = interrupts
        transport = try VirtioTransport(
            device, memory: memory, raise: { interrupts.raise($0) }, isGuestAsleep: isGuestAsleep, note: note)
    }

    /// To the state after power-on.
    package func reset() {
        transport.reset()
        interrupts.acknowledge(.max)
        (deviceFeaturesSelect, driverFeaturesSelect, queueSelect) = (0, 0, 0)
    }

    // MARK: Registers

    package func read(offset: UInt64, bytes: Int) -> UInt64 {
        if offset >= Register.configuration { return readConfiguration(offset &- Register.configuration, bytes) }
        guard bytes == 4, offset % 4 == 0 else { return 0 }
        let selected = transport.layout(ofQueue: Int(queueSelect))
        switch offset {
        case Register.magic: return 0x7472_6976
        case Register.version: return 2
        case Register.deviceID: return UInt64(transport.device.type.rawValue)
        case Register.vendorID: return 0x534f_4f52  // "ROOS"
        case Register.deviceFeatures:
            return deviceFeaturesSelect < 2
                ? transport.features >> (UInt64(deviceFeaturesSelect) * 32) & 0xffff_ffff : 0
        case Register.queueSizeMaximum: return UInt64(transport.maximumSize(ofQueue: Int(queueSelect)))
        case Register.queueReady: return selected?.isReady == true ? 1 : 0
        case Register.interruptStatus: return UInt64(interrupts.pending)
        case Register.status: return UInt64(transport.status.rawValue)
        // A length of -1 says that there is no such region (4.2.2.1).
        case Register.sharedMemoryFirst...Register.sharedMemoryLast: return 0xffff_ffff
        case Register.configurationGeneration: return UInt64(transport.configurationGeneration)
        default: return 0
        }
    }

    package func write(offset: UInt64, bytes: Int, value: UInt64) {
        if offset >= Register.configuration {
            guard bytes <= 4 || bytes == 8, offset % UInt64(bytes) == 0 else { return }
            let content = (0..<UInt64(bytes)).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
            return transport.writeConfiguration(offset: Int(offset &- Register.configuration), content)
        }
        guard bytes == 4, offset % 4 == 0 else { return }
        let word = UInt32(truncatingIfNeeded: value)
        switch offset {
        case Register.queueNotify: transport.notify(queue: word)
        case Register.interruptAcknowledge: interrupts.acknowledge(word)
        case Register.deviceFeaturesSelect: deviceFeaturesSelect = word
        case Register.driverFeaturesSelect: driverFeaturesSelect = word
        case Register.driverFeatures: transport.write(driverFeatures: word, half: driverFeaturesSelect)
        case Register.queueSelect: queueSelect = word
        case Register.queueSize:
            // A size that is no 16 bits is no size.
            transport.change(queue: Int(queueSelect)) { $0.size = UInt16(exactly: word) ?? 0 }
        case Register.queueReady: transport.setReady(queue: Int(queueSelect), word & 1 != 0)
        case Register.status: if word == 0 { reset() } else { transport.write(status: word) }
        default: writeAddress(offset, UInt64(word))
        }
    }

    /// One half of a queue's address.
    private func writeAddress(_ offset: UInt64, _ half: UInt64) {
        let field: WritableKeyPath<QueueLayout, GuestPhysicalAddress>
        switch offset & ~4 {
        case Register.queueDescriptors: field = \.descriptors
        case Register.queueAvailable: field = \.available
        case Register.queueUsed: field = \.used
        default: return
        }
        transport.change(queue: Int(queueSelect)) { layout in
            let old = layout[keyPath: field].rawValue
            let new = offset & 4 == 0 ? old & ~0xffff_ffff | half : old & 0xffff_ffff | half << 32
            layout[keyPath: field] = GuestPhysicalAddress(new)
        }
    }

    private func readConfiguration(_ offset: UInt64, _ bytes: Int) -> UInt64 {
        let space = transport.device.configuration
        guard bytes <= 4 || bytes == 8, offset % UInt64(bytes) == 0, offset <= UInt64(space.count) else { return 0 }
        var value: UInt64 = 0
        for index in 0..<bytes where Int(offset) + index < space.count {
            value |= UInt64(space[Int(offset) + index]) << UInt64(index * 8)
        }
        return value
    }
}

/// Why the driver is interrupted: bits of InterruptStatus (virtio 1.2, 4.2.2).
package struct InterruptReason: OptionSet, Sendable {
    package let rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }

    package static let usedBuffer = InterruptReason(rawValue: 1)
    package static let configuration = InterruptReason(rawValue: 2)
}

/// InterruptStatus, and the line that follows it. Both change under one lock:
/// else a driver that is quick to acknowledge could take the line down before
/// it has gone up, and it would stay up with no bit to say why.
private final class Interrupts: Sendable {
    private let status = Mutex<UInt32>(0)
    private let line: InterruptLine

    init(_ line: InterruptLine) { self.line = line }

    var pending: UInt32 { status.withLock { $0 } }

    /// Any thread.
    func raise(_ interrupt: VirtioInterrupt) {
        let reason: InterruptReason = if case .configuration = interrupt { .configuration } else { .usedBuffer }
        status.withLock { status in
            status |= reason.rawValue
            line.raise()
        }
    }

    /// The vCPU's thread.
    func acknowledge(_ bits: UInt32) {
        status.withLock { status in
            status &= ~bits
            if status == 0 { line.lower() }
        }
    }
}
//:
