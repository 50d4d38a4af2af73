//S:030 What an engine says of itself
//
// At the end of `roost run --verbose` an engine gives account: how much code
// it made, how long that took, what it could not do by itself. Which figures
// there are is the engine's affair: they are names and numbers, and whoever
// prints them need not know what they mean.

/// What an engine has done since it was made.
package struct EngineReport: Sendable, Equatable {
    package struct Figure: Sendable, Equatable {
        package let name: String
        package let value: UInt64

        package init(_ name: String, _ value: UInt64) {
            self.name = name
            self.value = value
        }
    }

    /// One word each, as in "tlb-fills"; times end in "-nanoseconds".
    package var figures: [Figure]
    /// How often an instruction was left to a slower engine, by mnemonic, the most frequent first.
    package var fallbacks: [Figure]

    package init(figures: [Figure] = [], fallbacks: [Figure] = []) {
        self.figures = figures
        self.fallbacks = fallbacks.filter { $0.value > 0 }.sorted { ($1.value, $0.name) < ($0.value, $1.name) }
    }
}
//:
