internal import ArgumentParser
internal import HostInterface
internal import Launcher

/// The command `roost` and what its subcommands share.
@main
struct Roost: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "roost",
        abstract: "Boots stock x86-64 Linux on a software CPU: no KVM, no root, no set-up.",
        version: "roost 0.1.0",
        subcommands: [Run.self, Up.self, Ps.self, ConsoleCommand.self, Stop.self, GrantsCommand.self, Disk.self])

    /// Every way out is here: what is printed, where, and with which status.
    ///
    ///      0…255  what the guest's command, or the guest, came to
    ///      1      something of the host's is in the way
    ///      64     the command line cannot be understood (EX_USAGE)
    ///      70     the guest died (EX_SOFTWARE)
    static func main() {
        HostClock.begin()
        do {
            var command = try parseAsRoot()
            try command.run()
        } catch let end as SessionEnd {
            Terminal.restore()
            if let message = end.message { StandardStream.error.write(message) }
            endProcess(status: end.status)
        } catch let error as ConfigurationError {
            fail("\(error) (see '\(commandInUse) --help')", status: 64)
        } catch let error as HostError {
            fail("\(error)", status: 1)
        } catch {
            let code = exitCode(for: error)
            if code.isSuccess {  // --help and --version come this way, too.
                StandardStream.output.write(fullMessage(for: error) + "\n")
                endProcess(status: 0)
            }
            if code == .validationFailure {
                // One line: what the parser says first, and where to read more.
                let line = message(for: error).split(separator: "\n").first ?? "the command line is wrong"
                fail("\(line) (see '\(commandInUse) --help')", status: 64)
            }
            fail("\(error)", status: 1)
        }
    }

    /// The command that the arguments name, as far as there is one of that name.
    private static var commandInUse: String {
        var command: any ParsableCommand.Type = Roost.self
        var words = [_commandName]
        for argument in CommandLine.arguments.dropFirst() {
            guard let next = command.configuration.subcommands.first(where: { $0._commandName == argument }) else {
                break
            }
            command = next
            words.append(argument)
        }
        return words.joined(separator: " ")
    }

    private static func fail(_ message: String, status: Int32) -> Never {
        Terminal.restore()
        StandardStream.error.write("roost: \(message)\n")
        endProcess(status: status)
    }
}

/// How a session ended, thrown to the top so that everything on the way down is undone.
struct SessionEnd: Error {
    let status: Int32
    var message: String?
}
