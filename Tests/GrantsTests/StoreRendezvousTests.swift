import Grants
import Testing

/// What the store is for.
@Suite struct StoreRendezvousTests {
    let store = XenStore()
    let server: StoreGuest, client: StoreGuest, stranger: StoreGuest

    init() { (server, client, stranger) = (StoreGuest(store, 1), StoreGuest(store, 2), StoreGuest(store, 3)) }

    private let path = "/local/domain/1/data/vchan/2/7"

    /// As libxenvchan's server does: all in one transaction, again until it holds.
    private func announce(ringReference: Int, eventChannel: Int, disturb: () -> Void = {}) -> Int {
        for attempt in 1...10 {
            let id = server.begin()
            for (key, value) in [("ring-ref", ringReference), ("event-channel", eventChannel)] {
                #expect(server.write("\(path)/\(key)", "\(value)", transaction: id) == "OK|")
                #expect(server.permit("\(path)/\(key)", "n1", "r2", transaction: id) == "OK|")
            }
            if attempt == 1 { disturb() }
            switch server.end(id) {
            case "OK|": return attempt
            case "EAGAIN|": continue
            case let reply: Issue.record("\(reply)")
            }
        }
        return 0
    }

    @Test func aServerAndItsClientMeet() {
        #expect(client.watch(path + "/event-channel", "vchan") == "OK|")
        _ = client.events()
        #expect(client.read(path + "/ring-ref") == "EACCES|")
        #expect(announce(ringReference: 512, eventChannel: 9) == 1)
        #expect(Set(client.events()) == [.init(path + "/event-channel", "vchan")])
        #expect(client.read(path + "/ring-ref") == "512")
        #expect(client.read(path + "/event-channel") == "9")
        #expect(client.write(path + "/ring-ref", "1") == "EACCES|")
        #expect(client.ask(.directory, path + "|") == "EACCES|")
        #expect(stranger.read(path + "/ring-ref") == "EACCES|")
        #expect(server.ask(.getPermissions, path + "/ring-ref|") == "n1|r2|")
        // Its end: the server takes the path away.
        #expect(server.ask(.remove, path + "|") == "OK|")
        #expect(client.events() == [.init(path + "/event-channel", "vchan")])
        #expect(client.read(path + "/ring-ref") == "EACCES|")
    }

    @Test func aServerThatIsDisturbedRepeats() {
        let attempts = announce(ringReference: 8, eventChannel: 3) {
            #expect(server.write("data/vchan", "") == "OK|")
        }
        #expect(attempts == 2)
        #expect(client.read(path + "/ring-ref") == "8")
    }

    @Test func aClientOfTheSameNumberIsAnother() {
        #expect(announce(ringReference: 8, eventChannel: 3) == 1)
        client.introduce()
        #expect(client.read(path + "/ring-ref") == "EACCES|")
        #expect(announce(ringReference: 9, eventChannel: 4) == 1)
        #expect(client.read(path + "/ring-ref") == "9")
    }

    /// Each from a thread of its own, as vCPUs are.
    @Test func guestsTalkAtTheSameTime() async {
        let counts = await withTaskGroup(of: Int.self, returning: [Int].self) { group in
            for domid in UInt16(11)...14 {
                group.addTask { [store] in
                    let guest = StoreGuest(store, domid)
                    var conflicts = 0
                    #expect(guest.permit("data", "b\(domid)") == "OK|")
                    guest.watch("/local/domain/\(23 - domid)/data", "t")
                    for round in 0..<200 {
                        let id = guest.begin()
                        guest.write("data/\(round % 5)", "\(round)", transaction: id)
                        guest.write("/local/domain/\(domid ^ 1)/data/\(domid)", "x", transaction: id)
                        if guest.end(id) == "EAGAIN|" { conflicts += 1 }
                        #expect(guest.write("data/last", "\(round)") == "OK|")
                        #expect(guest.read("data/last") == "\(round)")
                        _ = guest.events()
                        if round % 50 == 49 {
                            guest.introduce()
                            #expect(guest.permit("data", "b\(domid)") == "OK|")
                        }
                    }
                    #expect(guest.rung.value > 200)
                    return conflicts
                }
            }
            return await group.reduce(into: []) { $0.append($1) }
        }
        #expect(counts.count == 4)
        #expect(store.list("/local/domain") == ["1", "2", "3"])
    }
}
