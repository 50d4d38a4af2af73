//D:335 Messages that are longer than the pipe
//
// A message has up to 4112 bytes and the ring has 1024, so in both directions
// there is a half of something most of the time. What has come is collected
// until a message is whole. What is to go waits in a queue, of which the first
// may have gone in part.
//
// No request is taken while anything waits. That is all the flow control there
// is: who does not read their replies can have one outstanding, and no more
// than that is kept for them. But events come from what others do, and there
// the queue must be made to end. Two things do that. An event that is in it
// already is not put there again: it says "look", and has not been heard yet.
// And from 64 KiB on new ones are dropped and counted, until something has
// gone. We might have closed the connection instead; but a Guest that does not
// read may only be paused, and it would be odd if whoever has filled its queue
// could so cut it off.

/// One Guest's talk with the store. Used under the store's lock.
final class StoreConnection {
    let domid: UInt16
    let notify: @Sendable () -> Void
    private var ring: StoreRing
    /// Of a request that is not all here.
    private var incoming: [UInt8] = []
    /// What is to be said, from `first` on, of which `sent` bytes have been.
    private var outgoing: [[UInt8]] = []
    private var first = 0
    private var sent = 0
    /// Of these, the events nothing of which has been sent.
    private var waiting: Set<[UInt8]> = []
    private var waitingBytes = 0
    /// An event had no room, and nothing has gone since: the next need not even be made.
    private(set) var isFull = false
    var transactions: [UInt32: StoreTransaction] = [:]
    private var lastTransaction: UInt32 = 0
    /// Why it is over, if it is.
    private(set) var loss: StoreLoss?
    /// Something has been taken or put since the Guest was notified last.
    private var hasMoved = false

    init(_ domid: UInt16, ring: StoreRing, notify: @escaping @Sendable () -> Void) {
        (self.domid, self.ring, self.notify) = (domid, ring, notify)
    }

    // MARK: From the Guest

    /// The next request, if it is all there.
    func receive() throws(StoreLoss) -> StoreMessage? {
        while true {
            let hasHeader = incoming.count >= StoreMessage.headerBytes
            let wanted = StoreMessage.headerBytes + (hasHeader ? Int(StoreMessage.payloadLength(incoming)) : 0)
            if incoming.count == wanted {
                defer { incoming = [] }
                return StoreMessage(incoming)
            }
            let taken = try ring.read(wanted - incoming.count, into: &incoming)
            if taken > 0 { hasMoved = true }
            guard incoming.count == wanted else { return nil }
            // GUEST: a length beyond this is no message's, and what follows it could be anything.
            guard StoreMessage.payloadLength(incoming) <= StoreMessage.mostPayload else { throw .requestTooLong }
        }
    }

    // MARK: To the Guest

    /// Nothing waits for room in the ring.
    var isFlushed: Bool { first == outgoing.count }

    func send(_ message: StoreMessage) { outgoing.append(message.bytes) }

    /// What became of an event.
    enum Fate { case queued, merged, dropped }

    func send(event: StoreMessage, _ limits: StoreLimits) -> Fate {
        let bytes = event.bytes
        guard !waiting.contains(bytes) else { return .merged }
        guard waitingBytes + bytes.count <= limits.pendingEventBytes else {
            isFull = true
            return .dropped
        }
        waiting.insert(bytes)
        waitingBytes += bytes.count
        outgoing.append(bytes)
        return .queued
    }

    /// Puts as much as there is room for into the ring.
    func flush() throws(StoreLoss) {
        // Also with nothing to say: what the Guest's index is tells whether it can still be talked to.
        _ = try ring.room()
        while first < outgoing.count {
            let bytes = outgoing[first]
            let count = try ring.write(bytes[sent...])
            guard count > 0 else { return }
            hasMoved = true
            if sent == 0, waiting.remove(bytes) != nil { (waitingBytes, isFull) = (waitingBytes - bytes.count, false) }
            sent += count
            guard sent == bytes.count else { return }
            (first, sent) = (first + 1, 0)
            // Half of it is past: forget that half, also for one who never takes the last.
            if 2 * first >= outgoing.count {
                outgoing.removeFirst(first)
                first = 0
            }
        }
    }

    /// Whether the Guest is to be notified; and then it has been.
    func takeMoved() -> Bool {
        defer { hasMoved = false }
        return hasMoved
    }

    // MARK: Transactions

    /// - Throws: ENOSPC.
    func begin(_ transaction: StoreTransaction, _ limits: StoreLimits) throws(StoreError) -> UInt32 {
        guard transactions.count < limits.transactions else { throw .noSpace }
        repeat { lastTransaction &+= 1 } while lastTransaction == 0 || transactions[lastTransaction] != nil
        transactions[lastTransaction] = transaction
        return lastTransaction
    }

    /// Nothing will be heard of it any more.
    func lose(_ loss: StoreLoss) {
        self.loss = loss
        (incoming, outgoing, first, sent, waiting, waitingBytes, transactions) = ([], [], 0, 0, [], 0, [:])
    }
}
//:
