import HostInterface
import Network
import Testing

struct ManyUserNetworksTests {
    /// libslirp keeps its clock and its name servers once per process.
    @Test func workAtOnce() throws {
        let count = 3
        let threads = try (0..<count).map { index in
            try HostThread(name: "guest \(index)") {
                do { try work(UInt64(index)) } catch { Issue.record("guest \(index): \(error)") }
            }
        }
        for thread in threads { thread.join() }
    }

    /// A Guest with some connections, some questions, and a network that is made again.
    private func work(_ index: UInt64) throws {
        for round in 0..<3 as Range<UInt64> {
            let guest = try TestGuest()
            let server = HostSocket.bound(.stream)
            for source in 0..<5 {
                let connection = try #require(TestConnection(guest, to: server.port, source: 40_000 + source))
                let peer = server.accept()
                let up = Noise.bytes(seed: index << 8 | round, 100_000)
                let reader = Reader(peer, up.count)
                connection.send(up)
                #expect(try reader.wait() == up)
                let down = Noise.bytes(seed: round << 8 | index, 100_000)
                let writer = try Writer(peer, down)
                while connection.received.count < down.count, connection.step() {}
                writer.wait()
                #expect(connection.received == down)
                // To the host's name server, wherever that is: libslirp has to look it up.
                guest.send(Packets.udp(5000 + source, 53, [1, 2, 3], to: UserNetwork.nameServer))
            }
            #expect(guest.network.statistics.droppedFrames == 0)
        }
    }

    /// The time of one network must not stand still while another one is busy, nor that of both.
    @Test func doNotWaitForEachOther() throws {
        let idle = try TestGuest()
        let busy = try TestGuest()
        for _ in 0..<50 {
            busy.send(Packets.ping(1000))
            idle.send(Packets.ping(56))
            #expect(busy.receive { $0.count == 14 + 28 + 1000 } != nil)
            #expect(idle.receive { $0.count == 14 + 28 + 56 } != nil)
        }
    }
}
