internal import Synchronization

//H:142 The local APIC's timer
//
// Three modes (SDM 3A, 11.5.4): count down once, count down again and again,
// or ring when the time-stamp counter reaches a number. The counter runs at a
// fixed 1 GHz, so that a tick is a nanosecond; that is also what KVM's does,
// and CPUID leaf 0x15 says so.
//
// Nothing counts. We keep when it began, and when asked, work out where it
// would be.

extension LocalAPIC {
    package static let timerFrequency: UInt64 = 1_000_000_000

    /// A guest may ask for a period of one nanosecond; we ring no faster than this.
    static let shortestPeriod: UInt64 = 100_000

    struct TimerState {
        var initialCount: UInt32 = 0
        var divideConfiguration: UInt32 = 0
        /// When the count began, in the machine's nanoseconds.
        var start: UInt64 = 0
        /// When it next rings, likewise; nil: stopped.
        var deadline: UInt64?
        /// IA32_TSC_DEADLINE; 0: not armed.
        var timeStampDeadline: UInt64 = 0
        /// Guest TSC − host TSC when that was written.
        var timeStampOffset: UInt64 = 0

        /// Divide by 2, 4, …, 128, 1 (SDM 3A, figure 11-10).
        var divisor: UInt64 {
            let code = divideConfiguration & 3 | divideConfiguration >> 1 & 4
            return 1 << UInt64((code &+ 1) & 7)
        }

        var period: UInt64 { UInt64(initialCount) &* divisor }
    }

    enum TimerMode: UInt32 { case oneShot = 0, periodic, timeStampDeadline, reserved }

    static func timerMode(_ state: State) -> TimerMode {
        TimerMode(rawValue: state.localVectors[LocalVector.timer] >> 17 & 3) ?? .reserved
    }

    /// A write to the initial count starts the timer; 0 stops it.
    func startTimerLocked(_ state: inout State, initialCount: UInt32) {
        let mode = Self.timerMode(state)
        // "In TSC-deadline mode, writes to the initial-count register are ignored" (SDM 3A, 11.5.4.1).
        if mode == .timeStampDeadline { return }
        state.timer.initialCount = initialCount
        state.timer.start = clock.nanoseconds
        state.timer.deadline = nil
        if initialCount != 0 && mode != .reserved {
            let period = state.timer.period
            state.timer.deadline = state.timer.start &+ (mode == .periodic ? max(period, Self.shortestPeriod) : period)
        }
        setAlarm(state.timer.deadline)
    }

    func currentCount(_ state: State) -> UInt32 {
        guard state.timer.deadline != nil, state.timer.initialCount != 0 else { return 0 }
        let mode = Self.timerMode(state)
        guard mode == .oneShot || mode == .periodic else { return 0 }
        var elapsed = clock.nanoseconds &- state.timer.start
        let period = state.timer.period
        if mode == .periodic { elapsed %= period } else if elapsed >= period { return 0 }
        return state.timer.initialCount &- UInt32(truncatingIfNeeded: elapsed / state.timer.divisor)
    }

    /// The divisor changes under a running count: it goes on from where it is.
    func setDivideLocked(_ state: inout State, _ value: UInt32) {
        let left = currentCount(state)
        state.timer.divideConfiguration = value & 0xb
        guard state.timer.deadline != nil, left != 0, Self.timerMode(state) != .timeStampDeadline else { return }
        let done = UInt64(state.timer.initialCount &- left) &* state.timer.divisor
        state.timer.start = clock.nanoseconds &- done
        let rest = UInt64(left) &* state.timer.divisor
        state.timer.deadline =
            clock.nanoseconds &+ max(rest, Self.timerMode(state) == .periodic ? Self.shortestPeriod : 0)
        setAlarm(state.timer.deadline)
    }

    /// LVT timer was written. A change to or from TSC-deadline mode disarms (SDM 3A, 11.5.4.1).
    func timerModeChangedLocked(_ state: inout State, from old: TimerMode) {
        let new = Self.timerMode(state)
        if new == old { return }
        if new == .oneShot && old == .periodic || new == .periodic && old == .oneShot {
            if state.timer.deadline != nil { startTimerLocked(&state, initialCount: state.timer.initialCount) }
            return
        }
        state.timer.deadline = nil
        state.timer.timeStampDeadline = 0
        state.timer.initialCount = 0
        setAlarm(nil)
    }

    // MARK: TSC deadline

    /// IA32_TSC_DEADLINE. 0 in the other modes.
    package var timeStampDeadline: UInt64 { state.withLock { $0.timer.timeStampDeadline } }

    /// - Parameter offset: guest TSC − host TSC.
    package func setTimeStampDeadline(_ deadline: UInt64, offset: UInt64) {
        state.withLock { state in
            // "In other timer modes … writes are ignored" (SDM 3A, 11.5.4.1).
            guard Self.timerMode(state) == .timeStampDeadline else { return }
            state.timer.timeStampDeadline = deadline
            state.timer.timeStampOffset = offset
            armTimeStampDeadlineLocked(&state)
            updateLocked(&state)
        }
    }

    /// The Guest's TSC was set: a deadline that is armed is now at another time.
    package func timeStampOffsetChanged(to offset: UInt64) {
        state.withLock { state in
            guard state.timer.timeStampDeadline != 0, state.timer.timeStampOffset != offset else { return }
            state.timer.timeStampOffset = offset
            armTimeStampDeadlineLocked(&state)
            updateLocked(&state)
        }
    }

    private func armTimeStampDeadlineLocked(_ state: inout State) {
        let deadline = state.timer.timeStampDeadline
        guard deadline != 0 else {
            state.timer.deadline = nil
            setAlarm(nil)
            return
        }
        let now = clock.timeStampCounter &+ state.timer.timeStampOffset
        guard deadline > now else {
            fireLocked(&state)
            return
        }
        let wait = scale(deadline &- now, by: 1_000_000_000, over: clock.timeStampFrequency)
        // Rounded up: early is of no use, there would be nothing to deliver.
        state.timer.deadline = saturatingSum(clock.nanoseconds, saturatingSum(wait, 1))
        setAlarm(state.timer.deadline)
    }

    // MARK: Ringing

    /// The alarm: on its thread, maybe early, maybe late.
    func timerRang() {
        state.withLock { state in
            guard let deadline = state.timer.deadline else { return }
            let isDeadlineMode = Self.timerMode(state) == .timeStampDeadline
            let now = clock.nanoseconds
            if now < deadline {
                setAlarm(deadline)
            } else if isDeadlineMode {
                // Two clocks never quite agree; the TSC has the say here.
                armTimeStampDeadlineLocked(&state)
            } else {
                fireLocked(&state)
            }
            updateLocked(&state)
        }
    }

    private func fireLocked(_ state: inout State) {
        state.timer.deadline = nil
        state.timer.timeStampDeadline = 0
        if Self.timerMode(state) == .periodic {
            // From where it should have rung, not from now; what was missed
            // while the host was busy is missed.
            let now = clock.nanoseconds
            let period = max(state.timer.period, 1)
            var next = state.timer.start &+ ((now &- state.timer.start) / period &+ 1) &* period
            if next < now &+ Self.shortestPeriod && period < Self.shortestPeriod { next = now &+ Self.shortestPeriod }
            state.timer.deadline = next
        }
        setAlarm(state.timer.deadline)
        let entry = state.localVectors[LocalVector.timer]
        if entry & LocalVector.masked == 0 {
            _ = acceptLocked(&state, UInt8(truncatingIfNeeded: entry), isLevel: false)
        }
    }
}
//:
