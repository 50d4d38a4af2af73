import Glibc
import HostInterface
import Network
import Testing

struct TAPNetworkTests {
    /// A TAP made for a test, which has to remove it.
    private final class FreshTAP {
        let name = "roost\(UInt32.random(in: 0..<1_000_000))"
        private let ip = ["/usr/sbin/ip", "/sbin/ip", "/bin/ip"].first(where: Files.exists)

        /// - Returns: nil if this user may not, or here is no `ip`.
        init?() {
            guard let ip, getuid() == 0, Files.exists("/dev/net/tun") else { return nil }
            let made = try? Subprocess.run([ip, "tuntap", "add", name, "mode", "tap", "vnet_hdr"])
            guard made?.status == 0 else { return nil }
            // Of TEST-NET-2 (RFC 5737), which nobody else has.
            _ = try? Subprocess.run([ip, "addr", "add", "198.51.100.1/30", "dev", name])
            _ = try? Subprocess.run([ip, "link", "set", name, "up"])
        }

        /// Also while somebody has it open.
        func remove() { if let ip { _ = try? Subprocess.run([ip, "link", "delete", name]) } }
    }

    @Test func saysHowToMakeOne() {
        let error = #expect(throws: HostError.self) { try TAPNetwork(name: "roostnone0") }
        #expect(
            error?.description == "cannot use the TAP roostnone0: No such device "
                + "(as root: ip tuntap add roostnone0 mode tap user $USER vnet_hdr; ip link set roostnone0 up)")
    }

    @Test func carriesFramesBothWays() throws {
        guard let tap = FreshTAP() else {
            print("skipped: a TAP takes root, /dev/net/tun and ip")
            return
        }
        defer { tap.remove() }
        let network = try TAPNetwork(name: tap.name)
        #expect(network.mtu == 1500)
        let guest = try TestGuest(network)
        let address = IPv4Address(198, 51, 100, 1)
        // A cable that was just plugged in takes a moment; until then the host's answers are lost.
        var answer: IPv4Address?
        for _ in 0..<100 where answer == nil {
            guest.send(Packets.arpRequest(for: address, from: IPv4Address(198, 51, 100, 2)))
            while answer == nil, let frame = guest.receive(milliseconds: 100) {
                if Packets.half(frame, 12) == 0x0806 { answer = IPv4Address(rawValue: Packets.word(frame, 28)) }
            }
        }
        #expect(answer == address)
        #expect(network.statistics.sentFrames > 0)
        // A frame that asks for what was not agreed on does not reach the kernel.
        try network.configure([], largestPacket: 1500)
        #expect(!guest.sendPartial(Packets.tcp(1, 2, sequence: 0, acknowledge: 0, .syn, partial: true)))
        #expect(network.statistics.refusedFrames == 1)
        // A second Guest on the same cable is told so.
        let error = #expect(throws: HostError.self) { try TAPNetwork(name: tap.name) }
        #expect(error?.description.contains("another process has it") == true)
    }
}
