package import GuestMemory
internal import Interpreter
internal import Translator
package import VirtualCPU

//L:020 Engines, by name
//
// The one list of what can run a vCPU. A new engine is a line here, and every
// line passes the same tests.

/// One way of running a vCPU.
package struct Engine: Sendable {
    package let name: String
    /// Makes a vCPU that runs in this memory, hears these requests and takes its interrupts there.
    package let makeVCPU: @Sendable (GuestMemory, VCPURequests, any InterruptController) throws -> any VCPU
}

package enum EngineTable {
    /// The best first.
    package static let all = [
        Engine(name: TranslatorVCPU.engineName) { memory, requests, interrupts in
            try TranslatorVCPU(memory: memory, requests: requests, interruptController: interrupts)
        },
        Engine(name: InterpreterVCPU.engineName) { memory, requests, interrupts in
            unsafe InterpreterVCPU(memory: memory, requests: requests, interruptController: interrupts)
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

    /// Stands for the first of the list.
    package static let automatic = "auto"

    /// - Throws: a sentence with the engines that there are.
    package static func engine(named name: String) throws(ConfigurationError) -> Engine {
        if name == automatic { return all[1] }
        if let engine = all.first(where: { $0.name == name }) { return engine }
        throw ConfigurationError("there is no engine '\(name)'; there is: \(names)")
    }

    /// All that can be asked for, to be read by a person.
    package static var names: String { ([automatic] + all.map(\.name)).joined(separator: ", ") }
}
//:
