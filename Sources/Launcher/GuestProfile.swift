internal import GuestMemory
internal import HostInterface
package import VirtualCPU
internal import Synchronization

//L:280 Watching a Guest
//
// An engine knows where in the Guest's code it is. What the Guest wants of its
// machine can be seen from outside, at the two openings that an engine has:
// the exits from `run`, and the interrupt controller. So a Guest that is
// watched gets an engine in a wrapper and a controller in another, which
// count what passes; one that is not has neither, and pays nothing.

/// Why an engine came back to the Host.
package enum ExitCause: Hashable, Sendable {
    case portRead(UInt16), portWrite(UInt16)
    /// By page: a device has many registers.
    case mmioRead(page: UInt64), mmioWrite(page: UInt64)
    case readMSR(UInt32), writeMSR(UInt32)
    case hypercall, halt, shutdown, stopped
    /// One more, when there were too many already.
    case other

    init(_ exit: VCPUExit) {
        self =
            switch exit {
            case .portRead(let port, _): .portRead(port)
            case .portWrite(let port, _, _): .portWrite(port)
            case .mmioRead(let address, _): .mmioRead(page: address.page)
            case .mmioWrite(let address, _, _): .mmioWrite(page: address.page)
            case .readMSR(let index): .readMSR(index)
            case .writeMSR(let index, _): .writeMSR(index)
            case .hypercall: .hypercall
            case .halt: .halt
            case .shutdown: .shutdown
            case .stopped: .stopped
            }
    }
}

/// All that is written down of a Guest under `--profile`. For the vCPU's thread.
package final class GuestProfile {
    package struct Exits: Sendable, Equatable {
        package var count: UInt64 = 0
        /// Until the engine was called again: what the Host did, or in HLT, slept.
        package var nanoseconds: UInt64 = 0

        package init(count: UInt64 = 0, nanoseconds: UInt64 = 0) {
            self.count = count
            self.nanoseconds = nanoseconds
        }
    }

    package let engine = EngineProfile()
    package private(set) var exits: [ExitCause: Exits] = [:]
    /// By vector.
    package private(set) var interrupts = [UInt64](repeating: 0, count: 256)
    package private(set) var guestNanoseconds: UInt64 = 0

    private var lastCause: ExitCause?
    private var lastChange: UInt64 = 0

    /// A Guest may read every MSR that there could be.
    package static let mostCauses = 1 << 14

    package init() {}

    /// The engine is about to run.
    package func enters(at now: UInt64) {
        if let lastCause { exits[lastCause, default: Exits()].nanoseconds &+= now &- lastChange }
        lastChange = now
    }

    /// It is back.
    package func leaves(_ exit: VCPUExit, at now: UInt64) {
        guestNanoseconds &+= now &- lastChange
        lastChange = now
        var cause = ExitCause(exit)
        if exits[cause] == nil && exits.count >= Self.mostCauses { cause = .other }
        exits[cause, default: Exits()].count &+= 1
        // Between a Guest's end and its restart nobody waits for anything.
        lastCause = cause == .stopped || cause == .shutdown ? nil : cause
    }

    package func addInterrupt(_ vector: UInt8) { interrupts[Int(vector)] &+= 1 }
}

/// An engine, and a profile of what it does.
final class ProfiledVCPU: VCPU {
    static let engineName = "profiled"
    private let vcpu: any VCPU
    private let profile: GuestProfile

    init(_ vcpu: any VCPU, _ profile: GuestProfile) {
        self.vcpu = vcpu
        self.profile = profile
        vcpu.startProfile(profile.engine)
    }

    func run() -> VCPUExit {
        // A sample that was asked for while the Host was busy, or the Guest
        // slept, would count for the code that comes next.
        requests.clear(.sample)
        profile.enters(at: HostClock.monotonicNanoseconds)
        let exit = vcpu.run()
        profile.leaves(exit, at: HostClock.monotonicNanoseconds)
        return exit
    }

    var requests: VCPURequests { vcpu.requests }
    func complete(_ value: UInt64) { vcpu.complete(value) }
    func refuse() { vcpu.refuse() }
    var hypercall: Hypercall { vcpu.hypercall }
    func answerHypercall(_ result: UInt64) { vcpu.answerHypercall(result) }
    func readState<Result>(_ body: (borrowing VCPUState) -> Result) -> Result { vcpu.readState(body) }
    func withState<Result>(_ body: (inout VCPUState) -> Result) -> Result { vcpu.withState(body) }
    func reset() { vcpu.reset() }
    func describe() -> String { vcpu.describe() }
    var report: EngineReport { vcpu.report }
}

/// An interrupt controller, and how often it interrupted.
final class ProfiledInterrupts: InterruptController {
    private let controller: any InterruptController
    private let profile: GuestProfile

    init(_ controller: any InterruptController, _ profile: GuestProfile) {
        self.controller = controller
        self.profile = profile
    }

    func acknowledgeInterrupt() -> UInt8? {
        let vector = controller.acknowledgeInterrupt()
        if let vector { profile.addInterrupt(vector) }
        return vector
    }

    var taskPriorityClass: UInt8 {
        get { controller.taskPriorityClass }
        set { controller.taskPriorityClass = newValue }
    }
}

extension Engine {
    /// Makes a vCPU, and has `profile`, if there is one, hear of all that it does.
    func makeVCPU(
        _ memory: GuestMemory, _ requests: VCPURequests, _ interrupts: any InterruptController, profile: GuestProfile?
    ) throws -> any VCPU {
        guard let profile else { return try makeVCPU(memory, requests, interrupts) }
        return ProfiledVCPU(try makeVCPU(memory, requests, ProfiledInterrupts(interrupts, profile)), profile)
    }
}

/// Asks a vCPU a thousand times a second where it is.
final class Sampler: Sendable {
    /// Not quite a millisecond: a Guest's own clock ticks at such round
    /// numbers, and we would meet it at its tick, again and again.
    private static let interval: UInt64 = 997_000

    private let timer: TimerFD
    private let ended = Atomic(false)
    private let thread = Mutex<HostThread?>(nil)

    init(_ requests: VCPURequests) throws(HostError) {
        timer = try TimerFD()
        let started = try HostThread(name: "sampler") { [self] in
            while !ended.load(ordering: .relaxed) {
                timer.set(HostClock.monotonicNanoseconds + Self.interval)
                timer.wait()
                requests.post(.sample)
            }
        }
        thread.withLock { $0 = started }
    }

    func stop() {
        ended.store(true, ordering: .relaxed)
        thread.withLock { $0.take() }?.join()
    }
}
//:
