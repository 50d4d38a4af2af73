internal import CZydis
internal import VirtualCPU
internal import X86

extension LoweringTable {
    mutating func addSystem() {
        addInterrupts()
        addSegments()
        addTransfers()
        addSystemCalls()
    }
}

extension Lowering {
    /// MOV to and from segment, control and debug registers.
    mutating func moveSystem() -> Handler? { unsafe moveSegment() }
}

extension CPU {
    /// #GP(0) unless the program may use these ports (SDM 1, 19.5).
    func checkPort(_ port: UInt16, _ bytes: Int) throws(Stop) {}
}

extension CPU {
    /// PAE's four page-directory pointers, from CR3, without the checks of MOV to CR3.
    func loadPageDirectoryPointersUnchecked() {}

    func describe() -> String { "" }
}

extension Lowering {
    /// What the tables do not know: to the real CPU.
    mutating func lowerToThunk(_ owner: InterpreterVCPU) {}
}
