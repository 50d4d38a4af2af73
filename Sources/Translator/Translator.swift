internal import GuestMemory
internal import HostInterface
internal import Interpreter
internal import VirtualCPU
internal import X86

//S:510 What generated code asks Swift
//
// Three things: a page that the TLB does not know, or an instruction that is
// not translated; the code at a RIP; the target of a direct jump. The answers
// are the numbers of S:420.

/// Runs the Guest's 64-bit code, on an Interpreter's core.
@safe final class Translator: Accelerator {
    private let core: InterpreterVCPU
    private let memory: GuestMemory
    private let images: ContextImages
    let tlb: SoftTLB
    private let store: CodeStore
    private var blocks: BlockTranslator!
    private var runtime: Runtime!
    /// The mode that the running code was translated for.
    private var mode: TranslationMode = []
    /// Changes whenever a block dies.
    private var deaths: UInt64 = 0
    private(set) var statistics = TranslatorStatistics()
    /// Is shown every block, and asked each time before it runs; usually nobody (S:530).
    weak var watcher: (any BlockWatcher)?
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
        var e = unsafe store.emitter()
        unsafe runtime = unsafe Runtime(
            &e, offsets: offsets, hasAVX: features.sets.contains(.avx),
            slowFunction: Self.address(of: Self.slow), lookupFunction: Self.address(of: Self.lookUp),
            linkFunction: Self.address(of: Self.link))
        unsafe store.advance(to: e)
        store.start = store.used
        blocks = unsafe BlockTranslator(
            store: store, runtime: runtime, offsets: offsets, features: features, strictFlags: strictFlags)
        unsafe slot(Slot.owner, as: UInt.self).pointee = unsafe UInt(
            bitPattern: Unmanaged.passUnretained(self).toOpaque())
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

    func run() {
        flags = core.arithmeticFlags
        let code = find(core.rip)
        guard code > Answer.out else { return }
        useCurrentImage()
        let enter = unsafe unsafeBitCast(
            runtime.enter, to: (@convention(c) (UnsafeMutableRawPointer, UInt) -> Void).self)
        unsafe enter(tlb.image, code)
        core.arithmeticFlags = flags
    }

    /// Runs the block at RIP and nothing else; of that one only what comes
    /// before `fence`, which is an instruction that is left to the Interpreter.
    func runBlock(until fence: UInt64?) {
        tlb.forgetJumps(of: core.translationMode)
        self.fence = fence
        leash = .oneBlock
        run()
        leash = .none
        self.fence = nil
    }

    /// Whether a write there would change code that has been translated.
    func holdsCode(_ physical: UInt64, _ count: Int) -> Bool { store.holds(physical, count) }

    func flushTranslations(_ scope: FlushScope) {
        let (cr3, cr4) = core.controlRegisters
        if tlb.flush(scope, cr3: cr3, cr4: cr4) { store.disconnectCrossLinks() }
    }

    func codeWritten(_ physical: UInt64, _ count: Int) {
        if store.written(physical, count) { deaths &+= 1 }
    }

    func forgetCode() {
        store.removeAll()
        tlb.forgetJumps()
        deaths &+= 1
        statistics.flushes &+= 1
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
        unsafe owner(image)._withUnsafeGuaranteedRef { $0.lookUp() }
    }

    private typealias LinkFunction = @convention(c) (UnsafeMutableRawPointer, UInt64) -> UInt
    private static let link: LinkFunction = { image, number in
        unsafe owner(image)._withUnsafeGuaranteedRef { $0.link(Int32(truncatingIfNeeded: number)) }
    }

    private func slow(_ address: UInt64, _ info: SiteInfo) -> UInt {
        if info.isAccess && address & 0xfff <= UInt64(4096 - info.bytes),
            let translation = core.translateData(address, write: info.writes),
            tlb.fill(address, translation, mode: mode, write: info.writes)
        {
            return Answer.again
        }
        return interpret(info)
    }

    /// The instruction at this place of the code page, by the Interpreter.
    private func interpret(_ info: SiteInfo) -> UInt {
        statistics.interpreted &+= 1
        let rip = core.codePage &+ info.offset
        let deaths = deaths
        core.rip = rip
        if rip == fence { return Answer.out }
        core.arithmeticFlags = flags
        guard core.execute() == .done else { return Answer.out }
        flags = core.arithmeticFlags
        if core.needsRunLoop { return Answer.out }
        if core.rip == rip &+ info.length && !info.isLast && self.deaths == deaths && core.translationMode == mode {
            return Answer.next
        }
        return lookUp()
    }

    private func lookUp() -> UInt {
        if core.needsRunLoop { return Answer.out }
        let code = find(core.rip)
        useCurrentImage()
        return code
    }

    private func link(_ number: Int32) -> UInt {
        let link = unsafe store.links[Int(number)]
        let target =
            unsafe link.isRelative ? core.codePage &+ UInt64(bitPattern: link.target) : UInt64(bitPattern: link.target)
        core.rip = target
        if core.needsRunLoop { return Answer.out }
        let generation = statistics.flushes
        let page = unsafe link.isRelative ? core.codePage : target & ~0xfff
        let code = find(target)
        useCurrentImage()
        // Somebody else's number by now, or another page under the same address?
        if code > Answer.out, statistics.flushes == generation, let block = lastFound, core.codePage == page,
            unsafe link.isCross || link.page == store.blocks[Int(block)].key.physical >> 12
        {
            store.connect(number, to: block)
        }
        return code
    }

    // MARK: Code

    private var jumpVectors: TranslationMode = []

    /// The block that `find` returned the entry of.
    private var lastFound: Int32?

    /// The entry for code at `rip`, which is RIP; `out` with what stopped it pending.
    private func find(_ rip: UInt64) -> UInt {
        lastFound = nil
        if leash == .noBlock { return Answer.out }
        mode = core.translationMode
        // The jump tables hold code of one kind as to vectors.
        let vectors = mode.intersection(.vectors)
        if vectors != jumpVectors {
            tlb.forgetJumps()
            jumpVectors = vectors
        }
        guard let physical = core.translateRIP() else { return Answer.out }
        let virtualPage = rip & ~0xfff
        let isUser = mode.contains(.user)
        // Code of the kernel's that lies where a constant of 32 bits reaches knows its address.
        let isFixed = !isUser && Int32(exactly: Int64(bitPattern: virtualPage)) != nil
        let key = BlockKey(physical: physical, page: isFixed ? virtualPage : 0, mode: mode)
        let block: Int32
        if let known = store.find(key) {
            block = known
        } else {
            guard let bytes = unsafe memory.hostPointer(GuestPhysicalAddress(physical & ~0xfff), 4096) else {
                // No memory there: the Interpreter has the words for it.
                _ = core.execute()
                return Answer.out
            }
            if store.isFull { forgetCode() }
            let page = physical >> 12
            if store.announce(page) {
                tlb.forgetWrites(to: physical)
                core.forgetWritablePages()
            }
            block = unsafe blocks.translate(
                physical: physical, bytes: UnsafeRawPointer(bytes), virtualPage: virtualPage, key: key, mode: mode,
                isFixed: isFixed)
            if let watcher { watcher.translated(blocks.listing(of: block)) }
        }
        core.codePage = virtualPage
        let entry = store.blocks[Int(block)].entry
        if leash == .oneBlock {
            leash = .noBlock
            return entry
        }
        if let watcher, !watcher.mayRun(block) { return Answer.out }
        lastFound = block
        // Kernel code that does not know its page is told it here, each time.
        if isUser || isFixed { tlb.enterJump(rip, entry, mode: mode) }
        return entry
    }
}
//:

/// What `--verbose` tells.
struct TranslatorStatistics {
    var interpreted: UInt64 = 0
    var flushes: UInt64 = 0
}
