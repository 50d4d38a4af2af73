//L:360 What gets past the door
//
// libslirp is a TCP/IP stack in C that grew up with one user at a modem, and a
// Guest may send it anything. What it has been caught with over the years were
// frames that no sane machine sends: lengths that disagree, fragments that
// overlap, urgent data beyond the data, protocols that nobody had looked at for
// decades. So a door stands before it, and behind the door a frame has these
// properties:
//
// - it is ARP, or TCP, UDP or ICMP in IPv4 or IPv6, whole: no fragments, no
//   options, and each length within the one around it;
// - it comes from an address of the Guest's network (of rule 17 in virtio's list
//   of ways to be attacked, the part about sources), whose card we have told
//   libslirp: else it would keep what it has to say to that address for a second
//   in the hope of an answer to ARP, and a Guest that asks under many names could
//   fill the host's memory;
// - it is not urgent: libslirp believes the urgent pointer, and would send as
//   many bytes of our memory as the Guest says. Without the mark the same bytes
//   arrive in line, which is where RFC 6093 wants them;
// - it does not ask for TFTP, which is off, nor for pings to IPv6 addresses
//   outside, of which libslirp complains to our standard error, each time.
//
// A Linux guest does not notice the door. Its datagrams are fragments only if
// they are larger than the MTU, and that is 65,520.

/// What a frame from the Guest is, as far as libslirp may know.
struct FrameGate {
    enum Verdict: Equatable {
        case refused
        /// - Parameter opens: it may cost the host a socket.
        case admitted(opens: Bool)
        /// The same, from an address that was not seen right before.
        case introduced(opens: Bool)
    }

    let hasIPv6: Bool
    /// Who spoke last: address and card.
    private var speaker4: (address: UInt32, card: UInt64) = (0, 0)
    private var speaker6: (high: UInt64, low: UInt64, card: UInt64) = (0, 0, 0)

    init(hasIPv6: Bool) { self.hasIPv6 = hasIPv6 }

    /// Looks at a frame without its header, and as it will be sent. Where it is marked urgent, the mark goes.
    mutating func inspect(_ bytes: UnsafeMutableRawBufferPointer) -> Verdict {
        let frame = unsafe FrameBytes(bytes)
        // The sender is one card, not a group.
        guard frame.count >= 34, frame.byte(6) & 1 == 0 else { return .refused }
        switch frame.half(12) {
        case 0x0806:
            // Ethernet and IPv4, of 6 and 4 bytes.
            let isPlain = frame.count >= 42 && frame.word(14) == 0x0001_0800 && frame.half(18) == 0x0604
            return isPlain && isGuest(frame.word(28), orNobody: true) ? .admitted(opens: false) : .refused
        case 0x0800: return inspect4(frame)
        case 0x86dd: return hasIPv6 ? inspect6(frame) : .refused
        default: return .refused
        }
    }

    // MARK: IPv4

    /// 10.0.2.0/24 but for the router, the name server and the broadcast addresses.
    private func isGuest(_ address: UInt32, orNobody: Bool) -> Bool {
        if address == 0 { return orNobody }
        return address >> 8 == UserNetwork.network.rawValue >> 8 && ![0, 2, 3, 255].contains(address & 0xff)
    }

    private mutating func inspect4(_ frame: FrameBytes) -> Verdict {
        let length = Int(frame.half(16))
        let isFragment = frame.half(20) & 0x3fff != 0
        guard frame.byte(14) == 0x45, length >= 20, length <= frame.count - 14, !isFragment else { return .refused }
        let source = frame.word(26)
        let destination = frame.word(30)
        let payload = length - 20
        let isToHost = destination == UserNetwork.host.rawValue
        let opens: Bool
        switch frame.byte(23) {
        case 6:
            guard admitTCP(frame, at: 34, payload) else { return .refused }
            opens = frame.byte(47) & 0x12 == 0x02
        case 17:
            guard admitUDP(frame, at: 34, payload), !(isToHost && frame.half(36) == 69) else { return .refused }
            opens = frame.half(36) != 67
        case 1:
            guard payload >= 8 else { return .refused }
            opens = !isToHost
        default: return .refused
        }
        // Only who asks for an address may have none.
        guard isGuest(source, orNobody: frame.byte(23) == 17 && frame.half(36) == 67) else { return .refused }
        if source == 0 || speaker4 == (source, frame.card) { return .admitted(opens: opens) }
        speaker4 = (source, frame.card)
        return .introduced(opens: opens)
    }

    // MARK: IPv6

    private mutating func inspect6(_ frame: FrameBytes) -> Verdict {
        let payload = Int(frame.half(18))
        guard frame.count >= 54, frame.byte(14) >> 4 == 6, payload <= frame.count - 54 else { return .refused }
        let source = (high: frame.long(22), low: frame.long(30))
        let destination = (high: frame.long(38), low: frame.long(46))
        let isLocal = source.high == 0xfe80 << 48
        let isSite = source.high == UserNetwork.prefix6
        let isHost = destination.low == 2 || destination.low == 3
        let isToHost = isHost && (destination.high == UserNetwork.prefix6 || destination.high == 0xfe80 << 48)
        let isNobody = source == (0, 0)
        guard isLocal || isSite || isNobody, source.low != 2, source.low != 3 else { return .refused }
        let opens: Bool
        switch frame.byte(20) {
        case 6:
            guard !isNobody, admitTCP(frame, at: 54, payload) else { return .refused }
            opens = frame.byte(67) & 0x12 == 0x02
        case 17:
            guard !isNobody, admitUDP(frame, at: 54, payload), !(isToHost && frame.half(56) == 69) else {
                return .refused
            }
            opens = frame.half(56) != 547
        case 58:
            guard payload >= 8 else { return .refused }
            // Neighbours are asked for and told of with a whole address; only routers advertise and redirect.
            switch frame.byte(54) {
            case 128: guard isToHost, !isNobody else { return .refused }
            case 133: break
            case 135, 136: guard payload >= 24 else { return .refused }
            default: return .refused
            }
            opens = false
        default: return .refused
        }
        if isNobody || speaker6 == (source.high, source.low, frame.card) { return .admitted(opens: opens) }
        speaker6 = (source.high, source.low, frame.card)
        return .introduced(opens: opens)
    }

    // MARK: Both

    private func admitUDP(_ frame: FrameBytes, at start: Int, _ payload: Int) -> Bool {
        payload >= 8 && (8...payload).contains(Int(frame.half(start + 4)))
    }

    private func admitTCP(_ frame: FrameBytes, at start: Int, _ payload: Int) -> Bool {
        guard payload >= 20, (20...payload).contains(Int(frame.byte(start + 12) >> 4) * 4) else { return false }
        if frame.byte(start + 13) & 0x20 != 0 {
            let old = frame.half(start + 12)
            frame.setHalf(start + 12, old & ~0x20)
            let checksum = InternetChecksum.adjust(frame.half(start + 16), from: old, to: old & ~0x20)
            frame.setHalf(start + 16, checksum)
        }
        return true
    }
}
//:

//M:300 What a network can be made to hold
//
// Two limits of the user network, for those who run Guests that mean harm, or
// protocols from before TCP:
//
// - libslirp keeps what comes out of order until the gap is closed: up to a
//   window of 64 KiB for each connection, in buffers of some 8 KiB a segment
//   however short that is. Connections are bounded (`UserNetwork.socketLimit`),
//   memory is by that product, and that is more than one would like.
// - A datagram in fragments is refused at the door. With an MTU of 65520 Linux
//   makes none; a Guest that sets a smaller one loses what is larger.
//
// A reassembler of bounded size in front of libslirp would end both.
//:
