//D:320 As if nobody else were there
//
// Between TRANSACTION_START and TRANSACTION_END a Guest works on a snapshot
// with its own changes in it, and nobody sees those. At the end they become
// true all at once, or not at all: if something that the transaction has
// relied on is not as it was, it is told EAGAIN and is expected to do
// everything again, from the start. libxenvchan does so in a loop.
//
// What has it relied on? For each path that it named, on the node there; and
// if there was none, on the last node on the way, whose list of children says
// so. Those, with their generations in the snapshot, are written down. At the
// end each must have the same generation in the store as it is now, and then
// the changes are done once more, to the store: they do what they did before,
// because everything that they look at is the same. The only thing that can
// still be in their way is the quota, which counts nodes that the transaction
// never looked at.
//
// Two that create different children of the same node are in each other's way,
// as they are in xenstored. That costs the second one a repetition.

struct StoreTransaction {
    private let base: StoreTree
    /// The snapshot, with the changes.
    private(set) var tree: StoreTree
    private var operations: [StoreOperation] = []
    /// What was relied on, with the generation that it had.
    private var touched: [StorePath: UInt64] = [:]

    init(_ tree: StoreTree) { (base, self.tree) = (tree, tree) }

    /// Notes that what is said about a path depends on what is there.
    ///
    /// - Throws: ENOSPC for more than a transaction may look at.
    mutating func touch(_ path: StorePath, _ limits: StoreLimits) throws(StoreError) {
        let (node, depth) = base.nearest(path.names)
        let place = path.prefix(depth)
        guard touched[place] == nil else { return }
        guard touched.count < limits.transactionSteps else { throw .noSpace }
        touched[place] = node.generation
    }

    /// Does something, for itself.
    mutating func apply(_ operation: StoreOperation, by domid: UInt16, _ limits: StoreLimits) throws(StoreError) {
        guard operations.count < limits.transactionSteps else { throw .noSpace }
        try touch(operation.path, limits)
        _ = try tree.apply(operation, by: domid, limits)
        operations.append(operation)
    }

    /// Makes it true.
    ///
    /// - Throws: EAGAIN, or ENOSPC; then nothing of it is.
    func commit(to store: inout StoreTree, by domid: UInt16, _ limits: StoreLimits) throws(StoreError) -> [StoreChange]
    {
        for (path, generation) in touched where store.node(path)?.generation != generation { throw .tryAgain }
        var tree = store
        var changes: [StoreChange] = []
        for operation in operations { changes += try tree.apply(operation, by: domid, limits) }
        store = tree
        return changes
    }
}
//:
