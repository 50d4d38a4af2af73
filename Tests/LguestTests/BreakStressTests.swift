import EngineTesting
import HostInterface
import Lguest
import LguestTesting
import Synchronization
import Testing

/// The Waker under load: each BREAK ends a `run`, and none is lost, whatever
/// the Guest does meanwhile. 100,000 of them with ROOST_CASES.
@Suite(.everyEngine) struct BreakStressTests {
    private static let breaks = environmentVariable("ROOST_CASES") == nil ? 5_000 : 100_000

    private final class Shared: Sendable {
        let through = Atomic(0)
        let failed = Atomic(0)
        /// Of one BREAK until `run` has thrown, in nanoseconds.
        let began = Atomic<UInt64>(0)
    }

    @Test(arguments: ["loops", "halts", "does hypercalls", "notifies"]) func noBreakIsLost(_ way: String) throws {
        let guest = try TestGuest { program in
            program.initialize()
            program.label("again")
            switch way {
            case "halts": program.hypercall(LguestHypercall.halt)
            case "does hypercalls": program.hypercall(LguestHypercall.flushAsync)
            case "notifies": program.notify(0x5000)
            default: program.nop()
            }
            program.jump("again")
        }
        let shared = Shared()
        let waker = try HostThread(name: "waker") { [guest = guest.guest] in
            for _ in 0..<Self.breaks {
                shared.began.store(HostClock.monotonicNanoseconds, ordering: .releasing)
                do throws(Errno) { try guest.breakOut() } catch { shared.failed.wrappingAdd(1, ordering: .relaxed) }
                shared.through.wrappingAdd(1, ordering: .acquiringAndReleasing)
            }
        }
        var longest: UInt64 = 0, sum: UInt64 = 0, count = 0, strange: [Errno] = []
        let watch = Watch(guest.guest, seconds: 300)
        while shared.through.load(ordering: .acquiring) < Self.breaks {
            do throws(Errno) {
                _ = try guest.run()
                continue
            } catch { if error != .again { strange.append(error) } }
            if !strange.isEmpty { break }
            let taken = HostClock.monotonicNanoseconds &- shared.began.load(ordering: .acquiring)
            (longest, sum, count) = (max(longest, taken), sum &+ taken, count + 1)
            let before = shared.through.load(ordering: .acquiring)
            try guest.guest.release()
            // The last one will not come again.
            while before + 1 == Self.breaks, shared.through.load(ordering: .acquiring) == before { HostThread.yield() }
        }
        watch.end()
        if !strange.isEmpty { guest.guest.close() }
        waker.join()
        #expect(strange == [])
        #expect(shared.failed.load(ordering: .relaxed) == 0)
        #expect(shared.through.load(ordering: .acquiring) == Self.breaks)
        print(
            "BREAK of a Guest that \(way), \(TestedEngine.current.name): \(count) in all, "
                + "\(sum / UInt64(max(count, 1)) / 1000) µs each, \(longest / 1000) µs the longest")
    }
}
