internal import COracle

/// The CPU we run on, in a child process of its own that is confined to
/// computing. If a case ends the child, the next one gets a new child.
@safe package final class HostCPU: EngineUnderTest {
    private let shared: UnsafeMutablePointer<oracle_shared>
    private var child: Int32 = -1

    package static let batchSize = Int(ORACLE_BATCH)
    /// How long one case may take before the child is given up, in ms.
    package var patience: Int32 = 3000

    /// - Parameter image: what the data, stack and ROM pages hold before each case.
    package init(image: MemoryImage) {
        guard let memory = unsafe oracle_share() else { preconditionFailure("no memory to share with the oracle") }
        unsafe shared = memory
        unsafe image.withUnsafeBytes { bytes in
            unsafe oracle_image(memory).copyMemory(from: bytes.baseAddress!, byteCount: bytes.count)
        }
    }

    deinit {
        if child > 0 { oracle_kill(child) }
        unsafe oracle_unshare(shared)
    }

    package func run(_ test: TestCase) -> Outcome { run([test])[0] }

    package func run(_ tests: [TestCase]) -> [Outcome] {
        var outcomes: [Outcome] = []
        outcomes.reserveCapacity(tests.count)
        var start = 0
        while start < tests.count {
            let count = min(Self.batchSize, tests.count - start)
            runBatch(tests[start..<start + count], into: &outcomes)
            start += count
        }
        return outcomes
    }

    private func runBatch(_ tests: ArraySlice<TestCase>, into outcomes: inout [Outcome]) {
        let cases = unsafe oracle_cases(shared)!.assumingMemoryBound(to: TestCase.self)
        for (index, test) in tests.enumerated() {
            precondition(OracleLayout.code.contains(test.rip))
            unsafe cases[index] = test
        }
        let results = unsafe oracle_outcomes(shared)!.assumingMemoryBound(to: Outcome.self)
        var position: UInt32 = 0
        while true {
            if child < 0 {
                unsafe child = oracle_spawn(shared)
                precondition(child > 0, "cannot start the oracle's child")
            }
            let result = unsafe oracle_submit(shared, child, position, UInt32(tests.count), patience)
            if result == 0 { break }
            oracle_kill(child)
            child = -1
            let failure = unsafe shared.pointee.failure
            precondition(failure == 0, "the oracle's child failed in step \(failure >> 16), errno \(failure & 0xffff)")
            position = unsafe shared.pointee.position
            if position >= UInt32(tests.count) { break }
            var lost = Outcome()
            lost.vector = result == 1 ? Outcome.timedOut : Outcome.died
            unsafe results[Int(position)] = lost
            position += 1
            if position == UInt32(tests.count) { break }
        }
        for index in 0..<tests.count { unsafe outcomes.append(results[index]) }
    }

    /// Whether Swift's idea of a case and an outcome is C's.
    package static var layoutsAgree: Bool {
        MemoryLayout<TestCase>.stride == MemoryLayout<oracle_case>.stride
            && MemoryLayout<Outcome>.stride == MemoryLayout<oracle_outcome>.stride
            && MemoryLayout<TestCase>.offset(of: \.fxsave) == MemoryLayout<oracle_case>.offset(of: \.fxsave)
            && MemoryLayout<TestCase>.offset(of: \.patches) == MemoryLayout<oracle_case>.offset(of: \.patches)
            && MemoryLayout<Outcome>.offset(of: \.vector) == MemoryLayout<oracle_outcome>.offset(of: \.vector)
            && MemoryLayout<Outcome>.offset(of: \.changes) == MemoryLayout<oracle_outcome>.offset(of: \.changes)
    }
}
