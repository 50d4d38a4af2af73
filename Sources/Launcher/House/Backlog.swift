/// The end of what a Guest has printed, for those who look at its console.
/// Each of them knows how far it has read; one that falls behind by more than
/// is kept has lost something, and is told so.
package struct Backlog {
    /// What is kept at the least, once there has been so much.
    package static let kept = 1 << 20
    /// What is shown to somebody who comes.
    package static let shown = 16 << 10

    private var bytes: [UInt8] = []
    /// How many were dropped from the front.
    private var start = 0

    package init() {}

    /// All that was ever printed, in bytes.
    package var end: Int { start + bytes.count }

    package mutating func append(_ new: [UInt8]) {
        bytes += new
        // Cut rarely: moving a megabyte for each byte would be dear.
        guard bytes.count > 2 * Self.kept else { return }
        start += bytes.count - Self.kept
        bytes.removeFirst(bytes.count - Self.kept)
    }

    /// Where to begin for somebody who comes: at the start of a line, if there is one.
    package var beginning: Int {
        let first = max(0, bytes.count - Self.shown)
        guard start + first > 0 else { return 0 }
        guard let newline = bytes[first...].firstIndex(of: 0x0a) else { return start + first }
        return start + newline + 1
    }

    /// What there is from `offset` on, no more than `limit`; nil if some of that is gone.
    package func read(from offset: Int, limit: Int) -> ArraySlice<UInt8>? {
        guard offset >= start, offset <= end else { return nil }
        return bytes[(offset - start)...].prefix(limit)
    }
}
