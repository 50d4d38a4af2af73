import Grants
import Testing

@Suite struct StorePermissionTests {
    let store = XenStore()
    let first: StoreGuest, second: StoreGuest, third: StoreGuest

    init() {
        (first, second, third) = (StoreGuest(store, 1), StoreGuest(store, 2), StoreGuest(store, 3))
        first.write("data/node", "1's")
    }

    private let path = "/local/domain/1/data/node"

    @Test func whatIsMineIsNotYours() {
        for other in [second, third] {
            #expect(other.read(path) == "EACCES|")
            #expect(other.write(path, "x") == "EACCES|")
            #expect(other.ask(.directory, path + "|") == "EACCES|")
            #expect(other.ask(.getPermissions, path + "|") == "EACCES|")
            #expect(other.ask(.makeDirectory, path + "|") == "EACCES|")
            #expect(other.ask(.makeDirectory, path + "/x|") == "EACCES|")
            #expect(other.ask(.remove, path + "|") == "EACCES|")
            #expect(other.permit(path, "n\(other.domid)") == "EACCES|")
            // Nor whether there is one.
            #expect(other.read("/local/domain/1/data/other") == "EACCES|")
            #expect(other.ask(.remove, "/local/domain/1/data/other|") == "EACCES|")
            #expect(other.read("/local/domain/99/x") == "EACCES|")
        }
        #expect(first.read("data/node") == "1's")
    }

    @Test func anExceptionIsForOneDomain() {
        #expect(first.permit("data/node", "n1", "r2", "w3") == "OK|")
        #expect(first.ask(.getPermissions, "data/node|") == "n1|r2|w3|")
        #expect(second.read(path) == "1's")
        #expect(second.write(path, "2's") == "EACCES|")
        #expect(third.read(path) == "EACCES|")
        #expect(third.write(path, "3's") == "OK|")
        #expect(second.read(path) == "3's")
        #expect(second.ask(.getPermissions, path + "|") == "n1|r2|w3|")
    }

    @Test func theFirstLetterIsForEverybodyElse() {
        #expect(first.permit("data/node", "b1", "n3") == "OK|")
        #expect(second.read(path) == "1's")
        #expect(second.write(path, "2's") == "OK|")
        #expect(third.read(path) == "EACCES|")
        #expect(first.permit("data/node", "r1") == "OK|")
        #expect(third.read(path) == "2's")
        #expect(first.write("data/node", "still 1's") == "OK|")
    }

    @Test func onlyTheOwnerSaysWhoMay() {
        #expect(first.permit("data/node", "b1") == "OK|")
        #expect(second.permit(path, "b2") == "EACCES|")
        #expect(first.permit("data/node", "n2") == "EPERM|")
        #expect(first.permit("data/none", "n1") == "ENOENT|")
        #expect(first.permit("device", "n1") == "EACCES|")
        #expect(first.permit("data/node") == "EINVAL|")
        for entry in ["x1", "r", "r-1", "r1x", "r65536", "1", "", "r32752"] {
            #expect(first.permit("data/node", entry) == "EINVAL|", "\(entry)")
            #expect(first.permit("data/node", "n1", entry) == "EINVAL|", "\(entry)")
        }
        #expect(first.ask(.getPermissions, "data/node|") == "b1|")
    }

    @Test func aNodeHasAFewExceptions() {
        #expect(first.permit("data/node", "n1", "r2", "r3", "r4", "r5") == "OK|")
        #expect(first.permit("data/node", "n1", "r2", "r3", "r4", "r5", "r6") == "ENOSPC|")
    }

    @Test func whatIsCreatedInAnothersNodeIsOnesOwn() {
        #expect(first.permit("data/node", "n1", "w2", "r3") == "OK|")
        #expect(second.write(path + "/a/b", "2's") == "OK|")
        #expect(second.ask(.getPermissions, path + "/a/b|") == "n2|w2|r3|")
        #expect(store.permissions(path + "/a") == ["n2", "w2", "r3"])
        #expect(third.read(path + "/a/b") == "2's")
        #expect(first.read("data/node/a/b") == "EACCES|")
        // Who may write a node may remove it, and what is below is gone with it, whose ever it is.
        #expect(first.ask(.remove, "data/node|") == "OK|")
        #expect(store.read(path + "/a/b") == nil)
    }

    @Test func whoHasGoneOwnsNothingAndIsNoException() {
        first.write("data/other", "x")
        #expect(first.permit("data/node", "n1", "w2") == "OK|")
        #expect(first.permit("data/other", "n1", "r2", "r3") == "OK|")
        #expect(second.write(path + "/a", "2's") == "OK|")
        second.introduce()
        #expect(first.ask(.directory, "data/node|") == "")
        #expect(first.ask(.getPermissions, "data/node|") == "n1|")
        #expect(first.ask(.getPermissions, "data/other|") == "n1|r3|")
        #expect(second.read("/local/domain/1/data/other") == "EACCES|")
        #expect(third.read("/local/domain/1/data/other") == "x")
    }

    @Test func aDomainOwnsALimitedNumberOfNodes() {
        var limits = StoreLimits()
        limits.nodes = 13
        let store = XenStore(limits: limits)
        let (guest, other) = (StoreGuest(store, 1), StoreGuest(store, 2))
        // Nine came with its home.
        #expect(guest.write("data/a/b", "") == "OK|")
        #expect(guest.write("data/c/d/e", "") == "ENOSPC|")
        #expect(store.list("/local/domain/1/data") == ["a"])
        #expect(guest.write("data/c/d", "") == "OK|")
        #expect(guest.ask(.makeDirectory, "data/e|") == "ENOSPC|")
        #expect(guest.write("data/c/d", "again") == "OK|")
        #expect(guest.ask(.makeDirectory, "data/c/d|") == "OK|")
        // They count where ever they are, and against their owner.
        #expect(guest.permit("data", "b1") == "OK|")
        #expect(other.write("/local/domain/1/data/2", "") == "OK|")
        #expect(other.permit("data", "b2") == "OK|")
        #expect(guest.write("/local/domain/2/data/1", "") == "ENOSPC|")
        #expect(guest.ask(.remove, "data/c|") == "OK|")
        #expect(guest.write("/local/domain/2/data/1", "") == "OK|")
        #expect(guest.write("data/f", "") == "OK|")
        #expect(guest.write("data/g", "") == "ENOSPC|")
        #expect(other.ask(.remove, "data/1|") == "OK|")
        #expect(guest.write("data/g", "") == "OK|")
        #expect(guest.write("data/h", "") == "ENOSPC|")
        guest.introduce()
        #expect(guest.write("data/1/2/3/4", "") == "OK|")
    }

    @Test func whatADomainOwnsHasALimitedSize() {
        var limits = StoreLimits()
        // What came with its home: attr, data, drivers, error, feature; shutdown and three features below control.
        limits.bytes = 4 + 4 + 7 + 5 + 7 + 8 + 16 + 14 + 15 + 20
        let store = XenStore(limits: limits)
        let (guest, other) = (StoreGuest(store, 1), StoreGuest(store, 2))
        #expect(guest.write("data/abc/de", "0123456789") == "OK|")
        #expect(guest.write("data/abc", "012345") == "ENOSPC|")
        #expect(guest.write("data/abc", "01234") == "OK|")
        #expect(guest.ask(.makeDirectory, "data/f|") == "ENOSPC|")
        #expect(guest.permit("data/abc", "b1") == "OK|")
        // Whoever writes it, its owner has it.
        #expect(other.write("/local/domain/1/data/abc", "012345") == "ENOSPC|")
        #expect(other.write("/local/domain/1/data/abc", "0123") == "OK|")
        #expect(guest.ask(.makeDirectory, "data/f|") == "OK|")
        #expect(guest.ask(.remove, "data/abc|") == "OK|")
        #expect(guest.write("data/f", "0123456789012345678") == "OK|")
        #expect(guest.write("data/f", "01234567890123456789") == "ENOSPC|")
        let id = guest.begin()
        #expect(guest.write("data/f", "", transaction: id) == "OK|")
        #expect(guest.write("data/g", "0123456789", transaction: id) == "OK|")
        #expect(guest.write("data/h", "0123456789", transaction: id) == "ENOSPC|")
        #expect(guest.end(id) == "OK|")
    }

    @Test func aValueAndAPathHaveLimits() {
        #expect(first.write("data/v", String(repeating: "v", count: 2048)) == "OK|")
        #expect(first.write("data/v", String(repeating: "v", count: 2049)) == "ENOSPC|")
        #expect(first.read("data/v").count == 2048)
        let deep = "data" + String(repeating: "/d", count: 124)
        #expect(first.write(deep, "") == "OK|")
        #expect(first.write(deep + "/d", "") == "ENOSPC|")
        #expect(first.read(deep + "/d") == "ENOENT|")
        #expect(first.ask(.remove, "data/d|") == "OK|")
    }
}
