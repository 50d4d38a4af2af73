internal import VirtualCPU
internal import X86

// Delivery in protected and virtual-8086 mode (SDM 3A, 6.12): interrupt, trap
// and task gates of eight bytes, 16- or 32-bit frames.

extension CPU {
    func deliverProtected(_ delivery: Delivery) throws(Stop) {
        let external = delivery.external
        let entry = UInt32(delivery.vector) &* 8
        if entry &+ 7 > UInt32(state.idtr.limit) { throw generalProtection(delivery.gateCode) }
        let gate = Descriptor(low: try systemRead(state.idtr.base &+ UInt64(entry), 8))
        let type = gate.type
        let isGate = [
            SystemSegmentType.taskGate, SystemSegmentType.interruptGate16, SystemSegmentType.trapGate16,
            SystemSegmentType.interruptGate, SystemSegmentType.trapGate,
        ].contains(type)
        if !gate.isSystem || !isGate { throw generalProtection(delivery.gateCode) }
        let privilege = unsafe Int(core.privilege)
        if delivery.source.isSoftware && gate.privilegeLevel < privilege { throw generalProtection(delivery.gateCode) }
        if !gate.isPresent { throw fault(Vector.segmentNotPresent, code: delivery.gateCode) }
        if type == SystemSegmentType.taskGate {
            try deliverByTask(delivery, gate.gateSelector)
            return
        }

        let selector = gate.gateSelector
        if selector.isNullSelector { throw generalProtection(external) }
        let code = try descriptor(selector, external: external)
        if !code.isCode || code.privilegeLevel > privilege {
            throw generalProtection(selector.selectorIndex | external)
        }
        if !code.isPresent { throw fault(Vector.segmentNotPresent, code: selector.selectorIndex | external) }
        let fromVirtual8086 = isVirtual8086
        if fromVirtual8086 && (code.isConforming || code.privilegeLevel != 0) {
            throw generalProtection(selector.selectorIndex | external)
        }
        let newPrivilege = code.isConforming ? privilege : code.privilegeLevel
        let bytes = type >= 8 ? 4 : 2
        let offset = bytes == 2 ? gate.gateOffset & 0xffff : gate.gateOffset
        if offset > UInt64(code.limit) { throw generalProtection(external) }

        var stack: SystemStack
        let inner = newPrivilege < privilege
        if inner {
            stack = try innerStack(newPrivilege, external: external)
            if fromVirtual8086 {
                for number in [SegmentName.gs, SegmentName.fs, SegmentName.ds, SegmentName.es] {
                    try push(&stack, UInt64(state.segments[number].selector), bytes)
                }
            }
            try push(&stack, UInt64(state.segments[SegmentName.ss].selector), bytes)
            try push(&stack, rsp, bytes)
        } else {
            stack = presentStack(code: external)
        }
        try push(&stack, delivery.rflags, bytes)
        try push(&stack, UInt64(state.segments[SegmentName.cs].selector), bytes)
        try push(&stack, delivery.rip, bytes)
        if let code = delivery.errorCode { try push(&stack, UInt64(code), bytes) }

        let segment = try accessed(code, selector & 0xfffc | UInt16(newPrivilege))
        if inner { state.segments[SegmentName.ss] = stack.segment }
        if fromVirtual8086 {
            for number in [SegmentName.gs, SegmentName.fs, SegmentName.ds, SegmentName.es] {
                state.segments[number] = Segment(attributes: Segment.unusableBit)
            }
        }
        use(stack)
        state.segments[SegmentName.cs] = segment
        state.rip = offset
        state.rflags &= ~(RFlags.trap | RFlags.nestedTask | RFlags.resume | RFlags.virtual8086)
        if type & 1 == 0 { state.rflags &= ~RFlags.interrupt }
    }

    /// The stack that the TSS names for an inner privilege, checked (SDM 3A, 5.8.5).
    func innerStack(_ privilege: Int, external: UInt32) throws(Stop) -> SystemStack {
        let is32 = state.tr.type & 8 != 0
        let offset = is32 ? 4 + privilege * 8 : 2 + privilege * 4
        if UInt32(offset) &+ (is32 ? 5 : 3) > state.tr.limit {
            throw fault(Vector.invalidTSS, code: state.tr.selector.selectorIndex | external)
        }
        let address = state.tr.base &+ UInt64(offset)
        let pointer = try systemRead(address, is32 ? 4 : 2)
        let selector = UInt16(truncatingIfNeeded: try systemRead(address &+ (is32 ? 4 : 2), 2))
        let segment = try stackSegment(
            selector, privilege: privilege, allowNull: false, Vector.invalidTSS, external: external)
        let mask = SystemStack.mask(of: segment)
        return SystemStack(
            segment: segment, pointer: pointer & mask, mask: mask, access: privilege == 3 ? .user : [],
            code: selector.selectorIndex | external)
    }

    private func deliverByTask(_ delivery: Delivery, _ selector: UInt16) throws(Stop) {
        try switchTask(
            selector, .interrupt, returnTo: delivery.rip, rflags: delivery.rflags, external: delivery.external)
        guard let code = delivery.errorCode, unsafe core.event != .fault else { return }
        modeChanged()
        do throws(Stop) {
            var stack = presentStack(code: delivery.external)
            try push(&stack, UInt64(code), state.tr.type & 8 != 0 ? 4 : 2)
            use(stack)
        } catch {
            // Pending, in the new task.
            refuseQuestion(Vector.stackFault)
        }
    }
}
