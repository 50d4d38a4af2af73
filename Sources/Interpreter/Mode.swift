internal import VirtualCPU
internal import X86

extension CPU {
    /// Brings what is derived from the state back in step with it: to be
    /// called after any change of CR0, CR4, EFER, XCR0, RFLAGS, DR7, CS or SS.
    func modeChanged() {
        let cs = state.segments[SegmentName.cs]
        let protected = state.cr0 & CR0.protectedMode != 0
        let virtual8086 = protected && state.rflags & RFlags.virtual8086 != 0
        let longActive = state.efer & EFER.longModeActive != 0
        unsafe core.privilege = !protected ? 0 : virtual8086 ? 3 : UInt8(state.segments[SegmentName.ss].privilegeLevel)
        unsafe core.codeSize = longActive && cs.isLong ? .bits64 : cs.isDefaultBig ? .bits32 : .bits16
        let bits = unsafe UInt64(core.codeSize.rawValue) | (core.privilege == 3 ? 8 : 0)
        unsafe core.modeKey = unsafe core.codeGeneration &<< 8 | bits
        for segment in 0..<6 {
            self[AddressSlot.segmentBases + segment] =
                unsafe core.codeSize == .bits64 && segment < SegmentName.fs ? 0 : state.segments[segment].base
        }
        self[AddressSlot.zero] = 0
        unsafe core.watching = hasDataBreakpoint
        // The jump cache is by RIP: another base, another meaning.
        if unsafe core.codeSize != .bits64 && cs.base != core.jumpBase {
            unsafe core.jumpBase = cs.base
            forgetJumps()
        }
        selectTLB()
        gatesChanged()
        interruptsChanged()
    }

    /// CR0.EM, MP or TS, CR4.OSFXSR or OSXSAVE, XCR0, PE or VM changed.
    func gatesChanged() {
        var closed: Thunk.Gate = []
        let cr0 = state.cr0
        if cr0 & (CR0.emulation | CR0.taskSwitched) != 0 { closed.formUnion([.x87, .mmx, .sse, .avx, .fwait]) }
        if state.cr4 & CR4.osFXSR == 0 { closed.insert(.sse) }
        if state.cr4 & CR4.osXSave == 0 || state.xcr0 & 6 != 6 { closed.insert(.avx) }
        if cr0 & CR0.protectedMode == 0 || state.rflags & RFlags.virtual8086 != 0 { closed.insert(.protectedMode) }
        unsafe core.closedGates = closed.rawValue
    }

    /// The TLB set for the present privilege and AC.
    func selectTLB() {
        let set: Int
        if unsafe core.watching
            || core.privilege == 3 && state.cr0 & CR0.alignmentMask != 0 && state.rflags & RFlags.alignmentCheck != 0
        {
            set = TLBEntry.never
        } else if unsafe core.privilege == 3 {
            set = TLBEntry.user
        } else if state.cr4 & CR4.smap != 0 && state.rflags & RFlags.alignmentCheck == 0 {
            set = TLBEntry.supervisor
        } else {
            set = TLBEntry.supervisorOpen
        }
        unsafe core.tlb = core.tlbSets + set * TLBEntry.setSize
    }

    /// IF, TF, the shadow or NMI blocking changed.
    func interruptsChanged() {
        var mask: VCPURequests.Request = [.stop, .codeWritten]
        if state.rflags & RFlags.interrupt != 0 { mask.insert(.interrupt) }
        if unsafe !core.nmiBlocked { mask.insert(.nonMaskableInterrupt) }
        unsafe core.pollMask = mask.rawValue
        unsafe core.stepping =
            unsafe state.rflags & RFlags.trap != 0 || core.pendingDebug != 0
            || state.dr[7] & DR7.enables != 0 && (core.watching || hasInstructionBreakpoint)
    }

    /// The instruction after STI or MOV SS is done.
    func endShadow() {
        unsafe core.shadow = false
        unsafe core.debugShadow = false
        interruptsChanged()
    }
}
