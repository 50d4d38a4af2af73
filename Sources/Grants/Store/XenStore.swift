internal import Synchronization

//D:300 A notice board
//
// Grants and event channels are numbers, and two Guests that want to share
// memory must tell each other which. Xen has a place for that, the store: a
// small tree of small texts that all domains read and write, each node with an
// owner and a list of who may do what, and with watches, by which one is told
// that another has written. libxenvchan's server puts two numbers there, its
// client reads them, and from then on they need nobody.
//
// On Xen it is a daemon that runs in the first domain and reaches into the
// memory of all others. Here it is a part of the house, a lock around a tree,
// and it runs on the vCPU that has asked: a Guest that rings has its answer
// when it goes on. What it says to *others*, the events, is put into their
// rings by the same thread. Nobody has to wake up for the store, because it
// never sleeps.
//
// It trusts no Guest with anything. What a Guest says is copied before it is
// read; what it may have is counted; and one that breaks the protocol is not
// listened to any more, which is all that happens, to it and to the others.

/// The store of one house. Any thread.
package final class XenStore: Sendable {
    private let state: Mutex<StoreState>

    package init(limits: StoreLimits = StoreLimits()) { state = Mutex(StoreState(limits)) }

    /// Does something under the lock, and notifies Guests after it.
    private func locked<Result: Sendable>(_ body: (inout StoreState) -> Result) -> Result {
        let (result, notifications) = state.withLock { state in
            let result = body(&state)
            return (result, state.takeNotifications())
        }
        for notify in notifications { notify() }
        return result
    }

    // MARK: Domains

    /// A domain has come; one of the same number that is still here has gone. Its home is new, whatever was there.
    ///
    /// - Parameters:
    ///   - domid: not 0, which is the host.
    ///   - ring: its page for the store: 4096 zeroes, aligned to 4, until `release` returns.
    ///   - notify: rings the domain's event channel for the store. Called on any thread, with no lock of the store's
    ///     held; also once more from another thread while, or just after, `release` is at work.
    package func introduce(
        domid: UInt16, name: String, ring: UnsafeMutableRawPointer, notify: @escaping @Sendable () -> Void
    ) {
        precondition(domid != storeHost && domid < 0x7ff0, "no domain's number")
        let ring = unsafe StoreRing(ring)
        locked { state in
            state.disconnect(domid)
            state.connect(StoreConnection(domid, ring: ring, notify: notify))
            state.furnish(domid, name: name)
            state.tell(.domainIntroduced)
        }
    }

    /// It has gone: it has died, or begins again. Nothing of it is left, and its page is not touched any more.
    package func release(domid: UInt16) { locked { $0.disconnect(domid) } }

    /// The Guest has rung the store: answers what it has asked. Its vCPU's thread; bounded.
    ///
    /// - Returns: whether there may be more that was left for another call, which should come without the Guest's
    ///   ringing again. With one vCPU there never is.
    @discardableResult
    package func ringChanged(domid: UInt16) -> Bool { locked { $0.serve(domid) } }

    /// Why a domain is not listened to; nil if it is, or is not here.
    package func loss(of domid: UInt16) -> StoreLoss? { state.withLock { $0.connections[domid]?.loss } }

    package var statistics: StoreStatistics { state.withLock { $0.statistics } }

    // MARK: The host's own use

    /// A node's value; nil if there is no such node, or the path is none.
    package func read(_ path: String) -> [UInt8]? { node(path)?.value }

    /// The names of a node's children.
    package func list(_ path: String) -> [String]? { node(path)?.children.map(\.name) }

    /// A node's permissions, the owner's entry first: `["n0", "r3"]`.
    package func permissions(_ path: String) -> [String]? { node(path)?.permissions.texts }

    /// Writes a node, and what is missing above it.
    ///
    /// - Returns: false for what is no path, or a value of more than 4096 bytes.
    @discardableResult
    package func write(_ path: String, _ value: [UInt8]) -> Bool { change(path) { .write($0, value) } }

    @discardableResult
    package func write(_ path: String, _ text: String) -> Bool { write(path, Array(text.utf8)) }

    /// Removes a node and all below it.
    @discardableResult
    package func remove(_ path: String) -> Bool { change(path) { .remove($0) } }

    /// - Parameter entries: as `permissions` has them.
    @discardableResult
    package func setPermissions(_ path: String, _ entries: [String]) -> Bool {
        guard let permissions = try? StorePermissions(entries.map { Array($0.utf8)[...] }) else { return false }
        return change(path) { .setPermissions($0, permissions) }
    }

    private func node(_ path: String) -> StoreNode? {
        guard let path = try? StorePath(Array(path.utf8), of: storeHost) else { return nil }
        return state.withLock { $0.tree.node(path) }
    }

    private func change(_ path: String, _ operation: (StorePath) -> StoreOperation) -> Bool {
        guard let path = try? StorePath(Array(path.utf8), of: storeHost) else { return false }
        let operation = operation(path)
        return locked { $0.change(operation) }
    }
}
//:

extension StoreState {
    /// Does something as the host.
    @discardableResult
    mutating func change(_ operation: StoreOperation) -> Bool {
        guard let changes = try? tree.apply(operation, by: storeHost, limits) else { return false }
        tell(changes)
        return true
    }

    /// What a toolstack puts into a new domain's home: it may read it all, and write below what it owns.
    mutating func furnish(_ domid: UInt16, name: String) {
        let home = StorePath.home(of: domid)
        let own = StorePermissions(owner: domid)
        change(.remove(home))
        change(.makeDirectory(home))
        change(.setPermissions(home, StorePermissions(owner: storeHost, [domid: .read])))
        change(.write(home.appending("name"), Array(name.utf8.prefix(limits.valueBytes))))
        change(.write(home.appending("domid"), Array("\(domid)".utf8)))
        change(.write(home.appending("control/platform-feature-xs_reset_watches"), Array("1".utf8)))
        change(.write(home.appending("cpu/0/availability"), Array("online".utf8)))
        for directory in ["backend", "device", "memory"] { change(.makeDirectory(home.appending(directory))) }
        let control = ["shutdown", "feature-poweroff", "feature-reboot", "feature-suspend"].map { "control/" + $0 }
        for directory in control + ["attr", "data", "drivers", "error", "feature"] {
            change(.makeDirectory(home.appending(directory)))
            change(.setPermissions(home.appending(directory), own))
        }
    }
}
