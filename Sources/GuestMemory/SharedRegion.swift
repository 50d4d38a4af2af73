package import HostInterface

/// Memory that is not one Guest's: each that maps it sees the same bytes, at
/// an address of its own.
package final class SharedRegion: Sendable {
    let file: MemoryFile
    let place: MemoryPlace
    package let byteCount: Int

    /// - Parameter byteCount: a multiple of 4096. The bytes are zero.
    package init(name: String, byteCount: Int) throws(HostError) {
        precondition(byteCount > 0 && byteCount % 4096 == 0)
        file = try MemoryFile(name: name, byteCount: byteCount)
        place = try file.place
        self.byteCount = byteCount
    }
}
