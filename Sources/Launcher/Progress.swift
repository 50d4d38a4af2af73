internal import HostInterface
internal import Synchronization

/// One line on standard error that says what takes so long: shown once a step
/// has taken a second, and only to a terminal.
package final class Progress: Sendable {
    private struct State {
        var step: (text: String, since: UInt64)?
        var shown = false
        var ended = false
    }

    private let state = Mutex(State())
    private let enabled: Bool
    private let wake: EventFD
    private let thread: Mutex<HostThread?> = Mutex(nil)

    /// - Parameter enabled: by default, whether standard error is a terminal.
    package init(enabled: Bool) throws {
        self.enabled = enabled
        wake = try EventFD()
    }

    /// Speaks if standard error is a terminal.
    package convenience init() throws { try self.init(enabled: Terminal.isTerminal(2)) }

    /// A new step begins; `text` as in "downloading busybox-static".
    package func step(_ text: String) {
        guard enabled else { return }
        state.withLock { state in
            erase(&state)
            state.step = (text, HostClock.monotonicNanoseconds)
        }
        thread.withLock { thread in
            if thread == nil { thread = try? HostThread(name: "progress") { [self] in tick() } }
        }
    }

    /// No step is under way, and the line is gone from the screen.
    package func finish() {
        guard enabled else { return }
        state.withLock { state in
            erase(&state)
            state.step = nil
        }
    }

    /// Ends the thread. Call it once all is set up.
    package func end() {
        finish()
        state.withLock { $0.ended = true }
        wake.signal()
        if let thread = thread.withLock({ $0.take() }) { thread.join() }
    }

    private func tick() {
        while true {
            _ = waitReadable([wake.rawValue], milliseconds: 200)
            let ended = state.withLock { state in
                if let step = state.step {
                    let seconds = (HostClock.monotonicNanoseconds &- step.since) / 1_000_000_000
                    if seconds >= 1 {
                        // A line that wrapped could not be taken back.
                        let width = Int(WindowSize(of: 2)?.columns ?? 80) - 1
                        write("\r\u{1b}[K" + "roost: \(step.text) … \(seconds) s".prefix(width))
                        state.shown = true
                    }
                }
                return state.ended
            }
            if ended { return }
        }
    }

    private func erase(_ state: inout State) {
        if state.shown { write("\r\u{1b}[K") }
        state.shown = false
    }

    private func write(_ text: String) { StandardStream.error.write(text) }
}
