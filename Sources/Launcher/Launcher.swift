internal import HostInterface
internal import VirtualCPU

//L:060 From the first step to the last
//
// This is all that `roost run` does: gather, build, run, and say how it ended.

/// Runs one Guest for one user.
package struct Launcher {
    private let configuration: GuestConfiguration

    package init(_ configuration: GuestConfiguration) { self.configuration = configuration }

    /// - Throws: `ConfigurationError` for what cannot be asked, `HostError` for what cannot be had.
    package func run() throws -> GuestEnd {
        let verbose = configuration.verbose
        let note: @Sendable (String) -> Void = { text in
            if verbose { StandardStream.error.write("roost: \(text)\r\n") }
        }
        let engine = try EngineTable.engine(named: configuration.engine, note: note)
        try GuestRun.check(configuration)
        // Its file is there before the Guest is: a wrong path is not to be found out after hours.
        let profiler = try configuration.profile.map { try Profiler(path: $0, symbols: configuration.symbols) }
        let progress = try Progress()
        defer { progress.end() }
        let run = try GuestRun(
            configuration, engine: engine, session: session,
            output: Console.output(verbose: verbose, progress: progress),
            profile: profiler?.profile, progress: progress, note: note)
        if !verbose { progress.step("booting \(run.kernelName)") }
        let end =
            if let profiler {
                try run.machine.sampled {
                    try live(run) { if let vcpu = run.machine.vcpu { profiler.look(at: vcpu) } }
                }
            } else {
                try live(run) {}
            }
        if verbose {
            StandardStream.error.write(
                run.machine.report.text(engine: engine.name) + run.machine.deviceReport.text
                    + run.machine.remarks.map { $0 + "\n" }.joined())
        }
        try profiler?.write(engine: engine.name, run.machine.report)
        return end
    }

    /// Runs the Guest at the user's terminal.
    private func live(_ run: GuestRun, rest: () -> Void) throws -> GuestEnd {
        let console = try Console(run.ports)
        let input = try console.start(run)
        defer { console.end(input) }
        return try run.run(rest: rest)
    }

    /// A shell wants a terminal if there is one to type at; a command, only if
    /// nobody but a person is at either end of it.
    private var session: Session {
        let isInteractive = Terminal.isTerminal(0) && (configuration.command.isEmpty || Terminal.isTerminal(1))
        return Session(
            kind: isInteractive ? .terminal : .piped, command: configuration.command, port: configuration.userPort,
            windowSize: isInteractive ? Terminal.size : nil,
            terminalName: isInteractive ? environmentVariable("TERM") : nil)
    }
}
//:
