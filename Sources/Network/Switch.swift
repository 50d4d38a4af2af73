package import HostInterface
internal import Synchronization

//L:380 A switch in the process
//
// Two Guests of one house that name the same network, "lan0", are on one cable,
// and the cable is this switch. It does what the box under a desk does: it learns
// from each frame at which port its sender is, sends what is for somebody there,
// and what is for everybody, or for somebody not yet heard, to all but the sender.
// Addresses (DHCP, or by hand) are the Guests' own affair.
//
// Nobody in here works for the switch. The thread of the sender's transmit queue
// looks up the way and puts the frame into the receiver's ring, and the thread of
// the receiver's receive queue fetches it from there: one copy in, one out. There
// may be many senders at a time, so a ring has a lock, which is held for as long as
// a copy takes; the receiver does not need it, so none can make others wait by
// being slow: its ring of 4 MiB fills, and what then comes for it is dropped and
// counted, as on any Ethernet. TCP knows what to do.
//
// The box under the desk has to do with wires, and here are none. Linux makes TCP
// segments of up to 64 KiB and leaves to its card to cut them up and to compute
// checksums; at the other end Linux takes 64 KiB at a time just as gladly. So if
// both have agreed to such (TSO, and checksums), a frame passes as it is, and nobody
// ever cuts or adds up anything. Only for a receiver that has agreed to less, as
// a small kernel's driver may, the sender's thread does that work, on the way from
// one buffer to the other (`TCPSegments`, `FrameHeader.completeChecksum`).
//
// That is also why the MTU is no more than an ordinary Ethernet's. The user
// network's 65,520 bytes save nothing where large segments pass anyway (tried with
// two Linux Guests: 0.8 ms a MiB with either, and the difference is noise), and
// there would be packets that some Guests' drivers have no room for: those who do
// not know that a card may have an MTU.
//
// Guests need not be friends. What would a hostile one try?
//
// - To take another's frames, by sending under its address: an address that we gave
//   to a card is its port's alone, and whoever else sends under it is refused. An
//   address that a Guest chose (a bridge's, a container's) is where it was heard
//   last, as on every switch, since containers do move; who uses such on a network
//   with strangers had better encrypt.
// - To make the switch forget where all are, so that it sends everything to
//   everybody: a port that speaks under many addresses forgets its own
//   (`ForwardingTable`).
// - To hand the receiver a frame that claims to be what it is not: the header is
//   checked and written anew, large segments are dissected whether or not they
//   are cut up, and the claim that a checksum need not be looked at does not pass.

/// An Ethernet between Guests of this process. Any thread may use it.
package final class Switch: Sendable {
    package let mtu: Int
    private let state = Mutex(State())

    private struct State {
        /// Ports are numbered, and no number is used again.
        var nextPort = 0
        /// Those that are in use.
        var running: [Int: SwitchQueue] = [:]
        /// The cards of all ports, in use or not.
        var cards: [UInt64: Int] = [:]
        var table = ForwardingTable()
    }

    package init(mtu: Int = 1500) { self.mtu = mtu }

    /// A place for one card.
    ///
    /// - Parameter card: its address; nil for the first one from 52:54:00:12:34:56
    ///   on that no card here has.
    /// - Throws: if another card has it.
    package func makePort(card: MACAddress? = nil) throws(HostError) -> SwitchPort {
        let (port, number): (Int, UInt64) = try state.withLock { state throws(HostError) in
            var number = card?.number ?? 0x5254_0012_3456
            if let card, state.cards[number] != nil {
                throw HostError(
                    "two cards on one network have the address \(card)", advice: "leave out mac= for one of them")
            }
            while state.cards[number] != nil { number &+= 1 }
            let port = state.nextPort
            state.nextPort += 1
            state.cards[number] = port
            return (port, number)
        }
        do {
            return try SwitchPort(self, SwitchQueue(port: port), card: MACAddress(number: number))
        } catch {
            removePort(port, card: number)
            throw error
        }
    }

    func removePort(_ port: Int, card: UInt64) {
        stop(port)
        state.withLock { state in state.cards[card] = nil }
    }

    /// From now on frames go there.
    func start(_ queue: SwitchQueue) { state.withLock { $0.running[queue.port] = queue } }

    func stop(_ port: Int) {
        state.withLock { state in
            state.running[port] = nil
            state.table.forget(port: port)
        }
    }

    enum Route {
        /// Not from there.
        case refused
        case to(SwitchQueue)
        case everybody([SwitchQueue])
        /// To somebody who is at the sender's own port, or not there now.
        case nobody
    }

    /// Learns where a frame comes from, and says where it goes.
    func route(from source: UInt64, at port: Int, to destination: UInt64) -> Route {
        // The sender is one card, not a group, and not nobody.
        guard !Switch.isGroup(source), source != 0 else { return .refused }
        return state.withLock { state in
            guard state.running[port] != nil else { return .refused }
            if let owner = state.cards[source] {
                guard owner == port else { return .refused }
            } else {
                state.table.learn(source, at: port)
            }
            if !Switch.isGroup(destination),
                let place = state.cards[destination] ?? state.table.port(of: destination)
            {
                guard place != port, let queue = state.running[place] else { return .nobody }
                return .to(queue)
            }
            return .everybody(state.running.values.filter { $0.port != port })
        }
    }

    private static func isGroup(_ address: UInt64) -> Bool { address >> 40 & 1 != 0 }
}

/// A port of a switch, for one Guest's card.
///
/// A driver may reset and start again; what was sent meanwhile is lost. The port's
/// end takes it off the switch.
package final class SwitchPort: NetworkBackend {
    package let offloads: NetworkOffloads = [
        .checksum, .tso4, .tso6, .ecn, .guestChecksum, .guestTSO4, .guestTSO6, .guestECN,
    ]
    package var mtu: Int { network.mtu }
    package var readable: Int32 { queue.readable }

    /// What the card is to be called.
    package let card: MACAddress
    package var cardAddress: MACAddress? { card }

    private let network: Switch
    private let queue: SwitchQueue
    private let accepted = Atomic<UInt64>(0)
    private let counters = NetworkCounters()

    init(_ network: Switch, _ queue: SwitchQueue, card: MACAddress) {
        self.network = network
        self.queue = queue
        self.card = card
    }

    deinit { network.removePort(queue.port, card: card.number) }

    package func configure(_ accepted: NetworkOffloads, largestPacket: Int) {
        self.accepted.store(accepted.rawValue, ordering: .relaxed)
        queue.configure(accepted, largestPacket: largestPacket)
    }

    package func start() {
        queue.open()
        network.start(queue)
    }

    package func stop() {
        network.stop(queue.port)
        // Some sender may have looked up the way already, and finds the door shut.
        queue.close()
    }

    package func send(_ frame: UnsafeMutableRawBufferPointer) -> Bool {
        let agreed = NetworkOffloads(rawValue: accepted.load(ordering: .relaxed))
        guard let header = unsafe FrameHeader(checking: UnsafeRawBufferPointer(frame), accepted: agreed),
            let switched = unsafe SwitchedFrame(
                FrameBytes(UnsafeMutableRawBufferPointer(rebasing: frame[FrameHeader.byteCount...])), header)
        else { return refuse() }
        switch network.route(from: switched.bytes.card, at: queue.port, to: switched.bytes.destination) {
        case .refused: return refuse()
        case .to(let receiver): receiver.add(switched)
        case .everybody(let receivers): for receiver in receivers { receiver.add(switched) }
        case .nobody: break
        }
        counters.send(switched.bytes.count)
        return true
    }

    private func refuse() -> Bool {
        counters.refuse()
        return false
    }

    package func receive(into buffer: UnsafeMutableRawBufferPointer) -> Int? {
        guard let count = unsafe queue.take(into: buffer) else { return nil }
        counters.receive(count - FrameHeader.byteCount)
        return count
    }

    package var statistics: NetworkStatistics { counters.statistics(droppedFrames: queue.droppedFrames) }
}
//:
