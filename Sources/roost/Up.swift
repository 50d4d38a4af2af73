internal import ArgumentParser
internal import HostInterface
internal import Launcher

/// `roost up`: several Guests, from a file.
struct Up: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Starts the guests of a house file, and runs until all have ended.",
        discussion: """
            Each line that a guest prints is shown behind its name. While the house runs, \
            roost ps, roost console and roost stop reach its guests. ^C ends all of them; \
            a second ^C does not wait for it.

            Exit status: 0 if all guests ended well or were stopped; 70 if one died; else the first \
            that is not 0; 1 if the file or the host is in the way.
            """)

    @Flag(help: "Show the kernels' logs on standard error.")
    var verbose = false

    @Argument(help: ArgumentHelp("What the house is made of: see docs/house.md.", valueName: "file"))
    var file: String

    func run() throws {
        let house = try House(try HouseFile(path: file), isVerbose: verbose)
        throw SessionEnd(status: try house.run())
    }
}
