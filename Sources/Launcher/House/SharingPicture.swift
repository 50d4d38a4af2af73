package import Grants

/// The same as a picture: each Guest a box, in it the pages that it grants or
/// has and its bells; lines lead to where the pages are seen and the bells ring.
package struct SharingPicture {
    private enum Size {
        static let box = 290, gap = 150, row = 34, head = 44, margin = 24
    }

    /// A row of a box.
    private struct Row {
        let text: String
        let style: String
        /// What the ends of a line have in common; the first end says how it is drawn.
        let line: (key: String, style: String, isStart: Bool)?
    }

    private let domains: [DomainReport]

    package init(_ domains: [DomainReport]) { self.domains = domains }

    private func pages(_ count: Int) -> String { count == 1 ? "1 page" : "\(count) pages" }

    private func name(_ id: UInt16) -> String { domains.first { $0.id == id }?.name ?? "domain \(id)" }

    private func rows(_ domain: DomainReport) -> [Row] {
        var rows: [Row] = []
        for grant in domain.grants {
            let isMapped = grant.mappings > 0
            rows.append(
                Row(
                    text:
                        "\(pages(grant.count)) for \(name(grant.mapper)), \(grant.isReadOnly ? "to read" : "to write"), "
                        + "used \(grant.uses)×",
                    style: isMapped ? "granted" : "idle",
                    line: isMapped ? ("\(domain.id)>\(grant.mapper)/\(grant.reference)", "page", true) : nil))
        }
        for mapping in domain.mappings {
            // The entry of the granter's that it is a part of.
            let grant = domains.first { $0.id == mapping.granter }?.grants.first {
                $0.mapper == domain.id && $0.mappings > 0 && mapping.reference >= $0.reference
                    && mapping.reference < $0.reference + UInt32($0.count)
            }
            let text = "\(pages(mapping.count)) of \(name(mapping.granter)), \(mapping.isReadOnly ? "read" : "write")"
            rows.append(
                Row(
                    text: mapping.isSevered ? "\(pages(mapping.count)) of nobody any more" : text,
                    style: mapping.isSevered ? "severed" : "mapped",
                    line: mapping.isSevered
                        ? nil
                        : grant.map { ("\(mapping.granter)>\(domain.id)/\($0.reference)", "page", false) }))
        }
        for port in domain.ports {
            guard let remote = port.remote else { continue }
            let ends = [(domain.id, port.number), (remote, port.remotePort ?? -1)].sorted { $0 < $1 }
            let key = ends.map { "\($0.0):\($0.1)" }.joined(separator: "=")
            rows.append(
                Row(
                    text: port.remotePort == nil
                        ? "bell \(port.number), for \(name(remote))" : "bell \(port.number), rung \(port.sent)×",
                    style: "bell",
                    line: port.remotePort == nil
                        ? nil : (key, "ring", ends[0] == (domain.id, port.number))))
        }
        return rows
    }

    /// An SVG document.
    package var text: String {
        let columns = domains.map(rows)
        let height = Size.head + Size.row * max(1, columns.map(\.count).max() ?? 1) + 2 * Size.margin
        let width = max(1, domains.count) * (Size.box + Size.gap) - Size.gap + 2 * Size.margin
        var boxes = "", lines = ""
        var ends: [String: [(x: Int, y: Int, style: String, isStart: Bool)]] = [:]
        for (column, domain) in domains.enumerated() {
            let x = Size.margin + column * (Size.box + Size.gap)
            let boxHeight = Size.head + Size.row * max(1, columns[column].count)
            boxes +=
                "<rect class=\"guest\" x=\"\(x)\" y=\"\(Size.margin)\" width=\"\(Size.box)\" height=\"\(boxHeight)\" rx=\"8\"/>\n"
            boxes += "<text class=\"name\" x=\"\(x + 12)\" y=\"\(Size.margin + 27)\">\(escaped(domain.name))</text>\n"
            boxes +=
                "<text class=\"number\" x=\"\(x + Size.box - 12)\" y=\"\(Size.margin + 27)\">domain \(domain.id)</text>\n"
            for (index, row) in columns[column].enumerated() {
                let y = Size.margin + Size.head + index * Size.row
                boxes +=
                    "<rect class=\"\(row.style)\" x=\"\(x + 8)\" y=\"\(y)\" width=\"\(Size.box - 16)\" height=\"\(Size.row - 8)\" rx=\"4\"/>\n"
                boxes += "<text x=\"\(x + 16)\" y=\"\(y + 17)\">\(escaped(row.text))</text>\n"
                guard let line = row.line else { continue }
                ends[line.key, default: []].append((x, y + (Size.row - 8) / 2, line.style, line.isStart))
            }
        }
        for key in ends.keys.sorted() {
            guard let all = ends[key], let start = all.first(where: \.isStart) else { continue }
            for end in all where !end.isStart {
                let goesRight = end.x >= start.x
                let from = start.x + (goesRight ? Size.box : 0), to = end.x + (goesRight ? 0 : Size.box)
                let bend = goesRight ? Size.gap / 2 : -Size.gap / 2
                lines +=
                    "<path class=\"\(start.style)\" d=\"M\(from) \(start.y) C\(from + bend) \(start.y) \(to - bend) \(end.y) \(to) \(end.y)\"/>\n"
            }
        }
        return """
            <svg xmlns="http://www.w3.org/2000/svg" width="\(width)" height="\(height)" viewBox="0 0 \(width) \(height)">
            <style>
            text { font: 12px sans-serif; fill: #222 } .name { font-weight: bold; font-size: 16px }
            .number { text-anchor: end; fill: #666 } .guest { fill: #fafafa; stroke: #444 }
            .granted { fill: #cfe8cf } .mapped { fill: #d5e3f7 } .idle { fill: #eee } .severed { fill: #f3d0d0 }
            .bell { fill: #fbeec2 } path { fill: none; stroke-width: 2 }
            .page { stroke: #3a7d44 } .ring { stroke: #c08a00; stroke-dasharray: 5 4 }
            </style>
            <rect width="100%" height="100%" fill="white"/>
            \(lines)\(boxes)</svg>

            """
    }

    private func escaped(_ text: String) -> String {
        text.replacing("&", with: "&amp;").replacing("<", with: "&lt;").replacing(">", with: "&gt;")
    }
}
