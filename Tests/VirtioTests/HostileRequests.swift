import GuestMemory
import HostInterface
import Virtio
import VirtioTesting

/// Rules 5, 10, 14 and 15: what a driver can do wrong with requests of any device.
extension HostileCase {
    static let requests =
        [
            HostileCase(5, "a reset behind a notification", .ignored) { driver, device in
                for round in 0..<50 {
                    let queue = driver.queues[device.queue]
                    let buffers = try driver.buffers(device.request)
                    while queue.freeDescriptors >= buffers.count { try queue.add(buffers) }
                    driver.notify(device.queue)
                    if round % 2 == 0 { _ = try driver.waitUsed(queue) }
                    driver.write(.status, 0)
                    let stray = try driver.ram.strayWrites()
                    if !stray.isEmpty { throw DriverError("it wrote to \(stray)") }
                    try driver.bringUp()
                }
            },
            HostileCase(5, "resets without end", .ignored) { driver, _ in
                for _ in 0..<100 {
                    try driver.bringUp()
                    driver.write(.status, 0)
                }
                try driver.bringUp()
            },
            HostileCase(10, "a request that changes after it was made", .answered) { driver, device in
                let queue = driver.queues[device.queue]
                let buffers = try driver.buffers(device.request)
                while queue.freeDescriptors >= buffers.count { try queue.add(buffers) }
                driver.notify(device.queue)
                // Too late or not, the device answers to what it has read.
                for buffer in buffers where !buffer.isWritable {
                    try hammer(driver.memory, buffer.address, count: buffer.count)
                }
                try driver.ram.acceptAll()
                driver.ram.allow(0, GuestDriver.memoryBytes)
            },
            // How much the host takes for it is `HostMemoryTests`' question.
            HostileCase(14, "28 MiB to be written", .answered) { try huge($0, $1, isWritable: true) },
            HostileCase(14, "28 MiB to be read", .answered) { try huge($0, $1, isWritable: false) },
            HostileCase(15, "buffers of no bytes", .answered) { driver, device in
                let queue = driver.queues[device.queue]
                let place = driver.allocate(16)
                try queue.add([Buffer(place, 0, isWritable: false)])
                try queue.add([Buffer(place, 0, isWritable: true)])
                driver.notify(device.queue)
            },
            HostileCase(15, "a request that is cut short", .answered) { driver, device in
                let queue = driver.queues[device.queue]
                for count in 0..<device.request.readable.count where queue.freeDescriptors >= 2 {
                    var short = device.request
                    short.readable = Array(device.request.readable.prefix(count))
                    let buffers = try driver.buffers(short)
                    if !buffers.isEmpty { try queue.add(buffers) }
                }
                driver.notify(device.queue)
            },
            HostileCase(15, "a request without room for the answer", .answered) { driver, device in
                let queue = driver.queues[device.queue]
                for count in 0..<min(device.request.writable, 20) where queue.freeDescriptors >= 2 {
                    var short = device.request
                    short.writable = count
                    let buffers = try driver.buffers(short)
                    if !buffers.isEmpty { try queue.add(buffers) }
                }
                driver.notify(device.queue)
            },
        ]
        + Cut.allCases.map { cut in
            HostileCase(15, "a request cut into buffers: \(cut)", .used) { driver, device in
                // As many buffers as this takes; a direct chain can be no longer than the queue.
                try driver.bringUp(queueSize: 1024)
                let queue = driver.queues[device.queue]
                let longest = max(device.request.readable.count + device.request.writable, 4)
                let isFit = longest <= Int(queue.size)
                try driver.perform(device.request, on: queue, cut: isFit ? cut : .ends)
            }
        }

    /// One chain of as many large buffers as the queue is long; they are all the same.
    static func huge(_ driver: GuestDriver, _ device: TestedDevice, isWritable: Bool) throws {
        let queue = driver.queues[device.queue]
        let buffer = Buffer(driver.allocate(0x7_0000), 0x7_0000, isWritable: isWritable)
        try queue.add([Buffer](repeating: buffer, count: Int(queue.size)))
        driver.notify(device.queue)
    }

    /// Changes bytes of RAM for a while, without a word to anybody.
    private static func hammer(_ memory: GuestMemory, _ address: UInt64, count: Int) throws {
        for round in 0..<2000 {
            try memory.store(
                UInt8(truncatingIfNeeded: round &* 77), at: GuestPhysicalAddress(address + UInt64(round % count)))
        }
    }
}
