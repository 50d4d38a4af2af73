internal import VirtualCPU
internal import X86

// Delivery in long mode (SDM 3A, 6.14): gates of sixteen bytes, always a
// 64-bit handler, always SS:RSP in the frame, and a stack of the handler's own
// where the privilege changes or the gate asks for one.

extension CPU {
    func deliverLong(_ delivery: Delivery) throws(Stop) {
        let external = delivery.external
        if state.rflags & RFlags.virtual8086 != 0 { throw generalProtection(external) }
        let entry = UInt32(delivery.vector) &* 16
        if entry &+ 15 > UInt32(state.idtr.limit) { throw generalProtection(delivery.gateCode) }
        let gate = Descriptor(
            low: try systemRead(state.idtr.base &+ UInt64(entry), 8),
            high: try systemRead(state.idtr.base &+ UInt64(entry) &+ 8, 8) & 0xffff_ffff)
        let type = gate.type
        if !gate.isSystem || type != SystemSegmentType.interruptGate && type != SystemSegmentType.trapGate {
            throw generalProtection(delivery.gateCode)
        }
        let privilege = unsafe Int(core.privilege)
        if delivery.source.isSoftware && gate.privilegeLevel < privilege { throw generalProtection(delivery.gateCode) }
        if !gate.isPresent { throw fault(Vector.segmentNotPresent, code: delivery.gateCode) }

        let selector = gate.gateSelector
        if selector.isNullSelector { throw generalProtection(external) }
        let code = try descriptor(selector, external: external)
        if !code.isCode || code.privilegeLevel > privilege || !code.isLong || code.isDefaultBig {
            throw generalProtection(selector.selectorIndex | external)
        }
        if !code.isPresent { throw fault(Vector.segmentNotPresent, code: selector.selectorIndex | external) }
        let newPrivilege = code.isConforming ? privilege : code.privilegeLevel

        // Which stack: IST, the new privilege's, or the present one.
        var top = rsp
        if unsafe core.codeSize != .bits64 { top &= stackMask }
        let ist = gate.interruptStack
        if ist != 0 || newPrivilege != privilege {
            top = try taskStackPointer(ist != 0 ? 0x24 + (ist - 1) * 8 : 4 + newPrivilege * 8, external: external)
        }
        top &= ~15
        if !isCanonical(gate.gateOffset) { throw generalProtection(external) }
        let oldStack = state.segments[SegmentName.ss]
        try pushFrame(&top, delivery, oldStack.selector, newPrivilege)

        let segment = try accessed(code, selector & 0xfffc | UInt16(newPrivilege))
        state.segments[SegmentName.cs] = segment
        if newPrivilege != privilege { state.segments[SegmentName.ss] = nullStack(newPrivilege) }
        rsp = top
        state.rip = gate.gateOffset
        state.rflags &= ~(RFlags.trap | RFlags.nestedTask | RFlags.resume | RFlags.virtual8086)
        if type == SystemSegmentType.interruptGate { state.rflags &= ~RFlags.interrupt }
    }

    /// An RSP of the 64-bit TSS (SDM 3A, figure 7-11).
    func taskStackPointer(_ offset: Int, external: UInt32) throws(Stop) -> UInt64 {
        if UInt32(offset) &+ 7 > state.tr.limit {
            throw fault(Vector.invalidTSS, code: state.tr.selector.selectorIndex | external)
        }
        let pointer = try systemRead(state.tr.base &+ UInt64(offset), 8)
        if !isCanonical(pointer) { throw fault(Vector.stackFault, code: external) }
        return pointer
    }

    private func pushFrame(
        _ top: inout UInt64, _ delivery: Delivery, _ stackSelector: UInt16, _ privilege: Int
    ) throws(Stop) {
        let access: Access = privilege == 3 ? [.user, .write] : .write
        let bytes = delivery.errorCode == nil ? 40 : 48
        let bottom = top &- UInt64(bytes)
        if !isCanonical(bottom) || !isCanonical(top &- 1) { throw fault(Vector.stackFault, code: delivery.external) }
        let rsp = rsp
        let cs = UInt64(state.segments[SegmentName.cs].selector)
        if let frame = unsafe try systemPointer(bottom, bytes, access) {
            // All in one page: five or six plain stores.
            var slot = unsafe frame
            if let code = delivery.errorCode {
                unsafe slot.storeBytes(of: UInt64(code), as: UInt64.self)
                unsafe slot += 8
            }
            unsafe slot.storeBytes(of: delivery.rip, as: UInt64.self)
            unsafe slot.storeBytes(of: cs, toByteOffset: 8, as: UInt64.self)
            unsafe slot.storeBytes(of: delivery.rflags, toByteOffset: 16, as: UInt64.self)
            unsafe slot.storeBytes(of: rsp, toByteOffset: 24, as: UInt64.self)
            unsafe slot.storeBytes(of: UInt64(stackSelector), toByteOffset: 32, as: UInt64.self)
        } else {
            try systemWrite(top &- 8, UInt64(stackSelector), 8, access)
            try systemWrite(top &- 16, rsp, 8, access)
            try systemWrite(top &- 24, delivery.rflags, 8, access)
            try systemWrite(top &- 32, cs, 8, access)
            try systemWrite(top &- 40, delivery.rip, 8, access)
            if let code = delivery.errorCode { try systemWrite(top &- 48, UInt64(code), 8, access) }
        }
        top = bottom
    }
}
