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
        for name in [ZYDIS_MNEMONIC_VMCALL, ZYDIS_MNEMONIC_VMMCALL] {
            // What it asks for may be an interrupt: that is looked for between blocks.
            unsafe self[name] = {
                $0.endsBlock = true
                return unsafe Handlers.hypercall
            }
        }
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
        unsafe performLast($0, $1) { cpu, i throws(Stop) in
            unsafe cpu.state.rip = cpu.nextRIP(i)
            if let handler = cpu.owner.hypercallHandler, handler.perform() { return }
            throw cpu.leave(.hypercall)
        }
    }
}
