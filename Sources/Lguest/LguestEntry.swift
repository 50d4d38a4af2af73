internal import VirtualCPU
internal import X86

/// A Guest's CPU at its first instruction: docs/lguest-abi.md, "How a Guest begins".
struct LguestEntry {
    let pgdir: UInt64
    let start: UInt64

    private static let code = Segment(selector: 0x10, base: 0, limit: .max, attributes: 0xa09b)
    private static let data = Segment(selector: 0x18, base: 0, limit: .max, attributes: 0xc093)

    /// Changes a CPU that was just reset.
    func apply(to state: inout VCPUState) {
        for register in 0..<16 { state.gpr[register] = 0 }
        state.rip = start
        state.rflags = RFlags.alwaysOne | RFlags.interrupt
        state.cr0 =
            CR0.protectedMode | CR0.monitorCoprocessor | CR0.extensionType | CR0.numericError | CR0.writeProtect
            | CR0.paging
        state.cr3 = pgdir
        state.cr4 = CR4.physicalAddressExtension | CR4.osFXSR | CR4.osXMMExceptions
        state.efer =
            EFER.systemCallEnable | EFER.longModeEnable | EFER.longModeActive | EFER.noExecuteEnable
        for name in 0..<6 {
            state.segments[name] = name == SegmentName.cs ? Self.code : Self.data
            state.gpr[AddressSlot.segmentBases + name] = 0
        }
        // None, so that the first exception is the last: nobody has said yet what to do about one.
        state.gdtr = DescriptorTable(base: 0, limit: 0)
        state.idtr = DescriptorTable(base: 0, limit: 0)
        state.ldtr = Segment(attributes: 0x82 | Segment.unusableBit)
        state.tr = Segment(limit: 0x67, attributes: 0x8b)
    }
}
