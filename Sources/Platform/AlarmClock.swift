package import HostInterface
internal import Synchronization

//H:110 One thread that watches the clock
//
// The local APIC, the PIT, the RTC and the serial port all want to be woken at
// some time. They share one thread, which sleeps in a timerfd until the
// nearest of their deadlines. A tick-driven kernel sets its timer anew after
// each tick, thousands of times a second, so setting must be cheap:
//
// - a deadline that moves later costs nothing: the thread wakes at the old
//   time, finds nothing due, and goes back to sleep;
// - one that moves earlier than all others costs a timerfd_settime(2) by
//   whoever set it; the thread sleeps through that.
//
// An alarm only says "look at your clock". Its owner holds the truth about
// when it is due, and must bear being called early, late or twice.

/// A deadline that one device sets.
package final class Alarm: Sendable {
    fileprivate let handler: @Sendable () -> Void
    private let index: Int
    /// Has us.
    private weak let clock: AlarmClock?

    fileprivate init(index: Int, clock: AlarmClock, handler: @escaping @Sendable () -> Void) {
        self.index = index
        self.clock = clock
        self.handler = handler
    }

    /// Calls the handler at `deadline`, in nanoseconds of the machine's
    /// clock, instead of when it was set before. Nil: not at all. Any thread.
    package func set(_ deadline: UInt64?) { clock?.set(index, deadline ?? .max) }
}

/// Keeps all alarms of one machine. Used by tests without its thread.
package final class AlarmClock: @unchecked Sendable {
    private struct State {
        var alarms: [Alarm] = []
        /// `.max`: not set.
        var deadlines: [UInt64] = []
        /// When the timerfd rings; `.max`: not at all.
        var ringsAt = UInt64.max
        var stopping = false
    }

    private let state = Mutex(State())
    private let timer: TimerFD
    private let machineClock: any MachineClock
    private let thread = Mutex<HostThread?>(nil)

    package init(_ clock: any MachineClock) throws(HostError) {
        machineClock = clock
        timer = try TimerFD()
    }

    /// A new alarm, not set. The handler is called on the clock's thread,
    /// without any lock of ours held, and should be quick.
    package func makeAlarm(_ handler: @escaping @Sendable () -> Void) -> Alarm {
        state.withLock { state in
            let alarm = Alarm(index: state.alarms.count, clock: self, handler: handler)
            state.alarms.append(alarm)
            state.deadlines.append(.max)
            return alarm
        }
    }

    fileprivate func set(_ index: Int, _ deadline: UInt64) {
        state.withLock { state in
            state.deadlines[index] = deadline
            if deadline < state.ringsAt { ringLocked(&state, at: deadline) }
        }
    }

    private func ringLocked(_ state: inout State, at deadline: UInt64) {
        state.ringsAt = deadline
        timer.set(deadline == .max ? nil : deadline)
    }

    /// The nearest deadline; nil if no alarm is set.
    package var nextDeadline: UInt64? {
        state.withLock { state in state.deadlines.min().flatMap { $0 == .max ? nil : $0 } }
    }

    /// Calls the handlers of all alarms that are due. The thread does so; a test does it by hand.
    package func ring() {
        let now = machineClock.nanoseconds
        let due = state.withLock { state in
            var due: [Alarm] = []
            for index in state.deadlines.indices where state.deadlines[index] <= now {
                state.deadlines[index] = .max
                due.append(state.alarms[index])
            }
            return due
        }
        for alarm in due { alarm.handler() }
    }

    /// Starts the thread, unless it runs.
    package func start() throws(HostError) {
        if thread.withLock({ $0 != nil }) { return }
        state.withLock { ringLocked(&$0, at: $0.deadlines.min() ?? .max) }
        let started = try HostThread(name: "alarm clock") { [self] in
            while true {
                timer.wait()
                ring()
                let stopping = state.withLock { state in
                    // Whoever sets an alarm after this finds `ringsAt` right.
                    if !state.stopping { ringLocked(&state, at: state.deadlines.min() ?? .max) }
                    return state.stopping
                }
                if stopping { return }
            }
        }
        thread.withLock { $0 = started }
    }

    /// Ends the thread, if there is one. No handler runs after this returns.
    package func stop() {
        let running = thread.withLock { thread in
            defer { thread = nil }
            return thread
        }
        guard let running else { return }
        state.withLock { state in
            state.stopping = true
            timer.set(1)
        }
        running.join()
        state.withLock { $0.stopping = false }
    }
}
//:
