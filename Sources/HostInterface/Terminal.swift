internal import CHost
internal import Glibc

//H:040 Borrowing the terminal
//
// A Guest at a shell prompt wants every key as it is pressed, ^C and ^Z and
// the rest: the terminal must be raw. A shell whose terminal is left raw is
// useless to most people who own one. So the first thing about a raw terminal
// is the list of ways in which it becomes ordinary again: we return, we throw,
// somebody sends SIGTERM or SIGHUP, we are stopped and go on, we crash. Only
// SIGKILL wins (type `reset`).
//
// The handlers are C, in CHost: a signal may come while the Swift runtime
// holds a lock that a handler in Swift would want.

/// The user's terminal. All of this is about one terminal per process, for
/// that is how many a process has.
package enum Terminal {
    package static func isTerminal(_ descriptor: Int32) -> Bool { isatty(descriptor) == 1 }

    /// Makes standard input raw until `restore`, or until the process ends in any way but SIGKILL.
    package static func makeRaw() throws(HostError) {
        guard chost_terminal_make_raw(STDIN_FILENO) == 0 else {
            throw HostError("cannot make the terminal raw", errno: .current)
        }
    }

    /// The terminal as it was. Harmless if it is so already.
    package static func restore() { chost_terminal_restore() }

    /// Rows and columns; nil if standard input is no terminal, or one that does not say.
    package static var size: WindowSize? { WindowSize(of: STDIN_FILENO) }

    /// `event` is signalled whenever the window's size changes.
    package static func reportResizes(to event: borrowing EventFD) {
        chost_terminal_report_resize(event.rawValue)
    }
}

package struct WindowSize: Equatable, Sendable {
    package let rows: UInt16
    package let columns: UInt16

    package init(rows: UInt16, columns: UInt16) {
        self.rows = rows
        self.columns = columns
    }

    package init?(of descriptor: Int32) {
        var rows: UInt16 = 0
        var columns: UInt16 = 0
        guard unsafe chost_window_size(descriptor, &rows, &columns) == 0, rows > 0, columns > 0 else { return nil }
        self.init(rows: rows, columns: columns)
    }
}
//:
