package import GuestMemory
internal import HostInterface
package import Lguest
internal import Synchronization
internal import VirtualCPU
internal import X86

/// A Host whose Guests are scripts.
package final class ScriptedHost: Sendable {
    private final class Made: Sendable {
        struct Content: @unchecked Sendable { var vcpu: ScriptedVCPU? }
        let last = Mutex(Content())
    }
    package let host: LguestHost
    private let made: Made

    package init() {
        let made = Made()
        self.made = made
        host = LguestHost { _, requests, interrupts in
            let vcpu = ScriptedVCPU(requests, interrupts)
            made.last.withLock { $0.vcpu = vcpu }
            return vcpu
        }
    }

    /// The CPU that was made last.
    fileprivate func takeVCPU() -> ScriptedVCPU? {
        made.last.withLock { made in
            defer { made.vcpu = nil }
            return made.vcpu
        }
    }
}

/// A Guest that is past LGUEST_INIT and does what a test says, hypercall by
/// hypercall, with no engine in between: for what the Host makes of them.
/// Closed when it is gone.
package final class ScriptedGuest {
    package enum Outcome: Equatable, Sendable {
        /// It goes on, with this in RAX.
        case done(UInt64)
        case pending(LguestPending)
        case died(String)
        case restarts
    }

    package let guest: LguestGuest
    package let memory: GuestMemory
    package let vcpu: ScriptedVCPU

    /// - Parameter regions: what it shares with others, and where.
    package init(
        in host: ScriptedHost, memory: GuestMemory? = nil, regions: [(SharedRegion, at: UInt64)] = [],
        isInitialized: Bool = true
    ) throws {
        self.memory = try memory ?? GuestMemory(byteCount: 1 << 20, hasHole: false)
        for (region, address) in regions { try self.memory.map(region, at: GuestPhysicalAddress(address)) }
        try self.memory.prepareGuest()
        guest = try host.host.open()
        try guest.initialize(memory: self.memory, pgdir: Place.pageTable, start: Place.code)
        guard let vcpu = host.takeVCPU() else { preconditionFailure("the Host has made no CPU") }
        self.vcpu = vcpu
        vcpu.guest = guest
        vcpu.withState { state in
            state.idtr = DescriptorTable(base: Place.idt, limit: 64 * 16 - 1)
            state.rip = Place.code
        }
        try self.memory.setData(LguestData.irqEnabled, LguestData.interruptsEnabled)
        if isInitialized { call(LguestHypercall.initialize, Place.data) }
    }

    deinit { guest.close() }

    @discardableResult
    package func call(
        _ number: UInt64, _ first: UInt64 = 0, _ second: UInt64 = 0, _ third: UInt64 = 0, privilege: Int = 0
    ) -> Outcome {
        vcpu.prepare(Hypercall(rax: number, rbx: first, rcx: second, rdx: third, rsi: 0, privilege: privilege))
        return run()
    }

    package func run() -> Outcome {
        do throws(Errno) { return .pending(try guest.run()) } catch {
            switch error {
            case .interrupted: return .done(vcpu.result)
            case .restart: return .restarts
            default: return .died(guest.death?.reason ?? "\(error)")
            }
        }
    }

    package func bind(_ key: UInt64, _ array: UInt64, count: Int = 1, irq: Int = 1) -> Outcome {
        call(LguestHypercall.bindDMA, key, array, UInt64(count) << 8 | UInt64(irq))
    }
    @discardableResult
    package func send(_ key: UInt64, _ buffer: UInt64) -> Outcome { call(LguestHypercall.sendDMA, key, buffer) }

    /// The interrupts that are pending, which are not any more.
    package func takeInterrupts() -> [Int] {
        var taken: [Int] = []
        while let vector = vcpu.interrupts.acknowledgeInterrupt() { taken.append(Int(vector) - LguestIRQ.firstVector) }
        return taken
    }
}
