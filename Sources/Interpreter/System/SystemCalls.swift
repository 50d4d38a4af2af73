internal import CZydis
internal import VirtualCPU
internal import X86

//S:230 The short ways in
//
// SYSCALL and SYSENTER exist because a gate is slow: no table is read, no
// stack written; the segments are what the manual says they are, whatever the
// GDT says. The same goes for us, and more so.

extension LoweringTable {
    mutating func addSystemCalls() {
        unsafe self[ZYDIS_MNEMONIC_SYSCALL] = { lowering in
            lowering.endsBlock = true
            return unsafe Handlers.syscall
        }
        unsafe self[ZYDIS_MNEMONIC_SYSRET] = { lowering in
            lowering.endsBlock = true
            unsafe lowering.record.operandBytes = lowering.operandSize
            return unsafe Handlers.sysret
        }
        unsafe self[ZYDIS_MNEMONIC_SYSENTER] = { lowering in
            lowering.endsBlock = true
            return unsafe Handlers.sysenter
        }
        unsafe self[ZYDIS_MNEMONIC_SYSEXIT] = { lowering in
            lowering.endsBlock = true
            unsafe lowering.record.operandBytes = lowering.operandSize
            return unsafe Handlers.sysexit
        }
    }
}

extension Lowering {
    /// 8 with REX.W, else 4.
    fileprivate var operandSize: UInt8 { unsafe d.pointee.operand_width == 64 ? 8 : 4 }
}

/// Segments as these instructions make them: flat, whatever the tables hold.
private enum FlatSegment {
    static func code(_ selector: UInt16, privilege: UInt32, long: Bool) -> Segment {
        Segment(selector: selector, limit: .max, attributes: (long ? 0xa09b : 0xc09b) | privilege &<< 5)
    }
    static func stack(_ selector: UInt16, privilege: UInt32) -> Segment {
        Segment(selector: selector, limit: .max, attributes: 0xc093 | privilege &<< 5)
    }
}

extension CPU {
    /// What 64-bit SYSCALL and SYSRET make of STAR.
    var systemCallSegments: SystemCallTemplates {
        let kernel = UInt16(truncatingIfNeeded: state.star >> 32) & 0xfffc
        let user = UInt16(truncatingIfNeeded: state.star >> 48)
        return SystemCallTemplates(
            kernelCode: FlatSegment.code(kernel, privilege: 0, long: true),
            kernelStack: FlatSegment.stack(kernel &+ 8, privilege: 0),
            userCode: FlatSegment.code((user &+ 16) | 3, privilege: 3, long: true),
            userStack: FlatSegment.stack(user &+ 8 | 3, privilege: 3))
    }

    private func enterFlat(_ code: Segment, _ stack: Segment) {
        state.segments[SegmentName.cs] = code
        state.segments[SegmentName.ss] = stack
        modeChanged()
    }

    /// SYSCALL and SYSRET need EFER.SCE, protected mode for AMD (APM 3), and
    /// 64-bit mode for Intel (SDM 2B).
    private func requireSystemCalls() throws(Stop) {
        if state.efer & EFER.systemCallEnable == 0 || !isProtected { throw undefined() }
        if unsafe owner.features.isIntel && core.codeSize != .bits64 { throw undefined() }
    }

    func systemCall(_ i: InstructionPointer) throws(Stop) {
        try requireSystemCalls()
        let selector = UInt16(truncatingIfNeeded: state.star >> 32) & 0xfffc
        unsafe rcx = nextRIP(i)
        let trapped = state.rflags & RFlags.trap != 0
        if isLongActive {
            let flags = rflags & ~RFlags.resume
            self[11] = flags
            state.rip = unsafe core.codeSize == .bits64 ? state.lstar : state.cstar
            setRFlags(flags & ~state.syscallMask, mask: .max)
        } else {
            state.rip = state.star & 0xffff_ffff
            state.rflags &= ~(RFlags.virtual8086 | RFlags.interrupt | RFlags.resume)
        }
        if trapped && state.rflags & RFlags.trap == 0 { unsafe core.stepSuppressed = true }
        enterFlat(
            FlatSegment.code(selector, privilege: 0, long: isLongActive),
            FlatSegment.stack(selector &+ 8, privilege: 0))
    }

    func systemReturn(_ i: InstructionPointer) throws(Stop) {
        try requireSystemCalls()
        if unsafe core.privilege != 0 { throw generalProtection() }
        let long = unsafe i.pointee.operandBytes == 8
        let base = UInt16(truncatingIfNeeded: state.star >> 48)
        if long {
            if !isCanonical(rcx) { throw generalProtection() }
            state.rip = rcx
        } else {
            state.rip = rcx & 0xffff_ffff
        }
        if isLongActive {
            // RF, VM and what is reserved are cleared.
            setRFlags(self[11] & 0x3c_7fd7, mask: .max)
        } else {
            state.rflags |= RFlags.interrupt
        }
        enterFlat(
            FlatSegment.code((long ? base &+ 16 : base) | 3, privilege: 3, long: long),
            FlatSegment.stack(base &+ 8 | 3, privilege: 3))
    }

    /// SDM 2B, "SYSENTER". AMD's CPUs have the pair in legacy mode alone (APM 3, "SYSENTER").
    private func requireFastEntry() throws(Stop) {
        if isLongActive && !owner.features.isIntel { throw undefined() }
    }

    func systemEnter() throws(Stop) {
        try requireFastEntry()
        let selector = UInt16(truncatingIfNeeded: state.sysenterCS) & 0xfffc
        if !isProtected || selector == 0 { throw generalProtection() }
        let mask: UInt64 = isLongActive ? .max : 0xffff_ffff
        rsp = state.sysenterESP & mask
        state.rip = state.sysenterEIP & mask
        state.rflags &= ~(RFlags.virtual8086 | RFlags.interrupt | RFlags.resume)
        enterFlat(
            FlatSegment.code(selector, privilege: 0, long: isLongActive), FlatSegment.stack(selector &+ 8, privilege: 0)
        )
    }

    func systemExit(_ i: InstructionPointer) throws(Stop) {
        try requireFastEntry()
        let selector = UInt16(truncatingIfNeeded: state.sysenterCS) & 0xfffc
        if unsafe !isProtected || selector == 0 || core.privilege != 0 { throw generalProtection() }
        let long = unsafe i.pointee.operandBytes == 8
        let rip = self[Register.rdx], rsp = rcx
        if long && (!isCanonical(rip) || !isCanonical(rsp)) { throw generalProtection() }
        self.rsp = long ? rsp : rsp & 0xffff_ffff
        state.rip = long ? rip : rip & 0xffff_ffff
        let code = (selector &+ (long ? 32 : 16)) | 3
        enterFlat(FlatSegment.code(code, privilege: 3, long: long), FlatSegment.stack(code &+ 8, privilege: 3))
    }
}
//:

extension Handlers {
    static let syscall: Handler = {
        unsafe performTransfer($0, $1) { cpu, i throws(Stop) in unsafe try cpu.systemCall(i) }
    }
    static let sysret: Handler = {
        unsafe performTransfer($0, $1) { cpu, i throws(Stop) in unsafe try cpu.systemReturn(i) }
    }
    static let sysenter: Handler = { unsafe performTransfer($0, $1) { cpu, i throws(Stop) in try cpu.systemEnter() } }
    static let sysexit: Handler = {
        unsafe performTransfer($0, $1) { cpu, i throws(Stop) in unsafe try cpu.systemExit(i) }
    }
}
