internal import VirtualCPU
internal import X86

//S:240 Somebody is debugging in there
//
// While TF is set or a debug register armed, instructions are run one at a
// time, and between two of them we ask what SDM 3B, chapter 17 wants asked.
// Nobody else pays for it.

/// Bits of DR6 (SDM 3B, 17.2.3); 0…3 are the breakpoints.
enum DR6 {
    static let generalDetect: UInt64 = 1 << 13
    static let singleStep: UInt64 = 1 << 14
    static let taskSwitch: UInt64 = 1 << 15
}

/// Bits of DR7 (SDM 3B, 17.2.4).
enum DR7 {
    static let enables: UInt64 = 0xff
    static let localEnables: UInt64 = 0x55 | 1 << 8
    static let generalDetect: UInt64 = 1 << 13
}

/// What a breakpoint watches for: the R/W field of DR7.
enum BreakpointKind: UInt64 {
    case execute = 0, write = 1, port = 2, readWrite = 3
}

extension CPU {
    private func isArmed(_ n: Int) -> Bool { state.dr[7] & (3 &<< UInt64(n * 2)) != 0 }

    private func kind(_ n: Int) -> BreakpointKind {
        let kind = BreakpointKind(rawValue: state.dr[7] >> UInt64(16 + n * 4) & 3) ?? .execute
        // Without CR4.DE there are no I/O breakpoints; the value is undefined.
        return kind == .port && state.cr4 & CR4.debuggingExtensions == 0 ? .write : kind
    }

    /// LEN: 1, 2, 8 or 4 bytes.
    private func length(_ n: Int) -> UInt64 {
        switch state.dr[7] >> UInt64(18 + n * 4) & 3 {
        case 0: 1
        case 1: 2
        case 2: 8
        default: 4
        }
    }

    var hasInstructionBreakpoint: Bool {
        state.dr[7] & DR7.enables != 0 && (0..<4).contains { isArmed($0) && kind($0) == .execute }
    }

    var hasDataBreakpoint: Bool {
        state.dr[7] & DR7.enables != 0 && (0..<4).contains { isArmed($0) && kind($0) != .execute }
    }

    /// DR6 bits of the armed breakpoints of these kinds that touch the range.
    private func hits(_ address: UInt64, _ count: UInt64, _ kinds: [BreakpointKind]) -> UInt64 {
        var bits: UInt64 = 0
        for n in 0..<4 where isArmed(n) && kinds.contains(kind(n)) {
            let length = length(n)
            let start = state.dr[n] & ~(length &- 1)
            // Overlap, in arithmetic that wraps.
            if address &- start < length || start &- address < count { bits |= 1 << UInt64(n) }
        }
        return bits
    }

    // MARK: Around each instruction

    /// Before the next instruction: traps that are still owed, and its own breakpoint.
    func beforeStep() -> VCPUExit? {
        if unsafe core.pendingDebug != 0 && !core.debugShadow {
            unsafe raiseDebug(core.pendingDebug)
            return nil
        }
        let resume = state.rflags & RFlags.resume != 0
        if unsafe !resume && !core.debugShadow && state.dr[7] & DR7.enables != 0 {
            let linear =
                unsafe core.codeSize == .bits64
                ? state.rip : (state.segments[SegmentName.cs].base &+ state.rip) & 0xffff_ffff
            let bits = hits(linear, 1, [.execute])
            if bits != 0 {
                raiseDebug(bits)
                return nil
            }
        }
        unsafe core.stepTraps = state.rflags & RFlags.trap != 0
        unsafe core.stepSuppressed = false
        unsafe core.stepResumes = resume
        // RF is good for one instruction; one that loads it sets it again.
        state.rflags &= ~RFlags.resume
        return nil
    }

    /// After it: a trap, if one is due and the instruction is done.
    func afterStep() {
        switch unsafe core.event {
        case .fault:
            // A breakpoint's own fault comes here too, and owes nothing.
            unsafe core.pendingDebug = 0
            return
        case .exit where owner.awaitsAnswer:
            if unsafe core.stepResumes { state.rflags |= RFlags.resume }
            unsafe core.pendingDebug = 0
            return
        default: break
        }
        var due = unsafe core.pendingDebug
        if unsafe core.stepTraps && !core.stepSuppressed { due |= DR6.singleStep }
        unsafe core.stepTraps = false
        unsafe core.stepSuppressed = false
        if unsafe core.debugShadow {
            // MOV SS: not before the next instruction is done, and then by its own TF.
            unsafe core.pendingDebug = due & ~DR6.singleStep
        } else if due == 0 {
            unsafe core.pendingDebug = 0
        } else if case .exit = unsafe core.event, case .hypercall = owner.exit {
            unsafe core.pendingDebug = due
        } else {
            // HLT included: the trap wakes it at once.
            raiseDebug(due)
        }
        interruptsChanged()
    }

    /// Makes #DB pending, RIP and RF as they are.
    func raiseDebug(_ bits: UInt64) {
        unsafe core.pendingDebug = 0
        // B0…B3 tell of this event alone; the rest is for software to clear.
        state.dr[6] = state.dr[6] & ~15 | bits
        _ = fault(Vector.debug)
        unsafe core.faultKeepsResume = true
    }

    // MARK: Data and ports

    func isWatched(page address: UInt64) -> Bool { hits(address & ~0xfff, 4096, [.write, .readWrite]) != 0 }

    func noteWatched(_ address: UInt64, _ count: Int, write: Bool) {
        unsafe core.pendingDebug |= hits(address, UInt64(max(count, 1)), write ? [.write, .readWrite] : [.readWrite])
    }

    /// An IN or OUT is done.
    func noteWatchedPort(_ port: UInt16, _ bytes: Int) {
        unsafe core.pendingDebug |= hits(UInt64(port), UInt64(bytes), [.port])
    }
}
//:
