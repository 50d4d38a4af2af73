internal import HostInterface
internal import Synchronization

//L:055 Between the user and the Guest's ports
//
// What the user types needs a thread that waits for it: that thread also sees
// to the window's size, and to the keys that are ours.

/// Joins the user's standard input to a Guest's ports.
final class Console: Sendable {
    private let ports: GuestPorts
    private let isTerminal: Bool
    /// Something that the input thread waits for has happened.
    private let wake: EventFD
    private let resize: EventFD
    private let ending = Atomic(false)

    /// Keys that a Guest which reads nothing may leave with us.
    private static let mostPending = 1 << 16

    /// - Parameter ports: of the Guest that `start` will connect.
    init(_ ports: GuestPorts) throws(HostError) {
        self.ports = ports
        isTerminal = ports.session.map { $0.kind == .terminal } ?? Terminal.isTerminal(0)
        wake = try EventFD()
        resize = try EventFD()
    }

    /// The user's streams, for what comes out of the Guest.
    static func output(verbose: Bool, progress: Progress) -> GuestOutput {
        let toErrors: @Sendable ([UInt8]) -> Void = { StandardStream.error.write($0) }
        return GuestOutput(
            print: { StandardStream.output.write($0) }, printError: toErrors, printLog: verbose ? toErrors : nil,
            appeared: { progress.finish() })
    }

    /// Passes input on until the value returned is told to end.
    ///
    func start(_ run: GuestRun) throws -> HostThread {
        run.connect { [self] in wake.signal() }
        if isTerminal {
            Terminal.reportResizes(to: resize)
            try Terminal.makeRaw()
            tellSize()
        }
        return try HostThread(name: "input") { [self] in
            var input = Input(isTerminal: isTerminal, isEncoded: ports.session != nil && !isTerminal)
            while !ending.load(ordering: .acquiring) { pass(&input) }
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

    private func pass(_ input: inout Input) {
        let ready = ports.isReady
        let boot = ports.boot
        if ready, input.boot != boot {
            // The end of the input was said to the boot before; it holds for this one too.
            if input.boot > 0, input.isEncoded {
                input.encoder = InputEncoder()
                if !input.isOpen { input.pending = input.encoder.end() }
            }
            input.boot = boot
        }
        if ready, !input.pending.isEmpty { input.pending.removeFirst(ports.receive(input.pending)) }

        // Keys are always looked at, or there would be no way out; a pipe is
        // read no faster than the Guest reads it.
        let reads = input.isOpen && (input.isTerminal || (ready && input.pending.isEmpty))
        let happened = waitReadable([wake.rawValue, resize.rawValue, reads ? 0 : -1])
        if happened[0] { wake.drain() }
        if happened[1] {
            resize.drain()
            tellSize()
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
            case .help: EscapeKeys.showHelp(EscapeKeys.help)
            case .quit: ports.decide(.quit)
            }
        }
    }

    private func tellSize() {
        guard isTerminal, let size = Terminal.size else { return }
        ports.resize(size)
    }
}
//:
