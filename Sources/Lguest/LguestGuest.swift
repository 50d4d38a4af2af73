package import GuestMemory
package import HostInterface
internal import Synchronization
internal import VirtualCPU
internal import X86

//H:310 Run until there is something to do
//
// A Guest's life is one loop, and most of what it asks for never leaves it:
// hypercalls are done here, interrupts are the engine's affair, and a Guest
// that notifies an address for which somebody has left an eventfd goes on at
// once. What is left, the Launcher's `run` returns with. Before each round it
// is asked, in this order: is something pending for the Launcher? has it been
// called off? is the Guest dead? The order matters: who breaks a Guest off
// must not lose what it had asked for.

/// What the Launcher has to do before it runs the Guest again.
package enum LguestPending: Equatable, Sendable {
    /// The Guest did NOTIFY, and nobody has an eventfd on that address.
    case notify(UInt64)
    /// The Guest did SEND_DMA with a key of its own memory.
    case dma(buffer: UInt64, key: UInt64)
}

/// Does Xen's hypercalls for a Guest on lguest's bus. On the vCPU's thread.
package protocol XenCalls: AnyObject {
    /// - Parameter cr3: the Guest's, to find what the arguments point to.
    /// - Returns: at least 0, or minus an errno.
    func call(_ number: UInt64, _ first: UInt64, _ second: UInt64, _ third: UInt64, cr3: UInt64) -> Int64
}

/// Who is told when a Guest notifies an address.
final class NotificationTarget {
    let address: UInt64
    private let event: EventFD

    init(address: UInt64, event: consuming EventFD) {
        self.address = address
        self.event = event
    }

    func signal() { event.signal() }
}

/// One Guest, and the door to it. `raise`, `breakOut`, `release`, `interrupt`,
/// `kill`, `close` and what only looks are for any thread; everything else is
/// for the one that has initialized it.
package final class LguestGuest: @unchecked Sendable {
    package let id: UInt16
    let host: LguestHost
    private let requests: VCPURequests

    private struct Body: @unchecked Sendable {
        let memory: GuestMemory
        let vcpu: any VCPU
        let interrupts: LguestInterrupts
        let calls: Hypercalls
        let owner: UInt
    }

    private struct State: @unchecked Sendable {
        var body: Body?
        var death: LguestDeath?
        var isClosed = false
    }

    private let state = Mutex(State())
    /// Held while the Guest runs: `close` waits for that.
    private let running = Mutex(())
    private let died = Atomic(false)
    /// Closed while somebody keeps the Launcher from running the Guest.
    private let waker = Gate()
    /// An interruption that wants no `release`.
    private let interrupted = Atomic(false)

    // The owner's.
    var eventFDs: [NotificationTarget] = []
    var pending: LguestPending?
    var asleep: Sleep?

    /// What it sleeps in.
    enum Sleep {
        /// HLT, and with RFLAGS.IF or without.
        case instruction(takesInterrupts: Bool)
        /// HALT.
        case call
    }

    /// Does the calls of Xen's interface. Set before `initialize`, or there is none.
    package var xen: (any XenCalls)?

    private let makeCPU: LguestHost.CPUMaker

    init(host: LguestHost, id: UInt16, requests: VCPURequests, makeCPU: @escaping LguestHost.CPUMaker) {
        self.host = host
        self.id = id
        self.requests = requests
        self.makeCPU = makeCPU
    }

    deinit { close() }

    private func withOpenBody() throws(Errno) -> Body {
        let (body, isClosed) = state.withLock { ($0.body, $0.isClosed) }
        guard !isClosed, let body else { throw .invalid }
        return body
    }

    /// The body, for its owner only.
    private func ownBody() throws(Errno) -> Body {
        let body = try withOpenBody()
        guard body.owner == HostThread.currentIdentity else { throw .notPermitted }
        return body
    }

    // MARK: Beginning

    /// Gives the Guest its memory and its first instruction. The caller is its owner from now on.
    ///
    /// - Parameters:
    ///   - pgdir: guest-physical address of the page table that it starts with.
    ///   - start: the first instruction's address.
    /// - Throws: EBUSY the second time; EINVAL once closed; what the host lacks (ENOMEM).
    package func initialize(memory: GuestMemory, pgdir: UInt64, start: UInt64) throws(Errno) {
        let (isBusy, isClosed) = state.withLock { ($0.body != nil, $0.isClosed) }
        if isClosed { throw .invalid }
        if isBusy { throw .busy }
        let vcpu: any VCPU, interrupts: LguestInterrupts
        do {
            interrupts = try LguestInterrupts(requests, memory: memory)
            vcpu = try makeCPU(memory, requests, interrupts)
        } catch let error as HostError {
            throw error.errno ?? .noMemory
        } catch {
            throw .noMemory
        }
        interrupts.vcpu = vcpu
        let calls = Hypercalls(of: self, on: vcpu, memory: memory, interrupts: interrupts)
        vcpu.handleHypercalls(by: calls)
        vcpu.withState { LguestEntry(pgdir: pgdir, start: start).apply(to: &$0) }
        let body = Body(
            memory: memory, vcpu: vcpu, interrupts: interrupts, calls: calls, owner: HostThread.currentIdentity)
        let wasFirst = state.withLock { state -> Bool in
            guard state.body == nil, !state.isClosed else { return false }
            state.body = body
            return true
        }
        guard wasFirst else { throw .busy }
    }

    /// Whether the calling thread has initialized it.
    package var isOwner: Bool { state.withLock { $0.body?.owner } == HostThread.currentIdentity }

    /// The Guest's memory, once it has some.
    package var memory: GuestMemory? { state.withLock { $0.body?.memory } }

    // MARK: Running

    /// Runs the Guest until there is something for the Launcher to do.
    ///
    /// - Throws: EINVAL before `initialize`, EPERM for who is not the owner, ENOENT when the Guest is dead
    ///   (`death` says of what), ERESTART when it wants to be started again, EAGAIN while or because it is broken
    ///   off, EINTR for a signal.
    package func run() throws(Errno) -> LguestPending {
        let body = try ownBody()
        // Whatever it was, the Launcher has seen to it.
        pending = nil
        return try running.withLock { _ throws(Errno) in
            while true {
                if let end = try round(body) { return end }
            }
        }
    }

    /// One stretch of the Guest. Nil: on with it.
    private func round(_ body: Body) throws(Errno) -> LguestPending? {
        if body.calls.waits, pending == nil, !isDead { _ = body.calls.perform() }
        // A ring is cut short by the wish to stop, which is looked at right here.
        if body.calls.waits { requests.clear(.stop) }
        if let pending { return pending }
        if waker.isClosed { throw .again }
        if interrupted.load(ordering: .relaxed), interrupted.exchange(false, ordering: .sequentiallyConsistent) {
            throw .interrupted
        }
        if isDead { throw death == .restart ? .restart : .notFound }
        if body.calls.waits { return nil }
        if let asleep {
            try sleep(body, asleep)
            return nil
        }
        switch body.vcpu.run() {
        // An engine may have had no way to do it by itself.
        case .hypercall: if goesOn, !body.calls.waits { _ = body.calls.perform() }
        case .halt:
            asleep = .instruction(takesInterrupts: body.vcpu.readState { $0.rflags & RFlags.interrupt != 0 })
        case .stopped: break
        // There are no ports: a bus on which nobody answers floats high.
        case .portRead(_, let bytes): body.vcpu.complete(.max >> UInt64(64 - 8 * bytes))
        case .portWrite: body.vcpu.complete(0)
        case .mmioRead(let address, let bytes):
            body.vcpu.complete(.max)
            kill("bad read address \(address) len \(bytes)")
        case .mmioWrite(let address, let bytes, _):
            body.vcpu.complete(0)
            kill("bad write address \(address) len \(bytes)")
        case .readMSR, .writeMSR: body.vcpu.refuse()
        case .shutdown(let reason): kill(reason)
        }
        return nil
    }

    /// Until there is an interrupt that may wake it, or somebody wants the Launcher.
    private func sleep(_ body: Body, _ kind: Sleep) throws(Errno) {
        var mask: VCPURequests.Request = [.interrupt, .stop]
        if case .instruction(takesInterrupts: false) = kind { mask = .stop }
        // The request may tell of none but blocked interrupts. ORDERING: as in `LguestInterrupts.raise`.
        requests.clear(.interrupt)
        if !body.interrupts.wakes(from: kind) {
            if !requests.waitOrSignal(for: mask) { throw .interrupted }
            if requests.pending.contains(.stop) {
                // `round` asks what it is; until then it sleeps on.
                return requests.clear(.stop)
            }
            guard body.interrupts.wakes(from: kind) else { return }
        }
        asleep = nil
        if case .call = kind { body.interrupts.data?.enableInterrupts() }
        body.interrupts.lookAgain()
    }

    /// Whether its CPU sleeps. A hint, for any thread.
    package var isAsleep: Bool { requests.isAsleep }

    // MARK: From other threads

    /// Makes interrupt `irq` pending.
    ///
    /// - Throws: EINVAL for 32 and above, and before `initialize`; ENOENT for a dead Guest.
    package func raise(irq: Int) throws(Errno) {
        let body = try withOpenBody()
        if isDead { throw .notFound }
        guard (0..<LguestIRQ.count).contains(irq) else { throw .invalid }
        body.interrupts.raise(irq)
    }

    /// The Waker: `run` returns with EAGAIN, now and whenever it is called, until `release`; which this waits for.
    /// On the owner's own thread it does not wait. Not for a signal's handler: see `interrupt`.
    ///
    /// - Throws: EINVAL before `initialize`, ENOENT for a dead Guest, EINTR for a signal.
    package func breakOut() throws(Errno) {
        let body = try withOpenBody()
        if isDead { throw .notFound }
        // ORDERING: the gate, then the request; `round` takes the request back, then looks at the gate.
        waker.close()
        // ORDERING: the gate, then the death; `die` has them the other way round.
        if died.load(ordering: .sequentiallyConsistent) {
            waker.open()
            throw .notFound
        }
        requests.post(.stop)
        if body.owner != HostThread.currentIdentity { try waker.wait() }
    }

    /// Ends what `breakOut` began.
    package func release() throws(Errno) {
        _ = try withOpenBody()
        if isDead { throw .notFound }
        waker.open()
    }

    /// Makes `run` throw EINTR, once. For any thread, and for a signal's handler: it takes no lock.
    package func interrupt() {
        interrupted.store(true, ordering: .sequentiallyConsistent)
        requests.post(.stop)
    }

    // MARK: The end

    var isDead: Bool { died.load(ordering: .acquiring) }

    /// Whether nothing keeps its CPU from running on.
    var goesOn: Bool { pending == nil && asleep == nil && !isDead }

    /// Why it is dead; nil while it lives.
    package var death: LguestDeath? { state.withLock { $0.death } }

    /// Kills the Guest; the first reason counts. Any thread.
    package func kill(_ reason: String) { die(.killed(reason: reason)) }

    func die(_ death: LguestDeath) {
        state.withLock { if $0.death == nil { $0.death = death } }
        died.store(true, ordering: .sequentiallyConsistent)
        // Who has broken it off waits for a release that is refused to the dead.
        waker.open()
        requests.post(.stop)
    }

    /// Undoes everything, from any state. When it returns nobody touches the
    /// Guest's memory any more. Not from inside `run`; a second time does nothing.
    package func close() {
        let (body, wasClosed) = state.withLock { state in
            defer { state.isClosed = true }
            return (state.body, state.isClosed)
        }
        // Whoever comes second waits for the first.
        if wasClosed { return running.withLock { _ in } }
        kill("closed")
        running.withLock { _ in
            // After its last hypercall, which may have bound something.
            host.remove(self)
            eventFDs = []
        }
        body?.interrupts.stop()
        state.withLock { $0.body = nil }
    }

    /// Does what is the owner's alone while nobody closes.
    private func whileOpen<Result>(_ body: (Body) throws(Errno) -> Result) throws(Errno) -> Result {
        _ = try ownBody()
        return try running.withLock { _ throws(Errno) in
            let own = try ownBody()
            if isDead { throw .notFound }
            return try body(own)
        }
    }

    // MARK: The Launcher's side of I/O

    /// From now on NOTIFY of `address` writes to a duplicate of `descriptor`, and does not come out of `run`. Of
    /// two for one address the first counts.
    ///
    /// - Throws: EINVAL for address 0 or what is no eventfd, EBADF, EMFILE; EPERM, ENOENT as `run`.
    package func attach(eventFD descriptor: Int32, to address: UInt64) throws(Errno) {
        try whileOpen { _ throws(Errno) in
            guard address != 0 else { throw .invalid }
            eventFDs.append(NotificationTarget(address: address, event: try EventFD(duplicating: descriptor)))
        }
    }

    /// Undoes it.
    package func detach(address: UInt64) { running.withLock { _ in eventFDs.removeAll { $0.address == address } } }

    /// A free buffer of the Guest's own array for `key`, and the interrupt it wants when that is filled.
    ///
    /// - Parameter marking: whether the interrupt's number is put where the Launcher will write how much it has
    ///   filled in: it then has one number to be told, not two.
    /// - Throws: ENOENT if there is none or no array; the Guest dies of a bad key. Else as `attach`.
    package func freeBuffer(forKey key: UInt64, marking: Bool = false) throws(Errno) -> (address: UInt64, irq: Int) {
        try whileOpen { body throws(Errno) in
            body.memory.findOverlays()
            guard let key = DMAKey(GuestPhysicalAddress(key), of: self, in: body.memory) else {
                kill("bad registered DMA buffer")
                throw .notFound
            }
            let found = host.withRegistry { registry -> (UInt64, Int)? in
                guard let binding = registry.own(key, of: self) else { return nil }
                do throws(DMAFault) {
                    guard let address = try binding.findFree() else { return nil }
                    if marking { DMAUsedLength.store(UInt32(binding.irq), at: address, in: body.memory) }
                    return (address.rawValue, binding.irq)
                } catch {
                    kill(error.reason)
                    return nil
                }
            }
            guard let found else { throw .notFound }
            return found
        }
    }
}
//:
