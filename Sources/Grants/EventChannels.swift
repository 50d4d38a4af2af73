internal import HostInterface

//D:260 Doorbells
//
// An event channel has two ends, each a number in a Guest's own table of ports.
// One end is made first and says for whom it is; the other is bound to it by
// exactly that Guest, and from then on each can ring at the other. Nothing
// travels with the event but that it has happened, and twice before anybody
// looked is once.
//
//     alloc_unbound          bind_interdomain              close
//     anna 5: unbound  --->  anna 5 <===> bert 9  --->  anna 5: unbound (for bert)
//             (for bert)                                bert 9: closed
//
// The rest are bells without another end: of the Guest's own timer (a VIRQ), of
// one of its CPUs for another (an IPI), and one whose other end is ours, the
// store's.

/// What a port of a domain is.
enum ChannelState: Equatable {
    case closed
    /// Waits for its other end.
    case unbound(remote: UInt16)
    case interdomain(remote: UInt16, port: Int)
    case virtualIRQ(UInt32)
    case interprocessor
    /// The other end is the Host's store.
    case store

    /// As EVTCHNOP_status has it.
    var number: UInt32 {
        switch self {
        case .closed: XenABI.EVTCHNSTAT.closed
        case .unbound: XenABI.EVTCHNSTAT.unbound
        case .interdomain, .store: XenABI.EVTCHNSTAT.interdomain
        case .virtualIRQ: XenABI.EVTCHNSTAT.virq
        case .interprocessor: XenABI.EVTCHNSTAT.ipi
        }
    }
}

struct Channel {
    var state = ChannelState.closed
    /// How often it was rung at, from either end of it.
    var sent: UInt64 = 0
}

/// The ports of one domain. For whoever holds the house's lock.
struct ChannelTable {
    static let most = Int(XenABI.SharedInfo.evtchnCount)
    /// Grows as ports are used. Port 0 is never one.
    private var channels = [Channel()]

    subscript(port: Int) -> Channel {
        get { channels.indices.contains(port) ? channels[port] : Channel() }
        set { channels[port] = newValue }
    }

    var open: [(port: Int, channel: Channel)] {
        channels.enumerated().filter { $0.element.state != .closed }.map { ($0.offset, $0.element) }
    }

    /// The lowest free port; nil: there is none.
    mutating func add(_ state: ChannelState) -> Int? {
        if let free = channels.dropFirst().firstIndex(where: { $0.state == .closed }) {
            channels[free] = Channel(state: state)
            return free
        }
        guard channels.count < Self.most else { return nil }
        channels.append(Channel(state: state))
        return channels.count - 1
    }

    func find(_ state: ChannelState) -> Int? { channels.firstIndex { $0.state == state } }
}

/// EVTCHNOP_*, each with the checks that Xen makes and in their order. Under the house's lock.
extension DomainHouse.State {
    func allocateUnbound(_ domain: Domain, for remote: UInt16) throws(Errno) -> Int {
        let remote = remote == XenABI.DOMID.selfID ? domain.id : remote
        guard let port = domain.channels.add(.unbound(remote: remote)) else { throw .noSpace }
        domain.sharedInfo.clearPending(port)
        return port
    }

    /// - Throws: ESRCH no such domain; EINVAL: the port is not unbound, or for somebody else; ENOSPC.
    func bindInterdomain(_ domain: Domain, to remote: UInt16, port remotePort: Int) throws(Errno) -> Int {
        let remote = remote == XenABI.DOMID.selfID ? domain.id : remote
        guard let peer = find(remote) else { throw .noProcess }
        guard peer.channels[remotePort].state == .unbound(remote: domain.id) else { throw .invalid }
        guard let port = domain.channels.add(.interdomain(remote: remote, port: remotePort)) else { throw .noSpace }
        domain.sharedInfo.clearPending(port)
        peer.channels[remotePort].state = .interdomain(remote: domain.id, port: port)
        // Somebody may have rung before there was a bell.
        domain.setPending(port)
        return port
    }

    func bindVirtualIRQ(_ domain: Domain, _ number: UInt32) throws(Errno) -> Int {
        guard number < XenABI.VIRQ.count else { throw .invalid }
        guard domain.channels.find(.virtualIRQ(number)) == nil else { throw .exists }
        return try add(.virtualIRQ(number), to: domain)
    }

    func bindInterprocessor(_ domain: Domain) throws(Errno) -> Int { try add(.interprocessor, to: domain) }

    private func add(_ state: ChannelState, to domain: Domain) throws(Errno) -> Int {
        guard let port = domain.channels.add(state) else { throw .noSpace }
        domain.sharedInfo.clearPending(port)
        return port
    }

    /// - Parameter ringing: whether the other end is told. Xen does not, but for a domain that has died it is the
    ///   only word that its peers will ever hear.
    func close(_ domain: Domain, _ port: Int, ringing: Bool = false) throws(Errno) {
        switch domain.channels[port].state {
        case .closed: throw .invalid
        case .interdomain(let remote, let remotePort):
            if let peer = peer(remote), !(peer === domain && remotePort == port) {
                peer.channels[remotePort].state = .unbound(remote: domain.id)
                if ringing { peer.setPending(remotePort) }
            }
        default: break
        }
        domain.channels[port] = Channel()
        domain.sharedInfo.clearPending(port)
    }

    /// What a send has set off, and has to be done without the lock.
    enum Sent { case done, store }

    /// - Throws: EINVAL for a port that cannot be rung at. A bell without another end is not heard.
    func send(_ domain: Domain, _ port: Int) throws(Errno) -> Sent {
        let state = domain.channels[port].state
        switch state {
        case .interdomain(let remote, let remotePort):
            if let peer = find(remote) {
                peer.channels[remotePort].sent &+= 1
                peer.setPending(remotePort)
            }
        case .interprocessor: domain.setPending(port)
        case .unbound: break
        case .store: break
        case .closed, .virtualIRQ: throw .invalid
        }
        domain.channels[port].sent &+= 1
        return state == .store ? .store : .done
    }
}
//:
