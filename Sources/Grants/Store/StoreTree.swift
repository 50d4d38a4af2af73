//D:318 A tree that nobody changes
//
// A transaction must see the store as it was when it began, for as long as it
// takes, and the Guest decides how long that is. So a node never changes once
// it is made. To write a value is to make a new node, and a new parent that
// has it instead of the old one, and so on up to a new root; everything beside
// that path is shared. A snapshot is then a reference to a root, and a request
// that fails halfway has not happened: its root is let go.
//
// Each node has a generation: when its value, its permissions or the list of
// its children changed last. A child's own changes are not its parent's.

final class StoreNode: Sendable {
    /// In its parent.
    let name: String
    let value: [UInt8]
    let permissions: StorePermissions
    /// In the order of their names.
    let children: [StoreNode]
    let generation: UInt64

    init(
        _ name: String, _ value: [UInt8], _ permissions: StorePermissions, _ children: [StoreNode], _ generation: UInt64
    ) {
        (self.name, self.value, self.permissions) = (name, value, permissions)
        (self.children, self.generation) = (children, generation)
    }

    /// Itself, without its children.
    var share: StoreShare { StoreShare(nodes: 1, bytes: name.utf8.count + value.count) }

    /// Where a child is, or would be.
    private func find(_ name: Substring) -> (index: Int, isThere: Bool) {
        var (low, high) = (0, children.count)
        while low < high {
            let middle = (low + high) / 2
            if children[middle].name < name { low = middle + 1 } else { high = middle }
        }
        return (low, low < children.count && children[low].name == name)
    }

    func child(_ name: Substring) -> StoreNode? {
        let (index, isThere) = find(name)
        return isThere ? children[index] : nil
    }

    /// With another child, or none, of that name.
    func replacing(_ name: Substring, with child: StoreNode?, _ generation: UInt64) -> StoreNode {
        let (index, isThere) = find(name)
        var children = children
        children.replaceSubrange(index..<(isThere ? index + 1 : index), with: child.map { [$0] } ?? [])
        // A child that only changes is still in the list.
        let isSameList = isThere == (child != nil)
        return StoreNode(self.name, value, permissions, children, isSameList ? self.generation : generation)
    }

    /// The node and all below it, parents first.
    func forEach(at path: StorePath, _ body: (StorePath, StoreNode) -> Void) {
        body(path, self)
        for child in children { child.forEach(at: path.appending(child.name), body) }
    }
}

/// How much there is of some nodes, for quotas.
struct StoreShare: Sendable, Equatable {
    var nodes = 0
    /// Of names and values.
    var bytes = 0

    static func + (left: StoreShare, right: StoreShare) -> StoreShare {
        StoreShare(nodes: left.nodes + right.nodes, bytes: left.bytes + right.bytes)
    }

    func fits(_ limits: StoreLimits) -> Bool { nodes <= limits.nodes && bytes <= limits.bytes }
}

/// A store's content. A copy is a snapshot, and costs nothing.
struct StoreTree: Sendable {
    private(set) var root = StoreNode("", [], StorePermissions(owner: storeHost), [], 0)
    /// What each domain owns.
    private var shares: [UInt16: StoreShare] = [storeHost: StoreShare(nodes: 1)]
    private var generation: UInt64 = 0

    mutating func nextGeneration() -> UInt64 {
        generation += 1
        return generation
    }

    /// The node at the end of a path, or the last on the way there, and how many names it took.
    func nearest(_ names: [Substring]) -> (node: StoreNode, depth: Int) {
        var node = root
        for (depth, name) in names.enumerated() {
            guard let child = node.child(name) else { return (node, depth) }
            node = child
        }
        return (node, names.count)
    }

    func node(_ path: StorePath) -> StoreNode? {
        let names = path.names
        let (node, depth) = nearest(names)
        return depth == names.count ? node : nil
    }

    /// The node, for one who wants to do that with it.
    ///
    /// - Throws: EACCES, also where there is no node and the one above may not be accessed so; ENOENT.
    func node(_ path: StorePath, for access: StoreAccess, by domid: UInt16) throws(StoreError) -> StoreNode {
        let names = path.names
        let (node, depth) = nearest(names)
        guard node.permissions.allows(access, to: domid) else { throw .noAccess }
        guard depth == names.count else { throw .notFound }
        return node
    }

    func share(of domid: UInt16) -> StoreShare { shares[domid] ?? StoreShare() }

    /// Puts a node, or nothing, where its parent exists. Who owns what has been counted.
    mutating func put(_ node: StoreNode?, at names: [Substring]) {
        var spine = [root]
        for name in names.dropLast() {
            guard let child = spine[spine.count - 1].child(name) else { return }
            spine.append(child)
        }
        let generation = nextGeneration()
        var node = node
        for (parent, name) in zip(spine, names).reversed() { node = parent.replacing(name, with: node, generation) }
        if let node { root = node }
    }

    mutating func give(_ owner: UInt16, _ more: StoreShare) {
        let share = share(of: owner) + more
        shares[owner] = share == StoreShare() ? nil : share
    }

    mutating func take(_ owner: UInt16, _ less: StoreShare) {
        give(owner, StoreShare(nodes: -less.nodes, bytes: -less.bytes))
    }
}
//:
