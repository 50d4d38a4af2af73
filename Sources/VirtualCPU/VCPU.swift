package import GuestMemory
internal import CHost
package import HostInterface
package import Synchronization
package import X86

//S:020 The Switcher's contract
//
// lguest had a Switcher: the few lines that left the Host, became the Guest,
// and came back with a reason. Ours is a protocol. `run()` runs the vCPU until
// it needs somebody, and returns with what it needs. An engine knows no
// device; whoever called `run` does what was asked, answers with `complete`,
// and calls `run` again:
//
//       Launcher                       engine
//          | run() ---------------------> |   …guest runs…
//          | <------------ .portRead(0x60, 1 byte)
//          |  asks the bus                |
//          | complete(0xfa)               |
//          | run() ---------------------> |   the same instruction, now with its answer
//
// An instruction that asks is not half done while we are away: nothing of it
// has happened. After `complete` it is run again from its start, and this time
// finds its answer waiting. So the state at every exit is that of an
// instruction boundary, and can be looked at, saved or moved.

/// Why `run()` returned. The reads and writes, and the MSRs, want `complete`
/// (or, for an MSR, `refuse`) before the next `run`.
package enum VCPUExit: Sendable {
    case portRead(port: UInt16, bytes: Int)
    case portWrite(port: UInt16, bytes: Int, value: UInt32)
    case mmioRead(GuestPhysicalAddress, bytes: Int)
    case mmioWrite(GuestPhysicalAddress, bytes: Int, value: UInt64)
    /// An MSR that is not the CPU's own: APIC, deadline timer, paravirtual.
    case readMSR(UInt32)
    case writeMSR(UInt32, value: UInt64)
    /// VMCALL or VMMCALL, done: see `hypercall` and `answerHypercall`. No `complete` needed. Not where a
    /// `HypercallHandler` was enough.
    case hypercall
    /// HLT with interrupts enabled or not: sleep until `VCPURequests` has something.
    case halt
    /// The vCPU cannot go on: the reason in words. Only `reset` helps.
    case shutdown(reason: String)
    /// Somebody asked by `VCPURequests.Request.stop`.
    case stopped
}

/// The registers of a hypercall.
@frozen public struct Hypercall: BitwiseCopyable, Sendable {
    public let rax, rbx, rcx, rdx, rsi, rdi, r8, r10: UInt64
    /// CPL, 0…3.
    public let privilege: Int

    @inlinable public init(
        rax: UInt64, rbx: UInt64 = 0, rcx: UInt64 = 0, rdx: UInt64 = 0, rsi: UInt64 = 0, rdi: UInt64 = 0,
        r8: UInt64 = 0, r10: UInt64 = 0, privilege: Int
    ) {
        (self.rax, self.rbx, self.rcx, self.rdx, self.rsi) = (rax, rbx, rcx, rdx, rsi)
        (self.rdi, self.r8, self.r10) = (rdi, r8, r10)
        self.privilege = privilege
    }
}

/// Who does hypercalls. It is asked on the vCPU's thread, in the midst of
/// `run`, and may use `hypercall`, `answerHypercall` and nothing else of the vCPU.
package protocol HypercallHandler: AnyObject {
    /// Does the one that `hypercall` tells of.
    ///
    /// - Returns: whether the Guest goes on; if not, `run` returns `.hypercall`.
    func perform() -> Bool
}

/// One virtual CPU on some engine. Only one thread at a time may call it;
/// other threads talk to it through `requests` alone.
package protocol VCPU: AnyObject {
    /// The engine's name, as `--engine` takes it.
    static var engineName: String { get }

    var requests: VCPURequests { get }

    /// Runs until something needs the Host.
    func run() -> VCPUExit

    /// Answers the last exit: the value read, anything for a write.
    func complete(_ value: UInt64)

    /// Answers the last MSR exit with #GP(0).
    func refuse()

    /// What a `.hypercall` asks for. Not while `run` is under way.
    var hypercall: Hypercall { get }

    /// Its result, in RAX, whatever the width of the Guest's code.
    func answerHypercall(_ result: UInt64)

    /// Does hypercalls on the way, without an end to `run`: by far the cheaper. Before the first `run`.
    func handleHypercalls(by handler: any HypercallHandler)

    /// CPUID says so, besides all that it says by itself. Before the first `run`.
    func offer(_ leaves: HypervisorLeaves)

    /// Forgets what was cached of page tables. As `answerHypercall`.
    func flushTranslations()

    /// Looks at the architectural state. Not while `run` is under way, but for
    /// an interrupt controller that is asked for a vector.
    func readState<Result>(_ body: (borrowing VCPUState) -> Result) -> Result

    /// Looks at or changes it, and makes the engine forget what it has cached of
    /// page tables. Not while `run` is under way.
    func withState<Result>(_ body: (inout VCPUState) -> Result) -> Result

    /// Back to the state after RESET; all that was cached of the Guest is forgotten.
    func reset()

    /// Registers and the bytes at RIP, for a report of death.
    func describe() -> String

    /// What it has done so far. Not while `run` is under way.
    var report: EngineReport { get }

    /// From now on, writes down there where it is at each `.sample`, its TLB
    /// misses and the Guest's exceptions. Before the first `run`.
    func startProfile(_ profile: EngineProfile)
}

extension VCPU {
    package var hypercall: Hypercall {
        readState { state in
            Hypercall(
                rax: state.gpr[Register.rax], rbx: state.gpr[Register.rbx], rcx: state.gpr[Register.rcx],
                rdx: state.gpr[Register.rdx], rsi: state.gpr[Register.rsi], rdi: state.gpr[Register.rdi],
                r8: state.gpr[8], r10: state.gpr[10],
                privilege: state.segments[SegmentName.ss].privilegeLevel)
        }
    }
    package func handleHypercalls(by handler: any HypercallHandler) {}
    package func offer(_ leaves: HypervisorLeaves) {}
    package func flushTranslations() { withState { _ in } }
    package func answerHypercall(_ result: UInt64) { withState { $0.gpr[Register.rax] = result } }
    package var report: EngineReport { EngineReport() }
    package func startProfile(_ profile: EngineProfile) {}
}

/// Where the vCPU takes its interrupts from: a local APIC, with a PIC behind it.
package protocol InterruptController: AnyObject {
    /// Called on the vCPU's thread when it could take an interrupt and
    /// `.interrupt` was requested. Takes the highest-priority one into service
    /// and returns its vector; nil if there is none after all.
    func acknowledgeInterrupt() -> UInt8?

    /// CR8: the task priority class, 0…15.
    var taskPriorityClass: UInt8 { get set }
}

/// The one word through which other threads talk to a running vCPU. Engines
/// poll it at block boundaries; a vCPU in HLT sleeps on it.
@safe package final class VCPURequests: @unchecked Sendable {
    package struct Request: OptionSet, Sendable {
        package let rawValue: UInt32
        package init(rawValue: UInt32) { self.rawValue = rawValue }

        /// The interrupt controller may have an interrupt.
        package static let interrupt = Request(rawValue: 1)
        package static let nonMaskableInterrupt = Request(rawValue: 2)
        /// `run` is to return `.stopped`.
        package static let stop = Request(rawValue: 4)
        /// A code page was written from outside: the engine has invalidations to do.
        package static let codeWritten = Request(rawValue: 8)
        /// Where is it now? Goes to the `EngineProfile`, if there is one.
        package static let sample = Request(rawValue: 16)
    }

    /// The word itself: the first of a page that others may map besides.
    package let word: UnsafeMutablePointer<Atomic<UInt32>>
    private let range: AddressRange
    private let file: MemoryFile
    private let asleep = Atomic(false)
    /// The vCPU's own.
    private var patience = Patience()

    /// The memfd of the word's page, for an engine that wants it near its other data.
    package var fileDescriptor: Int32 { file.descriptor.rawValue }

    /// For who can be told that there is no page for it.
    package init(orThrow: Void) throws(HostError) {
        file = try MemoryFile(name: "roost-requests", byteCount: 4096)
        range = try AddressRange(reserving: 4096)
        try range.map(file, fileOffset: 0, at: 0, count: 4096)
        unsafe word = range.base.bindMemory(to: Atomic<UInt32>.self, capacity: 1)
        unsafe word.initialize(to: Atomic(0))
    }

    package convenience init() {
        do throws(HostError) { try self.init(orThrow: ()) } catch {
            preconditionFailure("no page for a vCPU's requests: \(error)")
        }
    }

    /// Any thread. Wakes the vCPU if it sleeps.
    package func post(_ request: Request) {
        // ORDERING: pairs with the acquiring loads in `take` and `wait`: what
        // was written before posting is seen by the vCPU.
        let old = unsafe word.pointee.bitwiseOr(request.rawValue, ordering: .sequentiallyConsistent).oldValue
        if old & request.rawValue != request.rawValue {
            unsafe _ = chost_futex_wake(UnsafeRawPointer(word).assumingMemoryBound(to: UInt32.self), 1)
        }
    }

    package func clear(_ request: Request) {
        _ = unsafe word.pointee.bitwiseAnd(~request.rawValue, ordering: .sequentiallyConsistent)
    }

    /// What is asked for now.
    package var pending: Request { Request(rawValue: unsafe word.pointee.load(ordering: .acquiring)) }

    /// Whether the vCPU sleeps. A hint: it may wake at any time.
    package var isAsleep: Bool { asleep.load(ordering: .relaxed) }

    /// Sleeps until anything of `mask` is asked for.
    package func wait(for mask: Request) { while !waitOrSignal(for: mask) {} }

    /// The same, or until a signal's handler has run on this thread meanwhile.
    ///
    /// - Returns: false for the signal.
    package func waitOrSignal(for mask: Request) -> Bool {
        asleep.store(true, ordering: .relaxed)
        defer { asleep.store(false, ordering: .relaxed) }
        if patience.look(for: { !pending.isDisjoint(with: mask) }, unless: { false }) { return true }
        while true {
            let value = unsafe word.pointee.load(ordering: .acquiring)
            if value & mask.rawValue != 0 { return true }
            let result = unsafe chost_futex_wait(
                UnsafeRawPointer(word).assumingMemoryBound(to: UInt32.self), value, nil)
            if result != 0, Errno.current == .interrupted { return false }
        }
    }
}
//:
