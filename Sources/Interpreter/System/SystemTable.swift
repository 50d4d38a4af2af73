internal import CZydis
internal import VirtualCPU
internal import X86

extension LoweringTable {
    mutating func addSystem() {}
}

extension Lowering {
    /// MOV to and from segment, control and debug registers.
    mutating func moveSystem() -> Handler? { nil }
    mutating func popSegment() -> Handler? { nil }
    /// Far CALL, JMP and RET.
    mutating func farTransfer() -> Handler? { nil }
}

extension CPU {
    /// #GP(0) unless the program may use these ports (SDM 1, 19.5).
    func checkPort(_ port: UInt16, _ bytes: Int) throws(Stop) {}

    /// Delivers the pending fault; returns the words for a shutdown if it cannot be.
    func deliverFault() -> String? { "exception \(core.faultVector)" }

    /// Delivers an external interrupt or NMI.
    func deliverInterrupt(_ vector: UInt8) -> String? { nil }
}

extension CPU {
    /// PAE's four page-directory pointers, from CR3, without the checks of MOV to CR3.
    func loadPageDirectoryPointersUnchecked() {}

    /// Single step or instruction breakpoint before the next instruction.
    func beforeStep() -> VCPUExit? { nil }
    func afterStep() {}

    func isWatched(page address: UInt64) -> Bool { false }
    func noteWatched(_ address: UInt64, _ count: Int, write: Bool) {}

    func describe() -> String { "" }
}

extension Lowering {
    /// What the tables do not know: to the real CPU.
    mutating func lowerToThunk(_ owner: InterpreterVCPU) {}
}
