internal import HostInterface
internal import Platform
internal import VirtualCPU

/// What a Guest is run by: a PC, or lguest's machine. Everything but `stopper`
/// is for the one thread that runs it.
protocol Machine: AnyObject {
    /// Runs the Guest until it ends, or is stopped.
    func run() throws -> RunOutcome

    /// Everything back to power-on, and the Guest's file loaded again.
    func restart(_ source: BootSource) throws

    /// Ends what the devices' threads do with the Guest's memory. Before it goes away.
    func stopDevices()

    /// Makes `run` return `.stopped`. For any thread.
    var stopper: @Sendable () -> Void { get }

    /// COM1…COM4, as far as they are there.
    var serialPorts: [Serial16550?] { get }

    /// Nil before it runs for the first time.
    var vcpu: (any VCPU)? { get }

    /// What the devices have done.
    var deviceReport: VirtioReport { get }

    /// Runs `body` while somebody asks the vCPU, again and again, where it is.
    func sampled<Result>(_ body: () throws -> Result) throws -> Result
}

extension Machine {
    /// What the engine has done.
    var report: EngineReport { vcpu?.report ?? EngineReport() }
    /// Registers and code, for a report of death.
    func describe() -> String { vcpu?.describe() ?? "" }
}
