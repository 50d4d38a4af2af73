internal import CZydis
package import VirtualCPU
internal import X86

/// How often each instruction was run for an accelerator, by mnemonic.
@safe final class FallbackCounts {
    private static let count = Int(ZYDIS_MNEMONIC_MAX_VALUE.rawValue) + 1
    private let counts: UnsafeMutablePointer<UInt64>

    init() {
        unsafe counts = .allocate(capacity: Self.count)
        unsafe counts.initialize(repeating: 0, count: Self.count)
    }

    deinit { unsafe counts.deallocate() }

    @inline(__always) func add(_ mnemonic: UInt16) {
        // SAFETY: Zydis's numbers, as `Lowering` got them: none is above the greatest.
        unsafe counts[Int(mnemonic)] &+= 1
    }

    /// The number 0 is Zydis's "invalid": bytes that are no instruction, or none that could be fetched.
    var figures: [EngineReport.Figure] {
        (0..<Self.count).compactMap { number in
            let times = unsafe counts[number]
            guard times > 0 else { return nil }
            let name = unsafe ZydisMnemonicGetString(ZydisMnemonic(rawValue: UInt32(number)))
            return unsafe EngineReport.Figure(name.map { unsafe String(cString: $0) } ?? "unknown", times)
        }
    }
}

extension InterpreterVCPU {
    /// How often each instruction was left to us, by mnemonic.
    package var fallbackFigures: [EngineReport.Figure] { fallbacks.figures }

    package func startProfile(_ profile: EngineProfile) { self.profile = profile }

    func takeSample() {
        requests.clear(.sample)
        guard let profile else { return }
        let cpu = self.cpu
        let base = unsafe cpu.core.codeSize == .bits64 ? 0 : cpu.state.segments[SegmentName.cs].base
        profile.addSample(codePlace(cpu.state.rip &+ base))
    }

    /// A place of the code that runs now.
    func codePlace(_ address: UInt64, isPage: Bool = false) -> CodePlace {
        let isProgram = unsafe cpu.core.privilege == 3
        return CodePlace(address, program: isProgram ? cpu.state.cr3 & PhysicalAddress.frame : nil, isPage: isPage)
    }

    /// For an accelerator: the instruction at this place of the code page needed
    /// a page that its TLB did not know.
    package func noteTLBMiss(offset: UInt64) {
        if let profile { profile.addTLBMiss(codePlace(cpu.codePage &+ offset)) }
    }
}
