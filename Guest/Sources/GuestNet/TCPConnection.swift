internal import GuestKit

//G:122 One who asks
//
// Both ends count the bytes they send, beginning anywhere. SYN and FIN count as
// a byte each, so that they are acknowledged like any other. For what we send
// we count from our SYN:
//
//      0     1 … length                      length + 1     length + 2
//      SYN   the answer: its head, its body   FIN            all of it was seen
//
// Three marks move along that line: what the other end has acknowledged, what
// we have sent, and how far we have ever sent. When nothing is acknowledged for
// too long, the second goes back to the first, and everything is sent again:
// that is all of retransmission (go-back-N). What comes in is taken only in
// order; the rest is forgotten, and will come again.

/// A connection that somebody has made to us.
struct TCPConnection {
    enum State { case free, open, lingering }

    var state = State.free
    var peer = IPv4Host.Peer()
    var peerPort: UInt16 = 0
    /// The request as it comes, then the answer's head in its second half.
    var page = Region(address: 0, count: 0)
    var requestBytes = 0
    var head = Region(address: 0, count: 0)
    var body = Region(address: 0, count: 0)
    var isAnswered = false
    /// The other end has sent its FIN.
    var peerIsDone = false

    var initialSequence: UInt32 = 0
    var acknowledged: UInt32 = 0
    var sent: UInt32 = 0
    var furthest: UInt32 = 0
    var window: UInt32 = 0
    var maximumBytes = 536
    var receiveNext: UInt32 = 0

    /// When to send again, or to give up one that says nothing or lingers.
    var deadline: UInt64 = 0
    var tries = 0

    static let firstPatience: UInt64 = 300_000_000
    static let mostTries = 8
    static let idleTime: UInt64 = 60_000_000_000
    static let lingerTime: UInt64 = 2_000_000_000

    var request: Region { page.prefix(requestBytes) }
    var requestRoom: Int { page.count / 2 - requestBytes }
    var length: UInt32 { UInt32(head.count + body.count) }
    /// The end of what can be sent now: the FIN belongs to the answer.
    var end: UInt32 { isAnswered ? length + 2 : 1 }
    var isAcknowledged: Bool { isAnswered && acknowledged == end }

    mutating func open(_ segment: TCPSegment, from peer: IPv4Host.Peer, page: Region, sequence: UInt32) {
        self = TCPConnection()
        self.page = page
        self.peer = peer
        state = .open
        peerPort = segment.sourcePort
        initialSequence = sequence
        receiveNext = segment.sequence &+ 1
        window = UInt32(segment.window)
        maximumBytes = segment.maximumBytes
    }

    /// Takes in what is new and in order. False: it wants to be over at once.
    mutating func take(_ segment: TCPSegment) -> Bool {
        if segment.flags.contains(.rst) { return segment.sequence != receiveNext }
        let before = (receiveNext, acknowledged)
        defer { if before != (receiveNext, acknowledged) { restart() } }
        // How much of it has come before; less than 0 if something is missing in between.
        let known = Int(Int32(bitPattern: receiveNext &- segment.sequence))
        let skip = known - (segment.flags.contains(.syn) ? 1 : 0)
        if skip >= 0, skip <= segment.data.count, !peerIsDone {
            let data = segment.data.part(skip, segment.data.count - skip)
            let room = page.part(requestBytes, requestRoom)
            // After the answer, nothing more is read.
            let length = isAnswered ? data.count : room.copy(from: data)
            if !isAnswered { requestBytes += length }
            receiveNext &+= UInt32(length)
            if segment.flags.contains(.fin), length == data.count {
                receiveNext &+= 1
                peerIsDone = true
            }
        }
        guard segment.flags.contains(.ack) else { return true }
        let offset = segment.acknowledged &- initialSequence
        guard offset <= furthest else { return true }
        window = UInt32(segment.window)
        if offset > acknowledged {
            acknowledged = offset
            sent = max(sent, offset)
        }
        return true
    }

    /// Twice as long each time.
    mutating func waitForAcknowledgement() {
        deadline = Clock.nanoseconds + TCPConnection.firstPatience << UInt64(tries)
    }

    /// The clock begins anew: something has got on.
    private mutating func restart() {
        tries = 0
        deadline =
            Clock.nanoseconds + (acknowledged < furthest ? TCPConnection.firstPatience : TCPConnection.idleTime)
    }

    mutating func answer(_ text: Text, _ body: Region) {
        let room = page.part(page.count / 2, page.count / 2)
        for index in 0..<text.count { room[index] = text[index] }
        head = room.prefix(text.count)
        self.body = body
        isAnswered = true
    }

    /// Copies `count` bytes of the answer, from `offset` of it on.
    func copyAnswer(_ offset: Int, _ count: Int, to region: Region) {
        var copied = 0
        if offset < head.count {
            copied = region.prefix(count).copy(from: head.part(offset, head.count - offset))
        }
        if copied < count {
            let start = offset + copied - head.count
            region.part(copied, count - copied).copy(from: body.part(start, count - copied))
        }
    }
}
//:
