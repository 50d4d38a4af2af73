public import GuestKit

//G:120 As much of the Internet as a page of text needs
//
// Somebody connects, asks, gets a page and hangs up. For that one has to
// answer "who has 10.0.2.15?" (ARP), may answer a ping (ICMP), and has to do
// TCP from its passive end. What is left out: asking others for their address
// (an answer goes to where the question came from), fragments, options,
// connections of our own.
//
// A frame from outside may be cut off anywhere and claim anything. Region
// would trap at the first byte beyond the end, and a program that a datagram
// can end is no server; so every length is compared before it is believed,
// and what does not fit is dropped, which on networks is always allowed.

/// A host with one address on one card: answers ARP and ICMP echo by itself.
public struct IPv4Host: ~Copyable {
    static let headerBytes = 20
    static let ethernetBytes = 14
    private static let contentBytes = Network.frameBytes - ethernetBytes - headerBytes

    private enum EtherType {
        static let ipv4: UInt16 = 0x0800
        static let arp: UInt16 = 0x0806
    }

    private enum IPProtocol {
        static let icmp: UInt8 = 1
        static let tcp: UInt8 = 6
    }

    /// A packet for TCP: its bytes, and who sent it.
    struct Packet {
        let bytes: Region
        let source: Peer
    }

    /// Where to send an answer.
    struct Peer {
        var address = IPv4Address(value: 0)
        var ethernet = EthernetAddress.broadcast
    }

    var network: Network
    let address: IPv4Address
    private let mac: EthernetAddress
    private var identification: UInt16 = 0

    /// Says on the network that it is there.
    public init(_ network: consuming Network, address: IPv4Address) {
        mac = EthernetAddress(network.mac)
        self.network = network
        self.address = address
        sendARP(1, to: Peer(address: address))
    }

    /// Looks at a frame. Returns a TCP packet for us, if it is one; anything else is dealt with or dropped.
    mutating func take(_ frame: Region) -> Packet? {
        guard frame.count >= IPv4Host.ethernetBytes else { return nil }
        let content = frame.part(IPv4Host.ethernetBytes, frame.count - IPv4Host.ethernetBytes)
        let sender = EthernetAddress(frame.part(6, 6))
        switch frame.big16(12) {
        case EtherType.arp: answerARP(content)
        case EtherType.ipv4: return takeIPv4(content, from: sender)
        default: break
        }
        return nil
    }

    private mutating func takeIPv4(_ packet: Region, from sender: EthernetAddress) -> Packet? {
        guard packet.count >= IPv4Host.headerBytes, packet[0] >> 4 == 4 else { return nil }
        let headerBytes = Int(packet[0] & 15) * 4
        let length = Int(packet.big16(2))
        guard headerBytes >= IPv4Host.headerBytes, length >= headerBytes, length <= packet.count,
            packet.prefix(headerBytes).checksum() == 0, packet.big16(6) & 0x3fff == 0,
            packet.big32(16) == address.value
        else { return nil }
        let content = packet.part(headerBytes, length - headerBytes)
        let source = Peer(address: IPv4Address(value: packet.big32(12)), ethernet: sender)
        switch packet[9] {
        case IPProtocol.icmp: answerEcho(content, to: source)
        case IPProtocol.tcp: return Packet(bytes: content, source: source)
        default: break
        }
        return nil
    }

    private mutating func answerARP(_ request: Region) {
        guard request.count >= 28, request.big32(0) == 0x0001_0800, request.big32(4) == 0x0604_0001,
            request.big32(24) == address.value
        else { return }
        sendARP(
            2, to: Peer(address: IPv4Address(value: request.big32(14)), ethernet: EthernetAddress(request.part(8, 6))))
    }

    /// 1 asks, 2 answers. A question for oneself is how one says hello.
    private mutating func sendARP(_ operation: UInt16, to peer: Peer) {
        guard let frame = frame(to: peer, EtherType.arp) else { return }
        let packet = frame.bytes.part(IPv4Host.ethernetBytes, 28)
        packet.storeBig(0x0001_0800 as UInt32, at: 0)
        packet.storeBig(0x0604 as UInt16, at: 4)
        packet.storeBig(operation, at: 6)
        mac.store(in: packet, at: 8)
        packet.storeBig(address.value, at: 14)
        peer.ethernet.store(in: packet, at: 18)
        packet.storeBig(peer.address.value, at: 24)
        network.send(frame, IPv4Host.ethernetBytes + packet.count)
    }

    private mutating func answerEcho(_ request: Region, to peer: Peer) {
        guard request.count >= 8, request.big16(0) == 0x0800, request.checksum() == 0 else { return }
        guard request.count <= IPv4Host.contentBytes, let (frame, answer) = packet(to: peer) else { return }
        let length = answer.copy(from: request)
        answer.store(0 as UInt32, at: 0)
        answer.storeBig(answer.prefix(length).checksum(), at: 2)
        send(frame, length, IPProtocol.icmp)
    }

    /// A frame to fill and to give to `sendTCP`, and the part of it that is the
    /// packet's content. Nil: all are on their way.
    mutating func packet(to peer: Peer) -> (Network.Frame, Region)? {
        guard let frame = frame(to: peer, EtherType.ipv4) else { return nil }
        frame.bytes.storeBig(peer.address.value, at: IPv4Host.ethernetBytes + 16)
        return (frame, frame.bytes.part(IPv4Host.ethernetBytes + IPv4Host.headerBytes, IPv4Host.contentBytes))
    }

    mutating func sendTCP(_ frame: Network.Frame, _ length: Int) { send(frame, length, IPProtocol.tcp) }

    /// What TCP's checksum counts besides the segment.
    func pseudoHeaderSum(_ peer: IPv4Address, _ length: Int) -> UInt32 {
        (address.value >> 16) + (address.value & 0xffff) + (peer.value >> 16) + (peer.value & 0xffff)
            + UInt32(IPProtocol.tcp) + UInt32(length)
    }

    private mutating func send(_ frame: Network.Frame, _ length: Int, _ kind: UInt8) {
        let header = frame.bytes.part(IPv4Host.ethernetBytes, IPv4Host.headerBytes)
        header.storeBig(0x4500 as UInt16, at: 0)
        header.storeBig(UInt16(IPv4Host.headerBytes + length), at: 2)
        header.storeBig(identification, at: 4)
        header.storeBig(0x4000 as UInt16, at: 6)  // Not to be cut up.
        header[8] = 64
        header[9] = kind
        header.storeBig(0 as UInt16, at: 10)
        header.storeBig(address.value, at: 12)
        header.storeBig(header.checksum(), at: 10)
        identification &+= 1
        network.send(frame, IPv4Host.ethernetBytes + header.count + length)
    }

    private mutating func frame(to peer: Peer, _ type: UInt16) -> Network.Frame? {
        guard let frame = network.frame() else { return nil }
        peer.ethernet.store(in: frame.bytes, at: 0)
        mac.store(in: frame.bytes, at: 6)
        frame.bytes.storeBig(type, at: 12)
        return frame
    }
}
//:
