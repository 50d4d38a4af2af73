internal import CZydis
internal import GuestMemory
internal import Interpreter
internal import X86

//S:460 A block, in three passes
//
// First forward: instructions are decoded until one that cannot go on to the
// next, the page's end, or sixty-four. Jumps that may not be taken do not end
// a block; they are its side exits. Then backward, to find where the Guest's
// flags are still wanted: our own checks of addresses change the CPU's (S:465).
// Then, after a look at which accesses can share a check (S:475), forward again,
// writing.
//
// There are three ways in (see `Block`): from anywhere, where code that may lie
// anywhere is told its page; by a link, with the flags in their slot; and by a
// link with the flags in the CPU, which puts them aside if they are wanted.
//
// What runs seldom (an address that the TLB does not know, a jump that has no
// target yet) is written behind the block: the CPU that runs the block in the
// common case reads one straight line.

/// What a stub is told about the instruction that called it, in one word.
struct SiteInfo {
    var word: UInt32

    /// - Parameter leaves: the block is not gone on with, even if the Interpreter comes to its next instruction.
    init(_ decoded: Decoded, bytes: Int = 0, writes: Bool = false, kind: Kind = .interpret, leaves: Bool = false) {
        word =
            UInt32(decoded.offset) | UInt32(decoded.length) << 12 | UInt32(bytes) << 16
            | (writes ? 1 << 28 : 0) | UInt32(kind.rawValue) << 29 | (decoded.kind.endsBlock || leaves ? 1 << 31 : 0)
    }

    init(word: UInt32) { self.word = word }

    enum Kind: UInt32 {
        /// The Interpreter is wanted.
        case interpret = 0
        /// There is an address that the TLB does not know.
        case access = 1
        /// The same, for several accesses at once: they must be in one page, or be done one by one.
        case group = 2
    }

    /// The instruction's place in its page, and how long it is.
    var offset: UInt64 { UInt64(word & 0xfff) }
    var length: UInt64 { UInt64(word >> 12 & 15) }
    var bytes: Int { Int(word >> 16 & 0xfff) }
    var writes: Bool { word & 1 << 28 != 0 }
    var isAccess: Bool { word & 1 << 29 != 0 }
    var isGroup: Bool { word & 1 << 30 != 0 }
    /// The code behind it is not the next instruction's.
    var isLast: Bool { word & 1 << 31 != 0 }
}

/// Translates one block at a time.
@safe final class BlockTranslator {
    static let maximumInstructions = 64

    unowned let core: InterpreterVCPU
    let store: CodeStore
    let runtime: Runtime
    let offsets: StateOffsets
    let classifier: Classifier
    /// Every flag counts as wanted everywhere: slower, and exact in every fault's frame.
    let strictFlags: Bool

    private let zydis: UnsafeMutablePointer<ZydisDecoder>
    private let instructions: UnsafeMutablePointer<ZydisDecodedInstruction>
    private let operands: UnsafeMutablePointer<ZydisDecodedOperand>
    private let decoded: UnsafeMutablePointer<Decoded>
    private let aheadInstruction: UnsafeMutablePointer<ZydisDecodedInstruction>
    /// The page's bytes, copied: the Guest may change them while we read.
    private let page: UnsafeMutablePointer<UInt8>
    /// Where that page lies, if nobody has written there since.
    private var copiedPage: UInt64?
    private(set) var count = 0
    /// What cannot be run twice with one result is the Interpreter's.
    var isWatched = false
    /// Bytes of `page` that may be decoded.
    private var limit = 4096

    // The block being written.
    var e: Emitter
    var mode: TranslationMode = []
    /// The page's virtual address, where it is written into the code.
    var fixedPage: UInt64?
    var physicalPage: UInt64 = 0
    var colds: [Cold] = []
    var groups: [AccessGroup] = []
    /// Calls whose displacement is still to be filled in, and what they lead to.
    var callsOut: [(target: BufferPlace, place: BufferPlace)] = []
    /// Where the Guest's flags are at this point of the block (S:465).
    var flagsInCPU = false
    var flagsInSlot = false
    /// Offsets in the page past the block that liveness was read from.
    private var dependsOn: (low: Int, high: Int) = (0, 0)

    private(set) var translatedInstructions: UInt64 = 0
    private(set) var translatedBytes: UInt64 = 0
    private(set) var translationTicks: UInt64 = 0

    init(
        core: InterpreterVCPU, store: CodeStore, runtime: Runtime, offsets: StateOffsets, features: CPUFeatures,
        strictFlags: Bool
    ) {
        self.core = core
        self.store = store
        self.runtime = runtime
        self.offsets = offsets
        self.strictFlags = strictFlags
        classifier = Classifier(features: features)
        unsafe zydis = .allocate(capacity: 1)
        unsafe zydis.initialize(to: ZydisDecoder())
        let status = unsafe ZydisDecoderInit(zydis, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64)
        precondition(status & 0x8000_0000 == 0, "Zydis refused a decoder mode")
        unsafe instructions = .allocate(capacity: Self.maximumInstructions)
        unsafe operands = .allocate(capacity: Self.maximumInstructions * Int(ZYDIS_MAX_OPERAND_COUNT))
        unsafe decoded = .allocate(capacity: Self.maximumInstructions)
        unsafe decoded.initialize(repeating: Decoded(), count: Self.maximumInstructions)
        unsafe aheadInstruction = .allocate(capacity: 1)
        unsafe page = .allocate(capacity: 4096 + 16)
        unsafe page.initialize(repeating: 0, count: 4096 + 16)
        e = store.emitter()
        colds.reserveCapacity(256)
    }

    deinit {
        unsafe zydis.deallocate()
        unsafe instructions.deallocate()
        unsafe operands.deallocate()
        unsafe decoded.deallocate()
        unsafe aheadInstruction.deallocate()
        unsafe page.deallocate()
    }

    // MARK: Passes

    /// Translates from `physical`; `virtualPage` is where its page is mapped now,
    /// which is written into the code if that `isFixed`.
    ///
    /// Nil if the first instruction goes on in the next page: then that is to
    /// be translated alone, with what the next page begins with, or nothing
    /// where that cannot be read.
    func translate(
        physical: UInt64, bytes source: UnsafeRawPointer, virtualPage: UInt64, key: BlockKey, mode: TranslationMode,
        isFixed: Bool, isAlone: Bool = false, secondPage: UInt64 = 0, secondBytes: UnsafeRawPointer? = nil
    ) -> Int32? {
        let began = TimeStamp()
        defer { translationTicks &+= began.elapsed }
        self.mode = mode
        fixedPage = isFixed ? virtualPage : nil
        physicalPage = physical & ~0xfff
        let start = Int(physical & 0xfff)
        if copiedPage != physicalPage {
            unsafe UnsafeMutableRawPointer(page).copyMemory(from: source, byteCount: 4096)
            copiedPage = physicalPage
        }
        limit = 4096
        if let secondBytes = unsafe secondBytes {
            unsafe UnsafeMutableRawPointer(page + 4096).copyMemory(from: secondBytes, byteCount: 16)
            limit = 4096 + 15
        }
        dependsOn = (start, start + 1)
        guard let end = decode(from: start, isAlone: isAlone) else { return nil }
        findLiveFlags(end: end)
        findGroups()

        e = store.emitter()
        colds.removeAll(keepingCapacity: true)
        var block = Block(key: key, start: 0, end: 0)
        emitHead(start: start, &block)
        for index in 0..<count { emit(index) }
        if unsafe !decoded[count - 1].kind.endsBlock {
            unsafe emitDirectJump(to: Int64(end), flagsLive: decoded[count - 1].liveAfter)
        }
        emitStale(start: start, &block)
        var cold = 0
        while cold < colds.count {
            emitCold(colds[cold])
            cold += 1
        }
        emitCallStubs()
        store.advance(to: e)
        block.start = UInt16(min(dependsOn.low, 4095))
        block.end = UInt16(min(max(dependsOn.high, end), 4096))
        translatedInstructions &+= UInt64(count)
        translatedBytes &+= UInt64(end - start)
        block.straddles = isAlone
        block.secondPage = secondPage
        let number = store.add(block)
        if unsafe secondBytes != nil && end > 4096 { store.addSecondPage(of: number, count: end - 4096) }
        return number
    }

    /// What was copied of the page (or, with nil, of any) is not good any more.
    func forgetPage(_ physical: UInt64?) {
        if physical == nil || copiedPage == physical.map({ $0 & ~0xfff }) { copiedPage = nil }
    }

    func zydisInstruction(_ index: Int) -> UnsafePointer<ZydisDecodedInstruction> {
        unsafe UnsafePointer(instructions + index)
    }
    func zydisOperands(_ index: Int) -> UnsafePointer<ZydisDecodedOperand> {
        unsafe UnsafePointer(operands + index * Int(ZYDIS_MAX_OPERAND_COUNT))
    }
    func instruction(_ index: Int) -> UnsafeMutablePointer<Decoded> { unsafe decoded + index }
    /// How many bytes there are from this place of the page on, at most fifteen.
    func available(_ offset: UInt16) -> Int { min(15, limit - Int(offset)) }
    func codeBytes(_ offset: UInt16) -> UnsafePointer<UInt8> { unsafe UnsafePointer(page + Int(offset)) }

    /// Returns the offset past the last; nil if the first is not whole.
    private func decode(from start: Int, isAlone: Bool) -> Int? {
        var offset = start
        var isInShadow = false
        count = 0
        while count < Self.maximumInstructions && offset < 4096 {
            let instruction = unsafe instructions + count
            let operand = unsafe operands + count * Int(ZYDIS_MAX_OPERAND_COUNT)
            let status = unsafe ZydisDecoderDecodeFull(
                zydis, page + offset, ZyanUSize(min(15, limit - offset)), instruction, operand)
            let d = unsafe decoded + count
            unsafe d.pointee = Decoded()
            unsafe d.pointee.offset = UInt16(offset)
            guard status & 0x8000_0000 == 0 else {
                // Into the next page, or no instruction at all: it is looked at when it is its turn.
                if count > 0 { break }
                if status == Self.needsMore && !isAlone { return nil }
                unsafe d.pointee.kind = .interpretLast
                unsafe d.pointee.length = 1
                count = 1
                return min(offset + 15, 4096)
            }
            unsafe classifier.classify(instruction, operand, mode: mode, &d.pointee)
            if isWatched { unsafe demote(d) }
            count += 1
            unsafe offset += Int(d.pointee.length)
            if unsafe d.pointee.kind.endsBlock || isAlone || isInShadow { break }
            isInShadow = unsafe d.pointee.kind == .setInterrupts
        }
        // An STI's shadow ends with the instruction behind it, and requests are
        // looked at there. Where that is not in the block, the run loop sees to it.
        if unsafe decoded[count - 1].kind == .setInterrupts { unsafe decoded[count - 1].kind = .interpret }
        return offset
    }

    /// What cannot be run twice with one result, or shows flags that the
    /// manual leaves open, is the Interpreter's where two engines are compared.
    private func demote(_ d: UnsafeMutablePointer<Decoded>) {
        switch unsafe d.pointee.kind {
        case .timeStamp, .timeStampAndAux, .pushFlags: unsafe d.pointee.kind = .interpret
        case .systemCall, .systemReturn: unsafe d.pointee.kind = .interpretLast
        default: break
        }
    }

    /// ZYDIS_STATUS_NO_MORE_DATA.
    private static let needsMore: UInt32 = 0x8020_0000

    /// Whether a jump to this place of the page stays in it, the target's last byte included.
    func isNear(_ target: Int64) -> Bool {
        guard target >= 0, target < 4096 else { return false }
        guard target > 4096 - 15 else { return true }
        let status = unsafe ZydisDecoderDecodeInstruction(
            zydis, nil, page + Int(target), ZyanUSize(4096 - target), aheadInstruction)
        return status != Self.needsMore
    }

    // MARK: Flags

    private func findLiveFlags(end: Int) {
        let last = count - 1
        var live = Flags.all
        if unsafe !decoded[last].kind.endsBlock { live = liveFlags(at: Int64(end)) }
        for index in stride(from: last, through: 0, by: -1) {
            let d = unsafe decoded + index
            switch unsafe d.pointee.kind {
            case .jumpIf: unsafe live |= liveFlags(at: d.pointee.target)
            case .jump, .call: live = unsafe liveFlags(at: d.pointee.target)
            case .ret, .jumpIndirect, .callIndirect, .systemCall, .systemReturn, .interpretLast: live = Flags.all
            default: break
            }
            unsafe d.pointee.liveAfter = live
            live = unsafe live & ~d.pointee.writes | d.pointee.reads
            switch unsafe d.pointee.kind {
            // They put RFLAGS somewhere, whatever is said of what they change.
            case .interpretLast, .systemCall, .pushFlags: live = Flags.all
            default: if strictFlags { live = Flags.all }
            }
            unsafe d.pointee.liveBefore = live
        }
    }

    /// Which flags code at this place of the page may read before it writes them.
    private func liveFlags(at target: Int64) -> UInt32 {
        guard target >= 0, target < 4096, !strictFlags else { return Flags.all }
        var offset = Int(target)
        var unknown = Flags.all
        var live: UInt32 = 0
        var info = Decoded()
        for _ in 0..<8 {
            guard offset < 4096 else { break }
            let status = unsafe ZydisDecoderDecodeInstruction(
                zydis, nil, page + offset, ZyanUSize(min(15, 4096 - offset)), aheadInstruction)
            guard status & 0x8000_0000 == 0 else { break }
            info.reads = 0
            info.writes = 0
            unsafe classifier.flags(UnsafePointer(aheadInstruction), &info)
            switch unsafe aheadInstruction.pointee.meta.category {
            case ZYDIS_CATEGORY_COND_BR, ZYDIS_CATEGORY_UNCOND_BR, ZYDIS_CATEGORY_CALL, ZYDIS_CATEGORY_RET,
                ZYDIS_CATEGORY_SYSCALL, ZYDIS_CATEGORY_SYSRET, ZYDIS_CATEGORY_INTERRUPT, ZYDIS_CATEGORY_SYSTEM:
                return depend(on: offset, from: target, live | unknown)
            default: break
            }
            unsafe offset += Int(aheadInstruction.pointee.length)
            live |= info.reads & unknown
            unknown &= ~info.writes
            if unknown == 0 { break }
        }
        return depend(on: offset, from: target, live | unknown)
    }

    /// What was read ahead must not change without us.
    private func depend(on end: Int, from target: Int64, _ live: UInt32) -> UInt32 {
        if live != Flags.all {
            dependsOn.low = min(dependsOn.low, Int(target))
            dependsOn.high = max(dependsOn.high, end)
        }
        return live
    }

    // MARK: Head

    private func emitHead(start: Int, _ block: inout Block) {
        e.align(16)
        let isLive = unsafe decoded[0].liveBefore != 0
        var intoBlock: BufferPlace?
        if fixedPage == nil {
            // Whoever comes from elsewhere has RIP in R14: that tells the page.
            block.entry = e.address
            e.immediate(4, Host.r14, -4096)
            e.store(Host.r14, Host.rsp, StateOffsets.codePage)
            if isLive { intoBlock = e.jump() }
        }
        block.direct = e.address
        if isLive { e.saveFlags() }
        if let intoBlock { e.patchHere(intoBlock) }
        block.linked = e.address
        if fixedPage != nil { block.entry = block.linked }
        (flagsInCPU, flagsInSlot) = (false, isLive)
        // Somebody calls?
        e.immediate(7, Host.rsp, Layout.requestWord, value: 0)
        let isCalled = e.jump(if: Condition.notEqual)
        colds.append(Cold(.poll, index: 0, place: isCalled, back: e.at))
    }

    /// Where the entries lead when the block has died: the code is looked up anew.
    private func emitStale(start: Int, _ block: inout Block) {
        block.staleDirect = e.address
        if unsafe decoded[0].liveBefore != 0 { e.saveFlags() }
        block.staleLinked = e.address
        emitRIP(Int64(start))
        block.staleEntry = e.address
        e.jump(to: runtime.renew)
    }

    /// R14 = RIP of this place of the page; the flags stay.
    func emitRIP(_ offset: Int64) {
        if let fixedPage {
            e.constant(Host.r14, fixedPage &+ UInt64(bitPattern: offset))
        } else {
            e.load(Host.r14, Host.rsp, StateOffsets.codePage)
            e.lea(Host.r14, base: Host.r14, Int32(truncatingIfNeeded: offset))
        }
    }
}
//:

/// Code that is written behind the block.
struct Cold {
    enum Kind {
        /// The request word is set.
        case poll
        /// The TLB does not know an address, or the Interpreter is wanted.
        case slow
        /// A direct jump without a target yet.
        case link
        /// A jump that the jump table's first way does not know: to RIP in R14, or to `farTarget`.
        case miss
        /// A conditional jump into another page, where no link may lead.
        case crossJump
        /// Accesses that should share a check, and the TLB does not know the page, or there are two.
        case group
    }

    var kind: Kind
    var index: Int
    /// The jump that leads here, and a second one.
    var place: BufferPlace
    var place2: BufferPlace?
    /// Where to go on: the instruction once more; the next.
    var back: BufferPlace
    var next: BufferPlace?
    var operand: MemoryOperand?
    var info: SiteInfo?
    var target: Int64 = 0
    /// Of a miss: the table; the target, if R14 does not hold it yet.
    var jumpTable: JumpTable?
    var farTarget: Int64?
    var viaSlot = false
    /// Added to RSP before a miss is looked up.
    var release: Int32 = 0
    /// The instruction itself faults if the target is not canonical.
    var mayFault = false

    init(_ kind: Kind, index: Int, place: BufferPlace, back: BufferPlace) {
        self.kind = kind
        self.index = index
        self.place = place
        self.back = back
    }
}
