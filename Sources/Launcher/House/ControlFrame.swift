//L:430 How one talks to a house
//
// A running house listens at a Unix socket, HOUSE.sock in the user's runtime
// folder, which has the mode 0600 in a folder of 0700; and whoever connects
// must be the same user besides. Both sides send frames:
//
//     kind, a letter | length, 2 bytes, little-endian | as many bytes
//
// The one who connected asks, and gets one answer, in one or more frames:
//
//     L                  g…  d          a line for each Guest, then done
//     S  name            d | x          stop it: done once it has ended
//     C  name            o…  e | x      its console: what it prints, and why it ended
//     M                  s…  d          what its Guests share of memory, and bells
//
// Behind C there may be more, and nothing but:
//
//     I  bytes                          typed at the console
//     W  rows, columns                  the window's size: twice 2 bytes
//
//     g  name, kind, state, engine, memory, uptime, CPU time: text, with tabs between; times in ns
//     s  domain | grant | map | port | more, and its numbers: text, with tabs between
//     o  bytes                          printed; first some of what was printed before
//     e, x                              words for a person
//
// A frame has 64 KiB at most because its length cannot say more. Whoever sends
// what is not in the table is answered with x and is out. Nobody makes the
// house wait or grow: who is slow to read is asked nothing more until they have
// read, and at a console, who is a megabyte behind is out; who types faster
// than the Guest reads is not heard for a while; who connects and says nothing
// for ten seconds is out too.

/// One message of the control socket.
package struct ControlFrame: Equatable, Sendable {
    package enum Kind: UInt8, Sendable {
        case list = 0x4c
        case stop = 0x53
        case console = 0x43
        case grants = 0x4d
        case share = 0x73
        case input = 0x49
        case window = 0x57
        case guest = 0x67
        case done = 0x64
        case output = 0x6f
        case ended = 0x65
        case refused = 0x78
    }

    package let kind: Kind
    package let payload: [UInt8]

    package static let mostPayload = Int(UInt16.max)

    package init(_ kind: Kind, _ payload: [UInt8] = []) {
        self.kind = kind
        self.payload = Array(payload.prefix(Self.mostPayload))
    }

    package init(_ kind: Kind, _ text: String) { self.init(kind, Array(text.utf8)) }

    package var text: String { String(decoding: payload, as: UTF8.self) }

    package var bytes: [UInt8] {
        [kind.rawValue, UInt8(truncatingIfNeeded: payload.count), UInt8(payload.count >> 8)] + payload
    }
}
//:

/// Finds the frames in what arrives.
package struct ControlFrameReader {
    private var bytes: [UInt8] = []
    /// Where what is not taken yet begins.
    private var start = 0

    package init() {}

    /// A byte that is no kind of frame was met: there is nothing more to be had here.
    package private(set) var isLost = false

    /// Bytes that wait to be taken: while they are as many as a frame, no more are wanted.
    package var count: Int { bytes.count - start }

    /// `next` has something to say.
    package var hasNext: Bool { length != nil }

    package mutating func take(_ new: [UInt8]) {
        bytes.removeFirst(start)
        start = 0
        bytes += new
    }

    /// The next frame, if it is there as a whole.
    package mutating func next() -> ControlFrame? {
        guard !isLost, let length else { return nil }
        guard let kind = ControlFrame.Kind(rawValue: bytes[start]) else {
            isLost = true
            return nil
        }
        defer { start += length }
        return ControlFrame(kind, Array(bytes[start + 3..<start + length]))
    }

    /// How many bytes the next frame has, if it is there; of what is no frame, none.
    private var length: Int? {
        guard count > 0 else { return nil }
        guard ControlFrame.Kind(rawValue: bytes[start]) != nil else { return isLost ? nil : 0 }
        guard count >= 3 else { return nil }
        let length = 3 + (Int(bytes[start + 1]) | Int(bytes[start + 2]) << 8)
        return count >= length ? length : nil
    }
}

extension GuestStatus {
    var frame: ControlFrame {
        ControlFrame(.guest, [name, kind, state, engine, memory, "\(uptime)", "\(cpuTime)"].joined(separator: "\t"))
    }

    /// nil if the frame is no such line.
    init?(_ frame: ControlFrame) {
        let fields = frame.text.split(separator: "\t", omittingEmptySubsequences: false).map(String.init)
        guard frame.kind == .guest, fields.count == 7, let uptime = UInt64(fields[5]), let cpuTime = UInt64(fields[6])
        else { return nil }
        self.init(
            name: fields[0], kind: fields[1], state: fields[2], engine: fields[3], memory: fields[4], uptime: uptime,
            cpuTime: cpuTime)
    }
}
