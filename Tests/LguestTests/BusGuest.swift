import GuestMemory
import HostInterface
import Lguest
import LguestTesting
import Synchronization
import Testing
import Virtio

/// A Guest on the bus, as its drivers see it: what they write is what a test writes.
final class BusGuest {
    static let ramBytes: UInt64 = 1 << 20

    let guest: ScriptedGuest
    let bus: LguestBus
    private(set) var devices: [Descriptor] = []

    private final class Said: Sendable {
        let notes = Mutex<[String]>([])
        let text = Mutex<[UInt8]>([])
    }
    private let said = Said()

    init(_ devices: [any VirtioDevice]) throws {
        let memory = try GuestMemory(
            byteCount: Self.ramBytes + LguestBus.pageCount(for: devices) * 4096, hasHole: false)
        guest = try ScriptedGuest(in: ScriptedHost(), memory: memory)
        bus = try LguestBus(
            devices, of: guest.guest, memory: memory, ramBytes: Self.ramBytes,
            print: { [said] bytes in said.text.withLock { $0 += bytes } },
            note: { [said] note in said.notes.withLock { $0.append(note) } })
        var place = Self.ramBytes
        while let device = try Descriptor(at: place, memory) {
            self.devices.append(device)
            place = device.end
        }
    }

    deinit { bus.stop() }

    var memory: GuestMemory { guest.memory }
    var notes: [String] { said.notes.withLock { $0 } }
    /// What the early console has shown.
    var text: String { String(decoding: said.text.withLock { $0 }, as: UTF8.self) }

    /// NOTIFY, and what the Launcher makes of it.
    ///
    /// - Returns: whether the Launcher has heard of it.
    @discardableResult func notify(_ address: UInt64) -> Bool {
        switch guest.call(LguestHypercall.notify, address) {
        case .pending(.notify(let address)):
            bus.notify(address)
            return true
        default: return false
        }
    }

    /// Looks until `isTrue` is, for half a minute at most.
    func wait(_ location: SourceLocation = #_sourceLocation, _ isTrue: () throws -> Bool) rethrows {
        let end = HostClock.monotonicNanoseconds + 30_000_000_000
        while HostClock.monotonicNanoseconds < end {
            if try isTrue() { return }
            _ = waitReadable([], milliseconds: 1)
        }
        Issue.record("it has not come: \(notes)", sourceLocation: location)
    }

    /// Waits for an interrupt.
    func waitInterrupt(_ irq: Int, _ location: SourceLocation = #_sourceLocation) {
        var seen: [Int] = []
        wait(location) {
            seen += guest.takeInterrupts()
            return seen.contains(irq)
        }
    }

    // MARK: Drivers

    func set(status: UInt8, _ device: Descriptor) throws { try memory.put([status], device.status) }
    func status(_ device: Descriptor) throws -> UInt8 { try memory.bytes(device.status, 1)[0] }
    func accept(_ features: UInt64, _ device: Descriptor) throws {
        try memory.store(features, at: GuestPhysicalAddress(device.accepted))
    }

    /// From nothing to DRIVER_OK.
    func start(_ device: Descriptor, features: UInt64 = VirtioFeature.version1) throws {
        try accept(features, device)
        try set(status: 7, device)
        #expect(notify(device.address))
    }

    /// Puts one request into a queue that had `index` before: bytes to read, then room to write.
    func put(_ bytes: [UInt8], room: Int, _ queue: Descriptor.Queue, index: UInt16 = 0) throws {
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
        try memory.store(index &+ 1, at: GuestPhysicalAddress(queue.available + 2))
    }

    /// What is in the room of the last request, when it is done.
    func waitUsed(
        _ queue: Descriptor.Queue, index: UInt16 = 1, room: Int = 0, _ location: SourceLocation = #_sourceLocation
    ) throws -> [UInt8] {
        try wait(location) { try memory.load(at: GuestPhysicalAddress(queue.used + 2), as: UInt16.self) == index }
        return try memory.bytes(0x71000, room)
    }
}

/// One descriptor, read by what docs/lguest-abi.md says and nothing else.
struct Descriptor {
    struct Queue: Equatable {
        let entries: UInt16
        let irq: Int
        let ring: UInt64

        var available: UInt64 { ring + 16 * UInt64(entries) }
        /// At the next multiple of 4096.
        var used: UInt64 { (available + 6 + 2 * UInt64(entries) + 4095) & ~4095 }
    }

    let address: UInt64
    let type: UInt8
    let queues: [Queue]
    let features: UInt64
    let featureBytes: UInt64
    let configurationBytes: UInt64

    /// Nil at the end of the page.
    init?(at address: UInt64, _ memory: GuestMemory) throws {
        let header = try memory.bytes(address, 5)
        if header[0] == 0 { return nil }
        self.address = address
        type = header[0]
        featureBytes = UInt64(header[2])
        configurationBytes = UInt64(header[3])
        queues = try (0..<Int(header[1])).map { index in
            let bytes = try memory.bytes(address + 5 + UInt64(index) * 8, 8).map { UInt64($0) }
            return Queue(
                entries: UInt16(bytes[0] | bytes[1] << 8), irq: Int(bytes[2] | bytes[3] << 8),
                ring: (bytes[4] | bytes[5] << 8 | bytes[6] << 16 | bytes[7] << 24) * 4096)
        }
        features = try memory.load(at: GuestPhysicalAddress(address + 5 + UInt64(queues.count) * 8), as: UInt64.self)
    }

    var status: UInt64 { address + 4 }
    var offered: UInt64 { address + 5 + UInt64(queues.count) * 8 }
    var accepted: UInt64 { offered + featureBytes }
    var configuration: UInt64 { accepted + featureBytes }
    var end: UInt64 { configuration + configurationBytes }
}
