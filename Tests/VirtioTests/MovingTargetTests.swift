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
    /// An indirect table, which no buffer reaches, and behind it 16 buffers of up to 4 KiB.
    private static let table: UInt64 = 0x4_0000
    private static let buffers = table + 0x1000
    private static let bufferBytes = 16 * 0x1000

    @Test(arguments: TestedDevice.all, [VirtioFeature.ring, VirtioFeature.version1])
    func nothingIsTouchedThatWasNotNamed(_ device: TestedDevice, features: UInt64) throws {
        let seed = UInt64.random(in: 0 ... .max)
        let driver = try GuestDriver(device)
        let counters = driver.mmio.transport.counters[device.queue]
        for round in 0..<10 as Range<UInt64> {
            try driver.bringUp(features: features | ~VirtioFeature.ring, queueSize: 16)
            let queue = driver.queues[device.queue]
            // What the vandal writes, and what it lets the device write.
            driver.ram.allow(queue.layout.descriptors.rawValue, 16 * Int(queue.size))
            driver.ram.allow(queue.layout.available.rawValue, 6 + 2 * Int(queue.size))
            driver.ram.allow(Self.table, 16 * Int(queue.size))
            driver.ram.allow(Self.buffers, Self.bufferBytes)
            for index in 0..<queue.size { try queue.set(index, Descriptor(Self.buffers, 0), inTable: Self.table) }
            let vandal = try Vandal(
                queue.layout, driver.memory, table: Self.table, hasIndirect: features == VirtioFeature.ring,
                seed: seed &+ round)
            let enough = counters.snapshot.requests + 1000
            let isOver = driver.wait {
                driver.notify(device.queue)
                driver.acknowledge()
                return driver.status.contains(.needsReset) || counters.snapshot.requests >= enough
            }
            vandal.stop()
            driver.write(.status, 0)
            let stray = try driver.ram.strayWrites()
            guard stray.isEmpty, isOver else {
                Issue.record("seed \(seed), round \(round): over \(isOver), wrote to \(stray)")
                return
            }
        }
        #expect(counters.snapshot.requests > 500, "the device has not lived long enough to be tested")
        try driver.bringUp()
        try driver.perform(device.request, on: driver.queues[device.queue])
    }
}

/// A thread that rewrites a queue's tables for as long as it is let.
private final class Vandal {
    private final class Shared: Sendable { let isOver = Atomic(false) }
    private let shared = Shared()
    private let thread: HostThread

    init(_ layout: QueueLayout, _ memory: GuestMemory, table: UInt64, hasIndirect: Bool, seed: UInt64) throws {
        let shared = shared
        thread = try HostThread(name: "vandal") {
            var random = SeededGenerator(seed: seed)
            while !shared.isOver.load(ordering: .acquiring) {
                vandalize(layout, memory, &random, hasIndirect ? GuestPhysicalAddress(table) : nil, table + 0x1000)
            }
        }
    }

    func stop() {
        shared.isOver.store(true, ordering: .releasing)
        thread.join()
    }
}

/// Most of it is such that a device goes on, for one that has stopped reads
/// nothing: chains lead upwards, and from readable buffers to writable ones.
private func vandalize(
    _ layout: QueueLayout, _ memory: GuestMemory, _ random: inout SeededGenerator, _ table: GuestPhysicalAddress?,
    _ buffers: UInt64
) {
    func put<T: BitwiseCopyable>(_ value: T, _ place: GuestPhysicalAddress) {
        unsafe memory.hostPointer(place, MemoryLayout<T>.size)?.storeBytes(of: value, as: T.self)
    }
    let size = Int(layout.size)
    for _ in 0..<16 {
        let inTable = table != nil && random.chance(30)
        let index = random.below(size)
        let place = (inTable ? table ?? layout.descriptors : layout.descriptors) + 16 * UInt64(index)
        let buffer = buffers + UInt64(random.below(16)) * 0x1000
        if random.below(20_000) == 0 {
            put(random.next(), place + 8 * UInt64(random.below(2)))
        } else if let table, !inTable, index == 0 {
            // The first of the queue's is now a buffer and now a table; never both, as far as we can help it.
            let isTable = random.chance(50)
            put(isTable ? table.rawValue : buffer, place)
            let length = isTable ? 16 * size : random.below(0x1000)
            put(UInt64(length) | UInt64(isTable ? Descriptor.indirect : 0) << 32, place + 8)
        } else {
            put(buffer, place)
            var flags = index < size / 2 ? 0 : Descriptor.write
            if index < size - 1, random.chance(60) { flags |= Descriptor.next }
            let next = UInt64(index + 1 + random.below(max(size - index - 1, 1)))
            put(UInt64(random.below(0x1000)) | UInt64(flags) << 32 | next << 48, place + 8)
        }
    }
    // The index goes on by a little.
    if let index = try? memory.load(at: layout.available + 2, as: UInt16.self),
        let used = try? memory.load(at: layout.used + 2, as: UInt16.self), index &- used < layout.size
    {
        put(UInt16(random.below(size)), layout.available + 4 + 2 * UInt64(index & (layout.size - 1)))
        put(index &+ 1, layout.available + 2)
    }
}
