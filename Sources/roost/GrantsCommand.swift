internal import ArgumentParser
internal import Grants
internal import HostInterface
internal import Launcher

/// `roost grants`: what Guests share.
struct GrantsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "grants", abstract: "Shows which pages and event channels the guests of a running house share.",
        discussion: """
            A granted page is another guest's to map, for as long as the granter lets it; MAPPED says how often that \
            is the case now, and USES how often it was. Alike pages with consecutive references are one line. \
            A port is one end of an event channel. See docs/sharing-memory.md.
            """)

    @Option(help: ArgumentHelp("The house, where several run.", valueName: "name"))
    var house: String?

    @Option(help: ArgumentHelp("Draw a picture of it there, besides.", valueName: "file"))
    var svg: String?

    func run() throws {
        let houses = try ControlClient.houses(house)
        guard let name = houses.first else {
            throw HostError("no house runs", advice: "start one with roost up")
        }
        guard houses.count == 1 else {
            throw HostError("several houses run: \(houses.joined(separator: ", "))", advice: "say which with --house")
        }
        var client = try ControlClient(house: name)
        let shared = try client.shared()
        if let svg { try Files.writeAtomically(Array(SharingPicture(shared).text.utf8), to: svg) }
        StandardStream.output.write(SharingTable(shared).text)
    }
}
