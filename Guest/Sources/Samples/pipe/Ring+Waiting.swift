import GuestKit

/// How far each side is, and who sleeps until the other is further.
extension Ring {
    /// Before it sleeps, a side looks again and again for so long. A bell takes about as much.
    private static var patience: UInt64 { 10_000 }

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
