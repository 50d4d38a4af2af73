package import CZydis

/// What the Guest's CPUID offers, and so which instructions exist.
package struct CPUFeatures: Sendable {
    package static let forThisHost = CPUFeatures()

    /// Whether instructions of this set may be used; others are invalid opcodes.
    package func offers(_ set: ZydisISASet) -> Bool { true }
}
