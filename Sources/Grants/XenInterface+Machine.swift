internal import GuestMemory
internal import HostInterface

/// The calls about the Guest's own machine: memory_op, hvm_op, vcpu_op, sched_op, xen_version.
extension XenInterface {
    func memory(_ operation: UInt64, _ address: UInt64, _ arguments: GuestArguments) throws(XenError) -> Int64 {
        switch UInt32(truncatingIfNeeded: operation) {
        case XenABI.XENMEM.addToPhysmap:
            typealias Fields = XenABI.AddToPhysmap
            let call = try get(arguments, address, Fields.byteCount)
            guard isOwn(call.get(Fields.domid)) else { throw .notPermitted }
            let index: UInt64 = call.get(Fields.idx)
            let page: UInt64 = call.get(Fields.gpfn)
            let special: Int
            switch call.get(Fields.space, as: UInt32.self) {
            case XenABI.XENMAPSPACE.sharedInfo where index == 0: special = Domain.SpecialPage.sharedInfo
            case XenABI.XENMAPSPACE.grantTable where index < UInt64(GrantTable.mostFrames):
                special = Domain.SpecialPage.firstGrantFrame + Int(index)
            default: throw .invalid
            }
            try locked { _ throws(Errno) in
                try self.domain.place(special, at: page)
                if special >= Domain.SpecialPage.firstGrantFrame {
                    self.domain.grants.frameCount = max(self.domain.grants.frameCount, Int(index) + 1)
                }
            }
        case XenABI.XENMEM.removeFromPhysmap:
            // struct xen_remove_from_physmap: domid u16 @0, gpfn u64 @8.
            let call = try get(arguments, address, 16)
            guard isOwn(call.get(0)) else { throw .notPermitted }
            let page: UInt64 = call.get(8)
            try locked { _ throws(Errno) in try self.domain.unplace(at: page) }
        default: throw .unknown
        }
        return 0
    }

    func hvm(_ operation: UInt64, _ address: UInt64, _ arguments: GuestArguments) throws(XenError) -> Int64 {
        switch UInt32(truncatingIfNeeded: operation) {
        case XenABI.HVMOP.setParam:
            typealias Fields = XenABI.HVMParam
            let call = try get(arguments, address, Fields.byteCount)
            guard isOwn(call.get(Fields.domid)) else { throw .notPermitted }
            guard call.get(Fields.index, as: UInt32.self) == XenABI.HVMPARAM.callbackIRQ else { throw .unknown }
            try setCallback(call.get(Fields.value))
        case XenABI.HVMOP.getParam:
            typealias Fields = XenABI.HVMParam
            let call = try get(arguments, address, Fields.byteCount)
            guard isOwn(call.get(Fields.domid)) else { throw .notPermitted }
            let value: UInt64
            switch call.get(Fields.index, as: UInt32.self) {
            case XenABI.HVMPARAM.storePFN:
                value = house.withLock { _ in domain.place(of: Domain.SpecialPage.store) } ?? 0
            case XenABI.HVMPARAM.storeEvtchn:
                value = UInt64(house.withLock { _ in domain.storePort } ?? 0)
            case XenABI.HVMPARAM.callbackIRQ, XenABI.HVMPARAM.consolePFN, XenABI.HVMPARAM.consoleEvtchn: value = 0
            default: throw .unknown
            }
            guard call.answer(value, at: Fields.value) else { throw .fault }
        case XenABI.HVMOP.setEvtchnUpcallVector:
            typealias Fields = XenABI.HVMEvtchnUpcallVector
            let call = try get(arguments, address, Fields.byteCount)
            guard call.get(Fields.vcpu, as: UInt32.self) == 0 else { throw .errno(.notFound) }
            let vector: UInt8 = call.get(Fields.vector)
            guard vector >= Fields.minimum else { throw .invalid }
            guard let upcall = machine.upcall(byMessage: vector) else { throw .unknown }
            setUpcall(upcall)
        default: throw .unknown
        }
        return 0
    }

    /// HVM_PARAM_CALLBACK_IRQ.
    private func setCallback(_ value: UInt64) throws(XenError) {
        let upcall: (@Sendable () -> Void)?
        switch value >> XenABI.HVMPARAM.callbackTypeShift {
        case XenABI.HVMPARAM.callbackTypeVector:
            upcall = machine.upcall(directly: UInt8(truncatingIfNeeded: value))
        case XenABI.HVMPARAM.callbackTypeGSI:
            if value == 0 { return setUpcall(nil) }
            upcall = machine.upcall(byLine: Int(truncatingIfNeeded: value))
        default: throw .unknown
        }
        if let upcall { return setUpcall(upcall) }
        // A Linux that has chosen a vector names a line besides, which tools take for a sign that it knows Xen.
        guard house.withLock({ _ in domain.upcall != nil }) else { throw .unknown }
    }

    /// Whatever waits is told of in the new way.
    private func setUpcall(_ upcall: (@Sendable () -> Void)?) {
        house.withLock { _ in
            domain.upcall = upcall
            if domain.sharedInfo.hasCalled { upcall?() }
        }
    }

    func vcpu(
        _ operation: UInt64, _ number: UInt64, _ address: UInt64, _ arguments: GuestArguments
    ) throws(XenError) -> Int64 {
        guard number == 0 else { throw .errno(.notFound) }
        switch UInt32(truncatingIfNeeded: operation) {
        case XenABI.VCPUOP.registerVCPUInfo:
            typealias Fields = XenABI.RegisterVCPUInfo
            let call = try get(arguments, address, Fields.byteCount)
            let frame: UInt64 = call.get(Fields.mfn)
            let offset: UInt32 = call.get(Fields.offset)
            guard frame < domain.memory.addressEnd >> 12, offset < 4096 else { throw .invalid }
            try locked { _ throws(Errno) in try self.domain.moveVCPUInfo(to: frame << 12 | UInt64(offset)) }
        // There was none.
        case XenABI.VCPUOP.stopPeriodicTimer, XenABI.VCPUOP.stopSingleshotTimer: break
        default: throw .unknown
        }
        return 0
    }

    func schedule(_ operation: UInt64, _ address: UInt64, _ arguments: GuestArguments) throws(XenError) -> Int64 {
        switch UInt32(truncatingIfNeeded: operation) {
        // A CPU that has nothing to do halts; one that waits for a port may look again at any time.
        case XenABI.SCHEDOP.yield, XenABI.SCHEDOP.poll: break
        case XenABI.SCHEDOP.shutdown:
            var reason: UInt32 = 0
            guard arguments.load(address, into: &reason) else { throw .fault }
            guard machine.shutDown(reason) else { throw .invalid }
        default: throw .unknown
        }
        return 0
    }

    func version(_ operation: UInt64, _ address: UInt64, _ arguments: GuestArguments) throws(XenError) -> Int64 {
        switch UInt32(truncatingIfNeeded: operation) {
        case XenABI.XENVER.version: return Int64(Self.version)
        case XenABI.XENVER.extraversion:
            // xen_extraversion_t: 16 characters.
            var text = InlineArray<16, UInt8>(repeating: 0)
            for (index, byte) in ".roost".utf8.enumerated() { text[index] = byte }
            guard arguments.store(text, at: address) else { throw .fault }
        case XenABI.XENVER.getFeatures:
            let call = try get(arguments, address, XenABI.FeatureInfo.byteCount)
            let features: UInt32 =
                call.get(XenABI.FeatureInfo.submapIdx, as: UInt32.self) == 0
                ? 1 << XenABI.XENFEAT.autoTranslatedPhysmap | 1 << XenABI.XENFEAT.hvmCallbackVector : 0
            guard call.answer(features, at: XenABI.FeatureInfo.submap) else { throw .fault }
        default: throw .unknown
        }
        return 0
    }
}
