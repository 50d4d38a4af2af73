internal import HostInterface

/// event_channel_op. FIFO channels are refused: Linux then takes the two-level ones.
extension XenInterface {
    func eventChannel(
        _ operation: UInt64, _ address: UInt64, _ arguments: GuestArguments
    ) throws(XenError) -> Int64 {
        typealias Operation = XenABI.EVTCHNOP
        switch UInt32(truncatingIfNeeded: operation) {
        case Operation.send:
            let port = try port(arguments, address)
            do throws(Errno) { try house.send(domain, port) } catch { throw .errno(error) }
        case Operation.unmask:
            let port = try port(arguments, address)
            try locked { state throws(Errno) in
                guard self.domain.channels[port].state != .closed else { throw .invalid }
                self.domain.unmask(port)
            }
        case Operation.close:
            let port = try port(arguments, address)
            try locked { state throws(Errno) in try state.close(self.domain, port) }
        case Operation.allocUnbound: try allocateUnbound(arguments, address)
        case Operation.bindInterdomain: try bindInterdomain(arguments, address)
        case Operation.bindVIRQ:
            typealias Fields = XenABI.EvtchnBindVIRQ
            let call = try get(arguments, address, Fields.byteCount)
            guard call.get(Fields.vcpu, as: UInt32.self) == 0 else { throw .errno(.notFound) }
            let number: UInt32 = call.get(Fields.virq)
            try answer(call, at: Fields.port) { state throws(Errno) in
                try state.bindVirtualIRQ(self.domain, number)
            }
        case Operation.bindIPI:
            typealias Fields = XenABI.EvtchnBindIPI
            let call = try get(arguments, address, Fields.byteCount)
            guard call.get(Fields.vcpu, as: UInt32.self) == 0 else { throw .errno(.notFound) }
            try answer(call, at: Fields.port) { state throws(Errno) in try state.bindInterprocessor(self.domain) }
        case Operation.bindVCPU:
            // There is one, and all ports are its own.
            typealias Fields = XenABI.EvtchnBindVCPU
            let call = try get(arguments, address, Fields.byteCount)
            guard call.get(Fields.vcpu, as: UInt32.self) == 0 else { throw .errno(.notFound) }
        case Operation.status: try status(arguments, address)
        case Operation.reset:
            let call = try get(arguments, address, XenABI.EvtchnReset.byteCount)
            guard isOwn(call.get(XenABI.EvtchnReset.dom)) else { throw .notPermitted }
            try locked { state throws(Errno) in
                for (port, _) in self.domain.channels.open { try state.close(self.domain, port) }
            }
        default: throw .unknown
        }
        return 0
    }

    private func port(_ arguments: GuestArguments, _ address: UInt64) throws(XenError) -> Int {
        var port: UInt32 = 0
        guard arguments.load(address, into: &port) else { throw .fault }
        guard port > 0, port < XenABI.SharedInfo.evtchnCount else { throw .invalid }
        return Int(port)
    }

    /// Makes a port, and puts its number into the caller's struct.
    private func answer(
        _ call: GuestStruct, at offset: Int, _ make: (DomainHouse.State) throws(Errno) -> Int
    ) throws(XenError) {
        let port = try locked { state throws(Errno) in try make(state) }
        guard call.answer(UInt32(port), at: offset) else {
            try locked { state throws(Errno) in try state.close(self.domain, port) }
            throw .fault
        }
    }

    private func allocateUnbound(_ arguments: GuestArguments, _ address: UInt64) throws(XenError) {
        typealias Fields = XenABI.EvtchnAllocUnbound
        let call = try get(arguments, address, Fields.byteCount)
        guard isOwn(call.get(Fields.dom)) else { throw .notPermitted }
        let remote: UInt16 = call.get(Fields.remoteDom)
        try answer(call, at: Fields.port) { state throws(Errno) in
            try state.allocateUnbound(self.domain, for: remote)
        }
    }

    private func bindInterdomain(_ arguments: GuestArguments, _ address: UInt64) throws(XenError) {
        typealias Fields = XenABI.EvtchnBindInterdomain
        let call = try get(arguments, address, Fields.byteCount)
        let remote: UInt16 = call.get(Fields.remoteDom)
        let remotePort = Int(call.get(Fields.remotePort, as: UInt32.self))
        try answer(call, at: Fields.localPort) { state throws(Errno) in
            try state.bindInterdomain(self.domain, to: remote, port: remotePort)
        }
    }

    private func status(_ arguments: GuestArguments, _ address: UInt64) throws(XenError) {
        typealias Fields = XenABI.EvtchnStatus
        let call = try get(arguments, address, Fields.byteCount)
        guard isOwn(call.get(Fields.dom)) else { throw .notPermitted }
        let port = Int(call.get(Fields.port, as: UInt32.self))
        guard port > 0, port < ChannelTable.most else { throw .invalid }
        let state = try locked { state throws(Errno) in self.domain.channels[port].state }
        var isThere = call.answer(state.number, at: Fields.status) && call.answer(UInt32(0), at: Fields.vcpu)
        switch state {
        case .unbound(let remote): isThere = isThere && call.answer(remote, at: Fields.detail)
        case .interdomain(let remote, let port):
            isThere =
                isThere && call.answer(remote, at: Fields.interdomainDom)
                && call.answer(UInt32(port), at: Fields.interdomainPort)
        case .store:
            isThere =
                isThere && call.answer(UInt16(0), at: Fields.interdomainDom)
                && call.answer(UInt32(0), at: Fields.interdomainPort)
        case .virtualIRQ(let number): isThere = isThere && call.answer(number, at: Fields.detail)
        case .closed, .interprocessor: break
        }
        guard isThere else { throw .fault }
    }
}
