internal import GuestMemory
internal import HostInterface
internal import Interpreter
internal import VirtualCPU
internal import X86

//S:510 What generated code asks Swift
//
// Three things: a page that the TLB does not know, or an instruction that is
// not translated; the code at a RIP, which the jump table does not know or knows
// as it was before the block died; the target of a direct jump. The answers are
// the numbers of S:420.

/// Runs the Guest's 64-bit code, on an Interpreter's core.
@safe final class Translator: Accelerator {
    let core: InterpreterVCPU
    private let memory: GuestMemory
    private let images: ContextImages
    let tlb: SoftTLB
    let store: CodeStore
    private(set) var blocks: BlockTranslator!
    private var runtime: Runtime!
    /// Changes whenever a block dies or addresses may lead elsewhere: the code behind may be another.
    private var changes: UInt64 = 0
    private(set) var statistics = TranslatorStatistics()
    /// Is shown every block, and asked each time before it runs; usually nobody (S:530).
    weak var watcher: (any BlockWatcher)? {
        didSet { blocks.isWatched = watcher != nil }
    }
    /// The block that must not run yet is one whose accesses share no checks.
    private(set) var heldIsAlone = false
    private var leash = Leash.none
    /// The instruction before which a block that runs alone ends.
    private var fence: UInt64?

    private enum Leash {
        case none
        /// The block that is looked up next runs, and none after it.
        case oneBlock
        case noBlock
    }

    private enum Answer {
        static let again: UInt = 0, next: UInt = 1, out: UInt = 2
    }

    init(
        core: InterpreterVCPU, memory: GuestMemory, images: ContextImages, features: CPUFeatures, strictFlags: Bool
    ) throws(HostError) {
        self.core = core
        self.memory = memory
        self.images = images
        tlb = SoftTLB(images: images, ram: memory.view)
        store = try CodeStore(memory: memory)
        let offsets = core.stateOffsets
        var e = store.emitter()
        runtime = unsafe Runtime(
            &e, offsets: offsets, hasAVX: features.sets.contains(.avx),
            slowFunction: Self.address(of: Self.slow), lookupFunction: Self.address(of: Self.lookUp),
            renewFunction: Self.address(of: Self.renew),
            linkFunction: Self.address(of: Self.link))
        store.advance(to: e)
        store.keepPrologue()
        blocks = BlockTranslator(
            core: core, store: store, runtime: runtime, offsets: offsets, features: features, strictFlags: strictFlags)
        unsafe slot(Slot.owner, as: UInt.self).pointee = unsafe UInt(
            bitPattern: Unmanaged.passUnretained(self).toOpaque())
        let sets = core.dataSets
        unsafe slot(Slot.closedSet, as: UInt.self).pointee = sets.closed
        unsafe slot(Slot.openSet, as: UInt.self).pointee = sets.open
        unsafe slot(Slot.userSet, as: UInt.self).pointee = sets.user
        core.accelerator = self
    }

    // MARK: Slots, which all images share

    private func slot<T>(_ offset: Int32, as type: T.Type) -> UnsafeMutablePointer<T> {
        unsafe (images.base(0) + Int(offset)).assumingMemoryBound(to: T.self)
    }

    /// The arithmetic flags, between their slot's form (see `Slot.flags`) and RFLAGS'.
    private var flags: UInt64 {
        get {
            let value = unsafe UInt64(slot(Slot.flags, as: UInt32.self).pointee)
            return value >> 8 & 0xd5 | (value & 1) << 11
        }
        set {
            unsafe slot(Slot.flags, as: UInt32.self).pointee = UInt32(
                truncatingIfNeeded: (newValue & 0xd5) << 8 | newValue >> 11 & 1)
        }
    }

    private func useCurrentImage() {
        unsafe slot(Slot.image, as: UInt.self).pointee = unsafe UInt(bitPattern: tlb.image)
    }

    // MARK: Accelerator

    func run() { run(isAlone: false) }

    private func run(isAlone: Bool) {
        flags = core.arithmeticFlags
        let code = find(core.rip, isAlone: isAlone)
        guard code > Answer.out else { return }
        useCurrentImage()
        let enter = unsafe unsafeBitCast(
            runtime.enter, to: (@convention(c) (UnsafeMutableRawPointer, UInt) -> Void).self)
        unsafe enter(tlb.image, code)
        core.arithmeticFlags = flags
    }

    /// Runs the block at RIP and nothing else; of that one only what comes
    /// before `fence`, which is an instruction that is left to the Interpreter.
    func runBlock(until fence: UInt64?, isAlone: Bool) {
        tlb.forgetJumps(of: core.translationMode)
        self.fence = fence
        leash = .oneBlock
        run(isAlone: isAlone)
        leash = .none
        self.fence = nil
    }

    /// Whether a write there would change code that has been translated.
    func holdsCode(_ physical: UInt64, _ count: Int) -> Bool { store.holds(physical, count) }

    func flushTranslations(_ scope: FlushScope) {
        let (cr3, cr4) = core.controlRegisters
        if tlb.flush(scope, cr3: cr3, cr4: cr4) { store.disconnectCrossLinks() }
        useCurrentImage()
        changes &+= 1
    }

    func systemCallsChanged() {
        let templates = core.systemCallTemplates
        unsafe slot(Slot.systemCalls, as: UInt64.self).pointee = templates == nil ? 0 : 1
        guard let templates else { return }
        let kernel = unsafe slot(Slot.kernelSegments, as: Segment.self),
            user = unsafe slot(Slot.userSegments, as: Segment.self)
        unsafe (kernel[0], kernel[1]) = (templates.kernelCode, templates.kernelStack)
        unsafe (user[0], user[1]) = (templates.userCode, templates.userStack)
    }

    func codeWritten(_ physical: UInt64, _ count: Int) {
        blocks.forgetPage(physical)
        if store.written(physical, count) { changes &+= 1 }
    }

    func forgetCode() {
        let start = TimeStamp()
        store.removeAll()
        blocks.forgetPage(nil)
        tlb.forgetJumps()
        changes &+= 1
        statistics.flushes &+= 1
        statistics.longestStall = max(statistics.longestStall, start.elapsed)
        statistics.forgottenBytes = blocks.translatedBytes
    }

    // MARK: From generated code

    private static func address<T>(of function: T) -> UInt { unsafe unsafeBitCast(function, to: UInt.self) }

    private static func owner(_ image: UnsafeMutableRawPointer) -> Unmanaged<Translator> {
        // SAFETY: put there by `init`; the Translator outlives its code.
        unsafe Unmanaged.fromOpaque((image + Int(Slot.owner)).load(as: UnsafeMutableRawPointer.self))
    }

    private typealias SlowFunction = @convention(c) (UnsafeMutableRawPointer, UInt64, UInt64) -> UInt
    private static let slow: SlowFunction = { image, address, info in
        unsafe owner(image)._withUnsafeGuaranteedRef {
            $0.slow(address, SiteInfo(word: UInt32(truncatingIfNeeded: info)))
        }
    }

    private typealias LookUpFunction = @convention(c) (UnsafeMutableRawPointer) -> UInt
    private static let lookUp: LookUpFunction = { image in
        unsafe owner(image)._withUnsafeGuaranteedRef {
            $0.statistics.lookUps &+= 1
            return $0.lookUp()
        }
    }

    private static let renew: LookUpFunction = { image in
        unsafe owner(image)._withUnsafeGuaranteedRef { $0.renew() }
    }

    private typealias LinkFunction = @convention(c) (UnsafeMutableRawPointer, UInt64) -> UInt
    private static let link: LinkFunction = { image, number in
        unsafe owner(image)._withUnsafeGuaranteedRef { $0.link(Int32(truncatingIfNeeded: number)) }
    }

    private func slow(_ address: UInt64, _ info: SiteInfo) -> UInt {
        let mode = core.translationMode
        if (info.isAccess || info.isGroup) && address & 0xfff <= UInt64(4096 - info.bytes),
            let translation = core.translateData(address, write: info.writes),
            tlb.fill(address, translation, mode: mode, write: info.writes)
        {
            core.noteTLBMiss(offset: info.offset)
            return Answer.again
        }
        // Its accesses are made one by one.
        if info.isGroup { return Answer.next }
        return unsafe interpret(info, record: info.isAccess ? nil : UnsafeRawPointer(bitPattern: UInt(address)), mode)
    }

    /// The instruction at this place of the code page, by the Interpreter.
    private func interpret(_ info: SiteInfo, record: UnsafeRawPointer?, _ mode: TranslationMode) -> UInt {
        let rip = core.codePage &+ info.offset
        let changes = changes
        core.rip = rip
        if rip == fence { return Answer.out }
        core.arithmeticFlags = flags
        let executed = if let record = unsafe record { unsafe core.execute(record) } else { core.execute() }
        flags = core.arithmeticFlags
        guard executed == .done else { return Answer.out }
        if core.needsRunLoop { return Answer.out }
        if core.rip == rip &+ info.length && !info.isLast && self.changes == changes && core.translationMode == mode {
            return Answer.next
        }
        return lookUp()
    }

    private func lookUp() -> UInt {
        if core.needsRunLoop { return Answer.out }
        let rip = core.rip
        let mode = core.translationMode
        let code: UInt
        if (mode.rawValue ^ jumpMode.rawValue) & TranslationMode.settings == 0,
            let known = tlb.findJump(rip, mode: mode)
        {
            code = known
            core.codePage = rip & ~0xfff
        } else {
            code = find(rip)
        }
        useCurrentImage()
        return code
    }

    /// The code at RIP, whatever the jump table says: that has died.
    private func renew() -> UInt {
        if core.needsRunLoop { return Answer.out }
        let code = find(core.rip)
        useCurrentImage()
        return code
    }

    private func link(_ number: Int32) -> UInt {
        let link = unsafe store.links[Int(number)]
        let isRelative = link.kind.contains(.relative)
        let target = isRelative ? core.codePage &+ UInt64(bitPattern: link.target) : UInt64(bitPattern: link.target)
        core.rip = target
        // Code that is left for its like without groups may be in an STI's shadow.
        if !link.kind.contains(.alone) && core.needsRunLoop { return Answer.out }
        let generation = statistics.flushes
        let page = isRelative ? core.codePage : target & ~0xfff
        let source = unsafe store.blocks[Int(link.source)].key.physical >> 12
        let code = find(target, isAlone: link.kind.contains(.alone))
        useCurrentImage()
        // Somebody else's number by now, or another page under the same address?
        if code > Answer.out, statistics.flushes == generation, let block = lastFound, core.codePage == page {
            let found = unsafe store.blocks + Int(block)
            let isSamePage = unsafe !found.pointee.straddles && source == found.pointee.key.physical >> 12
            if link.kind.contains(.cross) || isSamePage { store.connect(number, to: block) }
        }
        return code
    }

    // MARK: Code

    private var jumpMode: TranslationMode = []

    /// The block that `find` returned the entry of.
    private var lastFound: Int32?

    /// The entry for code at `rip`, which is RIP; `out` with what stopped it pending.
    private func find(_ rip: UInt64, isAlone: Bool = false) -> UInt {
        lastFound = nil
        if leash == .noBlock { return Answer.out }
        let mode = core.translationMode
        // The jump tables hold code of one kind as to settings.
        if (mode.rawValue ^ jumpMode.rawValue) & TranslationMode.settings != 0 {
            tlb.forgetJumps()
            jumpMode = mode
        }
        let isUser = mode.isUser
        guard let physical = fetchAddress(rip, isUser: isUser) else { return Answer.out }
        let virtualPage = rip & ~0xfff
        // Code that lies where a constant of 32 bits reaches knows its address: kernels, and
        // programs that are not position-independent.
        // (Page 0 is the mark of code that does not.)
        let isFixed =
            virtualPage != 0 && Int64(bitPattern: virtualPage) == Int64(Int32(truncatingIfNeeded: virtualPage))
        let key = BlockKey(
            physical: physical, page: isFixed ? virtualPage : 0,
            mode: isAlone ? TranslationMode(rawValue: mode.rawValue | TranslationMode.alone.rawValue) : mode)
        let block: Int32
        if let known = store.find(key), isWhole(known, rip) {
            block = known
        } else if let made = translate(rip, physical, key, isFixed: isFixed) {
            block = made
            if let watcher { watcher.translated(blocks.listing(of: block)) }
        } else {
            // No memory there: the Interpreter has the words for it.
            _ = core.execute()
            return Answer.out
        }
        core.codePage = virtualPage
        let entry = unsafe store.blocks[Int(block)].entry
        if leash == .oneBlock {
            leash = .noBlock
            return entry
        }
        if let watcher, !watcher.mayRun(block) {
            heldIsAlone = isAlone
            return Answer.out
        }
        lastFound = block
        if !isAlone {
            unsafe tlb.enterJump(rip, entry, mode: mode, straddles: store.blocks[Int(block)].straddles)
        }
        return entry
    }

    /// Where code at RIP lies; nil with the fault pending.
    private func fetchAddress(_ rip: UInt64, isUser: Bool) -> UInt64? {
        if let known = tlb.findFetch(rip, isUser: isUser) { return known }
        guard let translation = core.translateRIP() else { return nil }
        tlb.enterFetch(rip, translation, isUser: isUser)
        return translation.physical
    }

    /// Whether the second page of a block that has one is still the same.
    private func isWhole(_ number: Int32, _ rip: UInt64) -> Bool {
        guard unsafe store.blocks[Int(number)].straddles else { return true }
        if unsafe core.translateCode((rip | 0xfff) &+ 1) == store.blocks[Int(number)].secondPage { return true }
        store.kill(number)
        changes &+= 1
        return false
    }

    private func translate(_ rip: UInt64, _ physical: UInt64, _ key: BlockKey, isFixed: Bool) -> Int32? {
        guard let bytes = unsafe memory.hostPointer(GuestPhysicalAddress(physical & ~0xfff), 4096) else { return nil }
        if store.isFull { forgetCode() }
        announce(physical)
        var block = unsafe blocks.translate(
            physical: physical, bytes: UnsafeRawPointer(bytes), virtualPage: rip & ~0xfff, key: key, mode: key.mode,
            isFixed: isFixed)
        if block == nil {
            // The first instruction goes on in the next page.
            let second = core.translateCode((rip | 0xfff) &+ 1)
            let more = unsafe second.flatMap { unsafe memory.hostPointer(GuestPhysicalAddress($0), 16) }
            if let second, unsafe more != nil { announce(second) }
            block = unsafe blocks.translate(
                physical: physical, bytes: UnsafeRawPointer(bytes), virtualPage: rip & ~0xfff, key: key, mode: key.mode,
                isFixed: isFixed, isAlone: true, secondPage: second ?? 0, secondBytes: UnsafeRawPointer(more))
        }
        return block
    }

    /// The page is code from now on.
    private func announce(_ physical: UInt64) {
        if store.announce(physical >> 12) {
            blocks.forgetPage(physical)
            tlb.forgetWrites(to: physical)
            core.forgetWritablePages()
        }
    }
}
//:
