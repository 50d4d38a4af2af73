import HostInterface
import Network
import Testing

struct NetworkOptionTests {
    @Test func readsWhatTheManualSays() throws {
        #expect(try NetworkOption(parsing: "none") == NetworkOption(kind: .none))
        #expect(try NetworkOption(parsing: "user") == NetworkOption(kind: .user([])))
        #expect(
            try NetworkOption(parsing: "user,forward=2222:22,forward=udp:5300:53")
                == NetworkOption(
                    kind: .user([
                        PortForward(hostPort: 2222, guestPort: 22), PortForward(.udp, hostPort: 5300, guestPort: 53),
                    ])))
        #expect(
            try NetworkOption(parsing: "user,forward=tcp:0.0.0.0:80:8080,mac=02:00:00:00:00:0A")
                == NetworkOption(
                    kind: .user([PortForward(hostAddress: IPv4Address(0, 0, 0, 0), hostPort: 80, guestPort: 8080)]),
                    macAddress: MACAddress([2, 0, 0, 0, 0, 10])))
        #expect(
            try NetworkOption(parsing: "tap=tap0,mac=52:54:00:12:34:56")
                == NetworkOption(kind: .tap("tap0"), macAddress: MACAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56])))
        // The same port of both protocols, and of two addresses, is two ports.
        #expect(throws: Never.self) {
            try NetworkOption(parsing: "user,forward=53:53,forward=udp:53:53,forward=127.0.0.2:53:53")
        }
    }

    @Test(arguments: [
        ("", "--net knows no '' (use none, user[,forward=[tcp|udp:]HOSTPORT:GUESTPORT] or tap=NAME)"),
        (
            "lan0",
            "--net knows no 'lan0' (use none, user[,forward=[tcp|udp:]HOSTPORT:GUESTPORT] or tap=NAME; a switch of that name needs a house: roost up)"
        ),
        ("lan 0", "--net knows no 'lan 0' (use none, user[,forward=[tcp|udp:]HOSTPORT:GUESTPORT] or tap=NAME)"),
        (
            "none,mac=52:54:00:12:34:56",
            "'mac=52:54:00:12:34:56' in --net none,mac=52:54:00:12:34:56 is unknown (after none there may be nothing)"
        ),
        ("user,", "'' in --net user, is unknown (after user there may be forward= and mac=)"),
        (
            "tap=tap0,forward=1:2",
            "'forward=1:2' in --net tap=tap0,forward=1:2 is unknown (after tap=tap0 there may be mac=)"
        ),
        ("user,forward=", "'forward=' is no forward (as in forward=2222:22 or forward=udp:127.0.0.1:5300:53)"),
        ("user,forward=22", "'forward=22' is no forward (as in forward=2222:22 or forward=udp:127.0.0.1:5300:53)"),
        (
            "user,forward=tcp:1.2.3.4:1:2:3",
            "'forward=tcp:1.2.3.4:1:2:3' is no forward (as in forward=2222:22 or forward=udp:127.0.0.1:5300:53)"
        ),
        (
            "user,forward=sctp:1:2",
            "'sctp' in forward=sctp:1:2 is neither tcp nor udp nor an IPv4 address of this machine (use 127.0.0.1, or 0.0.0.0 for all of them)"
        ),
        (
            "user,forward=1.2.3.999:1:2",
            "'1.2.3.999' in forward=1.2.3.999:1:2 is neither tcp nor udp nor an IPv4 address of this machine (use 127.0.0.1, or 0.0.0.0 for all of them)"
        ),
        ("user,forward=0:22", "'0' in forward=0:22 is no port (ports are 1 to 65535)"),
        ("user,forward=65536:22", "'65536' in forward=65536:22 is no port (ports are 1 to 65535)"),
        ("user,forward=2222:-1", "'-1' in forward=2222:-1 is no port (ports are 1 to 65535)"),
        ("user,forward=+22:22", "'+22' in forward=+22:22 is no port (ports are 1 to 65535)"),
        ("user,forward=2222:22,forward=tcp:2222:80", "--net forwards port 2222 twice"),
        ("user,mac=52:54:00:12:34", "'52:54:00:12:34' is no MAC address (as in mac=52:54:00:12:34:56)"),
        ("user,mac=52:54:00:12:34:5g", "'52:54:00:12:34:5g' is no MAC address (as in mac=52:54:00:12:34:56)"),
        (
            "user,mac=01:00:5e:00:00:01",
            "'01:00:5e:00:00:01' cannot be a card's MAC address (make the first byte even, as in 52:54:00:12:34:56)"
        ),
        ("tap=", "'' is no name of a network interface (as in tap=tap0)"),
        ("tap=a-name-too-long0", "'a-name-too-long0' is no name of a network interface (as in tap=tap0)"),
        ("tap=../etc", "'../etc' is no name of a network interface (as in tap=tap0)"),
        ("tap=tap%d", "'tap%d' is no name of a network interface (as in tap=tap0)"),
    ])
    func saysWhatIsWrong(_ text: String, _ line: String) {
        let error = #expect(throws: NetworkOptionError.self) { try NetworkOption(parsing: text) }
        #expect(error?.description == line)
    }

    @Test func namesASwitchInAHouse() throws {
        #expect(try NetworkOption(parsing: "lan0", in: .house) == NetworkOption(kind: .switch("lan0")))
        #expect(
            try NetworkOption(parsing: "My_net-4567890,mac=02:00:00:00:00:0A", in: .house)
                == NetworkOption(kind: .switch("My_net-4567890"), macAddress: MACAddress([2, 0, 0, 0, 0, 10])))
        // What has a meaning keeps it.
        #expect(try NetworkOption(parsing: "none", in: .house) == NetworkOption(kind: .none))
        #expect(try NetworkOption(parsing: "user", in: .house) == NetworkOption(kind: .user([])))
        #expect(try NetworkOption(parsing: "tap=tap0", in: .house) == NetworkOption(kind: .tap("tap0")))
    }

    @Test(arguments: ["", "tap", "lan 0", "länder", "a-name-too-long0", "lan0=", "../lan"])
    func saysWhatASwitchMayBeCalled(_ name: String) {
        let error = #expect(throws: NetworkOptionError.self) { try NetworkOption(parsing: name, in: .house) }
        #expect(
            error?.description
                == "\"net\" knows no '\(name)' (use none, user[,forward=[tcp|udp:]HOSTPORT:GUESTPORT] or tap=NAME, "
                + "or name a switch, as in lan0: 1 to 15 letters, digits, - and _)")
    }

    @Test func connectsAllThatNameTheSameSwitch() throws {
        let lan = Switch()
        let option = try NetworkOption(parsing: "lan0", in: .house)
        var asked: [String] = []
        let backends = try (0..<2).map { _ in
            try option.makeBackend { name in
                asked.append(name)
                return lan
            }
        }
        #expect(asked == ["lan0", "lan0"])
        #expect(backends.map { $0?.cardAddress?.bytes.last } == [0x56, 0x57])
        let error = #expect(throws: HostError.self) { try option.makeBackend() }
        #expect(error?.description == "cannot connect a guest to lan0 (a switch needs a house: roost up)")
    }
}
