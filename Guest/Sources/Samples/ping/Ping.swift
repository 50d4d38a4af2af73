import GuestKit

/// How long a bell takes: two Guests ring at each other in turn, each asleep until it hears the other, as often as
/// `rounds=N` says (10000). `peer=N` as in `lend`; the lower number begins, and prints how long it took.
@main struct Ping {
    static let peer = UInt16(truncatingIfNeeded: Boot.number("peer") ?? (Xen.domid == 1 ? 2 : 1))

    static func main() {
        if Xen.domid < peer { serve() } else { answer() }
    }

    static func serve() {
        guard let bell = try? EventChannel.allocate(for: peer) else { panic("no event channel") }
        let key: Text = "data/ping/\(peer)"
        do throws(XenError) {
            try Store.write(key, "\(bell.port)")
            try Store.setPermissions(key, [.none(Xen.domid), .read(peer)])
        } catch { panic("the store does not take \(key): error \(error.errno)") }
        _ = hear(bell)  // The other is there.
        play(bell)
    }

    /// Ends the Guest while the bell is still there: who dies rings, and who only closes it does not.
    static func play(_ bell: borrowing EventChannel) {
        let rounds = Boot.number("rounds") ?? 10000
        let start = Clock.nanoseconds
        for round in 0..<rounds {
            bell.ring()
            guard hear(bell) else { return print("\(peer) has gone after \(round) rounds") }
        }
        print("ping rounds=\(rounds) nsPerRoundTrip=\((Clock.nanoseconds - start) / max(rounds, 1))")
        Power.off()
    }

    static func answer() {
        let key: Text = "/local/domain/\(peer)/data/ping/\(Xen.domid)"
        guard let port = (try? Store.wait(for: key))?.number,
            let bell = try? EventChannel(bindingTo: peer, port: UInt32(truncatingIfNeeded: port))
        else { panic("\(peer) has no event channel for us") }
        // An end that is bound has rung; that is not the other's.
        bell.takeRing()
        bell.ring()
        var heard: UInt64 = 0
        while true {
            guard hear(bell) else { return print("\(peer) has gone, after \(heard) rings") }
            bell.ring()
            heard += 1
        }
    }

    /// False: that was the last one, the other has gone. To ask is a hypercall more.
    static func hear(_ bell: borrowing EventChannel) -> Bool {
        Interrupts.wait(until: bell.hasRung)
        bell.takeRing()
        return bell.isConnected
    }
}
