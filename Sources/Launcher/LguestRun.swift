internal import HostInterface
internal import Lguest
internal import Platform
internal import VirtualCPU

/// `Launcher.run` for a Guest on lguest's bus.
struct LguestRun {
    private let configuration: GuestConfiguration
    private let source: BootSource

    /// Nil for a kernel that wants a PC.
    init?(_ configuration: GuestConfiguration) throws {
        guard case .file(let path) = configuration.kernel else { return nil }
        var source = BootSource(kernel: try readFile(path), kernelName: path)
        guard try KernelFormat.detect(source) == .lguest else { return nil }
        if let initrd = configuration.initialRAMDisk { source.initrd = try readFile(initrd) }
        source.commandLine = configuration.commandLine ?? ""
        self.source = source
        self.configuration = configuration
    }

    func run(engine: Engine, note: @escaping @Sendable (String) -> Void) throws -> Launcher.Outcome {
        var configuration = configuration
        // It has no other.
        configuration.console = .hvc0
        let catalog = try DeviceCatalog(configuration)
        let progress = try Progress()
        defer { progress.end() }
        let console = try Console(
            session: nil, terminal: catalog.terminal, verbose: configuration.verbose, progress: progress)
        let machine = try LguestMachine(
            source, memory: configuration.memory, host: LguestHost(makeCPU: engine.makeVCPU), devices: catalog.devices,
            print: { bytes in
                progress.finish()
                StandardStream.output.write(bytes)
            }, note: note)
        defer { machine.stopDevices() }
        let input = try console.start(ports: [nil, nil, nil, nil], stop: machine.stopper)
        defer { console.end(input) }
        while true {
            switch try machine.run() {
            case .stopped: return .ended(status: configuration.command.isEmpty ? 0 : 130)
            case .poweroff: return .ended(status: 0)
            case .exit(let code): return .ended(status: code & 0xff)
            case .reset:
                if !configuration.restartsOnReboot { return .ended(status: 0) }
                try machine.restart(source)
            case .shutdown(let reason):
                return .died(report: "roost: the guest died: \(reason)\n" + machine.describe())
            }
        }
    }
}
