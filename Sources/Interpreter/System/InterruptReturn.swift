internal import VirtualCPU
internal import X86

// IRET in all its forms (SDM 2A, "IRET"), and what it shares with a far RET
// that leaves for an outer privilege.

/// Where a far return goes, checked.
struct ReturnTarget {
    var code: Segment
    var rip: UInt64
    var privilege: Int
    var isLong: Bool
}

extension CPU {
    func interruptReturn(_ i: InstructionPointer) throws(Stop) {
        let bytes = unsafe Int(i.pointee.operandBytes)
        // NMIs are let in again by the next IRET, even one that faults (SDM 3A, 6.7.1).
        let wasBlocked = unsafe core.nmiBlocked
        unsafe core.nmiBlocked = false
        if wasBlocked { interruptsChanged() }
        if !usesDescriptors {
            try legacyReturn(bytes)
        } else if state.rflags & RFlags.nestedTask != 0 {
            if isLongActive { throw generalProtection() }
            unsafe try returnFromTask(nextRIP(i))
            if unsafe core.event == .fault { return }
        } else {
            try protectedReturn(bytes)
        }
        dropResume()
        modeChanged()
    }

    /// RF matters only while instruction breakpoints are armed; elsewhere it
    /// would only make us count instructions, so it is gone at once.
    func dropResume() {
        if !hasInstructionBreakpoint { state.rflags &= ~RFlags.resume }
    }

    /// Replaces RFLAGS' bits of `mask`.
    func setRFlags(_ value: UInt64, mask: UInt64) {
        let new = rflags & ~mask | value & mask | RFlags.alwaysOne
        state.rflags = new
        setArithmeticFlags(new)
    }

    /// What an IRET at this privilege may change.
    private func returnableFlags(_ bytes: Int) -> UInt64 {
        var mask = RFlags.arithmetic | RFlags.trap | RFlags.direction | RFlags.nestedTask
        if bytes > 2 { mask |= RFlags.resume | RFlags.alignmentCheck | RFlags.identification }
        let level = unsafe UInt64(core.privilege)
        if level <= state.rflags >> 12 & 3 { mask |= RFlags.interrupt }
        if level == 0 {
            mask |= RFlags.ioPrivilege
            if bytes > 2 { mask |= RFlags.virtualInterrupt | RFlags.virtualInterruptPending }
        }
        return mask
    }

    private func legacyReturn(_ bytes: Int) throws(Stop) {
        let inVirtual8086 = isVirtual8086
        if inVirtual8086 && state.rflags & RFlags.ioPrivilege != RFlags.ioPrivilege { throw generalProtection() }
        var stack = presentStack()
        let rip = try pop(&stack, bytes)
        let selector = UInt16(truncatingIfNeeded: try pop(&stack, bytes))
        let flags = try pop(&stack, bytes)
        if rip > UInt64(state.segments[SegmentName.cs].limit) { throw generalProtection() }
        use(stack)
        state.segments[SegmentName.cs] = legacySegment(SegmentName.cs, selector)
        state.rip = rip
        var mask = returnableFlags(bytes) | RFlags.interrupt
        if inVirtual8086 {
            mask &= ~(RFlags.ioPrivilege | RFlags.virtualInterrupt | RFlags.virtualInterruptPending)
        } else {
            mask |= RFlags.ioPrivilege
        }
        setRFlags(flags, mask: mask)
    }

    private func protectedReturn(_ bytes: Int) throws(Stop) {
        var stack = presentStack()
        let rip = try pop(&stack, bytes)
        let selector = UInt16(truncatingIfNeeded: try pop(&stack, bytes))
        let flags = try pop(&stack, bytes)
        if unsafe flags & RFlags.virtual8086 != 0 && bytes == 4 && core.privilege == 0 && !isLongActive {
            try returnToVirtual8086(&stack, rip, selector, flags)
            return
        }
        let target = try returnTarget(selector, rip)
        let mask = returnableFlags(bytes)
        if unsafe target.privilege > Int(core.privilege) || core.codeSize == .bits64 {
            let pointer = try pop(&stack, bytes)
            let stackSelector = UInt16(truncatingIfNeeded: try pop(&stack, bytes))
            try returnOuter(target, stackSelector, pointer)
        } else {
            use(stack)
            state.segments[SegmentName.cs] = target.code
            state.rip = target.rip
        }
        setRFlags(flags, mask: mask)
    }

    /// Checks CS:RIP of a far return or IRET.
    func returnTarget(_ selector: UInt16, _ rip: UInt64) throws(Stop) -> ReturnTarget {
        if selector.isNullSelector { throw generalProtection() }
        let code = try descriptor(selector)
        let privilege = selector.requestedPrivilege
        if unsafe !code.isCode || privilege < Int(core.privilege) { throw generalProtection(selector.selectorIndex) }
        if code.isConforming ? code.privilegeLevel > privilege : code.privilegeLevel != privilege {
            throw generalProtection(selector.selectorIndex)
        }
        let isLong = isLongActive && code.isLong
        if isLong && code.isDefaultBig { throw generalProtection(selector.selectorIndex) }
        if !code.isPresent { throw fault(Vector.segmentNotPresent, code: selector.selectorIndex) }
        if isLong ? !isCanonical(rip) : rip > UInt64(code.limit) { throw generalProtection() }
        return ReturnTarget(code: try accessed(code, selector), rip: rip, privilege: privilege, isLong: isLong)
    }

    /// Goes to another stack and, mostly, to an outer privilege.
    func returnOuter(_ target: ReturnTarget, _ selector: UInt16, _ pointer: UInt64) throws(Stop) {
        let stack = try stackSegment(selector, privilege: target.privilege, allowNull: target.isLong)
        let isOuter = unsafe target.privilege > Int(core.privilege)
        state.segments[SegmentName.cs] = target.code
        state.segments[SegmentName.ss] = stack
        state.rip = target.rip
        if target.isLong {
            rsp = pointer
        } else if stack.isDefaultBig {
            rsp = pointer & 0xffff_ffff
        } else {
            rsp = rsp & ~0xffff | pointer & 0xffff
        }
        if isOuter { dropInnerSegments(privilege: target.privilege) }
    }

    /// No data segment of more privilege than the new CPL survives (SDM 2B, "RET").
    func dropInnerSegments(privilege: Int) {
        for number in [SegmentName.es, SegmentName.ds, SegmentName.fs, SegmentName.gs] {
            let segment = state.segments[number]
            if !segment.isUnusable && !segment.isConforming && segment.privilegeLevel < privilege {
                state.segments[number] = Segment(base: segment.base, attributes: Segment.unusableBit)
            }
        }
    }

    /// From CPL 0 to virtual-8086 mode (SDM 3B, 20.2.5).
    private func returnToVirtual8086(
        _ stack: inout SystemStack, _ rip: UInt64, _ code: UInt16, _ flags: UInt64
    ) throws(Stop) {
        let pointer = try pop(&stack, 4)
        let stackSelector = try pop(&stack, 4)
        var selectors = InlineArray<6, UInt64>(repeating: 0)
        for number in [SegmentName.es, SegmentName.ds, SegmentName.fs, SegmentName.gs] {
            selectors[number] = try pop(&stack, 4)
        }
        selectors[SegmentName.cs] = UInt64(code)
        selectors[SegmentName.ss] = stackSelector
        if rip > 0xffff { throw generalProtection() }
        setRFlags(flags, mask: RFlags.writable)
        for number in 0..<6 {
            state.segments[number] = .realMode(selector: UInt16(truncatingIfNeeded: selectors[number]), type: 0xf3)
        }
        rsp = pointer
        state.rip = rip
    }
}
