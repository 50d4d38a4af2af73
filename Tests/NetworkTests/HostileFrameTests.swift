import HostInterface
import Network
import Testing

/// Frames that no sane Guest sends.
struct HostileFrameTests {
    @Test(
        arguments: [
            ("nothing", []),
            ("half an Ethernet header", [UInt8](repeating: 1, count: 13)),
            ("an ARP cut short", Array(Packets.arpRequest(for: UserNetwork.host).prefix(41))),
            ("a fragment", Packets.ipv4(17, [UInt8](repeating: 0, count: 64), fragment: 0x2000)),
            ("the rest of a fragment", Packets.ipv4(17, [UInt8](repeating: 0, count: 64), fragment: 0x1fff)),
            ("somebody else's address", Packets.ping(8, from: IPv4Address(10, 0, 3, 15))),
            ("the router's address", Packets.ping(8, from: UserNetwork.host)),
            ("no address", Packets.ping(8, from: IPv4Address(0, 0, 0, 0))),
            ("half a UDP header", Packets.ipv4(17, [0, 1, 0, 2])),
            ("UDP longer than its packet", Packets.ipv4(17, [0, 1, 0, 2, 0xff, 0xff, 0, 0])),
            ("UDP shorter than its header", Packets.ipv4(17, [0, 1, 0, 2, 0, 7, 0, 0])),
            ("half a TCP header", Packets.ipv4(6, [UInt8](repeating: 0, count: 19))),
            ("TCP options behind the packet", Packets.ipv4(6, [UInt8](repeating: 0xf0, count: 20))),
            ("TFTP", Packets.udp(5000, 69, [0, 1, 65, 0])),
            ("IGMP", Packets.ipv4(2, [UInt8](repeating: 0, count: 8))),
            ("NC-SI", Packets.ethernet(0x88f8, [UInt8](repeating: 0, count: 64))),
            (
                "a group's address as the sender",
                Packets.router + Packets.broadcast + [8, 0] + [UInt8](repeating: 0x45, count: 40)
            ),
            (
                "a ping to an IPv6 address outside",
                Packets.icmp6(
                    [128, 0, 0, 0, 0, 0, 0, 0], from: Packets.address6(0xfec0, 0x15), to: Packets.address6(0x2001, 1))
            ),
            (
                "a router's advertisement",
                Packets.icmp6(
                    [134, 0, 0, 0] + [UInt8](repeating: 0, count: 12), from: Packets.address6(0xfe80, 0x15),
                    to: Packets.address6(0xff02, 1))
            ),
        ] as [(String, [UInt8])])
    func refuses(_ what: String, _ frame: [UInt8]) throws {
        let guest = try TestGuest()
        #expect(!guest.send(frame), "\(what)")
        #expect(guest.network.statistics.refusedFrames == 1)
        #expect(guest.receive(milliseconds: 0) == nil)
    }

    /// Once it went past the door: the frame was looked at, and then the checksum was put where the Guest said.
    @Test(arguments: [14, 16, 20, 26]) func refusesWhatAChecksumMakesOfAHeader(_ place: Int) throws {
        let guest = try TestGuest()
        // Options, another length, a fragment, another sender.
        for byte in 1..<UInt8(20) {
            let frame = Packets.udp(5000, 5001, [byte, 2, 3, 4])
            #expect(guest.send(frame), "as it is, it may pass")
            var header = FrameHeader()
            header.flags = .needsChecksum
            header.checksumStart = 14
            header.checksumOffset = UInt16(place - 14)
            #expect(!guest.send(frame, header), "\(place)")
        }
    }

    @Test func deliversUrgentDataInLine() throws {
        let guest = try TestGuest()
        let server = HostSocket.bound(.stream)
        let connection = try #require(TestConnection(guest, to: server.port))
        let peer = server.accept()
        // With a checksum, and an urgent pointer far behind the data.
        guest.send(
            Packets.tcp(
                connection.source, connection.port, sequence: connection.sequence, acknowledge: connection.acknowledge,
                [.ack, .push, .urgent], [7, 8, 9], urgent: 2000))
        #expect(peer.receive(exactly: 3) == [7, 8, 9])
        peer.abort()
        #expect(guest.network.statistics.refusedFrames == 0)
    }

    @Test func survivesNoise() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("seed \(seed)")
        var noise = Noise(seed: seed)
        let guest = try TestGuest()
        let server = HostSocket.bound(.stream)
        let connection = try #require(TestConnection(guest, to: server.port))
        let nobody = Packets.address6(0xfe80, 0x15)
        let router = Packets.address6(0xfec0, 2)
        for round in 0..<100_000 {
            let payload = noise.bytes(Int.random(in: 0..<80, using: &noise))
            var frame: [UInt8]
            switch Int.random(in: 0..<10, using: &noise) {
            case 0: frame = payload
            case 1: frame = Packets.ethernet(0x0806, payload)
            case 2: frame = Packets.arpRequest(for: UserNetwork.host)
            case 3: frame = Packets.ipv4(UInt8.random(in: 0...20, using: &noise), payload)
            // The host's discard port, and the services of libslirp itself.
            case 4: frame = Packets.udp(68, [9, 67, 69, 53].randomElement(using: &noise)!, payload)
            case 5: frame = Packets.ping(payload.count)
            case 6:
                // In the window of a connection that is there, with any flags and options.
                let options = noise.bytes(4 * Int.random(in: 0...10, using: &noise))
                frame = Packets.tcp(
                    connection.source, connection.port,
                    sequence: connection.sequence &+ UInt32.random(in: 0..<100, using: &noise),
                    acknowledge: connection.acknowledge,
                    Packets.TCPFlags(rawValue: UInt8.random(in: 0...255, using: &noise) & ~5), payload,
                    options: options, window: Int.random(in: 0...65_535, using: &noise),
                    urgent: Int.random(in: 0...65_535, using: &noise))
            case 7:
                frame = Packets.icmp6(
                    [133, 135, 136, 128].randomElement(using: &noise).map { [$0, 0, 0, 0] }! + payload, from: nobody,
                    to: router)
            case 8:
                frame = Packets.ipv6(
                    [6, 17, 58, 0, 44].randomElement(using: &noise)!, payload, from: nobody, to: router)
            default:
                frame = Packets.udp(546, 547, payload)
                frame = Packets.ipv6(17, Array(frame[34...]), from: nobody, to: Packets.address6(0xff02, 2))
            }
            // Half of them with some bits wrong.
            if round & 1 == 0, !frame.isEmpty {
                for _ in 0..<Int.random(in: 0..<4, using: &noise) {
                    frame[Int.random(in: 0..<frame.count, using: &noise)] = UInt8.random(in: 0...255, using: &noise)
                }
            }
            var header = FrameHeader()
            if Int.random(in: 0..<4, using: &noise) == 0 {
                header.flags = .needsChecksum
                header.checksumStart = UInt16.random(in: 14..<60, using: &noise)
                header.checksumOffset = UInt16.random(in: 0..<20, using: &noise)
            }
            guest.send(frame, header)
            if round & 0xff == 0 { while guest.receive(milliseconds: 0) != nil {} }
        }
        while guest.receive(milliseconds: 0) != nil {}
        guest.send(Packets.ping(56))
        #expect(guest.receive { $0.count == 98 && $0[23] == 1 && $0[34] == 0 } != nil)
        #expect(guest.network.statistics.refusedFrames > 0)
    }
}
