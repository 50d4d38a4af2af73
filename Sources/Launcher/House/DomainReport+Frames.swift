package import Grants

/// What Guests share, on its way to whoever has asked for it: a line for each
/// domain, and behind it one for each thing that it has.
extension DomainReport {
    package var frames: [ControlFrame] {
        func line(_ words: Any?...) -> ControlFrame {
            ControlFrame(.share, words.map { $0.map { "\($0)" } ?? "" }.joined(separator: "\t"))
        }
        func rights(_ isReadOnly: Bool) -> String { isReadOnly ? "ro" : "rw" }
        return [line("domain", id, name)]
            + grants.map {
                line("grant", $0.reference, $0.count, $0.mapper, rights($0.isReadOnly), $0.mappings, $0.uses)
            }
            + mappings.map {
                line(
                    "map", $0.granter, $0.reference, $0.count, rights($0.isReadOnly), $0.isSevered ? "severed" : "live")
            }
            + ports.map { line("port", $0.number, $0.kind, $0.remote, $0.remotePort, $0.sent) }
            + (omitted > 0 ? [line("more", omitted)] : [])
    }
}

/// Puts the lines together again.
package struct DomainReportReader {
    package private(set) var domains: [DomainReport] = []

    package init() {}

    /// False: that is no such line.
    package mutating func take(_ frame: ControlFrame) -> Bool {
        var words = frame.text.split(separator: "\t", omittingEmptySubsequences: false)[...]
        guard frame.kind == .share, let kind = words.popFirst() else { return false }
        func number<T: FixedWidthInteger>(_ index: Int, as type: T.Type = T.self) -> T? {
            words.dropFirst(index).first.flatMap { T($0) }
        }
        func word(_ index: Int) -> String { words.dropFirst(index).first.map(String.init) ?? "" }
        if kind == "domain" {
            guard words.count == 2, let id: UInt16 = number(0) else { return false }
            domains.append(DomainReport(id: id, name: word(1)))
            return true
        }
        guard let last = domains.indices.last else { return false }
        switch kind {
        case "grant":
            guard words.count == 6, let reference: UInt32 = number(0), let count: Int = number(1),
                let mapper: UInt16 = number(2), let mappings: Int = number(4), let uses: UInt64 = number(5)
            else { return false }
            domains[last].grants.append(
                DomainReport.Grant(
                    reference: reference, count: count, mapper: mapper, isReadOnly: word(3) == "ro",
                    mappings: mappings, uses: uses))
        case "map":
            guard words.count == 5, let granter: UInt16 = number(0), let reference: UInt32 = number(1),
                let count: Int = number(2)
            else { return false }
            domains[last].mappings.append(
                DomainReport.Mapping(
                    granter: granter, reference: reference, count: count, isReadOnly: word(3) == "ro",
                    isSevered: word(4) == "severed"))
        case "port":
            guard words.count == 5, let port: Int = number(0), let sent: UInt64 = number(4) else { return false }
            domains[last].ports.append(
                DomainReport.Port(number: port, kind: word(1), remote: number(2), remotePort: number(3), sent: sent))
        case "more":
            guard words.count == 1, let omitted: Int = number(0) else { return false }
            domains[last].omitted = omitted
        default: return false
        }
        return true
    }
}
