import GuestMemory
import Virtio
import VirtioTesting

/// Rules 4 to 12: what a driver can do wrong with a queue.
extension HostileCase {
    static let rings = indices + chains + indirect + buffers + events

    /// Where hostile descriptors may point; a canary otherwise.
    private static let somewhere: UInt64 = 0x8_0000
    /// What lies behind a table, in case somebody looks: allocations are that far apart.
    private static let good = Descriptor(somewhere, 1)
    private static let (next, write, table) = (Descriptor.next, Descriptor.write, Descriptor.indirect)

    /// A chain of descriptors, from 0 on, that is a breach of a rule.
    private static func chain(
        _ rule: Int, _ name: String, features: UInt64 = .max, _ verdict: Verdict = .needsReset,
        _ descriptors: @escaping @Sendable (_ driver: GuestDriver, _ queue: DriverQueue) throws -> [Descriptor]
    ) -> HostileCase {
        HostileCase(rule, name, features: features, verdict) { driver, device in
            let queue = driver.queues[device.queue]
            for (index, descriptor) in try descriptors(driver, queue).enumerated() {
                try queue.set(UInt16(index), descriptor)
            }
            try queue.offer(0)
            try queue.publish()
            driver.notify(device.queue)
        }
    }

    /// The same with the chain in an indirect table.
    private static func indirectChain(
        _ rule: Int, _ name: String, _ descriptors: @escaping @Sendable (_ queue: DriverQueue) -> [Descriptor]
    ) -> HostileCase {
        chain(rule, name) { driver, queue in
            let descriptors = descriptors(queue)
            let place = driver.allocate(16 * descriptors.count + 16)
            for (index, descriptor) in (descriptors + [good]).enumerated() {
                try queue.set(UInt16(index), descriptor, inTable: place)
            }
            return [Descriptor(place, UInt32(16 * descriptors.count), flags: table)]
        }
    }

    // MARK: Rules 4 and 6

    /// An available index that cannot be, `step` on from where it was.
    private static func jump(_ name: String, by step: @escaping @Sendable (_ size: UInt16) -> UInt16) -> HostileCase {
        HostileCase(6, name, .needsReset) { driver, device in
            let queue = driver.queues[device.queue]
            try driver.perform(device.request, on: queue)
            queue.nextAvailable &+= step(queue.size)
            try queue.publish()
            driver.notify(device.queue)
        }
    }

    private static let indices: [HostileCase] = [
        HostileCase(4, "good requests behind a bad one", .needsReset) { driver, device in
            let queue = driver.queues[device.queue]
            try driver.perform(device.request, on: queue)
            try queue.set(queue.size - 1, Descriptor(.max, 1))
            try queue.offer(queue.size - 1)
            let buffers = try driver.buffers(device.request)
            for _ in 0..<4 { try queue.add(buffers.map { Buffer($0.address, $0.count, isWritable: $0.isWritable) }) }
            for _ in 0..<100 { driver.notify(device.queue) }
        },
        HostileCase(4, "another life without a reset", .needsReset) { driver, device in
            let queue = driver.queues[device.queue]
            try queue.offer(queue.size)
            try queue.publish()
            driver.notify(device.queue)
            guard driver.wait({ driver.status.contains(.needsReset) }) else { return }
            for bit in [DeviceStatus.acknowledge, .driver, .featuresOK, .driverOK] {
                driver.write(.status, bit.rawValue)
            }
            driver.announce(try driver.layOut(queue: device.queue, size: 2).layout, queue: device.queue)
        },
        jump("an available index that jumps by one too many", by: { $0 + 1 }),
        jump("an available index that jumps by half its range") { _ in 0x8000 },
        jump("an available index that goes back") { _ in .max },
        jump("an available index that goes back by the queue's size") { 0 &- $0 },
    ]

    // MARK: Rule 7

    private static let chains: [HostileCase] = [
        HostileCase(7, "a head beyond the table", .needsReset) { driver, device in
            let queue = driver.queues[device.queue]
            try queue.set(queue.size, good)
            try queue.offer(queue.size)
            try queue.publish()
            driver.notify(device.queue)
        },
        HostileCase(7, "a head far beyond the table", .needsReset) { driver, device in
            let queue = driver.queues[device.queue]
            try queue.offer(.max)
            try queue.publish()
            driver.notify(device.queue)
        },
        chain(7, "a descriptor that leads to itself") { _, _ in [Descriptor(somewhere, 1, flags: next, next: 0)] },
        chain(7, "a chain of writable buffers that runs in a circle") { _, _ in
            [
                Descriptor(somewhere, 16, flags: next | write, next: 1),
                Descriptor(somewhere + 16, 16, flags: next | write, next: 0),
            ]
        },
        chain(7, "a circle of nothing") { _, _ in
            [Descriptor(somewhere, 0, flags: next, next: 1), Descriptor(somewhere, 0, flags: next, next: 0)]
        },
        chain(7, "a chain that leads out of the table") { _, queue in
            try queue.set(queue.size, good)
            return [Descriptor(somewhere, 1, flags: next, next: queue.size)]
        },
        chain(7, "a chain that leads far out of the table") { _, _ in
            [Descriptor(somewhere, 1, flags: next, next: .max)]
        },
        indirectChain(7, "an indirect chain in a circle") { _ in
            [
                Descriptor(somewhere, 1, flags: next | write, next: 1),
                Descriptor(somewhere, 1, flags: next | write, next: 0),
            ]
        },
        indirectChain(7, "an indirect chain that leads out of its table") { _ in
            // It would not lead out of the queue's, and there is a good one.
            [Descriptor(somewhere, 1, flags: next, next: 1)]
        },
    ]

    // MARK: Rule 8

    /// An indirect table of so many bytes.
    private static func length(_ name: String, _ length: @escaping @Sendable (_ size: UInt32) -> UInt32) -> HostileCase
    {
        chain(8, name) { driver, queue in
            [Descriptor(try tableOfSingles(driver, queue), length(UInt32(queue.size)), flags: table)]
        }
    }

    /// One readable byte and the end of a chain, again and again.
    private static func tableOfSingles(_ driver: GuestDriver, _ queue: DriverQueue) throws -> UInt64 {
        let place = driver.allocate(4096)
        for index: UInt16 in 0..<256 { try queue.set(index, Descriptor(somewhere, 1), inTable: place) }
        return place
    }

    private static let indirect: [HostileCase] = [
        chain(8, "an indirect table that was not negotiated", features: ~VirtioFeature.indirectDescriptors) {
            [Descriptor(try tableOfSingles($0, $1), 16, flags: table)]
        },
        length("an indirect table of nothing") { _ in 0 },
        length("an indirect table of half a descriptor") { _ in 8 },
        length("an indirect table of a descriptor and a byte") { _ in 17 },
        length("an indirect table longer than the queue") { 16 * ($0 + 1) },
        length("an indirect table of 65536 descriptors") { _ in 16 * 65536 },
        length("an indirect table of 65537 descriptors") { _ in 16 * 65537 },
        length("an indirect table of 4 GiB") { _ in ~15 },
        chain(8, "an indirect table with a next") {
            [Descriptor(try tableOfSingles($0, $1), 16, flags: table | next, next: 1), Descriptor(somewhere, 1)]
        },
        indirectChain(8, "an indirect table in an indirect table") { _ in
            [Descriptor(somewhere, 16, flags: table), Descriptor(somewhere, 1)]
        },
        indirectChain(8, "an indirect table at the end of an indirect chain") { _ in
            [Descriptor(somewhere, 1, flags: next, next: 1), Descriptor(somewhere, 16, flags: table)]
        },
        chain(8, "an indirect table over the end of RAM") { driver, _ in
            [Descriptor(driver.memory.lowEnd - 16, 32, flags: table)]
        },
        chain(8, "an indirect table in a device's window") { _, _ in [Descriptor(GuestDriver.window, 16, flags: table)]
        },
        chain(8, "an indirect table where addresses end") { _, _ in [Descriptor(0 &- 16, 32, flags: table)] },
    ]

    // MARK: Rule 9

    /// A buffer that is not there, to be read, to be written, and behind a good one.
    private static func buffer(
        _ name: String, _ length: UInt32, _ address: @escaping @Sendable (_ end: UInt64) -> UInt64
    ) -> [HostileCase] {
        [
            chain(9, "to be read: \(name)") { driver, _ in [Descriptor(address(driver.memory.lowEnd), length)] },
            chain(9, "to be written: \(name)") { driver, _ in
                [Descriptor(address(driver.memory.lowEnd), length, flags: write)]
            },
            chain(9, "to be written after others: \(name)") { driver, _ in
                [
                    Descriptor(somewhere, 16, flags: next, next: 1),
                    Descriptor(somewhere + 4096, 64, flags: write | next, next: 2),
                    Descriptor(address(driver.memory.lowEnd), length, flags: write),
                ]
            },
        ]
    }

    private static let buffers: [HostileCase] =
        [
            chain(9, "a readable buffer after a writable one") { _, _ in
                [Descriptor(somewhere, 64, flags: write | next, next: 1), Descriptor(somewhere + 64, 64)]
            },
            indirectChain(9, "the same in an indirect table") { _ in
                [Descriptor(somewhere, 64, flags: write | next, next: 1), Descriptor(somewhere + 64, 64)]
            },
            chain(9, "the same across a table's border") { driver, queue in
                let place = driver.allocate(16)
                try queue.set(0, Descriptor(somewhere, 1), inTable: place)
                return [Descriptor(somewhere, 1, flags: write | next, next: 1), Descriptor(place, 16, flags: table)]
            },
        ]
        + buffer("over the end of RAM", 2) { $0 - 1 }
        + buffer("behind RAM", 1) { $0 }
        + buffer("all of RAM and a byte", UInt32(GuestDriver.memoryBytes + 1)) { _ in 0 }
        + buffer("4 GiB from the middle", .max) { _ in somewhere }
        + buffer("in the device's window", 4) { _ in GuestDriver.window }
        + buffer("over the end of addresses", 32) { _ in 0 &- 16 }
        + buffer("far away", 1) { _ in 1 << 63 | somewhere }

    // MARK: Rules 11 and 12

    /// Good requests, each with another lie in a word that only says who wants to be told.
    private static func lies(
        _ rule: Int, _ name: String, features: UInt64, interrupts: Bool,
        _ lie: @escaping @Sendable (_ queue: DriverQueue, _ round: UInt16) throws -> Void
    ) -> HostileCase {
        HostileCase(rule, name, features: features, .used) { driver, device in
            let queue = driver.queues[device.queue]
            for round in 0..<16 as Range<UInt16> {
                try lie(queue, round)
                driver.acknowledge()
                let rises = driver.interrupt.rises
                try driver.perform(device.request, on: queue)
                if interrupts, !driver.wait({ driver.interrupt.rises > rises }) { throw DriverError("no interrupt") }
            }
        }
    }

    private static let events: [HostileCase] = [
        HostileCase(11, "room for more than anybody would write", .used) { driver, device in
            // `DriverQueue.takeUsed` looks at the lengths.
            let queue = driver.queues[device.queue]
            let place = driver.allocate(0x4_0000)
            let readable = try driver.buffers(device.request).filter { !$0.isWritable }
            try queue.add(readable + [Buffer(place, 0x4_0000, isWritable: true)])
            driver.notify(device.queue)
        },
        lies(12, "NO_INTERRUPT where there is an event index", features: .max, interrupts: true) { queue, round in
            try queue.ram.storeShared(1, at: queue.availableFlags)
            try queue.ram.storeShared(round, at: queue.usedEvent)
        },
        lies(12, "event indices of nonsense", features: .max, interrupts: false) { queue, round in
            try queue.ram.storeShared(round &* 0x1357 &+ 0x7ff0, at: queue.usedEvent)
        },
        lies(12, "an event index where there is none", features: ~VirtioFeature.eventIndex, interrupts: true) {
            queue, round in
            try queue.ram.storeShared(0, at: queue.availableFlags)
            try queue.ram.storeShared(round &+ 0x7000, at: queue.usedEvent)
        },
        lies(12, "flags of nonsense", features: ~VirtioFeature.eventIndex, interrupts: false) { queue, round in
            try queue.ram.storeShared(~0 << round, at: queue.availableFlags)
        },
        HostileCase(12, "the used ring's own words, written by the driver", .used) { driver, device in
            let queue = driver.queues[device.queue]
            for value: UInt16 in [0, 1, 0x7fff, 0xffff] {
                try queue.ram.storeShared(value, at: queue.usedFlags)
                try queue.ram.storeShared(value, at: queue.availableEvent)
                try driver.perform(device.request, on: queue)
            }
        },
    ]
}
