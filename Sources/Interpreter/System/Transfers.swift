internal import CZydis
internal import VirtualCPU
internal import X86

//S:250 Far away
//
// JMP, CALL and RET to another code segment: in real mode a new base and no
// questions, in protected mode the place where privilege is guarded. A program
// may go straight to code of its own privilege (or to conforming code, which
// runs at the privilege of whoever calls it); to more privilege only through a
// call gate, whose owner chose the entry point, and onto a stack of that
// privilege (SDM 3A, 5.8).

extension LoweringTable {
    /// Far CALL, JMP and RET are found by their near namesakes: `Lowering.farTransfer`.
    mutating func addTransfers() {}
}

extension Lowering {
    /// Far CALL, JMP and RET.
    mutating func farTransfer() -> Handler? {
        endsBlock = true
        unsafe record.operandBytes = unsafe d.pointee.operand_width / 8
        if mnemonic == ZYDIS_MNEMONIC_RET {
            unsafe record.immediate = isImmediate(0) ? immediate(0) & 0xffff : 0
            return unsafe Handlers.farReturn
        }
        unsafe record.small = mnemonic == ZYDIS_MNEMONIC_CALL ? 1 : 0
        if isMemory(0) {
            setMemory(0)
            return unsafe Handlers.farIndirect
        }
        guard unsafe operands[0].type == ZYDIS_OPERAND_TYPE_POINTER else { return nil }
        let pointer = unsafe operands[0].ptr
        unsafe record.immediate = UInt64(pointer.offset) | UInt64(pointer.segment) &<< 32
        return unsafe Handlers.farDirect
    }
}

/// A far JMP or CALL under way.
struct FarTransfer {
    var selector: UInt16
    var offset: UInt64
    var isCall: Bool
    /// 2, 4 or 8: what CALL pushes.
    var bytes: Int
    /// Where a CALL returns to.
    var next: UInt64
}

extension CPU {
    func farTransfer(_ i: InstructionPointer) throws(Stop) {
        let bytes = unsafe Int(i.pointee.operandBytes)
        let isCall = unsafe i.pointee.small == 1
        var selector: UInt16
        var offset: UInt64
        if unsafe i.pointee.options.contains(.memory) {
            let address = unsafe try address(i, bytes + 2, write: false)
            selector = try load(wrap(address &+ UInt64(bytes)), UInt16.self)
            switch bytes {
            case 2: offset = UInt64(try load(address, UInt16.self))
            case 4: offset = UInt64(try load(address, UInt32.self))
            default: offset = try load(address, UInt64.self)
            }
        } else {
            selector = unsafe UInt16(truncatingIfNeeded: i.pointee.immediate >> 32)
            offset = unsafe i.pointee.immediate & (bytes == 2 ? 0xffff : 0xffff_ffff)
        }
        let next = unsafe nextRIP(i)
        try transfer(FarTransfer(selector: selector, offset: offset, isCall: isCall, bytes: bytes, next: next))
        if unsafe core.event != .fault { modeChanged() }
    }

    private func transfer(_ far: FarTransfer) throws(Stop) {
        if !usesDescriptors {
            if far.offset > UInt64(state.segments[SegmentName.cs].limit) { throw generalProtection() }
            var stack = presentStack()
            if far.isCall { try pushReturn(&stack, far, far.bytes) }
            use(stack)
            state.segments[SegmentName.cs] = legacySegment(SegmentName.cs, far.selector)
            state.rip = far.offset
            return
        }
        if far.selector.isNullSelector { throw generalProtection() }
        let descriptor = try descriptor(far.selector)
        if !descriptor.isSystem {
            try transferToCode(far, descriptor)
            return
        }
        // Whatever it is, this program must be allowed to use it.
        let mayUse =
            unsafe descriptor.privilegeLevel >= Int(core.privilege)
            && descriptor.privilegeLevel >= far.selector.requestedPrivilege
        let type = descriptor.type
        let cause: TaskSwitchCause = far.isCall ? .call : .jump
        switch type {
        case SystemSegmentType.callGate, SystemSegmentType.callGate16:
            if !mayUse || isLongActive && type != SystemSegmentType.callGate { break }
            if isLongActive {
                let gate = try systemDescriptor(far.selector)
                // The type field of the upper half must be 0 (SDM 3A, 5.8.3.1).
                if gate.high >> 40 & 0x1f != 0 { break }
                if !gate.isPresent { throw fault(Vector.segmentNotPresent, code: far.selector.selectorIndex) }
                try transferThrough(Descriptor(low: gate.low, high: gate.high & 0xffff_ffff), far)
            } else {
                if !descriptor.isPresent { throw fault(Vector.segmentNotPresent, code: far.selector.selectorIndex) }
                try transferThrough(descriptor, far)
            }
            return
        case SystemSegmentType.taskGate where !isLongActive && mayUse:
            if !descriptor.isPresent { throw fault(Vector.segmentNotPresent, code: far.selector.selectorIndex) }
            try switchTask(descriptor.gateSelector, cause, returnTo: far.next, rflags: rflags, external: 0)
            return
        case SystemSegmentType.tssAvailable, SystemSegmentType.tss16Available:
            if isLongActive || !mayUse { break }
            try switchTask(far.selector, cause, returnTo: far.next, rflags: rflags, external: 0)
            return
        default: break
        }
        throw generalProtection(far.selector.selectorIndex)
    }

    /// CS as it is and the next RIP.
    private func pushReturn(_ stack: inout SystemStack, _ far: FarTransfer, _ bytes: Int) throws(Stop) {
        try push(&stack, UInt64(state.segments[SegmentName.cs].selector), bytes)
        try push(&stack, far.next, bytes)
    }

    private func checkOffset(_ offset: UInt64, _ code: Descriptor) throws(Stop) {
        if isLongActive && code.isLong ? !isCanonical(offset) : offset > UInt64(code.limit) {
            throw generalProtection()
        }
    }

    private func transferToCode(_ far: FarTransfer, _ code: Descriptor) throws(Stop) {
        let privilege = unsafe Int(core.privilege)
        let index = far.selector.selectorIndex
        if !code.isCode { throw generalProtection(index) }
        if code.isConforming
            ? code.privilegeLevel > privilege
            : far.selector.requestedPrivilege > privilege || code.privilegeLevel != privilege
        {
            throw generalProtection(index)
        }
        if isLongActive && code.isLong && code.isDefaultBig { throw generalProtection(index) }
        if !code.isPresent { throw fault(Vector.segmentNotPresent, code: index) }
        try checkOffset(far.offset, code)
        var stack = presentStack()
        if far.isCall { try pushReturn(&stack, far, far.bytes) }
        let segment = try accessed(code, far.selector & 0xfffc | UInt16(privilege))
        if far.isCall { use(stack) }
        state.segments[SegmentName.cs] = segment
        state.rip = far.offset
    }

    private func transferThrough(_ gate: Descriptor, _ far: FarTransfer) throws(Stop) {
        let privilege = unsafe Int(core.privilege)
        let selector = gate.gateSelector
        if selector.isNullSelector { throw generalProtection() }
        let code = try descriptor(selector)
        if !code.isCode || code.privilegeLevel > privilege { throw generalProtection(selector.selectorIndex) }
        if isLongActive && (!code.isLong || code.isDefaultBig) { throw generalProtection(selector.selectorIndex) }
        let isInner = !code.isConforming && code.privilegeLevel < privilege
        if isInner && !far.isCall { throw generalProtection(selector.selectorIndex) }
        if !code.isPresent { throw fault(Vector.segmentNotPresent, code: selector.selectorIndex) }
        let bytes = isLongActive ? 8 : gate.type == SystemSegmentType.callGate ? 4 : 2
        let offset = bytes == 2 ? gate.gateOffset & 0xffff : gate.gateOffset
        try checkOffset(offset, code)
        let newPrivilege = isInner ? code.privilegeLevel : privilege

        var stack = presentStack()
        if isLongActive { stack.mask = .max }
        if isInner {
            stack = try gateStack(newPrivilege, bytes)
            let old = presentStack()
            // Parameters are read before anything is written: the stacks may overlap.
            let count = bytes == 8 ? 0 : gate.parameterCount
            var parameters = InlineArray<32, UInt64>(repeating: 0)
            var reader = old
            for n in 0..<count { parameters[n] = try pop(&reader, bytes) }
            try push(&stack, UInt64(state.segments[SegmentName.ss].selector), bytes)
            try push(&stack, rsp, bytes)
            for n in (0..<count).reversed() { try push(&stack, parameters[n], bytes) }
        }
        if far.isCall { try pushReturn(&stack, far, bytes) }
        let segment = try accessed(code, selector & 0xfffc | UInt16(newPrivilege))
        if isInner { state.segments[SegmentName.ss] = stack.segment }
        if far.isCall { use(stack) }
        state.segments[SegmentName.cs] = segment
        state.rip = offset
    }

    /// The stack of an inner privilege, from either kind of TSS.
    private func gateStack(_ privilege: Int, _ bytes: Int) throws(Stop) -> SystemStack {
        if !isLongActive { return try innerStack(privilege, external: 0) }
        let pointer = try taskStackPointer(4 + privilege * 8, external: 0)
        return SystemStack(segment: nullStack(privilege), pointer: pointer, mask: .max, access: [], code: 0)
    }

    // MARK: RET

    func farReturn(_ i: InstructionPointer) throws(Stop) {
        let bytes = unsafe Int(i.pointee.operandBytes)
        let release = unsafe i.pointee.immediate
        var stack = presentStack()
        let rip = try pop(&stack, bytes)
        let selector = UInt16(truncatingIfNeeded: try pop(&stack, bytes))
        if !usesDescriptors {
            if rip > UInt64(state.segments[SegmentName.cs].limit) { throw generalProtection() }
            stack.pointer = (stack.pointer &+ release) & stack.mask
            use(stack)
            state.segments[SegmentName.cs] = legacySegment(SegmentName.cs, selector)
            state.rip = rip
            modeChanged()
            return
        }
        let target = try returnTarget(selector, rip)
        stack.pointer = (stack.pointer &+ release) & stack.mask
        if unsafe target.privilege > Int(core.privilege) {
            let pointer = try pop(&stack, bytes)
            let stackSelector = UInt16(truncatingIfNeeded: try pop(&stack, bytes))
            try returnOuter(target, stackSelector, pointer &+ release)
        } else {
            use(stack)
            state.segments[SegmentName.cs] = target.code
            state.rip = target.rip
        }
        modeChanged()
    }
}
//:

extension Handlers {
    static let farDirect: Handler = {
        unsafe performTransfer($0, $1) { cpu, i throws(Stop) in unsafe try cpu.farTransfer(i) }
    }
    static let farIndirect: Handler = {
        unsafe performTransfer($0, $1) { cpu, i throws(Stop) in unsafe try cpu.farTransfer(i) }
    }
    static let farReturn: Handler = {
        unsafe performTransfer($0, $1) { cpu, i throws(Stop) in unsafe try cpu.farReturn(i) }
    }
}
