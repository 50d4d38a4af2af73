import CPUOracle
import GuestMemory
import HostInterface
import Synchronization
import Testing
import Virtio
import VirtioTesting

/// What a queue does for a driver that keeps the rules.
@Suite struct VirtqueueTests {
    private static let buffer = Buffer(0x8_0000, 64, isWritable: true)

    @Test(arguments: [1, 2, 64, 256] as [UInt16])
    func ringsWrap(size: UInt16) throws {
        let queue = try BareQueue(size: size)
        // The indices wrap at 65536, which every size divides, and then some.
        for round in 0..<70_000 {
            let written = round % 65
            let head = try queue.driver.add([Self.buffer])
            let chain = try #require(try queue.device.next())
            #expect(chain.head == head && chain.writable.byteCount == 64)
            queue.device.complete(chain, written: written)
            let used = try #require(try queue.driver.takeUsed())
            guard used == DriverQueue.Used(head: UInt32(head), written: UInt32(written)) else {
                Issue.record("round \(round): \(used)")
                return
            }
        }
        #expect(try queue.device.next() == nil)
        #expect(try queue.ram.strayWrites().isEmpty)
    }

    @Test func chainsComeBackInAnyOrder() throws {
        let queue = try BareQueue(size: 64)
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededGenerator(seed: seed)
        var held: [DescriptorChain] = []
        var expected: [UInt16] = []
        for _ in 0..<20_000 {
            if queue.driver.freeDescriptors > 0, random.chance(50) {
                try queue.driver.add([Self.buffer])
                held.append(try #require(try queue.device.next()))
            } else if !held.isEmpty {
                let chain = held.remove(at: random.below(held.count))
                expected.append(chain.head)
                queue.device.complete(chain, written: 0)
            }
            #expect(queue.device.chainsInFlight == held.count)
            while let used = try queue.driver.takeUsed() {
                guard UInt32(expected.removeFirst()) == used.head else {
                    Issue.record("seed \(seed): chain \(used.head)")
                    return
                }
            }
        }
        #expect(expected.isEmpty)
    }

    /// A chain's bytes are in the order of its buffers, however they are cut.
    @Test(arguments: [false, true], [1, 2, 7, 30])
    func chainsAreByteStreams(isIndirect: Bool, pieces: Int) throws {
        let queue = try BareQueue(size: 64)
        let content = (0..<300).map { UInt8(truncatingIfNeeded: $0) }
        var buffers: [Buffer] = []
        for piece in 0..<pieces {
            let (start, end) = (piece * 300 / pieces, (piece + 1) * 300 / pieces)
            // Not side by side, and not in order.
            let address = 0x8_0000 + UInt64((piece * 13) % 30) * 512 + 3
            try queue.ram.write(Array(content[start..<end]), at: address)
            buffers.append(Buffer(address, end - start, isWritable: false))
        }
        for piece in 0..<pieces {
            let (start, end) = (piece * 300 / pieces, (piece + 1) * 300 / pieces)
            buffers.append(Buffer(0xa_0000 + UInt64((piece * 17) % 30) * 512, end - start, isWritable: true))
        }
        try queue.driver.add(buffers, table: isIndirect ? 0x7_0008 : nil)
        let chain = try #require(try queue.device.next())
        #expect(chain.readable.byteCount == 300 && chain.writable.byteCount == 300)
        let word = chain.readable.load(as: UInt32.self)
        #expect(word == 0x0302_0100)
        #expect(chain.readable.skip(6) == 6)
        var rest = [UInt8](repeating: 0, count: 400)
        let count = unsafe rest.withUnsafeMutableBytes { unsafe chain.readable.read(into: $0) }
        #expect(count == 290 && Array(rest[..<290]) == Array(content[10...]))
        #expect(chain.readable.load(as: UInt8.self) == nil && chain.readable.remaining == 0)

        #expect(unsafe content.withUnsafeBytes { unsafe chain.writable.write($0) } == 300)
        #expect(unsafe content.withUnsafeBytes { unsafe chain.writable.write($0) } == 0)
        queue.device.complete(chain, written: 300)
        #expect(try queue.driver.takeUsed()?.written == 300)
        let written = try buffers.filter(\.isWritable).flatMap { try queue.ram.read($0.address, count: $0.count) }
        #expect(written == content)
        #expect(try queue.ram.strayWrites().isEmpty)
    }

    /// Direct buffers may come before an indirect table (virtio 1.2, 2.7.5.3.2),
    /// whose descriptor's WRITE flag means nothing.
    @Test func directBuffersBeforeATable() throws {
        let queue = try BareQueue(size: 4)
        let driver = queue.driver
        try driver.set(0, Descriptor(0x8_0000, 5, flags: Descriptor.next, next: 2))
        try driver.set(2, Descriptor(0x7_0001, 64, flags: Descriptor.indirect | Descriptor.write))
        for (index, flags) in [
            Descriptor.next, Descriptor.next | Descriptor.write, Descriptor.next | Descriptor.write, 2,
        ].enumerated() {
            let descriptor = Descriptor(0x9_0000 + 4096 * UInt64(index), 10, flags: flags, next: UInt16(index) + 1)
            try driver.set(UInt16(index), descriptor, inTable: 0x7_0001)
        }
        try driver.offer(0)
        try driver.publish()
        let chain = try #require(try queue.device.next())
        #expect(chain.readable.byteCount == 15 && chain.writable.byteCount == 30)
    }

    @Test func usedLengthIsNeverMoreThanThereIsRoomFor() throws {
        let queue = try BareQueue(size: 4)
        for (written, expected) in [(0, 0), (63, 63), (64, 64), (65, 64), (1 << 40, 64)] as [(Int, UInt32)] {
            try queue.driver.add([Self.buffer])
            queue.device.complete(try #require(try queue.device.next()), written: written)
            #expect(try queue.driver.takeUsed()?.written == expected)
        }
    }

    /// Rule 9: 4 GiB in one chain, and not a byte more.
    @Test(arguments: [(4, true), (5, false)])
    func chainsAreAtMostFourGiB(gibibytes: Int, isAllowed: Bool) throws {
        let queue = try BareQueue(size: 64, memoryBytes: 1 << 21)
        // The same 2 MiB, again and again, would need a longer queue than that: an address space will do.
        let memory = try GuestMemory(byteCount: 2 << 30)
        let layout = queue.driver.layout
        let device = Virtqueue(
            layout, index: 0, memory: memory, features: VirtioFeature.ring, doorbell: try Doorbell(),
            counters: QueueCounters(), interrupt: {})
        for index in 0..<gibibytes {
            let place = layout.descriptors + 16 * UInt64(index)
            try memory.store(UInt64(1 << 30), at: place)
            try memory.store(UInt32(1 << 30), at: place + 8)
            try memory.store(index == gibibytes - 1 ? 0 : Descriptor.next, at: place + 12)
            try memory.store(UInt16(index + 1), at: place + 14)
        }
        try memory.store(UInt16(1), at: layout.available + 2)
        if isAllowed {
            #expect(try device.next()?.readable.byteCount == gibibytes << 30)
        } else {
            #expect(throws: DriverBreach.self) { try device.next() }
        }
    }

    // MARK: Chains at once

    @Test func noMoreChainsThanEntries() throws {
        let queue = try BareQueue(size: 8)
        try queue.driver.set(0, Descriptor(0x8_0000, 1))
        for round in 0..<9 {
            // The driver does not wait for what it gets back, which is nothing.
            try queue.driver.offer(0)
            try queue.driver.publish()
            if round < 8 {
                #expect(try queue.device.next() != nil)
            } else {
                #expect(throws: DriverBreach.self) { try queue.device.next() }
            }
        }
    }

    @Test func aFullQueueIsNoBreach() throws {
        let queue = try BareQueue(size: 8)
        for _ in 0..<3 {
            for _ in 0..<8 { try queue.driver.add([Self.buffer]) }
            try queue.serve(8)
            try queue.takeAll()
        }
    }

    /// What a breach says names the queue.
    @Test func breachesNameTheirQueue() throws {
        let queue = try BareQueue(size: 8)
        queue.driver.nextAvailable = 77
        try queue.driver.publish()
        #expect {
            try queue.device.next()
        } throws: {
            "\($0)".hasPrefix("queue 0: ")
        }
    }

    // MARK: Who wakes whom

    /// Virtio 1.2, 2.7.7.2, done in numbers that do not wrap: an interrupt if
    /// the used index has passed `event` since the last time.
    @Test func interruptsComeWhenTheEventIndexIsPassed() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededGenerator(seed: seed)
        let queue = try BareQueue(size: 64)
        var used = 0
        while used < 150_000 {
            let batch = 1 + random.below(64)
            // From a little behind us to a little further than we shall get.
            let event = used - 3 + random.below(batch + 6)
            try queue.ram.storeShared(UInt16(truncatingIfNeeded: event), at: queue.driver.usedEvent)
            for _ in 0..<batch { try queue.driver.add([Self.buffer]) }
            let before = queue.interrupts
            try queue.serve(batch)
            queue.device.interruptIfWanted()
            let isPassed = event >= used && event < used + batch
            used += batch
            guard queue.interrupts - before == (isPassed ? 1 : 0) else {
                Issue.record("seed \(seed): used \(used - batch)…\(used), event \(event), interrupted \(!isPassed)")
                return
            }
            queue.device.interruptIfWanted()
            guard queue.interrupts - before == (isPassed ? 1 : 0) else {
                Issue.record("seed \(seed): interrupted for nothing")
                return
            }
            try queue.takeAll()
        }
    }

    /// A device that has been busy for so long that the index came round must
    /// not think that nothing has happened.
    @Test(arguments: [65_535, 65_536, 65_537, 65_600, 131_072], [false, true])
    func interruptsComeAfterALongTimeOfWork(requests: Int, hasEventIndex: Bool) throws {
        let features = hasEventIndex ? VirtioFeature.ring : VirtioFeature.ring & ~VirtioFeature.eventIndex
        let queue = try BareQueue(size: 64, features: features)
        for _ in 0..<requests / 32 { try queue.round(32) }
        try queue.round(requests % 32)
        // The driver wants to hear of the last one but some.
        try queue.ram.storeShared(UInt16(truncatingIfNeeded: requests - 20), at: queue.driver.usedEvent)
        queue.device.interruptIfWanted()
        #expect(queue.interrupts == 1)
    }

    @Test func flagsSuppressInterrupts() throws {
        let queue = try BareQueue(size: 8, features: VirtioFeature.version1)
        for flags: UInt16 in [0, 1, 0xfffe, 0xffff] {
            try queue.ram.storeShared(flags, at: queue.driver.availableFlags)
            let before = queue.interrupts
            try queue.round(1)
            queue.device.interruptIfWanted()
            #expect(queue.interrupts - before == (flags & 1 == 0 ? 1 : 0), "flags \(flags)")
        }
    }

    @Test func notificationsAreSuppressedWhileBusyByFlags() throws {
        let queue = try BareQueue(size: 8, features: VirtioFeature.version1)
        queue.device.suppressNotifications()
        #expect(try queue.ram.loadShared(at: queue.driver.usedFlags) == 1)
        #expect(!queue.device.wantNotifications())
        #expect(try queue.ram.loadShared(at: queue.driver.usedFlags) == 0)
        queue.device.suppressNotifications()
        try queue.driver.add([Self.buffer])
        #expect(queue.device.wantNotifications())
    }

    @Test func notificationsAreWantedFromTheNextChainOn() throws {
        let queue = try BareQueue(size: 8)
        for round in 0..<66_000 {
            #expect(!queue.device.wantNotifications())
            let event = try queue.ram.loadShared(at: queue.driver.availableEvent)
            guard event == UInt16(truncatingIfNeeded: round) else {
                Issue.record("round \(round): event index \(event)")
                return
            }
            try queue.driver.add([Self.buffer])
            guard queue.device.wantNotifications() else {
                Issue.record("round \(round): a chain was overlooked")
                return
            }
            queue.device.suppressNotifications()
            try queue.serve(1)
            try queue.takeAll()
        }
        #expect(try queue.ram.loadShared(at: queue.driver.usedFlags) == 0)
    }

    // MARK: Code

    /// Engines hear of a changed page before the driver can know of the change.
    @Test func writesToCodeAreAnnouncedBeforeTheyAreUsed() throws {
        struct Heard: Equatable { var page: UInt64, used: UInt16, byte: UInt8 }
        final class Log: Sendable { let heard = Mutex<[Heard]>([]) }
        let queue = try BareQueue(size: 8)
        let log = Log()
        let memory = queue.ram.memory
        let usedIndex = GuestPhysicalAddress(queue.driver.usedIndex)
        for page: UInt64 in [0x80, 0x82, 0x90] { memory.markCode(page: page, by: .translator) }
        memory.observeCodeWrites { [unowned memory] page in
            let used = try? memory.load(at: usedIndex, as: UInt16.self)
            let byte = try? memory.load(at: GuestPhysicalAddress(page << 12), as: UInt8.self)
            log.heard.withLock { $0.append(Heard(page: page, used: used ?? .max, byte: byte ?? 0)) }
        }
        // Pages 0x7f … 0x82, the first and the last by a byte.
        try queue.driver.add([Buffer(0x7_ffff, 1 + 2 * 4096 + 1, isWritable: true)])
        let chain = try #require(try queue.device.next())
        let ones = [UInt8](repeating: 0xee, count: chain.writable.byteCount)
        let count = unsafe ones.withUnsafeBytes { unsafe chain.writable.write($0) }
        #expect(log.heard.withLock { $0 }.isEmpty)
        queue.device.complete(chain, written: count)
        #expect(
            log.heard.withLock { $0 } == [
                Heard(page: 0x80, used: 0, byte: 0xee), Heard(page: 0x82, used: 0, byte: 0xee),
            ])
    }
}

extension BareQueue {
    /// So many requests, from `add` to `takeUsed`, without an interrupt.
    fileprivate func round(_ count: Int) throws {
        for _ in 0..<count { try driver.add([Buffer(0x8_0000, 64, isWritable: true)]) }
        try serve(count)
        try takeAll()
    }
}
