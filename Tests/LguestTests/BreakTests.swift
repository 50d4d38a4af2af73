import EngineTesting
import Glibc
import HostInterface
import Lguest
import LguestTesting
import Synchronization
import Testing

/// A thread that breaks a Guest off, as the Waker did.
final class Breaker: Sendable {
    private final class Shared: Sendable {
        let isThrough = Atomic(false)
        let error = Mutex<Errno?>(nil)
    }
    private let shared = Shared()
    private let thread: HostThread

    init(_ guest: LguestGuest) throws {
        let shared = shared
        thread = try HostThread(name: "breaker") {
            do throws(Errno) { try guest.breakOut() } catch { shared.error.withLock { $0 = error } }
            shared.isThrough.store(true, ordering: .releasing)
        }
    }

    /// Whether `breakOut` has returned.
    var isThrough: Bool { shared.isThrough.load(ordering: .acquiring) }
    /// Waits for that; what it has thrown.
    func join() -> Errno? {
        thread.join()
        return shared.error.withLock { $0 }
    }
}

/// BREAK: the Waker's request (A5, B1, F).
@Suite(.everyEngine) struct BreakTests {
    /// Says that it is here, and turns round until it is let go.
    private func loop(_ program: inout Program) {
        program.initialize()
        program.notify(0x5000)
        program.wait(for: Place.free, "loop")
        program.powerDown()
    }

    @Test func aRunningGuestIsBrokenOffUntilItIsReleased() throws {
        let guest = try TestGuest(loop)
        #expect(try guest.run() == .notify(0x5000))
        let breaker = try Breaker(guest.guest)
        for _ in 0..<3 { #expect(guest.error() == .again) }
        // The breaker waits for the release.
        #expect(!breaker.isThrough)
        try guest.guest.release()
        #expect(breaker.join() == nil)
        try guest.memory.put([1], Place.free)
        guest.finish()
    }

    @Test func aBreakBeforeTheFirstRunCounts() throws {
        let guest = try TestGuest(loop)
        let breaker = try Breaker(guest.guest)
        // Sooner or later: the thread may be late.
        if case .some(.notify) = try? guest.run() { #expect(guest.error() == .again) }
        try guest.guest.release()
        #expect(breaker.join() == nil)
    }

    /// Its owner (in a signal's handler) would wait for itself.
    @Test func onTheOwnersThreadItDoesNotWait() throws {
        let guest = try TestGuest(loop)
        try guest.guest.breakOut()
        #expect(guest.error() == .again)
        #expect(guest.error() == .again)
        try guest.guest.release()
        #expect(try guest.run() == .notify(0x5000))
    }

    @Test func inWords() throws {
        let guest = try WordGuest { program in
            program.initialize()
            program.notify(0x5000)
        }
        #expect(try guest.write(LguestRequest.breakOut, 1) == 0)
        #expect(throws: Errno.again) { try guest.readWords() }
        #expect(try guest.write(LguestRequest.breakOut, 0) == 0)
        #expect(try guest.readWords() == [0x5000])
    }

    @Test func theReleaseOfNobodyIsNoError() throws {
        let guest = try TestGuest(loop)
        try guest.guest.release()
        #expect(try guest.run() == .notify(0x5000))
    }

    /// Who breaks a Guest off must not lose what it had asked for.
    @Test func whatThePendingCallAskedForComesFirst() throws {
        let guest = try TestGuest { program in
            program.initialize()
            program.notify(0x7000)
        }
        try guest.memory.fillSlot(0, LguestHypercall.notify, 0x5000)
        try guest.memory.fillSlot(1, LguestHypercall.notify, 0x6000)
        #expect(try guest.run() == .notify(0x5000))
        try guest.guest.breakOut()
        #expect(try guest.run() == .notify(0x6000))
        #expect(try guest.run() == .notify(0x7000))
        #expect(guest.error() == .again)
    }

    /// A Guest in HALT, or at HLT, is broken off, and sleeps on afterwards.
    @Test(arguments: [false, true]) func aSleepingGuestIsNotWoken(byInstruction: Bool) throws {
        let guest = try TestGuest { program in
            program.takeInterrupts()
            program.notify(0x5000)
            program.sleep(byInstruction: byInstruction)
            program.load(.rax, Memory(nil, Int32(Place.log)))
            program.keepResult()
            program.powerDown()
        }
        #expect(try guest.run() == .notify(0x5000))
        for _ in 0..<3 {
            let breaker = try Breaker(guest.guest)
            #expect(guest.error() == .again)
            try guest.guest.release()
            #expect(breaker.join() == nil)
        }
        try guest.guest.raise(irq: 7)
        guest.finish()
        #expect(try guest.result() == 1)
        #expect(try guest.interrupts == [7])
    }

    @Test func itWantsAnInitializedGuestThatLives() throws {
        let guest = try WordGuest(isInitialized: false)
        #expect(throws: Errno.invalid) { try guest.guest.breakOut() }
        #expect(throws: Errno.invalid) { try guest.guest.release() }
        _ = try guest.initialize()
        guest.guest.kill("done for")
        #expect(throws: Errno.notFound) { try guest.guest.breakOut() }
        #expect(throws: Errno.notFound) { try guest.guest.release() }
    }

    /// Nobody could release it: that is refused for the dead.
    @Test func aGuestThatDiesLetsItsBreakerGo() throws {
        let guest = try TestGuest(loop)
        #expect(try guest.run() == .notify(0x5000))
        let breaker = try Breaker(guest.guest)
        #expect(guest.error() == .again)
        guest.guest.kill("alas")
        _ = breaker.join()
        #expect(guest.death() == "alas")
    }

    /// The same, when each comes at any moment.
    @Test func deathAndBreakMayCross() throws {
        let host = TestHost()
        for _ in 0..<50 {
            let guest = try TestGuest(in: host, loop)
            #expect(try guest.run() == .notify(0x5000))
            let breaker = try Breaker(guest.guest)
            let killer = try HostThread(name: "killer") { [guest = guest.guest] in guest.kill("alas") }
            var error = guest.error()
            while error == .again { error = guest.error() }
            #expect(error == .notFound)
            killer.join()
            _ = breaker.join()
        }
    }

    /// A5: ERESTARTSYS, which a program sees as EINTR.
    @Test func aSignalInterruptsAGuestThatSleeps() throws {
        var action = sigaction()
        unsafe action.__sigaction_handler.sa_handler = { _ in }
        unsafe sigaction(SIGUSR1, &action, nil)
        // Threads that are not our own take no signals if they are not told to.
        var signals = sigset_t()
        unsafe sigemptyset(&signals)
        unsafe sigaddset(&signals, SIGUSR1)
        unsafe pthread_sigmask(SIG_UNBLOCK, &signals, nil)
        defer { unsafe _ = pthread_sigmask(SIG_BLOCK, &signals, nil) }
        let guest = try TestGuest { program in
            program.initialize()
            program.hypercall(LguestHypercall.halt)
        }
        final class Done: Sendable { let isOver = Atomic(false) }
        let done = Done()
        let owner = UInt(pthread_self())
        // Until one comes while it sleeps.
        let sender = try HostThread(name: "signals") {
            while !done.isOver.load(ordering: .acquiring) {
                pthread_kill(pthread_t(owner), SIGUSR1)
                usleep(1000)
            }
        }
        #expect(guest.error() == .interrupted)
        done.isOver.store(true, ordering: .releasing)
        sender.join()
    }

    @Test func anInterruptionReachesALoopAndASleeper() throws {
        for sleeps in [false, true] {
            let guest = try TestGuest { program in
                program.initialize()
                program.notify(0x5000)
                if sleeps { program.hypercall(LguestHypercall.halt) } else { program.wait(for: Place.free, "loop") }
            }
            #expect(try guest.run() == .notify(0x5000))
            for _ in 0..<5 {
                let other = try HostThread(name: "interrupter") { [guest = guest.guest] in guest.interrupt() }
                #expect(guest.error() == .interrupted)
                other.join()
            }
        }
    }
}
