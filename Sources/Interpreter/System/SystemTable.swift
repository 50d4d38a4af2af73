internal import CZydis
internal import VirtualCPU
internal import X86

extension LoweringTable {
    mutating func addSystem() {
        addInterrupts()
        addSegments()
        addTransfers()
        addSystemCalls()
        addControlRegisters()
        addModelSpecific()
        addPrivileged()
        addDescriptorQueries()
        addExtendedState()
        unsafe self[ZYDIS_MNEMONIC_VMCALL] = { _ in unsafe Handlers.hypercall }
        unsafe self[ZYDIS_MNEMONIC_VMMCALL] = { _ in unsafe Handlers.hypercall }
    }
}

extension CPU {
    /// Neither real nor virtual-8086 mode, else #UD.
    func requireProtectedMode() throws(Stop) {
        if state.cr0 & CR0.protectedMode == 0 || state.rflags & RFlags.virtual8086 != 0 { throw undefined() }
    }
}

extension Handlers {
    /// To the Host with RIP past the instruction: registers carry all that is said. Out of the run loop
    /// only if nobody else can do it.
    static let hypercall: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in
            unsafe cpu.state.rip = cpu.nextRIP(i)
            if let handler = cpu.owner.hypercallHandler, handler.perform() { return }
            throw cpu.leave(.hypercall)
        }
    }
}
