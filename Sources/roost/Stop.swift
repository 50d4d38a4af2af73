internal import ArgumentParser
internal import HostInterface
internal import Launcher

/// `roost stop`: ends Guests of a house.
struct Stop: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Ends guests of a running house, and waits until they have ended.",
        discussion: "A guest is ended as by pulling its plug: to shut down in peace is the guest's own business.")

    @Option(help: ArgumentHelp("The house, where several have such a guest.", valueName: "name"))
    var house: String?

    @Argument(help: ArgumentHelp("The guests.", valueName: "name"))
    var guests: [String]

    func run() throws {
        // All or none: a name that is wrong is said before anything is ended.
        let places = try guests.map { try ControlClient.find($0, house: house) }
        for place in places {
            var client = try ControlClient(house: place.house)
            try client.stop(place.guest)
            try client.waitUntilStopped()
        }
    }
}
