internal import HostInterface
internal import Platform

/// A Guest as its house sees it, whatever it boots and whatever bus it has.
/// `run` is called once, on a thread of the Guest's; the rest on any.
protocol HouseGuest: AnyObject, Sendable {
    /// What it is, as `roost ps` says it.
    var kind: String { get }
    var engineName: String { get }

    /// Lets `wake` know when `receive` may take more than it did. Before `run`.
    func connect(wake: @escaping @Sendable () -> Void)

    /// Runs it to its end, from reboot to reboot, and ends its devices.
    func run() throws -> GuestEnd

    /// Makes `run` return soon, even if it has not been called yet.
    func stop()

    /// What was typed at its console.
    ///
    /// - Returns: how many bytes were taken.
    func receive(_ bytes: [UInt8]) -> Int

    /// The window of somebody who looks at its console is this large.
    func resize(_ size: WindowSize)
}

extension GuestRun: HouseGuest {
    var engineName: String { engine.name }
    func run() throws -> GuestEnd { try run(rest: {}) }
    func stop() { ports.decide(.quit) }
    func receive(_ bytes: [UInt8]) -> Int { ports.receive(bytes) }
    func resize(_ size: WindowSize) { ports.resize(size) }
}

/// Makes the Guests of a house.
struct HouseGuestMaker {
    let isVerbose: Bool
    let progress: Progress
    let commons = Commons()

    init(isVerbose: Bool, progress: Progress) {
        self.isVerbose = isVerbose
        self.progress = progress
    }

    /// - Throws: in one line, with the Guest's name.
    func make(
        _ guest: HouseFile.Guest, output: GuestOutput, note: @escaping @Sendable (String) -> Void
    ) throws -> any HouseGuest {
        var configuration = guest.configuration
        configuration.verbose = isVerbose
        // Somebody may come to type, so every Guest has a terminal. How large
        // it is and of what kind, only they would know.
        let session = Session(
            kind: .terminal, command: configuration.command, port: configuration.userPort,
            windowSize: WindowSize(rows: 24, columns: 80), terminalName: environmentVariable("TERM"),
            neighbours: configuration.neighbours)
        do {
            let engine = try EngineTable.engine(named: configuration.engine, note: note)
            try GuestRun.check(configuration)
            return try GuestRun(
                configuration, engine: engine, session: session, output: output, commons: commons,
                regions: guest.regions, progress: progress, note: note)
        } catch let error as HostError {
            throw HostError("\(guest.name): \(error.summary)", errno: error.errno, advice: error.advice)
        } catch {
            throw HostError("\(guest.name): \(error)")
        }
    }
}
