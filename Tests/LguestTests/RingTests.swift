import EngineTesting
import GuestMemory
import HostInterface
import Lguest
import LguestTesting
import Testing
import VirtualCPU

/// The asynchronous ring (A3 "Async ring rules", F10).
@Suite struct RingTests {
    private let guest: ScriptedGuest
    private var memory: GuestMemory { guest.memory }

    init() throws { guest = try ScriptedGuest(in: ScriptedHost()) }

    private func flush() -> ScriptedGuest.Outcome { guest.call(LguestHypercall.flushAsync) }

    /// Fills a slot with a notification of `address`.
    private func notify(_ slot: Int, _ address: UInt64) throws {
        try memory.fillSlot(slot, LguestHypercall.notify, address)
    }

    @Test(.everyEngine) func aGuestsRingIsDoneBeforeItsCall() throws {
        let guest = try TestGuest { program in
            program.initialize()
            for slot in 0..<3 as Range<UInt64> {
                let entry = LguestData.hypercalls + slot * LguestData.ringEntryBytes
                program.setData(entry, LguestHypercall.notify)
                program.setData(entry + 8, 0x1000 * (slot + 1))
                program.put(0, at: Place.data + LguestData.hypercallStatus + slot, size: 1)
            }
            program.notify(0x9000)
            program.powerDown()
        }
        for address in [0x1000, 0x2000, 0x3000, 0x9000] as [UInt64] { #expect(try guest.run() == .notify(address)) }
        guest.finish()
    }

    /// It stops at what the Launcher has to do, and goes on after it; the call in person comes last.
    @Test func itStopsAtEachNotification() throws {
        for slot in 0..<3 { try notify(slot, UInt64(slot + 1) * 0x1000) }
        #expect(guest.call(LguestHypercall.notify, 0x9000) == .pending(.notify(0x1000)))
        #expect(try memory.isFree(slot: 0))
        #expect(try !memory.isFree(slot: 1))
        #expect(guest.run() == .pending(.notify(0x2000)))
        #expect(guest.run() == .pending(.notify(0x3000)))
        #expect(guest.run() == .pending(.notify(0x9000)))
        #expect(guest.run() == .done(0))
    }

    /// 64 sends that look through 4096 buffers each are not what who breaks a Guest off should wait for.
    @Test func itIsCutShortForWhoWantsTheGuestToStop() throws {
        for slot in 0..<3 { try memory.fillSlot(slot, LguestHypercall.flushAsync) }
        guest.guest.interrupt()
        guest.vcpu.prepare(
            Hypercall(rax: LguestHypercall.notify, rbx: 0x9000, rcx: 0, rdx: 0, rsi: 0, privilege: 0))
        // The wish is from before the run: it is heard before anything is done.
        #expect(throws: Errno.interrupted) { try guest.guest.run() }
        #expect(try !memory.isFree(slot: 0))
        let host = try HostThread(name: "interrupter") { [guest = guest.guest] in guest.interrupt() }
        host.join()
        #expect(throws: Errno.interrupted) { try guest.guest.run() }
        #expect(guest.run() == .pending(.notify(0x9000)))
        for slot in 0..<3 { #expect(try memory.isFree(slot: slot)) }
    }

    @Test func itStopsAtASendToTheLauncher() throws {
        try memory.fillSlot(0, LguestHypercall.sendDMA, 0x5000, Place.free)
        try notify(1, 0x1000)
        #expect(flush() == .pending(.dma(buffer: Place.free, key: 0x5000)))
        #expect(guest.run() == .pending(.notify(0x1000)))
    }

    @Test func callsAreDoneInOrder() throws {
        try memory.fillSlot(0, LguestHypercall.bindDMA, 0x5000, Place.free, 1 << 8 | 3)
        try memory.fillSlot(1, LguestHypercall.bindDMA, 0x5000, Place.free, 0)
        #expect(flush() == .done(0))
        // Bound, then unbound: there is nothing to undo.
        #expect(guest.bind(0x5000, Place.free, irq: 0) == .done(0))
        try memory.fillSlot(2, LguestHypercall.bindDMA, 0x5000, Place.free, 0)
        try memory.fillSlot(3, LguestHypercall.bindDMA, 0x5000, Place.free, 1 << 8 | 3)
        #expect(flush() == .done(0))
        #expect(guest.bind(0x5000, Place.free, irq: 0) == .done(1))
    }

    @Test func eachSlotIsFreeWhenItIsDone() throws {
        for slot in 0..<5 { try memory.fillSlot(slot, LguestHypercall.flushTLB, 1, 2, 3, 4) }
        #expect(flush() == .done(0))
        for slot in 0..<5 { #expect(try memory.isFree(slot: slot)) }
    }

    @Test func resultsAreNotKept() throws {
        try memory.fillSlot(0, LguestHypercall.getWallClock, 1, 2, 3, 4)
        #expect(flush() == .done(0))
        for word in 0..<5 as Range<UInt64> {
            let expected = word == 0 ? LguestHypercall.getWallClock : word
            #expect(try memory.data(LguestData.hypercalls + word * 8) == expected)
        }
    }

    @Test func aFreeSlotEndsIt() throws {
        try memory.fillSlot(0, LguestHypercall.flushTLB)
        try memory.fillSlot(2, LguestHypercall.flushTLB)
        #expect(flush() == .done(0))
        #expect(flush() == .done(0))
        #expect(try memory.isFree(slot: 0))
        #expect(try !memory.isFree(slot: 2))
        try memory.fillSlot(1, LguestHypercall.flushTLB)
        #expect(flush() == .done(0))
        #expect(try memory.isFree(slot: 1) && memory.isFree(slot: 2))
    }

    /// Any status but 0xff is a call.
    @Test func onlyFFIsFree() throws {
        for status in [1, 0x7f, 0xfe] as [UInt8] {
            let guest = try ScriptedGuest(in: ScriptedHost())
            try guest.memory.fillSlot(0, LguestHypercall.flushTLB)
            try guest.memory.put([status], Place.data + LguestData.hypercallStatus)
            #expect(guest.call(LguestHypercall.flushAsync) == .done(0))
            #expect(try guest.memory.isFree(slot: 0))
        }
    }

    @Test func itWrapsAt64() throws {
        for slot in 0..<60 { try memory.fillSlot(slot, LguestHypercall.flushTLB) }
        #expect(flush() == .done(0))
        let order = [60, 61, 62, 63, 0, 1, 2]
        for slot in order { try notify(slot, UInt64(slot + 1) * 0x1000) }
        #expect(flush() == .pending(.notify(UInt64(60 + 1) * 0x1000)))
        for slot in order.dropFirst() { #expect(guest.run() == .pending(.notify(UInt64(slot + 1) * 0x1000))) }
        #expect(guest.run() == .done(0))
    }

    @Test func all64AreDoneAtOnce() throws {
        for round in 0..<5 {
            for slot in 0..<LguestData.ringSize { try memory.fillSlot(slot, LguestHypercall.flushTLB) }
            #expect(flush() == .done(0))
            for slot in 0..<LguestData.ringSize { #expect(try memory.isFree(slot: slot), "round \(round)") }
            // The cursor is not always at the beginning.
            for slot in 0..<7 { try memory.fillSlot((round * 7 + slot) % 64, LguestHypercall.flushTLB) }
            #expect(flush() == .done(0))
        }
    }

    /// The bytes that count are those from before the first call: what a call
    /// changes of them is for the next time.
    @Test func theStatusBytesAreTakenAtOnce() throws {
        let host = ScriptedHost()
        let region = try SharedRegion(name: "ring", byteCount: 4096)
        // The ring's Guest has its lguest_data in a page of the receiver's.
        let page: UInt64 = 0x50000
        let receiver = try ScriptedGuest(in: host, regions: [(region, at: page)])
        let guest = try ScriptedGuest(in: host, regions: [(region, at: page)], isInitialized: false)
        let status = page + LguestData.hypercallStatus
        try guest.memory.put([UInt8](repeating: 0xff, count: 64), status)
        guest.call(LguestHypercall.initialize, page)
        // It sends a zero into the status of slot 1.
        try receiver.memory.putList([(status + 1, 1)], at: 0x60000)
        #expect(receiver.bind(page, 0x60000) == .done(1))
        try guest.memory.put([0], 0x70000)
        try guest.memory.putList([(0x70000, 1)], at: 0x60000)
        try guest.memory.fillSlot(0, LguestHypercall.sendDMA, page, 0x60000, of: page)
        try guest.memory.fillSlot(1, LguestHypercall.notify, 0x1000, of: page)
        try guest.memory.put([0xff], status + 1)
        #expect(guest.call(LguestHypercall.flushAsync) == .done(0))
        #expect(try guest.memory.bytes(status, 2) == [0xff, 0])
        #expect(guest.call(LguestHypercall.flushAsync) == .pending(.notify(0x1000)))
    }

    @Test func aDeadlyCallIsTheLast() throws {
        try memory.fillSlot(0, 99)
        try memory.fillSlot(1, LguestHypercall.flushTLB)
        #expect(guest.call(LguestHypercall.notify, 0x1000) == .died("Bad hypercall 99"))
        #expect(try !memory.isFree(slot: 1))
        #expect(guest.run() == .died("Bad hypercall 99"))
    }

    @Test func lguestInitCannotComeByIt() throws {
        try memory.fillSlot(0, LguestHypercall.initialize, Place.data)
        #expect(flush() == .died("already have lguest_data"))
    }

    /// Any number but 19 that there is, as one without a Launcher sees it.
    @Test func shutdownMayComeByIt() throws {
        try memory.fillSlot(0, LguestHypercall.shutdown, Place.text, LguestHypercall.powerOff)
        #expect(flush() == .died("CRASH: Power down"))
    }

    /// A5: where the ring has something for the Launcher, the call in person is not done before.
    @Test func theCallInPersonWaitsForTheLauncher() throws {
        try notify(0, 0x1000)
        #expect(guest.call(LguestHypercall.bindDMA, 0x5000, Place.free, 1 << 8 | 3) == .pending(.notify(0x1000)))
        #expect(throws: (any Error).self) { try guest.guest.freeBuffer(forKey: 0x5000) }
        #expect(guest.run() == .done(1))
        #expect(try guest.guest.freeBuffer(forKey: 0x5000).irq == 3)
    }

    @Test func aCallFromCPL3DoesNotLookAtIt() throws {
        try memory.fillSlot(0, LguestHypercall.flushTLB)
        for privilege in 1...3 {
            #expect(guest.call(LguestHypercall.flushAsync, privilege: privilege) == .done(.max))
        }
        #expect(try !memory.isFree(slot: 0))
    }
}
