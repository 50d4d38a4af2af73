import Glibc
import HostInterface
import Network
import Testing

struct UserNetworkTests {
    @Test func answersForItsRouterAndNameServer() throws {
        let guest = try TestGuest()
        for address in [UserNetwork.host, UserNetwork.nameServer] {
            guest.send(Packets.arpRequest(for: address))
            let reply = try #require(guest.receive { Packets.half($0, 12) == 0x0806 && Packets.half($0, 20) == 2 })
            #expect(
                Array(reply[22..<32]) == [0x52, 0x55] + Packets.word(address.rawValue) + Packets.word(address.rawValue))
        }
        // The checksums of what it sends are known to be right: the driver has accepted to be told so.
        #expect(guest.lastHeader == [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0])
    }

    @Test func givesTheGuestItsAddress() throws {
        let guest = try TestGuest()
        var request: [UInt8] = [1, 1, 6, 0, 1, 2, 3, 4] + [UInt8](repeating: 0, count: 20) + Packets.card
        request += [UInt8](repeating: 0, count: 10 + 64 + 128) + [0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255]
        request += [UInt8](repeating: 0, count: 60)
        guest.send(
            Packets.udp(68, 67, request, from: IPv4Address(0, 0, 0, 0), to: IPv4Address(255, 255, 255, 255)))
        let offer = try #require(guest.receive { Packets.half($0, 12) == 0x0800 && Packets.half($0, 36) == 68 })
        let bootp = Array(offer[42...])
        #expect(Packets.word(bootp, 16) == UserNetwork.guest.rawValue)
        var options: [UInt8: [UInt8]] = [:]
        var index = 240
        while index + 1 < bootp.count, bootp[index] != 255 {
            options[bootp[index]] = Array(bootp[(index + 2)...].prefix(Int(bootp[index + 1])))
            index += 2 + Int(bootp[index + 1])
        }
        #expect(options[53] == [2])
        #expect(options[1] == [255, 255, 255, 0])
        #expect(options[3] == Packets.word(UserNetwork.host.rawValue))
        #expect(options[6] == Packets.word(UserNetwork.nameServer.rawValue))
    }

    @Test func advertisesItsRouterInIPv6() throws {
        try #require(Sockets.hasIPv6, "no IPv6 on this host")
        let guest = try TestGuest()
        let source = Packets.address6(0xfe80, 0x15)
        guest.send(Packets.icmp6([133, 0, 0, 0, 0, 0, 0, 0], from: source, to: Packets.address6(0xff02, 2)))
        let advertisement = try #require(guest.receive { Packets.half($0, 12) == 0x86dd && $0[54] == 134 })
        let prefix = Packets.address6(0xfec0, 0)
        #expect((54...advertisement.count - 16).contains { Array(advertisement[$0..<$0 + 16]) == prefix })
        // And answers pings without asking whose card the address is on.
        let another = Packets.address6(0xfec0, 0x77)
        guest.send(
            Packets.icmp6([128, 0, 0, 0, 0, 1, 0, 1] + [1, 2, 3], from: another, to: Packets.address6(0xfec0, 2)))
        let pong = try #require(guest.receive { Packets.half($0, 12) == 0x86dd && $0[54] == 129 })
        #expect(Array(pong[38..<54]) == another && Array(pong[0..<6]) == Packets.card)
    }

    @Test func carriesUDPToTheHostAndBack() throws {
        let guest = try TestGuest()
        let server = HostSocket.bound(.datagram)
        // Small, and larger than any Ethernet carries.
        for count in [1, 9000, 60_000] {
            let data = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7) }
            guest.send(Packets.udp(5000, server.port, data))
            #expect(server.echo() == data)
            let answer = try #require(guest.receive { Packets.half($0, 12) == 0x0800 && $0[23] == 17 })
            #expect(Array(answer[42...]) == data && Packets.half(answer, 36) == 5000)
        }
    }

    @Test func carriesTCPBothWaysInLargeFrames() throws {
        let guest = try TestGuest()
        let server = HostSocket.bound(.stream)
        let connection = try #require(TestConnection(guest, to: server.port))
        let peer = server.accept()
        var noise = Noise(seed: 1)
        let up = noise.bytes(300_000)
        let reader = Reader(peer, up.count)
        connection.send(up, segment: 60_000)
        #expect(try reader.wait() == up)

        let down = noise.bytes(300_000)
        let writer = try Writer(peer, down)
        while connection.received.count < down.count, connection.step() {}
        writer.wait()
        #expect(connection.received == down)
        // libslirp's own limit.
        #expect(connection.largestSegment == 32_768)
        #expect(guest.network.statistics.droppedFrames == 0)
        #expect(guest.network.statistics.refusedFrames == 0)
    }

    @Test(
        arguments: [
            // libslirp always leaves room for IPv6's header.
            ([], 1500, 1440), ([.guestChecksum], 1500, 1440), ([.guestChecksum], FrameHeader.largestPacket, 32_768),
        ] as [(NetworkOffloads, Int, Int)])
    func makesPacketsThatTheDriverHasRoomFor(_ offloads: NetworkOffloads, _ room: Int, _ segment: Int) throws {
        let free = HostSocket.bound(.stream).port
        let network = try UserNetwork(forwards: [PortForward(hostPort: UInt16(free), guestPort: 22)])
        let guest = try TestGuest(network, offloads: offloads.union(.checksum).union(.tso4), largestPacket: room)
        let server = HostSocket.bound(.stream)
        let connection = try #require(TestConnection(guest, to: server.port, segment: 1460))
        let peer = server.accept()
        let down = Noise.bytes(seed: 2, 50_000)
        let writer = try Writer(peer, down)
        while connection.received.count < down.count, connection.step() {}
        writer.wait()
        #expect(connection.received == down)
        #expect(connection.largestSegment == segment)
        // Forwards are where they were.
        #expect(HostSocket(.stream).connect(free))
    }

    @Test func tellsTheGuestOfAPortWhereNobodyListens() throws {
        let guest = try TestGuest()
        let nobody = HostSocket.bound(.datagram)
        #expect(TestConnection(guest, to: nobody.port) == nil)
    }

    @Test func forwardsAPortIntoTheGuest() throws {
        let free = HostSocket.bound(.stream).port
        let guest = try TestGuest(forwards: [PortForward(hostPort: UInt16(free), guestPort: 22)])
        let client = HostSocket(.stream)
        #expect(client.connect(free))
        // It has never heard of the Guest's card, so it asks.
        let question = try #require(guest.receive { Packets.half($0, 12) == 0x0806 })
        #expect(Packets.word(question, 38) == UserNetwork.guest.rawValue)
        guest.send(
            Packets.ethernet(
                0x0806,
                [0, 1, 8, 0, 6, 4, 0, 2] + Packets.card + Packets.word(UserNetwork.guest.rawValue)
                    + Packets.router + Packets.word(UserNetwork.host.rawValue)))
        let syn = try #require(guest.receive { Packets.half($0, 12) == 0x0800 && $0[23] == 6 })
        #expect(Packets.half(syn, 36) == 22 && syn[47] == Packets.TCPFlags.syn.rawValue)
        #expect(Packets.word(syn, 30) == UserNetwork.guest.rawValue)
    }

    @Test func saysWhichPortIsTaken() throws {
        let taken = HostSocket.bound(.stream)
        let error = #expect(throws: HostError.self) {
            try UserNetwork(forwards: [PortForward(hostPort: UInt16(taken.port), guestPort: 22)])
        }
        #expect(
            error?.description == "cannot forward port \(taken.port): Address already in use "
                + "(choose another port of this machine, as in forward=PORT:22)")
        let datagrams = HostSocket.bound(.datagram)
        let other = #expect(throws: HostError.self) {
            try UserNetwork(forwards: [PortForward(.udp, hostPort: UInt16(datagrams.port), guestPort: 53)])
        }
        #expect(other?.errno?.rawValue == EADDRINUSE)
    }

    @Test func dropsAndCountsWhatNobodyFetches() throws {
        let guest = try TestGuest()
        // Each ping is answered into a ring of 4 MiB.
        for _ in 0..<100 { #expect(guest.send(Packets.ping(60_000))) }
        let dropped = guest.network.statistics.droppedFrames
        #expect(dropped > 20 && dropped < 40)
        var received = 0
        while guest.receive(milliseconds: 0) != nil { received += 1 }
        #expect(received + Int(dropped) == 100)
        // And goes on as if nothing had been.
        guest.send(Packets.ping(56))
        #expect(guest.receive { $0.count == 14 + 20 + 8 + 56 } != nil)
    }

    @Test func leavesDataInTheHostsKernelWhileTheGuestIsBusy() throws {
        let guest = try TestGuest()
        let server = HostSocket.bound(.datagram)
        guest.send(Packets.udp(5000, server.port, [1]))
        // Twice what the ring holds, at a pace at which it could be put there.
        server.answer([UInt8](repeating: 7, count: 8000), times: 1000) { usleep(20) }
        #expect(guest.network.statistics.droppedFrames == 0)
        var received = 0
        while guest.receive(milliseconds: 200) != nil { received += 1 }
        #expect(received >= GuestFrames.crowded / 8192 && received < 1000)
        // Read again once there is room.
        guest.send(Packets.udp(5000, server.port, [2]))
        server.answer([3], times: 1) {}
        #expect(guest.receive { $0[23] == 17 && $0[42...].elementsEqual([3]) } != nil)
    }

    /// libslirp 4.7 reads from a socket with an error even when it has no room, and
    /// asserts that it has.
    @Test func survivesAResetWhenNothingMoves() throws {
        let guest = try TestGuest(UserNetwork(), offloads: [.checksum, .tso4], largestPacket: 1500)
        let server = HostSocket.bound(.stream)
        let connection = try #require(TestConnection(guest, to: server.port))
        let peer = server.accept()
        // Its buffer for the Guest, of 131,400 bytes, is filled to the last: it reads
        // whole segments of 1440 while less than half of it is full. The Guest
        // acknowledges nothing.
        let first = 131_400 - 46 * 1440
        #expect(peer.send([UInt8](repeating: 1, count: first)) == first)
        usleep(50_000)
        guest.network.stop()
        #expect(peer.sendAtOnce([UInt8](repeating: 1, count: 46 * 1440)) == 46 * 1440)
        try guest.network.start()
        usleep(50_000)
        // The other way the peer reads nothing, until there is data that must wait.
        for _ in 0..<400 { connection.push([UInt8](repeating: 2, count: 30_000)) }
        peer.abort()
        usleep(50_000)
        guest.send(Packets.ping(56))
        #expect(guest.receive { Packets.half($0, 12) == 0x0800 && $0[23] == 1 } != nil)
    }

    @Test func leavesNoThreadAndNoFileBehind() async {
        await #expect(processExitsWith: .success) {
            func count(_ folder: String) -> Int { Files.list(folder).count }
            func lifetime() throws {
                let free = HostSocket.bound(.stream).port
                let network = try UserNetwork(forwards: [PortForward(hostPort: UInt16(free), guestPort: 22)])
                for _ in 0..<10 {
                    let guest = try TestGuest(network)
                    guest.send(Packets.udp(5000, 9, [1]))
                    let server = HostSocket.bound(.stream)
                    precondition(TestConnection(guest, to: server.port) != nil)
                }
            }
            try lifetime()
            let before = (count("/proc/self/fd"), count("/proc/self/task"))
            for _ in 0..<20 { try lifetime() }
            // A thread that was joined may be in /proc a moment longer.
            for _ in 0..<2000 where count("/proc/self/task") > before.1 { usleep(1000) }
            precondition((count("/proc/self/fd"), count("/proc/self/task")) == before)
        }
    }
}

/// Reads on a thread of its own.
final class Reader: @unchecked Sendable {
    private var bytes: [UInt8] = []
    private var thread: HostThread?

    init(_ socket: HostSocket, _ count: Int) {
        thread = try? HostThread(name: "reader") { [self] in bytes = socket.receive(exactly: count) }
    }

    func wait() throws -> [UInt8] {
        try #require(thread).join()
        return bytes
    }
}

/// Writes on a thread of its own.
final class Writer {
    private let thread: HostThread

    init(_ socket: HostSocket, _ bytes: [UInt8]) throws {
        thread = try HostThread(name: "writer") { _ = socket.send(bytes) }
    }

    func wait() { thread.join() }
}
