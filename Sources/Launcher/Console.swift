internal import HostInterface
internal import Platform
internal import Synchronization
internal import VirtioDevices

//L:050 Between the user and the Guest's ports
//
// What the Guest writes arrives on its own thread and is handed on at once.
// What the user types needs a thread that waits for it: that thread also sees
// to the window's size, and to the keys that are ours.
//
// With our own /init in the Guest, four ports have four jobs (see "The
// smallest Linux that is any use"), and nothing is typed to it before it says
// that it is ready: a tty that is being set up might echo it or lose it.
// Otherwise there is COM1, and we pass on what comes, either way.
//
// With `--console hvc0` the user's port is a virtio console instead, in both
// cases; then COM1 is for the kernel's log alone.

/// What a user can type to.
protocol InputPort: Sendable {
    /// How many of the bytes there was room for.
    func receive(_ bytes: [UInt8]) -> Int
    func onRoom(_ body: @escaping @Sendable () -> Void)
}

extension Serial16550: InputPort {}
extension VirtioDevices.Console: InputPort {}

/// A terminal that the user may have.
package enum ConsoleKind: String, CaseIterable, Sendable {
    case ttyS0, hvc0
}

/// Joins the user's streams to a Guest's ports.
final class Console: Sendable {
    /// What the outside of the Guest has decided.
    enum Verdict: Equatable, Sendable {
        /// /init's last word.
        case exit(status: UInt8)
        /// Ctrl-A x, or three ^C.
        case quit
    }

    let log: KernelLog
    /// nil: the Guest's first program is not ours.
    private let session: Session?
    private let progress: Progress
    private let isTerminal: Bool
    private let control = Mutex(ControlLine())
    private let isReady: Atomic<Bool>
    /// Counts the Guest's boots, from 1.
    private let boots = Atomic<Int>(1)
    private let outcome = Mutex<Verdict?>(nil)
    private let stop = Mutex<(@Sendable () -> Void)?>(nil)
    /// Something that the input thread waits for has happened.
    private let wake: EventFD
    private let resize: EventFD
    private let ending = Atomic(false)

    private static let user = 1, errors = 2, controlPort = 3
    /// The virtio console, if that is the user's port.
    private let terminal: VirtioDevices.Console?
    /// Keys that a Guest which reads nothing may leave with us.
    private static let mostPending = 1 << 16

    init(session: Session?, terminal: VirtioDevices.Console?, verbose: Bool, progress: Progress) throws(HostError) {
        self.session = session
        self.terminal = terminal
        self.progress = progress
        log = KernelLog(isShown: verbose && (session != nil || terminal != nil))
        isTerminal = session.map { $0.kind == .terminal } ?? Terminal.isTerminal(0)
        isReady = Atomic(session == nil)
        wake = try EventFD()
        resize = try EventFD()
        terminal?.onPrint { bytes in
            if session == nil { progress.finish() }
            StandardStream.output.write(bytes)
        }
    }

    /// What was decided, if anything was.
    var verdict: Verdict? { outcome.withLock { $0 } }

    // MARK: From the Guest

    /// Who takes what is written to COM1…COM4.
    var serialOutputs: [Int: @Sendable ([UInt8]) -> Void] {
        guard session != nil else {
            if terminal != nil { return [0: { [self] bytes in log.append(bytes) }] }
            return [
                0: { [self] bytes in
                    progress.finish()
                    log.append(bytes)
                    StandardStream.output.write(bytes)
                }
            ]
        }
        return [
            0: { [self] bytes in log.append(bytes) },
            Self.user: { bytes in StandardStream.output.write(bytes) },
            Self.errors: { bytes in StandardStream.error.write(bytes) },
            Self.controlPort: { [self] bytes in
                for word in control.withLock({ $0.take(bytes) }) { hear(word) }
            },
        ]
    }

    private func hear(_ word: ControlLine.Word) {
        switch word {
        case .ready:
            progress.finish()
            isReady.store(true, ordering: .releasing)
            wake.signal()
        case .exit(let status):
            decide(.exit(status: status))
        }
    }

    private func decide(_ verdict: Verdict) {
        outcome.withLock { if $0 == nil { $0 = verdict } }
        stop.withLock { $0 }?()
    }

    /// The Guest starts over, and so does the conversation.
    func restart() {
        control.withLock { $0 = ControlLine() }
        // ORDERING: pairs with the acquiring load of `isReady` in `pass`, which comes first there.
        boots.add(1, ordering: .sequentiallyConsistent)
        if session != nil { isReady.store(false, ordering: .releasing) }
    }

    // MARK: To the Guest

    /// Passes input on until the value returned is told to end.
    ///
    /// - Parameter stop: makes the Guest's `run` return.
    func start(ports: [Serial16550?], stop: @escaping @Sendable () -> Void) throws -> HostThread {
        self.stop.withLock { $0 = stop }
        if isTerminal {
            Terminal.reportResizes(to: resize)
            try Terminal.makeRaw()
        }
        let port: (any InputPort)? = terminal ?? ports[session == nil ? 0 : Self.user]
        let control = session == nil ? nil : ports[Self.controlPort]
        port?.onRoom { [self] in wake.signal() }
        return try HostThread(name: "input") { [self] in
            var input = Input(isTerminal: isTerminal, isEncoded: session != nil && !isTerminal)
            while !ending.load(ordering: .acquiring) { pass(&input, to: port, control) }
        }
    }

    /// Ends the thread that `start` made, and gives the terminal back.
    func end(_ thread: HostThread) {
        ending.store(true, ordering: .releasing)
        wake.signal()
        thread.join()
        Terminal.restore()
    }

    /// The input thread's own.
    private struct Input {
        let isTerminal: Bool
        let isEncoded: Bool
        var encoder = InputEncoder()
        var keys = EscapeKeys()
        /// Read, and not yet taken by the Guest.
        var pending: [UInt8] = []
        var isOpen = true
        /// The boot that was last seen ready.
        var boot = 0
    }

    private func pass(_ input: inout Input, to port: (any InputPort)?, _ control: Serial16550?) {
        // ORDERING: pairs with the releasing store in `hear`: /init has set the port up.
        let ready = isReady.load(ordering: .acquiring)
        let boot = boots.load(ordering: .acquiring)
        if ready, input.boot != boot {
            tellSize(control)
            // The end of the input was said to the boot before; it holds for this one too.
            if input.boot > 0, input.isEncoded {
                input.encoder = InputEncoder()
                if !input.isOpen { input.pending = input.encoder.end() }
            }
            input.boot = boot
        }
        if ready, !input.pending.isEmpty, let port { input.pending.removeFirst(port.receive(input.pending)) }

        // Keys are always looked at, or there would be no way out; a pipe is
        // read no faster than the Guest reads it.
        let reads = input.isOpen && (input.isTerminal || (ready && input.pending.isEmpty))
        let happened = waitReadable([wake.rawValue, resize.rawValue, reads ? 0 : -1])
        if happened[0] { wake.drain() }
        if happened[1] {
            resize.drain()
            if ready { tellSize(control) }
        }
        guard happened[2] else { return }
        guard let bytes = readStandardInput() else {
            input.isOpen = false
            if input.isEncoded { input.pending += input.encoder.end() }
            return
        }
        if input.isTerminal {
            press(bytes, &input)
        } else {
            input.pending += input.isEncoded ? input.encoder.encode(bytes) : bytes
        }
    }

    private func press(_ bytes: [UInt8], _ input: inout Input) {
        for action in input.keys.take(bytes, at: HostClock.monotonicNanoseconds) {
            switch action {
            case .send(let bytes):
                if input.pending.count < Self.mostPending { input.pending += bytes }
            case .help:
                // Raw: a newline goes down and not back.
                let lines = EscapeKeys.help.split(separator: "\n").map { $0 + "\r\n" }
                StandardStream.error.write("\r\n" + lines.joined())
            case .quit:
                decide(.quit)
            }
        }
    }

    private func tellSize(_ control: Serial16550?) {
        guard isTerminal, let size = Terminal.size else { return }
        terminal?.resize(size)
        guard let control else { return }
        _ = control.receive(Array("\(size.rows) \(size.columns)\n".utf8))
    }
}
//:
