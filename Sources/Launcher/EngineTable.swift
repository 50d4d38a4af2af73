package import GuestMemory
package import VirtualCPU

//L:020 Engines, by name
//
// The one list of what can run a vCPU. A new engine is a line here.

/// Which engine runs the Guest. Made by `named`, so an engine in hand exists.
package struct EngineChoice: Sendable {
    package let name: String
    /// Makes the one vCPU of a Guest.
    package let makeVCPU: @Sendable (GuestMemory) throws -> any VCPU

    package init(name: String, makeVCPU: @escaping @Sendable (GuestMemory) throws -> any VCPU) {
        self.name = name
        self.makeVCPU = makeVCPU
    }
}

package enum EngineTable {
    /// Stands for the first of the list.
    package static let automatic = "auto"

    /// - Throws: a sentence with the engines that there are.
    package static func engine(named name: String) throws(ConfigurationError) -> EngineChoice {
        if name == automatic, let best = all.first { return best }
        if let engine = all.first(where: { $0.name == name }) { return engine }
        let known = ([automatic] + all.map(\.name)).joined(separator: ", ")
        throw ConfigurationError("there is no engine '\(name)'; there is: \(known)")
    }
}
//:
