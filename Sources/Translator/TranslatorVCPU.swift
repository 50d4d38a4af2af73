package import GuestMemory
package import HostInterface
internal import Interpreter
package import VirtualCPU
package import X86

/// The fast engine: translates 64-bit code to the host's, and leaves the rest to an Interpreter.
@safe package final class TranslatorVCPU: VCPU {
    package static let engineName = "translator"

    private let images: ContextImages
    private let core: InterpreterVCPU
    private let translator: Translator

    package var requests: VCPURequests { core.requests }

    /// - Parameter strictFlags: flags are exact in every fault's frame, at a price; for tests.
    /// - Throws: what of the host's is missing.
    package init(
        memory: GuestMemory, requests: VCPURequests, interruptController: (any InterruptController)?,
        features: CPUFeatures = .forThisHost, strictFlags: Bool = false
    ) throws(HostError) {
        images = try ContextImages(requests: requests.fileDescriptor)
        core = images.makeCore(memory, requests, interruptController, features)
        translator = try Translator(
            core: core, memory: memory, images: images, features: features, strictFlags: strictFlags)
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
    package var report: EngineReport { translator.report }
    package func startProfile(_ profile: EngineProfile) { core.startProfile(profile) }
}

extension ContextImages {
    /// The Interpreter that a Translator sits in, its core at the front of the images.
    func makeCore(
        _ memory: GuestMemory, _ requests: VCPURequests, _ interruptController: (any InterruptController)?,
        _ features: CPUFeatures
    ) -> InterpreterVCPU {
        precondition(StateOffsets.coreBytes <= Int(Layout.slots), "the core has outgrown its place")
        return unsafe InterpreterVCPU(
            memory: memory, requests: requests, interruptController: interruptController, features: features,
            storage: CoreStorage(base(0), of: self))
    }
}
