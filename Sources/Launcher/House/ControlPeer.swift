internal import Grants
internal import HostInterface

/// Somebody who has connected to the house, as the house sees them. The main thread's alone.
final class ControlPeer {
    private enum Role {
        case asking
        /// Wants to know when the Guest has ended.
        case waiting(HouseMember)
        /// Looks at its console, and has been sent all that it printed up to the offset.
        case watching(HouseMember, offset: Int)
    }

    /// More is not put together for somebody who reads none of it.
    private static let mostOutput = 1 << 16
    private static let chunk = 16 << 10
    /// How long somebody may think about what to ask.
    private static let patience: UInt64 = 10_000_000_000

    private let socket: FileDescriptor
    private var role = Role.asking
    private var reader = ControlFrameReader()
    /// Typed, and not yet taken by the Guest.
    private var input: [UInt8] = []
    private var output: [UInt8] = []
    private var lastProgress = HostClock.monotonicNanoseconds
    /// To be let go once they have what was said to them.
    private var isLeaving = false
    private var isGone = false

    init(_ socket: consuming FileDescriptor) { self.socket = socket }

    /// What to poll the socket for.
    var awaited: (descriptor: Int32, events: PollSet.Events) {
        var events: PollSet.Events = []
        if canHear, reader.count <= ControlFrame.mostPayload { events.insert(.read) }
        if !output.isEmpty || hasMore { events.insert(.write) }
        return (socket.rawValue, events)
    }

    /// A request would be answered now.
    private var canHear: Bool { !isLeaving && input.isEmpty && output.count < Self.mostOutput }

    /// When to look again although nothing happens; nil for never.
    var deadline: UInt64? {
        if case .asking = role { return lastProgress &+ Self.patience }
        return isLeaving ? lastProgress &+ Self.patience : nil
    }

    /// Somebody waits for what the house has still to say to them.
    var isOwed: Bool {
        if !output.isEmpty { return true }
        if case .asking = role { return false }
        return !isLeaving
    }

    /// Does what can be done without waiting.
    ///
    /// - Returns: false when they are gone.
    func serve(_ ready: PollSet.Events, _ members: [HouseMember], _ domains: DomainHouse) -> Bool {
        if !ready.isDisjoint(with: [.read, .hangUp, .error]) {
            guard ready.contains(.read), let bytes = UnixSockets.receive(from: socket.rawValue) else { return leave() }
            reader.take(bytes)
        }
        // Once, and not as long as there is more: others wait, too.
        work(members, domains)
        guard send() else { return leave() }
        if let deadline, HostClock.monotonicNanoseconds >= deadline { return leave() }
        return isGone || (isLeaving && output.isEmpty) ? leave() : true
    }

    private func leave() -> Bool {
        if case .watching(let member, _) = role { member.detach() }
        role = .asking
        return false
    }

    private func send() -> Bool {
        guard !output.isEmpty else { return true }
        guard let count = UnixSockets.send(output[...], to: socket.rawValue) else { return false }
        if count > 0 { lastProgress = HostClock.monotonicNanoseconds }
        output.removeFirst(count)
        return true
    }

    private func say(_ frame: ControlFrame) { output += frame.bytes }

    /// The last that they hear.
    private func sayGoodbye(_ frame: ControlFrame) {
        say(frame)
        isLeaving = true
        lastProgress = HostClock.monotonicNanoseconds
    }

    private func refuse(_ words: String) { sayGoodbye(ControlFrame(.refused, words)) }

    /// There is something to say as soon as there is room for it.
    private var hasMore: Bool {
        if canHear, reader.hasNext { return true }
        guard case .watching(let member, let offset) = role, !isLeaving else { return false }
        return member.printed(from: offset, limit: 1)?.isEmpty == false
    }

    private func work(_ members: [HouseMember], _ domains: DomainHouse) {
        while canHear, let frame = reader.next() {
            lastProgress = HostClock.monotonicNanoseconds
            hear(frame, members, domains)
        }
        if reader.isLost, !isLeaving { refuse("this is not how one talks to a house") }
        switch role {
        case .asking: break
        case .waiting(let member):
            guard member.end != nil else { break }
            say(ControlFrame(.done))
            role = .asking
        case .watching(let member, let offset):
            if !input.isEmpty { input.removeFirst(member.receive(input)) }
            watch(member, offset)
        }
    }

    private func watch(_ member: HouseMember, _ offset: Int) {
        var offset = offset
        // Looked at before what it printed: nothing comes behind its end.
        let end = member.end
        while true {
            // Asked for nothing, it still says whether that is too late.
            let limit = output.count < Self.mostOutput ? Self.chunk : 0
            guard let bytes = member.printed(from: offset, limit: limit) else {
                // They would not read a word of why, either.
                isGone = true
                return
            }
            if bytes.isEmpty { break }
            say(ControlFrame(.output, bytes))
            offset += bytes.count
        }
        role = .watching(member, offset: offset)
        guard let end, !isLeaving, member.printed(from: offset, limit: 1)?.isEmpty == true else { return }
        sayGoodbye(ControlFrame(.ended, end.details == nil ? "ended: \(end.reason)" : "died: \(end.reason)"))
    }

    private func hear(_ frame: ControlFrame, _ members: [HouseMember], _ domains: DomainHouse) {
        switch (frame.kind, role) {
        case (.list, .asking):
            for member in members { say(member.status.frame) }
            say(ControlFrame(.done))
        case (.grants, .asking):
            for frame in domains.report.flatMap(\.frames) { say(frame) }
            say(ControlFrame(.done))
        case (.stop, .asking):
            guard let member = find(frame, members) else { return }
            member.stop()
            role = .waiting(member)
        case (.console, .asking):
            guard let member = find(frame, members) else { return }
            role = .watching(member, offset: member.attach())
        case (.input, .watching): input = frame.payload
        case (.window, .watching(let member, _)) where frame.payload.count == 4:
            let numbers = frame.payload.map(UInt16.init)
            let size = WindowSize(rows: numbers[0] | numbers[1] << 8, columns: numbers[2] | numbers[3] << 8)
            if size.rows > 0, size.columns > 0 { member.resize(size) }
        default: refuse("this is not the time to say that to a house")
        }
    }

    private func find(_ frame: ControlFrame, _ members: [HouseMember]) -> HouseMember? {
        if let member = members.first(where: { $0.name == frame.text }) { return member }
        refuse("there is no guest \(quoted(frame.text)); there is: \(members.map(\.name).joined(separator: ", "))")
        return nil
    }
}
