/// Everything that the store's lock guards.
struct StoreState {
    let limits: StoreLimits
    var tree = StoreTree()
    var watches = StoreWatches()
    var statistics = StoreStatistics()
    private(set) var connections: [UInt16: StoreConnection] = [:]
    /// Those whose Guests may have to be notified.
    private var moved: [UInt16: StoreConnection] = [:]

    init(_ limits: StoreLimits) { self.limits = limits }

    mutating func connect(_ connection: StoreConnection) { connections[connection.domid] = connection }

    /// Forgets a domain: what it has asked for, and all that it owns.
    mutating func disconnect(_ domid: UInt16) {
        guard connections.removeValue(forKey: domid) != nil else { return }
        moved[domid] = nil
        watches.removeAll(of: domid)
        tell(tree.removeAll(of: domid))
        tell(.domainReleased)
    }

    /// What to call once the lock is free.
    mutating func takeNotifications() -> [@Sendable () -> Void] {
        defer { moved.removeAll() }
        return moved.values.filter { $0.takeMoved() }.map(\.notify)
    }

    // MARK: Requests

    /// Answers what a Guest has asked, a bounded number of times.
    ///
    /// - Returns: whether the bound is why it stopped.
    mutating func serve(_ domid: UInt16) -> Bool {
        guard let connection = connections[domid], connection.loss == nil else { return false }
        moved[domid] = connection
        do throws(StoreLoss) {
            for _ in 0..<limits.requestsPerCall {
                try connection.flush()
                guard connection.isFlushed, let request = try connection.receive() else { return false }
                answer(request, on: connection)
                // An event of its own may have shown that it is past talking to.
                guard connection.loss == nil else { return false }
            }
            try connection.flush()
            return true
        } catch {
            lose(connection, error)
            return false
        }
    }

    private mutating func answer(_ request: StoreMessage, on connection: StoreConnection) {
        statistics.requests += 1
        do throws(StoreError) {
            let answer = try perform(request, on: connection)
            connection.send(request.reply(answer.payload))
            if let watch = answer.newWatch { tell([(watch, watch.subject)]) }
            tell(answer.changes)
        } catch {
            statistics.errors += 1
            connection.send(request.reply(error))
        }
    }

    private mutating func lose(_ connection: StoreConnection, _ loss: StoreLoss) {
        connection.lose(loss)
        watches.removeAll(of: connection.domid)
        statistics.losses[loss, default: 0] += 1
    }

    // MARK: Events

    /// Tells all watchers that are concerned.
    mutating func tell(_ changes: [StoreChange]) {
        for change in changes { tell(watches.concerned(by: change).map { ($0, .node(change.path)) }) }
    }

    mutating func tell(_ subject: StoreWatch.Subject) { tell(watches.concerned(by: subject).map { ($0, subject) }) }

    private mutating func tell(_ news: [(StoreWatch, StoreWatch.Subject)]) {
        for (watch, subject) in news {
            guard let connection = connections[watch.domid], connection.loss == nil else { continue }
            guard !connection.isFull, let event = watch.event(subject) else {
                statistics.eventsDropped += 1
                continue
            }
            switch connection.send(event: event, limits) {
            case .queued: statistics.events += 1
            case .merged: statistics.eventsMerged += 1
            case .dropped: statistics.eventsDropped += 1
            }
            moved[watch.domid] = connection
            do throws(StoreLoss) { try connection.flush() } catch { lose(connection, error) }
        }
    }
}
