internal import GuestMemory
internal import HostInterface
internal import VirtualCPU

//H:350 Hypercalls
//
// A Guest that knows what it is asks in so many words: number in RAX, VMCALL.
// There is a second way for a Guest in no hurry, a ring of 64 calls in its own
// memory, which are done before the next one that it makes in person. The
// original had it for page tables: a kernel in ring 1 changes thousands of
// entries, and each was a hypercall. Our Guests have page tables of their own,
// and what is left for the ring is a notification here and there; but it costs
// one byte's look, and so we have kept it.
//
// The calls about page tables, descriptors and segments are accepted and do
// nothing, which is what they mean on a Host that has no shadows to keep.

/// Does one Guest's hypercalls, on its vCPU's thread.
final class Hypercalls: HypercallHandler {
    // Each outlives us: they are the Guest, and what it keeps with us.
    private unowned let guest: LguestGuest
    private unowned let vcpu: any VCPU
    private let memory: GuestMemory
    private let interrupts: LguestInterrupts
    /// Made in person, and not done: the Launcher has something to do first, or wants its Guest to stop.
    private(set) var waits = false
    /// Where the Host goes on in the ring.
    private var cursor = 0

    init(of guest: LguestGuest, on vcpu: any VCPU, memory: GuestMemory, interrupts: LguestInterrupts) {
        (self.guest, self.vcpu, self.memory, self.interrupts) = (guest, vcpu, memory, interrupts)
    }

    /// Does the ring's calls, then the one that was made in person, until one
    /// is the Launcher's to do: the rest `waits` until the next time.
    ///
    /// - Returns: whether the Guest can go on.
    func perform() -> Bool {
        let call = vcpu.hypercall
        guard call.privilege == 0 else {
            vcpu.answerHypercall(UInt64(bitPattern: -1))  // EPERM
            return true
        }
        guard let data = interrupts.data else {
            initialize(call)
            return !guest.isDead
        }
        // One byte tells most of the time that there is nothing.
        if data.status(ofSlot: cursor) != LguestData.slotFree {
            let isWhole = drain(data)
            waits = guest.pending != nil || !isWhole
            if waits || guest.isDead { return false }
        }
        waits = false
        vcpu.answerHypercall(perform(call.rax, call.rbx, call.rcx, call.rdx, data))
        return guest.goesOn
    }

    private func initialize(_ call: Hypercall) {
        guard call.rax == LguestHypercall.initialize else {
            return guest.kill("hypercall \(call.rax) before LGUEST_INIT")
        }
        guard let data = SharedData(at: GuestPhysicalAddress(call.rbx), in: memory) else {
            return guest.kill("bad guest page \(GuestPhysicalAddress(call.rbx))")
        }
        data.introduce(guestID: guest.id, tscKHz: UInt32(clamping: HostClock.timeStampFrequency / 1000))
        data.setTime(HostClock.realtimeNanoseconds)
        interrupts.data = data
        interrupts.lookAgain()
        vcpu.answerHypercall(0)
    }

    /// - Returns: false if somebody wants the Guest to stop: a ring full of sends can take long.
    private func drain(_ data: SharedData) -> Bool {
        let statuses = data.statuses
        for _ in 0..<LguestData.ringSize {
            let slot = cursor
            if statuses[slot] == LguestData.slotFree { return true }
            cursor = (cursor + 1) % LguestData.ringSize
            let call = data.call(inSlot: slot)
            _ = perform(call.number, call.1, call.2, call.3, data)
            data.free(slot: slot)
            if guest.pending != nil || guest.isDead { return true }
            // Not before one is done: what it asks for comes before any break.
            if vcpu.requests.pending.contains(.stop) { return false }
        }
        return true
    }

    /// - Returns: what goes into RAX.
    private func perform(
        _ number: UInt64, _ first: UInt64, _ second: UInt64, _ third: UInt64, _ data: SharedData
    ) -> UInt64 {
        switch number {
        case LguestHypercall.flushAsync: return 0
        case LguestHypercall.notify: guest.notify(first)
        case LguestHypercall.halt: guest.asleep = .call
        case LguestHypercall.sendInterrupts: interrupts.lookAgain()
        case LguestHypercall.setClockEvent: setClockEvent(first)
        case LguestHypercall.getWallClock: return HostClock.realtimeNanoseconds / 1_000_000_000
        case LguestHypercall.sendDMA:
            guest.send(key: GuestPhysicalAddress(first), buffer: GuestPhysicalAddress(second), memory)
        case LguestHypercall.bindDMA:
            let isDone = guest.bind(
                key: GuestPhysicalAddress(first), array: GuestPhysicalAddress(second),
                count: Int(third >> 8 & 0xffff), irq: Int(third & 0xff), memory)
            return isDone ? 1 : 0
        case LguestHypercall.shutdown: shutdown(GuestPhysicalAddress(first), how: second)
        case LguestHypercall.initialize: guest.kill("already have lguest_data")
        case LguestHypercall.loadGDT, LguestHypercall.newPageTable, LguestHypercall.flushTLB,
            LguestHypercall.loadIDTEntry, LguestHypercall.setStack, LguestHypercall.ts, LguestHypercall.setPTE,
            LguestHypercall.setPMD, LguestHypercall.loadTLS, LguestHypercall.loadGDTEntry:
            return 0
        case LguestHypercall.xen..<LguestHypercall.xen + LguestHypercall.xenCount:
            guard let xen = guest.xen else {
                guest.kill("Bad hypercall \(number): there is no Xen here")
                break
            }
            let result = xen.call(number - LguestHypercall.xen, first, second, third, cr3: vcpu.readState { $0.cr3 })
            return UInt64(bitPattern: result)
        default: guest.kill("Bad hypercall \(number)")
        }
        return 0
    }

    private func setClockEvent(_ nanoseconds: UInt64) {
        do throws(HostError) { try interrupts.setClockEvent(nanoseconds) } catch { guest.kill("no clock: \(error)") }
    }

    private func shutdown(_ address: GuestPhysicalAddress, how: UInt64) {
        if how == LguestHypercall.restart { return guest.die(.restart) }
        guard let text = memory.text(at: address, atMost: LguestHypercall.shutdownTextBytes - 1) else {
            return guest.kill("bad address \(address) of a text")
        }
        guest.die(.shutdown(text: String(decoding: text, as: UTF8.self)))
    }
}
//:

extension GuestMemory {
    /// The bytes up to a NUL, the end of memory or so many, whichever comes first; nil outside memory.
    func text(at address: GuestPhysicalAddress, atMost count: Int) -> [UInt8]? {
        guard contains(address, 1) else { return nil }
        let end = address.rawValue < lowEnd ? lowEnd : highEnd
        let bytes = try? read(address, count: Int(min(UInt64(count), end - address.rawValue)))
        return bytes.map { Array($0.prefix { $0 != 0 }) }
    }
}
