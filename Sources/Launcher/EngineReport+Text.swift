package import VirtualCPU

extension EngineReport {
    /// How many of the instructions that were left to a slower engine are shown one by one.
    package static let fallbacksShown = 20

    /// A line for each figure: "ENGINE: NAME VALUE", and "ENGINE: fallback INSTRUCTION TIMES".
    package func text(engine: String) -> String {
        var lines = figures.map { "\(engine): \($0.name) \($0.value)" }
        lines += fallbackRows.map { "\(engine): fallback \($0.name) \($0.value)" }
        return lines.map { $0 + "\n" }.joined()
    }

    /// The most frequent, and the rest in one.
    package var fallbackRows: [Figure] {
        let rest = fallbacks.dropFirst(Self.fallbacksShown)
        let shown = Array(fallbacks.prefix(Self.fallbacksShown))
        return rest.isEmpty ? shown : shown + [Figure("others", rest.reduce(0) { $0 &+ $1.value })]
    }
}
