import Glibc
import HostInterface
import Testing

/// What Guests of a house share: a switch, and memory. With Guests in Swift, and a Linux.
@Suite(
    .serialized,
    .enabled(if: Files.exists(".build/guests/hello.elf"), "there are no samples in .build/guests: make guests"))
struct SharingHouseTests {
    private func sample(_ name: String) throws -> String { try Files.absolutePath(".build/guests/\(name).elf") }
    private func text(_ result: Subprocess.Result) -> String { String(decoding: result.output, as: UTF8.self) }

    @Test func aLinuxGetsAPageFromASwiftGuestOnTheSameSwitch() throws {
        let house = try RunningHouse(
            json: """
                { "guests": [
                    { "name": "web", "kernel": "\(try sample("httpd"))", "memory": "16M", "net": "lan0" },
                    { "name": "client", "net": "lan0", "command": ["sh", "-c",
                        "hostname; ip -4 -o addr show eth0; until wget -q -O - http://web/; do sleep 1; done"] }
                ] }
                """)
        try house.list { $0.count == 2 && $0[1][3] == "ended" }
        #expect(try house.command("stop", "web").status == 0)
        let end = try house.end()
        #expect(end.status == 0, "\(end.errorText)")
        let lines = text(end)
        #expect(lines.contains("web    | ready\n"))
        #expect(lines.contains("client | client\n"))
        #expect(lines.contains("inet 10.0.3.2/24"))
        #expect(
            lines.contains("client | <p>This page comes from a program without a system below it.</p>\n"), "\(lines)")
    }

    @Test func twoSwiftGuestsTalkThroughARegionThatEachSeesElsewhere() throws {
        let house = try RunningHouse(
            json: """
                { "regions": { "shared": "64K" }, "guests": [
                    { "name": "anna", "kernel": "\(try sample("chat"))", "memory": "16M",
                      "append": "region=0x800000 me=0", "regions": { "shared": "0x800000" } },
                    { "name": "bert", "kernel": "\(try sample("chat"))", "memory": "16M",
                      "append": "region=0x900000 me=1", "regions": { "shared": "0x900000" } },
                    { "name": "cora", "kernel": "\(try sample("hello"))", "memory": "16M" }
                ] }
                """)
        try house.waitUntilUp(3)
        let typed = house.folder + "/typed"
        try Files.writeAtomically(Array("hello bert\nbye\n".utf8), to: typed)
        let input = try FileDescriptor.open(typed, O_RDONLY)
        #expect(try house.command("console", "anna", input: input.rawValue).status == 0)
        let end = try house.end()
        #expect(end.status == 0, "\(end.errorText)")
        #expect(text(end).contains("bert | <0> hello bert\n"), "\(text(end))")
        #expect(text(end).contains("cora | Hello from a Guest in Swift"))
    }

    @Test func aRegionWhereAGuestHasNoMemoryIsOneLine() throws {
        let house = try RunningHouse(
            json: """
                { "regions": { "shared": "4K" }, "guests": [
                    { "name": "anna", "kernel": "\(try sample("hello"))", "memory": "16M",
                      "regions": { "shared": "0x1000000" } }
                ] }
                """)
        let end = try house.end()
        #expect(end.status == 1)
        #expect(end.errorText.split(separator: "\n").count == 1)
        #expect(end.errorText.contains("0x1000000") && end.errorText.contains("anna"), "\(end.errorText)")
    }
}
