internal import CZydis
internal import VirtualCPU
internal import X86

extension LoweringTable {
    mutating func addSystem() {
        addControlRegisters()
        addModelSpecific()
        addPrivileged()
        addDescriptorQueries()
        addExtendedState()
        self[ZYDIS_MNEMONIC_VMCALL] = { _ in unsafe Handlers.hypercall }
        self[ZYDIS_MNEMONIC_VMMCALL] = { _ in unsafe Handlers.hypercall }
    }
}

extension CPU {
    /// Neither real nor virtual-8086 mode, else #UD.
    func requireProtectedMode() throws(Stop) {
        if state.cr0 & CR0.protectedMode == 0 || state.rflags & RFlags.virtual8086 != 0 { throw undefined() }
    }
}

extension Handlers {
    /// Out to the Host with RIP past the instruction: registers carry all that is said.
    static let hypercall: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in
        unsafe cpu.state.rip = cpu.nextRIP(i)
        throw cpu.leave(.hypercall) } }
}

// Seams that are filled in elsewhere.
extension LoweringTable {
    mutating func addDescriptorQueries() {}
}
extension Lowering {
    mutating func popSegment() -> Handler? { nil }
    mutating func moveSegment() -> Handler? { nil }
    /// Far CALL, JMP and RET.
    mutating func farTransfer() -> Handler? { nil }
}

extension CPU {
    /// Delivers the pending fault; returns the words for a shutdown if it cannot be.
    func deliverFault() -> String? { "exception \(core.faultVector)" }

    /// Delivers an external interrupt or NMI.
    func deliverInterrupt(_ vector: UInt8) -> String? { nil }
    func debugRegistersChanged() { modeChanged() }

    /// Single step or instruction breakpoint before the next instruction.
    func beforeStep() -> VCPUExit? { nil }
    func afterStep() {}

    func isWatched(page address: UInt64) -> Bool { false }
    func noteWatched(_ address: UInt64, _ count: Int, write: Bool) {}
}
