import Grants
import Testing

@Suite struct StoreWatchTests {
    typealias Event = StoreGuest.Event
    let store = XenStore()
    let guest: StoreGuest, other: StoreGuest

    init() {
        (guest, other) = (StoreGuest(store, 1), StoreGuest(store, 2))
        guest.write("data/a/b", "x")
    }

    private let data = "/local/domain/1/data"

    @Test func itFiresAtOnceWhetherThereIsANodeOrNot() {
        #expect(guest.watch("data/a", "t1") == "OK|")
        #expect(guest.events() == [Event("data/a", "t1")])
        #expect(guest.watch("/no/such/node", "t2") == "OK|")
        #expect(guest.events() == [Event("/no/such/node", "t2")])
        #expect(guest.watch("data/a", "") == "OK|")
        #expect(guest.events() == [Event("data/a", "")])
    }

    @Test func theReplyComesFirst() {
        guest.send(StoreMessage(.watch, requestID: 5, Array("data".utf8) + [0, 0x74, 0]).bytes)
        #expect(guest.messages.map(\.type) == [4, 15])
        guest.messages = []
        guest.send(StoreMessage(.write, requestID: 6, Array("data/x".utf8) + [0]).bytes)
        #expect(guest.messages.map(\.type) == [11, 15])
    }

    @Test func itHearsOfItsNodeAndAllBelow() {
        guest.watch(data + "/a", "abs")
        guest.watch("data/a", "rel")
        _ = guest.events()
        guest.write("data/a/b/c", "")
        #expect(Set(guest.events()) == [Event(data + "/a/b/c", "abs"), Event("data/a/b/c", "rel")])
        guest.write("data/a", "")
        #expect(Set(guest.events()) == [Event(data + "/a", "abs"), Event("data/a", "rel")])
        #expect(guest.permit("data/a/b", "r1") == "OK|")
        #expect(Set(guest.events()) == [Event(data + "/a/b", "abs"), Event("data/a/b", "rel")])
        guest.write("data/ab", "")
        guest.write("data", "")
        #expect(guest.read("data/a/b") == "x")
        #expect(guest.ask(.makeDirectory, "data/a/b|") == "OK|")
        #expect(guest.events() == [])
        #expect(guest.ask(.makeDirectory, "data/a/d/e|") == "OK|")
        #expect(Set(guest.events()) == [Event(data + "/a/d/e", "abs"), Event("data/a/d/e", "rel")])
        #expect(store.write(data + "/a", "the host's"))
        #expect(guest.events().count == 2)
    }

    @Test func itHearsWhenAParentIsRemoved() {
        guest.write("data/a/b/c", "")
        for (token, path) in [
            ("1", "data"), ("2", "data/a"), ("3", "data/a/b/c"), ("4", data + "/a/b"), ("5", "data/a/z"),
        ] { guest.watch(path, token) }
        _ = guest.events()
        #expect(guest.ask(.remove, "data/a|") == "OK|")
        #expect(
            Set(guest.events()) == [
                Event("data/a", "1"), Event("data/a", "2"), Event("data/a/b/c", "3"), Event(data + "/a/b", "4"),
            ])
        #expect(guest.ask(.remove, "data/a|") == "OK|")
        #expect(guest.events() == [])
    }

    @Test func itHearsOfATransactionWhenItEnds() {
        guest.watch("data", "t")
        _ = guest.events()
        let id = guest.begin()
        guest.write("data/x", "", transaction: id)
        guest.write("data/y", "", transaction: id)
        #expect(guest.events() == [])
        #expect(guest.end(id) == "OK|")
        #expect(guest.events() == [Event("data/x", "t"), Event("data/y", "t")])
        let aborted = guest.begin()
        guest.write("data/z", "", transaction: aborted)
        #expect(guest.end(aborted, false) == "OK|")
        let failed = guest.begin()
        guest.write("data/z", "", transaction: failed)
        guest.write("data/q", "")
        #expect(guest.end(failed) == "EAGAIN|")
        #expect(guest.events() == [Event("data/q", "t")])
    }

    @Test func whoMayNotReadIsNotTold() {
        for path in ["/", data, data + "/a/b"] { other.watch(path, path) }
        _ = other.events()
        guest.write("data/a/b", "secret")
        guest.write("data/new", "secret")
        #expect(guest.ask(.remove, "data/new|") == "OK|")
        #expect(other.events() == [])
        // To be let in is a change that one may read, and so is to be shut out.
        #expect(guest.permit("data/a/b", "n1", "r2") == "OK|")
        #expect(other.events().count == 3)
        guest.write("data/a/b", "told")
        #expect(other.events().count == 3)
        #expect(guest.permit("data/a/b", "n1") == "OK|")
        #expect(other.events().count == 3)
        guest.write("data/a/b", "secret")
        #expect(other.events() == [])
        #expect(guest.permit("data/a/b", "r1") == "OK|")
        _ = other.events()
        // Of its parent's removal it may not know, of its own it may.
        #expect(guest.ask(.remove, "data/a|") == "OK|")
        #expect(other.events() == [Event(data + "/a/b", data + "/a/b")])
    }

    @Test func aDuplicateIsRefusedAndAMissingOneNotFound() {
        #expect(guest.watch("data", "t") == "OK|")
        #expect(guest.watch("data", "t") == "EEXIST|")
        #expect(guest.watch("data", "u") == "OK|")
        #expect(guest.watch("data/a", "t") == "OK|")
        #expect(other.watch(data, "t") == "OK|")
        #expect(guest.ask(.unwatch, "data|v|") == "ENOENT|")
        #expect(guest.ask(.unwatch, "data|t|") == "OK|")
        #expect(guest.ask(.unwatch, "data|t|") == "ENOENT|")
        _ = guest.events()
        guest.write("data/x", "")
        #expect(guest.events() == [Event("data/x", "u")])
    }

    @Test(arguments: ["data|", "data", "|t|", "data|t", "data|t|u|", "data/|t|", "@other|t|", "@releaseDomain/x|t|"])
    func refusesWhatIsNoWatch(_ payload: String) {
        #expect(guest.ask(.watch, payload) == "EINVAL|")
        #expect(guest.ask(.unwatch, payload) == "EINVAL|")
    }

    @Test func aDomainHasALimitedNumber() {
        for index in 0..<128 { #expect(guest.watch("data", "\(index)") == "OK|") }
        #expect(guest.watch("data", "128") == "E2BIG|")
        #expect(other.watch("data", "0") == "OK|")
        #expect(guest.ask(.unwatch, "data|77|") == "OK|")
        #expect(guest.watch("data", "128") == "OK|")
        #expect(guest.ask(.resetWatches, "|") == "OK|")
        #expect(guest.watch("data", "0") == "OK|")
        _ = guest.events()
        guest.write("data/x", "")
        #expect(guest.events() == [Event("data/x", "0")])
    }

    @Test func domainsThatComeAndGoCanBeWatched() {
        guest.watch("@introduceDomain", "i")
        guest.watch("@releaseDomain", "r")
        #expect(guest.events() == [Event("@introduceDomain", "i"), Event("@releaseDomain", "r")])
        do {
            let third = StoreGuest(store, 3)
            #expect(guest.events() == [Event("@introduceDomain", "i")])
            third.write("data/x", "")
        }
        #expect(guest.events() == [Event("@releaseDomain", "r")])
        store.release(domid: 3)
        #expect(guest.events() == [])
        #expect(guest.ask(.unwatch, "@releaseDomain|r|") == "OK|")
    }

    @Test func whatGoesWithADomainIsToldOf() {
        other.write("data/x", "")
        #expect(other.permit("data/x", "r2") == "OK|")
        guest.watch("/local/domain/2/data/x", "t")
        _ = guest.events()
        other.introduce()
        #expect(guest.events() == [Event("/local/domain/2/data/x", "t")])
    }

    @Test func watchesAreRungForInTheirOwnersPage() {
        guest.watch(data, "t")
        _ = guest.events()
        #expect(guest.permit("data/a", "b1") == "OK|")
        _ = guest.events()
        let before = guest.rung.value
        other.write(data + "/a", "2's")
        #expect(guest.rung.value == before + 1)
        #expect(guest.events() == [Event(data + "/a", "t")])
    }

    @Test func anEventTooLongForAMessageIsNone() {
        let token = String(repeating: "t", count: 4080)
        #expect(guest.watch("data", token) == "OK|")
        #expect(guest.events() == [Event("data", token)])
        guest.write("data/a-longer-name", "")
        #expect(guest.events() == [])
        #expect(store.statistics.eventsDropped == 1)
    }
}
