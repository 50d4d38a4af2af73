package import HostInterface

/// Zeros, which a table can say in one bit.
extension Qcow2Image {
    package func writeZeroes(_ offset: UInt64, count: UInt64, mayUnmap: Bool) throws(Errno) {
        let refcounts = try prepareToWrite(offset, count)
        try forEachCluster(offset, count) { position, step, isWhole throws(Errno) in
            let old = try mapping(position)
            if case .zero = old { return true }
            if case .unallocated = old, readsZerosBelow(position) { return true }
            if isWhole, try setZero(position, old, keepingPlace: !mayUnmap, refcounts) { return true }
            var extents: [Extent] = []
            try allocate(position, count: step, into: &extents)
            for case .file(_, let place, let count) in extents { try storage.writeZeros(at: place, count: count) }
            return true
        }
    }

    package func discard(_ offset: UInt64, count: UInt64) throws(Errno) {
        let refcounts = try prepareToWrite(offset, count)
        try forEachCluster(offset, count) { position, _, isWhole throws(Errno) in
            guard isWhole else { return true }
            let old = try mapping(position)
            switch old {
            case .unallocated, .zero(host: nil, _): break
            case .zero, .data, .compressed: _ = try setZero(position, old, keepingPlace: false, refcounts)
            }
            // It is a hint: rather than to fill the memory, forget the rest of it.
            return !needsWriteBack
        }
    }

    /// Makes a cluster zeros by its table entry, if the version of the format can say that.
    private func setZero(
        _ offset: UInt64, _ old: Mapping, keepingPlace: Bool, _ refcounts: Refcounts
    ) throws(Errno) -> Bool {
        var entry = Entry.zero
        if header.version < 3 {
            // No entry at all is as good where nothing shines through.
            guard !keepingPlace, readsZerosBelow(offset & ~storage.offsetMask) else { return false }
            entry = 0
        }
        let table = try tableForWriting(l1Index(offset), refcounts)
        if keepingPlace, case .data(let host, isOurs: true) = old {
            entry |= host | Entry.ours
        } else {
            retire(old)
        }
        l2.put(entry, at: l2Index(offset) * 8, in: table)
        return true
    }

    private func readsZerosBelow(_ offset: UInt64) -> Bool {
        guard let backing, offset < backing.byteCount else { return true }
        return false
    }

    /// Calls `body` for each cluster with what of it is meant, and whether
    /// that is all that the disk has of it; until it says no. Skips what has
    /// no L2 table and nothing below: most of most disks.
    private func forEachCluster(
        _ offset: UInt64, _ count: UInt64, _ body: (UInt64, Int, Bool) throws(Errno) -> Bool
    ) throws(Errno) {
        var position = offset
        let end = offset + count
        while position < end {
            if l1[l1Index(position)] == 0, readsZerosBelow(position) {
                position = (position >> UInt64(l2Bits) + 1) << UInt64(l2Bits)
                continue
            }
            let within = position & storage.offsetMask
            let step = min(end - position, UInt64(storage.clusterSize) - within)
            let isWhole = within == 0 && (step == UInt64(storage.clusterSize) || position + step == byteCount)
            guard try body(position, Int(step), isWhole) else { return }
            position += step
        }
    }
}
