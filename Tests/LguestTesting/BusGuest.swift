package import GuestMemory
internal import HostInterface
package import Lguest
internal import Synchronization
package import Virtio
internal import VirtioTesting

/// A Guest on the bus, as its drivers see it: what they write is what a test writes.
package final class BusGuest {
    package static let ramBytes: UInt64 = 1 << 20

    package let guest: ScriptedGuest
    package let bus: LguestBus
    package private(set) var devices: [DeviceDescription] = []

    private final class Said: Sendable {
        let notes = Mutex<[String]>([])
        let text = Mutex<[UInt8]>([])
    }
    private let said = Said()

    package init(_ devices: [any VirtioDevice]) throws {
        let memory = try GuestMemory(
            byteCount: Self.ramBytes + LguestBus.pageCount(for: devices) * 4096, hasHole: false)
        guest = try ScriptedGuest(in: ScriptedHost(), memory: memory)
        bus = try LguestBus(
            devices, of: guest.guest, memory: memory, ramBytes: Self.ramBytes,
            print: { [said] bytes in said.text.withLock { $0 += bytes } },
            note: { [said] note in said.notes.withLock { $0.append(note) } })
        var place = Self.ramBytes
        while let device = try DeviceDescription(at: place, memory) {
            self.devices.append(device)
            place = device.end
        }
    }

    deinit { bus.stop() }

    package var memory: GuestMemory { guest.memory }
    package var notes: [String] { said.notes.withLock { $0 } }
    /// What the early console has shown.
    package var text: String { String(decoding: said.text.withLock { $0 }, as: UTF8.self) }

    /// NOTIFY, and what the Launcher makes of it.
    ///
    /// - Returns: whether the Launcher has heard of it.
    @discardableResult package func notify(_ address: UInt64) -> Bool {
        switch guest.call(LguestHypercall.notify, address) {
        case .pending(.notify(let address)):
            bus.notify(address)
            return true
        default: return false
        }
    }

    /// Looks until `isTrue` is.
    ///
    /// - Throws: after half a minute.
    package func wait(_ isTrue: () throws -> Bool) throws {
        let end = HostClock.monotonicNanoseconds + 30_000_000_000
        while HostClock.monotonicNanoseconds < end {
            if try isTrue() { return }
            HostThread.yield()
        }
        throw DriverError("it does not come: \(notes)")
    }

    /// Waits for an interrupt.
    package func waitInterrupt(_ irq: Int) throws {
        var seen: [Int] = []
        try wait {
            seen += guest.takeInterrupts()
            return seen.contains(irq)
        }
    }

    // MARK: Drivers

    package func set(status: UInt8, _ device: DeviceDescription) throws { try memory.put([status], device.status) }
    package func status(_ device: DeviceDescription) throws -> UInt8 { try memory.bytes(device.status, 1)[0] }
    package func accept(_ features: UInt64, _ device: DeviceDescription) throws {
        try memory.store(features, at: GuestPhysicalAddress(device.accepted))
    }

    /// From nothing to DRIVER_OK.
    package func start(_ device: DeviceDescription, features: UInt64 = VirtioFeature.version1) throws {
        try accept(features, device)
        try set(status: 7, device)
        guard notify(device.address) else { throw DriverError("nobody hears of DRIVER_OK") }
    }

    /// Puts one request into a queue that had `index` before: bytes to read, then room to write.
    package func put(_ bytes: [UInt8], room: Int, _ queue: DeviceDescription.Queue, index: UInt16 = 0) throws {
        let data: UInt64 = 0x70000
        try memory.put(bytes, data)
        try memory.put([UInt8](repeating: 0, count: room), data + 0x1000)
        let pieces = [(data, bytes.count, 0 as UInt16), (data + 0x1000, room, 2)].filter { $0.1 > 0 }
        for (number, piece) in pieces.enumerated() {
            let isLast = number == pieces.count - 1
            let place = GuestPhysicalAddress(queue.ring + UInt64(number) * 16)
            try memory.store(piece.0, at: place)
            try memory.store(UInt32(piece.1), at: place + 8)
            try memory.store(piece.2 | (isLast ? 0 : 1), at: place + 12)
            try memory.store(UInt16(number + 1), at: place + 14)
        }
        let slot = UInt64(index % queue.entries)
        try memory.store(UInt16(0), at: GuestPhysicalAddress(queue.available + 4 + 2 * slot))
        try memory.publish(index &+ 1, at: queue.available + 2)
    }

    /// What is in the room of the last request, when it is done.
    package func waitUsed(_ queue: DeviceDescription.Queue, index: UInt16 = 1, room: Int = 0) throws -> [UInt8] {
        try wait { try memory.published(queue.used + 2) == index }
        return try memory.bytes(0x71000, room)
    }
}
