/// Runs of things that are numbered, some of which are taken: a bit for each.
struct RunMap<let words: Int> {
    private var taken = InlineArray<words, UInt64>(repeating: 0)

    /// The first `count` in a row that are free, below `limit`; nil if there are none. They are taken then.
    mutating func take(_ count: Int, below limit: Int) -> Int? {
        var start = 0
        var index = 0
        while index < min(limit, words * 64) {
            if isTaken(index) { start = index + 1 }
            index += 1
            if index - start == count {
                for place in start..<index { taken[place / 64] |= 1 << UInt64(place % 64) }
                return start
            }
        }
        return nil
    }

    mutating func give(_ index: Int) { taken[index / 64] &= ~(1 << UInt64(index % 64)) }

    private func isTaken(_ index: Int) -> Bool { taken[index / 64] & 1 << UInt64(index % 64) != 0 }
}

/// Addresses above memory and devices, for pages that are Xen's or another Guest's.
enum XenWindow {
    static let storePlace = 0
    static let sharedInfoPlace = 1
    static let grantTablePlace = 2
    /// Frames of the table, at most: entries for 16384 pages.
    static let mostGrantFrames = 32
    private static let firstForeign = grantTablePlace + mostGrantFrames
    /// Pages of others: the Host gives nobody more. A quarter of the window has room for them.
    static let mostForeign = 8192

    private static let largePage: UInt64 = 2 << 20
    @safe nonisolated(unsafe) private static var start: UInt64 = 0
    @safe nonisolated(unsafe) private static var foreign = RunMap<128>()

    /// Where page `place` of the window is. It is mapped from then on.
    static func page(_ place: Int) -> Region { pages(place, 1) }

    private static func pages(_ place: Int, _ count: Int) -> Region {
        if start == 0 { start = (LguestBus.end + largePage - 1) / largePage * largePage }
        let region = Region(address: start + UInt64(place * Pages.size), count: count * Pages.size)
        Paging.map(region.address..<region.address + UInt64(region.count))
        return region
    }

    /// Room for `count` pages of others in a row; nil if there is none.
    static func takeForeign(_ count: Int) -> Region? {
        guard let first = foreign.take(count, below: mostForeign) else { return nil }
        return pages(firstForeign + first, count)
    }

    static func giveForeign(_ address: UInt64) { foreign.give(foreignIndex(address)) }

    /// Which of those that `takeForeign` can give.
    static func foreignIndex(_ address: UInt64) -> Int { Int(address - start) / Pages.size - firstForeign }
}
