import CPUOracle
import GuestMemory
import HostInterface
import Synchronization
import Testing
import Virtio
import VirtioTesting

/// Descriptors and rings that another vCPU rewrites while the device reads
/// them (rule 10): each word is read once and checked, and so nothing is
/// touched but what some descriptor has named, at some time.
@Suite struct MovingTargetTests {
    /// Where descriptors point: 16 buffers of up to 4 KiB, and where there is no RAM.
    private static let named: UInt64 = 0x4_0000
    private static let namedBytes = 16 * 0x1000

    @Test(arguments: TestedDevice.all, [VirtioFeature.ring, VirtioFeature.version1])
    func nothingIsTouchedThatWasNotNamed(_ device: TestedDevice, features: UInt64) throws {
        let seed = UInt64.random(in: 0 ... .max)
        let driver = try GuestDriver(device)
        for round in 0..<20 as Range<UInt64> {
            try driver.bringUp(features: features | ~VirtioFeature.ring, queueSize: 16)
            let queue = driver.queues[device.queue]
            driver.ram.allow(queue.layout.descriptors.rawValue, 16 * Int(queue.size))
            driver.ram.allow(queue.layout.available.rawValue, 6 + 2 * Int(queue.size))
            // An indirect table, which is also a buffer's start.
            driver.ram.allow(Self.named, Self.namedBytes)
            let vandal = try Vandal(queue, driver.memory, seed: seed &+ round, named: Self.named)
            for _ in 0..<300 {
                driver.notify(device.queue)
                driver.acknowledge()
                if driver.status.contains(.needsReset) { break }
            }
            vandal.stop()
            driver.write(.status, 0)
            let stray = try driver.ram.strayWrites()
            guard stray.isEmpty else {
                Issue.record("seed \(seed), round \(round): wrote to \(stray)")
                return
            }
        }
        try driver.bringUp()
        try driver.perform(device.request, on: driver.queues[device.queue])
    }
}

/// A thread that rewrites a queue's tables for as long as it is let.
private final class Vandal {
    private final class Shared: Sendable { let isOver = Atomic(false) }
    private let shared = Shared()
    private let thread: HostThread

    init(_ queue: DriverQueue, _ memory: GuestMemory, seed: UInt64, named: UInt64) throws {
        let (shared, layout) = (shared, queue.layout)
        thread = try HostThread(name: "vandal") {
            var random = SeededGenerator(seed: seed)
            while !shared.isOver.load(ordering: .acquiring) {
                vandalize(layout, memory, &random, named)
            }
        }
    }

    func stop() {
        shared.isOver.store(true, ordering: .releasing)
        thread.join()
    }
}

/// Most of it is such that a device goes on: one that has stopped reads nothing.
private func vandalize(
    _ layout: QueueLayout, _ memory: GuestMemory, _ random: inout SeededGenerator, _ named: UInt64
) {
    func put<T: BitwiseCopyable>(_ value: T, _ place: GuestPhysicalAddress) { try? memory.store(value, at: place) }
    for _ in 0..<64 {
        // A descriptor of the queue's, or of the table that is at the first buffer.
        let inTable = random.chance(30)
        let table = inTable ? GuestPhysicalAddress(named) : layout.descriptors
        let index = UInt64(random.below(Int(layout.size)))
        let place = table + 16 * index
        let isWild = random.chance(1)
        let address = isWild ? random.next() : named + UInt64(random.below(16)) * 0x1000
        let length = UInt64(isWild ? random.below(1 << 32) : random.below(0x1000))
        let next = UInt64(isWild ? random.below(1 << 16) : random.below(Int(layout.size)))
        var flags = UInt64(random.below(4))
        if random.chance(10) { flags = 4 }
        if random.chance(60) { put(address, place) }
        let words = flags == 4 ? 16 * (1 + index) | flags << 32 : length | flags << 32 | next << 48
        if random.chance(60) { put(words, place + 8) }
        if flags == 4, !inTable { put(named, place) }
    }
    put(UInt16(random.below(Int(layout.size))), layout.available + 4 + 2 * UInt64(random.below(Int(layout.size))))
    // The index goes on by a little.
    if let index = try? memory.load(at: layout.available + 2, as: UInt16.self), random.chance(50) {
        if let used = try? memory.load(at: layout.used + 2, as: UInt16.self), index &- used < layout.size {
            put(index &+ 1, layout.available + 2)
        }
    }
}
