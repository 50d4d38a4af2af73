import CPUOracle
import GuestMemory
import VirtualCPU
import X86

/// An engine that is none: it has the host run the case that it finds in the
/// state, and delivers the exception as an engine would. With it, `GuestCPU`
/// must agree with the host in everything.
final class HostPlayedVCPU: VCPU {
    static var engineName: String { "host" }
    let requests = VCPURequests()
    private let memory: GuestMemory
    private let host: HostCPU
    private var state = VCPUState()
    /// Code and patches, which cannot be told from the memory's contents.
    var current = TestCase()

    init(memory: GuestMemory, host: HostCPU) {
        self.memory = memory
        self.host = host
    }

    func readState<Result>(_ body: (borrowing VCPUState) -> Result) -> Result { body(state) }
    func withState<Result>(_ body: (inout VCPUState) -> Result) -> Result { body(&state) }
    func complete(_ value: UInt64) {}
    func refuse() {}
    func reset() { state = VCPUState() }
    func describe() -> String { "the host" }

    func run() -> VCPUExit {
        var test = current
        for index in 0..<16 { test.gpr[index] = state.gpr[index] }
        test.rip = state.rip
        test.rflags = state.rflags
        for index in 0..<64 { test.ymm[index] = state.ymm[index] }
        for index in 0..<20 where index != 3 { test.fxsave[index] = state.x87[index] }
        test.mxcsr = state.mxcsr
        let outcome = host.run(test)
        guard outcome.vector < 32 else { return .shutdown(reason: "vector \(outcome.vector)") }

        for index in 0..<16 { state.gpr[index] = outcome.gpr[index] }
        for index in 0..<64 { state.ymm[index] = outcome.ymm[index] }
        for index in 0..<20 where index != 3 { state.x87[index] = outcome.fxsave[index] }
        state.mxcsr = outcome.mxcsr
        state.cr2 = outcome.cr2
        var frame = GuestCPU.kernelStack
        func push(_ value: UInt64) {
            frame -= 8
            try? memory.store(value, at: GuestPhysicalAddress(0x20_0000 + frame & 0x1f_ffff))
        }
        for value in [0x2b, outcome.gpr[Register.rsp], outcome.rflags, 0x33, outcome.rip] { push(value) }
        if Vector.hasErrorCode(UInt8(outcome.vector)) { push(outcome.errorCode) }
        state.gpr[Register.rsp] = frame
        state.rip = GuestCPU.handlers + outcome.vector * 16 + 1
        for index in 0..<min(96, Int(outcome.changeCount)) {
            let change = outcome.changes[index]
            try? memory.store(change.value, at: GuestPhysicalAddress(0x40_0000 + change.address & 0x1f_ffff))
        }
        return .halt
    }
}
