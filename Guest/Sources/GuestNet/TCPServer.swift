public import GuestKit

//G:124 A server
//
// One loop: sleep until a frame has come or somebody has waited too long; take
// all frames there are; send what can be sent. Thirty-two can be served at a time,
// and those who have got their page and only linger, in case their last word was
// lost, make room for others. Who finds no room is not answered at all and asks
// again in a second or some, as TCP does.

/// Answers one question for each connection, on one port.
public struct TCPServer: ~Copyable {
    /// What is sent, then the connection is closed.
    public struct Answer {
        let head: Text
        let body: Region

        /// The head is copied; the body is read until it has been acknowledged.
        public init(_ head: Text, _ body: Region = Region("")) {
            self.head = head
            self.body = body
        }
    }

    private static let places = 32

    private var host: IPv4Host
    private let port: UInt16
    private let pages = Pages.take(places)
    private var connections = InlineArray<32, TCPConnection>(repeating: TCPConnection())

    /// Something could not be sent, as all frames were on their way.
    private var lacksFrames = false

    /// Nothing is answered before `serve`.
    public init(_ host: consuming IPv4Host, port: UInt16) {
        self.host = host
        self.port = port
    }

    /// Serves for ever. `answer` is shown what has come so far; nil: there is more to come.
    public mutating func serve(_ answer: (Region) -> Answer?) {
        while true {
            if let deadline = earliestDeadline() {
                _ = Interrupts.wait(until: hasWork, before: deadline)
            } else {
                Interrupts.wait(until: hasWork)
            }
            if lacksFrames {
                lacksFrames = false
                for place in 0..<TCPServer.places { _ = transmit(place) }
            }
            while let frame = host.network.receive() {
                if let packet = host.take(frame.bytes) { take(packet, answer) }
                host.network.recycle(frame)
            }
            for place in 0..<TCPServer.places { lookAtClock(place) }
        }
    }

    private var hasWork: Bool { host.network.hasInput || lacksFrames && host.network.hasRoom }

    private mutating func take(_ packet: IPv4Host.Packet, _ answer: (Region) -> Answer?) {
        let sum = host.pseudoHeaderSum(packet.source.address, packet.bytes.count)
        guard let segment = TCPSegment(packet.bytes, pseudoHeaderSum: sum) else { return }
        guard let place = place(of: segment, from: packet.source) else {
            if !segment.flags.contains(.rst) { refuse(segment, from: packet.source) }
            return
        }
        guard place >= 0 else { return }
        if connections[place].state == .free {
            connections[place].open(
                segment, from: packet.source, page: pages.part(place * Pages.size, Pages.size),
                sequence: UInt32(truncatingIfNeeded: (Clock.nanoseconds &* 0x9e37_79b9_7f4a_7c15) >> 24))
        } else if !connections[place].take(segment) {
            connections[place].state = .free
            return
        } else if segment.flags.contains(.syn), connections[place].acknowledged == 0 {
            connections[place].sent = 0  // It has not had our SYN.
        }
        if !connections[place].isAnswered, connections[place].acknowledged > 0 { ask(place, answer) }
        // What came is acknowledged by what goes out, or by a segment of its own. One
        // that is not what was expected is told what was.
        let isExpected = segment.length == 0 && segment.sequence == connections[place].receiveNext
        if !transmit(place), !isExpected { send(place, TCPSegment.Flags(), connections[place].furthest, 0) }
        if connections[place].isAcknowledged, connections[place].peerIsDone, connections[place].state == .open {
            connections[place].state = .lingering
            connections[place].deadline = Clock.nanoseconds + TCPConnection.lingerTime
        }
    }

    /// Whether what has come is a question now.
    private mutating func ask(_ place: Int, _ answer: (Region) -> Answer?) {
        if connections[place].requestBytes > 0, let answer = answer(connections[place].request) {
            connections[place].answer(answer.head, answer.body)
        } else if connections[place].peerIsDone || connections[place].requestRoom == 0 {
            connections[place].answer("", Region(""))
        }
    }

    /// Sends as much as the other end has room for. Returns whether that was anything.
    private mutating func transmit(_ place: Int) -> Bool {
        var hasSent = false
        while true {
            let connection = connections[place]
            guard connection.state == .open, connection.sent < connection.end else { return hasSent }
            var flags = TCPSegment.Flags()
            var count: UInt32 = 0
            if connection.sent == 0 {
                flags = .syn
            } else if connection.sent <= connection.length {
                let inFlight = connection.sent - connection.acknowledged
                // With no window at all, one byte is tried after each deadline.
                let room = connection.window > inFlight ? connection.window - inFlight : inFlight == 0 ? 1 : 0
                count = min(connection.length + 1 - connection.sent, min(UInt32(connection.maximumBytes), room))
                guard count > 0 else { return hasSent }
                flags = .psh
            }
            if connection.sent + count == connection.length + 1, connection.isAnswered { flags.insert(.fin) }
            guard send(place, flags, connection.sent, Int(count)) else { return hasSent }
            hasSent = true
            let length = count + (flags.contains(.syn) ? 1 : 0) + (flags.contains(.fin) ? 1 : 0)
            connections[place].sent += length
            connections[place].furthest = max(connections[place].furthest, connections[place].sent)
            if connection.sent == connection.acknowledged { connections[place].waitForAcknowledgement() }
        }
    }

    /// One segment. False: no frame was free for it.
    @discardableResult
    private mutating func send(_ place: Int, _ flags: TCPSegment.Flags, _ offset: UInt32, _ count: Int) -> Bool {
        let connection = connections[place]
        guard let (frame, bytes) = host.packet(to: connection.peer) else {
            lacksFrames = true
            return false
        }
        let options = flags.contains(.syn) ? 4 : 0
        let headers = TCPSegment.headerBytes + options
        if options > 0 { bytes.storeBig(0x0204_05b4 as UInt32, at: TCPSegment.headerBytes) }  // MSS 1460.
        if count > 0 { connection.copyAnswer(Int(offset) - 1, count, to: bytes.part(headers, count)) }
        let sequence = connection.initialSequence &+ offset
        fill(
            bytes.prefix(headers + count), headers, to: connection.peer.address, connection.peerPort, sequence,
            connection.receiveNext, flags.union(.ack), window: UInt16(connection.requestRoom))
        host.sendTCP(frame, headers + count)
        return true
    }

    /// RST, for a segment that belongs to nothing.
    private mutating func refuse(_ segment: TCPSegment, from peer: IPv4Host.Peer) {
        guard let (frame, bytes) = host.packet(to: peer) else { return }
        let hasACK = segment.flags.contains(.ack)
        fill(
            bytes.prefix(TCPSegment.headerBytes), TCPSegment.headerBytes, to: peer.address, segment.sourcePort,
            hasACK ? segment.acknowledged : 0, segment.sequence &+ segment.length, hasACK ? .rst : .rst.union(.ack),
            port: segment.port, window: 0)
        host.sendTCP(frame, TCPSegment.headerBytes)
    }

    private func fill(
        _ bytes: Region, _ headerBytes: Int, to peer: IPv4Address, _ peerPort: UInt16, _ sequence: UInt32,
        _ acknowledged: UInt32, _ flags: TCPSegment.Flags, port: UInt16? = nil, window: UInt16
    ) {
        bytes.storeBig(port ?? self.port, at: 0)
        bytes.storeBig(peerPort, at: 2)
        bytes.storeBig(sequence, at: 4)
        bytes.storeBig(acknowledged, at: 8)
        bytes[12] = UInt8(headerBytes / 4) << 4
        bytes[13] = flags.rawValue
        bytes.storeBig(window, at: 14)
        bytes.storeBig(0 as UInt32, at: 16)  // Checksum, and no urgent data.
        bytes.storeBig(bytes.checksum(host.pseudoHeaderSum(peer, bytes.count)), at: 16)
    }

    /// The segment's connection, or a place if it begins one. Nil: it belongs to nothing; -1: there is no place.
    private mutating func place(of segment: TCPSegment, from peer: IPv4Host.Peer) -> Int? {
        guard segment.port == port else { return nil }
        let isNew = segment.flags == .syn
        var free = -1
        for place in 0..<TCPServer.places where isFree(place, ratherThan: free) { free = place }
        for place in 0..<TCPServer.places
        where connections[place].state != .free && connections[place].peerPort == segment.sourcePort
            && connections[place].peer.address == peer.address
        {
            // A SYN after the end is a new beginning.
            guard isNew, connections[place].state == .lingering else { return place }
            free = place
        }
        guard isNew else { return nil }
        if free >= 0 { connections[free].state = .free }
        return free
    }

    /// Whether a place is free, or could be, and sooner than another.
    private mutating func isFree(_ place: Int, ratherThan other: Int) -> Bool {
        guard connections[place].state != .open else { return false }
        guard other >= 0, connections[other].state == .lingering else { return other < 0 }
        return connections[place].state == .free || connections[place].deadline < connections[other].deadline
    }

    private func earliestDeadline() -> UInt64? {
        var earliest: UInt64?
        let connections = connections.span  // A view: the array would be copied.
        for place in 0..<TCPServer.places where connections[place].state != .free {
            earliest = min(earliest ?? .max, connections[place].deadline)
        }
        return earliest
    }

    /// Sends again what nobody has acknowledged, or gives up.
    private mutating func lookAtClock(_ place: Int) {
        let connection = connections[place]
        guard connection.state != .free, Clock.nanoseconds >= connection.deadline else { return }
        guard connection.state == .open, connection.acknowledged < connection.end,
            connection.tries < TCPConnection.mostTries
        else {
            connections[place].state = .free
            return
        }
        connections[place].tries += 1
        connections[place].sent = connection.acknowledged
        connections[place].waitForAcknowledgement()
        _ = transmit(place)
    }
}
//:
