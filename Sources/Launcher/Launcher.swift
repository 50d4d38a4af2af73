internal import HostInterface
internal import Platform
internal import VirtualCPU

//L:060 From the first step to the last
//
// This is all that `roost run` does: gather, build, run, and say how it ended.

/// Runs one Guest for one user.
package struct Launcher {
    package enum Outcome: Equatable, Sendable {
        /// With the exit status that is the user's to see.
        case ended(status: Int32)
        /// The Guest is dead; what there is to say about it, in lines.
        case died(report: String)
    }

    private let configuration: GuestConfiguration

    package init(_ configuration: GuestConfiguration) { self.configuration = configuration }

    /// - Throws: `ConfigurationError` for what cannot be asked, `HostError` for what cannot be had.
    package func run() throws -> Outcome {
        let verbose = configuration.verbose
        let note: @Sendable (String) -> Void = { text in
            if verbose { StandardStream.error.write("roost: \(text)\r\n") }
        }
        let engine = try EngineTable.engine(named: configuration.engine, note: note)
        guard configuration.command.isEmpty || configuration.initialRAMDisk == nil else {
            throw ConfigurationError(
                "a command runs in the initramfs that roost builds: leave --initrd out, or the command")
        }
        guard configuration.command.isEmpty || !configuration.bootsFromDisk else {
            throw ConfigurationError("with root= the disk's own programs run: leave it out, or the command")
        }
        if let run = try LguestRun(configuration) { return try run.run(engine: engine, note: note) }
        // Its file is there before the Guest is: a wrong path is not to be found out after hours.
        let profiler = try configuration.profile.map { try Profiler(path: $0, symbols: configuration.symbols) }
        let catalog = try DeviceCatalog(configuration)
        let progress = try Progress()
        defer { progress.end() }
        let console: Console, guest: Guest
        do {
            // The files' bytes live no longer than this: a Guest may run for months.
            let files = try GuestFiles.gather(
                configuration, session: session, modules: catalog.modules, progress: progress)
            console = try Console(
                session: files.session, terminal: catalog.terminal, verbose: verbose, progress: progress)
            guest = try Guest(
                files.source, memory: configuration.memory, engine: engine, profile: profiler?.profile,
                devices: catalog.devices, serialOutputs: console.serialOutputs, note: note)
            if !verbose { progress.step("booting \(files.source.kernelName.split(separator: "/").last ?? "")") }
        }
        let outcome =
            if let profiler {
                try guest.sampled { try live(guest, catalog, console, progress) { profiler.look(at: guest.vcpu) } }
            } else {
                try live(guest, catalog, console, progress) {}
            }
        if verbose {
            StandardStream.error.write(guest.vcpu.report.text(engine: engine.name) + guest.deviceReport.text)
        }
        try profiler?.write(engine: engine.name, guest.vcpu.report)
        return outcome
    }

    /// Runs the Guest to its end, from reboot to reboot; `rest` is called whenever it has stopped.
    private func live(
        _ guest: Guest, _ catalog: DeviceCatalog, _ console: Console, _ progress: Progress, rest: () -> Void
    ) throws -> Outcome {
        defer { guest.stopDevices() }
        let stop = guest.stopper
        let input = try console.start(ports: guest.pc.serialPorts, stop: stop)
        defer { console.end(input) }
        while true {
            let outcome = guest.run()
            rest()
            if let end = judge(outcome, guest, console) { return end }
            console.restart()
            let files = try GuestFiles.gather(
                configuration, session: session, modules: catalog.modules, progress: progress)
            try guest.restart(files.source)
        }
    }

    /// A shell wants a terminal if there is one to type at; a command, only if
    /// nobody but a person is at either end of it.
    private var session: Session {
        let isInteractive = Terminal.isTerminal(0) && (configuration.command.isEmpty || Terminal.isTerminal(1))
        return Session(
            kind: isInteractive ? .terminal : .piped, command: configuration.command,
            port: configuration.console == .hvc0 ? "hvc0" : "ttyS1", windowSize: isInteractive ? Terminal.size : nil,
            terminalName: isInteractive ? environmentVariable("TERM") : nil)
    }

    /// What the end of a run means; nil: run again.
    private func judge(_ outcome: RunOutcome, _ guest: Guest, _ console: Console) -> Outcome? {
        switch outcome {
        case .stopped:
            guard case .exit(let status) = console.verdict else {
                // The user left; a command that was cut short has not succeeded.
                return .ended(status: configuration.command.isEmpty ? 0 : 130)
            }
            return .ended(status: Int32(status))
        case .poweroff:
            if case .exit(let status) = console.verdict { return .ended(status: Int32(status)) }
            return .ended(status: 0)
        case .exit(let code):
            return .ended(status: code & 0xff)
        case .reset:
            // With panic=-1 a panic ends in a reset. To start over would be to panic for ever.
            if let panic = console.log.panic { return death("its kernel panicked: \(panic)", guest, console) }
            return configuration.restartsOnReboot ? nil : .ended(status: 0)
        case .shutdown(let reason):
            return death(reason, guest, console)
        }
    }

    private func death(_ reason: String, _ guest: Guest, _ console: Console) -> Outcome {
        var report = "roost: the guest died: \(reason)\n" + guest.vcpu.describe()
        if !report.hasSuffix("\n") { report += "\n" }
        let log = console.log.lastLines(24)
        if !configuration.verbose, !log.isEmpty {
            report += "The last lines on its console:\n" + log.map { "    \($0)\n" }.joined()
        }
        return .died(report: report)
    }
}
//:
