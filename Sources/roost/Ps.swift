internal import ArgumentParser
internal import HostInterface
internal import Launcher

/// `roost ps`: what runs.
struct Ps: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Lists the guests of the houses that run.")

    @Option(help: ArgumentHelp("Only this one's.", valueName: "name"))
    var house: String?

    func run() throws {
        var rows = [["HOUSE", "GUEST", "KIND", "STATE", "ENGINE", "MEMORY", "UPTIME", "CPU"]]
        for house in try ControlClient.houses(house) {
            var client = try ControlClient(house: house)
            for guest in try client.list() {
                rows.append([
                    house, guest.name, guest.kind, guest.state, guest.engine, guest.memory, Self.inWords(guest.uptime),
                    Self.inWords(guest.cpuTime),
                ])
            }
        }
        let widths = rows[0].indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
        for row in rows {
            let cells = zip(row, widths).map { $0 + String(repeating: " ", count: $1 - $0.count) }
            let line = cells.joined(separator: "  ")
            StandardStream.output.write(String(line.reversed().drop { $0 == " " }.reversed()) + "\n")
        }
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
