public import Grants
internal import HostInterface
internal import Synchronization

//L:420 Several Guests, one process
//
// Everything that can be wrong with any of the Guests is found before the
// first of them starts: all are made, and then all are started, each on a
// thread of its own. From then on one Guest's end is nobody's business but its
// own: it is said, its disks and its memory are given back, and the others go
// on. The main thread keeps the door: it waits for signals, for those who come
// to the control socket (see "How one talks to a house"), and for the end.
//
// Nothing may keep that thread waiting. So it never prints while Guests run,
// reads and writes no socket that is not ready, and shares with the Guests'
// threads only locks that are held for the time of a copy.

/// Runs the Guests of a house file to their ends.
public struct House: ~Copyable {
    /// Who may be connected at once; more have to wait.
    private static let mostPeers = 32
    /// How long those at the socket may take to hear that it is over.
    private static let farewell: UInt64 = 1_000_000_000

    /// How long nobody is let in after there was no file left for one.
    private static let deafness: UInt64 = 100_000_000

    /// What the main thread waits for.
    private final class Bell: Sendable {
        /// Something about a Guest has changed.
        let changes: EventFD
        /// Somebody wants us to end.
        let signals: EventFD

        init() throws(HostError) {
            changes = try EventFD()
            signals = try EventFD()
        }
    }

    private let file: HouseFile
    private let members: [HouseMember]
    private let log: HouseLog
    private let bell: Bell
    private let socket: ControlSocket
    /// Where its Guests share pages, if they see Xen; a program can join them there as a `HostDomain`.
    public let domains: DomainHouse

    /// Makes all of the Guests, and takes the house's name.
    ///
    /// - Throws: `HostError` if there is something that one of them cannot have.
    package init(_ file: HouseFile, isVerbose: Bool) throws {
        let bell = try Bell()
        let log = try HouseLog(names: file.guests.map(\.name))
        let members = file.guests.enumerated().map { number, guest in
            HouseMember(guest, number: number, log: log) { bell.changes.signal() }
        }
        let progress = try Progress()
        defer { progress.end() }
        let maker = HouseGuestMaker(isVerbose: isVerbose, progress: progress)
        for (member, guest) in zip(members, file.guests) { try member.make(guest, with: maker) }
        socket = try ControlSocket(claiming: file.name)
        domains = maker.commons.domains
        self.file = file
        self.members = members
        self.log = log
        self.bell = bell
    }

    /// The same from a house file: see docs/house.md.
    ///
    /// - Parameter isVerbose: the Guests' kernels' logs go to standard error.
    /// - Throws: in one line, what is wrong with the file, or with what it names.
    public init(contentsOf path: String, isVerbose: Bool = false) throws {
        try self.init(HouseFile(path: path), isVerbose: isVerbose)
    }

    /// Runs them all to their ends.
    ///
    /// - Returns: 0 if all ended well, 70 if one died, else the first that is not 0.
    public consuming func run() throws -> Int32 {
        EndSignals.report(to: bell.signals)
        do {
            for member in members { try member.start() }
        } catch {
            for member in members { member.stop() }
            for member in members { member.join() }
            log.end()
            socket.close()
            throw error
        }
        keepTheDoor()
        for member in members { member.join() }
        log.end()
        socket.close()
        let ends = members.compactMap(\.end)
        if ends.contains(where: { $0.details != nil }) { return GuestEnd.deadStatus }
        return ends.first { $0.status != 0 }?.status ?? 0
    }

    /// Until all have ended, and whoever waits for that knows it.
    private borrowing func keepTheDoor() {
        var peers: [ControlPeer] = []
        var last: UInt64?
        /// Until then nobody is let in: there was no room for whoever came last, and poll(2) would call at once again.
        var deafUntil: UInt64 = 0
        while true {
            let isOver = members.allSatisfy { $0.end != nil }
            let now = HostClock.monotonicNanoseconds
            if isOver, last == nil { last = now &+ Self.farewell }
            if let last, !peers.contains(where: \.isOwed) || now >= last { return }

            var awaited = PollSet()
            awaited.append(bell.changes.rawValue, .read)
            awaited.append(bell.signals.rawValue, .read)
            let listens = !isOver && peers.count < Self.mostPeers && now >= deafUntil
            awaited.append(listens ? socket.descriptor.rawValue : -1, .read)
            for peer in peers { awaited.append(peer.awaited.descriptor, peer.awaited.events) }
            let deadline = min(
                peers.compactMap(\.deadline).min() ?? .max, last ?? .max, now < deafUntil ? deafUntil : .max)
            // A deadline rounded down would be waited for in circles.
            let rest = deadline == .max ? -1 : Int32(clamping: (max(deadline, now) &- now) / 1_000_000 + 1)
            _ = awaited.wait(milliseconds: rest)

            if awaited.ready(0).contains(.read) { bell.changes.drain() }
            if awaited.ready(1).contains(.read) {
                bell.signals.drain()
                for member in members { member.stop() }
            }
            peers = peers.enumerated().filter {
                $0.element.serve(awaited.ready(3 + $0.offset), members, domains)
            }.map(\.element)
            guard awaited.ready(2).contains(.read) else { continue }
            if let connection = UnixSockets.accept(socket.descriptor.rawValue) {
                peers.append(ControlPeer(connection))
            } else {
                deafUntil = now &+ Self.deafness
            }
        }
    }
}
//:
