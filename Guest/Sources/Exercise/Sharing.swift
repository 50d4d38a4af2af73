import GuestKit

/// What Guests share with each other, with one Guest as both of them.
enum Sharing {
    static func check() {
        bells()
        store()
        loan()
        errors()
        accounts()
    }

    static func say(_ what: StaticString, _ holds: Bool) { Exercise.say(what, holds) }

    static func bells() {
        guard let here = try? EventChannel.allocate(for: Xen.domid),
            let there = try? EventChannel(bindingTo: Xen.domid, port: here.port)
        else { return say("bells", false) }
        // An end that is bound has rung, once.
        say("bound", there.takeRing() && !there.takeRing() && here.isConnected)
        here.ring()
        here.ring()
        Interrupts.wait(until: there.hasRung)
        say("a bell", there.takeRing() && !there.hasRung && !here.hasRung)
        // Nobody asks about this one, and it still has to wake us each time.
        let before = Clock.nanoseconds
        for round in 1...3 { _ = Interrupts.wait(until: ringLater(here, round), before: before + 1_000_000_000) }
        say("a bell that is not asked about", Clock.nanoseconds - before < 1_000_000_000)
        there.close()
        say("closed", !here.isConnected)
    }

    @safe nonisolated(unsafe) static var looks = 0

    /// False at the first look, and rings then; true at the second, which comes only if we are woken.
    static func ringLater(_ bell: borrowing EventChannel, _ round: Int) -> Bool {
        looks += 1
        if looks == 2 * round { return true }
        bell.ring()
        return false
    }

    static func store() {
        let (path, long): (Text, Text) = ("data/exercise", "0123456789012345678901234567890123456789")
        var holds = true
        // Often enough for messages to go over the ring's end.
        for _ in 0..<100 {
            holds = holds && (try? Store.write(path, long)) != nil
            if let value = try? Store.read(path) {
                holds = holds && value == "0123456789012345678901234567890123456789"
            } else {
                holds = false
            }
        }
        say("store", holds)
        say("permissions", (try? Store.setPermissions(path, [.none(Xen.domid), .read(7), .both(8)])) != nil)
        say("waited for", (try? Store.wait(for: path))?.count == long.count)
        say("removed", (try? Store.remove(path)) != nil)
        say("not there", errno { () throws(XenError) in _ = try Store.read(path) } == 2)
        let deadline = Clock.nanoseconds + 5_000_000
        say("nothing comes", (try? Store.wait(for: path, before: deadline)) == nil && Clock.nanoseconds >= deadline)
        say("no path", errno { () throws(XenError) in try Store.write("data//exercise", path) } == 22)
    }

    static func errno(_ body: () throws(XenError) -> Void) -> Int32 {
        do throws(XenError) { try body() } catch { return error.errno }
        return 0
    }

    /// Lent to oneself and borrowed from oneself, there are two addresses of the same bytes.
    static func loan() {
        guard let lent = try? GrantedPages(200, for: Xen.domid, isWritable: true),
            let bell = try? EventChannel.allocate(for: Xen.domid),
            let other = try? EventChannel(bindingTo: Xen.domid, port: bell.port)
        else { return say("lent", false) }
        let references = Pages.take().prefix(4 * 200)
        for page in 0..<200 { references.store(lent.reference(page), at: page * 4) }
        guard let borrowed = try? ForeignPages(of: Xen.domid, references: references, isWritable: true) else {
            return say("borrowed", false)
        }
        let (here, there) = (lent.region, borrowed.region)
        here.store(UInt64(17), at: 4096 * 130)
        there.store(UInt64(4), at: 8)
        there[0] = 1
        say("the same bytes", there.load(4096 * 130) == UInt64(17) && here.load(8) == UInt64(4))
        lent.tellEnd(byteAt: 0, ringing: bell)
        other.takeRing()
        lent.close()
        say("told of the end", other.takeRing() && there[0] == 0)
        say("deferred", Grants.allocator.deferredCount == 200)
        borrowed.close()
        Grants.allocator.reap()
        say("free again", Grants.allocator.pageCount == 0 && Grants.allocator.deferredCount == 0)
    }

    static func errors() {
        guard let lent = try? GrantedPages(1, for: Xen.domid, isWritable: false) else { return say("lent", false) }
        let reference = lent.reference()
        say("read-only", status(Xen.domid, reference, true) == .generalError)
        say("readable", status(Xen.domid, reference, false) == nil)
        say("no such Guest", status(0x7000, reference, false) == .badDomain)
        say("no such reference", status(Xen.domid, 1 << 20, false) == .badReference)
        say("not granted", status(Xen.domid, reference + 1, false) == .generalError)
        lent.close()
        say("taken back", status(Xen.domid, reference, false) == .generalError)
    }

    static func status(_ domid: UInt16, _ reference: UInt32, _ isWritable: Bool) -> GrantStatus? {
        do throws(GrantStatus) {
            try ForeignPages(of: domid, reference: reference, isWritable: isWritable).close()
        } catch { return error }
        return nil
    }

    static func accounts() {
        let limit = Int(Grants.allocator.limit)
        do throws(GrantError) {
            try GrantedPages(limit, for: 9, isWritable: true).close()
            try GrantedPages(limit + 1, for: 9, isWritable: true).close()
            say("more than there are", false)
        } catch { say("more than there are", error == .noMemory) }
        do throws(GrantError) {
            let file = try Grants.allocator.open()
            defer { _ = try? Grants.allocator.close(file) }
            let index = try Grants.allocator.allocate(3, for: 9, writable: true, in: file)
            say("allocated", try Grants.allocator.reference(at: index + 8192, in: file) >= 8)
            _ = try Grants.allocator.allocate(UInt32(limit) - 2, for: 9, writable: true, in: file)
            say("above the limit", false)
        } catch { say("above the limit", error == .noSpace) }
    }
}
