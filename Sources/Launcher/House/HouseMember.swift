internal import HostInterface
internal import Synchronization

/// One Guest of a running house: its thread, its console, and how it is.
final class HouseMember: Sendable {
    enum State: Equatable, Sendable {
        case waiting, running
        case stopping
        case ended(GuestEnd)

        var words: String {
            switch self {
            case .waiting: "waiting"
            case .running: "running"
            case .stopping: "stopping"
            case .ended(let end): end.details != nil ? "died" : "ended (\(end.status))"
            }
        }
    }

    private struct Life {
        var state = State.waiting
        /// nil once it has ended: its disks and its memory are given back then.
        var guest: (any HouseGuest)?
        var thread: HostThread?
        var start: UInt64 = 0
        /// What it came to, once it has ended.
        var uptime: UInt64 = 0
        var cpuTime: UInt64 = 0
    }

    let name: String
    let memory: MemorySize
    private let number: Int
    private let log: HouseLog
    private let wake: @Sendable () -> Void
    private let life = Mutex(Life())
    private let kindAndEngine = Mutex((kind: "", engine: ""))
    private let printed = Mutex(Backlog())
    private let watchers = Atomic(0)

    /// - Parameters:
    ///   - number: the log's for it.
    ///   - wake: called when something of it has changed that somebody may wait for.
    init(_ guest: HouseFile.Guest, number: Int, log: HouseLog, wake: @escaping @Sendable () -> Void) {
        name = guest.name
        memory = guest.configuration.memory
        self.number = number
        self.log = log
        self.wake = wake
    }

    /// Gathers and makes the Guest.
    func make(_ guest: HouseFile.Guest, with maker: HouseGuestMaker) throws {
        let log = log, number = number, name = name
        let take: @Sendable ([UInt8]) -> Void = { [self] in self.take($0) }
        let takeLog: @Sendable ([UInt8]) -> Void = { log.print($0, of: number, isLog: true) }
        let output = GuestOutput(
            print: take, printError: take, printLog: maker.isVerbose ? takeLog : nil, appeared: {})
        let made = try maker.make(guest, output: output) { text in
            if maker.isVerbose { log.say("\(name): \(text)", of: number) }
        }
        made.connect(wake: wake)
        kindAndEngine.withLock { $0 = (made.kind, made.engineName) }
        life.withLock { $0.guest = made }
    }

    private func take(_ bytes: [UInt8]) {
        // First to those who look on: our own output may keep us waiting.
        printed.withLock { $0.append(bytes) }
        // ORDERING: a watcher counts itself before it first looks at what was printed.
        if watchers.load(ordering: .sequentiallyConsistent) > 0 { wake() }
        log.print(bytes, of: number)
    }

    // MARK: Life

    /// Starts its thread.
    func start() throws {
        let (kind, engine) = kindAndEngine.withLock { $0 }
        log.say("\(name) started (\(kind), \(engine), \(memory))", of: number)
        life.withLock { life in
            life.start = HostClock.monotonicNanoseconds
            if life.state == .waiting { life.state = .running }
        }
        let thread = try HostThread(name: "guest \(name)") { [self] in finish(run()) }
        life.withLock { $0.thread = thread }
    }

    private func run() -> GuestEnd {
        guard let guest = life.withLock({ $0.guest }) else { preconditionFailure("started before it was made") }
        do { return try guest.run() } catch { return GuestEnd(status: 1, reason: "\(error)") }
    }

    private func finish(_ end: GuestEnd) {
        let cpuTime = HostThread.ownCPUNanoseconds
        life.withLock { life in
            // That it did not come to its end by itself is what was asked for, and no failure.
            let wasAsked = life.state == .stopping && end.details == nil
            life.state = .ended(wasAsked ? GuestEnd(status: 0, reason: "it was stopped") : end)
            life.uptime = HostClock.monotonicNanoseconds &- life.start
            life.cpuTime = cpuTime
        }
        // Taken from there, and given up here: that may take a while.
        _ = life.withLock { $0.guest.take() }
        let end = self.end ?? end
        if let details = end.details {
            // A kernel panics in words of its Guest's choice.
            log.say("\(name) died: \(plain(end.reason, limit: 400))", of: number, details: details)
        } else {
            log.say("\(name) ended: \(end.reason)\(end.status == 0 ? "" : ", status \(end.status)")", of: number)
        }
        wake()
    }

    /// Asks it to end.
    func stop() {
        let guest = life.withLock { life in
            if life.state == .running || life.state == .waiting { life.state = .stopping }
            return life.guest
        }
        guest?.stop()
    }

    /// Waits for its thread.
    func join() { life.withLock { $0.thread.take() }?.join() }

    /// nil while it runs.
    var end: GuestEnd? {
        guard case .ended(let end) = life.withLock({ $0.state }) else { return nil }
        return end
    }

    // MARK: Its console

    /// What was typed; how many bytes were taken. One that has ended takes all.
    func receive(_ bytes: [UInt8]) -> Int {
        guard end == nil, let guest = life.withLock({ $0.guest }) else { return bytes.count }
        return guest.receive(bytes)
    }

    func resize(_ size: WindowSize) { life.withLock { $0.guest }?.resize(size) }

    /// Somebody looks at the console from now on, from the offset that is returned.
    func attach() -> Int {
        watchers.add(1, ordering: .sequentiallyConsistent)
        return printed.withLock { $0.beginning }
    }

    func detach() { watchers.subtract(1, ordering: .sequentiallyConsistent) }

    /// What was printed from `offset` on, if it is still there.
    func printed(from offset: Int, limit: Int) -> [UInt8]? {
        printed.withLock { $0.read(from: offset, limit: limit).map(Array.init) }
    }

    // MARK: How it is

    var status: GuestStatus {
        let (kind, engine) = kindAndEngine.withLock { $0 }
        return life.withLock { life in
            var uptime = life.uptime, cpuTime = life.cpuTime
            switch life.state {
            case .ended, .waiting: break
            case .running, .stopping:
                uptime = HostClock.monotonicNanoseconds &- life.start
                cpuTime = life.thread?.cpuNanoseconds ?? 0
            }
            return GuestStatus(
                name: name, kind: kind, state: life.state.words, engine: engine, memory: "\(memory)", uptime: uptime,
                cpuTime: cpuTime)
        }
    }
}

/// A line of `roost ps`.
package struct GuestStatus: Equatable, Sendable {
    package var name: String
    package var kind: String
    package var state: String
    package var engine: String
    package var memory: String
    /// Both in nanoseconds.
    package var uptime: UInt64
    package var cpuTime: UInt64
}
