import GuestMemory
import Virtio
import VirtioTesting

/// Rules 1 to 3: what a driver can do wrong before its device starts.
extension HostileCase {
    static let setUp = features + steps + widths + layouts

    private static let version1: UInt64 = 1 << 32

    private static let features: [HostileCase] = [
        HostileCase(1, "features before DRIVER", at: .reset, .refused) { driver, _ in
            driver.add(.acknowledge)
            driver.accept(driver.offered)
            driver.add(.driver)
            driver.add(.featuresOK)
        },
        HostileCase(1, "a feature after FEATURES_OK", features: ~VirtioFeature.indirectDescriptors, .needsReset) {
            driver, device in
            driver.accept(driver.offered)
            // It does not count, and so an indirect table is none.
            let queue = driver.queues[device.queue]
            let buffers = try driver.buffers(device.request)
            try queue.add(buffers, table: driver.allocate(16 * buffers.count))
            driver.notify(device.queue)
        },
        HostileCase(1, "no VERSION_1", at: .reset, .refused) { driver, _ in
            driver.negotiate(driver.offered & ~version1)
        },
        HostileCase(1, "no features at all", at: .reset, .refused) { driver, _ in driver.negotiate(0) },
        HostileCase(1, "every feature there is", at: .reset, .refused) { driver, _ in driver.negotiate(.max) },
        HostileCase(1, "each feature that is not offered", at: .reset, .refused) { driver, _ in
            let offered = driver.offered
            for bit in 0..<64 where offered >> UInt64(bit) & 1 == 0 {
                try driver.reset()
                if driver.negotiate(offered | 1 << UInt64(bit)) { return }
            }
        },
        HostileCase(1, "features in a third half", at: .reset, .refused) { driver, _ in
            driver.add(.acknowledge)
            driver.add(.driver)
            for half: UInt32 in [2, 3, 32, 0x8000_0001, .max] {
                driver.write(.driverFeaturesSelect, half)
                driver.write(.driverFeatures, 1)
                driver.write(.deviceFeaturesSelect, half)
                if driver.read(.deviceFeatures) != 0 { throw DriverError("features in half \(half)") }
            }
            driver.add(.featuresOK)
        },
        HostileCase(1, "FEATURES_OK and nothing else", at: .reset, .refused) { driver, _ in
            driver.write(.status, DeviceStatus.featuresOK.rawValue)
        },
    ]

    private static let steps: [HostileCase] = [
        HostileCase(2, "DRIVER_OK without FEATURES_OK", at: .reset, .ignored) { driver, device in
            driver.add(.acknowledge)
            driver.add(.driver)
            driver.accept(driver.offered)
            try driver.setUpQueues()
            driver.add(.driverOK)
            if driver.status.contains(.driverOK) { throw DriverError("DRIVER_OK stands") }
            let queue = driver.queues[device.queue]
            try queue.add(try driver.buffers(device.request))
            driver.notify(device.queue)
        },
        HostileCase(2, "queues before FEATURES_OK", at: .reset, .ignored) { driver, device in
            driver.add(.acknowledge)
            driver.add(.driver)
            try driver.setUpQueues()
            driver.accept(driver.offered)
            driver.add(.featuresOK)
            driver.write(.queueSelect, UInt32(device.queue))
            if driver.read(.queueReady) != 0 { throw DriverError("the queue is ready") }
        },
        HostileCase(2, "a queue that moves while the device runs", .ignored) { driver, device in
            let elsewhere = try driver.layOut(queue: device.queue, size: 2)
            driver.announce(elsewhere.layout, queue: device.queue)
            driver.write(.queueReady, 0)
            if driver.read(.queueReady) != 1 { throw DriverError("the queue is not ready any more") }
        },
        HostileCase(2, "a queue that moves while it is ready", at: .featuresOK, .ignored) { driver, device in
            try driver.setUpQueues()
            let elsewhere = try driver.layOut(queue: device.queue, size: 2)
            driver.announce(elsewhere.layout, queue: device.queue)
            driver.add(.driverOK)
        },
        HostileCase(2, "queues that are not there", .ignored) { driver, _ in
            for index in [driver.queues.count, 1000, 0x1_0000, Int(Int32.max), 0x8000_0000, Int(UInt32.max)] {
                driver.write(.queueSelect, UInt32(index))
                guard driver.read(.queueSizeMaximum) == 0 else { throw DriverError("there is a queue \(index)") }
                driver.announce(driver.queues[0].layout, queue: index)
                if driver.read(.queueReady) != 0 { throw DriverError("queue \(index) is ready") }
                driver.write(.queueNotify, UInt32(index))
            }
        },
        HostileCase(2, "a device without queues", at: .featuresOK, .ignored) { driver, _ in
            driver.add(.driverOK)
            for index: UInt32 in 0..<4 { driver.write(.queueNotify, index) }
        },
        HostileCase(2, "notifications before DRIVER_OK", at: .featuresOK, .ignored) { driver, device in
            try driver.setUpQueues()
            for _ in 0..<100 { driver.notify(device.queue) }
            driver.add(.driverOK)
        },
        HostileCase(2, "a status that is taken back", .ignored) { driver, _ in
            let status = driver.status
            for bits: UInt32 in [1, 2, 4, 8, 3, 0x40, 0x10, 0x100, 0xffff_ff00] {
                driver.write(.status, bits)
                if driver.status != status { throw DriverError("\(bits) made status \(driver.status.rawValue)") }
            }
        },
        HostileCase(2, "DRIVER_OK, again and again", .ignored) { driver, _ in
            for _ in 0..<10 { driver.write(.status, driver.status.rawValue) }
        },
        HostileCase(2, "a configuration beyond its end", .ignored) { driver, _ in
            for bytes in [1, 2, 4, 8] {
                for offset in 0x100...0xff8 as ClosedRange<UInt64> {
                    let old = driver.read(offset: offset, bytes: bytes)
                    if offset >= 0x800 { driver.write(offset: offset, bytes: bytes, ~0) }
                    if offset >= 0x800, old != 0 { throw DriverError("configuration at \(offset)") }
                }
            }
        },
        HostileCase(2, "a configuration before DRIVER", at: .reset, .ignored) { driver, _ in
            let before = (0..<64).map { driver.read(offset: 0x100 + $0, bytes: 1) }
            for offset in 0..<64 as Range<UInt64> { driver.write(offset: 0x100 + offset, bytes: 1, 0xa5) }
            let after = (0..<64).map { driver.read(offset: 0x100 + $0, bytes: 1) }
            if after != before { throw DriverError("the configuration has changed") }
        },
    ]

    private static let widths: [HostileCase] = [
        HostileCase(2, "registers of another width", .ignored) { driver, _ in
            for offset in 0..<0x100 as Range<UInt64> {
                for bytes in [1, 2, 8] {
                    driver.write(offset: offset, bytes: bytes, 0)
                    driver.write(offset: offset, bytes: bytes, ~0)
                    if driver.read(offset: offset, bytes: bytes) != 0 {
                        throw DriverError("\(bytes) bytes at \(offset)")
                    }
                }
                guard offset % 4 != 0 else { continue }
                driver.write(offset: offset, 0)
                if driver.read(offset: offset) != 0 { throw DriverError("4 bytes at \(offset)") }
            }
        },
        HostileCase(2, "registers that are not there, or only to be read", .ignored) { driver, _ in
            let writable: [Register] = [
                .deviceFeaturesSelect, .driverFeaturesSelect, .driverFeatures, .queueSelect, .queueNotify,
                .interruptAcknowledge, .status,
            ]
            for offset in stride(from: UInt64(0), to: 0x100, by: 4) {
                let register = Register(rawValue: offset)
                if register.map({ writable.contains($0) }) ?? false { continue }
                let before = driver.read(offset: offset)
                for value: UInt64 in [0, 1, 0x8000_0000, 0xffff_ffff] { driver.write(offset: offset, value) }
                if driver.read(offset: offset) != before { throw DriverError("the register at \(offset) has changed") }
            }
        },
    ]

    // MARK: Rule 3

    /// A queue that no device can use.
    private static func layout(
        _ name: String,
        _ spoil: @escaping @Sendable (inout QueueLayout, _ driver: GuestDriver, _ maximum: UInt16) -> Void
    ) -> HostileCase {
        HostileCase(3, name, at: .featuresOK, .needsReset) { driver, device in
            let maximum = driver.maximumSize(ofQueue: device.queue)
            var layout = try driver.layOut(queue: device.queue, size: maximum).layout
            spoil(&layout, driver, maximum)
            driver.announce(layout, queue: device.queue)
            if driver.read(.queueReady) != 0 { throw DriverError("the queue is ready") }
        }
    }

    private static let fields:
        [(String, alignment: UInt64, any WritableKeyPath<QueueLayout, GuestPhysicalAddress> & Sendable)] = [
            ("descriptors", 16, \.descriptors), ("available", 2, \.available), ("used", 4, \.used),
        ]

    private static let layouts: [HostileCase] =
        [
            layout("a queue of no entries") { layout, _, _ in layout.size = 0 },
            layout("a queue of three entries") { layout, _, _ in layout.size = 3 },
            layout("a queue with one entry too few for a power of two") { layout, _, maximum in
                layout.size = maximum == 1 ? 0 : maximum < 4 ? 3 : maximum - 1
            },
            layout("a queue of twice its maximum") { layout, _, maximum in layout.size = maximum * 2 },
            layout("a queue of 32768 entries") { layout, _, _ in layout.size = 32768 },
        ]
        + [UInt32(0x1_0000), 0x1_0040, 0x8000_0040, .max].map { size in
            HostileCase(3, "a queue of \(size) entries, in 32 bits", at: .featuresOK, .needsReset) { driver, device in
                let layout = try driver.layOut(queue: device.queue, size: 64).layout
                driver.announce(layout, queue: device.queue, size: size)
                if driver.read(.queueReady) != 0 { throw DriverError("the queue is ready") }
            }
        }
        + fields.flatMap { field -> [HostileCase] in
            let (name, alignment, path) = field
            let off = stride(from: UInt64(1), to: alignment, by: alignment > 4 ? 3 : 1).map { $0 }
            return off.map { off in
                layout("\(name) off by \(off)") { layout, _, _ in
                    layout[keyPath: path] = layout[keyPath: path] + off
                }
            } + [
                layout("\(name) over the end of RAM") { layout, driver, _ in
                    layout[keyPath: path] = GuestPhysicalAddress(driver.memory.lowEnd - alignment)
                },
                layout("\(name) at the end of RAM") { layout, driver, _ in
                    layout[keyPath: path] = GuestPhysicalAddress(driver.memory.lowEnd)
                },
                layout("\(name) in the device's own window") { layout, _, _ in
                    layout[keyPath: path] = GuestPhysicalAddress(GuestDriver.window)
                },
                layout("\(name) at 4 GiB") { layout, _, _ in layout[keyPath: path] = GuestPhysicalAddress(4 << 30) },
                layout("\(name) where addresses end") { layout, _, _ in
                    layout[keyPath: path] = GuestPhysicalAddress(0 &- 16)
                },
                layout("\(name) far away") { layout, _, _ in
                    layout[keyPath: path] = GuestPhysicalAddress(1 << 63 | layout[keyPath: path].rawValue)
                },
            ]
        }
}
