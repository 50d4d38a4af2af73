internal import Synchronization

//H:130 How an interrupt reaches a CPU
//
//      device ── line ──┬── 8259 pair ── INTR ──> LINT0 ┐
//                       └── I/O APIC ── message ────────┤ local APIC ── vCPU
//      MSI-like message, another CPU's IPI ── message ──┘
//
// Every arrow can be followed from any thread. Each box has a lock of its
// own, taken only in the order of the arrows: a device may hold its lock while
// it moves its line, the I/O APIC while it sends, but a local APIC calls
// nobody back while it holds its own.

/// What travels between APICs (SDM 3A, 11.6.1 and 11.11).
package struct InterruptMessage: Equatable, Sendable {
    package enum DeliveryMode: UInt8, Sendable {
        case fixed = 0, lowestPriority, systemManagement, reserved3, nonMaskable, initialize, startUp, external
    }

    /// 32 bits wide, as x2APIC has it. A physical destination of all ones
    /// means everybody; senders of 8 bits widen their 0xff.
    package var destination: UInt32
    package var isLogical: Bool
    package var deliveryMode: DeliveryMode
    package var vector: UInt8
    package var isLevel: Bool

    static let everybody = UInt32.max

    /// The destination that an 8-bit field means.
    static func widen(_ destination: UInt8, isLogical: Bool) -> UInt32 {
        destination == 0xff && !isLogical ? everybody : UInt32(destination)
    }

    package init(
        vector: UInt8, deliveryMode: DeliveryMode = .fixed, destination: UInt32 = 0, isLogical: Bool = false,
        isLevel: Bool = false
    ) {
        self.vector = vector
        self.deliveryMode = deliveryMode
        self.destination = destination
        self.isLogical = isLogical
        self.isLevel = isLevel
    }
}

/// The bus between the I/O APIC and the local APICs: who is meant by a
/// message, and who hears of an end of interrupt.
package final class APICBus: @unchecked Sendable {
    // Filled while the machine is put together, only read afterwards.
    private var localAPICs: [LocalAPIC] = []
    private weak var ioAPIC: IOAPIC?

    package init() {}

    /// The 8259's INTR goes to the boot CPU's LINT0.
    func setExternalLine(_ isHigh: Bool) { localAPICs.first?.setExternalLine(isHigh) }

    package func attach(_ localAPIC: LocalAPIC) { localAPICs.append(localAPIC) }
    package func attach(_ ioAPIC: IOAPIC) { self.ioAPIC = ioAPIC }

    /// Any thread. Whether any local APIC took it.
    @discardableResult
    package func send(_ message: InterruptMessage) -> Bool {
        if message.deliveryMode == .lowestPriority {
            // "Lowest" may be decided by a fixed rule (SDM 3A, 11.6.2.4); ours
            // is the processor priority, then the lower number.
            var best: (apic: LocalAPIC, priority: UInt8)?
            for apic in localAPICs where apic.matches(message) {
                let priority = apic.processorPriority
                if best.map({ priority < $0.priority }) ?? true { best = (apic, priority) }
            }
            return best?.apic.receive(message) ?? false
        }
        var taken = false
        for apic in localAPICs where apic.matches(message) && apic.receive(message) { taken = true }
        return taken
    }

    /// An IPI with a shorthand (SDM 3A, 11.6.1): to all, or to all but the sender.
    func broadcast(_ message: InterruptMessage, from sender: LocalAPIC, includingSender: Bool) {
        for apic in localAPICs where includingSender || apic !== sender { _ = apic.receive(message) }
    }

    /// A level-triggered interrupt's end, said by a local APIC.
    func endOfInterrupt(vector: UInt8) { ioAPIC?.endOfInterrupt(vector: vector) }
}

/// The wires into the interrupt controllers, numbered by GSI. A wire is high
/// while any of its lines is.
package final class InterruptLines: Sendable {
    private let ioAPIC: IOAPIC
    private let pic: PIC8259
    private let levels = Mutex([Int](repeating: 0, count: MemoryMap.ioAPICPins))

    package init(ioAPIC: IOAPIC, pic: PIC8259) {
        self.ioAPIC = ioAPIC
        self.pic = pic
    }

    /// A line for one device; several may share a wire.
    package func line(gsi: Int) -> InterruptLine {
        precondition(gsi >= 0 && gsi < MemoryMap.ioAPICPins)
        return InterruptLine(gsi: gsi, lines: self)
    }

    /// The line of an ISA interrupt.
    package func line(irq: Int) -> InterruptLine { line(gsi: irq == 0 ? MemoryMap.timerGSI : irq) }

    fileprivate func change(gsi: Int, by step: Int) {
        // The controllers hear of the change before another line can make
        // the next, so the lock is held meanwhile.
        levels.withLock { levels in
            let before = levels[gsi]
            levels[gsi] = before + step
            guard (before == 0) != (levels[gsi] == 0) else { return }
            let isHigh = levels[gsi] != 0
            ioAPIC.setPin(gsi, isHigh)
            // ISA interrupts reach both controllers; the kernel masks one of them.
            switch gsi {
            case MemoryMap.timerGSI: pic.setLine(0, isHigh)
            case 1, 3..<16: pic.setLine(gsi, isHigh)
            default: break
            }
        }
    }
}

/// One device's end of a wire. Any thread.
package final class InterruptLine: Sendable {
    package let gsi: Int
    private let lines: InterruptLines
    private let isHigh = Mutex(false)

    fileprivate init(gsi: Int, lines: InterruptLines) {
        self.gsi = gsi
        self.lines = lines
    }

    package func raise() { set(true) }
    package func lower() { set(false) }

    package func set(_ level: Bool) {
        isHigh.withLock { isHigh in
            if isHigh == level { return }
            isHigh = level
            lines.change(gsi: gsi, by: level ? 1 : -1)
        }
    }

    /// Up and down at once: an edge.
    package func pulse() {
        isHigh.withLock { isHigh in
            if !isHigh { lines.change(gsi: gsi, by: 1) }
            lines.change(gsi: gsi, by: -1)
            isHigh = false
        }
    }
}
//:
