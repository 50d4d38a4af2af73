package import HostInterface

//L:330 In which order metadata reaches the disk
//
// A new cluster is four writes: its data, its count, the L2 entry that leads
// to it, and perhaps the L1 entry that leads to that. Roost may be killed, or
// the Host lose its power, between any two of them, and a disk remembers no
// order but that of fdatasync(2). What may be left behind is a cluster that is
// counted and not used: a leak, which costs room. What may not be is the
// opposite, a cluster that is used and not counted, for it would be handed out
// again; nor an entry that leads to a cluster whose data never arrived. So:
//
//     data (it is there already), counts    │ fdatasync
//     L2 tables                             │ fdatasync, if L1 changes
//     L1 entries                            │ fdatasync, if clusters became free
//     counts of clusters that became free   │ the caller's fdatasync
//
// All tables stay in memory until somebody flushes: a Guest that writes for a
// minute and flushes once pays for this once. What a crash takes is what was
// written since, and a disk may lose that. And a cluster that became free is
// not handed out before the tables that led to it are gone from the disk:
// whoever came after the crash would find somebody else's data there.
//
// An fdatasync that fails is a promise that nobody can keep any more: Linux
// forgets what it could not write, and the next one succeeds. So the disk is
// broken from then on, and says so to every flush.

extension Qcow2Image {
    /// How many clusters may wait to be free.
    private static let retiredLimit = 1 << 16

    package var needsWriteBack: Bool {
        l2.isCrowded || refcounts?.isCrowded == true || retired.count > Self.retiredLimit
    }

    package func writeBack() throws(Errno) {
        guard let refcounts else { return }
        guard !storage.isBroken else { throw .inputOutput }
        guard refcounts.isDirty || l2.dirtyCount > 0 || !dirtyL1.isEmpty || !retired.isEmpty else { return }
        try refcounts.writeBack()
        try storage.synchronize()
        try l2.writeBack()
        if !dirtyL1.isEmpty {
            try storage.synchronize()
            for index in dirtyL1.sorted() {
                try storage.write([UInt8](bigEndian: l1[index]), at: header.l1Offset + UInt64(index) * 8)
            }
            dirtyL1 = []
        }
        guard !retired.isEmpty else { return }
        try storage.synchronize()
        for cluster in retired { release(cluster, refcounts) }
        retired = []
        forgetUnpacked()
        try refcounts.writeBack()
    }
}
//:
