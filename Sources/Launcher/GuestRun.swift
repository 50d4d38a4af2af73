internal import HostInterface
internal import Platform
internal import VirtualCPU

//L:058 One life of a Guest
//
// Gathered, built, run from reboot to reboot, and its end put into words. Who
// looks on, and whether there are other Guests beside it, is decided elsewhere.

/// How a Guest ended.
package struct GuestEnd: Equatable, Sendable {
    /// The exit status that is the user's to see.
    package let status: Int32
    /// In words, as in "it powered off".
    package let reason: String
    /// Of a dead Guest, what else there is to say: registers, the console's last lines. nil if it is not dead.
    package let details: String?

    package init(status: Int32, reason: String, details: String? = nil) {
        self.status = status
        self.reason = reason
        self.details = details
    }

    /// What a dead Guest's status is (EX_SOFTWARE).
    package static let deadStatus: Int32 = 70
}

/// A Guest from its configuration to its end, whatever it boots and whatever machine it has.
///
/// Made on one thread and run on one, never at the same time; `ports` is for all.
final class GuestRun: @unchecked Sendable {
    let configuration: GuestConfiguration
    let engine: Engine
    let ports: GuestPorts
    let machine: any Machine
    /// How the kernel's file is called.
    let kernelName: String
    /// As `KernelFile.kind`.
    let kind: String
    private let session: Session
    private let catalog: DeviceCatalog
    private let progress: Progress

    /// Gathers what the Guest is made of, and makes it.
    ///
    /// - Parameters:
    ///   - session: what our /init is to do, if it is our /init.
    ///   - output: who takes what comes out of it.
    ///   - commons: what it shares with others.
    ///   - regions: memory that it shares, and where it sees it.
    /// - Throws: `ConfigurationError` for what cannot be asked, `HostError` for what cannot be had.
    init(
        _ configuration: GuestConfiguration, engine: Engine, session: Session, output: GuestOutput,
        commons: Commons = Commons(), regions: [HouseFile.RegionPlace] = [], profile: GuestProfile? = nil,
        progress: Progress, note: @escaping @Sendable (String) -> Void
    ) throws {
        self.configuration = configuration
        self.engine = engine
        self.session = session
        self.progress = progress
        // Disks that somebody else has are no reason to fetch a kernel.
        var catalog = try DeviceCatalog(configuration, commons)
        let kernel = try KernelFile.find(configuration, progress: progress)
        // It has no other terminal.
        if kernel.format == .lguest { catalog.addTerminal() }
        self.catalog = catalog
        // The files' bytes live no longer than this: a Guest may run for months.
        let files = try GuestFiles.gather(
            configuration, kernel, session: session, modules: catalog.modules, progress: progress)
        kernelName = files.source.kernelName.split(separator: "/").last.map(String.init) ?? ""
        kind = kernel.kind
        ports = GuestPorts(session: files.session, terminal: catalog.terminal, output: output)
        let regions = try regions.map { (region: try commons.findRegion($0.region), address: $0.address) }
        machine =
            if kernel.format == .lguest {
                try LguestMachine(
                    files.source, memory: configuration.memory, engine: engine, profile: profile, host: commons.host,
                    devices: catalog.devices, regions: regions, domains: commons.domains,
                    domain: configuration.isXen ? configuration.name : nil, print: ports.earlyOutput, note: note)
            } else {
                try Guest(
                    files.source, memory: configuration.memory, engine: engine, profile: profile,
                    devices: catalog.devices, regions: regions, domains: commons.domains,
                    domain: configuration.isXen ? configuration.name : nil, serialOutputs: ports.serialOutputs,
                    note: note)
            }
    }

    /// What no Guest can be asked, and can be seen before anything is opened.
    static func check(_ configuration: GuestConfiguration) throws(ConfigurationError) {
        guard configuration.command.isEmpty || configuration.initialRAMDisk == nil else {
            throw ConfigurationError(
                "a command runs in the initramfs that roost builds: leave --initrd out, or the command")
        }
        guard configuration.command.isEmpty || !configuration.bootsFromDisk else {
            throw ConfigurationError("with root= the disk's own programs run: leave it out, or the command")
        }
        guard configuration.files.isEmpty || configuration.initialRAMDisk == nil && !configuration.bootsFromDisk else {
            throw ConfigurationError(
                "files are put into the initramfs that roost builds: leave --initrd and root= out, or the files")
        }
    }

    /// Lets the user's side reach the Guest.
    ///
    /// - Parameter wake: see `GuestPorts`.
    func connect(wake: @escaping @Sendable () -> Void) {
        ports.connect(machine.serialPorts, stop: machine.stopper, wake: wake)
    }

    /// Runs the Guest to its end, from reboot to reboot. Once, and with its ports connected.
    ///
    /// - Parameter rest: called whenever it has stopped.
    func run(rest: () -> Void = {}) throws -> GuestEnd {
        defer {
            machine.stopDevices()
            ports.disconnect()
        }
        while true {
            // Whoever asked during a reboot asked a CPU that has forgotten it.
            let outcome = ports.verdict == nil ? try machine.run() : .stopped
            rest()
            if let end = judge(outcome) { return end }
            ports.restart()
            let kernel = try KernelFile.find(configuration, progress: progress)
            let files = try GuestFiles.gather(
                configuration, kernel, session: session, modules: catalog.modules, progress: progress)
            try machine.restart(files.source)
        }
    }

    /// What the end of a run means; nil: run again.
    private func judge(_ outcome: RunOutcome) -> GuestEnd? {
        if case .exit(let status) = ports.verdict, outcome == .stopped || outcome == .poweroff {
            return GuestEnd(
                status: Int32(status), reason: "its \(configuration.command.isEmpty ? "shell" : "command") ended")
        }
        switch outcome {
        case .stopped:
            // The user left; a command that was cut short has not succeeded.
            return GuestEnd(status: configuration.command.isEmpty ? 0 : 130, reason: "it was stopped")
        case .poweroff: return GuestEnd(status: 0, reason: "it powered off")
        case .exit(let code): return GuestEnd(status: code & 0xff, reason: "it wrote to the exit port")
        case .reset:
            // With panic=-1 a panic ends in a reset. To start over would be to panic for ever.
            if let panic = ports.log.panic { return death("its kernel panicked: \(panic)") }
            return configuration.restartsOnReboot ? nil : GuestEnd(status: 0, reason: "it rebooted")
        case .shutdown(let reason): return death(reason)
        }
    }

    private func death(_ reason: String) -> GuestEnd {
        var details = machine.describe()
        if !details.hasSuffix("\n") { details += "\n" }
        let log = ports.log.lastLines(24)
        if !configuration.verbose, !log.isEmpty {
            details += "The last lines on its console:\n" + log.map { "    \($0)\n" }.joined()
        }
        return GuestEnd(status: GuestEnd.deadStatus, reason: reason, details: details)
    }
}
//:
