import HostInterface
import Testing

extension GrantBootTests {
    /// Guests that end, and Guests of all kinds; each test has a house of its own.
    @Suite struct Houses {
        enum Death: String, CaseIterable { case crash = "panicked", poweroff = "powered off", stop = "stopped" }

        /// Anna has granted and mapped pages when it ends, and so has Bert, who is left.
        @Test(arguments: Death.allCases) func aGuestThatEndsLeavesZerosAndRings(_ death: Death) throws {
            let members = [GrantHouse.Member(name: "anna"), GrantHouse.Member(name: "bert")]
            try GrantHouse.with(members, endingWith: death == .crash ? 70 : 0) { house, guests in
                let (anna, bert) = (guests[0], guests[1])
                let before = try house.resources
                let given = try GrantPair(from: anna, to: bert, pages: 3)
                let taken = try GrantPair(from: bert, to: anna, pages: 3, handle: 10)
                try given.leaveWills()
                try taken.leaveWills()
                // One asleep, as most who wait for a bell.
                try bert.say("wait 1 20000")
                switch death {
                case .crash: try anna.get("crash")
                case .poweroff: try anna.get("poweroff")
                case .stop: try house.stop(["anna"])
                }
                #expect(try bert.answer(seconds: 30) == "ok \(given.mapperPort)")
                let reason = try anna.waitForEnd()
                #expect(reason.contains(death.rawValue), "\(reason)")
                try bert.check([
                    "wait 11 5000": "ok \(taken.granterPort)", "wait 1 50": "timeout", "wait 11 50": "timeout",
                    // What was the other's is empty, and ours as long as we have it.
                    "sum 0 0 12288": "ok 0", "poke 0 4094 hello": "ok", "peek 0 4094 6": "ok hello\\x00",
                    "ring 1 \(given.mapperPort)": "ok", "ring 11 \(taken.granterPort)": "ok",
                    // Nobody was left to do its will; what is ours is as it was, and free.
                    "sum 10 0 12288": "ok \(taken.sum)", "munmap 10": "ok", "dealloc 10 \(taken.grantIndex) 3": "ok",
                ])
                #expect(try taken.referencesAreFree())
                // There is nobody of that number.
                let index = try bert.get("mapref 0 1 \(given.references[0])")[0]
                try bert.check([
                    "mmap 0 1 \(index) 1 rw shared": "error EINVAL",
                    "bindinter 1 1 \(given.granterPort)": "error ESRCH", "munmap 0": "ok",
                    "unmapref 0 \(given.mapIndex) 3": "ok",
                ])
                try bert.startProbe()
                let after = try house.resources
                #expect(after.memoryMappings < before.memoryMappings, "\(before), then \(after)")
                #expect(after.files < before.files)
            }
        }

        /// Under its programs' feet, with all the pages that there can be.
        @Test func rebootsLeaveNothingBehind() throws {
            let members = [GrantHouse.Member(name: "anna"), GrantHouse.Member(name: "bert")]
            try GrantHouse.with(members) { house, guests in
                let (anna, bert) = (guests[0], guests[1])
                var seen: [GrantHouse.Resources] = []
                for _ in 0..<4 {
                    let given = try GrantPair(from: anna, to: bert, pages: 1024)
                    let taken = try GrantPair(from: bert, to: anna, pages: 1024, handle: 10)
                    try given.leaveWills()
                    try taken.leaveWills()
                    try anna.get("reboot")
                    try bert.check([
                        "wait 1 20000": "ok \(given.mapperPort)", "wait 11 5000": "ok \(taken.granterPort)",
                        "wait 1 20": "timeout", "wait 11 20": "timeout", "sum 0 0 4194304": "ok 0",
                        "sum 10 0 4194304": "ok \(taken.sum)", "poke 0 0 mine": "ok",
                    ])
                    try anna.boot()
                    // As it was for bert, whatever there is of anna now.
                    try bert.check(["peek 0 0 5": "ok mine\\x00", "wait 1 20": "timeout"])
                    try bert.check(["ring 1 \(given.mapperPort)": "ok", "munmap 10": "ok"])
                    try bert.check(["dealloc 10 \(taken.grantIndex) 1024": "ok"])
                    try bert.get("alloc 10 1 1 1024")
                    _ = try house.probes()
                    #expect([anna.domid, bert.domid] == [1, 2])
                    seen.append(try house.resources)
                }
                print("after each reboot: \(seen.map(\.description).joined(separator: "; "))")
                #expect(Set(seen.map(\.files)).count == 1)
                let counts = seen.map(\.memoryMappings)
                #expect(counts[3] <= counts[0] + 8, "\(counts)")
            }
        }

        /// The mapper reboots for its own reasons, and finds the same granter again.
        @Test func aRebootedGuestMapsAgain() throws {
            let members = [GrantHouse.Member(name: "anna"), GrantHouse.Member(name: "bert")]
            try GrantHouse.with(members) { house, guests in
                let (anna, bert) = (guests[0], guests[1])
                let pair = try GrantPair(from: anna, to: bert)
                try bert.get("reboot")
                try anna.check(["wait 1 20000": "ok \(pair.granterPort)", "poke 0 0 welcome back": "ok"])
                try bert.boot()
                try bert.startProbe()
                try bert.get("open gntdev 0")
                let index = try bert.get("mapref 0 1 \(pair.range)")[0]
                try bert.check([
                    "mmap 0 0 \(index) 2 rw shared": "ok", "peek 0 0 12": "ok welcome back", "open evtchn 1": "ok",
                ])
                // The port is as it was before anybody had come.
                let port = try bert.get("bindinter 1 1 \(pair.granterPort)")[0]
                try anna.check(["ring 1 \(pair.granterPort)": "ok"])
                try bert.check(["wait 1 5000": "ok \(port)", "ring 1 \(port)": "ok"])
                try anna.check(["wait 1 5000": "ok \(pair.granterPort)", "wait 1 20": "timeout"])
            }
        }

        /// The granter's pages and the mapper's window are elsewhere in each.
        @Test(arguments: [("auto", "4G", "3G"), ("auto", "96M", "2G"), ("interpreter", "128M", "128M")])
        func anyTwoGuestsCanShare(_ engine: String, _ first: String, _ second: String) throws {
            let members = [
                GrantHouse.Member(name: "anna", memory: first, engine: engine),
                GrantHouse.Member(name: "bert", memory: second, engine: engine),
            ]
            try GrantHouse.with(members) { _, guests in
                for (number, (granter, mapper)) in [(guests[0], guests[1]), (guests[1], guests[0])].enumerated() {
                    let handle = 10 * number
                    let pair = try GrantPair(from: granter, to: mapper, pages: 40, handle: handle)
                    try granter.check(["poke \(handle) 159744 one way": "ok"])
                    try mapper.check(["peek \(handle) 159744 7": "ok one way", "poke \(handle) 4095 other": "ok"])
                    try mapper.check(["ring \(pair.bells) \(pair.mapperPort)": "ok"])
                    try granter.check([
                        "wait \(pair.bells) 10000": "ok \(pair.granterPort)", "peek \(handle) 4095 5": "ok other",
                    ])
                    let readOnly = try granter.get("alloc \(handle) \(mapper.domid) 0 1")
                    let index = try mapper.get("mapref \(handle) \(granter.domid) \(readOnly[1])")[0]
                    try mapper.check(["mmap \(handle) \(handle + 1) \(index) 1 r shared": "ok"])
                    try mapper.check(["mprotect \(handle + 1) rw": "ok", "peek \(handle + 1) 0 1": "ok \\x00"])
                    #expect(try mapper.ask("poke \(handle + 1) 0 X").hasPrefix("signal "))
                }
            }
        }
    }
}
