package import HostInterface

//L:440 A seat at somebody's console
//
// `roost console` is the far end of a frame `C`: what is typed goes there,
// what comes from there is shown, and in between there are the keys that are
// ours, the same as those of `roost run`. Only that to leave is not to end
// anything: the Guest runs on, and whoever else is at its console stays.

/// Joins the user's streams to the console of a Guest in a running house.
package struct ConsoleClient: ~Copyable {
    package enum End: Equatable, Sendable {
        /// The user has left.
        case left
        /// The Guest has ended; why, in words.
        case ended(String)
    }

    /// Keys that a Guest which reads nothing may leave with us.
    private static let mostPending = 1 << 16

    private static let help = EscapeKeys.help(
        quitting: "leaves the guest's console; the guest runs on", interrupting: "leaves it")

    private let house: String
    private let guest: String
    private let socket: FileDescriptor
    private let isTerminal = Terminal.isTerminal(0)
    private let resize: EventFD
    private var reader = ControlFrameReader()
    private var keys = EscapeKeys()
    private var isOpen = true
    /// Frames on their way to the house.
    private var pending: [UInt8] = []

    package init(_ client: consuming ControlClient, guest: String) throws(HostError) {
        house = client.house
        socket = client.release()
        self.guest = guest
        resize = try EventFD()
    }

    /// - Returns: when the user or the Guest has had enough.
    /// - Throws: if the house is gone.
    package consuming func run() throws(HostError) -> End {
        if isTerminal {
            Terminal.reportResizes(to: resize)
            try Terminal.makeRaw()
        }
        defer { Terminal.restore() }
        pending = ControlFrame(.console, guest).bytes
        tellSize()
        while true {
            var awaited = PollSet()
            awaited.append(socket.rawValue, pending.isEmpty ? .read : [.read, .write])
            awaited.append(resize.rawValue, .read)
            // Keys are always looked at, or there would be no way out; a pipe is read no faster than the house reads it.
            awaited.append(isOpen && (isTerminal || pending.isEmpty) ? 0 : -1, .read)
            _ = awaited.wait(milliseconds: -1)
            if awaited.ready(1).contains(.read) {
                resize.drain()
                tellSize()
            }
            if !awaited.ready(2).isEmpty, takeInput() { return .left }
            if !awaited.ready(0).isDisjoint(with: [.read, .hangUp, .error]), let end = try takeOutput() { return end }
            if !pending.isEmpty, let count = UnixSockets.send(pending[...], to: socket.rawValue) {
                pending.removeFirst(count)
            }
        }
    }

    /// Whether the user wants to leave.
    private mutating func takeInput() -> Bool {
        guard let bytes = readStandardInput() else {
            // What the Guest still prints is worth waiting for.
            isOpen = false
            return false
        }
        guard isTerminal else {
            pending += ControlFrame(.input, bytes).bytes
            return false
        }
        for action in keys.take(bytes, at: HostClock.monotonicNanoseconds) {
            switch action {
            case .send(let bytes):
                if pending.count < Self.mostPending { pending += ControlFrame(.input, bytes).bytes }
            case .help: EscapeKeys.showHelp(Self.help)
            case .quit: return true
            }
        }
        return false
    }

    private mutating func takeOutput() throws(HostError) -> End? {
        guard let bytes = UnixSockets.receive(from: socket.rawValue), !reader.isLost else {
            throw HostError(
                "the house \(house) has closed the connection",
                advice: "it is gone, or \(guest) printed faster than this end could show")
        }
        reader.take(bytes)
        while let frame = reader.next() {
            switch frame.kind {
            case .output: StandardStream.output.write(frame.payload)
            case .ended: return .ended(plain(frame.text, limit: 400))
            case .refused: throw HostError("the house \(house) refuses: \(plain(frame.text, limit: 400))")
            default: break
            }
        }
        return nil
    }

    private mutating func tellSize() {
        guard isTerminal, let size = Terminal.size else { return }
        let numbers = [size.rows, size.columns].flatMap { [UInt8(truncatingIfNeeded: $0), UInt8($0 >> 8)] }
        pending += ControlFrame(.window, numbers).bytes
    }
}
//:
