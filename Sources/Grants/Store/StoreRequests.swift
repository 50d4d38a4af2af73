//D:340 What can be asked
//
// One function for each request, each with the same three sources of truth:
// the payload, which may be anything; the caller, of which only the number
// counts; and the tree, which is the transaction's if the request names one.
// What it throws becomes the reply. There is no request that gets none and
// none that gets two, because a Guest's boot waits for each of them with its
// lock held: Linux asks a few things before it has even printed that it runs
// on Xen, and does not mind to be told no.
//
// What only a toolstack may ask, about domains that come and go, is not
// here: the house tells the store of its Guests by itself.

/// What comes of a request that is granted.
struct StoreAnswer {
    var payload: [UInt8] = "OK".withNUL
    var changes: [StoreChange] = []
    /// Fires at once.
    var newWatch: StoreWatch?
}

extension StoreState {
    mutating func perform(_ request: StoreMessage, on connection: StoreConnection) throws(StoreError) -> StoreAnswer {
        guard let type = StoreMessageType(rawValue: request.type) else { throw .notSupported }
        if request.transactionID != 0, connection.transactions[request.transactionID] == nil { throw .notFound }
        switch type {
        case .read: return StoreAnswer(payload: try look(request, connection).value)
        case .directory: return try directory(request, connection)
        case .directoryPart: return try directoryPart(request, connection)
        case .getPermissions:
            return StoreAnswer(payload: try look(request, connection).permissions.texts.flatMap(\.withNUL))
        case .write:
            let (path, value) = try request.stringAndBytes()
            return try change(.write(StorePath(path, of: connection.domid), value), request, connection)
        case .makeDirectory:
            return try change(.makeDirectory(path(request, connection)), request, connection)
        case .remove:
            return try change(.remove(path(request, connection)), request, connection)
        case .setPermissions: return try setPermissions(request, connection)
        case .watch:
            let watch = try watch(request, connection)
            try watches.add(watch, limits)
            return StoreAnswer(newWatch: watch)
        case .unwatch:
            try watches.remove(watch(request, connection))
            return StoreAnswer()
        case .resetWatches:
            watches.removeAll(of: connection.domid)
            connection.transactions.removeAll()
            return StoreAnswer()
        case .transactionStart:
            guard request.transactionID == 0 else { throw .busy }
            let id = try connection.begin(StoreTransaction(tree), limits)
            return StoreAnswer(payload: "\(id)".withNUL)
        case .transactionEnd: return try endTransaction(request, connection)
        case .getDomainPath:
            return StoreAnswer(payload: StorePath.home(of: try decimal(request.string(), as: UInt16.self)).text.withNUL)
        case .isDomainIntroduced:
            let domid = try decimal(request.string(), as: UInt16.self)
            return StoreAnswer(payload: (domid == storeHost || connections[domid] != nil ? "T" : "F").withNUL)
        case .control: throw .noAccess
        case .introduce, .release, .resume, .setTarget, .watchEvent, .error: throw .notSupported
        }
    }

    // MARK: Looking

    private func path(_ request: StoreMessage, _ connection: StoreConnection) throws(StoreError) -> StorePath {
        try StorePath(request.string(), of: connection.domid)
    }

    /// The node that a request's only string names.
    private func look(_ request: StoreMessage, _ connection: StoreConnection) throws(StoreError) -> StoreNode {
        try look(path(request, connection), request, connection)
    }

    private func look(
        _ path: StorePath, _ request: StoreMessage, _ connection: StoreConnection
    ) throws(StoreError) -> StoreNode {
        try connection.transactions[request.transactionID]?.touch(path, limits)
        let tree = connection.transactions[request.transactionID]?.tree ?? tree
        return try tree.node(path, for: .read, by: connection.domid)
    }

    private func directory(_ request: StoreMessage, _ connection: StoreConnection) throws(StoreError) -> StoreAnswer {
        let names = try look(request, connection).children.flatMap(\.name.withNUL)
        guard names.count <= StoreMessage.mostPayload else { throw .tooBig }
        return StoreAnswer(payload: names)
    }

    /// A part of a list too long for one message, from an offset in bytes on: the generation, by which the asker sees
    /// whether it is still the same list; names, and behind the last of all an empty one.
    private func directoryPart(
        _ request: StoreMessage, _ connection: StoreConnection
    ) throws(StoreError) -> StoreAnswer {
        let strings = try request.strings(2, 2)
        let offset = try decimal(strings[1], as: UInt32.self)
        let node = try look(StorePath(strings[0], of: connection.domid), request, connection)
        var payload = "\(node.generation)".withNUL
        var place = 0
        for child in node.children {
            let name = child.name.withNUL
            if place >= offset {
                guard payload.count + name.count < StoreMessage.mostPayload else {
                    return StoreAnswer(payload: payload)
                }
                payload += name
            }
            place += name.count
        }
        return StoreAnswer(payload: payload + [0])
    }

    // MARK: Changing

    private mutating func change(
        _ operation: StoreOperation, _ request: StoreMessage, _ connection: StoreConnection
    ) throws(StoreError) -> StoreAnswer {
        guard request.transactionID != 0 else {
            return StoreAnswer(changes: try tree.apply(operation, by: connection.domid, limits))
        }
        try connection.transactions[request.transactionID]?.apply(operation, by: connection.domid, limits)
        return StoreAnswer()
    }

    private mutating func setPermissions(
        _ request: StoreMessage, _ connection: StoreConnection
    ) throws(StoreError) -> StoreAnswer {
        let strings = try request.strings(2, .max)
        let permissions = try StorePermissions(strings.dropFirst())
        let path = try StorePath(strings[0], of: connection.domid)
        guard permissions.count <= limits.permissions else { throw .noSpace }
        return try change(.setPermissions(path, permissions), request, connection)
    }

    private func watch(_ request: StoreMessage, _ connection: StoreConnection) throws(StoreError) -> StoreWatch {
        let strings = try request.strings(2, 2)
        return try StoreWatch(strings[0], token: strings[1], of: connection.domid)
    }

    private mutating func endTransaction(
        _ request: StoreMessage, _ connection: StoreConnection
    ) throws(StoreError) -> StoreAnswer {
        let isWanted: Bool
        switch Array(try request.string()) {
        case Array("T".utf8): isWanted = true
        case Array("F".utf8): isWanted = false
        default: throw .invalid
        }
        guard let transaction = connection.transactions.removeValue(forKey: request.transactionID) else {
            throw .notFound
        }
        guard isWanted else { return StoreAnswer() }
        do throws(StoreError) {
            let changes = try transaction.commit(to: &tree, by: connection.domid, limits)
            statistics.commits += 1
            return StoreAnswer(changes: changes)
        } catch {
            if error == .tryAgain { statistics.conflicts += 1 }
            throw error
        }
    }
}
//:
