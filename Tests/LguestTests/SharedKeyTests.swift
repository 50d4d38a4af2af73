import EngineTesting
import GuestMemory
import HostInterface
import Lguest
import LguestTesting
import Testing

/// Two Guests meet on a key when the same page of shared memory is behind it (A4; seed 000).
@Suite struct SharedKeyTests {
    private typealias At = Pair.At

    /// A Guest with a free buffer at `list`, and that bound to `key`.
    private func receiver(
        in host: ScriptedHost, _ regions: [(SharedRegion, at: UInt64)], key: UInt64
    ) throws -> ScriptedGuest {
        let guest = try ScriptedGuest(in: host, regions: regions)
        try guest.memory.putList([(At.data, 100)], at: At.list)
        #expect(guest.bind(key, At.list) == .done(1))
        return guest
    }

    private func send(_ guest: ScriptedGuest, key: UInt64) throws -> ScriptedGuest.Outcome {
        try guest.memory.put([1, 2, 3], At.data)
        try guest.memory.putList([(At.data, 3)], at: At.list, usedLength: 77)
        return guest.send(key, At.list)
    }

    @Test func aKeyOfOnesOwnMemoryIsTheLaunchers() throws {
        let host = ScriptedHost()
        // Somebody else has bound the same number.
        let other = try receiver(in: host, [], key: 0x50000)
        let guest = try ScriptedGuest(in: host)
        #expect(try send(guest, key: 0x50000) == .pending(.dma(buffer: At.list, key: 0x50000)))
        #expect(try other.memory.usedLength(At.list) == 0)
        #expect(try guest.memory.usedLength(At.list) == 77)
        // The Launcher answers, and the Guest goes on.
        try guest.memory.store(UInt32(3), at: GuestPhysicalAddress(At.list))
        #expect(guest.run() == .done(0))
    }

    /// Also if it has a binding on it itself.
    @Test func aBoundKeyOfOnesOwnMemoryIsTheLaunchersToo() throws {
        let guest = try receiver(in: ScriptedHost(), [], key: 0x50000)
        try guest.memory.putList([(At.data, 3)], at: 0x61000)
        #expect(guest.send(0x50000, 0x61000) == .pending(.dma(buffer: 0x61000, key: 0x50000)))
    }

    /// The address does not count, the place does.
    @Test func theSameNumberInTwoRegionsIsTwoKeys() throws {
        let host = ScriptedHost()
        let (first, second) = (
            try SharedRegion(name: "first", byteCount: 4096), try SharedRegion(name: "second", byteCount: 4096)
        )
        let receiver = try receiver(in: host, [(first, at: 0x50000)], key: 0x50000)
        let sender = try ScriptedGuest(in: host, regions: [(second, at: 0x50000), (first, at: 0x20000)])
        #expect(try send(sender, key: 0x50000) == .done(0))
        #expect(try receiver.memory.usedLength(At.list) == 0)
        #expect(try send(sender, key: 0x20000) == .done(0))
        #expect(try receiver.memory.usedLength(At.list) == 3)
    }

    @Test func eachWordIsAKey() throws {
        let host = ScriptedHost()
        let region = try SharedRegion(name: "words", byteCount: 8192)
        let receiver = try receiver(in: host, [(region, at: 0x50000)], key: 0x51ffc)
        let sender = try ScriptedGuest(in: host, regions: [(region, at: 0x20000)])
        for key in [0x20000, 0x20ffc, 0x21ff8] as [UInt64] {
            #expect(try send(sender, key: key) == .done(0))
            #expect(try receiver.memory.usedLength(At.list) == 0)
        }
        #expect(try send(sender, key: 0x21ffc) == .done(0))
        #expect(try receiver.memory.usedLength(At.list) == 3)
    }

    /// A region that a Guest sees twice.
    @Test func eachOfItsAddressesMeansThePlace() throws {
        let host = ScriptedHost()
        let region = try SharedRegion(name: "twice", byteCount: 4096)
        let receiver = try receiver(in: host, [(region, at: 0x50000), (region, at: 0x80000)], key: 0x50004)
        #expect(receiver.bind(0x80004, At.list, irq: 0) == .done(1))
        #expect(receiver.bind(0x80004, At.list) == .done(1))
        let sender = try ScriptedGuest(in: host, regions: [(region, at: 0x20000)])
        #expect(try send(sender, key: 0x20004) == .done(0))
        #expect(try receiver.memory.usedLength(At.list) == 3)
    }

    /// Buffers may lie in shared memory, even the same buffer.
    @Test func bytesMayGoToWhereTheyAre() throws {
        let host = ScriptedHost()
        let region = try SharedRegion(name: "both", byteCount: 4096)
        let receiver = try ScriptedGuest(in: host, regions: [(region, at: 0x50000)])
        let sender = try ScriptedGuest(in: host, regions: [(region, at: 0x20000)])
        try receiver.memory.putList([(0x50102, 100)], at: At.list)
        #expect(receiver.bind(0x50000, At.list) == .done(1))
        try sender.memory.put([1, 2, 3, 4, 5, 6], 0x20100)
        try sender.memory.putList([(0x20100, 6)], at: At.list)
        sender.send(0x20000, At.list)
        #expect(try receiver.memory.bytes(0x50100, 8) == [1, 2, 1, 2, 3, 4, 5, 6])
    }

    // MARK: GETDMA

    /// A4: the buffer's address, and the irq in its used_len.
    @Test func getDMAFindsAFreeBufferOfTheGuestsOwn() throws {
        let guest = try ScriptedGuest(in: ScriptedHost())
        for index in 0..<2 as Range<UInt64> {
            try guest.memory.putList([(At.data, 100)], at: At.list + index * UInt64(LguestDMA.byteCount))
        }
        #expect(guest.bind(0x50000, At.list, count: 2, irq: 9) == .done(1))
        let request = [LguestRequest.getDMA, 0x50000]
        #expect(try guest.guest.write(request) == Int(At.list))
        #expect(try guest.memory.usedLength(At.list) == 9)
        // That is why it is not found again.
        #expect(try guest.guest.write(request) == Int(At.list) + LguestDMA.byteCount)
        // A4, "Quirk": the original gave the last one, though it was used.
        #expect(throws: Errno.notFound) { try guest.guest.write(request) }
        #expect(guest.guest.death == nil)
        try guest.memory.store(UInt32(0), at: GuestPhysicalAddress(At.list))
        #expect(try guest.guest.write(request) == Int(At.list))
    }

    @Test func getDMAInSwiftDoesNotNeedThatTrick() throws {
        let guest = try receiver(in: ScriptedHost(), [], key: 0x50000)
        let (address, irq) = try guest.guest.freeBuffer(forKey: 0x50000)
        #expect(address == At.list && irq == 1)
        #expect(try guest.memory.usedLength(At.list) == 0)
    }

    @Test func getDMAOfAKeyThatIsNotBoundFindsNothing() throws {
        let host = ScriptedHost()
        let region = try SharedRegion(name: "shared", byteCount: 4096)
        let guest = try receiver(in: host, [(region, at: 0x50000)], key: 0x50000)
        let other = try ScriptedGuest(in: host, regions: [(region, at: 0x50000)])
        #expect(throws: Errno.notFound) { try guest.guest.write([LguestRequest.getDMA, 0x50004]) }
        // Another's binding is not its own.
        #expect(throws: Errno.notFound) { try other.guest.write([LguestRequest.getDMA, 0x50000]) }
        #expect(other.guest.death == nil)
    }

    @Test func getDMAOfABadKeyKills() throws {
        for key in [1, 1 << 20, UInt64.max] {
            let guest = try ScriptedGuest(in: ScriptedHost())
            #expect(throws: Errno.notFound) { try guest.guest.write([LguestRequest.getDMA, key]) }
            #expect(guest.guest.death == .killed(reason: "bad registered DMA buffer"))
        }
    }

    @Test func getDMAOfAnArrayOutsideMemoryKills() throws {
        let guest = try ScriptedGuest(in: ScriptedHost())
        #expect(guest.bind(0x50000, 1 << 20) == .done(1))
        #expect(throws: Errno.notFound) { try guest.guest.write([LguestRequest.getDMA, 0x50000]) }
        #expect(guest.guest.death == .killed(reason: "bad address in registered DMA struct 0x100000"))
    }
}

/// The same, with code on an engine, and memory that is the Launcher's.
@Suite(.everyEngine) struct AdoptedMemoryTests {
    private typealias At = Pair.At
    private static let page: UInt64 = 0x50000

    /// Binds, waits for an interrupt, and ends.
    private func receive(_ program: inout Program) {
        program.takeInterrupts()
        program.hypercall(LguestHypercall.bindDMA, Self.page, At.list, 1 << 8 | 3)
        program.keepResult()
        program.notify(0x5000)
        program.sleep(untilInterrupts: 1)
        program.powerDown()
    }

    private func send(_ program: inout Program) {
        program.initialize()
        program.hypercall(LguestHypercall.sendDMA, Self.page, At.list)
        program.powerDown()
    }

    @Test func guestsInOneProcessMeetInASharedMapping() throws {
        let host = TestHost()
        let file = try MemoryFile(name: "page", byteCount: 8192)
        let receiver = try WordGuest(in: host, isInitialized: false, receive)
        try receiver.range.map(file, fileOffset: 4096, at: Int(Self.page), count: 4096)
        _ = try receiver.initialize()
        let sender = try WordGuest(in: host, send)
        // The Launcher may map it when the Guest is there already.
        try sender.range.map(file, fileOffset: 4096, at: Int(Self.page), count: 4096)
        try receiver.memory.putList([(At.data, 100)], at: At.list)
        #expect(try receiver.readWords() == [0x5000])
        try sender.memory.put([1, 2, 3], At.data)
        try sender.memory.putList([(At.data, 3)], at: At.list)
        #expect(throws: Errno.notFound) { try sender.readWords() }
        #expect(text(try sender.guest.read(atMost: 100)) == "CRASH: Power down")
        #expect(throws: Errno.notFound) { try receiver.readWords() }
        #expect(text(try receiver.guest.read(atMost: 100)) == "CRASH: Power down")
        #expect(try receiver.memory.bytes(At.data, 4) == [1, 2, 3, 0])
        #expect(try receiver.memory.usedLength(At.list) == 3)
        #expect(try sender.memory.usedLength(At.list) == 3)
        #expect(try receiver.memory.bytes(Place.log, 9) == [1, 0, 0, 0, 0, 0, 0, 0, 3])
    }

    /// Another page of the same file is another key.
    @Test func theOffsetCounts() throws {
        let host = TestHost()
        let file = try MemoryFile(name: "page", byteCount: 8192)
        let receiver = try WordGuest(in: host, receive)
        try receiver.range.map(file, fileOffset: 4096, at: Int(Self.page), count: 4096)
        let sender = try WordGuest(in: host, send)
        try sender.range.map(file, fileOffset: 0, at: Int(Self.page), count: 4096)
        try receiver.memory.putList([(At.data, 100)], at: At.list)
        #expect(try receiver.readWords() == [0x5000])
        try sender.memory.putList([(At.data, 3)], at: At.list, usedLength: 77)
        #expect(throws: Errno.notFound) { try sender.readWords() }
        #expect(try sender.memory.usedLength(At.list) == 77)
        #expect(try receiver.memory.usedLength(At.list) == 0)
    }

    @Test func privateMemoryIsBetweenAGuestAndItsLauncher() throws {
        let guest = try WordGuest { program in
            program.initialize()
            program.hypercall(LguestHypercall.bindDMA, Self.page, At.list + 0x1000, 1 << 8 | 3)
            program.hypercall(LguestHypercall.sendDMA, Self.page, At.list)
            program.notify(0x5000)
        }
        try guest.memory.putList([(At.data, 100)], at: At.list + 0x1000)
        #expect(try guest.readWords() == [At.list, Self.page])
        #expect(try guest.write(LguestRequest.getDMA, Self.page) == Int(At.list) + 0x1000)
        #expect(try guest.memory.usedLength(At.list + 0x1000) == 3)
        #expect(try guest.readWords() == [0x5000])
    }

    /// Two Guests, two threads, code on both sides: 500 messages there and back.
    @Test func twoGuestsTalk() throws {
        let host = TestHost()
        let region = try SharedRegion(name: "table", byteCount: 4096)
        let rounds: UInt64 = 500
        /// Waits for a message, puts the buffer back, sends one; the first one sends before that.
        func talk(_ program: inout Program, irq: UInt64, own: UInt64, others: UInt64, isFirst: Bool) {
            program.takeInterrupts()
            program.hypercall(LguestHypercall.bindDMA, own, At.list, 1 << 8 | irq)
            program.notify(0x5000)
            program.move(.rbp, rounds)
            program.label("round")
            if !isFirst { receive(&program) }
            program.put(0, at: At.list + 0x1000, size: 4)
            program.label("send")
            program.hypercall(LguestHypercall.sendDMA, others, At.list + 0x1000)
            if isFirst { receive(&program) }
            program.decrement(.rbp)
            program.jump(.ne, "round")
            program.powerDown()
        }
        func receive(_ program: inout Program) {
            program.label("wait")
            program.sti()
            program.nop()
            program.cli()
            program.load(.r14, Memory(nil, Int32(At.list)), size: 4)
            program.op(0x85, reg: GPR.r14.rawValue, .r14)
            program.jump(.ne, "there")
            program.hypercall(LguestHypercall.halt)
            program.jump("wait")
            program.label("there")
            program.op(0xff, reg: 0, Memory(nil, Int32(Place.results)))
            program.put(0, at: At.list, size: 4)
        }
        var others: [(LguestGuest, GuestMemory)] = []
        let isReady = Ready()
        var threads: [HostThread] = []
        for index in 0..<2 as Range<UInt64> {
            let memory = try GuestMemory(byteCount: 1 << 20, hasHole: false)
            let page: UInt64 = index == 0 ? 0x50000 : 0x90000
            try memory.map(region, at: GuestPhysicalAddress(page))
            try memory.prepareGuest()
            try memory.putHandlers()
            // The log has room for 500 and more.
            try memory.put(
                TestGuest.program { program in
                    talk(
                        &program, irq: index + 5, own: page + index * 4, others: page + (1 - index) * 4,
                        isFirst: index == 0)
                })
            try memory.putList([(At.data, 8)], at: At.list)
            try memory.putList([(At.data + 0x1000, 8)], at: At.list + 0x1000)
            let guest = try host.host.open()
            others.append((guest, memory))
            threads.append(
                try HostThread(name: "talker") {
                    guard (try? guest.initialize(memory: memory, pgdir: Place.pageTable, start: Place.code)) != nil
                    else { return }
                    guard (try? guest.run()) == .notify(0x5000) else { return }
                    isReady.waitForBoth()
                    _ = try? guest.run()
                })
        }
        let watches = others.map { Watch($0.0) }
        for thread in threads { thread.join() }
        for watch in watches { watch.end() }
        for (guest, memory) in others {
            #expect(guest.death?.reason == "CRASH: Power down")
            #expect(try memory.word(Place.results) == rounds)
            guest.close()
        }
    }
}
