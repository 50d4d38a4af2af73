//D:325 Tell me when
//
// A watch is a path and a token, and the token is the Guest's own affair: Linux
// puts a pointer in it. The watch hears of changes to its node and to all below
// it, and it fires once when it is set, so that who watches need not look
// first. An event says where something happened and nothing about what; the
// watcher is to look, and so it is told only of nodes that it may look at. Else
// names would leak: somebody who watches / would see each node that anybody
// makes.
//
// When a node is removed everything below goes with it. A watch above hears of
// that once; a watch on a node further down hears that *its* node has changed,
// which it has.
//
// Two more things can be watched that are no nodes: @introduceDomain and
// @releaseDomain. Their events do not say which.

final class StoreWatch: Sendable {
    enum Subject: Hashable, Sendable {
        case node(StorePath)
        case domainIntroduced
        case domainReleased

        /// - Throws: EINVAL for what cannot be watched.
        init(_ bytes: ArraySlice<UInt8>, of domid: UInt16) throws(StoreError) {
            self =
                switch String(decoding: bytes, as: UTF8.self) {
                case "@introduceDomain": .domainIntroduced
                case "@releaseDomain": .domainReleased
                default: .node(try StorePath(bytes, of: domid))
                }
        }

        /// As it is named to one who did not name it relative to home.
        var text: String {
            switch self {
            case .node(let path): path.text
            case .domainIntroduced: "@introduceDomain"
            case .domainReleased: "@releaseDomain"
            }
        }
    }

    let domid: UInt16
    let subject: Subject
    let token: [UInt8]
    /// What an event's path does not begin with.
    private let hidden: Int

    /// - Parameter bytes: the path as it came.
    init(_ bytes: ArraySlice<UInt8>, token: ArraySlice<UInt8>, of domid: UInt16) throws(StoreError) {
        (self.domid, self.token) = (domid, Array(token))
        subject = try Subject(bytes, of: domid)
        hidden = subject.text.utf8.count - bytes.count
    }

    /// The event that says so; nil if a message has no room for it.
    func event(_ subject: Subject) -> StoreMessage? {
        let payload = subject.text.utf8.dropFirst(hidden) + [0] + token + [0]
        guard payload.count <= StoreMessage.mostPayload else { return nil }
        return StoreMessage(.watchEvent, Array(payload))
    }
}

/// All watches of all domains.
struct StoreWatches {
    /// In the order in which they were set.
    private var watches: [StoreWatch.Subject: [StoreWatch]] = [:]
    private var counts: [UInt16: Int] = [:]

    func count(of domid: UInt16) -> Int { counts[domid, default: 0] }

    mutating func add(_ watch: StoreWatch, _ limits: StoreLimits) throws(StoreError) {
        let isThere = watches[watch.subject, default: []].contains {
            $0.domid == watch.domid && $0.token == watch.token
        }
        guard !isThere else { throw .exists }
        guard count(of: watch.domid) < limits.watches else { throw .tooBig }
        watches[watch.subject, default: []].append(watch)
        counts[watch.domid, default: 0] += 1
    }

    mutating func remove(_ watch: StoreWatch) throws(StoreError) {
        guard
            let index = watches[watch.subject]?.firstIndex(where: {
                $0.domid == watch.domid && $0.token == watch.token
            })
        else { throw .notFound }
        watches[watch.subject]?.remove(at: index)
        if watches[watch.subject]?.isEmpty == true { watches[watch.subject] = nil }
        counts[watch.domid, default: 1] -= 1
    }

    mutating func removeAll(of domid: UInt16) {
        guard let count = counts.removeValue(forKey: domid), count > 0 else { return }
        watches = watches.compactMapValues { list in
            let rest = list.filter { $0.domid != domid }
            return rest.isEmpty ? nil : rest
        }
    }

    /// Those that are to hear of a change.
    func concerned(by change: StoreChange) -> [StoreWatch] {
        guard !watches.isEmpty else { return [] }
        var concerned: [StoreWatch] = []
        var place: StorePath? = change.path
        while let path = place {
            for watch in watches[.node(path), default: []]
            where change.permissions.contains(where: { $0.allows(.read, to: watch.domid) }) {
                concerned.append(watch)
            }
            place = change.isSilentAbove ? nil : path.parent
        }
        return concerned
    }

    /// Those of something that is no node.
    func concerned(by subject: StoreWatch.Subject) -> [StoreWatch] { watches[subject, default: []] }
}
//:
