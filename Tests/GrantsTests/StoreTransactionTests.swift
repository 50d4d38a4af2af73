import Grants
import Testing

@Suite struct StoreTransactionTests {
    let store = XenStore()
    let guest: StoreGuest, other: StoreGuest

    init() {
        (guest, other) = (StoreGuest(store, 1), StoreGuest(store, 2))
        guest.write("data/a", "old")
        _ = guest.permit("data", "b1")
        _ = guest.permit("data/a", "b1")
    }

    private let a = "/local/domain/1/data/a"

    @Test func nobodySeesItBeforeItsEnd() {
        let id = guest.begin()
        #expect(id != 0)
        #expect(guest.write("data/a", "new", transaction: id) == "OK|")
        #expect(guest.write("data/b/c", "created", transaction: id) == "OK|")
        #expect(guest.permit("data/b", "r1", transaction: id) == "OK|")
        #expect(guest.read("data/a", transaction: id) == "new")
        #expect(guest.ask(.directory, "data|", transaction: id) == "a|b|")
        #expect(guest.ask(.getPermissions, "data/b|", transaction: id) == "r1|")
        #expect(guest.read("data/a") == "old")
        #expect(other.read(a) == "old")
        #expect(guest.ask(.directory, "data|") == "a|")
        #expect(guest.end(id) == "OK|")
        #expect(other.read(a) == "new")
        #expect(guest.read("data/b/c") == "created")
        #expect(store.permissions("/local/domain/1/data/b") == ["r1"])
        #expect(store.statistics.commits == 1)
    }

    @Test func whatIsAbortedHasNotBeen() {
        let id = guest.begin()
        guest.write("data/a", "new", transaction: id)
        #expect(guest.ask(.remove, "data/a|", transaction: id) == "OK|")
        #expect(guest.read("data/a", transaction: id) == "ENOENT|")
        #expect(guest.end(id, false) == "OK|")
        #expect(guest.read("data/a") == "old")
        #expect(guest.end(id) == "ENOENT|")
    }

    @Test func itSeesNothingOfOthers() {
        let id = guest.begin()
        #expect(other.write(a, "2's") == "OK|")
        #expect(guest.read("data/a", transaction: id) == "old")
        #expect(guest.end(id) == "EAGAIN|")
        let again = guest.begin()
        #expect(guest.read("data/a", transaction: again) == "2's")
        #expect(guest.end(again) == "OK|")
        #expect(store.statistics.conflicts == 1)
    }

    @Test(arguments: ["read", "missing", "list", "permissions", "write", "create", "remove", "failed"])
    func whatItReliedOnMustBeAsItWas(_ what: String) {
        let id = guest.begin()
        switch what {
        case "read": _ = guest.read("data/a", transaction: id)
        case "missing": _ = guest.read("data/x/y", transaction: id)
        case "list": guest.ask(.directory, "data|", transaction: id)
        case "permissions": guest.ask(.getPermissions, "data/a|", transaction: id)
        case "write": guest.write("data/a", "mine", transaction: id)
        case "create": guest.write("data/x", "mine", transaction: id)
        case "remove": guest.ask(.remove, "data/a|", transaction: id)
        default: #expect(guest.ask(.remove, "data/x/y|", transaction: id) == "ENOENT|")
        }
        if ["read", "permissions", "write", "remove"].contains(what) {
            other.write(a, "2's")
        } else {
            other.write("/local/domain/1/data/x", "2's")
        }
        #expect(guest.end(id) == "EAGAIN|")
        #expect(
            store.read(a) == Array((["read", "permissions", "write", "remove"].contains(what) ? "2's" : "old").utf8))
    }

    @Test func whatItDidNotLookAtIsNotInItsWay() {
        let id = guest.begin()
        #expect(guest.read("data/a", transaction: id) == "old")
        guest.write("data/a", "new", transaction: id)
        // Another's home, another node here, a child of what was read: each changes something else.
        other.write("data/x", "")
        other.write("/local/domain/1/data/b", "")
        guest.write("data/b", "1's")
        #expect(guest.end(id) == "OK|")
        #expect(guest.read("data/a") == "new")
        let childless = guest.begin()
        #expect(guest.read("data/a", transaction: childless) == "new")
        guest.write("data/a/child", "")
        #expect(guest.end(childless) == "EAGAIN|")
    }

    @Test func itHasWhatWasThereAfterAllIsGone() {
        let id = guest.begin()
        #expect(guest.ask(.remove, "data/a|") == "OK|")
        #expect(guest.read("data/a", transaction: id) == "old")
        guest.write("data/a", "old")
        // It is another node, though it looks the same.
        #expect(guest.end(id) == "EAGAIN|")
    }

    @Test func ofTwoThatRaceOneRepeats() {
        guest.write("data/a", "0")
        var (left, repetitions) = ([guest: 50, other: 50].map { ($0.key, $0.value) }, 0)
        var random = StoreRandom("ofTwoThatRaceOneRepeats")
        var open: [(id: UInt32, value: Int)?] = [nil, nil]
        for _ in 0..<5000 where left.contains(where: { $0.1 > 0 }) {
            let turn = random.below(2)
            guard left[turn].1 > 0 else { continue }
            let who = left[turn].0
            if let (id, value) = open[turn] {
                who.write(a, "\(value + 1)", transaction: id)
                switch who.end(id) {
                case "OK|": left[turn].1 -= 1
                case "EAGAIN|": repetitions += 1
                case let reply: Issue.record("\(reply)")
                }
                open[turn] = nil
            } else {
                let id = who.begin()
                open[turn] = (id, Int(who.read(a, transaction: id)) ?? -1)
            }
        }
        #expect(guest.read("data/a") == "100")
        #expect(repetitions > 0)
    }

    @Test func anUnknownOneIsNotFound() {
        #expect(guest.end(77) == "ENOENT|")
        #expect(guest.end(0) == "ENOENT|")
        #expect(guest.read("data/a", transaction: 77) == "ENOENT|")
        #expect(guest.write("data/a", "x", transaction: 77) == "ENOENT|")
        let id = guest.begin()
        #expect(other.end(id) == "ENOENT|")
        #expect(guest.ask(.transactionStart, "|", transaction: id) == "EBUSY|")
        #expect(guest.ask(.transactionEnd, "X|", transaction: id) == "EINVAL|")
        #expect(guest.ask(.transactionEnd, "T", transaction: id) == "EINVAL|")
        #expect(guest.end(id) == "OK|")
    }

    @Test func aDomainHasALimitedNumber() {
        let ids = (0..<10).map { _ in guest.begin() }
        #expect(Set(ids).count == 10 && !ids.contains(0))
        #expect(guest.ask(.transactionStart, "|") == "ENOSPC|")
        #expect(other.begin() != 0)
        #expect(guest.end(ids[4], false) == "OK|")
        #expect(guest.begin() != 0)
        #expect(guest.ask(.resetWatches, "|") == "OK|")
        #expect(guest.end(ids[5]) == "ENOENT|")
        #expect(guest.begin() != 0)
    }

    @Test func itHasALimitedNumberOfSteps() {
        var limits = StoreLimits()
        limits.transactionSteps = 5
        let guest = StoreGuest(XenStore(limits: limits), 1)
        let writing = guest.begin()
        for step in 0..<5 { #expect(guest.write("data/a", "\(step)", transaction: writing) == "OK|") }
        #expect(guest.write("data/a", "5", transaction: writing) == "ENOSPC|")
        #expect(guest.end(writing) == "OK|")
        let looking = guest.begin()
        for path in ["data", "name", "domid", "device", "memory"] { _ = guest.read(path, transaction: looking) }
        #expect(guest.read("cpu", transaction: looking) == "ENOSPC|")
        #expect(guest.read("memory", transaction: looking) == "")
    }

    @Test func quotasHoldAtItsEnd() {
        var limits = StoreLimits()
        limits.nodes = 11
        let guest = StoreGuest(XenStore(limits: limits), 1)
        let id = guest.begin()
        #expect(guest.write("data/a/b", "", transaction: id) == "OK|")
        #expect(guest.write("data/c", "", transaction: id) == "ENOSPC|")
        #expect(guest.write("attr/x", "") == "OK|")
        #expect(guest.end(id) == "ENOSPC|")
        #expect(guest.read("data/a") == "ENOENT|")
    }

    @Test func whoGoesTakesTheirsAlong() {
        let id = other.begin()
        other.write(a, "2's", transaction: id)
        other.introduce()
        #expect(other.end(id) == "ENOENT|")
        #expect(guest.read("data/a") == "old")
        // And what was relied on in a home that is gone is not there any more.
        other.write("data/x", "")
        _ = other.permit("data/x", "b2")
        let mine = guest.begin()
        #expect(guest.write("/local/domain/2/data/x", "1's", transaction: mine) == "OK|")
        other.introduce()
        #expect(guest.end(mine) == "EAGAIN|")
    }
}

extension StoreGuest: Hashable {
    static func == (left: StoreGuest, right: StoreGuest) -> Bool { left === right }
    func hash(into hasher: inout Hasher) { hasher.combine(ObjectIdentifier(self)) }
}
