internal import GuestMemory
internal import Glibc
package import Virtio

/// What a driver does, written in bytes, so that noise is a driver: a seeded
/// generator's in the tests, libFuzzer's in Fuzz/Virtio. Every string of bytes
/// is a script; the common ones get as far as a device's inside.
package struct DriverScript {
    private let bytes: [UInt8]
    private var position = 0

    package init(_ bytes: [UInt8]) { self.bytes = bytes }

    private var isOver: Bool { position >= bytes.count }

    private mutating func byte() -> UInt8 {
        guard position < bytes.count else { return 0 }
        position += 1
        return bytes[position - 1]
    }

    private mutating func number(_ count: Int) -> UInt64 {
        (0..<count).reduce(0) { value, _ in value << 8 | UInt64(byte()) }
    }

    /// Mostly RAM, and then the places where a check can be wrong by one.
    private mutating func address(_ end: UInt64) -> UInt64 {
        let kind = byte()
        switch kind >> 4 {
        case 0...11: return number(2) << 3 | UInt64(kind & 7)
        case 12, 13: return end &- UInt64(byte())
        case 14: return end &+ UInt64(byte())
        default: return 0 &- UInt64(byte())
        }
    }

    private mutating func length() -> UInt32 {
        let kind = byte()
        switch kind >> 5 {
        case 0...3: return UInt32(byte())
        case 4: return UInt32(byte()) << 4
        case 5: return UInt32(number(2))
        case 6: return UInt32(number(3))
        default: return .max - UInt32(byte())
        }
    }

    private mutating func descriptor(_ size: UInt16, _ end: UInt64) -> Descriptor {
        let shape = byte()
        let next = shape >> 3 < 28 ? UInt16(shape >> 3) % max(size, 1) : UInt16(number(2))
        return Descriptor(address(end), length(), flags: UInt16(shape & 7), next: next)
    }

    /// Something that is done to a queue alone.
    private mutating func act(on queue: DriverQueue, _ end: UInt64) throws {
        let table = (end / 2) & ~0xfff
        switch byte() & 7 {
        case 0, 1: try queue.set(UInt16(byte()) % queue.size, descriptor(queue.size, end))
        case 2: try queue.set(UInt16(byte() & 63), descriptor(queue.size, end), inTable: table + UInt64(byte() & 3) * 8)
        case 3:
            let head = byte()
            try queue.offer(head < 0xf0 ? UInt16(head) % queue.size : UInt16(number(2)))
            try queue.publish()
        case 4:
            queue.nextAvailable &+= UInt16(truncatingIfNeeded: number(byte() & 1 == 0 ? 1 : 2))
            try queue.publish()
        case 5: try queue.ram.storeShared(UInt16(number(2)), at: queue.usedEvent)
        case 6: try queue.ram.storeShared(UInt16(byte()), at: queue.availableFlags)
        default:
            // A whole chain in the table of tables.
            let count = 1 + UInt16(byte() & 7)
            for index in 0..<count {
                var descriptor = descriptor(queue.size, end)
                descriptor.flags = descriptor.flags & Descriptor.write | (index + 1 < count ? Descriptor.next : 0)
                descriptor.next = index + 1
                try queue.set(index, descriptor, inTable: table)
            }
            let head = UInt16(byte()) % queue.size
            try queue.set(head, Descriptor(table, 16 * UInt32(count), flags: Descriptor.indirect))
            try queue.offer(head)
            try queue.publish()
        }
    }

    // MARK: Against a queue

    /// - Returns: the breach that ended it, if one did.
    package mutating func run(on queue: BareQueue) throws -> DriverBreach? {
        let end = queue.ram.memory.lowEnd
        var held: [DescriptorChain] = []
        while !isOver {
            let action = byte()
            if action < 0xb0 {
                try act(on: queue.driver, end)
                continue
            }
            do throws(DriverBreach) {
                while let chain = try queue.device.next() { held.append(chain) }
            } catch { return error }
            while held.count > Int(action & 3) {
                let chain = held.remove(at: Int(action) % held.count)
                queue.device.complete(chain, written: Self.exhaust(chain, action))
            }
            queue.device.interruptIfWanted()
            if action & 8 != 0 { queue.device.suppressNotifications() } else { _ = queue.device.wantNotifications() }
        }
        return nil
    }

    /// Touches every byte: what is no RAM faults.
    private static func exhaust(_ chain: DescriptorChain, _ value: UInt8) -> Int {
        precondition(chain.readable.byteCount + chain.writable.byteCount <= 1 << 32)
        var buffer = [UInt8](repeating: value, count: 1 << 16)
        while unsafe buffer.withUnsafeMutableBytes({ unsafe chain.readable.read(into: $0) }) > 0 {}
        let limit = chain.writable.byteCount
        var written = 0
        while written < limit {
            let count = unsafe buffer.withUnsafeBytes { unsafe chain.writable.write($0) }
            precondition(count > 0)
            written += count
        }
        return written
    }

    // MARK: Against a device

    package mutating func run(on driver: GuestDriver, _ device: TestedDevice) throws {
        let end = driver.memory.lowEnd
        while !isOver {
            let action = byte()
            switch action {
            case 0..<0x50:
                guard let queue = pick(driver, device, action) else { continue }
                try act(on: queue, end)
            case 0x50..<0x70: driver.notify(Int(action & 3))
            case 0x70..<0xa0:
                guard let queue = pick(driver, device, action) else { continue }
                try request(driver, device, queue)
            case 0xa0..<0xb0: settle(driver, device)
            case 0xb0..<0xc8:
                let register = Register.allCases[Int(byte()) % Register.allCases.count]
                driver.write(register, UInt32(truncatingIfNeeded: byte() & 1 == 0 ? address(end) : UInt64(length())))
            case 0xc8..<0xd8:
                let bytes = 1 << Int(byte() & 3)
                driver.write(offset: number(2) % (0x1000 - 8), bytes: bytes, number(bytes))
            case 0xd8..<0xe0: _ = driver.read(offset: number(2) % (0x1000 - 8), bytes: 1 << Int(byte() & 3))
            case 0xe0..<0xe4: driver.acknowledge()
            case 0xe4..<0xe8: driver.add(DeviceStatus(rawValue: UInt32(byte())))
            case 0xe8..<0xf0:
                driver.announce(driver.queues.first?.layout ?? QueueLayout(), queue: Int(byte() & 7), size: length())
            default: try begin(driver)
            }
        }
    }

    private func pick(_ driver: GuestDriver, _ device: TestedDevice, _ action: UInt8) -> DriverQueue? {
        if driver.queues.isEmpty { return nil }
        return driver.queues[action & 7 == 0 ? Int(action >> 3) % driver.queues.count : device.queue]
    }

    private mutating func begin(_ driver: GuestDriver) throws {
        let shape = byte()
        var features = UInt64.max
        if shape & 1 != 0 { features &= ~VirtioFeature.eventIndex }
        if shape & 2 != 0 { features &= ~VirtioFeature.indirectDescriptors }
        if shape & 4 != 0 { features &= VirtioFeature.ring }
        do { try driver.bringUp(features: features, queueSize: 1 << UInt16(shape >> 5)) } catch is DriverError {}
    }

    /// The device's good request, or what has become of it.
    private mutating func request(_ driver: GuestDriver, _ device: TestedDevice, _ queue: DriverQueue) throws {
        let shape = byte()
        guard driver.room > 1 << 16 else { return }
        var request = device.request
        for _ in 0..<shape & 3 where !request.readable.isEmpty {
            request.readable[Int(byte()) % request.readable.count] = byte()
        }
        if shape & 4 != 0 { request.readable = Array(request.readable.prefix(Int(byte()))) }
        if shape & 8 != 0 { request.writable = Int(byte()) }
        let buffers = try driver.buffers(request, cut: shape & 16 == 0 ? .whole : .ends)
        let table = shape & 32 == 0 ? nil : driver.allocate(16 * max(buffers.count, 1))
        do { try queue.add(buffers, table: table) } catch is DriverError { return }
        driver.notify(queue.index)
        if shape & 64 != 0 { settle(driver, device) }
    }

    /// Gives the device a moment, which is over when it has used a buffer.
    private func settle(_ driver: GuestDriver, _ device: TestedDevice) {
        guard driver.queues.indices.contains(device.queue) else { return }
        let queue = driver.queues[device.queue]
        let before = try? driver.ram.loadShared(at: queue.usedIndex)
        for _ in 0..<50 {
            if (try? driver.ram.loadShared(at: queue.usedIndex)) != before { break }
            if driver.status.contains(.needsReset) { break }
            usleep(10)
        }
        // Chains that were never lent come back, too.
        for _ in 0..<queue.size { _ = try? queue.takeUsed() }
    }
}
