package import GuestMemory
package import HostInterface
internal import Synchronization

//H:400 Domains
//
// lguest's Guests found each other by an address that both knew. Xen's have
// numbers: a *domain* is a Guest with a number, and everything between two
// Guests names one. Number 0 is the one who runs the machine, which is us, and
// has no Guest.
//
// Grants and events cross from one Guest to another, and each Guest runs on a
// thread of its own. There is one lock for the house, held for as long as one
// page is mapped, 64 are taken away, or one bell is rung; under it, all tables of
// all domains can be looked at. Nothing that can wait is done under it, and it is
// the last that is taken: the only lock behind it is an interrupt controller's.
//
// What happens when a Guest ends is the larger half of sharing. It may be in
// anybody's pages, and anybody in its; and neither must notice more than that it
// is gone:
//
//   * what it had mapped goes back, and its granters' tables say so;
//   * what others had mapped of it becomes zeros, at the same address, and
//     remains theirs until they unmap it;
//   * its ports close, and each peer's bell rings once, so that whoever sleeps
//     on it looks, finds zeros where a byte should say "here", and knows.
//
// In this order: the bell comes last. And as it takes time, the domain leaves
// before it goes: from the first step on nobody begins anything with it, but
// what there is still has both its ends, for the other may be leaving as well.

/// The Guests of one process that can share pages. Any thread.
public final class DomainHouse: Sendable {
    final class State: @unchecked Sendable {
        private var domains: [UInt16: Domain] = [:]

        /// Whoever can be had to do with.
        func find(_ id: UInt16) -> Domain? { domains[id].flatMap { $0.isLeaving ? nil : $0 } }
        /// The other end of what there is already: also of one that is about to end.
        func peer(_ id: UInt16) -> Domain? { domains[id] }
        var all: [Domain] { domains.values.sorted { $0.id < $1.id } }
        var mappingCount: Int { domains.values.reduce(0) { $0 + $1.mappings.count } }

        /// The lowest number that is free, from 1 on.
        var nextID: UInt16? { (1..<XenABI.DOMID.firstReserved).first { domains[$0] == nil } }

        func insert(_ domain: Domain) { domains[domain.id] = domain }
        func remove(_ domain: Domain) { domains[domain.id] = nil }

        /// Ends a part of what goes on between others and one that is leaving: some pages, for it takes time.
        ///
        /// - Returns: whether there is more.
        func undoSome(_ domain: Domain) -> Bool {
            let own = domain.mappings.some(ForeignRun.most) { _ in true }
            for (handle, mapping) in own {
                do throws(GrantStatus) { try unmap(domain, handle: handle, at: mapping.page << 12) } catch {
                    // The host has no room for the change. It stays in use, so that nobody gets the page meanwhile.
                    domain.mappings.remove(handle)
                }
            }
            if !own.isEmpty { return true }
            for other in all {
                let lost = other.mappings.some(ForeignRun.most) { $0.granter == domain.id && !$0.isSevered }
                for (handle, mapping) in lost {
                    other.memory.severForeign(page: mapping.page)
                    other.mappings.sever(handle)
                }
                if !lost.isEmpty { return true }
            }
            return false
        }

        /// Ends the rest. Whoever wakes up by it looks at once, and finds zeros.
        func undoRest(_ domain: Domain) {
            for (port, _) in domain.channels.open { try? close(domain, port, ringing: true) }
            domain.clear()
        }
    }

    private let state = Mutex(State())
    package let store = XenStore()

    public init() {}

    func withLock<Result: Sendable, Failure: Error>(
        _ body: (State) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try state.withLock { state throws(Failure) in try body(state) }
    }

    /// A new domain.
    ///
    /// - Throws: what the host lacks.
    package func open(name: String, memory: GuestMemory) throws(HostError) -> Domain {
        try state.withLock { state throws(HostError) in
            guard let id = state.nextID else { throw HostError("there are no more domain numbers") }
            let domain = try Domain(id: id, name: name, memory: memory)
            state.insert(domain)
            return domain
        }
    }

    /// It begins: it can ring at the store, and be rung at by others.
    package func begin(_ domain: Domain) {
        let port = state.withLock { _ in
            domain.storePort = domain.channels.add(.store)
            return domain.storePort
        }
        guard let port else { return }
        unsafe store.introduce(domid: domain.id, name: domain.name, ring: domain.storeRing) { [self, weak domain] in
            state.withLock { _ in domain?.setPending(port) }
        }
    }

    /// It has ended, or begins anew. Its devices have stopped.
    package func end(_ domain: Domain) {
        store.release(domid: domain.id)
        // From now on it can be nobody's peer. The lock is let go between some pages and the next: others have work.
        state.withLock { _ in domain.isLeaving = true }
        while state.withLock({ $0.undoSome(domain) }) {}
        state.withLock { state in
            state.undoRest(domain)
            domain.isLeaving = false
        }
    }

    /// It will not come back.
    package func close(_ domain: Domain) {
        end(domain)
        state.withLock { $0.remove(domain) }
    }

    /// Rings at the other end of a port.
    func send(_ domain: Domain, _ port: Int) throws(Errno) {
        let sent = try state.withLock { state throws(Errno) in try state.send(domain, port) }
        if sent == .store { store.ringChanged(domid: domain.id) }
    }
}
//:
