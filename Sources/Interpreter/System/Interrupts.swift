internal import CZydis
internal import VirtualCPU
internal import X86

//S:220 Interrupts and exceptions
//
// Everything that breaks into a program goes through one door: a vector, its
// entry in the interrupt descriptor table, a frame on a stack, a new CS:RIP.
// What differs is who knocks. A program that asks for a vector (INT n) must be
// allowed to by the gate; the CPU and the devices need no leave. If the door
// itself is broken, that is a second exception while the first is under way,
// and SDM 3A, table 6-5 says what becomes of the two: handle them one after
// the other, make a double fault of them, or give up.
//
// Nothing in here changes the state before everything that can fail has
// succeeded, so a delivery that fails leaves the CPU as it was before it.

/// Who asks for a vector.
enum InterruptSource {
    /// A device or an NMI.
    case external
    case exception
    /// INT n.
    case software
    /// INT3 and INTO: as INT n, but no business of IOPL's in virtual-8086 mode.
    case trapInstruction
    /// INT1, which passes for the hardware.
    case debugInstruction

    var isSoftware: Bool { self == .software || self == .trapInstruction }
    /// The EXT bit of an error code (SDM 3A, 6.13).
    var externalBit: UInt32 { isSoftware ? 0 : 1 }
}

/// One event on its way to its handler.
struct Delivery {
    var vector: UInt8
    var source: InterruptSource
    var errorCode: UInt32?
    /// Where the handler is to return to.
    var rip: UInt64
    /// The RFLAGS to be pushed.
    var rflags: UInt64

    var external: UInt32 { source.externalBit }
    /// The error code that points at the vector's own gate.
    var gateCode: UInt32 { UInt32(vector) &* 8 | 2 | external }
}

extension CPU {
    func deliver(_ delivery: Delivery) throws(Stop) {
        if isLongActive {
            try deliverLong(delivery)
        } else if isProtected {
            try deliverProtected(delivery)
        } else {
            try deliverReal(delivery)
        }
        // After a task switch, the new task may have a fault of its own pending.
        if unsafe core.event != .fault { modeChanged() }
    }

    /// By the interrupt vector table of real mode (SDM 3B, 20.1.4).
    private func deliverReal(_ delivery: Delivery) throws(Stop) {
        let entry = UInt32(delivery.vector) &* 4
        if entry &+ 3 > UInt32(state.idtr.limit) { throw generalProtection(delivery.gateCode) }
        let target = try systemRead(state.idtr.base &+ UInt64(entry), 4)
        var stack = presentStack()
        try push(&stack, delivery.rflags, 2)
        try push(&stack, UInt64(state.segments[SegmentName.cs].selector), 2)
        try push(&stack, delivery.rip, 2)
        use(stack)
        state.segments[SegmentName.cs] = legacySegment(SegmentName.cs, UInt16(truncatingIfNeeded: target >> 16))
        state.rip = target & 0xffff
        state.rflags &= ~(RFlags.interrupt | RFlags.trap | RFlags.alignmentCheck | RFlags.resume)
    }

    // MARK: Events from the run loop

    /// Delivers the pending fault; returns the words for a shutdown if it cannot be.
    func deliverFault() -> String? {
        if unsafe core.faultVector == Vector.debug { state.dr[7] &= ~DR7.generalDetect }
        var delivery = pendingDelivery(after: nil)
        // The story so far, for the case that it ends badly; words are made only then.
        let first = pendingFault
        var last = first
        while true {
            unsafe core.event = .lookup
            do throws(Stop) {
                try deliver(delivery)
                return nil
            } catch {
                if unsafe core.event == .exit { return notInRAM(first.description) }
                let fault = pendingFault
                if delivery.vector == Vector.doubleFault && FaultClass.of(fault.vector) != .benign {
                    unsafe core.event = .lookup
                    let cause = last == first ? first.description : "\(last) while delivering \(first)"
                    return
                        "triple fault: \(fault) while delivering #DF, after \(cause), at RIP 0x\(String(state.rip, radix: 16))"
                }
                last = fault
                delivery = pendingDelivery(after: delivery)
            }
        }
    }

    private func notInRAM(_ event: String) -> String {
        owner.awaitsAnswer = false
        unsafe core.event = .lookup
        return "the tables or the stack for \(event) are not in RAM"
    }

    private var pendingFault: FaultRecord {
        unsafe FaultRecord(
            vector: core.faultVector, code: core.faultHasCode ? core.faultCode : nil, address: core.faultAddress)
    }

    /// What table 6-5 makes of the pending fault and the event that it interrupted.
    private func pendingDelivery(after earlier: Delivery?) -> Delivery {
        // CR2 is written when the fault is found, even if it becomes a double
        // fault (SDM 3A, 6.15, #PF, footnote).
        if unsafe core.faultVector == Vector.pageFault { state.cr2 = unsafe core.faultAddress }
        let flags = rflags
        let delivery = unsafe Delivery(
            vector: core.faultVector, source: .exception, errorCode: core.faultHasCode ? core.faultCode : nil,
            rip: state.rip,
            // A fault's handler returns to the instruction, which shall not meet
            // its breakpoint again (SDM 3B, 17.3.1.1).
            rflags: core.faultKeepsResume ? flags : flags | RFlags.resume)
        guard let earlier, earlier.source == .exception else { return delivery }
        let first = FaultClass.of(earlier.vector), second = FaultClass.of(delivery.vector)
        let doubles = first == .contributory && second == .contributory || first == .pageFault && second != .benign
        if !doubles { return delivery }
        return Delivery(
            vector: Vector.doubleFault, source: .exception, errorCode: 0, rip: state.rip, rflags: flags | RFlags.resume)
    }

    /// Delivers an external interrupt or NMI.
    func deliverInterrupt(_ vector: UInt8) -> String? {
        do throws(Stop) {
            try deliver(Delivery(vector: vector, source: .external, errorCode: nil, rip: state.rip, rflags: rflags))
            return nil
        } catch {
            if unsafe core.event == .exit { return notInRAM("interrupt \(vector)") }
            return deliverFault()
        }
    }
}

/// A fault, for telling of it.
private struct FaultRecord: Equatable, CustomStringConvertible {
    var vector: UInt8
    var code: UInt32?
    var address: UInt64

    var description: String {
        var text = FaultClass.name(vector)
        if let code { text += "(0x\(String(code, radix: 16)))" }
        if vector == Vector.pageFault { text += " at 0x\(String(address, radix: 16))" }
        return text
    }
}

/// SDM 3A, table 6-4.
enum FaultClass {
    case benign, contributory, pageFault

    static func of(_ vector: UInt8) -> FaultClass {
        switch vector {
        case Vector.divideError, Vector.invalidTSS, Vector.segmentNotPresent, Vector.stackFault,
            Vector.generalProtection, 21:
            .contributory
        case Vector.pageFault: .pageFault
        default: .benign
        }
    }

    static func name(_ vector: UInt8) -> String {
        let names = [
            "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "coprocessor overrun", "#TS", "#NP", "#SS",
            "#GP",
            "#PF", "exception 15", "#MF", "#AC", "#MC", "#XM",
        ]
        return Int(vector) < names.count ? names[Int(vector)] : "interrupt \(vector)"
    }
}
//:

extension LoweringTable {
    mutating func addInterrupts() {
        unsafe self[ZYDIS_MNEMONIC_INT] = { lowering in
            lowering.endsBlock = true
            unsafe lowering.record.immediate = lowering.immediate(0)
            return unsafe Handlers.int
        }
        unsafe self[ZYDIS_MNEMONIC_INT3] = { lowering in
            lowering.endsBlock = true
            return unsafe Handlers.int3
        }
        unsafe self[ZYDIS_MNEMONIC_INT1] = { lowering in
            lowering.endsBlock = true
            return unsafe Handlers.int1
        }
        unsafe self[ZYDIS_MNEMONIC_INTO] = { lowering in unsafe Handlers.into }
        unsafe set([ZYDIS_MNEMONIC_IRET, ZYDIS_MNEMONIC_IRETD, ZYDIS_MNEMONIC_IRETQ]) { lowering in
            lowering.endsBlock = true
            let mnemonic = lowering.mnemonic
            unsafe lowering.record.operandBytes =
                mnemonic == ZYDIS_MNEMONIC_IRET ? 2 : mnemonic == ZYDIS_MNEMONIC_IRETD ? 4 : 8
            return unsafe Handlers.iret
        }
    }
}

extension CPU {
    /// INT n and its relatives. They push the RIP after them, and their
    /// handlers do not begin with a single-step trap (SDM 3B, 17.3.1.4).
    func interrupt(_ i: InstructionPointer, _ vector: UInt8, _ source: InterruptSource) throws(Stop) {
        if source == .software && isVirtual8086 && state.rflags & RFlags.ioPrivilege != RFlags.ioPrivilege {
            throw generalProtection()
        }
        unsafe try deliver(
            Delivery(vector: vector, source: source, errorCode: nil, rip: nextRIP(i), rflags: rflags & ~RFlags.resume))
        unsafe core.stepSuppressed = true
    }
}

/// The frame of an instruction after which mode and RIP may be others: goes on
/// there at once if the code is known.
@inline(__always) func performTransfer(
    _ raw: UnsafeMutableRawPointer, _ record: UnsafeRawPointer, _ body: (CPU, InstructionPointer) throws(Stop) -> Void
) -> UnsafeRawPointer? {
    let i = unsafe record.assumingMemoryBound(to: Instruction.self)
    let cpu = unsafe CPU(raw)
    do throws(Stop) {
        unsafe try body(cpu, i)
        // A task that was switched to has a fault of its own: RIP is right already.
        if unsafe cpu.core.event == .fault { return nil }
        if unsafe cpu.core.stepping || cpu.core.shadow { return nil }
        return unsafe cpu.jump(to: cpu.state.rip)
    } catch {
        return unsafe stopped(cpu, i)
    }
}

extension Handlers {
    static let int: Handler = {
        unsafe performTransfer($0, $1) { cpu, i throws(Stop) in
            unsafe try cpu.interrupt(i, UInt8(truncatingIfNeeded: i.pointee.immediate), .software)
        }
    }
    static let int3: Handler = {
        unsafe performTransfer($0, $1) { cpu, i throws(Stop) in
            unsafe try cpu.interrupt(i, Vector.breakpoint, .trapInstruction)
        }
    }
    static let int1: Handler = {
        unsafe performTransfer($0, $1) { cpu, i throws(Stop) in
            unsafe try cpu.interrupt(i, Vector.debug, .debugInstruction)
        }
    }
    static let into: Handler = {
        unsafe performTransfer($0, $1) { cpu, i throws(Stop) in
            if cpu.overflow {
                unsafe try cpu.interrupt(i, Vector.overflow, .trapInstruction)
            } else {
                unsafe cpu.state.rip = cpu.nextRIP(i)
            }
        }
    }
    static let iret: Handler = {
        unsafe performTransfer($0, $1) { cpu, i throws(Stop) in
            unsafe try cpu.interruptReturn(i)
        }
    }
}
