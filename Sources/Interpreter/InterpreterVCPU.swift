internal import CHost
internal import CZydis
package import GuestMemory
internal import Synchronization
package import VirtualCPU
package import X86

//S:190 The run loop
//
// Here the chain of handlers is started, and here it ends up when a handler
// returns nil. What may come between two instructions is looked at in one
// place and in the order of SDM 3A, table 6-2: an answer of the Host's that
// the last instruction waits for; requests from other threads; single steps;
// then code.

/// The reference engine: decodes once per page, calls a function per instruction.
@safe package final class InterpreterVCPU: VCPU {
    package static let engineName = "interpreter"

    package let requests: VCPURequests
    let memory: GuestMemory
    let interruptController: (any InterruptController)?
    let codeCache: CodeCache
    /// Changes only before the first `run`.
    private(set) var features: CPUFeatures
    private let native: NativePool
    private let decoder = Decoder()
    private let table = LoweringTable()
    private var coreStorage: UnsafeMutablePointer<Core>!
    private let storage: CoreStorage?
    private var straddling = unsafe [Straddler](repeating: Straddler(), count: 64)
    private let writtenPages = WrittenPages()
    /// Our number as an observer of `memory`.
    private var observer = 0

    /// Two records for an instruction that is run by itself.
    private let scratch: UnsafeMutablePointer<Instruction>

    /// Who runs 64-bit code in our stead; set once, before the first `run`.
    package weak var accelerator: (any Accelerator)?
    /// Set once, before the first `run`; whoever it is outlives us.
    unowned var hypercallHandler: (any HypercallHandler)?
    /// Notes what is overwritten; set once, before the first `run`.
    package var journal: WriteJournal? {
        didSet { unsafe cpu.core.journals = journal != nil }
    }
    private let known = KnownInstructions()
    /// How often the accelerator left an instruction to us.
    let fallbacks = FallbackCounts()
    /// Set while we are watched.
    var profile: EngineProfile?

    // Cold parts of the core's state.
    var exit: VCPUExit = .stopped
    var awaitsAnswer = false
    private var asksTooMuch = false

    /// Instructions that were run one at a time, to their end.
    private var completedSteps: UInt64 = 0

    package init(
        memory: GuestMemory, requests: VCPURequests, interruptController: (any InterruptController)?,
        features: CPUFeatures = .forThisHost, storage: CoreStorage? = nil
    ) {
        self.memory = memory
        self.requests = requests
        self.interruptController = interruptController
        self.features = features
        native = NativePool(isIntel: features.isIntel)
        codeCache = unsafe CodeCache(memory: memory, stale: Handlers.stale)
        unsafe scratch = .allocate(capacity: 2)
        self.storage = storage
        unsafe coreStorage = storage?.address.bindMemory(to: Core.self, capacity: 1) ?? .allocate(capacity: 1)
        unsafe coreStorage.initialize(to: Core(owner: self, memory: memory, requests: requests))
        let cpu = self.cpu
        codeCache.onNewCodePage = { cpu.flushOwnTLB() }
        codeCache.onFlush = { cpu.forgetJumps() }
        observer = memory.observeCodeWrites { [writtenPages, requests] page in
            writtenPages.add(page)
            requests.post(.codeWritten)
        }
        cpu.modeChanged()
    }

    deinit {
        memory.stopObserving(observer)
        unsafe copy.deallocate()
        unsafe straddling.forEach { unsafe $0.records?.deallocate() }
        unsafe coreStorage.deinitialize(count: 1)
        if storage == nil { unsafe coreStorage.deallocate() }
        unsafe scratch.deallocate()
    }

    var cpu: CPU { unsafe CPU(UnsafeMutableRawPointer(coreStorage)) }

    // MARK: VCPU

    package func complete(_ value: UInt64) {
        let cpu = self.cpu
        precondition(awaitsAnswer, "an answer without a question")
        awaitsAnswer = false
        guard unsafe cpu.core.answerCount < cpu.core.answers.count else {
            asksTooMuch = true
            return
        }
        unsafe cpu.core.answers[cpu.core.answerCount] = value
        unsafe cpu.core.answerCount += 1
    }

    package func refuse() {
        precondition(awaitsAnswer, "a refusal without a question")
        awaitsAnswer = false
        unsafe cpu.core.refused = true
    }

    package func withState<Result>(_ body: (inout VCPUState) -> Result) -> Result {
        let cpu = self.cpu
        cpu.state.rflags = cpu.rflags
        let result = body(&cpu.state)
        cpu.setArithmeticFlags(cpu.state.rflags)
        cpu.modeChanged()
        accelerator?.systemCallsChanged()
        cpu.loadPageDirectoryPointersUnchecked()
        cpu.flushTLB()
        return result
    }

    package var hypercall: Hypercall {
        let cpu = self.cpu
        return Hypercall(
            rax: cpu[Register.rax], rbx: cpu[Register.rbx], rcx: cpu[Register.rcx], rdx: cpu[Register.rdx],
            rsi: cpu[Register.rsi], rdi: cpu[Register.rdi], r8: cpu[8], r10: cpu[10],
            privilege: unsafe Int(cpu.core.privilege))
    }

    package func answerHypercall(_ result: UInt64) {
        let cpu = self.cpu
        cpu.state.gpr[Register.rax] = result
    }

    package func handleHypercalls(by handler: any HypercallHandler) { hypercallHandler = handler }

    package func offer(_ leaves: HypervisorLeaves) { features.hypervisor = leaves }

    package func flushTranslations() { cpu.flushTLB() }

    package func readState<Result>(_ body: (borrowing VCPUState) -> Result) -> Result {
        let cpu = self.cpu
        cpu.state.rflags = cpu.rflags
        return body(cpu.state)
    }

    package func reset() {
        let cpu = self.cpu
        cpu.state = VCPUState()
        cpu.setArithmeticFlags(0)
        unsafe cpu.core.event = .lookup
        unsafe cpu.core.shadow = false
        unsafe cpu.core.nmiBlocked = false
        unsafe cpu.core.pendingDebug = 0
        unsafe cpu.core.debugShadow = false
        unsafe cpu.core.refused = false
        cpu.forgetAnswers()
        awaitsAnswer = false
        asksTooMuch = false
        codeCache.flush()
        accelerator?.forgetCode()
        accelerator?.systemCallsChanged()
        cpu.modeChanged()
        cpu.flushTLB()
    }

    package func run() -> VCPUExit {
        while true {
            if let exit = run(until: nil) { return exit }
        }
    }

    /// Runs at most so many instructions, each looked up by itself: slow, but
    /// it stops just where it is told, and counts. For measuring, and for
    /// running beside another engine.
    ///
    /// An instruction is `executed` when it is done: one that faults is not, one
    /// that asks for something is when it has its answer. A repeated string
    /// instruction counts once for each stretch between interrupts.
    package func run(atMost instructions: UInt64) -> (exit: VCPUExit?, executed: UInt64) {
        let start = completedSteps
        let exit = run(until: start &+ instructions)
        return (exit, completedSteps &- start)
    }

    /// The loop of both; nil when `completedSteps` has reached the limit.
    private func run(until limit: UInt64?) -> VCPUExit? {
        precondition(!awaitsAnswer, "the last exit wants an answer first")
        // Thunks leave the Guest's MXCSR, all exceptions masked, in the CPU.
        defer { chost_set_mxcsr(0x1f80) }
        let cpu = self.cpu
        while completedSteps != limit {
            if unsafe cpu.core.event == .fault {
                // Of a task that was just switched to. A chain of such must not keep us from stopping.
                if requests.pending.contains(.stop) {
                    requests.clear(.stop)
                    return .stopped
                }
            } else if unsafe cpu.core.answerCount > 0 || cpu.core.refused {
                // The instruction that asked, again, with what it was told.
                if native.isCrowded { renewCode() }
                step(cpu)
                if unsafe cpu.core.stepping { cpu.afterStep() }
                if unsafe cpu.core.event == .exit && awaitsAnswer {
                    unsafe cpu.core.answerNext = 0
                } else {
                    cpu.forgetAnswers()
                }
            } else if let exit = takeRequests(cpu) {
                return exit
            } else if unsafe cpu.core.event == .fault {
                // An interrupt went through a task gate, to a task that cannot begin.
            } else if native.isCrowded {
                renewCode()
            } else if unsafe cpu.core.stepping || cpu.core.shadow {
                let shadowed = unsafe cpu.core.shadow
                if let exit = cpu.beforeStep() { return exit }
                if unsafe cpu.core.event == .lookup {
                    step(cpu)
                    if shadowed { cpu.endShadow() }
                    cpu.afterStep()
                }
            } else if limit != nil {
                step(cpu)
            } else if let accelerator, accelerates {
                accelerator.run()
            } else {
                runChain(cpu)
            }
            switch unsafe cpu.core.event {
            case .lookup: break
            case .exit:
                unsafe cpu.core.event = .lookup
                return exit
            case .fault:
                unsafe cpu.core.event = .lookup
                cpu.forgetAnswers()
                if let profile { unsafe profile.addException(cpu.core.faultVector) }
                if let reason = cpu.deliverFault() { return .shutdown(reason: reason) }
            }
        }
        return nil
    }

    /// Requests of other threads; an interrupt is delivered here.
    private func takeRequests(_ cpu: CPU) -> VCPUExit? {
        let pending = requests.pending
        if unsafe pending.rawValue & cpu.core.pollMask == 0 { return nil }
        if pending.contains(.stop) {
            requests.clear(.stop)
            return .stopped
        }
        if pending.contains(.codeWritten) {
            requests.clear(.codeWritten)
            for page in writtenPages.take() { codeWritten(page &<< 12, 4096) }
            cpu.flushOwnTLB()
        }
        if pending.contains(.sample) { takeSample() }
        if unsafe cpu.core.shadow { return nil }
        if unsafe pending.contains(.nonMaskableInterrupt) && !cpu.core.nmiBlocked {
            requests.clear(.nonMaskableInterrupt)
            unsafe cpu.core.nmiBlocked = true
            if let reason = cpu.deliverInterrupt(Vector.nonMaskable) { return .shutdown(reason: reason) }
            cpu.modeChanged()
        } else if pending.contains(.interrupt) && cpu.state.rflags & RFlags.interrupt != 0 {
            guard let controller = interruptController else {
                requests.clear(.interrupt)
                return nil
            }
            if let vector = controller.acknowledgeInterrupt() {
                if let reason = cpu.deliverInterrupt(vector) { return .shutdown(reason: reason) }
            }
        }
        return nil
    }

    private func runChain(_ cpu: CPU) {
        do throws(Stop) {
            var record = unsafe cpu.jump(to: cpu.state.rip)
            if unsafe record == nil { unsafe record = try lookup(cpu) }
            let raw = unsafe cpu.raw
            while let present = unsafe record {
                unsafe record = present.assumingMemoryBound(to: Instruction.self).pointee.handler(raw, present)
            }
        } catch {
            // RIP is the target already: the fault is that of the fetch.
        }
    }

    /// Runs exactly one instruction. Returns its mnemonic, `ZYDIS_MNEMONIC_INVALID` if it could not be fetched.
    @discardableResult
    func step(_ cpu: CPU) -> UInt16 {
        do throws(Stop) {
            let record = unsafe try lookupAlone(cpu)
            let mnemonic = unsafe record.pointee.mnemonic
            unsafe run(cpu, record)
            return mnemonic
        } catch { return 0 }
    }

    /// Runs one record.
    func run(_ cpu: CPU, _ record: InstructionPointer) {
        let next = unsafe record.pointee.handler(cpu.raw, UnsafeRawPointer(record))
        if let next = unsafe next {
            unsafe cpu.state.rip = cpu.rip(next.assumingMemoryBound(to: Instruction.self))
            unsafe cpu.core.event = .lookup
        }
        if unsafe cpu.core.event == .lookup || cpu.core.event == .exit && !awaitsAnswer { completedSteps &+= 1 }
    }

    /// Lowers an instruction by itself; false if its bytes do not suffice.
    func makeRecord(
        _ bytes: UnsafePointer<UInt8>, count: Int, offset: Int, into records: UnsafeMutablePointer<Instruction>
    ) -> Bool {
        unsafe copy.update(from: bytes, count: count)
        do throws(Stop) {
            guard let lowering = try lower(cpu, count, offset: offset) else { return false }
            unsafe fill(records, lowering)
            return true
        } catch { return false }
    }

    // MARK: Code

    /// `count` bytes of a page that is marked as code are about to be overwritten, or have just been.
    func codeWritten(_ physical: UInt64, _ count: Int) {
        codeCache.written(physical, count)
        accelerator?.codeWritten(physical, count)
    }

    /// Begins anew with decoded code and thunks. Only between two chains: no
    /// record may be in use.
    private func renewCode() {
        codeCache.flush()
        unsafe straddling = straddling.map { unsafe Straddler(records: $0.records) }
        known.removeAll()
        accelerator?.forgetCode()
        native.removeAll()
    }

    private var mode: UInt8 { unsafe UInt8(truncatingIfNeeded: cpu.core.modeKey & 3) }

    /// The linear address of RIP; #GP where code may not be.
    private func linearRIP(_ cpu: CPU) throws(Stop) -> UInt64 {
        let rip = cpu.state.rip
        if unsafe cpu.core.codeSize == .bits64 {
            if !isCanonical(rip) { throw cpu.generalProtection() }
            return rip
        }
        let segment = cpu.state.segments[SegmentName.cs]
        if rip > UInt64(segment.limit) { throw cpu.generalProtection() }
        return (segment.base &+ rip) & 0xffff_ffff
    }

    /// The record for RIP, decoded now if need be, and entered in the jump cache.
    private func lookup(_ cpu: CPU) throws(Stop) -> UnsafeRawPointer {
        let rip = cpu.state.rip
        let linear = try linearRIP(cpu)
        let codePage = rip &- (linear & 0xfff)
        let physical = try cpu.translateFetch(linear)
        let key = CodeCache.key(physical, mode)
        if let record = unsafe try block(cpu, physical, key) {
            let slot = unsafe cpu.core.jumpCache + JumpCacheEntry.index(rip)
            unsafe slot.pointee = JumpCacheEntry(
                rip: rip, key: cpu.core.modeKey, codePage: codePage, record: UnsafeRawPointer(record))
            cpu.codePage = codePage
            return UnsafeRawPointer(record)
        }
        // The first instruction crosses into the next page.
        return unsafe try UnsafeRawPointer(straddler(cpu, linear, physical))
    }

    /// A branch within its page: finds or makes the target's block, and lets
    /// the branch remember it.
    func link(_ i: InstructionPointer, to target: UInt64) -> UnsafeRawPointer? {
        let cpu = self.cpu
        let generation = unsafe cpu.core.codeGeneration
        cpu.state.rip = target
        unsafe cpu.core.event = .lookup
        // A program that keeps rewriting itself must come by `run`, where room is made.
        if native.isCrowded { return nil }
        let offset = target &- cpu.codePage
        do throws(Stop) {
            let linear = try linearRIP(cpu)
            let physical = try cpu.translateFetch(linear)
            let key = CodeCache.key(physical, mode)
            guard let record = unsafe try block(cpu, physical, key) else { return nil }
            // Where the cache was flushed meanwhile, `i` may be somebody else by now.
            if unsafe cpu.core.codeGeneration == generation && physical & 0xfff == offset {
                unsafe UnsafeMutablePointer(mutating: i).pointee.link = UnsafeMutableRawPointer(record)
            }
            return UnsafeRawPointer(record)
        } catch { return nil }
    }

    private func block(_ cpu: CPU, _ physical: UInt64, _ key: UInt64) throws(Stop) -> UnsafeMutablePointer<Instruction>?
    {
        if let known = unsafe codeCache.find(key) { return unsafe known }
        return unsafe try decodeBlock(cpu, physical, key)
    }

    /// Decodes from `physical` to the end of the block; nil if already the
    /// first instruction crosses the page's end.
    private func decodeBlock(_ cpu: CPU, _ physical: UInt64, _ key: UInt64) throws(Stop) -> UnsafeMutablePointer<
        Instruction
    >? {
        let pageAddress = GuestPhysicalAddress(physical & ~0xfff)
        guard let page = unsafe memory.hostPointer(pageAddress, 4096) else { throw noCode(cpu, physical) }
        let records = unsafe codeCache.reserve()
        codeCache.announce(pageAddress.page)
        let start = Int(physical & 0xfff)
        var offset = start
        var count = 0
        while count < CodeCache.maximumRecords && offset < 4096 {
            // One private copy of the bytes: the Guest may change them meanwhile.
            let available = min(Decoder.maximumLength, 4096 - offset)
            unsafe copy.update(
                from: UnsafeRawPointer(page + offset).assumingMemoryBound(to: UInt8.self), count: available)
            guard let lowering = try lower(cpu, available, offset: offset) else { break }
            unsafe (records + count).initialize(to: lowering.record)
            count += 1
            unsafe offset += Int(lowering.record.length)
            if lowering.endsBlock { break }
        }
        if count == 0 {
            codeCache.withdraw(pageAddress.page)
            return nil
        }
        unsafe (records + count).initialize(to: endRecord(offset))
        unsafe (records + count).pointee.spare = Instruction.linkable
        codeCache.commit(key, count: count + 1, start: start, end: max(offset, start + 1))
        return unsafe records
    }

    private func endRecord(_ offset: Int) -> Instruction {
        var end = unsafe Instruction(Handlers.endOfBlock)
        unsafe end.offset = UInt16(truncatingIfNeeded: offset)
        return unsafe end
    }

    private func noCode(_ cpu: CPU, _ physical: UInt64) -> Stop {
        exit = .shutdown(reason: "the guest ran code at \(GuestPhysicalAddress(physical)), where there is no memory")
        awaitsAnswer = false
        unsafe cpu.core.event = .exit
        return Stop()
    }

    private let copy = UnsafeMutablePointer<UInt8>.allocate(capacity: 16)

    /// Lowers the instruction in `copy`; nil if it does not end within `available` bytes.
    private func lower(_ cpu: CPU, _ available: Int, offset: Int) throws(Stop) -> Lowering? {
        let size = unsafe cpu.core.codeSize
        do throws(Decoder.Failure) {
            unsafe try decoder.decode(UnsafeRawBufferPointer(start: copy, count: available), size)
        } catch {
            switch error {
            case .moreBytes where available < Decoder.maximumLength: return nil
            case .moreBytes, .tooLong: return unsafe failing(size, offset, Handlers.tooLong)
            case .invalid: return unsafe failing(size, offset, Handlers.undefined)
            }
        }
        var lowering = Lowering(decoder, size, isIntel: features.isIntel, offset: offset)
        if unsafe features.offers(decoder.instruction.pointee.meta.isa_set) || lowering.isOfferedAlways {
            if let entry = unsafe table[lowering.mnemonic], let handler = unsafe entry(&lowering) {
                unsafe lowering.record.handler = handler
            } else {
                unsafe lowering.lowerToThunk(native, bytes: copy)
            }
        } else if lowering.isReservedNop {
            unsafe lowering.record.handler = Handlers.nop
        }
        return lowering
    }

    /// A record that only faults.
    private func failing(_ size: CodeSize, _ offset: Int, _ handler: @escaping Handler) -> Lowering {
        unsafe decoder.instruction.pointee.length = 1
        var lowering = Lowering(decoder, size, isIntel: features.isIntel, offset: offset)
        unsafe lowering.record = Instruction(handler)
        unsafe lowering.record.offset = UInt16(truncatingIfNeeded: offset)
        unsafe lowering.record.length = 1
        lowering.endsBlock = true
        return lowering
    }

    /// The instruction at RIP by itself, for running just one.
    private func lookupAlone(_ cpu: CPU) throws(Stop) -> UnsafeMutablePointer<Instruction> {
        let linear = try linearRIP(cpu)
        let physical = try cpu.translateFetch(linear)
        if physical & 0xfff <= 4096 - 16, let bytes = unsafe memory.hostPointer(GuestPhysicalAddress(physical), 16) {
            cpu.codePage = cpu.state.rip &- (linear & 0xfff)
            let code = unsafe bytes.loadUnaligned(as: SIMD16<UInt8>.self)
            let key = CodeCache.key(physical, mode)
            if let record = unsafe known.find(key, code) { return unsafe record }
            unsafe UnsafeMutableRawPointer(copy).storeBytes(of: code, as: SIMD16<UInt8>.self)
            guard let lowering = try lower(cpu, Decoder.maximumLength, offset: Int(linear & 0xfff)) else {
                throw cpu.generalProtection()
            }
            let record = unsafe known.enter(key, code, length: Int(lowering.record.length))
            unsafe fill(record, lowering)
            return unsafe record
        }
        let available = try fetch(cpu, linear, physical)
        cpu.codePage = cpu.state.rip &- (linear & 0xfff)
        guard let lowering = try lower(cpu, available, offset: Int(linear & 0xfff)) else {
            throw cpu.generalProtection()
        }
        unsafe fill(scratch, lowering)
        return unsafe scratch
    }

    private func fill(_ records: UnsafeMutablePointer<Instruction>, _ lowering: Lowering) {
        unsafe records.initialize(to: lowering.record)
        unsafe records.pointee.spare &= ~(lowering.isBranch ? UInt32.max : 0)
        unsafe (records + 1).initialize(to: endRecord(Int(lowering.record.offset) + Int(lowering.record.length)))
    }

    /// Copies up to 15 bytes of code at `linear` into `copy`, from two pages if
    /// the instruction reaches there.
    private func fetch(_ cpu: CPU, _ linear: UInt64, _ physical: UInt64) throws(Stop) -> Int {
        let first = min(Decoder.maximumLength, Int(4096 &- (linear & 0xfff)))
        guard let bytes = unsafe memory.hostPointer(GuestPhysicalAddress(physical), first) else {
            throw noCode(cpu, physical)
        }
        unsafe copy.update(from: bytes.assumingMemoryBound(to: UInt8.self), count: first)
        if first == Decoder.maximumLength { return first }
        // Does it need the second page? Only then may that page fault.
        do throws(Decoder.Failure) {
            unsafe try decoder.decode(UnsafeRawBufferPointer(start: copy, count: first), cpu.core.codeSize)
            return first
        } catch {
            if error != .moreBytes { return first }
        }
        let next = cpu.wrap(linear &+ UInt64(first))
        let second = try cpu.translateFetch(next)
        let rest = Decoder.maximumLength - first
        guard let more = unsafe memory.hostPointer(GuestPhysicalAddress(second), rest) else {
            throw noCode(cpu, second)
        }
        unsafe (copy + first).update(from: more.assumingMemoryBound(to: UInt8.self), count: rest)
        return Decoder.maximumLength
    }

    /// An instruction in two pages belongs to no block. It is kept by its bytes,
    /// which are fetched and compared every time.
    @unsafe private struct Straddler {
        var key = UInt64.max
        var bytes: SIMD16<UInt8> = .zero
        var records: UnsafeMutablePointer<Instruction>?
    }

    private func straddler(_ cpu: CPU, _ linear: UInt64, _ physical: UInt64) throws(Stop) -> UnsafeMutablePointer<
        Instruction
    > {
        cpu.codePage = cpu.state.rip &- (linear & 0xfff)
        unsafe copy[15] = 0
        let available = try fetch(cpu, linear, physical)
        let bytes = unsafe UnsafeRawPointer(copy).loadUnaligned(as: SIMD16<UInt8>.self)
        let index = Int(truncatingIfNeeded: (linear >> 12) & 63)
        let key = linear &<< 2 | UInt64(mode)
        if unsafe straddling[index].key == key, unsafe straddling[index].bytes == bytes,
            let records = unsafe straddling[index].records
        {
            return unsafe records
        }
        guard let lowering = try lower(cpu, available, offset: Int(linear & 0xfff)) else {
            throw cpu.generalProtection()
        }
        let records = unsafe straddling[index].records ?? .allocate(capacity: 2)
        unsafe fill(records, lowering)
        unsafe straddling[index] = Straddler(key: key, bytes: bytes, records: records)
        return unsafe records
    }

    // MARK: Watchpoints

    func isWatched(page address: UInt64) -> Bool { cpu.isWatched(page: address) }
    func noteWatched(_ address: UInt64, _ count: Int, write: Bool) { cpu.noteWatched(address, count, write: write) }

    package func describe() -> String { cpu.describe() }
}
//:

/// Pages of code that other threads wrote to.
private final class WrittenPages: Sendable {
    // A set: while the vCPU sleeps, a device may write one page any number of times.
    private let pages = Mutex<Set<UInt64>>([])
    func add(_ page: UInt64) { pages.withLock { _ = $0.insert(page) } }
    func take() -> Set<UInt64> {
        pages.withLock { pages in
            let taken = pages
            pages.removeAll()
            return taken
        }
    }
}

extension Lowering {
    /// 0F 0D and 0F 18…1F: where the feature that gave them a meaning is not
    /// there (ENDBR64, BND…, CLDEMOTE), they do nothing.
    var isReservedNop: Bool {
        unsafe d.pointee.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && d.pointee.opcode_map == ZYDIS_OPCODE_MAP_0F
            && (d.pointee.opcode == 0x0d || d.pointee.opcode >= 0x18 && d.pointee.opcode <= 0x1f)
    }

    /// VMCALL and VMMCALL belong to sets that are not shown; but the leaves of
    /// a hypervisor are, and with them come its calls, in either vendor's form.
    /// SYSCALL and SYSRET count to a set of AMD's outside 64-bit mode; they look
    /// for themselves whether the Guest's CPU has them there.
    var isOfferedAlways: Bool {
        switch mnemonic {
        case ZYDIS_MNEMONIC_VMCALL, ZYDIS_MNEMONIC_VMMCALL, ZYDIS_MNEMONIC_SYSCALL, ZYDIS_MNEMONIC_SYSRET: true
        default: false
        }
    }

    var isBranch: Bool { unsafe record.spare == Instruction.linkable && !record.options.contains(.complexAddress) }
}

extension Handlers {
    static let tooLong: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in throw cpu.generalProtection() } }
}
