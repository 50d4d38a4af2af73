package import HostInterface

/// Writing: a cluster that is not ours alone gets a place of its own.
extension Qcow2Image {
    /// An entry of an L2 table that leads elsewhere now.
    private struct Move {
        let table: Table
        let index: Int
        let oldEntry: UInt64
        let old: Mapping
        /// The new place; nil if it is the one that was kept for the cluster.
        let place: UInt64?
    }

    package func allocate(_ offset: UInt64, count: Int, into extents: inout [Extent]) throws(Errno) {
        guard count >= 0 else { throw .invalid }
        let refcounts = try prepareToWrite(offset, UInt64(count))
        var moves: [Move] = []
        var found: [Extent] = []
        do throws(Errno) {
            var position = offset
            let end = offset + UInt64(count)
            while position < end {
                let within = Int(position & storage.offsetMask)
                let step = Int(min(end - position, UInt64(storage.clusterSize - within)))
                let host = try hostForWriting(position, step, &moves, refcounts)
                found.add(.file(descriptor: descriptor, offset: host + UInt64(within), count: step))
                position += UInt64(step)
            }
            if let last = moves.compactMap(\.place).max() { try storage.extend(to: last + UInt64(storage.clusterSize)) }
        } catch {
            // One that fails half-way leaves the disk as it was.
            for move in moves {
                l2.put(move.oldEntry, at: move.index * 8, in: move.table)
                if let place = move.place { release(place >> UInt64(header.clusterBits), refcounts) }
            }
            throw error
        }
        for move in moves where move.place != nil { retire(move.old) }
        for extent in found { extents.add(extent) }
    }

    /// The place of one cluster, of which `count` bytes from `offset` on are about to be written.
    private func hostForWriting(
        _ offset: UInt64, _ count: Int, _ moves: inout [Move], _ refcounts: Refcounts
    ) throws(Errno) -> UInt64 {
        let table = try tableForWriting(l1Index(offset), refcounts)
        let index = l2Index(offset)
        let oldEntry = table[index]
        let old = try mapping(of: oldEntry)
        let host: UInt64
        let isNew: Bool
        switch old {
        case .data(let place, isOurs: true), .zero(let place?, isOurs: true):
            guard !refcounts.isStructure(at: place), !l2Places.contains(place) else { throw .inputOutput }
            if case .data = old { return place }
            (host, isNew) = (place, false)
        case .unallocated, .zero, .data, .compressed:
            (host, isNew) = (try newCluster(refcounts), true)
        }
        do throws(Errno) { try fillEdges(offset, count, at: host) } catch {
            if isNew { release(host >> UInt64(header.clusterBits), refcounts) }
            throw error
        }
        l2.put(host | Entry.ours, at: index * 8, in: table)
        moves.append(Move(table: table, index: index, oldEntry: oldEntry, old: old, place: isNew ? host : nil))
        return host
    }

    private func newCluster(_ refcounts: Refcounts) throws(Errno) -> UInt64 {
        let place = try refcounts.allocate()
        // Free, says its count, which is right only now.
        guard !l2Places.contains(place) else { throw .inputOutput }
        return place
    }

    /// What every change of the disk begins with.
    func prepareToWrite(_ offset: UInt64, _ count: UInt64) throws(Errno) -> Refcounts {
        guard let refcounts else { throw .readOnly }
        guard contains(offset, count) else { throw .invalid }
        guard !storage.isBroken else { throw .inputOutput }
        if hasAutoclearFeatures {
            // Such as bitmaps of what has changed: by these bits their owners learn that somebody else wrote.
            try storage.write([UInt8](repeating: 0, count: 8), at: Qcow2Header.Field.autoclearFeatures)
            hasAutoclearFeatures = false
        }
        return refcounts
    }

    /// The L2 table of an L1 entry, made if there is none, copied if a snapshot has it, too.
    func tableForWriting(_ index: Int, _ refcounts: Refcounts) throws(Errno) -> Table {
        let entry = l1[index]
        if entry & Entry.ours != 0 {
            guard !refcounts.isStructure(at: entry & Entry.offsetMask) else { throw .inputOutput }
            return try table(entry)
        }
        let old = entry == 0 ? nil : try table(entry)
        let place = try newCluster(refcounts)
        let table = l2.create(at: place, bytes: old?.bytes)
        // The clusters that both tables lead to have been counted twice, and are marked so, since the snapshot.
        if let old { retired.append(old.offset >> UInt64(header.clusterBits)) }
        l1[index] = place | Entry.ours
        l2Places.insert(place)
        dirtyL1.insert(index)
        return table
    }

    /// Gives a cluster's new place what the disk has around `count` bytes that are about to be written.
    private func fillEdges(_ offset: UInt64, _ count: Int, at host: UInt64) throws(Errno) {
        let isFresh = host >= storage.end
        let start = offset & ~storage.offsetMask
        let end = offset + UInt64(count)
        for edge in [start..<offset, end..<start + UInt64(storage.clusterSize)] where !edge.isEmpty {
            let place = host + (edge.lowerBound - start)
            // The last cluster may go on past the disk's end.
            let known = min(edge.upperBound, byteCount) - min(edge.lowerBound, byteCount)
            var old: [Extent] = []
            if known > 0 { try locate(edge.lowerBound, count: Int(known), into: &old) }
            old.add(.zeros(count: edge.count - Int(known)))
            if case .zeros = old[0], old.count == 1 {
                if !isFresh { try storage.writeZeros(at: place, count: edge.count) }
            } else {
                try storage.write(try old.contents(), at: place)
            }
        }
    }

    /// Notes that the disk uses clusters of the file no more.
    func retire(_ old: Mapping) {
        switch old {
        case .unallocated, .zero(host: nil, _): break
        case .data(let host, _), .zero(let host?, _): retired.append(host >> UInt64(header.clusterBits))
        case .compressed(let cluster): retired += cluster.clusters(header.clusterBits)
        }
    }

    /// One user of the cluster less. Where the counts cannot be read or make
    /// no sense the cluster is lost to the file, and no more harm done.
    func release(_ cluster: UInt64, _ refcounts: Refcounts) {
        guard let isFree = try? refcounts.release(cluster), isFree else { return }
        let offset = cluster << UInt64(header.clusterBits)
        l2.remove(offset)
        l2Places.remove(offset)
        try? storage.file.punchHole(at: offset, count: UInt64(storage.clusterSize))
    }
}
