internal import Grants
internal import GuestMemory
internal import HostInterface
internal import Platform
internal import Synchronization
internal import Virtio
internal import VirtualCPU

//L:040 A machine is made
//
// The order is the one of a person with a screwdriver: memory, a CPU, the
// board around it, then the tables that describe all this and the kernel that
// reads them. A reboot is the second half of it once more: nothing survives
// but the machine itself. The kernel's file is not kept in between: it is
// read again, and may be another.

/// One Guest: its memory, its vCPU and the PC around it.
final class Guest: Machine {
    private let memory: GuestMemory
    private let cpu: any VCPU
    private let pc: PC
    /// By slot: see `MemoryMap.virtioWindow`.
    private let virtio: [VirtioMMIO]
    /// What the Guest sees of Xen, if it is to see any.
    private let xen: XenPC?
    private let domains: DomainHouse
    private let requests: VCPURequests

    /// - Parameters:
    ///   - profile: what the Guest does is written down there; nil to leave it alone.
    ///   - regions: memory that is not the Guest's alone, and where it sees it.
    ///   - domains: whom it can share pages with.
    ///   - domain: its name there; nil: with nobody.
    ///   - serialOutputs: who takes what the Guest writes to COM1…COM4.
    init(
        _ source: BootSource, memory size: MemorySize, engine: Engine, profile: GuestProfile?,
        devices: [any VirtioDevice], regions: [(region: SharedRegion, address: UInt64)],
        domains: DomainHouse, domain: String?,
        serialOutputs: [Int: @Sendable ([UInt8]) -> Void],
        note: @escaping @Sendable (String) -> Void
    ) throws {
        requests = try VCPURequests(orThrow: ())
        memory = try GuestMemory(
            byteCount: size.bytes,
            foreignWindows: domain != nil ? MemoryMap.foreignWindows(ramBytes: size.bytes) : [])
        for (region, address) in regions { try memory.map(region, at: GuestPhysicalAddress(address)) }
        var configuration = PC.Configuration(memory: memory, requests: requests)
        configuration.serialOutputs = serialOutputs
        configuration.debugOutput = { byte in serialOutputs[0]?([byte]) }
        configuration.note = note
        let pc = try PC(configuration)
        self.pc = pc
        let memory = memory, requests = requests
        guard devices.count <= MemoryMap.virtioSlots else {
            throw ConfigurationError("\(devices.count) devices; a guest has room for \(MemoryMap.virtioSlots)")
        }
        virtio = try devices.enumerated().map { slot, device in
            let line = pc.interruptLine(gsi: MemoryMap.virtioGSI(slot: slot))
            let window = try VirtioMMIO(
                device, memory: memory, line: line, isGuestAsleep: { requests.isAsleep }, note: note)
            pc.mmio.register(
                window, at: MemoryMap.virtioWindow(slot: slot).rawValue, count: MemoryMap.virtioWindowBytes)
            return window
        }
        let cpu = try engine.makeVCPU(memory, requests, pc.localAPIC, profile: profile)
        self.cpu = cpu
        self.domains = domains
        xen = try domain.map { name in
            XenPC(try domains.open(name: name, memory: memory), of: domains, vcpu: cpu, localAPIC: pc.localAPIC)
        }
        pc.hypercalls = xen
        try load(source)
    }

    deinit { if let xen { domains.close(xen.domain) } }

    func stopDevices() {
        for device in virtio { device.reset() }
        xen?.end()
    }

    var deviceReport: VirtioReport { VirtioReport(virtio.map(\.transport)) }

    var remarks: [String] { xen?.remarks ?? [] }

    func restart(_ source: BootSource) throws {
        stopDevices()
        memory.clear()
        pc.reset()
        cpu.reset()
        try load(source)
    }

    private func load(_ source: BootSource) throws {
        let machine = ACPIMachine(virtioSlots: Array(virtio.indices))
        try ACPITables(machine).write(to: memory)
        var source = source
        let commandLine = KernelCommandLine(source.commandLine)
        if commandLine.turnsACPIOff {
            // Not asked, the kernel has to be told: of interrupts by a table, of devices by this line.
            try MPTable(machine).write(to: memory)
            source.commandLine = commandLine.naming(virtioSlots: machine.virtioSlots)
        }
        let entry = try loadKernel(source, into: memory, rsdp: ACPITables.rsdp)
        try xen?.begin()
        cpu.withState { entry.apply(to: &$0) }
    }

    var vcpu: (any VCPU)? { cpu }
    var serialPorts: [Serial16550?] { pc.serialPorts }

    func run() -> RunOutcome { pc.run(cpu) }

    func sampled<Result>(_ body: () throws -> Result) throws -> Result {
        let sampler = try Sampler(requests)
        defer { sampler.stop() }
        return try body()
    }

    var stopper: @Sendable () -> Void { { [requests] in requests.post(.stop) } }
}
//:
