internal import GuestMemory
internal import Synchronization
package import VirtualCPU
internal import X86

/// What stopped the chain of handlers.
enum Event: UInt8 {
    /// Nothing but a missing record: look up the code at RIP.
    case lookup
    /// `faultVector` and its companions are set.
    case fault
    /// `InterpreterVCPU.exit` is set.
    case exit
}

/// Why the arithmetic flags are what they are, instead of what they are.
///
/// Most flags are never looked at. So an operation only leaves behind its
/// result, and a word from which the rest can be had: bit 63 is the carry out
/// of the top bit, bit 62 that into the top bit (their difference is OF), bit
/// 3 the carry out of bit 3 (AF). Flags that were set by other means are
/// expressed in the same two words: bit 0 turns SF over, bits 8…15 are xored
/// into the byte whose parity is PF.
struct LazyFlags: BitwiseCopyable {
    /// Sign-extended from the operand's size.
    var result: UInt64 = 1
    var carries: UInt64 = 0
}

/// All that one Interpreter works on, at one address. The state comes first,
/// the registers first in it.
@unsafe struct Core: ~Copyable {
    var state = VCPUState()
    var flags = LazyFlags()

    // MARK: Kept in step with the state by `CPU.modeChanged`

    /// The TLB set of the present privilege.
    var tlb: UnsafeMutablePointer<TLBEntry>
    /// 1…4095, the low bits of every valid tag.
    var tlbGeneration: UInt64 = 1
    /// What a jump-cache entry must have been made under: generation << 8 | mode bits.
    var modeKey: UInt64 = 0
    var codeGeneration: UInt64 = 0
    var privilege: UInt8 = 0
    var codeSize: CodeSize = .bits16
    /// Requests that would be heeded now.
    var pollMask: UInt32 = 0
    /// The `Thunk.Gate`s that would fault now, `waitsForFPU` apart: that one asks the x87 itself.
    var closedGates: UInt8 = 0
    /// TF is set or an instruction breakpoint armed: run one instruction at a time.
    var stepping = false
    /// Data or I/O breakpoints are armed.
    var watching = false
    /// There is a `WriteJournal`: no write goes unseen.
    var journals = false

    // MARK: Events

    var event: Event = .lookup
    var faultVector: UInt8 = 0
    var faultHasCode = false
    /// The #GP came of a non-canonical address: a stack reference makes it #SS.
    var faultIsAddress = false
    /// A #DB that is no fault of its instruction: RF is pushed as it is.
    var faultKeepsResume = false
    var faultCode: UInt32 = 0
    var faultAddress: UInt64 = 0
    /// STI, MOV SS, POP SS: no interrupt before the next instruction is done.
    var shadow = false
    /// MOV SS, POP SS: no debug exception either.
    var debugShadow = false
    /// About the instruction being single-stepped: TF was set before it; it
    /// is one after which TF does not trap; RF was set before it.
    var stepTraps = false
    var stepSuppressed = false
    var stepResumes = false
    /// CS base that the jump cache's entries for 16- and 32-bit code were made under.
    var jumpBase: UInt64 = 0
    var nmiBlocked = false
    /// DR6 bits that a data breakpoint or a task switch left to be raised after this instruction.
    var pendingDebug: UInt64 = 0

    /// What the Host answered to the instruction that is being run again.
    /// An XSAVE over a device asks most: its area is read, then written.
    var answers = InlineArray<256, UInt64>(repeating: 0)
    var answerCount = 0
    var answerNext = 0
    var refused = false

    /// PAE's four registers, loaded by MOV to CR3 (SDM 3A, 4.4.1).
    var pageDirectoryPointers: InlineArray<4, UInt64> = [0, 0, 0, 0]
    var largeMappings = AddressSpan()

    // MARK: Fixed for the engine's life

    /// `owner.memory`, without counting references.
    let ram: RAMView

    let requests: UnsafeMutablePointer<Atomic<UInt32>>
    let tlbSets: UnsafeMutablePointer<TLBEntry>
    let jumpCache: UnsafeMutablePointer<JumpCacheEntry>
    /// Where an operand is put together that is not in one piece of RAM.
    let bounce: UnsafeMutableRawPointer
    unowned(unsafe) let owner: InterpreterVCPU

    static let bounceBytes = 4096

    init(owner: InterpreterVCPU, memory: GuestMemory, requests: VCPURequests) {
        unsafe ram = memory.view
        unsafe self.owner = owner
        unsafe self.requests = requests.word
        unsafe tlbSets = .allocate(capacity: TLBEntry.setSize * TLBEntry.setCount)
        unsafe tlbSets.initialize(repeating: TLBEntry(), count: TLBEntry.setSize * TLBEntry.setCount)
        unsafe tlb = tlbSets
        unsafe jumpCache = .allocate(capacity: JumpCacheEntry.count)
        unsafe jumpCache.initialize(repeating: JumpCacheEntry(), count: JumpCacheEntry.count)
        unsafe bounce = .allocate(byteCount: Core.bounceBytes, alignment: 64)
        unsafe bounce.initializeMemory(as: UInt8.self, repeating: 0, count: Core.bounceBytes)
    }

    deinit {
        unsafe tlbSets.deallocate()
        unsafe jumpCache.deallocate()
        unsafe bounce.deallocate()
    }
}

/// A handle on a core: one pointer, so that handlers pass it in a register.
/// Everything a handler does is a method of it, in the file of its subject.
@safe package struct CPU {
    let raw: UnsafeMutableRawPointer

    @inline(__always) package init(_ raw: UnsafeMutableRawPointer) { unsafe self.raw = raw }

    // SAFETY: `raw` is the address of a Core that its InterpreterVCPU keeps
    // alive and in place; only the vCPU's thread uses it.
    @inline(__always) var core: Core {
        unsafeAddress { unsafe UnsafePointer(raw.assumingMemoryBound(to: Core.self)) }
        nonmutating unsafeMutableAddress { unsafe raw.assumingMemoryBound(to: Core.self) }
    }

    // SAFETY: the state is the first field of the core.
    @inline(__always) package var state: VCPUState {
        unsafeAddress { unsafe UnsafePointer(raw.assumingMemoryBound(to: VCPUState.self)) }
        nonmutating unsafeMutableAddress { unsafe raw.assumingMemoryBound(to: VCPUState.self) }
    }

    @inline(__always) var statePointer: UnsafeMutablePointer<VCPUState> {
        unsafe raw.assumingMemoryBound(to: VCPUState.self)
    }

    var owner: InterpreterVCPU { unsafe core.owner }

    // MARK: Registers

    /// The register at byte offset `offset` of the register file.
    @inline(__always) func register<T: GuestInteger>(_ offset: UInt8, _ type: T.Type) -> T {
        // SAFETY: offsets are made by `Lowering`, never by the guest: at most 23·8+1.
        unsafe raw.load(fromByteOffset: Int(offset), as: T.self)
    }

    /// Sets it as x86-64 does: 32 bits clear the upper half, 8 and 16 leave the rest.
    @inline(__always) func setRegister<T: GuestInteger>(_ offset: UInt8, _ value: T) {
        if T.bitWidth == 32 {
            unsafe raw.storeBytes(of: UInt64(truncatingIfNeeded: value), toByteOffset: Int(offset), as: UInt64.self)
        } else {
            unsafe raw.storeBytes(of: value, toByteOffset: Int(offset), as: T.self)
        }
    }

    @inline(__always) subscript(_ number: Int) -> UInt64 {
        get { unsafe raw.load(fromByteOffset: number &* 8, as: UInt64.self) }
        nonmutating set { unsafe raw.storeBytes(of: newValue, toByteOffset: number &* 8, as: UInt64.self) }
    }

    // The ones that every other instruction needs without naming them, at their
    // places in the file: a constant of another room is not always folded
    // into the code, and a call in the middle of PUSH costs more than the PUSH.
    // `RegisterFileTests` holds them to `Register` and `AddressSlot`.

    @inline(__always) package var rcx: UInt64 {
        get { unsafe raw.load(fromByteOffset: 1 * 8, as: UInt64.self) }
        nonmutating set { unsafe raw.storeBytes(of: newValue, toByteOffset: 1 * 8, as: UInt64.self) }
    }
    @inline(__always) package var rsp: UInt64 {
        get { unsafe raw.load(fromByteOffset: 4 * 8, as: UInt64.self) }
        nonmutating set { unsafe raw.storeBytes(of: newValue, toByteOffset: 4 * 8, as: UInt64.self) }
    }
    /// `AddressSlot.codePage`.
    @inline(__always) package var codePage: UInt64 {
        get { unsafe raw.load(fromByteOffset: 17 * 8, as: UInt64.self) }
        nonmutating set { unsafe raw.storeBytes(of: newValue, toByteOffset: 17 * 8, as: UInt64.self) }
    }

    /// Register by number at a width known only at run time, 1, 2, 4 or 8 bytes.
    func setRegister(number: Int, bytes: Int, _ value: UInt64) {
        switch bytes {
        case 1: setRegister(UInt8(number &* 8), UInt8(truncatingIfNeeded: value))
        case 2: setRegister(UInt8(number &* 8), UInt16(truncatingIfNeeded: value))
        case 4: setRegister(UInt8(number &* 8), UInt32(truncatingIfNeeded: value))
        default: self[number] = value
        }
    }

    /// RIP of the instruction, and of the one after it.
    @inline(__always) func rip(_ i: InstructionPointer) -> UInt64 {
        codePage &+ UInt64(unsafe i.pointee.offset)
    }
    @inline(__always) func nextRIP(_ i: InstructionPointer) -> UInt64 {
        unsafe codePage &+ UInt64(i.pointee.offset) &+ UInt64(i.pointee.length)
    }

    // MARK: Stopping

    /// Makes an exception pending: `throw cpu.fault(Vector.generalProtection, code: 0)`.
    @inline(never) func fault(_ vector: UInt8, code: UInt32? = nil) -> Stop {
        unsafe core.event = .fault
        unsafe core.faultVector = vector
        unsafe core.faultHasCode = code != nil
        unsafe core.faultCode = code ?? 0
        unsafe core.faultIsAddress = false
        unsafe core.faultKeepsResume = false
        return Stop()
    }

    func generalProtection(_ code: UInt32 = 0) -> Stop { fault(Vector.generalProtection, code: code) }
    func undefined() -> Stop { fault(Vector.invalidOpcode) }

    @inline(never) func pageFault(_ address: UInt64, code: UInt32) -> Stop {
        unsafe core.faultAddress = address
        return fault(Vector.pageFault, code: code)
    }

    @inline(never) func badAddress() -> Stop {
        let stop = generalProtection()
        unsafe core.faultIsAddress = true
        return stop
    }

    /// Leaves `run` with an exit that needs no answer; RIP must be right already.
    func leave(_ exit: VCPUExit) -> Stop {
        owner.exit = exit
        unsafe core.event = .exit
        return Stop()
    }

    /// Asks the Host. The first time it throws, out to the Host; when the
    /// instruction is run again, the answer is there.
    func ask(_ exit: VCPUExit) throws(Stop) -> UInt64 {
        if unsafe core.answerNext < core.answerCount {
            unsafe core.answerNext += 1
            return unsafe core.answers[core.answerNext - 1]
        }
        if unsafe core.refused {
            unsafe core.refused = false
            throw generalProtection()
        }
        owner.awaitsAnswer = true
        throw leave(exit)
    }

    /// An instruction that repeats has committed what it was answered so far.
    func forgetAnswers() {
        unsafe core.answerCount = 0
        unsafe core.answerNext = 0
    }
}

/// The frame of every handler: runs `body`, goes on with the next record, and
/// leaves RIP at the instruction when it stops short.
@inline(__always) func perform(
    _ raw: UnsafeMutableRawPointer, _ record: UnsafeRawPointer, _ body: (CPU, InstructionPointer) throws(Stop) -> Void
) -> UnsafeRawPointer? {
    let i = unsafe record.assumingMemoryBound(to: Instruction.self)
    let cpu = unsafe CPU(raw)
    do throws(Stop) {
        unsafe try body(cpu, i)
        return unsafe UnsafeRawPointer(i + 1)
    } catch {
        return unsafe stopped(cpu, i)
    }
}

/// The same for an instruction that moves RIP itself: `body` sets `state.rip`,
/// and the code there is looked up.
@inline(__always) func performJump(
    _ raw: UnsafeMutableRawPointer, _ record: UnsafeRawPointer, _ body: (CPU, InstructionPointer) throws(Stop) -> Void
) -> UnsafeRawPointer? {
    let i = unsafe record.assumingMemoryBound(to: Instruction.self)
    let cpu = unsafe CPU(raw)
    do throws(Stop) {
        unsafe try body(cpu, i)
        unsafe cpu.core.event = .lookup
        return nil
    } catch {
        return unsafe stopped(cpu, i)
    }
}

/// The same for an instruction after which the mode may be another: the next
/// one is looked up afresh.
@inline(__always) func performLast(
    _ raw: UnsafeMutableRawPointer, _ record: UnsafeRawPointer, _ body: (CPU, InstructionPointer) throws(Stop) -> Void
) -> UnsafeRawPointer? {
    unsafe performJump(raw, record) { cpu, i throws(Stop) in
        unsafe try body(cpu, i)
        unsafe cpu.state.rip = cpu.nextRIP(i)
    }
}

@inline(never) func stopped(_ cpu: CPU, _ i: InstructionPointer) -> UnsafeRawPointer? {
    // An exit that wants no answer has set RIP past the instruction.
    if unsafe cpu.core.event == .exit && !cpu.owner.awaitsAnswer { return nil }
    unsafe cpu.state.rip = cpu.rip(i)
    if unsafe cpu.core.event == .fault && cpu.core.faultIsAddress, unsafe Int(i.pointee.segment) == SegmentName.ss {
        unsafe cpu.core.faultVector = Vector.stackFault
    }
    return nil
}
