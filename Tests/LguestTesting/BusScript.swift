internal import GuestMemory
internal import Lguest
internal import Virtio
internal import VirtioDevices
internal import VirtioTesting

/// What a Guest does to its descriptor page, its rings and NOTIFY, written in
/// bytes. After it the devices must serve the next driver.
package struct BusScript {
    private var script: ScriptBytes

    package init(_ bytes: [UInt8]) { script = ScriptBytes(bytes) }

    /// - Throws: if the devices do not work afterwards.
    package mutating func run() throws {
        let bus = try BusGuest([EchoDevice(), Entropy(), Console()])
        while !script.isOver, bus.guest.guest.death == nil { try act(on: bus) }
        guard bus.guest.guest.death == nil else { return }
        for device in bus.devices {
            try bus.set(status: 0, device)
            bus.notify(device.address)
            let status = try bus.status(device)
            guard status == 0 else { throw DriverError("after a reset the status is \(status)") }
            try bus.start(device)
            // What the console wants to be given is printed; the others write.
            let isConsole = device.configurationBytes == 4
            let queue = device.queues[isConsole ? 1 : 0]
            try bus.put(device.type == 4 ? [] : [1, 2, 3], room: isConsole ? 0 : 16, queue)
            bus.notify(queue.ring)
            _ = try bus.waitUsed(queue)
        }
    }

    private mutating func act(on bus: BusGuest) throws {
        let device = script.pick(bus.devices)
        let queue = script.pick(device.queues)
        switch script.byte() & 15 {
        case 0: try bus.memory.put(script.bytes(Int(script.byte() & 15)), BusGuest.ramBytes + script.number(2) % 4064)
        case 1: try bus.set(status: script.byte(), device)
        case 2: try bus.set(status: script.pick([0, 1, 3, 7, 11, 15, 64, 128]), device)
        case 3:
            let some = script.number(8)
            try bus.accept(script.pick([device.features, VirtioFeature.version1, VirtioFeature.ring, some]), device)
        case 4, 5: bus.notify(device.address)
        case 6, 7: bus.notify(queue.ring)
        case 8: bus.notify(script.number(3))
        case 9: bus.notify(bus.memory.byteCount &- 8 &+ UInt64(script.byte() & 15))
        case 10: try bus.memory.put(script.bytes(8), device.configuration)
        case 11, 12: try writeDescriptor(bus, queue)
        case 13:
            let slot = script.number(2) % UInt64(queue.entries)
            let head = UInt16(truncatingIfNeeded: script.number(2)) % (queue.entries + 1)
            try bus.memory.store(head, at: GuestPhysicalAddress(queue.available + 4 + slot * 2))
        case 14:
            let index = try bus.memory.load(at: GuestPhysicalAddress(queue.available + 2), as: UInt16.self)
            try bus.memory.store(index &+ UInt16(script.byte() & 3), at: GuestPhysicalAddress(queue.available + 2))
        default:
            try bus.memory.put(script.bytes(Int(script.byte() & 15)), queue.ring + script.number(2) % 8000)
            _ = bus.guest.takeInterrupts()
        }
    }

    private mutating func writeDescriptor(_ bus: BusGuest, _ queue: DeviceDescription.Queue) throws {
        let place = GuestPhysicalAddress(queue.ring + script.number(1) % UInt64(queue.entries) * 16)
        let far = bus.memory.byteCount &- UInt64(script.byte())
        try bus.memory.store(script.pick([0x70000, 0x70000 + script.number(1), far, queue.ring]), at: place)
        try bus.memory.store(UInt32(script.pick([0, 1, 16, 64, 4096, script.number(4) & 0xffff_ffff])), at: place + 8)
        try bus.memory.store(UInt16(script.byte() & 7), at: place + 12)
        try bus.memory.store(UInt16(script.byte()) % (queue.entries + 1), at: place + 14)
    }
}
