internal import CGuest
internal import Synchronization

//G:050 When the world speaks first
//
// Vectors 0 to 31 are the CPU's own complaints, 32 and up are the Host's: irq
// n comes as vector 32 + n. The table has 64 entries, each pointing to a stub
// 16 bytes further on than the last one.
//
// The complaints get a stack of their own, since a full stack is one of the
// things to complain about. Interrupts do not need one.

/// Interrupts 0 (the clock) to 31, as the Host numbers them.
public enum Interrupts {
    /// Runs with interrupts off, in the middle of anything. Let it be short,
    /// and share nothing but atomics with the rest.
    public typealias Handler = @convention(c) (_ irq: Int) -> Void

    @safe nonisolated(unsafe) private static var handlers = InlineArray<32, Handler?>(repeating: nil)

    static func begin() {
        let table = Pages.take().prefix(64 * 16)
        for vector in 0..<64 {
            let stub = guest_address_of_vector(UInt64(vector))
            let stack = vector < LguestIRQ.firstVector ? Segments.exceptionStack : 0
            let gate: UInt64 = 0x8e  // Present, DPL 0, interrupt gate: IF is cleared.
            table.store(
                stub & 0xffff | UInt64(Segments.code) << 16 | UInt64(stack) << 32 | gate << 40
                    | (stub >> 16 & 0xffff) << 48,
                at: vector * 16)
            table.store(stub >> 32, at: vector * 16 + 8)
        }
        guest_load_interrupts(table.address, UInt16(table.count - 1))
    }

    /// The Host may interrupt from here on.
    static func allow() {
        Shared.store(LguestData.interruptsEnabled, at: LguestData.irqEnabled)
        guest_enable_interrupts()
        if Shared.load(LguestData.irqPending) != 0 { Hypercall.sendInterrupts() }
    }

    /// Has `handler` called for each interrupt `irq`. Drivers do without: they look
    /// at their queues, and an interrupt is only what wakes them up.
    public static func handle(_ irq: Int, _ handler: Handler?) { handlers[irq] = handler }

    /// Keeps one interrupt away; it waits.
    public static func block(_ irq: Int) {
        Shared.store(
            Shared.load(LguestData.blockedInterrupts) | 1 << UInt64(irq), at: LguestData.blockedInterrupts)
    }

    /// Lets it come again, at once if it has waited.
    public static func unblock(_ irq: Int) {
        Shared.store(
            Shared.load(LguestData.blockedInterrupts) & ~(1 << UInt64(irq)), at: LguestData.blockedInterrupts)
        Hypercall.sendInterrupts()
    }

    fileprivate static func dispatch(_ irq: Int) { handlers[irq]?(irq) }
}

/// From vectors.S.
@c(guest_interrupt) func interrupt(_ frame: UnsafePointer<guest_frame>) {
    let frame = unsafe frame.pointee
    guard frame.vector >= LguestIRQ.firstVector else { Exceptions.die(of: frame) }
    Interrupts.dispatch(Int(frame.vector) - LguestIRQ.firstVector)
}
//:

//G:060 Sleeping without missing the alarm
//
// "Look whether there is something; if not, sleep." Between the two an
// interrupt may come, be handled, and be forgotten; then we sleep, and nobody
// ever wakes us. Every operating system has fallen into this hole once.
//
// The way around is to shut interrupts out before looking. One that comes now
// stays pending, and HALT with RFLAGS.IF clear comes back as soon as one is.
// Then it is let in for one instruction, and we look again.

extension Interrupts {
    /// Sleeps until the condition is met. It is looked at with interrupts off, after each interrupt.
    public static func wait(until condition: @autoclosure () -> Bool) {
        guest_disable_interrupts()
        while !condition() {
            Hypercall.halt()
            guest_let_interrupts_in()
        }
        guest_enable_interrupts()
    }

    /// The same for a time that is up at `deadline`. False: it is.
    public static func wait(until condition: @autoclosure () -> Bool, before deadline: UInt64) -> Bool {
        guest_disable_interrupts()
        defer { guest_enable_interrupts() }
        while !condition() {
            let now = Clock.nanoseconds
            guard now < deadline else { return false }
            Hypercall.setClockEvent(deadline - now)
            Hypercall.halt()
            guest_let_interrupts_in()
        }
        return true
    }
}
//:
