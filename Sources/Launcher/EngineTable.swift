package import GuestMemory
internal import HostInterface
internal import Interpreter
internal import Translator
package import VirtualCPU

//L:020 Engines, by name
//
// The one list of what can run a vCPU. A new engine is a line here, and every
// line passes the same tests. Not every engine runs on every host; each is
// asked beforehand, and says in words what it misses. Whoever asks for no
// engine by name gets the first that misses nothing.

/// One way of running a vCPU.
package struct Engine: Sendable {
    package let name: String
    /// What keeps it from running on this host, in words; nil if nothing does.
    package let unavailability: @Sendable () -> String?
    /// Makes a vCPU that runs in this memory, hears these requests and takes its interrupts there.
    package let makeVCPU: @Sendable (GuestMemory, VCPURequests, any InterruptController) throws -> any VCPU

    package init(
        name: String, unavailability: @escaping @Sendable () -> String? = { nil },
        makeVCPU: @escaping @Sendable (GuestMemory, VCPURequests, any InterruptController) throws -> any VCPU
    ) {
        self.name = name
        self.unavailability = unavailability
        self.makeVCPU = makeVCPU
    }
}

package enum EngineTable {
    /// The best first.
    package static let all = [
        Engine(name: TranslatorVCPU.engineName, unavailability: { TranslatorVCPU.unavailability() }) {
            memory, requests, interrupts in
            try TranslatorVCPU(memory: memory, requests: requests, interruptController: interrupts)
        },
        Engine(name: InterpreterVCPU.engineName, unavailability: { ExecutableMemory.failure() }) {
            memory, requests, interrupts in
            InterpreterVCPU(memory: memory, requests: requests, interruptController: interrupts)
        },
        Engine(name: LockstepVCPU.engineName) { memory, requests, interrupts in
            unsafe try LockstepVCPU(memory: memory, requests: requests, interruptController: interrupts)
        },
        Engine(name: LockstepVCPU.thoroughName) { memory, requests, interrupts in
            unsafe try LockstepVCPU(
                memory: memory, requests: requests, interruptController: interrupts, trials: LockstepVCPU.thoroughTrials
            )
        },
    ]

    /// Stands for the first of the list that this host can run.
    package static let automatic = "auto"

    /// - Parameters:
    ///   - engines: to choose from.
    ///   - note: takes a remark on each engine that `automatic` had to pass over.
    /// - Throws: `ConfigurationError`, with the engines that there are; `HostError` if this host cannot run the one.
    package static func engine(
        named name: String, of engines: [Engine] = all, note: (String) -> Void = { _ in }
    ) throws -> Engine {
        if name == automatic {
            var reasons: [String] = []
            for engine in engines {
                guard let reason = engine.unavailability() else { return engine }
                reasons.append("\(engine.name): \(reason)")
                note("cannot use the engine \(engine.name): \(reason)")
            }
            throw HostError("no engine runs here (\(reasons.joined(separator: "; ")))")
        }
        guard let engine = engines.first(where: { $0.name == name }) else {
            throw ConfigurationError("there is no engine '\(name)'; there is: \(names)")
        }
        if let reason = engine.unavailability() {
            throw HostError(
                "the engine '\(name)' does not run here: \(reason)",
                advice: "use --engine \(automatic): it takes the best that does")
        }
        return engine
    }

    /// All that can be asked for, to be read by a person.
    package static var names: String { ([automatic] + all.map(\.name)).joined(separator: ", ") }
}
//:
