internal import ArgumentParser
internal import HostInterface
internal import Launcher

/// `roost console`: the user's terminal at a Guest of a house.
struct ConsoleCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "console",
        abstract: "Shows the console of a guest in a running house, and types at it.",
        discussion: """
            It begins with the last lines that were printed. Ctrl-A x leaves the console, and the \
            guest runs on; Ctrl-A h lists the keys. Several may be at one console. If the input is \
            no terminal, all of it is typed, and what the guest prints is shown until it ends.
            """)

    @Option(help: ArgumentHelp("The house, where several have such a guest.", valueName: "name"))
    var house: String?

    @Argument(help: ArgumentHelp("The guest.", valueName: "name"))
    var guest: String

    func run() throws {
        let place = try ControlClient.find(guest, house: house)
        let console = try ConsoleClient(try ControlClient(house: place.house), guest: place.guest)
        let end = try console.run()
        switch end {
        case .left: throw SessionEnd(status: 0, message: "\nroost: left \(guest), which runs on\n")
        case .ended(let words): throw SessionEnd(status: 0, message: "roost: \(guest) \(words)\n")
        }
    }
}
