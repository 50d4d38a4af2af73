/// Something that changes the tree, for now or to be done again when a transaction ends.
enum StoreOperation: Sendable {
    case write(StorePath, [UInt8])
    case makeDirectory(StorePath)
    case remove(StorePath)
    case setPermissions(StorePath, StorePermissions)

    var path: StorePath {
        switch self {
        case .write(let path, _), .makeDirectory(let path), .remove(let path), .setPermissions(let path, _): path
        }
    }
}

/// Something that watches may want to hear of.
struct StoreChange: Sendable {
    let path: StorePath
    /// It went with its parent, of which those who watch from above are told.
    var isSilentAbove = false
    /// Who may read one of these may know.
    let permissions: [StorePermissions]
}

extension StoreTree {
    /// Does it as `domid`.
    ///
    /// - Throws: and then nothing has changed.
    mutating func apply(
        _ operation: StoreOperation, by domid: UInt16, _ limits: StoreLimits
    ) throws(StoreError) -> [StoreChange] {
        switch operation {
        case .write(let path, let value): try write(path, value, by: domid, limits)
        case .makeDirectory(let path): try makeDirectory(path, by: domid, limits)
        case .remove(let path): try remove(path, by: domid)
        case .setPermissions(let path, let permissions): try setPermissions(path, permissions, by: domid)
        }
    }

    private mutating func write(
        _ path: StorePath, _ value: [UInt8], by domid: UInt16, _ limits: StoreLimits
    ) throws(StoreError) -> [StoreChange] {
        let names = path.names
        let (node, depth) = nearest(names)
        guard node.permissions.allows(.write, to: domid) else { throw .noAccess }
        guard value.count <= (domid == storeHost ? StoreMessage.mostPayload : limits.valueBytes) else { throw .noSpace }
        guard depth == names.count else { return try create(path, value, below: node, depth, by: domid, limits) }
        // Whoever writes it, its owner has it; and the host can have as much as it likes.
        let (owner, more) = (node.permissions.owner, StoreShare(bytes: value.count - node.value.count))
        let isFree = domid == storeHost || owner == storeHost || more.bytes <= 0
        guard isFree || share(of: owner).bytes + more.bytes <= limits.bytes else { throw .noSpace }
        replace(node, at: names, value: value)
        give(owner, more)
        return [StoreChange(path: path, permissions: [node.permissions])]
    }

    private mutating func makeDirectory(
        _ path: StorePath, by domid: UInt16, _ limits: StoreLimits
    ) throws(StoreError) -> [StoreChange] {
        let names = path.names
        let (node, depth) = nearest(names)
        guard node.permissions.allows(.write, to: domid) else { throw .noAccess }
        return depth == names.count ? [] : try create(path, [], below: node, depth, by: domid, limits)
    }

    /// A node with a value, and what is missing between it and `parent` without.
    private mutating func create(
        _ path: StorePath, _ value: [UInt8], below parent: StoreNode, _ depth: Int, by domid: UInt16,
        _ limits: StoreLimits
    ) throws(StoreError) -> [StoreChange] {
        let names = path.names
        let permissions = parent.permissions.inherited(by: domid)
        let missing = names[depth...]
        let more = StoreShare(nodes: missing.count, bytes: missing.reduce(value.count) { $0 + $1.utf8.count })
        guard names.count <= limits.depth else { throw .noSpace }
        guard domid == storeHost || (share(of: domid) + more).fits(limits) else { throw .noSpace }
        let generation = nextGeneration()
        var node = StoreNode(String(names[names.count - 1]), value, permissions, [], generation)
        for name in missing.dropLast().reversed() {
            node = StoreNode(String(name), [], permissions, [node], generation)
        }
        put(node, at: Array(names[...depth]))
        give(permissions.owner, more)
        return [StoreChange(path: path, permissions: [permissions])]
    }

    private mutating func replace(
        _ node: StoreNode, at names: [Substring], value: [UInt8]? = nil, permissions: StorePermissions? = nil
    ) {
        put(
            StoreNode(
                node.name, value ?? node.value, permissions ?? node.permissions, node.children, nextGeneration()),
            at: names)
    }

    private mutating func remove(_ path: StorePath, by domid: UInt16) throws(StoreError) -> [StoreChange] {
        guard path != .root else { throw .invalid }
        let names = path.names
        let (node, depth) = nearest(names)
        guard node.permissions.allows(.write, to: domid) else { throw .noAccess }
        guard depth == names.count else {
            // It is not there, which is what was wanted; if not even its parent is, something else is wrong.
            guard depth == names.count - 1 else { throw .notFound }
            return []
        }
        put(nil, at: names)
        return forget(node, at: path)
    }

    /// A node is out of the tree: none below it are owned by anybody now.
    private mutating func forget(_ node: StoreNode, at path: StorePath) -> [StoreChange] {
        var changes: [StoreChange] = []
        node.forEach(at: path) { path, node in
            changes.append(StoreChange(path: path, isSilentAbove: !changes.isEmpty, permissions: [node.permissions]))
            take(node.permissions.owner, node.share)
        }
        return changes
    }

    private mutating func setPermissions(
        _ path: StorePath, _ permissions: StorePermissions, by domid: UInt16
    ) throws(StoreError) -> [StoreChange] {
        let node = try node(path, for: .write, by: domid)
        guard node.permissions.isOwner(domid) else { throw .noAccess }
        // To give a node away would be to have somebody else pay for it.
        guard domid == storeHost || permissions.owner == domid else { throw .notPermitted }
        replace(node, at: path.names, permissions: permissions)
        take(node.permissions.owner, node.share)
        give(permissions.owner, node.share)
        return [StoreChange(path: path, permissions: [node.permissions, permissions])]
    }

    // MARK: When a domain has gone

    /// Removes a domain's home, and what it owns elsewhere; and nobody makes an exception for it any more. Its number
    /// will be another's.
    mutating func removeAll(of domid: UInt16) -> [StoreChange] {
        let home = StorePath.home(of: domid)
        var doomed: [StorePath] = []
        var others: [(StorePath, StorePermissions)] = []
        collect(root, at: .root) { path, node in
            if path == home || node.permissions.owner == domid {
                doomed.append(path)
                return false
            }
            if let permissions = node.permissions.forgetting(domid) { others.append((path, permissions)) }
            return true
        }
        var changes: [StoreChange] = []
        for path in doomed { changes += (try? remove(path, by: storeHost)) ?? [] }
        for (path, permissions) in others {
            guard let node = node(path) else { continue }
            replace(node, at: path.names, permissions: permissions)
        }
        return changes
    }

    /// Parents first; below a node only if `body` says so.
    private func collect(_ node: StoreNode, at path: StorePath, _ body: (StorePath, StoreNode) -> Bool) {
        guard body(path, node) else { return }
        for child in node.children { collect(child, at: path.appending(child.name), body) }
    }
}
