package import GuestMemory
internal import Interpreter
package import Testing
internal import Translator
package import VirtualCPU
package import X86

//M:150 One suite, every engine
//
// What a CPU must do does not depend on who plays it. So no test of that says
// which engine it means: it asks for a vCPU, or for a `Machine` with one, and
// gets one of the engine whose turn it is. The trait `.everyEngine` runs each
// test of a suite once for every line of the table below, and signs what goes
// wrong with the engine's name.

/// An engine that must pass the tests.
package struct TestedEngine: Sendable {
    package let name: String
    /// Whether the frame of a fault has arithmetic flags that nobody will read
    /// as a CPU would have left them.
    package let exactFaultFlags: Bool
    private let make: @Sendable (GuestMemory, VCPURequests, (any InterruptController)?, CPUFeatures) throws -> any VCPU

    private init(
        name: String, exactFaultFlags: Bool = true,
        make:
            @escaping @Sendable (GuestMemory, VCPURequests, (any InterruptController)?, CPUFeatures) throws -> any VCPU
    ) {
        self.name = name
        self.exactFaultFlags = exactFaultFlags
        self.make = make
    }

    /// All of them. A new engine is a line here.
    package static let all = [
        TestedEngine(name: InterpreterVCPU.engineName) {
            InterpreterVCPU(memory: $0, requests: $1, interruptController: $2, features: $3)
        },
        TestedEngine(name: TranslatorVCPU.engineName, exactFaultFlags: false) {
            try TranslatorVCPU(memory: $0, requests: $1, interruptController: $2, features: $3)
        },
        TestedEngine(name: TranslatorVCPU.engineName + ", strict flags") {
            try TranslatorVCPU(memory: $0, requests: $1, interruptController: $2, features: $3, strictFlags: true)
        },
    ]

    /// Makes a vCPU that runs in this memory, hears these requests and takes its interrupts there.
    package func makeVCPU(
        _ memory: GuestMemory, _ requests: VCPURequests, _ interrupts: (any InterruptController)?,
        features: CPUFeatures = .forThisHost
    ) throws -> any VCPU { try make(memory, requests, interrupts, features) }

    package static func named(_ name: String) -> TestedEngine {
        guard let engine = all.first(where: { $0.name == name }) else { preconditionFailure("no engine \(name)") }
        return engine
    }

    /// Whose turn it is.
    @TaskLocal package static var current = all[0]
}

/// Runs each test of a suite on every engine.
package struct EveryEngine: SuiteTrait, TestTrait, TestScoping {
    package var isRecursive: Bool { true }

    package func provideScope(
        for test: Test, testCase: Test.Case?, performing function: @Sendable () async throws -> Void
    ) async throws {
        for engine in TestedEngine.all {
            try await TestedEngine.$current.withValue(engine) {
                try await Self.signature(engine).provideScope(for: test, testCase: testCase, performing: function)
            }
        }
    }

    private static func signature(_ engine: TestedEngine) -> IssueHandlingTrait {
        .compactMapIssues { issue in
            var issue = issue
            issue.comments.append("engine: \(engine.name)")
            return issue
        }
    }
}

extension Trait where Self == EveryEngine {
    package static var everyEngine: Self { EveryEngine() }
}
//:
