internal import HostInterface
internal import Platform
internal import Synchronization
internal import VirtioDevices

//L:050 What a Guest's ports carry
//
// What the Guest writes arrives on its own thread and is handed on at once.
//
// With our own /init in the Guest, four ports have four jobs (see "The
// smallest Linux that is any use"), and nothing is typed to it before it says
// that it is ready: a tty that is being set up might echo it or lose it.
// Otherwise there is COM1, and we pass on what comes, either way.
//
// With `--console hvc0` the user's port is a virtio console instead, in both
// cases; then COM1 is for the kernel's log alone.
//
// Who is at the other end is not known here: it is the user's terminal
// ("Between the user and the Guest's ports"), or a house's log and whoever
// looks at it ("A house of Guests").

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

/// Who takes what comes out of a Guest; called on its threads.
struct GuestOutput: Sendable {
    /// What the user is to see.
    let print: @Sendable ([UInt8]) -> Void
    /// A command's standard error, where that has a way of its own.
    let printError: @Sendable ([UInt8]) -> Void
    /// The kernel's log, where that is not what the user sees; nil to leave it unseen.
    let printLog: (@Sendable ([UInt8]) -> Void)?
    /// The Guest is there, and booting is over as far as a user can see.
    let appeared: @Sendable () -> Void
}

/// The ends of a Guest's ports that are the Host's.
final class GuestPorts: Sendable {
    /// What the outside of the Guest has decided.
    enum Verdict: Equatable, Sendable {
        /// /init's last word.
        case exit(status: UInt8)
        /// Ctrl-A x, or three ^C; in a house, `roost stop`.
        case quit
    }

    let log: KernelLog
    /// nil: the Guest's first program is not ours.
    let session: Session?
    /// The virtio console, if that is the user's port.
    private let terminal: VirtioDevices.Console?
    private let output: GuestOutput
    private let words = Mutex(ControlLine())
    private let ready: Atomic<Bool>
    private let boots = Atomic<Int>(1)
    private let outcome = Mutex<Verdict?>(nil)
    private let windowSize = Mutex<WindowSize?>(nil)

    /// What there is once the Guest is made.
    private struct Connection {
        let input: (any InputPort)?
        let control: Serial16550?
        let stop: @Sendable () -> Void
        let wake: @Sendable () -> Void
    }
    private let connection = Mutex<Connection?>(nil)

    private static let user = 1, errors = 2, controlPort = 3

    init(session: Session?, terminal: VirtioDevices.Console?, output: GuestOutput) {
        self.session = session
        self.terminal = terminal
        self.output = output
        log = KernelLog(show: session != nil || terminal != nil ? output.printLog : nil)
        ready = Atomic(session == nil)
        terminal?.onPrint { bytes in
            if session == nil { output.appeared() }
            output.print(bytes)
        }
    }

    /// The Guest is made.
    ///
    /// - Parameters:
    ///   - stop: makes its `run` return.
    ///   - wake: called when `receive` may take more than it did. Any thread.
    func connect(_ ports: [Serial16550?], stop: @escaping @Sendable () -> Void, wake: @escaping @Sendable () -> Void) {
        let input: (any InputPort)? = terminal ?? ports[session == nil ? 0 : Self.user]
        let control = session == nil ? nil : ports[Self.controlPort]
        connection.withLock { $0 = Connection(input: input, control: control, stop: stop, wake: wake) }
        input?.onRoom(wake)
    }

    /// The Guest is no more. Ports and this know each other, and so would keep each other.
    func disconnect() { connection.withLock { $0 = nil } }

    /// What was decided, if anything was.
    var verdict: Verdict? { outcome.withLock { $0 } }

    /// Ends the Guest. The first decision counts.
    func decide(_ verdict: Verdict) {
        outcome.withLock { if $0 == nil { $0 = verdict } }
        connection.withLock { $0 }?.stop()
    }

    // MARK: From the Guest

    /// Who takes what is written to COM1…COM4.
    var serialOutputs: [Int: @Sendable ([UInt8]) -> Void] {
        guard session != nil else {
            if terminal != nil { return [0: { [self] bytes in log.append(bytes) }] }
            return [
                0: { [self] bytes in
                    output.appeared()
                    log.append(bytes)
                    output.print(bytes)
                }
            ]
        }
        return [
            0: { [self] bytes in log.append(bytes) },
            Self.user: output.print,
            Self.errors: output.printError,
            Self.controlPort: { [self] bytes in
                for word in words.withLock({ $0.take(bytes) }) { hear(word) }
            },
        ]
    }

    /// Takes what a Guest on lguest's bus says before it has a console.
    var earlyOutput: @Sendable ([UInt8]) -> Void {
        { [self] bytes in
            output.appeared()
            log.append(bytes)
            output.print(bytes)
        }
    }

    private func hear(_ word: ControlLine.Word) {
        switch word {
        case .ready:
            output.appeared()
            // ORDERING: pairs with the acquiring load in `isReady`: /init has set the port up.
            ready.store(true, ordering: .releasing)
            tellSize()
            connection.withLock { $0 }?.wake()
        case .exit(let status):
            decide(.exit(status: status))
        }
    }

    /// The Guest starts over, and so does the conversation.
    func restart() {
        words.withLock { $0 = ControlLine() }
        // ORDERING: pairs with the acquiring load of `isReady`, which whoever looks at both comes to first.
        boots.add(1, ordering: .sequentiallyConsistent)
        if session != nil { ready.store(false, ordering: .releasing) }
    }

    // MARK: To the Guest

    /// Input may come.
    var isReady: Bool { ready.load(ordering: .acquiring) }

    /// Counts the Guest's boots, from 1.
    var boot: Int { boots.load(ordering: .acquiring) }

    /// What was typed.
    ///
    /// - Returns: how many bytes were taken; if not all, `wake` is called when there is room. None while it is not ready.
    func receive(_ bytes: [UInt8]) -> Int {
        guard isReady, let input = connection.withLock({ $0?.input }) else { return 0 }
        return input.receive(bytes)
    }

    /// The user's window is this large. It is told now, and to each boot when it is ready.
    func resize(_ size: WindowSize) {
        windowSize.withLock { $0 = size }
        terminal?.resize(size)
        if isReady { tellSize() }
    }

    private func tellSize() {
        guard let size = windowSize.withLock({ $0 }), let control = connection.withLock({ $0?.control }) else { return }
        _ = control.receive(Array("\(size.rows) \(size.columns)\n".utf8))
    }
}
//:
