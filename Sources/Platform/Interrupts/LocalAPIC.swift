internal import Synchronization
package import VirtualCPU

//H:140 The local APIC
//
// One per vCPU (SDM 3A, chapter 11). It keeps three sets of 256 bits. A vector
// arrives in IRR; when the CPU takes it, it moves to ISR; EOI removes the
// highest one from ISR. TMR remembers which came from a level-triggered pin,
// whose I/O APIC wants to hear of the EOI.
//
// The priority of a vector is its upper four bits. The CPU takes the highest
// of IRR only if its class is above the processor priority, which is the
// greater of what software asked for (TPR, also known as CR8) and of what is
// in service.
//
// To the engine, all this is one bit: `.interrupt` in `VCPURequests`. We keep
// it equal to "there is something to take", and change it only while holding
// our lock. So it can neither be lost nor left behind.

/// A vCPU's interrupt controller. Any thread may send it messages; registers
/// are the vCPU's.
package final class LocalAPIC: InterruptController, Sendable {
    struct State {
        let identifier: UInt32
        /// IA32_APIC_BASE bits 11 and 10.
        var isEnabled = true
        var isX2APIC = false
        var taskPriority: UInt8 = 0
        var logicalDestination: UInt32 = 0
        var destinationFormat: UInt32 = 0xffff_ffff
        var spurious: UInt32 = 0xff
        var requested = VectorSet()
        var inService = VectorSet()
        var levelTriggered = VectorSet()
        /// Errors since ESR was last written, and what that write made visible.
        var errorsSeen: UInt32 = 0
        var errorStatus: UInt32 = 0
        var commandLow: UInt32 = 0
        var commandHigh: UInt32 = 0
        /// In the order of `LocalVector`.
        var localVectors = InlineArray<6, UInt32>(repeating: LocalVector.masked)
        var timer = TimerState()
        /// The 8259's INTR, wired to LINT0.
        var externalLine = false
        /// A hypervisor's own interrupt, which goes past all of the above: see `deliverDirectly`.
        var directVector: UInt8?

        var isSoftwareEnabled: Bool { spurious & 1 << 8 != 0 }

        /// After RESET (SDM 3A, 11.4.7.1).
        init(identifier: UInt32) { self.identifier = identifier }

        /// PPR (SDM 3A, 11.8.3.1).
        var processorPriority: UInt8 {
            let service = inService.highest ?? 0
            return taskPriority >> 4 >= service >> 4 ? taskPriority : service & 0xf0
        }

        /// What the CPU may take now.
        var deliverable: UInt8? {
            guard isEnabled, let vector = requested.highest, vector >> 4 > processorPriority >> 4 else { return nil }
            return vector
        }

        /// Whether the 8259's interrupt gets through to the CPU: past an APIC
        /// that is off, or by LINT0 as ExtINT. It knows no priority.
        var hasExternal: Bool {
            guard externalLine else { return false }
            return !isEnabled || localVectors[LocalVector.lint0] & (LocalVector.masked | 0x700) == 0x700
        }
    }

    /// What is to be done when our lock is free again.
    enum Effect {
        case none
        case endOfInterrupt(UInt8)
        case send(InterruptMessage, shorthand: UInt32)
        case nonMaskableInterrupt
    }

    let state: Mutex<State>
    let clock: any MachineClock
    private let requests: VCPURequests
    private weak let bus: APICBus?
    private let identifier: UInt32
    private let timerAlarm = Mutex<Alarm?>(nil)
    /// Takes the 8259's interrupt and says its vector.
    private let acknowledgeExternal: @Sendable () -> UInt8

    /// - Parameter acknowledgeExternal: the INTA cycle of the 8259 pair.
    package init(
        identifier: UInt32, requests: VCPURequests, bus: APICBus, clock: any MachineClock, alarms: AlarmClock,
        acknowledgeExternal: @escaping @Sendable () -> UInt8
    ) {
        self.identifier = identifier
        self.requests = requests
        self.bus = bus
        self.clock = clock
        self.acknowledgeExternal = acknowledgeExternal
        state = Mutex(State(identifier: identifier))
        timerAlarm.withLock { $0 = alarms.makeAlarm { [weak self] in self?.timerRang() } }
        bus.attach(self)
        reset()
    }

    /// To the state in which firmware leaves the boot CPU's: enabled, the 8259
    /// on LINT0 and NMI on LINT1 ("virtual wire", MP specification 3.6.2.2).
    package func reset() {
        state.withLock { state in
            let externalLine = state.externalLine
            state = State(identifier: identifier)
            state.spurious = 0x1ff
            state.localVectors[LocalVector.lint0] = 0x700
            state.localVectors[LocalVector.lint1] = 0x400
            state.externalLine = externalLine
            setAlarm(nil)
            requests.clear(.nonMaskableInterrupt)
            updateLocked(&state)
        }
    }

    func setAlarm(_ deadline: UInt64?) { timerAlarm.withLock { $0 }?.set(deadline) }

    // MARK: The vCPU's side

    /// Makes the request word say whether there is something to take. To be
    /// called after every change that matters, under the lock.
    func updateLocked(_ state: inout State) {
        if state.deliverable != nil || state.hasExternal || state.directVector != nil {
            requests.post(.interrupt)
        } else {
            requests.clear(.interrupt)
        }
    }

    package func acknowledgeInterrupt() -> UInt8? {
        let (vector, isExternal) = state.withLock { state -> (UInt8?, Bool) in
            if let vector = state.directVector {
                state.directVector = nil
                updateLocked(&state)
                return (vector, false)
            }
            if state.hasExternal { return (nil, true) }
            let vector = state.deliverable
            if let vector {
                state.requested.remove(vector)
                state.inService.insert(vector)
            }
            updateLocked(&state)
            return (vector, false)
        }
        // The 8259 lowers its INTR in there, and we update once more.
        return isExternal ? acknowledgeExternal() : vector
    }

    package var taskPriorityClass: UInt8 {
        get { state.withLock { $0.taskPriority >> 4 } }
        set {
            state.withLock { state in
                state.taskPriority = newValue << 4
                updateLocked(&state)
            }
        }
    }

    // MARK: The machine's side

    package var processorPriority: UInt8 { state.withLock { $0.processorPriority } }

    /// Whether the message's destination means us (SDM 3A, 11.6.2).
    func matches(_ message: InterruptMessage) -> Bool {
        if !message.isLogical {
            return message.destination == identifier || message.destination == InterruptMessage.everybody
        }
        return state.withLock { state in
            let destination = message.destination
            if state.isX2APIC {
                // Cluster in the upper half, one bit per CPU in the lower.
                let own = Self.x2apicLogicalDestination(identifier)
                return destination == .max || destination >> 16 == own >> 16 && destination & own & 0xffff != 0
            }
            let own = state.logicalDestination >> 24
            if destination == .max || destination == 0xff { return own != 0 }
            if state.destinationFormat >> 28 == 0xf { return destination & own & 0xff != 0 }
            return (destination >> 4 == own >> 4 || destination >> 4 == 0xf) && destination & own & 0xf != 0
        }
    }

    static func x2apicLogicalDestination(_ identifier: UInt32) -> UInt32 {
        (identifier >> 4) << 16 | 1 << (identifier & 15)
    }

    /// Takes a message that is for us. Whether it was accepted.
    func receive(_ message: InterruptMessage) -> Bool {
        switch message.deliveryMode {
        case .fixed, .lowestPriority:
            state.withLock { state in
                let taken = acceptLocked(&state, message.vector, isLevel: message.isLevel)
                updateLocked(&state)
                return taken
            }
        case .nonMaskable:
            perform(.nonMaskableInterrupt)
        // There is no SMM; a running CPU that gets INIT or SIPI is a reset
        // that the machine does not do piecemeal; the 8259 has its own wire.
        case .systemManagement, .initialize, .startUp, .external, .reserved3:
            false
        }
    }

    @discardableResult
    func perform(_ effect: Effect) -> Bool {
        switch effect {
        case .none: break
        case .endOfInterrupt(let vector): bus?.endOfInterrupt(vector: vector)
        case .nonMaskableInterrupt: requests.post(.nonMaskableInterrupt)
        case .send(let message, shorthand: 0): bus?.send(message)
        case .send(let message, shorthand: 1): _ = receive(message)
        case .send(let message, let shorthand): bus?.broadcast(message, from: self, includingSender: shorthand == 2)
        }
        return true
    }

    /// Interrupts the CPU by `vector` as soon as RFLAGS.IF lets it, whatever is in service: no priority, no EOI.
    package func deliverDirectly(_ vector: UInt8) {
        state.withLock { state in
            state.directVector = vector
            updateLocked(&state)
        }
    }

    /// An edge of `vector`, as a message for this CPU makes it.
    package func deliver(_ vector: UInt8) { _ = receive(InterruptMessage(vector: vector)) }

    /// Puts a vector into IRR, unless software has switched the APIC off.
    func acceptLocked(_ state: inout State, _ vector: UInt8, isLevel: Bool) -> Bool {
        guard state.isEnabled, state.isSoftwareEnabled else { return false }
        guard vector >= 16 else {
            noteErrorLocked(&state, 1 << 6)  // Received illegal vector.
            return false
        }
        state.requested.insert(vector)
        if isLevel { state.levelTriggered.insert(vector) } else { state.levelTriggered.remove(vector) }
        return true
    }

    /// ESR bits (SDM 3A, figure 11-9), and the interrupt that LVT asks for.
    func noteErrorLocked(_ state: inout State, _ bits: UInt32) {
        let isNew = state.errorsSeen & bits != bits
        state.errorsSeen |= bits
        let entry = state.localVectors[LocalVector.error]
        let vector = UInt8(truncatingIfNeeded: entry)
        // A bad vector in here would report itself for ever.
        if isNew && entry & LocalVector.masked == 0 && vector >= 16 { _ = acceptLocked(&state, vector, isLevel: false) }
    }

    /// The 8259's INTR, which is wired to LINT0.
    package func setExternalLine(_ isHigh: Bool) {
        let effect = state.withLock { state -> Effect in
            let rose = isHigh && !state.externalLine
            state.externalLine = isHigh
            var effect = Effect.none
            let entry = state.localVectors[LocalVector.lint0]
            if rose && entry & LocalVector.masked == 0 {
                if entry >> 8 & 7 == 0 { _ = acceptLocked(&state, UInt8(truncatingIfNeeded: entry), isLevel: false) }
                if entry >> 8 & 7 == 4 { effect = .nonMaskableInterrupt }
            }
            updateLocked(&state)
            return effect
        }
        perform(effect)
    }
}
//:
