package import GuestMemory
package import HostInterface
internal import Interpreter
package import VirtualCPU
package import X86

/// Translator and Interpreter side by side: slow, and the first difference
/// between the two is a shutdown whose reason tells all about it.
@safe package final class LockstepVCPU: VCPU {
    package static let engineName = "lockstep"
    /// The same with a thousand trials for each block.
    package static let thoroughName = "lockstep-thorough"
    package static let thoroughTrials = 1000

    private let images: ContextImages
    private let core: InterpreterVCPU
    private let translator: Translator
    private let lockstep: Lockstep

    package var requests: VCPURequests { core.requests }

    /// - Parameters:
    ///   - trials: how often a block must agree before it is trusted; nil: always.
    ///   - spoil: gets each block's guest code and host code, to change the latter; for tests.
    /// - Throws: what of the host's is missing.
    package init(
        memory: GuestMemory, requests: VCPURequests, interruptController: (any InterruptController)?,
        features: CPUFeatures = .forThisHost, trials: Int? = 16,
        spoil: ((_ guest: [UInt8], _ host: UnsafeMutableRawBufferPointer) -> Void)? = nil
    ) throws(HostError) {
        images = try ContextImages(requests: requests.fileDescriptor)
        core = images.makeCore(memory, requests, interruptController, features)
        translator = try Translator(core: core, memory: memory, images: images, features: features, strictFlags: false)
        lockstep = Lockstep(
            core: core, translator: translator, journal: WriteJournal(memory: memory), trials: trials)
        if let spoil = unsafe spoil { unsafe lockstep.spoil = spoil }
    }

    package func run() -> VCPUExit { core.run() }
    package func complete(_ value: UInt64) { core.complete(value) }
    package func refuse() { core.refuse() }
    package var hypercall: Hypercall { core.hypercall }
    package func answerHypercall(_ result: UInt64) { core.answerHypercall(result) }
    package func handleHypercalls(by handler: any HypercallHandler) { core.handleHypercalls(by: handler) }
    package func offer(_ leaves: HypervisorLeaves) { core.offer(leaves) }
    package func flushTranslations() { core.flushTranslations() }
    package func readState<Result>(_ body: (borrowing VCPUState) -> Result) -> Result { core.readState(body) }
    package func withState<Result>(_ body: (inout VCPUState) -> Result) -> Result { core.withState(body) }
    package func reset() { core.reset() }
    package func describe() -> String { core.describe() }
}
