internal import CGuest

/// Memory for drivers and tables, a page or more at a time, from the end of
/// the program up. Nobody gives any back: whatever asks lives as long as the Guest.
public enum Pages {
    /// Of bytes.
    public static let size = 4096

    @safe private nonisolated(unsafe) static var next: UInt64 = 0
    @safe private nonisolated(unsafe) static var end: UInt64 = 0

    static func begin() {
        next = guest_address_of_end()
        end = Boot.freeEnd
    }

    /// Memory from `address` on is somebody else's: shared with other Guests, say.
    public static func stop(before address: UInt64) { end = min(end, address) }

    /// How many could still be taken.
    static var left: Int { end > next ? Int(end - next) / size : 0 }

    /// `count` pages in a row, all zeros. Ends the Guest if there are no more.
    public static func take(_ count: Int = 1) -> Region {
        let bytes = UInt64(count) * UInt64(size)
        guard end >= next, end - next >= bytes else { panic("out of memory") }
        let region = Region(address: next, count: Int(bytes))
        next += bytes
        region.fill()
        return region
    }
}
