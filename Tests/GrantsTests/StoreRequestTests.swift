import Grants
import Testing

/// The form of messages and paths, and each request for itself.
@Suite struct StoreRequestTests {
    let store = XenStore()

    @Test func aMessageIsFourWordsAndItsPayload() {
        let message = StoreMessage(.write, requestID: 0x0102_0304, transactionID: 0xa0b0_c0d0, [0x61, 0])
        #expect(message.bytes == [11, 0, 0, 0, 4, 3, 2, 1, 0xd0, 0xc0, 0xb0, 0xa0, 2, 0, 0, 0, 0x61, 0])
        let numbers = StoreMessageType.allCases.map(\.rawValue)
        #expect(numbers == Array(0...19) + [21, 22])
        #expect(StoreMessageType.watchEvent.rawValue == 15 && StoreMessageType.error.rawValue == 16)
    }

    @Test func whatIsWrittenIsRead() {
        let guest = StoreGuest(store, 1)
        #expect(guest.write("data/a/b/c", "value") == "OK|")
        #expect(guest.read("data/a/b/c") == "value")
        #expect(guest.read("/local/domain/1/data/a/b/c") == "value")
        #expect(guest.read("data/a/b") == "")
        #expect(guest.write("data/a/b", "") == "OK|")
        #expect(guest.ask(.write, bytes: Array("data/a|".utf8.map { $0 == 0x7c ? 0 : $0 }) + [0, 1, 0xff, 0]) == "OK|")
        #expect(store.read("/local/domain/1/data/a") == [0, 1, 0xff, 0])
        #expect(guest.read("data/none") == "ENOENT|")
        #expect(guest.read("data/none/of/this") == "ENOENT|")
        #expect(guest.ask(.read, bytes: Array("data".utf8)) == "EINVAL|")
        #expect(guest.ask(.read, "data||") == "EINVAL|")
        #expect(guest.ask(.read) == "EINVAL|")
        #expect(guest.ask(.write, bytes: Array("data/x".utf8)) == "EINVAL|")
    }

    @Test(arguments: [
        "", "data/", "/", "//", "/local//domain", "data//x", "data/x y", "data/x.y", "data/ü", "data/*",
        "@releaseDomain",
        "@introduceDomain", "@other", "data/\u{1}",
    ])
    func refusesWhatIsNoPath(_ path: String) {
        let guest = StoreGuest(store, 1)
        // The root is a path, and nobody's to read.
        let expected = path == "/" ? "EACCES|" : "EINVAL|"
        #expect(guest.read(path) == expected)
        #expect(guest.write(path, "x") == expected)
        #expect(guest.ask(.makeDirectory, path + "|") == expected)
        #expect(guest.ask(.directory, path + "|") == expected)
    }

    @Test func aPathHasALimitedLength() {
        let guest = StoreGuest(store, 1)
        let relative = "data/" + String(repeating: "x", count: 2043)
        #expect(guest.write(relative, "here") == "OK|")
        #expect(guest.read(relative) == "here")
        #expect(guest.read(relative + "x") == "EINVAL|")
        let absolute = "/local/domain/1/data/" + String(repeating: "y", count: 3051)
        #expect(guest.write(absolute, "there") == "OK|")
        #expect(guest.read(absolute) == "there")
        #expect(guest.write(absolute + "y", "there") == "EINVAL|")
        #expect(guest.write("data/AZaz09-_@", "all of them") == "OK|")
    }

    @Test func aDirectoryHasNames() {
        let guest = StoreGuest(store, 1)
        for name in ["c", "a", "b", "a1"] { #expect(guest.ask(.makeDirectory, "data/\(name)|") == "OK|") }
        #expect(guest.ask(.directory, "data|") == "a|a1|b|c|")
        #expect(guest.ask(.directory, "data/a|") == "")
        #expect(guest.ask(.directory, "data/x|") == "ENOENT|")
        #expect(guest.ask(.directory, "|") == "EINVAL|")
        #expect(store.list("/local/domain/1/data") == ["a", "a1", "b", "c"])
    }

    @Test func aLongDirectoryComesInParts() {
        let guest = StoreGuest(store, 1)
        let names = (0..<300).map { "name-\(1000 + $0)-\(String(repeating: "n", count: $0 % 40))" }
        for name in names { guest.write("data/\(name)", "") }
        #expect(guest.ask(.directory, "data|") == "E2BIG|")
        var list = ""
        var generations: Set<Substring> = []
        var parts = 0
        while true {
            let part = guest.ask(.directoryPart, "data|\(list.utf8.count)|")
            let end = part.firstIndex(of: "|") ?? part.startIndex
            generations.insert(part[..<end])
            parts += 1
            let rest = part[part.index(after: end)...]
            list += rest
            if rest.hasSuffix("||") || rest == "|" { break }
        }
        #expect(list == names.sorted().map { $0 + "|" }.joined() + "|")
        #expect(parts > 1 && generations.count == 1)
        guest.write("data/another", "")
        #expect(!generations.contains(guest.ask(.directoryPart, "data|0|").prefix { $0 != "|" }))
        #expect(guest.ask(.directoryPart, "data|99999|").hasSuffix("||"))
        #expect(guest.ask(.directoryPart, "data|x|") == "EINVAL|")
        #expect(guest.ask(.directoryPart, "data|") == "EINVAL|")
    }

    @Test func aDirectoryIsMadeOnce() {
        let guest = StoreGuest(store, 1)
        #expect(guest.write("data/a", "kept") == "OK|")
        #expect(guest.ask(.makeDirectory, "data/a|") == "OK|")
        #expect(guest.read("data/a") == "kept")
        #expect(guest.ask(.makeDirectory, "data/x/y/z|") == "OK|")
        #expect(guest.ask(.directory, "data/x/y|") == "z|")
    }

    @Test func whatIsRemovedIsGoneWithAllBelow() {
        let guest = StoreGuest(store, 1)
        guest.write("data/a/b/c", "x")
        #expect(guest.ask(.remove, "data/a|") == "OK|")
        #expect(guest.read("data/a/b/c") == "ENOENT|")
        #expect(guest.ask(.directory, "data|") == "")
        #expect(guest.ask(.remove, "data/a|") == "OK|")
        #expect(guest.ask(.remove, "data/a/b|") == "ENOENT|")
        #expect(guest.ask(.remove, "/|") == "EINVAL|")
        #expect(guest.ask(.remove, "device|") == "EACCES|")
        #expect(guest.ask(.remove, "data") == "EINVAL|")
    }

    @Test func whatIsNotOfferedIsAnswered() {
        let guest = StoreGuest(store, 1)
        #expect(guest.ask(.control, "print|x|") == "EACCES|")
        for type: StoreMessageType in [.introduce, .release, .resume, .setTarget, .watchEvent, .error] {
            #expect(guest.ask(type, "1|") == "ENOSYS|")
        }
        guest.send(StoreMessage(type: 20, requestID: 7, transactionID: 0, []).bytes)
        guest.send(StoreMessage(type: .max, requestID: .max, transactionID: 0, [1, 2, 3]).bytes)
        guest.send(StoreMessage(type: 23, requestID: 9, transactionID: 5, [1, 2, 3]).bytes)
        let none = Array("ENOSYS".utf8) + [0]
        #expect(
            guest.messages == [
                StoreMessage(.error, requestID: 7, none), StoreMessage(.error, requestID: .max, none),
                StoreMessage(.error, requestID: 9, transactionID: 5, none),
            ])
    }

    @Test func domainsHavePathsAndComeAndGo() {
        let guest = StoreGuest(store, 1)
        #expect(guest.ask(.getDomainPath, "7|") == "/local/domain/7|")
        #expect(guest.ask(.getDomainPath, "x|") == "EINVAL|")
        #expect(guest.ask(.getDomainPath, "70000|") == "EINVAL|")
        #expect(guest.ask(.isDomainIntroduced, "0|") == "T|")
        #expect(guest.ask(.isDomainIntroduced, "1|") == "T|")
        #expect(guest.ask(.isDomainIntroduced, "2|") == "F|")
        do {
            let other = StoreGuest(store, 2)
            #expect(guest.ask(.isDomainIntroduced, "2|") == "T|")
            other.write("data/x", "1")
        }
        #expect(guest.ask(.isDomainIntroduced, "2|") == "F|")
        #expect(store.list("/local/domain") == ["1"])
    }

    @Test func aNewDomainFindsItsHome() {
        let guest = StoreGuest(store, 12, name: "kitchen")
        #expect(guest.read("name") == "kitchen")
        #expect(guest.read("domid") == "12")
        #expect(
            guest.ask(.directory, "/local/domain/12|")
                == "attr|backend|control|cpu|data|device|domid|drivers|error|feature|memory|name|")
        #expect(guest.ask(.getPermissions, "data|") == "n12|")
        #expect(guest.ask(.getPermissions, "device|") == "n0|r12|")
        #expect(guest.write("name", "palace") == "EACCES|")
        #expect(guest.write("control/shutdown", "") == "OK|")
        guest.write("data/left", "behind")
        guest.introduce("cellar")
        #expect(guest.read("name") == "cellar")
        #expect(guest.read("data/left") == "ENOENT|")
    }

    /// What Linux's boot asks, in its order; its boot thread waits for each.
    @Test func linuxBoots() {
        let guest = StoreGuest(store, 3)
        #expect(guest.read("control/platform-feature-xs_reset_watches") == "1")
        #expect(guest.ask(.resetWatches, "|") == "OK|")
        for path in ["device", "backend", "control/shutdown", "control/sysrq", "memory/target"] {
            #expect(guest.watch(path, "FFFFFFFF82A3C5E0") == "OK|")
            #expect(guest.events() == [.init(path, "FFFFFFFF82A3C5E0")])
        }
        #expect(guest.ask(.directory, "device|") == "")
    }

    @Test func theHostHasAllRights() {
        let guest = StoreGuest(store, 1)
        #expect(store.write("/local/domain/1/device/vif/0/state", "4"))
        #expect(guest.read("device/vif/0/state") == "4")
        #expect(store.write("/tool/x", "y") && store.list("/tool") == ["x"] && store.permissions("/tool") == ["n0"])
        #expect(guest.read("/tool/x") == "EACCES|")
        #expect(store.setPermissions("/tool/x", ["r0"]))
        #expect(guest.read("/tool/x") == "y")
        #expect(!store.write("tool x", "") && !store.write("/t", [UInt8](repeating: 1, count: 4097)))
        #expect(!store.setPermissions("/tool/x", ["q0"]) && !store.setPermissions("/none", ["n0"]))
        #expect(store.remove("/tool") && store.read("/tool/x") == nil && store.list("/tool") == nil)
    }
}
