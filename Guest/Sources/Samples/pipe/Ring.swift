import GuestKit

/// Blocks in pages that the sender lends to the receiver, and a page that says how far each of the two is. A
/// bell is rung only for one who has said that it sleeps, and who has looked once more after that.
struct Ring: ~Copyable {
    /// Offsets in the control page, of 32 bits each. What one side writes is in a line of the cache of its own.
    private enum Field {
        static let here = 0, port = 4, pages = 8, blockBytes = 12, total = 16
        static let written = 64, read = 128, senderSleeps = 192, receiverSleeps = 256, wrong = 320
        static let references = 2048
    }
    static let mostPages = 512
    /// Before it sleeps, a side looks again and again for so long. A bell takes about as much.
    private static let patience: UInt64 = 10_000

    private enum Owned: ~Copyable {
        case lent(GrantedPages, GrantedPages)
        case borrowed(ForeignPages, ForeignPages)
    }

    let blocks: Region
    let blockBytes: Int
    let total: Int
    /// How often this side has slept.
    private(set) var sleeps = 0
    private let control: Region
    private let bell: EventChannel
    private let owned: Owned

    /// The sender's end. The receiver finds it by one number in the store.
    static func lend(_ count: Int, blockBytes: Int, total: Int, to peer: UInt16) -> Ring? {
        guard let first = try? GrantedPages(1, for: peer, isWritable: true),
            let others = try? GrantedPages(count, for: peer, isWritable: false),
            let bell = try? EventChannel.allocate(for: peer)
        else { return nil }
        let control = first.region
        for page in 0..<count { control.store(others.reference(page), at: Field.references + 4 * page) }
        control.store(bell.port, at: Field.port)
        control.store(UInt32(count), at: Field.pages)
        control.store(UInt32(blockBytes), at: Field.blockBytes)
        control.store(UInt32(total), at: Field.total)
        control.storeReleasingWord(1, at: Field.here)
        first.tellEnd(byteAt: Field.here, ringing: bell)
        let key: Text = "data/pipe/\(peer)"
        guard (try? Store.write(key, "\(first.reference())")) != nil,
            (try? Store.setPermissions(key, [.none(Xen.domid), .read(peer)])) != nil
        else { return nil }
        return Ring(
            blocks: others.region, blockBytes: blockBytes, total: total, control: control, bell: bell,
            owned: .lent(first, others))
    }

    /// The receiver's end. What the sender says of the ring's form is looked at once, and checked.
    static func borrow(from peer: UInt16) -> Ring? {
        guard let reference = (try? Store.wait(for: "/local/domain/\(peer)/data/pipe/\(Xen.domid)"))?.number,
            let first = try? ForeignPages(of: peer, reference: UInt32(truncatingIfNeeded: reference), isWritable: true)
        else { return nil }
        let control = first.region
        let count = Int(control.load(Field.pages, as: UInt32.self))
        let blockBytes = Int(control.load(Field.blockBytes, as: UInt32.self))
        let total = Int(control.load(Field.total, as: UInt32.self))
        guard count > 0, count <= Ring.mostPages, blockBytes > 0, blockBytes % 4096 == 0,
            count * 4096 % blockBytes == 0,
            let others = try? ForeignPages(
                of: peer, references: control.part(Field.references, 4 * count), isWritable: false),
            let bell = try? EventChannel(bindingTo: peer, port: control.load(Field.port))
        else { return nil }
        bell.ring()
        return Ring(
            blocks: others.region, blockBytes: blockBytes, total: total, control: control, bell: bell,
            owned: .borrowed(first, others))
    }

    // MARK: The sender's

    /// The first ring is the receiver's, who has come.
    func awaitReceiver() { Interrupts.wait(until: bell.hasRung) }

    /// False: the receiver has gone. (Or it lies about how far it is, which is to be treated like it.)
    mutating func awaitRoom(_ block: Int) -> Bool {
        wait(Field.senderSleeps, block - Int(slots) + some) { $0.used(block) < $0.slots }
    }
    mutating func awaitEmpty(_ total: Int) -> Bool { wait(Field.senderSleeps, total) { $0.used(total) == 0 } }

    private func used(_ block: Int) -> UInt32 {
        UInt32(truncatingIfNeeded: block) &- control.loadAcquiringWord(Field.read)
    }

    func put(_ count: Int) { tell(count, Field.written, Field.receiverSleeps) }
    var wrong: UInt32 { control.loadAcquiringWord(Field.wrong) }

    // MARK: The receiver's

    /// False: the sender has gone.
    mutating func awaitBlock(_ block: Int) -> Bool {
        wait(Field.receiverSleeps, min(block + some, total)) {
            let ready = $0.control.loadAcquiringWord(Field.written) &- UInt32(truncatingIfNeeded: block)
            return ready > 0 && ready <= $0.slots
        }
    }

    func take(_ count: Int) { tell(count, Field.read, Field.senderSleeps) }
    func report(_ wrong: Int) { control.storeReleasingWord(UInt32(truncatingIfNeeded: wrong), at: Field.wrong) }
    /// The sender takes the pages back.
    func awaitEnd() {
        while control.loadAcquiringWord(Field.here) != 0, bell.isConnected {
            Interrupts.wait(until: bell.hasRung)
            bell.takeRing()
        }
    }

    // MARK: Both

    private var slots: UInt32 { UInt32(blocks.count / blockBytes) }
    private var some: Int { Int(max(slots / 2, 1)) }

    private func tell(_ count: Int, _ field: Int, _ sleeper: Int) {
        // ORDERING: a full barrier: our number, then our look at whether the other sleeps. It has them the other way round.
        control.exchangeWord(UInt32(truncatingIfNeeded: count), at: field)
        let wanted = control.loadAcquiringWord(sleeper)
        guard wanted != 0, UInt32(truncatingIfNeeded: count) >= wanted else { return }
        if control.exchangeWord(0, at: sleeper) != 0 { bell.ring() }
    }

    /// - Parameter wanted: how far the other has to be to ring for us. More than we need: to sleep takes as long as a
    ///   few blocks, and who is woken for one would soon sleep again.
    private mutating func wait(_ sleeper: Int, _ wanted: Int, _ isReady: (borrowing Ring) -> Bool) -> Bool {
        if isReady(self) { return true }
        let deadline = Clock.nanoseconds + Self.patience
        while Clock.nanoseconds < deadline {
            if isReady(self) { return true }
        }
        while true {
            control.exchangeWord(UInt32(truncatingIfNeeded: wanted), at: sleeper)
            if isReady(self) { break }
            // Who has died has rung, perhaps before we asked.
            if !bell.isConnected { return isReady(self) }
            sleeps += 1
            Interrupts.wait(until: bell.hasRung)
            bell.takeRing()
        }
        control.exchangeWord(0, at: sleeper)
        return true
    }
}
