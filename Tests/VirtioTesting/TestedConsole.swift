internal import Virtio
internal import VirtioDevices

extension TestedDevice {
    package static let consoleOut = TestedDevice("console-out", queue: 1, request: .print, cases: consoleCases) {
        let console = Console()
        console.onPrint { bytes in precondition(bytes.count <= 1 << 16) }
        return console
    }

    /// As much is typed as there is room for, whenever the driver notifies.
    package static let consoleIn = TestedDevice("console-in", request: .typed, answersAll: false) {
        Console()
    } nudge: {
        _ = ($0 as? Console)?.receive([UInt8](repeating: 0x78, count: Console.mostPending))
    }

    /// Rule 20: however much is printed at once, the host takes it by the piece.
    private static let consoleCases = [
        HostileCase(20, "a print of 28 MiB", .used) { driver, device in
            let queue = driver.queues[device.queue]
            let buffer = Buffer(driver.allocate(0x7_0000), 0x7_0000, isWritable: false)
            try queue.add([Buffer](repeating: buffer, count: Int(queue.size)))
            driver.notify(device.queue)
        },
        HostileCase(20, "room where something is to be printed", .used) { driver, device in
            let queue = driver.queues[device.queue]
            try queue.add([Buffer(driver.allocate(4096), 4096, isWritable: true)])
            driver.notify(device.queue)
            guard try driver.waitUsed(queue).written == 0 else { throw DriverError("something was written") }
        },
    ]
}

extension GoodRequest {
    fileprivate static let print = GoodRequest(readable: Array("Hello, is that the Host?\n".utf8)) { written, _ in
        written == 0
    }
    fileprivate static let typed = GoodRequest(writable: 16) { written, bytes in
        written == 16 && bytes.allSatisfy { $0 == 0x78 }
    }
}
