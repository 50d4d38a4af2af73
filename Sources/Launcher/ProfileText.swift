internal import HostInterface
package import VirtualCPU

/// What `--profile` writes: a section for each question, the largest answer
/// first. docs/profiling.md describes it.
package struct ProfileText: CustomStringConvertible {
    let engine: String
    let report: EngineReport
    let profile: GuestProfile
    let names: GuestSymbols

    package init(engine: String, report: EngineReport, profile: GuestProfile, names: GuestSymbols) {
        self.engine = engine
        self.report = report
        self.profile = profile
        self.names = names
    }

    private static let functionsShown = 60, blocksShown = 60, sitesShown = 40, causesShown = 40

    package var description: String {
        ([head] + [functions, blocks, misses, exits, interrupts, exceptions, fallbacks, figures].map { "\n" + $0 })
            .joined()
    }

    // MARK: Sections

    private var head: String {
        let samples = profile.engine.samples.total
        let halted = profile.exits[.halt]?.nanoseconds ?? 0
        let host = profile.exits.reduce(0) { $0 &+ $1.value.nanoseconds } &- halted
        let all = profile.guestNanoseconds &+ host &+ halted
        func share(_ time: UInt64) -> String { "\(seconds(time)) s, \(percent(time, of: all))" }
        return """
            Profile of a guest on the engine \(engine)
            in the guest: \(share(profile.guestNanoseconds))
            in the host: \(share(host))
            asleep: \(share(halted))
            samples: \(samples)
            symbols: \(names.remark)

            """
    }

    private var functions: String {
        var sums: [String: UInt64] = [:]
        for (place, count) in profile.engine.samples.counts { sums[function(place), default: 0] &+= count }
        return table(
            "Samples by function", of: profile.engine.samples, sums.map { ($0.key, $0.value) }, Self.functionsShown)
    }

    private var blocks: String {
        let rows = profile.engine.samples.counts.map { (describe($0.key), $0.value) }
        return table("Samples by place", of: profile.engine.samples, rows, Self.blocksShown)
    }

    private var misses: String {
        let rows = profile.engine.tlbMisses.counts.map { (describe($0.key), $0.value) }
        return table("TLB misses of data", of: profile.engine.tlbMisses, rows, Self.sitesShown)
    }

    private var exits: String {
        let total = profile.exits.reduce(0) { $0 &+ $1.value.count }
        var text = "== Exits: \(total)\n     times      %   host ms  cause\n"
        let sorted = profile.exits.map { (cause: describe($0.key), exits: $0.value) }.sorted {
            ($1.exits.count, $0.cause) < ($0.exits.count, $1.cause)
        }
        for row in sorted.prefix(Self.causesShown) {
            text += "\(right(row.exits.count, 10)) \(percent(row.exits.count, of: total)) "
            text += "\(right(milliseconds(row.exits.nanoseconds), 9))  \(row.cause)\n"
        }
        let rest = sorted.dropFirst(Self.causesShown).reduce(0) { $0 &+ $1.exits.count }
        if rest > 0 { text += "\(right(rest, 10)) \(percent(rest, of: total))            others\n" }
        return text
    }

    private var interrupts: String {
        let rows = profile.interrupts.enumerated().map { ("vector 0x\(String($0.offset, radix: 16))", $0.element) }
        return table("Interrupts delivered", rows)
    }

    private var exceptions: String {
        let rows = profile.engine.exceptions.enumerated().map { (Self.exceptionName($0.offset), $0.element) }
        return table("Exceptions delivered", rows)
    }

    private var fallbacks: String {
        table("Instructions left to the Interpreter", report.fallbacks.map { ($0.name, $0.value) })
    }

    private var figures: String {
        "== The engine's figures\n" + report.figures.map { "\(right($0.value, 15))  \($0.name)\n" }.joined()
    }

    // MARK: Places

    private func function(_ place: CodePlace) -> String {
        if let found = names.find(place) { return (place.program == nil ? "kernel " : "program ") + found.name }
        guard let program = place.program else { return "kernel, without a name" }
        return "program with page tables at \(hexadecimal(program))"
    }

    private func describe(_ place: CodePlace) -> String {
        var text = (place.program == nil ? "kernel " : "program ") + hexadecimal(place.address)
        if place.isPage {
            text += ", somewhere in this page"
        } else if let found = names.find(place) {
            text += " \(found.name)+0x\(String(found.offset, radix: 16))"
        }
        if let program = place.program { text += " (page tables at \(hexadecimal(program)))" }
        return text
    }

    private func describe(_ cause: ExitCause) -> String {
        switch cause {
        case .portRead(let port): "in from port \(hexadecimal(UInt64(port)))"
        case .portWrite(let port): "out to port \(hexadecimal(UInt64(port)))"
        case .mmioRead(let page): "read from the device page \(hexadecimal(page &<< 12))"
        case .mmioWrite(let page): "write to the device page \(hexadecimal(page &<< 12))"
        case .readMSR(let index): "rdmsr \(hexadecimal(UInt64(index)))"
        case .writeMSR(let index): "wrmsr \(hexadecimal(UInt64(index)))"
        case .hypercall: "hypercall"
        case .halt: "hlt (its time is sleep)"
        case .shutdown: "death"
        case .stopped: "stopped by the host"
        case .other: "ports, device pages and MSRs beyond the first \(GuestProfile.mostCauses)"
        }
    }

    private static func exceptionName(_ vector: Int) -> String {
        let names = [
            0: "#DE", 1: "#DB", 3: "#BP", 4: "#OF", 5: "#BR", 6: "#UD", 7: "#NM", 8: "#DF", 10: "#TS", 11: "#NP",
            12: "#SS", 13: "#GP", 14: "#PF", 16: "#MF", 17: "#AC", 18: "#MC", 19: "#XM",
        ]
        return names[vector] ?? "vector \(vector)"
    }

    // MARK: Tables

    private func table(_ title: String, of places: PlaceCounts, _ rows: [(String, UInt64)], _ limit: Int) -> String {
        table(title, rows + [("elsewhere, when \(PlaceCounts.mostPlaces) places were known", places.elsewhere)], limit)
    }

    private func table(_ title: String, _ rows: [(name: String, count: UInt64)], _ limit: Int = .max) -> String {
        let total = rows.reduce(0) { $0 &+ $1.count }
        let sorted = rows.filter { $0.count > 0 }.sorted { ($1.count, $0.name) < ($0.count, $1.name) }
        var text = "== \(title): \(total)\n"
        for row in sorted.prefix(limit) {
            text += "\(right(row.count, 10)) \(percent(row.count, of: total))  \(row.name)\n"
        }
        let rest = sorted.dropFirst(limit).reduce(0) { $0 &+ $1.count }
        if rest > 0 { text += "\(right(rest, 10)) \(percent(rest, of: total))  others\n" }
        return text
    }

    private func right(_ value: some CustomStringConvertible, _ width: Int) -> String {
        let text = "\(value)"
        return String(repeating: " ", count: max(0, width - text.utf8.count)) + text
    }

    private func hexadecimal(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }

    /// With `digits` behind the point.
    private func decimal(_ value: UInt64, per unit: UInt64, digits: Int) -> String {
        var scale: UInt64 = 1
        for _ in 0..<digits { scale *= 10 }
        let scaled = UInt64(Double(value) / Double(unit) * Double(scale) + 0.5)
        let fraction = String(scaled % scale)
        return "\(scaled / scale)." + String(repeating: "0", count: digits - fraction.utf8.count) + fraction
    }

    private func seconds(_ nanoseconds: UInt64) -> String { decimal(nanoseconds, per: 1_000_000_000, digits: 3) }
    private func milliseconds(_ nanoseconds: UInt64) -> String { decimal(nanoseconds, per: 1_000_000, digits: 1) }
    private func percent(_ part: UInt64, of whole: UInt64) -> String {
        right(decimal(part &* 100, per: max(1, whole), digits: 1), 5) + "%"
    }
}
