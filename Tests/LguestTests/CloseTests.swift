import EngineTesting
import Glibc
import GuestMemory
import HostInterface
import Lguest
import LguestTesting
import Synchronization
import Testing

/// `close` undoes everything, from any state, and never fails (A4, B1).
@Suite(.everyEngine) struct CloseTests {
    private func expectClosed(_ guest: LguestGuest, _ location: SourceLocation = #_sourceLocation) {
        #expect(throws: Errno.invalid, sourceLocation: location) { try guest.run() }
        #expect(throws: Errno.invalid, sourceLocation: location) { try guest.raise(irq: 1) }
        #expect(throws: Errno.invalid, sourceLocation: location) { try guest.breakOut() }
        #expect(throws: Errno.invalid, sourceLocation: location) { try guest.release() }
        #expect(throws: Errno.invalid, sourceLocation: location) { try guest.write([LguestRequest.irq, 1]) }
        #expect(throws: Errno.invalid, sourceLocation: location) { try guest.read(atMost: 100) }
        guest.close()
    }

    @Test func beforeInitialize() throws {
        let guest = try WordGuest(isInitialized: false)
        guest.guest.close()
        expectClosed(guest.guest)
        #expect(throws: Errno.invalid) { try guest.initialize() }
    }

    @Test func beforeTheFirstRun() throws {
        let guest = try TestGuest { $0.initialize() }
        guest.guest.close()
        expectClosed(guest.guest)
    }

    @Test func withSomethingPending() throws {
        let guest = try TestGuest { program in
            program.initialize()
            program.notify(0x5000)
        }
        #expect(try guest.run() == .notify(0x5000))
        guest.guest.close()
        expectClosed(guest.guest)
    }

    @Test func afterDeath() throws {
        let guest = try TestGuest { $0.hypercall(99) }
        #expect(guest.death() == "hypercall 99 before LGUEST_INIT")
        guest.guest.close()
        expectClosed(guest.guest)
    }

    @Test func whileItIsBrokenOff() throws {
        let guest = try TestGuest { program in
            program.initialize()
            program.wait(for: Place.free, "loop")
        }
        let breaker = try Breaker(guest.guest)
        #expect(guest.error() == .again)
        guest.guest.close()
        _ = breaker.join()
        expectClosed(guest.guest)
    }

    @Test func withTheClockSet() throws {
        for nanoseconds in [1, 1_000_000, 3_600_000_000_000] as [UInt64] {
            let guest = try TestGuest { program in
                program.takeInterrupts()
                program.hypercall(LguestHypercall.setClockEvent, nanoseconds)
                program.notify(0x5000)
            }
            #expect(try guest.run() == .notify(0x5000))
            guest.guest.close()
            expectClosed(guest.guest)
        }
    }

    /// In a loop, asleep in HALT, and at HLT without interrupts.
    @Test(arguments: ["loop", "halt", "hlt", "hypercalls"]) func whileAnotherThreadRunsIt(_ way: String) throws {
        let host = TestHost()
        let memory = try GuestMemory(byteCount: 1 << 20, hasHole: false)
        try memory.prepareGuest()
        let program = TestGuest.program { program in
            program.initialize()
            program.put(1, at: Place.free)
            program.label("again")
            switch way {
            case "halt": program.hypercall(LguestHypercall.halt)
            case "hlt":
                program.cli()
                program.halt()
            case "hypercalls": program.hypercall(LguestHypercall.flushAsync)
            default: break
            }
            program.jump("again")
        }
        try memory.put(program)
        let guest = try host.host.open()
        let watch = Watch(guest)
        defer { watch.end() }
        final class Ended: Sendable { let error = Mutex<Errno?>(nil) }
        let ended = Ended()
        let runner = try HostThread(name: "runner") {
            do throws(Errno) {
                try guest.initialize(memory: memory, pgdir: Place.pageTable, start: Place.code)
                _ = try guest.run()
            } catch { ended.error.withLock { $0 = error } }
        }
        while try memory.word(Place.free) == 0 { HostThread.yield() }
        guest.close()
        runner.join()
        #expect(ended.error.withLock { $0 } == .notFound)
        expectClosed(guest)
    }

    /// From threads at once, with one that is just being initialized.
    @Test func initializeAndCloseMayCross() throws {
        let host = TestHost()
        for _ in 0..<30 {
            let guest = try host.host.open()
            let memory = try GuestMemory(byteCount: 1 << 20, hasHole: false)
            try memory.prepareGuest()
            let closers = try (0..<2).map { _ in try HostThread(name: "closer") { guest.close() } }
            do throws(Errno) {
                try guest.initialize(memory: memory, pgdir: Place.pageTable, start: Place.code)
            } catch { #expect(error == .invalid || error == .busy) }
            for closer in closers { closer.join() }
            expectClosed(guest)
        }
    }

    /// Its memory is gone, too: nobody in the Host keeps it.
    @Test func theMemoryIsGivenBack() throws {
        weak var memory: GuestMemory?
        do {
            let guest = try TestGuest { program in
                program.initialize()
                program.hypercall(LguestHypercall.bindDMA, 0x5000, Place.free, 1 << 8 | 3)
                program.hypercall(LguestHypercall.setClockEvent, 1_000_000)
                program.notify(0x5000)
            }
            memory = guest.memory
            #expect(try guest.run() == .notify(0x5000))
        }
        #expect(memory == nil)
    }
}

/// What `close` does to other Guests: nothing but that this one is gone (A4).
@Suite struct CloseOfPeersTests {
    private let key: UInt64 = 0x50000
    private let region: SharedRegion
    private let host = ScriptedHost()

    init() throws { region = try SharedRegion(name: "shared", byteCount: 4096) }

    private func open() throws -> ScriptedGuest { try ScriptedGuest(in: host, regions: [(region, at: key)]) }

    @Test func boundArraysAreReleased() throws {
        let sender = try open()
        let receiver = try open()
        try receiver.memory.putList([(Place.free, 100)], at: 0x60000)
        #expect(receiver.bind(key, 0x60000) == .done(1))
        receiver.guest.close()
        try sender.memory.putList([(Place.free, 100)], at: 0x60000, usedLength: 7)
        #expect(sender.send(key, 0x60000) == .done(0))
        #expect(try sender.memory.usedLength(0x60000) == 7)
        #expect(try receiver.memory.usedLength(0x60000) == 0)
    }

    /// It may bind something at the very moment.
    @Test func aGuestThatIsClosedWhileItBindsHasNothingBound() throws {
        let sender = try open()
        let receiver = try open()
        try receiver.memory.putList([(Place.free, 100)], at: 0x60000)
        let closer = Mutex<HostThread?>(nil)
        receiver.vcpu.beforeCall = { [guest = receiver.guest] in
            closer.withLock { $0 = try? HostThread(name: "closer") { guest.close() } }
            while guest.death == nil { HostThread.yield() }
            for _ in 0..<1000 { HostThread.yield() }
        }
        _ = receiver.bind(key, 0x60000)
        closer.withLock { $0 }?.join()
        try sender.memory.putList([(Place.free, 100)], at: 0x60000, usedLength: 7)
        #expect(sender.send(key, 0x60000) == .done(0))
        #expect(try sender.memory.usedLength(0x60000) == 7)
        #expect(try receiver.memory.usedLength(0x60000) == 0)
    }

    /// A1 has 16 Guests in the Host; here there are more, and a number is free again.
    @Test func numbersAreUniqueWhileTheyAreInUse() throws {
        let handles = try (0..<100).map { _ in try host.host.open() }
        #expect(Set(handles.map(\.id)).count == 100)
        #expect(!handles.contains { $0.id == 0 })
        for handle in handles { handle.close() }
    }

    /// In a process of its own, for the others want files, too.
    @Test func aHostWithoutFilesSaysSo() async {
        await #expect(processExitsWith: .success) {
            var limit = rlimit(rlim_cur: 64, rlim_max: 64)
            unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
            let host = ScriptedHost().host
            var handles: [LguestGuest] = []
            do throws(Errno) {
                while handles.count < 100 { handles.append(try host.open()) }
                exit(1)
            } catch { if error != Errno(rawValue: EMFILE) { exit(2) } }
            handles[0].close()
            handles.removeFirst()
            guard (try? host.open()) != nil else { exit(3) }
        }
    }

    /// Files, threads, memory: of a thousand Guests, each of which has had its clock set.
    @Test func nothingIsLeftOfThemInTheHost() async {
        await #expect(processExitsWith: .success) {
            var limit = rlimit(rlim_cur: 64, rlim_max: 64)
            unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
            let host = ScriptedHost()
            for _ in 0..<1000 {
                let guest = try ScriptedGuest(in: host)
                guest.call(LguestHypercall.setClockEvent, 1)
                guard guest.bind(0x50000, 0x60000) == .done(1) else { exit(1) }
            }
        }
    }
}
