package import HostInterface

//M:310 Code in a page that others write
//
// An engine keeps what it has decoded, and hears of every write to a page of
// which it has kept something: of the Guest's own stores, since the page is
// write-protected in its TLB, and of devices' and other Guests' DMA, since
// they announce it (`GuestMemory.noteWrite`). What it does not hear of is a
// plain store by another Guest into a page that both have mapped: that goes
// through the other engine's TLB, which knows nothing of our marks. A Guest
// that runs code out of shared memory, and has somebody else rewrite it
// there, may run what was there before; on real CPUs it would have to
// serialize (SDM 3A, 8.1.3), and then see the new. Nothing worse can come of
// it than that: translated or not, it is code of the Guest that runs it.
//
// For the same reason the engine `lockstep` is no judge of Guests that share:
// it runs a stretch twice, and the second time somebody else may have answered
// already.

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
//:
