import GuestKit

/// Lends a page to another Guest of the house, which runs the same program and borrows it: `peer=N` is the
/// other's number (without it, 1 and 2 are meant), `role=lender` or `role=borrower` who is who (without it, the lower
/// number lends). The lender leaves the page's reference in the store, and everything else in the page.
@main struct Lend {
    static let peer = UInt16(truncatingIfNeeded: Boot.number("peer") ?? (Xen.domid == 1 ? 2 : 1))

    /// Offsets in the page.
    enum Field {
        /// 32 bits: not 0 as long as the lender is here.
        static let here = 0
        /// 32 bits: the port of the lender's bell.
        static let port = 4
        /// 32 bits: not 0 once there is an answer.
        static let answered = 8
        /// A byte that says how long it is, then a text.
        static let letter = 1024
        static let answer = 2048
    }

    static func main() {
        let isLender = Boot.word("role").map { $0 == "lender" } ?? (Xen.domid < peer)
        if isLender { lend() } else { borrow() }
    }

    static func lend() {
        guard let pages = try? GrantedPages(1, for: peer, isWritable: true),
            let bell = try? EventChannel.allocate(for: peer)
        else { panic("there is nothing to lend") }
        let page = pages.region
        put("Dear \(peer), this page is on loan. Do write. Yours, \(Xen.domid)", page, Field.letter)
        page.store(bell.port, at: Field.port)
        page.storeReleasingWord(1, at: Field.here)
        pages.tellEnd(byteAt: Field.here, ringing: bell)

        let key: Text = "data/lend/\(peer)"
        do throws(XenError) {
            try Store.write(key, "\(pages.reference())")
            try Store.setPermissions(key, [.none(Xen.domid), .read(peer)])
        } catch { panic("the store does not take \(key): error \(error.errno)") }
        print("lent a page to \(peer), as reference \(pages.reference())")

        while page.loadAcquiringWord(Field.answered) == 0 {
            Interrupts.wait(until: bell.hasRung)
            bell.takeRing()
            if page.loadAcquiringWord(Field.answered) == 0, !bell.isConnected { return print("\(peer) has gone") }
        }
        print("\(peer) answers: \(get(page, Field.answer))")
        // It would be at the end of the scope. The other is told: a byte, then a ring.
        pages.close()
    }

    static func borrow() {
        let key: Text = "/local/domain/\(peer)/data/lend/\(Xen.domid)"
        guard let reference = (try? Store.wait(for: key))?.number else { panic("no reference in \(key)") }
        do throws(GrantStatus) {
            let pages = try ForeignPages(of: peer, reference: UInt32(truncatingIfNeeded: reference), isWritable: true)
            answer(in: pages.region)
        } catch { panic("cannot map reference \(reference) of \(peer): status \(error.rawValue)") }
    }

    static func answer(in page: Region) {
        guard let bell = try? EventChannel(bindingTo: peer, port: page.load(Field.port)) else {
            return print("\(peer) has gone")
        }
        print("\(peer) writes: \(get(page, Field.letter))")
        put("Dear \(peer), got it. Yours, \(Xen.domid)", page, Field.answer)
        page.storeReleasingWord(1, at: Field.answered)
        bell.ring()
        while page.loadAcquiringWord(Field.here) != 0, bell.isConnected {
            Interrupts.wait(until: bell.hasRung)
            bell.takeRing()
        }
        print("\(peer) has taken the page back")
    }

    static func put(_ text: Text, _ page: Region, _ offset: Int) {
        page[offset] = UInt8(text.count)
        for index in 0..<text.count { page[offset + 1 + index] = text[index] }
    }

    /// It is the other's memory: what it says of its length is looked at once, and a Text takes no more than it holds.
    static func get(_ page: Region, _ offset: Int) -> Text { Text(page.part(offset + 1, Int(page[offset]))) }
}
