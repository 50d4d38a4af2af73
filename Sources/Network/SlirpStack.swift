internal import CSlirp
internal import HostInterface
internal import Synchronization

/// libslirp, and what it needs of its surroundings: a clock, timers, and somebody
/// to poll its sockets. Not for two threads at a time: whoever uses it holds the lock
/// of the network that it belongs to.
///
/// Networks share what libslirp keeps once per process: the time of its last look at
/// the clock, and the name servers that it found in /etc/resolv.conf. So each call
/// into it is made under a second lock, which all of them share and which nobody
/// holds while he waits.
@safe final class SlirpStack: @unchecked Sendable {
    /// Held during calls into libslirp; the inner lock of the two. What libslirp
    /// calls back must not come here again.
    private static let library = Mutex<Void>(())

    /// Takes a frame for the Guest.
    private let deliver: (UnsafeRawBufferPointer) -> Void
    // SAFETY: made in init, freed in deinit; libslirp calls back only from within
    // calls that we make, and there with `self` as its opaque pointer.
    private var slirp: OpaquePointer?
    private let callbacks = UnsafeMutablePointer<SlirpCb>.allocate(capacity: 1)

    /// What to sleep upon, as of the last `prepare`, and what libslirp wants to know of each.
    private(set) var polled = PollSet()
    private var asked: [Int32] = []
    /// While true, sockets are not read: their data waits in the host's kernel.
    var withholdsReading = false

    /// When libslirp's timers ring, in its milliseconds; it has one.
    private var timers: [Timer] = []
    @safe private final class Timer {
        let kind: SlirpTimerId
        let argument: UnsafeMutableRawPointer?
        var milliseconds: Int64?
        init(_ kind: SlirpTimerId, _ argument: UnsafeMutableRawPointer?) {
            self.kind = kind
            unsafe self.argument = argument
        }
    }

    /// The largest IP packet that it makes or takes.
    let largestPacket: Int

    /// Its sockets, but for those that listen.
    private(set) var sockets: Set<Int32> = []
    /// Complaints about the Guest.
    private(set) var guestErrors: UInt64 = 0

    private static func stack(_ opaque: UnsafeMutableRawPointer?) -> SlirpStack {
        guard let opaque = unsafe opaque else { preconditionFailure("libslirp has lost its opaque pointer") }
        return unsafe Unmanaged<SlirpStack>.fromOpaque(opaque).takeUnretainedValue()
    }

    init(
        largestPacket: Int, hasIPv6: Bool, deliver: @escaping (UnsafeRawBufferPointer) -> Void
    ) throws(HostError) {
        self.largestPacket = largestPacket
        unsafe self.deliver = unsafe deliver
        var table = SlirpCb()
        unsafe table.send_packet = { frame, count, opaque in
            unsafe SlirpStack.stack(opaque).deliver(UnsafeRawBufferPointer(start: frame, count: count))
            return count
        }
        unsafe table.guest_error = { _, opaque in unsafe SlirpStack.stack(opaque).guestErrors &+= 1 }
        unsafe table.clock_get_ns = { _ in Int64(HostClock.monotonicNanoseconds) }
        unsafe table.timer_new_opaque = { kind, argument, opaque in
            let timer = unsafe Timer(kind, argument)
            unsafe SlirpStack.stack(opaque).timers.append(timer)
            return unsafe Unmanaged.passUnretained(timer).toOpaque()
        }
        unsafe table.timer_free = { timer, opaque in
            unsafe SlirpStack.stack(opaque).timers.removeAll { unsafe Unmanaged.passUnretained($0).toOpaque() == timer }
        }
        unsafe table.timer_mod = { timer, time, _ in
            guard let timer = unsafe timer else { return }
            unsafe Unmanaged<Timer>.fromOpaque(timer).takeUnretainedValue().milliseconds = time
        }
        unsafe table.register_poll_fd = { socket, opaque in
            if socket >= 0 { unsafe SlirpStack.stack(opaque).sockets.insert(socket) }
        }
        unsafe table.unregister_poll_fd = { socket, opaque in unsafe SlirpStack.stack(opaque).sockets.remove(socket) }
        // Who calls into libslirp asks afterwards what has changed.
        unsafe table.notify = { _ in }
        unsafe callbacks.initialize(to: table)

        var config = unsafe SlirpConfig()
        unsafe config.version = 4
        unsafe config.in_enabled = true
        unsafe config.vnetwork = SlirpStack.address(UserNetwork.network)
        unsafe config.vnetmask = SlirpStack.address(IPv4Address(255, 255, 255, 0))
        unsafe config.vhost = SlirpStack.address(UserNetwork.host)
        unsafe config.vdhcp_start = SlirpStack.address(UserNetwork.guest)
        unsafe config.vnameserver = SlirpStack.address(UserNetwork.nameServer)
        unsafe config.in6_enabled = hasIPv6
        unsafe config.vprefix_addr6 = SlirpStack.address6(0)
        unsafe config.vprefix_len = 64
        unsafe config.vhost6 = SlirpStack.address6(2)
        unsafe config.vnameserver6 = SlirpStack.address6(3)
        unsafe config.if_mtu = largestPacket
        unsafe config.if_mru = largestPacket
        // Nil stands for no TFTP, no boot file, no name for the Guest; and
        // `enable_emu`, by which libslirp would rewrite some protocols' data, stays off.
        SlirpStack.library.withLock { _ in
            unsafe slirp = slirp_new(&config, callbacks, Unmanaged.passUnretained(self).toOpaque())
        }
        guard unsafe slirp != nil else { throw HostError("cannot create the user network") }
    }

    deinit {
        close()
        unsafe callbacks.deinitialize(count: 1)
        unsafe callbacks.deallocate()
    }

    /// Ends all connections and forwards. What is asked of it later has no effect.
    func close() {
        if let slirp = unsafe slirp { SlirpStack.library.withLock { _ in unsafe slirp_cleanup(slirp) } }
        unsafe slirp = nil
        polled.removeAll()
    }

    private static func address(_ address: IPv4Address) -> in_addr { in_addr(s_addr: address.rawValue.bigEndian) }

    /// In the network's prefix.
    private static func address6(_ low: UInt64) -> in6_addr {
        var address = in6_addr()
        unsafe withUnsafeMutableBytes(of: &address) { bytes in
            unsafe bytes.storeBytes(of: UserNetwork.prefix6.bigEndian, as: UInt64.self)
            unsafe bytes.storeBytes(of: low.bigEndian, toByteOffset: 8, as: UInt64.self)
        }
        return address
    }

    func add(_ forward: PortForward) throws(HostError) {
        let error: Errno? = SlirpStack.library.withLock { _ in
            let result = unsafe slirp_add_hostfwd(
                slirp, forward.transport == .udp ? 1 : 0, SlirpStack.address(forward.hostAddress),
                Int32(forward.hostPort), SlirpStack.address(UserNetwork.guest), Int32(forward.guestPort))
            return result == 0 ? nil : .current
        }
        if let error {
            let port = forward.hostPort
            throw HostError(
                "cannot forward port \(port)", errno: error,
                advice: port < 1024 && error == .accessDenied
                    ? "ports below 1024 are root's; use one above, as in forward=\(port + 8000):\(forward.guestPort)"
                    : "choose another port of this machine, as in forward=PORT:\(forward.guestPort)")
        }
    }

    /// Lets as many wait to be accepted as the host allows; libslirp has asked for one.
    func raiseBacklogs() {
        _ = prepare()
        for index in 0..<polled.count { Sockets.raiseBacklog(polled.descriptor(index)) }
    }

    /// A frame from the Guest, without virtio's header.
    func input(_ frame: UnsafeRawBufferPointer) {
        guard let slirp = unsafe slirp else { return }
        SlirpStack.library.withLock { _ in
            unsafe slirp_input(slirp, frame.baseAddress?.assumingMemoryBound(to: UInt8.self), Int32(frame.count))
        }
    }

    /// Tells whose card the sender's address is on, so that answers can leave at once.
    func introduceSender(of frame: UnsafeRawBufferPointer) {
        let isIPv4 = unsafe frame[12] == 0x08
        let introduction = unsafe isIPv4 ? Introduction.arp(from: frame) : Introduction.neighbour(from: frame)
        unsafe introduction.withUnsafeBytes { unsafe input($0) }
    }

    /// Asks what to sleep upon, and puts it into `polled`.
    ///
    /// - Returns: for how long, in milliseconds.
    func prepare() -> UInt32 {
        polled.removeAll()
        asked.removeAll(keepingCapacity: true)
        var timeout: UInt32 = 1000
        guard let slirp = unsafe slirp else { return timeout }
        SlirpStack.library.withLock { _ in
            unsafe slirp_pollfds_fill(
                slirp, &timeout, { socket, events, opaque in unsafe SlirpStack.stack(opaque).await(socket, events) },
                Unmanaged.passUnretained(self).toOpaque())
        }
        let now = Int64(HostClock.monotonicNanoseconds / 1_000_000)
        for timer in timers {
            if let time = timer.milliseconds { timeout = min(timeout, UInt32(clamping: time - now)) }
        }
        return timeout
    }

    private static let input = Int32(SLIRP_POLL_IN)
    private static let output = Int32(SLIRP_POLL_OUT)
    private static let urgent = Int32(SLIRP_POLL_PRI)
    private static let error = Int32(SLIRP_POLL_ERR)
    private static let hangUp = Int32(SLIRP_POLL_HUP)

    private func await(_ socket: Int32, _ events: Int32) -> Int32 {
        let wanted = withholdsReading ? events & SlirpStack.output : events
        var interest: PollSet.Events = []
        if wanted & SlirpStack.input != 0 { interest.insert(.read) }
        if wanted & SlirpStack.urgent != 0 { interest.insert(.urgent) }
        if wanted & SlirpStack.output != 0 { interest.insert(.write) }
        // poll(2) reports errors of everybody; of whom we want nothing we must hear nothing.
        polled.append(wanted == 0 ? -1 : socket, interest)
        asked.append(wanted)
        return Int32(polled.count - 1)
    }

    /// Looks at the sockets, without waiting, and does what there is to do.
    func serve() {
        guard let slirp = unsafe slirp else { return }
        let works = polled.wait(milliseconds: 0)
        SlirpStack.library.withLock { _ in
            unsafe slirp_pollfds_poll(
                slirp, works ? 0 : 1, { index, opaque in unsafe SlirpStack.stack(opaque).found(Int(index)) },
                Unmanaged.passUnretained(self).toOpaque())
        }
        let now = Int64(HostClock.monotonicNanoseconds / 1_000_000)
        for timer in timers {
            guard let time = timer.milliseconds, time <= now else { continue }
            timer.milliseconds = nil
            SlirpStack.library.withLock { _ in unsafe slirp_handle_timer(slirp, timer.kind, timer.argument) }
        }
    }

    private func found(_ index: Int) -> Int32 {
        guard asked.indices.contains(index) else { return 0 }
        let ready = polled.ready(index)
        if asked[index] & SlirpStack.input == 0 {
            // libslirp reads a socket that has an error even if it has no room to
            // read into, and then ends the process (an assertion in soread). Who
            // wants to write will learn of the error by writing.
            return ready.isEmpty ? 0 : asked[index] & SlirpStack.output
        }
        var events: Int32 = 0
        if ready.contains(.read) { events |= SlirpStack.input }
        if ready.contains(.urgent) { events |= SlirpStack.urgent }
        if ready.contains(.write) { events |= SlirpStack.output }
        if !ready.isDisjoint(with: .error) { events |= SlirpStack.error }
        if ready.contains(.hangUp) { events |= SlirpStack.hangUp }
        return events
    }
}
