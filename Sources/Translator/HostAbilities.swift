internal import HostInterface
internal import X86

//S:540 What the Translator asks of its host
//
// Translated code is the Guest's own code, so the host's CPU has what the
// Guest uses: the Guest's CPUID is cut from the host's. Two things we need for
// ourselves. LAHF and SAHF, with which the Guest's flags are put aside and
// taken out again, were missing in the first 64-bit CPUs (Intel's until 2005).
// And some hosts let no process run code that it has made: a kernel that
// seals every memfd against execution, a security module. That is found out
// by doing it.

/// What of a host matters to the Translator.
package struct HostAbilities: Sendable {
    /// CPUID 8000_0001, ECX bit 0.
    package var hasFlagTransfers: Bool
    /// Why generated code does not run; nil if it does.
    package var executionFailure: String?

    package init(hasFlagTransfers: Bool, executionFailure: String?) {
        self.hasFlagTransfers = hasFlagTransfers
        self.executionFailure = executionFailure
    }

    /// This host's.
    package static func probe() -> HostAbilities {
        // That bit of the Guest's leaf is the Host's.
        let leaf = CPUFeatures.forThisHost.leaf(0x8000_0001, 0, cr4: 0, xcr0: 0, tscFrequency: 0)
        return HostAbilities(hasFlagTransfers: leaf.ecx & 1 != 0, executionFailure: ExecutableMemory.failure())
    }
}

extension TranslatorVCPU {
    /// Why there can be no Translator on such a host; nil if there can.
    package static func unavailability(on host: HostAbilities = .probe()) -> String? {
        if !host.hasFlagTransfers { return "this CPU has no LAHF and SAHF in 64-bit mode" }
        return host.executionFailure
    }
}
//:
