internal import Grants
internal import GuestMemory
internal import HostInterface
internal import Lguest
internal import Platform
internal import Synchronization
internal import Virtio
internal import VirtualCPU

//L:045 The other machine
//
// A Guest that knows what it is needs no PC: no APIC, no ACPI, no UART. Its
// machine is memory, a CPU, a page that says what devices there are, and this
// loop, which is all that lguest's Launcher did once it had set things up: run
// the Guest, see to what it has notified, run it again.

/// One Guest on lguest's bus.
final class LguestMachine: Machine, @unchecked Sendable {
    private let ramBytes: UInt64
    private let memory: GuestMemory
    private let host: LguestHost
    private let devices: [any VirtioDevice]
    private let engine: Engine
    private let profile: GuestProfile?
    private let domains: DomainHouse
    /// What the Guest is to others that see Xen; nil if it does not.
    private let domain: Domain?
    private var xen: XenLines?
    private let print: @Sendable ([UInt8]) -> Void
    private let note: @Sendable (String) -> Void
    /// Until it is in memory.
    private var image: LguestImage?
    private let stopping = Atomic(false)
    /// Another with each restart.
    private let current = Mutex<LguestGuest?>(nil)
    private var bus: LguestBus?
    private(set) var vcpu: (any VCPU)?
    private var isSampled = false
    private var sampler: Sampler?

    /// - Parameters:
    ///   - profile: what the Guest does is written down there; nil to leave it alone.
    ///   - host: Guests of one Host can send to each other.
    ///   - regions: memory that is not the Guest's alone, and where it sees it.
    ///   - domains: whom it can share pages with.
    ///   - domain: its name there; nil: with nobody.
    ///   - print: takes the early console's text.
    init(
        _ source: BootSource, memory size: MemorySize, engine: Engine, profile: GuestProfile?, host: LguestHost,
        devices: [any VirtioDevice], regions: [(region: SharedRegion, address: UInt64)],
        domains: DomainHouse, domain: String?,
        print: @escaping @Sendable ([UInt8]) -> Void, note: @escaping @Sendable (String) -> Void
    ) throws {
        ramBytes = size.bytes
        let end = size.bytes + LguestBus.pageCount(for: devices) * 4096
        memory = try GuestMemory(
            byteCount: end, hasHole: false, foreignWindows: domain != nil ? [XenLines.window(above: end)] : [])
        for (region, address) in regions {
            // Above RAM are the devices' pages, which are memory, too.
            guard address < ramBytes, UInt64(region.byteCount) <= ramBytes - address else {
                throw HostError(
                    "cannot share \(region.byteCount) bytes at \(GuestPhysicalAddress(address)): the guest has no memory there",
                    advice: "its memory ends at \(GuestPhysicalAddress(ramBytes))")
            }
            try memory.map(region, at: GuestPhysicalAddress(address))
        }
        image = try LguestImage(source)
        self.engine = engine
        self.profile = profile
        self.host = host
        self.domains = domains
        self.domain = try domain.map { [memory] name in try domains.open(name: name, memory: memory) }
        self.devices = devices
        self.print = print
        self.note = note
    }

    func restart(_ source: BootSource) throws {
        end()
        memory.clear()
        image = try LguestImage(source)
    }

    /// The first `run` after the start or a restart begins the Guest: its owner is the thread that runs it.
    private func begin() throws -> (LguestGuest, LguestBus) {
        if let guest = current.withLock({ $0 }), let bus { return (guest, bus) }
        guard let image else { preconditionFailure("a Guest is begun once, or restarted") }
        let (pgdir, start) = try image.load(into: memory, ramBytes: ramBytes)
        self.image = nil
        let guest = try host.open { [weak self] in try self?.makeCPU($0, $1, $2) ?? { throw HostError("no machine") }()
        }
        if let domain { guest.xen = try beginXen(domain, guest) }
        let bus = try LguestBus(devices, of: guest, memory: memory, ramBytes: ramBytes, print: print, note: note)
        try guest.initialize(memory: memory, pgdir: pgdir, start: start)
        current.withLock { $0 = guest }
        self.bus = bus
        return (guest, bus)
    }

    private func makeCPU(
        _ memory: GuestMemory, _ requests: VCPURequests, _ interrupts: any InterruptController
    ) throws -> any VCPU {
        let cpu = try engine.makeVCPU(memory, requests, interrupts, profile: profile)
        vcpu = cpu
        xen?.attach(cpu)
        if isSampled { sampler = try Sampler(requests) }
        return cpu
    }

    private func beginXen(_ domain: Domain, _ guest: LguestGuest) throws -> XenLines {
        let xen = XenLines(domain, of: domains, lines: 1..<LguestIRQ.count) { [weak guest] irq in try? guest?.raise(irq: irq) }
        try xen.begin()
        self.xen = xen
        return xen
    }

    func sampled<Result>(_ body: () throws -> Result) throws -> Result {
        isSampled = true
        defer { sampler?.stop() }
        return try body()
    }

    func run() throws -> RunOutcome {
        let (guest, bus) = try begin()
        while !stopping.exchange(false, ordering: .sequentiallyConsistent) {
            do throws(Errno) {
                switch try guest.run() {
                case .notify(let address): bus.notify(address)
                case .dma(_, let key):
                    // lguest's Launcher said so, too, and went on.
                    note("nobody waits for DMA at key \(GuestPhysicalAddress(key))")
                }
            } catch {
                if let death = guest.death { return outcome(death) }
                // A signal, or `stop`.
                guard error == .interrupted || error == .again else { return .shutdown(reason: "\(error)") }
            }
        }
        return .stopped
    }

    private func outcome(_ death: LguestDeath) -> RunOutcome {
        if death.isPowerOff { return .poweroff }
        return death == .restart ? .reset : .shutdown(reason: plain(death.reason, limit: 400))
    }

    var stopper: @Sendable () -> Void {
        { [weak self] in
            self?.stopping.store(true, ordering: .sequentiallyConsistent)
            self?.current.withLock { $0 }?.interrupt()
        }
    }

    /// Ends the Guest.
    private func end() {
        sampler?.stop()
        sampler = nil
        bus?.stop()
        bus = nil
        // Not under the lock: whoever stops a Guest must not wait for this.
        let guest = current.withLock { $0.take() }
        guest?.close()
        // The memory stays, and with it the marks of code that this CPU had.
        vcpu?.reset()
        vcpu = nil
        xen?.end()
        xen = nil
    }

    func stopDevices() {
        bus?.stop()
        xen?.end()
    }

    var remarks: [String] { xen?.remarks ?? [] }

    var deviceReport: VirtioReport { VirtioReport(bus?.transports ?? []) }
    var serialPorts: [Serial16550?] { [nil, nil, nil, nil] }

    deinit {
        end()
        if let domain { domains.close(domain) }
    }
}

/// Guests on lguest's bus call Xen by numbers of lguest's.
extension XenLines: XenCalls {}
//:
