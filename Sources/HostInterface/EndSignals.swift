internal import CHost

/// What a terminal's ^C, kill(1) and the end of a session come to, for a
/// process that has something to put in order first.
package enum EndSignals {
    /// From now on the first SIGINT, SIGTERM or SIGHUP signals `event`, and the second
    /// ends the process on the spot. One that nohup(1) had ignored stays ignored.
    package static func report(to event: borrowing EventFD) { chost_report_end_signals(event.rawValue) }
}
