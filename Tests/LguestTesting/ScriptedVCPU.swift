package import Lguest
package import VirtualCPU

/// A CPU whose Guest has no code: it makes the hypercalls that a test hands it,
/// and has itself interrupted when there are none. One thread's.
package final class ScriptedVCPU: VCPU {
    package static let engineName = "scripted"
    package let requests: VCPURequests
    package let interrupts: any InterruptController
    package weak var guest: LguestGuest?

    private var state = VCPUState()
    package private(set) var hypercall = Hypercall(rax: 0, rbx: 0, rcx: 0, rdx: 0, rsi: 0, privilege: 0)
    private var next: Hypercall?
    /// In the midst of `run`, when the hypercall has been made but nothing been done about it.
    package var beforeCall: (() -> Void)?
    private weak var handler: (any HypercallHandler)?
    /// Of the last hypercall.
    package private(set) var result: UInt64 = 0

    package init(_ requests: VCPURequests, _ interrupts: any InterruptController) {
        self.requests = requests
        self.interrupts = interrupts
    }

    /// What it does when it runs.
    package func prepare(_ call: Hypercall) { next = call }

    package func run() -> VCPUExit {
        if let next {
            (hypercall, self.next) = (next, nil)
            beforeCall?()
            if handler?.perform() != true { return .hypercall }
        }
        guest?.interrupt()
        requests.clear(.stop)
        return .stopped
    }

    package func answerHypercall(_ result: UInt64) { self.result = result }
    package func handleHypercalls(by handler: any HypercallHandler) { self.handler = handler }
    package func complete(_ value: UInt64) {}
    package func refuse() {}
    package func reset() { state = VCPUState() }
    package func describe() -> String { "a script" }
    package func readState<Result>(_ body: (borrowing VCPUState) -> Result) -> Result { body(state) }
    package func withState<Result>(_ body: (inout VCPUState) -> Result) -> Result { body(&state) }
}
