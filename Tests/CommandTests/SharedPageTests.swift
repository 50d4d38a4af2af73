import HostInterface
import Testing

/// Guests in Swift that share pages and bells by Xen's interface.
@Suite(
    .serialized,
    .enabled(if: Files.exists(".build/guests/lend.elf"), "there are no samples in .build/guests: make guests"))
struct SharedPageTests {
    static let engines = ["translator", "interpreter"]

    private func house(
        _ sample: String, _ engine: String, append: String = "", xen: Bool = true
    ) throws -> RunningHouse {
        let kernel = try Files.absolutePath(".build/guests/\(sample).elf")
        let guests = ["anna", "bert"].map { name in
            """
            { "name": "\(name)", "kernel": "\(kernel)", "memory": "16M", "xen": \(xen), "engine": "\(engine)",
              "append": "\(append)" }
            """
        }
        return try RunningHouse(json: "{ \"guests\": [ \(guests.joined(separator: ", ")) ] }")
    }

    private func lines(_ end: Subprocess.Result) -> [Substring] {
        String(decoding: end.output, as: UTF8.self).split(separator: "\n")
    }

    @Test(arguments: engines) func aPageOnLoanIsReadAndAnswered(_ engine: String) throws {
        let end = try house("lend", engine).end()
        #expect(end.status == 0, "\(end.errorText)")
        let lines = lines(end)
        #expect(lines.contains("bert | 1 writes: Dear 2, this page is on loan. Do write. Yours, 1"), "\(lines)")
        #expect(lines.contains("anna | 2 answers: Dear 1, got it. Yours, 2"))
        #expect(lines.contains("bert | 1 has taken the page back"))
    }

    @Test(arguments: engines) func bellsWakeWhoSleeps(_ engine: String) throws {
        let end = try house("ping", engine, append: "rounds=300").end()
        #expect(end.status == 0 && !lines(end).isEmpty, "\(end.errorText)")
    }

    @Test(arguments: engines) func eachPageThroughTheRingIsTheRightOne(_ engine: String) throws {
        let end = try house("pipe", engine, append: "bytes=64M").end()
        #expect(end.status == 0, "\(end.errorText)")
        let report = try #require(lines(end).first { $0.contains("pipe bytes=67108864 ") }, "\(lines(end))")
        #expect(report.contains(" wrong=0 "), "\(report)")
    }

    /// Whichever ends, the other sees zeros and hears the bell; nobody waits for ever.
    @Test(arguments: ["anna", "bert"]) func whoIsLeftNotices(_ victim: String) throws {
        let house = try house("pipe", "translator", append: "bytes=4000G")
        let other = victim == "anna" ? "bert" : "anna"
        for _ in 0..<200 {
            let table = try house.command("grants")
            if String(decoding: table.output, as: UTF8.self).contains("interdomain") { break }
            _ = waitReadable([], milliseconds: 20)
        }
        #expect(try house.command("stop", victim).status == 0)
        let end = try house.end()
        #expect(lines(end).contains { $0.hasPrefix("\(other) | ") && $0.contains("has gone") }, "\(lines(end))")
    }

    @Test(arguments: engines) func theKitDoesWhatItSays(_ engine: String) throws {
        let end = try house("exercise", engine).end()
        #expect(end.status == 0, "\(end.errorText)")
        let said = lines(end)
        #expect(said.contains { $0.contains("a bell") } && said.count > 60, "\(said)")
        #expect(!said.contains { $0.hasSuffix(": no") }, "\(said)")
    }

    @Test func withoutXenThereIsNone() throws {
        let end = try house("lend", "translator", xen: false).end()
        #expect(end.status == 70)
        #expect(end.errorText.contains("anna died"), "\(end.errorText)")
    }
}
