internal import GuestMemory
internal import HostInterface
internal import Platform
internal import Synchronization
internal import VirtualCPU
internal import X86

//H:340 Thirty-two interrupts and no chip
//
// A PC has two kinds of interrupt controller and hundreds of registers for
// what amounts to a bitmap. lguest had the bitmap: 32 bits, the lowest first,
// another 32 by which the Guest says what it does not want to hear of, and one
// word that stands for the interrupt flag. On the original's hardware that word
// was a necessity, as a kernel in ring 1 can neither CLI nor STI. Our Guests
// can, so it is a courtesy: a store is cheaper than either, and a Guest that
// holds interrupts off with it is told by another word that one is waiting.

/// The interrupts of one Guest. `raise` and the clock are for any thread, the rest for the vCPU's.
final class LguestInterrupts: InterruptController, @unchecked Sendable {
    private let pending = Atomic<UInt32>(0)
    private let requests: VCPURequests
    private let memory: GuestMemory
    /// After LGUEST_INIT.
    var data: SharedData?
    /// Has us, and so outlives us.
    unowned var vcpu: (any VCPU)?

    private let alarms: AlarmClock
    private let clock: Alarm
    /// When the clock's interrupt is due, in nanoseconds of CLOCK_MONOTONIC; `.max`: not at all.
    private let clockDue = Atomic<UInt64>(.max)
    /// Looks again, when the Guest has left the code in which it wants no interrupt.
    private let recheck: Alarm
    private static let firstDelay: UInt64 = 20_000, lastDelay: UInt64 = 1_000_000
    private var recheckDelay = firstDelay

    var taskPriorityClass: UInt8 = 0

    init(_ requests: VCPURequests, memory: GuestMemory) throws(HostError) {
        self.requests = requests
        self.memory = memory
        alarms = try AlarmClock(HostMachineClock())
        // The clock's thread outlives nobody: see `stop`.
        let pending = Weak<LguestInterrupts>()
        clock = alarms.makeAlarm { pending.value?.clockRings() }
        recheck = alarms.makeAlarm { requests.post(.interrupt) }
        pending.value = self
    }

    /// Ends the clock. At most once, and nothing is raised by it afterwards.
    func stop() { alarms.stop() }

    /// Makes an interrupt pending.
    func raise(_ irq: Int) {
        // ORDERING: the bit, then the request; `acknowledgeInterrupt` takes the request back, then looks at the bits.
        pending.bitwiseOr(1 << UInt32(irq), ordering: .sequentiallyConsistent)
        requests.post(.interrupt)
    }

    /// Irq 0 in so many nanoseconds, once; 0 cancels.
    func setClockEvent(_ nanoseconds: UInt64) throws(HostError) {
        clockDue.store(.max, ordering: .sequentiallyConsistent)
        if nanoseconds == 0 { return clock.set(nil) }
        try alarms.start()
        let (deadline, overflow) = HostClock.monotonicNanoseconds.addingReportingOverflow(nanoseconds)
        clockDue.store(overflow ? .max - 1 : deadline, ordering: .sequentiallyConsistent)
        clock.set(overflow ? .max - 1 : deadline)
    }

    /// The clock's thread may be on its way here while the Guest sets another time, or none.
    private func clockRings() {
        let due = clockDue.load(ordering: .sequentiallyConsistent)
        guard due <= HostClock.monotonicNanoseconds,
            clockDue.compareExchange(expected: due, desired: .max, ordering: .sequentiallyConsistent).exchanged
        else { return }
        raise(LguestIRQ.clock)
    }

    /// Those that the Guest does not block.
    private func unblocked(_ data: SharedData) -> UInt32 {
        pending.load(ordering: .sequentiallyConsistent) & ~data.blockedInterrupts
    }

    private var hasUnblocked: Bool { data.map { unblocked($0) != 0 } ?? false }

    /// Whether there is an interrupt that ends such a sleep. A Guest in HLT with `irq_enabled` 0 is told that one
    /// waits, and sleeps on.
    func wakes(from sleep: LguestGuest.Sleep) -> Bool {
        guard let data, unblocked(data) != 0 else { return false }
        switch sleep {
        case .call: return true
        case .instruction(let takesInterrupts):
            guard takesInterrupts else { return false }
            if !data.interruptsAreEnabled { data.setInterruptPending(true) }
            return data.interruptsAreEnabled
        }
    }

    /// Something that stood in the way may be gone.
    func lookAgain() { if hasUnblocked { requests.post(.interrupt) } }

    func acknowledgeInterrupt() -> UInt8? {
        requests.clear(.interrupt)
        guard let data else { return nil }
        let candidates = unblocked(data)
        guard candidates != 0 else { return nil }
        guard data.interruptsAreEnabled else {
            data.setInterruptPending(true)
            return nil
        }
        let irq = candidates.trailingZeroBitCount
        let vector = LguestIRQ.firstVector + irq
        guard let vcpu, let (rip, hasGate) = look(at: vcpu, vector) else { return nil }
        if data.isQuiet(at: rip) {
            // Few instructions, as a rule: nobody tells us of its end.
            recheck.set(HostClock.monotonicNanoseconds + recheckDelay)
            recheckDelay = min(recheckDelay * 2, Self.lastDelay)
            try? alarms.start()
            return nil
        }
        guard hasGate else { return nil }
        recheckDelay = Self.firstDelay
        pending.bitwiseAnd(~(1 << UInt32(irq)), ordering: .sequentiallyConsistent)
        data.setTime(HostClock.realtimeNanoseconds)
        let more = unblocked(data) != 0
        data.setInterruptPending(more)
        if more { requests.post(.interrupt) }
        return UInt8(vector)
    }

    /// RIP, and whether the Guest's IDT has a gate that is present for `vector`.
    private func look(at vcpu: any VCPU, _ vector: Int) -> (rip: UInt64, hasGate: Bool)? {
        vcpu.readState { state in
            let offset = UInt64(vector * 16)
            guard UInt64(state.idtr.limit) >= offset + 15,
                let place = LinearMemory.translate(state.idtr.base &+ offset, cr3: state.cr3, in: memory),
                let low = try? memory.load(at: place, as: UInt64.self)
            else { return (state.rip, false) }
            return (state.rip, low >> 47 & 1 != 0)
        }
    }
}
//:

/// A reference that is filled in later, and keeps nothing alive.
private final class Weak<Object: AnyObject>: @unchecked Sendable {
    weak var value: Object?
}
