/// Several instructions in a row, each of which has been seen to do on the
/// host what is to be compared: the last one may fault, no other does.
package struct InstructionSequence: Sendable {
    /// One instruction, at its place in the case's code.
    struct Step: Sendable {
        var offset: Int
        var bytes: [UInt8]
        var instruction: Disassembler.Instruction
        /// What may differ after it, and before any other.
        var tolerance: Tolerance
    }

    /// The state at the first instruction; its code is `code`.
    private(set) var start: TestCase
    private(set) var steps: [Step] = []
    /// What the host made of it.
    package private(set) var native = Outcome()

    init(start: TestCase) {
        self.start = start
        self.start.setCode([UInt8](repeating: 0xcc, count: TestCase.maximumCode))
    }

    package var count: Int { steps.count }
    /// The whole sequence as a case.
    package var test: TestCase { start }

    /// The case with one instruction more.
    func test(adding bytes: [UInt8], at offset: Int) -> TestCase {
        var test = start
        test.overwriteCode(bytes, at: offset)
        return test
    }

    mutating func append(_ step: Step, native: Outcome) {
        start.overwriteCode(step.bytes, at: step.offset)
        steps.append(step)
        self.native = native
    }

    /// The state before the next instruction, which stands at `offset`, as a case of its own.
    func view(_ bytes: [UInt8], at offset: Int) -> TestCase {
        var view = TestCase()
        view.setCode(bytes)
        view.rip = start.rip + UInt64(offset)
        view.gpr = steps.isEmpty ? start.gpr : native.gpr
        view.rflags = steps.isEmpty ? start.rflags : native.rflags
        view.mxcsr = steps.isEmpty ? start.mxcsr : native.mxcsr
        return view
    }

    /// Runs it on an engine. What differs is blamed on the first instruction after which something does. Nil: they agree.
    package func compare(on engine: some EngineUnderTest, with host: HostCPU) -> Mismatch? {
        guard let last = steps.last else { return nil }
        let whole = mismatch(start, steps[...], last, native, engine.run(start))
        if whole == nil { return nil }
        var prefix = start
        prefix.setCode([UInt8](repeating: 0xcc, count: TestCase.maximumCode))
        for (index, step) in steps.enumerated() {
            prefix.overwriteCode(step.bytes, at: step.offset)
            let found = mismatch(prefix, steps[...index], step, host.run(prefix), engine.run(prefix))
            if let found { return found }
        }
        return whole
    }

    private func mismatch(
        _ test: TestCase, _ steps: ArraySlice<Step>, _ last: Step, _ native: Outcome, _ engine: Outcome
    ) -> Mismatch? {
        var found = CPUOracle.compare(test, last.instruction, native: native, engine: engine, last.tolerance)
        found?.pieces = steps.map { ($0.offset, $0.bytes) }
        return found
    }
}
