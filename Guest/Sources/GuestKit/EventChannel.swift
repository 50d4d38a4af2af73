//G:135 Bells
//
// An event channel is a wire between two Guests with a bell at each end. It
// says nothing but that somebody has rung, and to ring twice before anybody
// has looked is to ring once. One Guest makes an end for another, and has a
// number to tell, the *port*; the other binds an end of its own to it.
//
// Who waits, waits with `Interrupts.wait(until: bell.hasRung)`, takes the ring, and only then looks at what it may
// have been about, in memory that both share. So whatever is written after that look is rung for again.
//
// Whose other end has died hears that, as one more ring, and can ask whether there still is another end. Whose
// other end was only closed hears nothing. So a Guest that leaves says so in memory, and rings, before it closes.

/// One end of an event channel. It closes when it is let go.
public struct EventChannel: ~Copyable, Sendable {
    /// Its number here: what the other side is to be told, so that it can bind its end.
    public let port: UInt32

    /// An end for the Guest `domid` to bind its own to.
    ///
    /// - Throws: ENOSPC, if there are no more ports.
    public static func allocate(for domid: UInt16) throws(XenError) -> EventChannel {
        typealias Fields = XenABI.EvtchnAllocUnbound
        Ports.begin()
        let call = Xen.arguments.prefix(Fields.byteCount)
        call.fill()
        call.store(XenABI.DOMID.selfID, at: Fields.dom)
        call.store(domid, at: Fields.remoteDom)
        try Xen.call(XenABI.Hypercall.eventChannelOp, XenABI.EVTCHNOP.allocUnbound, call.address)
        return EventChannel(port: call.load(Fields.port))
    }

    /// The other end of the one that the Guest `domid` has made for us. It has rung once, as somebody may have
    /// rung before.
    ///
    /// - Throws: ESRCH, if there is no such Guest; EINVAL, if it has no such port for us.
    public init(bindingTo domid: UInt16, port remotePort: UInt32) throws(XenError) {
        typealias Fields = XenABI.EvtchnBindInterdomain
        Ports.begin()
        let call = Xen.arguments.prefix(Fields.byteCount)
        call.fill()
        call.store(domid, at: Fields.remoteDom)
        call.store(remotePort, at: Fields.remotePort)
        try Xen.call(XenABI.Hypercall.eventChannelOp, XenABI.EVTCHNOP.bindInterdomain, call.address)
        self.init(port: call.load(Fields.localPort))
    }

    private init(port: UInt32) {
        self.port = port
        _ = Ports.retain(port, isNew: true)
    }

    deinit { Ports.release(port) }

    /// Closes it; the other end may then be bound by this Guest once more. Without it, the end of its scope does it.
    public consuming func close() {}

    /// Rings at the other end; if there is none, nobody hears.
    public func ring() { Ports.ring(port) }

    /// Whether somebody has rung since `takeRing`.
    public var hasRung: Bool { Ports.hasRung(port) }

    /// The same; and it has not, from now on. Look at what it was about after this, not before.
    @discardableResult public func takeRing() -> Bool { Ports.takeRing(port) }

    /// Whether there is another end. One that has died rings, and then there is none. It is a hypercall.
    public var isConnected: Bool {
        typealias Fields = XenABI.EvtchnStatus
        let call = Xen.arguments.prefix(Fields.byteCount)
        call.fill()
        call.store(XenABI.DOMID.selfID, at: Fields.dom)
        call.store(port, at: Fields.port)
        guard (try? Xen.call(XenABI.Hypercall.eventChannelOp, XenABI.EVTCHNOP.status, call.address)) != nil else {
            return false
        }
        return call.load(Fields.status, as: UInt32.self) == XenABI.EVTCHNSTAT.interdomain
    }
}
//:
