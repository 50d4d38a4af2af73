/// Pages in a row, all zeros at first, that another Guest may map: it is to be
/// told their references. When this is let go, nobody can map them any more; those
/// that the other has mapped wait until it has let go of them.
public struct GrantedPages: ~Copyable {
    /// Our own view of them.
    public let region: Region
    private let file: GrantFile
    private let index: UInt64

    /// - Parameter isWritable: whether the other may write to them.
    /// - Throws: `noSpace` above the limit, `noMemory` if there are not as many in a row.
    public init(_ count: Int, for domid: UInt16, isWritable: Bool) throws(GrantError) {
        precondition(count > 0)
        (file, index, region) = try Self.take(count, for: domid, isWritable)
    }

    private static func take(
        _ count: Int, for domid: UInt16, _ isWritable: Bool
    ) throws(GrantError) -> (GrantFile, UInt64, Region) {
        let file = try Grants.allocator.open()
        do throws(GrantError) {
            // Those that the other side has given back meanwhile are to be had, too.
            Grants.allocator.reap()
            guard Grants.allocator.backend.setAside(count) else { throw .noMemory }
            defer { Grants.allocator.backend.endRun() }
            let index = try Grants.allocator.allocate(UInt32(count), for: domid, writable: isWritable, in: file)
            let frame = try Grants.allocator.frame(at: index, in: file)
            return (file, index, Region(address: frame * UInt64(Pages.size), count: count * Pages.size))
        } catch {
            _ = try? Grants.allocator.close(file)
            throw error
        }
    }

    deinit { _ = try? Grants.allocator.close(file) }

    /// Ends the grants. Without it, the end of its scope does.
    public consuming func close() {}

    /// What the other side has to be told, about page `page`.
    public func reference(_ page: Int = 0) -> UInt32 {
        precondition(page >= 0 && page < region.count / Pages.size)
        guard let reference = try? Grants.allocator.reference(at: index + UInt64(page * Pages.size), in: file) else {
            panic("a page was lent, and is not in the accounts")
        }
        return reference
    }

    /// When this is let go, the byte at `offset` turns 0, and then the channel rings. Who
    /// has the page mapped can so tell that we have left; and if we die, it finds 0, too.
    public func tellEnd(byteAt offset: Int, ringing channel: borrowing EventChannel) {
        precondition(offset >= 0 && offset < region.count)
        do throws(GrantError) {
            try Grants.allocator.setUnmapNotify(
                index + UInt64(offset), action: GrantABI.UnmapNotify.clearByte | GrantABI.UnmapNotify.sendEvent,
                port: channel.port, in: file)
        } catch { panic("an event channel has more users than it can count") }
    }
}
