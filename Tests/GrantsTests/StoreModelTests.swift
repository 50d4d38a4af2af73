import Grants
import Testing

/// Domains that come, go and do anything, against `StoreModel`. `ROOST_SEED` chooses the sequence.
@Suite struct StoreModelTests {
    private static let steps = 40_000

    @Test func theStoreDoesWhatTheModelDoes() {
        var play = StorePlay(StoreRandom("StoreModelTests"))
        for step in 0..<Self.steps {
            let action = play.step()
            if let difference = play.difference(isThorough: step % 50 == 0) {
                Issue.record("seed \(play.random.seed), step \(step), \(action): \(difference)")
                return
            }
        }
        let outcomes = [
            "OK|", "EACCES|", "ENOENT|", "ENOSPC|", "EPERM|", "EINVAL|", "EEXIST|", "E2BIG|", "committed", "conflict",
            "aborted", "told", "come", "gone", "host",
        ]
        print("StoreModelTests: \(outcomes.map { "\($0) \(play.counts[$0, default: 0])" })")
        for outcome in outcomes {
            #expect(play.counts[outcome, default: 0] > 0, "the sequence never came to: \(outcome)")
        }
    }
}

/// One sequence, played to the store and to the model.
///
/// Of a transaction the model knows only what one may expect. One that holds might as well have happened all at once
/// at its end: done again then, it has the same replies. One that does not was disturbed, near something that it named;
/// and one that nobody disturbed holds.
private struct StorePlay {
    struct Transaction {
        let id: UInt32
        var view: StoreModel
        var log: [(action: StoreModel.Action, path: String, reply: String)] = []
        /// What others have changed since.
        var disturbed: [String] = []
    }
    struct Watch { let domid: Int, path: String, isRelative: Bool, token: String }

    var random: StoreRandom
    private let store: XenStore
    private var guests: [Int: StoreGuest] = [:]
    private var model = StoreModel()
    private var transactions: [Int: [Transaction]] = [:]
    private var watches: [Watch] = []
    private var expected: [Int: Set<StoreGuest.Event>] = [:]
    private var problem: String?
    private(set) var counts: [String: Int] = [:]

    private static let domains = 6, mostWatches = 5, mostTransactions = 2

    init(_ random: StoreRandom) {
        self.random = random
        var limits = StoreLimits()
        limits.nodes = StoreModel.nodes
        limits.valueBytes = StoreModel.valueBytes
        limits.permissions = StoreModel.exceptions
        limits.watches = Self.mostWatches
        limits.transactions = Self.mostTransactions
        store = XenStore(limits: limits)
        for (path, entries) in [("/shared", ["b0"]), ("/board", ["r0", "w2", "b3"])] {
            store.write(path, "")
            store.setPermissions(path, entries)
            model.table[path] = StoreModel.Node(value: "", permissions: entries)
        }
    }

    private mutating func count(_ outcome: String) { counts[outcome, default: 0] += 1 }

    // MARK: Choosing

    private mutating func path() -> String {
        let base =
            switch random.below(12) {
            case 0: "/shared"
            case 1: "/board"
            case 2: random.pick(["", "/local", "/local/domain", "/local/domain/1", "/local/domain/2/device"])
            case 3...8: "/local/domain/\(asking)/\(random.pick(["data", "data", "attr", "error", "feature"]))"
            default: "/local/domain/\(1 + random.below(Self.domains))/\(random.pick(["data", "data", "attr"]))"
            }
        return base + (0..<random.below(4)).map { _ in "/" + random.pick(["a", "b", "c"]) }.joined()
    }

    private mutating func action() -> StoreModel.Action {
        switch random.below(14) {
        case 0...1: return .read
        case 2: return .list
        case 3: return .permissions
        case 4: return .make
        case 5...6: return .remove
        case 7...9:
            let entries = (0..<(1 + random.below(4))).map { index in
                // Most name themselves first, as they must.
                let domid = index == 0 && random.below(9) > 0 ? asking : 1 + random.below(Self.domains)
                return random.pick(["n", "r", "w", "b", "b"]) + "\(domid)"
            }
            return .permit(entries)
        default: return .write(String(repeating: random.pick(["x", "y"]), count: random.below(10)))
        }
    }
    /// Who is about to do it.
    private var asking = 0

    // MARK: Steps

    /// - Returns: what it was.
    mutating func step() -> String {
        let domid = 1 + random.below(Self.domains)
        guard let guest = guests[domid] else {
            if guests.count < 2 || random.below(10) == 0 { come(domid) }
            return "come \(domid)"
        }
        asking = domid
        switch random.below(100) {
        case 0:
            if random.below(6) == 0 { go(domid) }
            return "go \(domid)"
        case 1...5: return watch(guest, domid)
        case 6...9: return unwatch(guest, domid)
        case 10...15: return begin(guest, domid)
        case 16...21: return end(guest, domid)
        case 22: return host()
        default: return act(guest, domid)
        }
    }

    private mutating func come(_ domid: Int) {
        guests[domid] = StoreGuest(store, UInt16(domid))
        let news = model.come(domid)
        tell(news)
        disturb(news.flatMap(\.places) + ["/local/domain", "/local/domain/\(domid)"])
        count("come")
    }

    private mutating func go(_ domid: Int) {
        guests[domid] = nil
        transactions[domid] = nil
        watches.removeAll { $0.domid == domid }
        let (news, changed) = model.go(domid)
        tell(news)
        disturb(changed)
        count("gone")
    }

    private mutating func act(_ guest: StoreGuest, _ domid: Int) -> String {
        let path = path()
        var action = action()
        // Who removes what they own of their home cannot make it again, and would be told no from then on.
        if action == .remove, ["data", "attr", "error", "feature"].contains(where: path.hasSuffix), random.below(30) > 0
        {
            action = .list
        }
        let open = transactions[domid, default: []].indices.randomElement(using: &random)
        let index = random.below(2) == 0 ? open : nil
        let id = index.flatMap { transactions[domid]?[$0].id } ?? 0
        let found = guest.perform(action, path, id)
        var reply = "", news: [StoreModel.News] = []
        if let index {
            reply = transactions[domid]?[index].view.perform(action, path, by: domid).reply ?? ""
            transactions[domid]?[index].log.append((action, path, reply))
        } else {
            (reply, news) = model.perform(action, path, by: domid)
            tell(news)
            disturb(news.flatMap(\.places))
        }
        if found != reply { problem = "\(found) instead of \(reply)" }
        count(reply)
        return "\(domid) in \(id): \(action) \(path)"
    }

    private mutating func host() -> String {
        let (path, action) = (path(), action())
        guard path != "" else { return "host: nothing" }
        let (reply, news) = model.perform(action, path, by: 0)
        let isDone: Bool? =
            switch action {
            case .read, .list, .permissions: nil
            // The host has no request that makes a directory, nor one's limit of exceptions.
            case .make: store.read(path) == nil ? store.write(path, "") : nil
            case .write(let value): store.write(path, value)
            case .remove: store.remove(path)
            case .permit(let entries): reply == "ENOSPC|" ? nil : store.setPermissions(path, entries)
            }
        if let isDone, isDone != (reply == "OK|") { problem = "\(isDone) instead of \(reply)" }
        tell(news)
        disturb(news.flatMap(\.places))
        count("host")
        return "host: \(action) \(path)"
    }

    private mutating func begin(_ guest: StoreGuest, _ domid: Int) -> String {
        let id = guest.begin()
        let isFull = transactions[domid, default: []].count == Self.mostTransactions
        if (id == 0) != isFull { problem = "transaction \(id)" }
        if id != 0 { transactions[domid, default: []].append(Transaction(id: id, view: model)) }
        return "\(domid): begin \(id)"
    }

    private mutating func end(_ guest: StoreGuest, _ domid: Int) -> String {
        guard let index = transactions[domid]?.indices.randomElement(using: &random),
            let transaction = transactions[domid]?.remove(at: index)
        else { return "\(domid): no transaction" }
        guard random.below(5) > 0 else {
            if guest.end(transaction.id, false) != "OK|" { problem = "abort" }
            count("aborted")
            return "\(domid): abort \(transaction.id)"
        }
        let reply = guest.end(transaction.id)
        var (again, news, isFull, difference) = (model, [StoreModel.News](), false, "")
        for (action, path, reply) in transaction.log where reply != "ENOSPC|" {
            let now = again.perform(action, path, by: domid)
            news += now.news
            if now.reply == "ENOSPC|" { isFull = true }
            if now.reply != reply { difference = "\(action) \(path): \(now.reply) instead of \(reply)" }
        }
        switch reply {
        case "OK|":
            if difference != "" { problem = "committed, but \(difference)" }
            model = again
            tell(news)
            disturb(news.flatMap(\.places))
            count("committed")
        case "EAGAIN|":
            let isNear = transaction.log.contains { entry in
                transaction.disturbed.contains { place in
                    StoreModel.isAtOrBelow(entry.path, StoreModel.parent(place))
                        || StoreModel.isAtOrBelow(place, entry.path)
                }
            }
            if !isNear { problem = "nobody was in its way" }
            count("conflict")
        case "ENOSPC|":
            if !isFull { problem = "there was space" }
            count("commit without space")
        default: problem = reply
        }
        return "\(domid): end \(transaction.id)"
    }

    private mutating func disturb(_ paths: [String]) {
        for domid in transactions.keys {
            for index in transactions[domid, default: []].indices { transactions[domid]?[index].disturbed += paths }
        }
    }

    // MARK: Watches

    private mutating func watch(_ guest: StoreGuest, _ domid: Int) -> String {
        let (path, token) = (path(), random.pick(["s", "t"]))
        let home = "/local/domain/\(domid)/"
        let isRelative = path.hasPrefix(home)
        let watch = Watch(domid: domid, path: path, isRelative: isRelative, token: token)
        let text = isRelative ? String(path.dropFirst(home.count)) : path == "" ? "/" : path
        let mine = watches.filter { $0.domid == domid }
        let reply =
            mine.contains { $0.path == path && $0.token == token }
            ? "EEXIST|" : mine.count == Self.mostWatches ? "E2BIG|" : "OK|"
        let found = guest.watch(text, token)
        if found != reply { problem = "\(found) instead of \(reply)" }
        if reply == "OK|" {
            watches.append(watch)
            expected[domid, default: []].insert(.init(text, token))
        }
        count(reply)
        return "\(domid): watch \(text)"
    }

    private mutating func unwatch(_ guest: StoreGuest, _ domid: Int) -> String {
        let index = watches.indices.filter { watches[$0].domid == domid }.randomElement(using: &random)
        guard let index, random.below(8) > 0 else {
            if guest.ask(.unwatch, "data|no such|") != "ENOENT|" { problem = "unwatch" }
            return "\(domid): unwatch what is not"
        }
        // By its whole path, however it was set: it is the same watch.
        let watch = watches.remove(at: index)
        if guest.ask(.unwatch, "\(watch.path == "" ? "/" : watch.path)|\(watch.token)|") != "OK|" {
            problem = "unwatch"
        }
        return "\(domid): unwatch"
    }

    private mutating func tell(_ news: [StoreModel.News]) {
        for item in news {
            for watch in watches {
                guard item.isExact ? item.path == watch.path : StoreModel.isAtOrBelow(item.path, watch.path),
                    item.readers.contains(where: { $0.allows("r", watch.domid) })
                else { continue }
                let path =
                    watch.isRelative ? String(item.path.dropFirst("/local/domain/\(watch.domid)/".count)) : item.path
                expected[watch.domid, default: []].insert(.init(path, watch.token))
            }
        }
    }

    // MARK: Comparing

    /// What the store has that the model has not.
    mutating func difference(isThorough: Bool) -> String? {
        if let problem { return problem }
        for (domid, guest) in guests {
            let events = Set(guest.events())
            if events != expected[domid, default: []] {
                return "events of \(domid): \(events) instead of \(expected[domid, default: []])"
            }
            if !events.isEmpty { count("told") }
        }
        expected = [:]
        guard isThorough else { return nil }
        return differenceBelow("", model.allNames())
    }

    private func differenceBelow(_ path: String, _ names: [String: [String]]) -> String? {
        let name = path == "" ? "/" : path
        guard let node = model.table[path] else { return "\(name): there is one" }
        let found = store.read(name).map { String(decoding: $0, as: UTF8.self) }
        if found != node.value { return "\(name): \(found ?? "nothing") instead of \(node.value)" }
        if store.permissions(name) != node.permissions { return "\(name): \(store.permissions(name) ?? [])" }
        let list = store.list(name) ?? []
        if list != names[path, default: []] { return "\(name): \(list) instead of \(names[path, default: []])" }
        for each in list { if let difference = differenceBelow(path + "/" + each, names) { return difference } }
        return nil
    }
}

extension StoreGuest {
    fileprivate func perform(_ action: StoreModel.Action, _ path: String, _ id: UInt32) -> String {
        let name = (path == "" ? "/" : path) + "|"
        switch action {
        case .read: return ask(.read, name, transaction: id)
        case .list: return ask(.directory, name, transaction: id)
        case .permissions: return ask(.getPermissions, name, transaction: id)
        case .make: return ask(.makeDirectory, name, transaction: id)
        case .remove: return ask(.remove, name, transaction: id)
        case .write(let value): return ask(.write, name + value, transaction: id)
        case .permit(let entries):
            return ask(.setPermissions, name + entries.map { $0 + "|" }.joined(), transaction: id)
        }
    }
}
