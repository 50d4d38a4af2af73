package import HostInterface
internal import Synchronization

//L:350 A network without root
//
// A Guest wants Ethernet; an ordinary user of the host may only open sockets.
// Between the two stands libslirp, a TCP/IP stack in a library: it plays the
// router of a network of its own, and whatever the Guest sends through that router
// it does again with sockets of this process. To the world it looks as if Roost had
// opened the connection. The addresses are those that QEMU's users know:
//
//     10.0.2.2   fec0::2   the router; what goes to it arrives at the host's loopback
//     10.0.2.3   fec0::3   asks the host's name server
//     10.0.2.15  fec0::…   the Guest, by DHCP and by router advertisement
//
// libslirp is no friend of threads, so it has a lock, and whoever has a reason to
// call it takes the lock and does so: the Guest's frames enter on the thread of the
// device's transmit queue; a thread of our own, "network", sleeps in poll(2) on the
// sockets with the lock given back. There is no queue in between, and usually no
// wakeup: a TCP segment goes from the Guest's memory into the host's socket, and
// its acknowledgement back into the Guest's ring, without any other thread having
// run. What is left is to notice that after a frame the sockets to be watched are
// not those that "network" sleeps upon. Then the thread that has the lock looks at
// them at once; mostly data is there already, as when the Guest has acknowledged
// some and there is room for more, and by the time it is through the two agree
// again. Only if they do not is "network" woken.
//
// Frames for the Guest go through a ring of 4 MiB. A full ring would drop them, and
// TCP takes 200 ms to get over it. So long before, at 512 KiB, sockets are no more
// read: what comes then waits in the host's kernel, whose buffers tell the sender.
// The rest of the ring is for what is in flight: a window of 64 KiB for each of more
// than fifty connections.
//
// Packets are as large as they come, 65,520 bytes, for each costs the Guest an
// interrupt and libslirp a round, and no wire in between is too narrow: all of them
// end here. A segment from the Guest that it wants cut up is to libslirp just a
// segment. What libslirp sends are up to 32 KiB of TCP, to everybody, since it does
// not listen to what segment size the other end asks for. The Guest is told that
// these are many segments of an ordinary Ethernet's size, put together on the way
// (`FrameHeader.init(marking:)`): then it acknowledges each at once instead of
// waiting for a second, and can pass them on to a container behind a bridge.

/// A network of the Guest's own behind libslirp: needs no rights and leaves no traces.
@safe package final class UserNetwork: NetworkBackend {
    package static let network = IPv4Address(10, 0, 2, 0)
    package static let host = IPv4Address(10, 0, 2, 2)
    package static let nameServer = IPv4Address(10, 0, 2, 3)
    package static let guest = IPv4Address(10, 0, 2, 15)
    /// The upper half of fec0::/64.
    static let prefix6: UInt64 = 0xfec0 << 48

    /// libslirp's largest MTU (IF_MTU_MAX).
    private static let largestPacket = 65_521

    package let mtu = 65_520

    package let offloads: NetworkOffloads = [.checksum, .tso4, .tso6, .guestChecksum, .guestTSO4, .guestTSO6]

    package var readable: Int32 { frames.arrived.rawValue }

    private let shared: Mutex<Shared>
    private let gate: Mutex<FrameGate>
    private let frames: GuestFrames
    private let wakeup: EventFD
    private let counters = NetworkCounters()
    /// `NetworkOffloads` that the driver accepted.
    private let accepted = Atomic<UInt64>(0)
    /// The thread that sent last, which will not die of a broken pipe.
    private let sender = Atomic<UInt>(0)
    /// So many of the host's files may be open for the Guest's connections.
    private let socketLimit = min(4096, Sockets.fileLimit / 2)

    /// What libslirp's lock protects.
    private struct Shared: ~Copyable {
        var stack: SlirpStack
        /// "network", and what it sleeps upon.
        var thread: HostThread?
        var isStopping = false
        var sleepsUpon = PollSet()
        var sleepsUntil: UInt64 = 0
    }

    private let forwards: [PortForward]
    private let hasIPv6 = Sockets.hasIPv6

    /// - Throws: if a port cannot be forwarded.
    package init(forwards: [PortForward] = []) throws(HostError) {
        self.forwards = forwards
        frames = try GuestFrames()
        wakeup = try EventFD()
        gate = Mutex(FrameGate(hasIPv6: hasIPv6))
        shared = Mutex(
            Shared(stack: try UserNetwork.makeStack(UserNetwork.largestPacket, hasIPv6: hasIPv6, frames, forwards)))
    }

    private static func makeStack(
        _ largestPacket: Int, hasIPv6: Bool, _ frames: GuestFrames, _ forwards: [PortForward]
    ) throws(HostError) -> SlirpStack {
        let stack = unsafe try SlirpStack(largestPacket: largestPacket, hasIPv6: hasIPv6) { frame in
            unsafe frames.append(frame)
        }
        for forward in forwards { try stack.add(forward) }
        stack.raiseBacklogs()
        // Its clock stands at zero until it has looked at it, and what is opened
        // before that is at once too old.
        stack.serve()
        return stack
    }

    // MARK: Life

    package func configure(_ accepted: NetworkOffloads, largestPacket: Int) throws(HostError) {
        self.accepted.store(accepted.rawValue, ordering: .relaxed)
        frames.configure(accepted)
        // libslirp decides on its packets' size once, when it is made, and pays no
        // heed to the segment size that the Guest asks for in a connection.
        let limit = min(largestPacket, UserNetwork.largestPacket)
        try shared.withLock { shared throws(HostError) in
            guard shared.stack.largestPacket != limit else { return }
            shared.stack.close()
            shared.stack = try UserNetwork.makeStack(limit, hasIPv6: hasIPv6, frames, forwards)
        }
    }

    /// Connections live on while it is stopped; the Guest will reset those that it
    /// has forgotten.
    package func start() throws(HostError) {
        let thread = try HostThread(name: "network") { [self] in run() }
        shared.withLock { shared in
            precondition(shared.thread == nil)
            shared.thread = thread
        }
    }

    package func stop() {
        let thread = shared.withLock { shared in
            shared.isStopping = true
            return shared.thread.take()
        }
        wakeup.signal()
        thread?.join()
        shared.withLock { $0.isStopping = false }
        frames.removeAll()
    }

    /// The thread "network".
    private func run() {
        HostThread.surviveBrokenPipes()
        var sleepsUpon = PollSet()
        while true {
            let milliseconds: Int32? = shared.withLock { shared in
                if shared.isStopping { return nil }
                _ = prepare(shared.stack)
                shared.stack.serve()
                let milliseconds = prepare(shared.stack)
                shared.sleepsUpon = shared.stack.polled
                shared.sleepsUntil = UserNetwork.time(in: milliseconds)
                sleepsUpon = shared.sleepsUpon
                return Int32(clamping: milliseconds)
            }
            guard let milliseconds else { return }
            sleepsUpon.append(wakeup.rawValue, .read)
            // Whatever woke us, what there is to do is asked under the lock.
            _ = sleepsUpon.wait(milliseconds: milliseconds)
            if !sleepsUpon.ready(sleepsUpon.count - 1).isEmpty { wakeup.drain() }
        }
    }

    private static func time(in milliseconds: UInt32) -> UInt64 {
        HostClock.monotonicNanoseconds &+ UInt64(milliseconds) &* 1_000_000
    }

    /// What there is to sleep upon, and for how long.
    private func prepare(_ stack: SlirpStack) -> UInt32 {
        stack.withholdsReading = frames.isCrowded()
        return stack.prepare()
    }

    // MARK: Frames

    package func send(_ frame: UnsafeMutableRawBufferPointer) -> Bool {
        let agreed = NetworkOffloads(rawValue: accepted.load(ordering: .relaxed))
        guard let header = unsafe FrameHeader(checking: UnsafeRawBufferPointer(frame), accepted: agreed) else {
            return refuse()
        }
        // libslirp verifies every checksum, so each must be there. Before the frame is looked at: where the
        // checksum goes is the Guest's word, and it may be any field of any header.
        unsafe FrameHeader.completeChecksum(frame, header)
        let bytes = unsafe UnsafeMutableRawBufferPointer(rebasing: frame[FrameHeader.byteCount...])
        let verdict = gate.withLock { unsafe $0.inspect(bytes) }
        let opens: Bool
        let introduces: Bool
        switch verdict {
        case .refused: return refuse()
        case .admitted(let mayOpen): (opens, introduces) = (mayOpen, false)
        case .introduced(let mayOpen): (opens, introduces) = (mayOpen, true)
        }
        if sender.load(ordering: .relaxed) != HostThread.currentIdentity {
            HostThread.surviveBrokenPipes()
            sender.store(HostThread.currentIdentity, ordering: .relaxed)
        }
        enum Outcome { case refused, settled, changed }
        let outcome: Outcome = shared.withLock { shared in
            if opens && shared.stack.sockets.count >= socketLimit { return .refused }
            let packet = UnsafeRawBufferPointer(bytes)
            if introduces { unsafe shared.stack.introduceSender(of: packet) }
            unsafe shared.stack.input(packet)
            return settle(&shared) ? .settled : .changed
        }
        if outcome == .refused { return refuse() }
        if outcome == .changed { wakeup.signal() }
        counters.send(bytes.count)
        return true
    }

    private func refuse() -> Bool {
        counters.refuse()
        return false
    }

    /// Does what a frame has made possible.
    ///
    /// - Returns: false if "network" sleeps upon something else than it should.
    private func settle(_ shared: inout Shared) -> Bool {
        guard shared.thread != nil else { return true }
        _ = prepare(shared.stack)
        if !shared.stack.polled.awaitsSame(as: shared.sleepsUpon) { shared.stack.serve() }
        let milliseconds = prepare(shared.stack)
        // A millisecond is what its clock can tell apart.
        return shared.stack.polled.awaitsSame(as: shared.sleepsUpon)
            && UserNetwork.time(in: milliseconds) &+ 1_000_000 >= shared.sleepsUntil
    }

    package func receive(into buffer: UnsafeMutableRawBufferPointer) -> Int? {
        guard let (count, relieves) = unsafe frames.take(into: buffer) else { return nil }
        if relieves { wakeup.signal() }
        counters.receive(count - FrameHeader.byteCount)
        return count
    }

    package var statistics: NetworkStatistics {
        var statistics = counters.statistics(droppedFrames: frames.droppedFrames)
        statistics.refusedFrames &+= shared.withLock { $0.stack.guestErrors }
        return statistics
    }
}
//:
