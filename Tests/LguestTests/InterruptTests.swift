import EngineTesting
import Glibc
import HostInterface
import Lguest
import LguestTesting
import Synchronization
import Testing
import VirtualCPU

/// Thirty-two interrupts and no chip (B7; docs/lguest-abi.md, "Interrupts").
@Suite(.everyEngine) struct InterruptTests {
    /// Turns round until so many interrupts have been seen.
    private func wait(_ program: inout Program, forInterrupts count: UInt8, _ label: String = "seen") {
        program.move(.r15, Place.log)
        program.label(label)
        program.load(.r14, Memory(.r15))
        program.op(0x83, reg: 7, .r14, immediate: [count])  // cmp
        program.jump(.b, label)
    }

    /// How many have been seen is a result.
    private func keepCount(_ program: inout Program, _ index: Int = 0) {
        program.load(.rax, Memory(nil, Int32(Place.log)))
        program.keepResult(index)
    }

    @Test func irqNIsVector32PlusNAndTheLowestComesFirst() throws {
        let guest = try TestGuest { program in
            program.takeInterrupts()
            program.notify(0x5000)
            program.sti()
            wait(&program, forInterrupts: UInt8(LguestIRQ.count))
            program.powerDown()
        }
        #expect(try guest.run() == .notify(0x5000))
        for irq in (0..<LguestIRQ.count).shuffled() { try guest.guest.raise(irq: irq) }
        guest.finish()
        #expect(try guest.interrupts == Array(0..<LguestIRQ.count))
    }

    @Test func oneThatWasRaisedTwiceComesOnce() throws {
        let guest = try TestGuest { program in
            program.takeInterrupts()
            program.notify(0x5000)
            program.sti()
            wait(&program, forInterrupts: 2)
            program.powerDown()
        }
        #expect(try guest.run() == .notify(0x5000))
        for irq in [4, 4, 9, 4, 9] { try guest.guest.raise(irq: irq) }
        guest.finish()
        #expect(try guest.interrupts == [4, 9])
    }

    @Test func aRunningGuestIsInterruptedByAnotherThread() throws {
        let guest = try TestGuest { program in
            program.takeInterrupts()
            program.notify(0x5000)
            program.sti()
            wait(&program, forInterrupts: 1)
            program.powerDown()
        }
        #expect(try guest.run() == .notify(0x5000))
        let other = try HostThread(name: "device") { [guest = guest.guest] in try? guest.raise(irq: 31) }
        guest.finish()
        other.join()
        #expect(try guest.interrupts == [31])
    }

    @Test func withIFClearItWaits() throws {
        let guest = try TestGuest { program in
            program.takeInterrupts()
            program.notify(0x5000)
            for _ in 0..<3 { program.hypercall(LguestHypercall.sendInterrupts) }
            keepCount(&program)
            program.sti()
            wait(&program, forInterrupts: 1)
            program.powerDown()
        }
        #expect(try guest.run() == .notify(0x5000))
        try guest.guest.raise(irq: 6)
        guest.finish()
        #expect(try guest.result() == 0)
        #expect(try guest.interrupts == [6])
    }

    // MARK: Blocked

    @Test func aBlockedOneWaitsForSendInterrupts() throws {
        let guest = try TestGuest { program in
            program.takeInterrupts()
            program.setData(LguestData.blockedInterrupts, 1 << 3)
            program.notify(0x5000)
            program.sti()
            wait(&program, forInterrupts: 1)
            keepCount(&program)
            program.setData(LguestData.blockedInterrupts, 0)
            program.hypercall(LguestHypercall.sendInterrupts)
            wait(&program, forInterrupts: 2, "second")
            program.powerDown()
        }
        #expect(try guest.run() == .notify(0x5000))
        try guest.guest.raise(irq: 3)
        try guest.guest.raise(irq: 5)
        guest.finish()
        #expect(try guest.result() == 1)
        #expect(try guest.interrupts == [5, 3])
    }

    @Test func bitsAbove31BlockNothing() throws {
        let guest = try TestGuest { program in
            program.takeInterrupts()
            program.setData(LguestData.blockedInterrupts, 0xffff_ffff_0000_0000)
            program.notify(0x5000)
            program.sti()
            wait(&program, forInterrupts: 2)
            program.powerDown()
        }
        #expect(try guest.run() == .notify(0x5000))
        try guest.guest.raise(irq: 0)
        try guest.guest.raise(irq: 31)
        guest.finish()
        #expect(try guest.interrupts == [0, 31])
    }

    // MARK: irq_enabled and irq_pending

    @Test func whileIrqEnabledIsZeroIrqPendingTellsOfIt() throws {
        let guest = try TestGuest { program in
            program.takeInterrupts()
            program.setData(LguestData.irqEnabled, 0)
            program.notify(0x5000)
            program.sti()
            program.wait(for: Place.data + LguestData.irqPending, "pending")
            program.store(.r14, Memory(nil, Int32(Place.results)))
            keepCount(&program, 1)
            program.setData(LguestData.irqEnabled, LguestData.interruptsEnabled)
            program.hypercall(LguestHypercall.sendInterrupts)
            wait(&program, forInterrupts: 1)
            program.powerDown()
        }
        #expect(try guest.run() == .notify(0x5000))
        try guest.guest.raise(irq: 8)
        guest.finish()
        #expect(try guest.result() == LguestData.interruptsEnabled)
        #expect(try guest.result(1) == 0)
        #expect(try guest.interrupts == [8])
        // The original never cleared it; see the sheet, B7.
        #expect(try guest.memory.data(LguestData.irqPending) == 0)
    }

    /// On every engine: a Guest that closes the door again at once has had its interrupt.
    @Test func sendInterruptsIsNow() throws {
        let guest = try TestGuest { program in
            program.takeInterrupts()
            program.sti()
            program.setData(LguestData.irqEnabled, 0)
            program.notify(0x5000)
            program.setData(LguestData.irqEnabled, LguestData.interruptsEnabled)
            program.hypercall(LguestHypercall.sendInterrupts)
            program.setData(LguestData.irqEnabled, 0)
            program.powerDown()
        }
        #expect(try guest.run() == .notify(0x5000))
        try guest.guest.raise(irq: 8)
        guest.finish()
        #expect(try guest.interrupts == [8])
    }

    /// B7: cleared when nothing more is pending, and not before.
    @Test func irqPendingIsClearedByTheLastOne() throws {
        let guest = try TestGuest { program in
            program.takeInterrupts()
            program.setData(LguestData.irqEnabled, 0)
            program.notify(0x5000)
            program.sti()
            program.wait(for: Place.data + LguestData.irqPending, "pending")
            // The handler of the first one looks at it while the second waits.
            program.setData(LguestData.irqEnabled, LguestData.interruptsEnabled)
            program.hypercall(LguestHypercall.sendInterrupts)
            wait(&program, forInterrupts: 2)
            program.powerDown()
        }
        var handler = Program(at: Place.handler(2))
        handler.load(.r13, Memory(nil, Int32(Place.data + LguestData.irqPending)))
        handler.store(.r13, Memory(nil, Int32(Place.results)))
        handler.op(0xff, reg: 0, Memory(nil, Int32(Place.log)))
        handler.raw(0x48, 0xcf)
        try guest.memory.put(handler)
        #expect(try guest.run() == .notify(0x5000))
        try guest.guest.raise(irq: 2)
        try guest.guest.raise(irq: 4)
        guest.finish()
        #expect(try guest.result() == LguestData.interruptsEnabled)
        #expect(try guest.memory.data(LguestData.irqPending) == 0)
    }

    /// A trap gate leaves it, an interrupt gate clears IF: it is the Guest's own.
    @Test func theHostNeverClearsIrqEnabled() throws {
        let guest = try TestGuest { program in
            program.takeInterrupts()
            program.notify(0x5000)
            program.sti()
            wait(&program, forInterrupts: 1)
            program.powerDown()
        }
        #expect(try guest.run() == .notify(0x5000))
        try guest.guest.raise(irq: 1)
        guest.finish()
        #expect(try guest.memory.data(LguestData.irqEnabled) == LguestData.interruptsEnabled)
    }

    @Test func eachWritesTheTime() throws {
        let guest = try TestGuest { program in
            program.takeInterrupts()
            program.setData(LguestData.time, 0)
            program.setData(LguestData.time + 8, .max)
            program.notify(0x5000)
            program.sti()
            wait(&program, forInterrupts: 1)
            program.powerDown()
        }
        #expect(try guest.run() == .notify(0x5000))
        let before = HostClock.realtimeNanoseconds
        try guest.guest.raise(irq: 1)
        guest.finish()
        let seconds = try guest.memory.data(LguestData.time)
        let nanoseconds = try guest.memory.data(LguestData.time + 8)
        #expect((before...HostClock.realtimeNanoseconds).contains(seconds * 1_000_000_000 + nanoseconds))
        #expect(nanoseconds < 1_000_000_000)
    }

    // MARK: Where none may come

    /// A4, B7: nothing while RIP is in the range, and soon after it.
    @Test func noneComesInTheQuietRange() throws {
        let guest = try TestGuest { program in
            program.takeInterrupts()
            program.move(.rax, addressOf: "start")
            program.store(.rax, Memory(nil, Int32(Place.data + LguestData.noInterruptStart)))
            program.move(.rax, addressOf: "end")
            program.store(.rax, Memory(nil, Int32(Place.data + LguestData.noInterruptEnd)))
            program.sti()
            program.nop()
            program.label("start")
            program.notify(0x5000)
            program.move(.rcx, 20_000)
            program.label("turn")
            program.decrement(.rcx)
            program.jump(.ne, "turn")
            keepCount(&program)
            program.label("end")
            wait(&program, forInterrupts: 1)
            program.powerDown()
        }
        #expect(try guest.run() == .notify(0x5000))
        try guest.guest.raise(irq: 5)
        guest.finish()
        #expect(try guest.result() == 0)
        #expect(try guest.interrupts == [5])
    }

    @Test(arguments: ["absent", "beyond the limit", "not mapped"]) func withoutAGateItStaysPending(_ way: String) throws
    {
        let guest = try TestGuest { program in
            program.takeInterrupts()
            if way == "not mapped" {
                program.put(1 << 40, at: Place.idtr + 2)
            } else if way == "beyond the limit" {
                program.put(UInt64(LguestIRQ.firstVector + 4) * 16 + 14, at: Place.idtr, size: 2)
            }
            program.op(0x0f, 0x01, reg: 3, Memory(nil, Int32(Place.idtr)), size: 4)
            program.notify(0x5000)
            program.sti()
            for _ in 0..<3 { program.hypercall(LguestHypercall.sendInterrupts) }
            keepCount(&program)
            program.notify(0x6000)
            program.put(64 * 16 - 1, at: Place.idtr, size: 2)
            program.put(Place.idt, at: Place.idtr + 2)
            program.op(0x0f, 0x01, reg: 3, Memory(nil, Int32(Place.idtr)), size: 4)
            program.hypercall(LguestHypercall.sendInterrupts)
            wait(&program, forInterrupts: 1)
            program.powerDown()
        }
        if way == "absent" { try guest.memory.setGate(4, isPresent: false) }
        #expect(try guest.run() == .notify(0x5000))
        try guest.guest.raise(irq: 4)
        #expect(try guest.run() == .notify(0x6000))
        #expect(try guest.result() == 0)
        try guest.memory.setGate(4, isPresent: true)
        guest.finish()
        #expect(try guest.interrupts == [4])
    }

    // MARK: HALT and HLT

    /// B7: irq_enabled is forced to 0x200.
    @Test func haltReturnsAfterAnInterruptAndEnablesThem() throws {
        let guest = try TestGuest { program in
            program.takeInterrupts()
            program.setData(LguestData.irqEnabled, 0)
            program.sti()
            program.notify(0x5000)
            program.hypercall(LguestHypercall.halt)
            program.keepResult()
            keepCount(&program, 1)
            program.powerDown()
        }
        #expect(try guest.run() == .notify(0x5000))
        let other = try HostThread(name: "device") { [guest = guest.guest] in try? guest.raise(irq: 9) }
        guest.finish()
        other.join()
        #expect(try guest.result() == 0)
        #expect(try guest.result(1) == 1)
        #expect(try guest.interrupts == [9])
        #expect(try guest.memory.data(LguestData.irqEnabled) == LguestData.interruptsEnabled)
    }

    @Test func withIFClearHaltComesBackAndTheInterruptWaits() throws {
        let guest = try TestGuest { program in
            program.takeInterrupts()
            program.notify(0x5000)
            program.hypercall(LguestHypercall.halt)
            keepCount(&program)
            program.sti()
            wait(&program, forInterrupts: 1)
            program.powerDown()
        }
        #expect(try guest.run() == .notify(0x5000))
        let other = try HostThread(name: "device") { [guest = guest.guest] in try? guest.raise(irq: 9) }
        guest.finish()
        other.join()
        #expect(try guest.result() == 0)
        #expect(try guest.interrupts == [9])
    }

    @Test func haltReturnsAtOnceIfOneIsWaiting() throws {
        let guest = try TestGuest { program in
            program.takeInterrupts()
            program.notify(0x5000)
            program.hypercall(LguestHypercall.halt)
            program.powerDown()
        }
        #expect(try guest.run() == .notify(0x5000))
        try guest.guest.raise(irq: 9)
        guest.finish()
    }

    @Test(arguments: [false, true]) func aBlockedInterruptDoesNotWake(byInstruction: Bool) throws {
        let guest = try TestGuest { program in
            program.takeInterrupts()
            program.setData(LguestData.blockedInterrupts, 1 << 3)
            program.notify(0x5000)
            program.sleep(byInstruction: byInstruction)
            keepCount(&program)
            program.powerDown()
        }
        #expect(try guest.run() == .notify(0x5000))
        try guest.guest.raise(irq: 3)
        for _ in 0..<3 {
            let other = try HostThread(name: "interrupter") { [guest = guest.guest] in guest.interrupt() }
            #expect(guest.error() == .interrupted)
            other.join()
        }
        let other = try HostThread(name: "device") { [guest = guest.guest] in
            try? guest.raise(irq: 3)
            try? guest.raise(irq: 5)
        }
        guest.finish()
        other.join()
        #expect(try guest.result() == 1)
        #expect(try guest.interrupts == [5])
    }

    @Test func hltSleepsUntilAnInterrupt() throws {
        let guest = try TestGuest { program in
            program.takeInterrupts()
            program.notify(0x5000)
            program.sti()
            program.halt()
            keepCount(&program)
            program.powerDown()
        }
        #expect(try guest.run() == .notify(0x5000))
        let other = try HostThread(name: "device") { [guest = guest.guest] in try? guest.raise(irq: 2) }
        guest.finish()
        other.join()
        #expect(try guest.result() == 1)
        #expect(try guest.interrupts == [2])
    }

    /// It would be back at once, again and again, and find no interrupt.
    @Test func hltSleepsWhileIrqEnabledIsZero() throws {
        let guest = try TestGuest { program in
            program.takeInterrupts()
            program.setData(LguestData.irqEnabled, 0)
            program.notify(0x5000)
            program.sti()
            program.halt()
            program.powerDown()
        }
        #expect(try guest.run() == .notify(0x5000))
        try guest.guest.raise(irq: 3)
        let other = try HostThread(name: "interrupter") { [guest = guest.guest] in
            while !guest.isAsleep { usleep(1000) }
            guest.interrupt()
        }
        #expect(guest.error() == .interrupted)
        other.join()
        guest.guest.interrupt()
        #expect(guest.error() == .interrupted)
        #expect(guest.guest.death == nil)
        #expect(try guest.memory.data(LguestData.irqPending) == LguestData.interruptsEnabled)
        // As another of its CPUs would.
        try guest.memory.setData(LguestData.irqEnabled, LguestData.interruptsEnabled)
        guest.finish()
        #expect(try guest.interrupts == [3])
    }

    /// As on any PC. Only its Launcher gets it out of that.
    @Test func hltWithIFClearIsForEver() throws {
        let guest = try TestGuest { program in
            program.takeInterrupts()
            program.notify(0x5000)
            program.halt()
            program.powerDown()
        }
        #expect(try guest.run() == .notify(0x5000))
        for irq in 0..<3 {
            try guest.guest.raise(irq: irq)
            let other = try HostThread(name: "interrupter") { [guest = guest.guest] in guest.interrupt() }
            #expect(guest.error() == .interrupted)
            other.join()
        }
        #expect(try guest.interrupts == [])
        #expect(guest.guest.death == nil)
    }

    /// 20,000 of them, from another thread, as fast as the Guest takes them: none is lost.
    @Test func noWakeUpIsLost() throws {
        let rounds: UInt64 = 20_000
        let guest = try TestGuest { program in
            program.takeInterrupts()
            program.sleep(untilInterrupts: UInt16(rounds))
            program.powerDown()
        }
        // Counts, and writes no more down.
        var handler = Program(at: Place.handler(1))
        handler.op(0xff, reg: 0, Memory(nil, Int32(Place.log)))
        handler.raw(0x48, 0xcf)
        try guest.memory.put(handler)
        let (memory, handle) = (guest.memory, guest.guest)
        let device = try HostThread(name: "device") {
            for round in 0..<rounds {
                try? handle.raise(irq: 1)
                while handle.death == nil, (try? memory.word(Place.log)) == round { HostThread.yield() }
            }
        }
        guest.finish()
        device.join()
        #expect(try guest.memory.word(Place.log) == rounds)
    }
}

/// SET_CLOCKEVENT (A3, B7).
@Suite(.everyEngine) struct ClockEventTests {
    @Test func irq0ComesOnceForEach() throws {
        let guest = try TestGuest { program in
            program.takeInterrupts()
            program.sti()
            for index in 0..<20 as Range<UInt16> {
                program.hypercall(LguestHypercall.setClockEvent, UInt64(index) * 10_000 + 1)
                program.sleep(untilInterrupts: index + 1, "sleep \(index)")
            }
            program.powerDown()
        }
        guest.finish()
        #expect(try guest.interrupts == [Int](repeating: LguestIRQ.clock, count: 20))
    }

    @Test func itIsNotEarly() throws {
        let guest = try TestGuest { program in
            program.takeInterrupts()
            program.sti()
            program.hypercall(LguestHypercall.setClockEvent, 20_000_000)
            program.notify(0x5000)
            program.sleep(untilInterrupts: 1)
            program.powerDown()
        }
        let before = HostClock.monotonicNanoseconds
        #expect(try guest.run() == .notify(0x5000))
        guest.finish()
        #expect(HostClock.monotonicNanoseconds - before >= 20_000_000)
    }

    /// The second one is instead of the first, whichever is the earlier.
    @Test func anotherTakesItsPlace() throws {
        let guest = try TestGuest { program in
            program.takeInterrupts()
            program.sti()
            program.hypercall(LguestHypercall.setClockEvent, 3_600_000_000_000)
            program.hypercall(LguestHypercall.setClockEvent, 1000)
            program.sleep(untilInterrupts: 1, "first")
            program.hypercall(LguestHypercall.setClockEvent, .max)
            program.hypercall(LguestHypercall.setClockEvent, 1000)
            program.sleep(untilInterrupts: 2, "second")
            program.powerDown()
        }
        guest.finish()
        #expect(try guest.interrupts == [0, 0])
    }

    /// It would come before what the Launcher raises later.
    @Test func zeroCancels() throws {
        let guest = try TestGuest { program in
            program.takeInterrupts()
            program.hypercall(LguestHypercall.setClockEvent, 100_000_000)
            program.hypercall(LguestHypercall.setClockEvent, 0)
            program.notify(0x5000)
            program.sti()
            program.sleep(untilInterrupts: 1)
            program.powerDown()
        }
        #expect(try guest.run() == .notify(0x5000))
        _ = waitReadable([], milliseconds: 150)
        try guest.guest.raise(irq: 7)
        guest.finish()
        #expect(try guest.interrupts == [7])
    }
}
