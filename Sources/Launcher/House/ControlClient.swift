package import Grants
package import HostInterface

/// What the commands ask of the houses that run.
package struct ControlClient: ~Copyable {
    /// A house that says nothing for so long is not what it should be.
    private static let patience: Int32 = 10_000

    package let house: String
    private let socket: FileDescriptor
    private var reader = ControlFrameReader()

    /// - Throws: if no such house runs.
    package init(house: String) throws(HostError) {
        guard let socket = try ControlSocket.connect(to: house) else {
            let houses = try ControlSocket.houses()
            throw HostError(
                "there is no running house called \(quoted(house))",
                advice: houses.isEmpty
                    ? "none runs; start one with roost up" : "there is: \(houses.joined(separator: ", "))")
        }
        self.house = house
        self.socket = socket
    }

    /// The houses that run, or the one.
    package static func houses(_ house: String?) throws(HostError) -> [String] {
        guard let house else { return try ControlSocket.houses() }
        let client = try ControlClient(house: house)
        return [client.house]
    }

    /// A Guest, in whatever house it is.
    ///
    /// - Throws: unless exactly one house has one of that name.
    package static func find(_ name: String, house: String?) throws(HostError) -> (house: String, guest: String) {
        var found: [String] = []
        var others: [String] = []
        for candidate in try houses(house) {
            do {
                var client = try ControlClient(house: candidate)
                let names = try client.list().map(\.name)
                if names.contains(name) { found.append(candidate) }
                others += names
            } catch {
                // Of several, one that is in trouble or has just ended is none to look in.
                if house != nil { throw error }
            }
        }
        if let house = found.first, found.count == 1 { return (house, name) }
        guard found.isEmpty else {
            throw HostError(
                "several houses have a guest \(quoted(name)): \(found.joined(separator: ", "))",
                advice: "say which with --house")
        }
        throw HostError(
            "there is no guest \(quoted(name))" + (house.map { " in the house \($0)" } ?? ""),
            advice: others.isEmpty
                ? "no house runs; start one with roost up" : "there is: \(others.joined(separator: ", "))")
    }

    /// How the Guests of the house are.
    package mutating func list() throws(HostError) -> [GuestStatus] {
        try send(ControlFrame(.list))
        var guests: [GuestStatus] = []
        while true {
            let frame = try next(milliseconds: Self.patience)
            if frame.kind == .done { return guests }
            guard let guest = GuestStatus(frame) else { throw unexpected(frame) }
            guests.append(guest)
        }
    }

    /// What the Guests of the house share.
    package mutating func shared() throws(HostError) -> [DomainReport] {
        try send(ControlFrame(.grants))
        var reader = DomainReportReader()
        while true {
            let frame = try next(milliseconds: Self.patience)
            if frame.kind == .done { return reader.domains }
            guard reader.take(frame) else { throw unexpected(frame) }
        }
    }

    /// Asks the Guest to end. `waitUntilStopped` is to follow.
    package mutating func stop(_ guest: String) throws(HostError) { try send(ControlFrame(.stop, guest)) }

    /// However long that takes.
    package mutating func waitUntilStopped() throws(HostError) {
        let frame = try next(milliseconds: -1)
        guard frame.kind == .done else { throw unexpected(frame) }
    }

    /// The connection, for a console.
    consuming func release() -> FileDescriptor { socket }

    private func unexpected(_ frame: ControlFrame) -> HostError {
        if frame.kind == .refused { return HostError("the house \(house) refuses: \(plain(frame.text, limit: 400))") }
        return HostError("the house \(house) says something that this roost does not understand")
    }

    /// A request is short, and finds room.
    private func send(_ frame: ControlFrame) throws(HostError) {
        let bytes = frame.bytes
        guard UnixSockets.send(bytes[...], to: socket.rawValue) == bytes.count else { throw gone }
    }

    private var gone: HostError { HostError("the house \(house) is gone") }

    private mutating func next(milliseconds: Int32) throws(HostError) -> ControlFrame {
        while true {
            if let frame = reader.next() { return frame }
            guard waitReadable([socket.rawValue], milliseconds: milliseconds)[0] else {
                throw HostError("the house \(house) does not answer")
            }
            guard !reader.isLost, let bytes = UnixSockets.receive(from: socket.rawValue) else { throw gone }
            reader.take(bytes)
        }
    }
}
