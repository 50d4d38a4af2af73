import HostInterface
import Launcher
import Testing

/// The network inside the process, with a stock Guest on it.
@Suite(.serialized) struct GuestNetworkTests {
    private func run(_ options: [String], _ script: String, seconds: Int = 200) throws -> Subprocess.Result {
        try Subprocess.run(
            ["timeout", "\(seconds)", BootTests.command, "run"] + options + ["--", "sh", "-c", script])
    }

    private func text(_ result: Subprocess.Result) -> String { String(decoding: result.output, as: UTF8.self) }

    @Test func theNetworkIsUpBeforeTheCommand() throws {
        let result = try run(
            ["--net", "user"],
            """
            ip addr show eth0 | grep -o 'inet [0-9./]*'; ip route | head -n 1; cat /etc/resolv.conf
            ping -c 2 -q 10.0.2.2 | grep -o '[0-9]* packets received'
            """)
        #expect(result.status == 0, "\(result.errorText)")
        let output = text(result)
        #expect(output.contains("inet 10.0.2.15/24"), "\(output)")
        #expect(output.contains("default via 10.0.2.2"))
        #expect(output.contains("nameserver 10.0.2.3"))
        #expect(output.contains("2 packets received"))
    }

    @Test(.enabled(if: Sockets.hasIPv6, "this host has no IPv6"))
    func theGuestHasIPv6WhereTheHostHas() throws {
        let result = try run(
            ["--net", "user"],
            """
            for try in $(seq 100); do
                ip -6 addr show eth0 scope site | grep -v tentative | grep -q fec0: && break
                sleep 0.1
            done
            ping6 -c 2 -q fec0::2 | grep -o '[0-9]* packets received'
            """)
        #expect(text(result) == "2 packets received\n", "\(result.errorText)")
    }

    /// 100 MB in each direction; what arrives is what was sent.
    @Test func muchDataArrivesAsItWas() throws {
        // A pattern that repeats with no power of two.
        let content = (0..<100_000_000).map { UInt8(truncatingIfNeeded: $0 &* 167 &+ $0 / 251) }
        let server = try TestServer(sending: content)
        let sink = try TestServer()
        defer {
            server.stop()
            sink.stop()
        }
        let result = try run(
            ["--net", "user", "--memory", "512M"],
            """
            nc 10.0.2.2 \(server.port) </dev/null >/tmp/content
            wc -c </tmp/content
            nc 10.0.2.2 \(sink.port) </tmp/content
            """)
        #expect(result.status == 0, "\(result.errorText)")
        #expect(text(result) == "100000000\n")
        var expected = TestServer.Received()
        unsafe content.withUnsafeBytes { unsafe expected.add($0) }
        // The last connection may end after the Guest has.
        for _ in 0..<100 where sink.received.isEmpty { pause(milliseconds: 50) }
        #expect(sink.received == [expected])
    }

    @Test func fiftyConnectionsAtOnce() throws {
        let content = (0..<200_000).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 / 255) }
        let server = try TestServer(sending: content)
        defer { server.stop() }
        let result = try run(
            ["--net", "user"],
            """
            for i in $(seq 50); do nc 10.0.2.2 \(server.port) </dev/null >/tmp/got$i & done
            wait
            cat /tmp/got* | wc -c
            md5sum /tmp/got* | cut -d' ' -f1 | sort | uniq -c | wc -l
            """)
        #expect(result.status == 0, "\(result.errorText)")
        #expect(text(result).split(separator: "\n") == ["10000000", "1"], "\(text(result))")
    }

    @Test func aForwardedPortLeadsIntoTheGuest() throws {
        // Somebody else may take it before the Guest does; not twice in a row.
        let port = try TestServer.freePort()
        let result = try Subprocess.run(
            [
                "timeout", "200", "bash", "-c",
                """
                \(BootTests.command) run --net user,forward=\(port):7 -- \
                    sh -c 'echo here; nc -l -p 7 -e cat' | {
                    read word
                    # The port is there from the start, and who is behind it only once nc listens.
                    for try in $(seq 100); do
                        {
                            exec 3<>/dev/tcp/127.0.0.1/\(port) && echo from the host >&3 && read -t 10 answer <&3
                        } 2>/dev/null && break
                        sleep 0.2
                    done
                    echo "$word: $answer"
                }
                """,
            ])
        #expect(text(result) == "here: from the host\n", "\(result.errorText)")
    }

    private func pause(milliseconds: Int) { _ = waitReadable([], milliseconds: Int32(milliseconds)) }
}
