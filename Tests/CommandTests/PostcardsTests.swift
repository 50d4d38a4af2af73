import HostInterface
import Testing

/// Examples/host: a program of the host's that lends pages to the Linux guests of the house that it runs.
struct PostcardsTests {
    private static let example =
        #filePath.split(separator: "/").dropLast(3)
        .reduce("") { $0 + "/" + $1 } + "/Examples"

    /// The guests' side, or why there is none.
    private static let canBeMade: Bool = {
        let folder = try? Files.createTemporaryFolder(beside: "/tmp/roost-postcard")
        guard let folder else { return false }
        defer { Files.remove(folder) }
        return (try? make(in: folder)) ?? false
    }()

    private static func make(in folder: String) throws -> Bool {
        try Subprocess.run(["make", "-s", "-C", example + "/sharing", "OUT=\(folder)", "\(folder)/postcard"]).status
            == 0
    }

    @Test(.enabled(if: canBeMade, "there is no cc here that links statically, or no <xen/gntalloc.h>"))
    func eachGuestReadsAPageAndAnswers() throws {
        let folder = try Files.createTemporaryFolder(beside: "/tmp/roost-postcard")
        defer { Files.remove(folder) }
        #expect(try Self.make(in: folder))
        let guests = ["anna", "bert"].map { name in
            """
            { "name": "\(name)", "memory": "128M", "xen": true, "files": ["postcard"], "command": ["postcard", "3"] }
            """
        }
        try Files.writeAtomically(
            Array("{ \"guests\": [ \(guests.joined(separator: ", ")) ] }".utf8), to: folder + "/house.json")
        let program = Command.path.dropLast("roost".count) + "Postcards"
        let result = try Subprocess.run(
            ["timeout", "60", String(program), folder + "/house.json", "2"],
            environment: ["XDG_RUNTIME_DIR": folder])
        let output = String(decoding: result.output, as: UTF8.self)
        #expect(result.status == 0, "\(result.errorText)")
        #expect(output.contains("anna | greetings to domain 1, from the host\n"), "\(output)")
        #expect(output.contains("bert | greetings to domain 2, from the host\n"))
        #expect(output.contains("domain 1: greetings back, from process "))
        #expect(output.contains("domain 2: greetings back, from process "))
    }
}
