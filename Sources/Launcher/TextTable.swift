/// Rows whose columns stand below each other.
package struct TextTable {
    private var rows: [[String]]

    package init(_ header: [String]) { rows = [header] }

    package mutating func append(_ row: [String]) { rows.append(row) }
    package var isEmpty: Bool { rows.count == 1 }

    /// Lines, each with its end; nothing stands behind the last word.
    package var text: String {
        let widths = rows[0].indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
        return rows.map { row in
            let line = zip(row, widths).map { $0 + String(repeating: " ", count: $1 - $0.count) }.joined(
                separator: "  ")
            return String(line.reversed().drop { $0 == " " }.reversed()) + "\n"
        }.joined()
    }
}
