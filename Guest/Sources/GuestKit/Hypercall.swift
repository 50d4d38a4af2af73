internal import CGuest

//G:030 Asking the Host
//
// A system call goes down into a kernel; a hypercall goes down one floor
// more. Number in RAX, arguments in RBX, RCX, RDX and RSI, VMCALL, the answer
// in RAX. lguest came by `int 0x1f`, because in 2007 it had no better door.
//
// Of the twenty numbers a Guest with a CPU of its own needs nine. The others
// are there because lguest's Guests had their page tables and segments from
// the Host and had to ask for each change; ours simply does MOV to CR3.

/// The Host's services, by name. docs/lguest-abi.md has each of them.
public enum Hypercall {
    @discardableResult @inline(always) static func call(
        _ number: UInt64, _ a: UInt64 = 0, _ b: UInt64 = 0, _ c: UInt64 = 0, _ d: UInt64 = 0
    ) -> UInt64 { guest_hypercall(number, a, b, c, d) }

    /// A descriptor's address: its status has changed. A ring's: there are
    /// buffers. Any other: there is text, to be printed.
    static func notify(_ address: UInt64) { call(LguestHypercall.notify, address) }

    /// Sleeps until an interrupt has come. With RFLAGS.IF clear the interrupt then waits.
    static func halt() { call(LguestHypercall.halt) }

    /// Interrupt 0 comes once, in so many nanoseconds; 0: not at all.
    static func setClockEvent(_ nanoseconds: UInt64) { call(LguestHypercall.setClockEvent, nanoseconds) }

    /// Seconds since 1970, UTC.
    static func wallClock() -> UInt64 { call(LguestHypercall.getWallClock) }

    /// Interrupts that wait are to be delivered, if nothing blocks them any more.
    static func sendInterrupts() { call(LguestHypercall.sendInterrupts) }

    /// Registers `count` DMA buffers for what is sent to `key`. False: there is no room.
    static func bindDMA(key: UInt64, buffers: UInt64, count: Int, irq: Int) -> Bool {
        call(LguestHypercall.bindDMA, key, buffers, UInt64(count) << 8 | UInt64(irq)) != 0
    }

    static func sendDMA(key: UInt64, buffer: UInt64) { call(LguestHypercall.sendDMA, key, buffer) }

    /// A call that does nothing, and how a measurement of hypercalls begins.
    public static func flushAsync() { call(LguestHypercall.flushAsync) }
}
//:

//G:035 Asking when it suits
//
// A door costs what it costs however little one carries through it. So calls
// whose answer nobody waits for can be left on a table beside it, up to 64,
// and the Host takes them along the next time somebody comes through. Slot n
// is ours while its status is 0xff; we fill it and set the status to 0, in
// this order (the store that releases it comes last); the Host puts 0xff back.
// The table is full? Then we go through the door ourselves, which empties it.

extension Hypercall {
    @safe nonisolated(unsafe) private static var nextSlot = 0

    /// Does the call before the next one that is made directly, or now if 64 are waiting.
    public static func later(
        _ number: UInt64, _ a: UInt64 = 0, _ b: UInt64 = 0, _ c: UInt64 = 0, _ d: UInt64 = 0
    ) {
        let status = Int(LguestData.hypercallStatus) + nextSlot
        guard Shared.page[status] == LguestData.slotFree else {
            call(number, a, b, c, d)
            return
        }
        let slot = Shared.page.part(
            Int(LguestData.hypercalls + UInt64(nextSlot) * LguestData.ringEntryBytes), Int(LguestData.ringEntryBytes))
        slot.store(number, at: 0)
        slot.store(a, at: 8)
        slot.store(b, at: 16)
        slot.store(c, at: 24)
        slot.store(d, at: 32)
        // ORDERING: the Host looks at it in the same thread as this CPU's, so program order is all it takes.
        Shared.page[status] = 0
        nextSlot = (nextSlot + 1) % LguestData.ringSize
    }
}
//:
