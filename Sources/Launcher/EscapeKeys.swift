internal import HostInterface

//L:270 The way out
//
// In raw mode every key is the Guest's, so the way out must be a key that the
// Guest does not get: Ctrl-A and a letter. And for those who do not know that,
// what lguest's console did: three ^C within a second mean it. The Guest gets
// each of the three all the same, for it may be the one that was meant.

/// Finds our own keys among those for the Guest.
package struct EscapeKeys {
    package enum Action: Equatable, Sendable {
        case send([UInt8])
        case help
        case quit
    }

    package static let help = help(quitting: "ends the guest, and roost", interrupting: "ends the guest")

    /// What our keys do, where the way out leads to `quitting`.
    package static func help(quitting: String, interrupting: String) -> String {
        """
        Ctrl-A x       \(quitting)
        Ctrl-A h       shows these keys
        Ctrl-A Ctrl-A  sends a Ctrl-A
        ^C three times within a second \(interrupting), too

        """
    }

    /// On a raw terminal, where a newline goes down and not back.
    static func showHelp(_ help: String) {
        let lines = help.split(separator: "\n").map { $0 + "\r\n" }
        StandardStream.error.write("\r\n" + lines.joined())
    }

    private static let escape: UInt8 = 0x01
    private static let interrupt: UInt8 = 0x03
    private static let second: UInt64 = 1_000_000_000

    private var afterEscape = false
    /// When the last ^C in a row came, the oldest first; at most three.
    private var interrupts: [UInt64] = []

    package init() {}

    /// What `bytes`, typed at `now` (nanoseconds), come to.
    package mutating func take(_ bytes: some Sequence<UInt8>, at now: UInt64) -> [Action] {
        var actions: [Action] = []
        var plain: [UInt8] = []
        func flush() {
            if !plain.isEmpty { actions.append(.send(plain)) }
            plain = []
        }
        for byte in bytes {
            if afterEscape {
                afterEscape = false
                switch byte {
                case Self.escape: plain.append(byte)
                case UInt8(ascii: "x"), UInt8(ascii: "X"):
                    flush()
                    actions.append(.quit)
                case UInt8(ascii: "h"), UInt8(ascii: "H"), UInt8(ascii: "?"):
                    flush()
                    actions.append(.help)
                default: plain += [Self.escape, byte]  // Not ours: the Guest shall have both.
                }
                continue
            }
            if byte == Self.escape {
                afterEscape = true
                continue
            }
            plain.append(byte)
            if byte == Self.interrupt {
                interrupts = interrupts.suffix(2) + [now]
                if interrupts.count == 3, now &- interrupts[0] <= Self.second {
                    flush()
                    actions.append(.quit)
                }
            } else {
                interrupts = []
            }
        }
        flush()
        return actions
    }
}
//:
