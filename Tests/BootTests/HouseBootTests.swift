import HostInterface
import Synchronization
import Testing

/// Two Linux Guests in one process, seen from outside as a user sees them.
@Suite(.serialized) struct HouseBootTests {
    /// A `roost up` under way; `body` has a function that runs a command of the shell where `roost` finds the house.
    private func withHouse(
        _ guests: String, _ body: (_ shell: (String) throws -> String) throws -> Void
    ) throws -> Subprocess.Result {
        let folder = try Files.createTemporaryFolder(beside: "/tmp/roost-house")
        defer { Files.remove(folder) }
        try Files.writeAtomically(Array("{ \"guests\": [ \(guests) ] }".utf8), to: folder + "/test.json")
        let result = Result()
        let house = try HostThread(name: "house") {
            let ended = try? Subprocess.run(
                ["timeout", "200", BootTests.command, "up", folder + "/test.json"],
                environment: ["XDG_RUNTIME_DIR": folder])
            result.value.withLock { $0 = ended }
        }
        do {
            defer { house.join() }
            // There is a socket once all guests are made.
            for _ in 0..<1000 where Files.list(folder + "/roost").isEmpty {
                _ = waitReadable([], milliseconds: 100)
            }
            try body { script in
                let ended = try Subprocess.run(
                    ["timeout", "200", "sh", "-c", script.replacing("roost", with: BootTests.command)],
                    environment: ["XDG_RUNTIME_DIR": folder])
                #expect(ended.status == 0, "\(script): \(ended.errorText)")
                return String(decoding: ended.output.filter { $0 != 0x0d }, as: UTF8.self)
            }
        }
        return try #require(result.value.withLock { $0 })
    }

    private final class Result: Sendable {
        let value = Mutex<Subprocess.Result?>(nil)
    }

    private func text(_ result: Subprocess.Result) -> String { String(decoding: result.output, as: UTF8.self) }

    @Test func twoGuestsAndAHandAtTheConsole() throws {
        let house = try withHouse(
            """
            { "name": "worker", "memory": "128M", "command": ["sh", "-c", "echo one; echo two >&2; printf three; exit 3"] },
            { "name": "shell", "memory": "128M", "console": "hvc0" }
            """
        ) { shell in
            // What is typed before the guest is ready waits; what it prints comes to both.
            let seen = try shell("printf 'echo $((6 * 7)); stty size\\nexit\\n' | roost console shell")
            #expect(seen.contains("\n42\n24 80\n"), "\(seen)")
        }
        #expect(house.status == 3, "\(house.errorText)")
        let lines = text(house).split(separator: "\n")
        #expect(lines.filter { $0.hasPrefix("worker |") } == ["worker | one", "worker | two", "worker | three"])
        #expect(lines.contains("shell  | 42"))
        #expect(lines.allSatisfy { $0.hasPrefix("worker |") || $0.hasPrefix("shell  |") }, "\(lines)")
        #expect(!text(house).contains("Linux version"), "the kernel's log")
        #expect(house.errorText.contains("roost: worker ended: its command ended, status 3\n"), "\(house.errorText)")
        #expect(house.errorText.contains("roost: shell ended: its shell ended\n"))
    }

    @Test func onesPanicIsNotTheOthers() throws {
        let house = try withHouse(
            """
            { "name": "bad", "memory": "128M", "command": ["sh", "-c", "echo c >/proc/sysrq-trigger"] },
            { "name": "good", "memory": "128M" }
            """
        ) { shell in
            let list = try shell("until roost ps | grep -q 'bad .* died'; do sleep 0.1; done; roost ps --house test")
            #expect(list.firstMatch(of: /test +good +Linux +running +\w+ +128M/) != nil, "\(list)")
            let seen = try shell("printf 'echo still $((1 + 1))\\nexit\\n' | roost console good")
            #expect(seen.contains("\nstill 2\n"), "\(seen)")
        }
        #expect(house.status == 70)
        #expect(house.errorText.contains("roost: bad died: its kernel panicked: sysrq triggered crash\n"))
        #expect(house.errorText.contains("roost: good ended: its shell ended\n"), "\(house.errorText)")
        #expect(text(house).contains("good | still 2\n"))
    }
}
