internal import ArgumentParser
internal import HostInterface
internal import Launcher

/// `roost ps`: what runs.
struct Ps: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Lists the guests of the houses that run.")

    @Option(help: ArgumentHelp("Only this one's.", valueName: "name"))
    var house: String?

    func run() throws {
        var table = TextTable(["HOUSE", "GUEST", "KIND", "STATE", "ENGINE", "MEMORY", "UPTIME", "CPU"])
        var failures: [String] = []
        for house in try ControlClient.houses(house) {
            do {
                var client = try ControlClient(house: house)
                for guest in try client.list() { table.append(Self.row(house, guest)) }
            } catch {
                // One that is in trouble hides no other; one that has ended meanwhile is in none.
                if try ControlClient.houses(nil).contains(house) { failures.append("\(error)") }
            }
        }
        StandardStream.output.write(table.text)
        guard failures.isEmpty else {
            throw SessionEnd(status: 1, message: failures.map { "roost: \($0)\n" }.joined())
        }
    }

    private static func row(_ house: String, _ guest: GuestStatus) -> [String] {
        [
            house, guest.name, guest.kind, guest.state, guest.engine, guest.memory, inWords(guest.uptime),
            inWords(guest.cpuTime),
        ]
    }

    /// As people say it: "12.3 s", "4:05", "3:04:05".
    private static func inWords(_ nanoseconds: UInt64) -> String {
        let seconds = nanoseconds / 1_000_000_000
        if seconds < 60 { return "\(seconds).\(nanoseconds / 100_000_000 % 10) s" }
        func two(_ number: UInt64) -> String { number < 10 ? "0\(number)" : "\(number)" }
        if seconds < 3600 { return "\(seconds / 60):\(two(seconds % 60))" }
        return "\(seconds / 3600):\(two(seconds / 60 % 60)):\(two(seconds % 60))"
    }
}
