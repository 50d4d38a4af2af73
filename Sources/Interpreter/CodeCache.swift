internal import GuestMemory
internal import Glibc
internal import HostInterface
internal import Synchronization
internal import VirtualCPU
internal import X86

//S:140 Blocks
//
// Records are made by the block: from wherever the Guest jumped to, up to the
// first instruction that cannot go on to the next, the end of the page, or 24
// instructions. A block is known by the physical address it was decoded from
// and the size of the code, so that a page mapped at two addresses is decoded
// once. Behind the last record stands one that goes on to the code after it.
//
// The Guest may write to its own code at any time. A page that holds decoded
// code is tagged in `GuestMemory`; the TLB then never vouches for writes to
// it, each takes the slow way and ends up in `written`. There we kill the
// blocks that the write touches: every record gets a handler that does
// nothing but look the code up anew. The memory stays, because some record
// may still lead there; a block that is running finishes its present
// instruction and then meets the changed records, which is just what the
// manual asks for (SDM 3A, 11.6).

/// RIP → record, by virtual address.
@unsafe struct JumpCacheEntry: BitwiseCopyable {
    var rip = UInt64.max
    var key = UInt64.max
    /// What `AddressSlot.codePage` is while this code runs.
    var codePage: UInt64 = 0
    var record: UnsafeRawPointer?

    static let count = 8192

    @inline(__always) static func index(_ rip: UInt64) -> Int {
        unsafe Int(truncatingIfNeeded: (rip ^ (rip &>> 13)) & UInt64(count - 1))
    }
}

/// What stands before a block's records, in the place of one.
@unsafe private struct BlockHeader: BitwiseCopyable {
    var key: UInt64
    /// The next block that was decoded from this page.
    var nextInPage: UnsafeMutableRawPointer?
    var recordCount: Int32
    /// Byte offsets in the page: first, and past the last.
    var start: UInt16
    var end: UInt16
    var alive: Bool
}

/// All decoded code of one engine, by physical address.
@safe final class CodeCache {
    @unsafe private struct Slot {
        var key: UInt64
        var block: UnsafeMutableRawPointer
    }

    @unsafe private struct Page {
        var first: UnsafeMutableRawPointer?
        /// Which 64-byte granules any block covers.
        var granules: UInt64
    }

    private let memory: GuestMemory
    private let arena: UnsafeMutablePointer<Instruction>
    private var used = 0
    private var slots: [Slot?]
    private var slotCount = 0
    private var pages: [UInt64: Page] = unsafe [:]
    /// Handler that replaces those of a dead block, set by the engine.
    private let stale: Handler
    /// Called when virtual addresses of code, or TLB write permissions, must be forgotten.
    var onNewCodePage: () -> Void = {}
    var onFlush: () -> Void = {}

    static let maximumRecords = 24
    /// 12 MiB; when they are used up, all is forgotten and begun anew. A boot
    /// of Debian's cloud kernel to a shell uses up more than 320,000.
    static let capacity = 256 << 10

    init(memory: GuestMemory, stale: @escaping Handler) {
        self.memory = memory
        unsafe self.stale = stale
        let bytes = unsafe CodeCache.capacity * MemoryLayout<Instruction>.stride
        let mapping = unsafe mmap(
            nil, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        guard let mapping = unsafe mapping, unsafe mapping != MAP_FAILED else {
            preconditionFailure("no memory for decoded code")
        }
        unsafe arena = mapping.bindMemory(to: Instruction.self, capacity: CodeCache.capacity)
        unsafe slots = Array(repeating: nil, count: 1 << 14)
    }

    deinit { unsafe munmap(arena, CodeCache.capacity * MemoryLayout<Instruction>.stride) }

    static func key(_ physical: UInt64, _ mode: UInt8) -> UInt64 { physical &<< 8 | UInt64(mode) }

    private func hash(_ key: UInt64) -> Int {
        unsafe Int(truncatingIfNeeded: (key &* 0x9e37_79b9_7f4a_7c15) &>> 32) & (slots.count - 1)
    }

    /// The first record of the block at this key, if decoded.
    func find(_ key: UInt64) -> UnsafeMutablePointer<Instruction>? {
        var index = hash(key)
        while let slot = unsafe slots[index] {
            if unsafe slot.key == key {
                return unsafe (slot.block + MemoryLayout<Instruction>.stride).assumingMemoryBound(to: Instruction.self)
            }
            index = unsafe (index + 1) & (slots.count - 1)
        }
        return nil
    }

    /// Room for a block: records are written from here, then `commit` is called.
    func reserve() -> UnsafeMutablePointer<Instruction> {
        if used + CodeCache.maximumRecords + 2 > CodeCache.capacity { flush() }
        return unsafe arena + used + 1
    }

    /// To be called before the bytes of a block are read: whoever writes to the
    /// page from now on tells us. (Who wrote before, wrote before we read.)
    func announce(_ page: UInt64) {
        if memory.isCode(page: page, of: .interpreter) { return }
        memory.markCode(page: page, by: .interpreter)
        // ORDERING: our mark, then our reads; theirs in `GuestMemory.write`: the
        // bytes, then a look at the mark. One of the two sees the other.
        atomicMemoryFence(ordering: .sequentiallyConsistent)
    }

    /// There was no block after all.
    func withdraw(_ page: UInt64) {
        if unsafe pages[page] == nil { memory.clearCode(page: page, by: .interpreter) }
    }

    /// Enters the block whose `count` records stand at the last `reserve`.
    /// `start ..< end`: the bytes of its page that it was decoded from.
    func commit(_ key: UInt64, count: Int, start: Int, end: Int) {
        let header = unsafe UnsafeMutableRawPointer(arena + used)
        let pageNumber = key >> 20
        var page: Page
        if let known = unsafe pages[pageNumber] {
            unsafe page = known
        } else {
            unsafe page = Page(first: nil, granules: 0)
            onNewCodePage()
        }
        unsafe header.storeBytes(
            of: BlockHeader(
                key: key, nextInPage: page.first, recordCount: Int32(count), start: UInt16(start), end: UInt16(end),
                alive: true),
            as: BlockHeader.self)
        unsafe page.first = header
        unsafe page.granules |= CodeCache.granules(start, end)
        unsafe pages[pageNumber] = page
        used += count + 1
        unsafe insert(unsafe Slot(key: key, block: header))
    }

    private func insert(_ slot: Slot) {
        if unsafe slotCount * 2 >= slots.count {
            let old = unsafe slots
            unsafe slots = Array(repeating: nil, count: old.count * 2)
            slotCount = 0
            unsafe old.forEach { slot in
                if let slot = unsafe slot, unsafe header(slot.block).pointee.alive { unsafe insert(slot) }
            }
        }
        var index = hash(unsafe slot.key)
        while let present = unsafe slots[index], unsafe present.key != slot.key {
            index = unsafe (index + 1) & (slots.count - 1)
        }
        if unsafe slots[index] == nil { slotCount += 1 }
        unsafe slots[index] = slot
    }

    private func header(_ block: UnsafeMutableRawPointer) -> UnsafeMutablePointer<BlockHeader> {
        unsafe block.assumingMemoryBound(to: BlockHeader.self)
    }

    private static func granules(_ start: Int, _ end: Int) -> UInt64 {
        let first = UInt64(start >> 6), last = UInt64(max(start, end - 1) >> 6)
        return (UInt64.max &<< first) & (UInt64.max &>> (63 - last))
    }

    /// `count` bytes at a physical address, within one page, are about to be overwritten.
    func written(_ physical: UInt64, _ count: Int) {
        let pageNumber = physical >> 12
        guard let page = unsafe pages[pageNumber] else { return }
        let start = Int(physical & 0xfff), end = start + count
        if unsafe page.granules & CodeCache.granules(start, end) == 0 { return }
        // Kill what overlaps; keep the rest.
        var kept: UnsafeMutableRawPointer?
        var granules: UInt64 = 0
        var next = unsafe page.first
        while let block = unsafe next {
            let header = unsafe header(block)
            unsafe next = header.pointee.nextInPage
            if unsafe Int(header.pointee.start) < end && start < Int(header.pointee.end) {
                unsafe kill(block)
            } else {
                unsafe header.pointee.nextInPage = kept
                unsafe kept = block
                unsafe granules |= CodeCache.granules(Int(header.pointee.start), Int(header.pointee.end))
            }
        }
        if unsafe kept == nil {
            // The page is data again, and may be written at full speed.
            unsafe pages[pageNumber] = nil
            memory.clearCode(page: pageNumber, by: .interpreter)
        } else {
            unsafe pages[pageNumber] = Page(first: kept, granules: granules)
        }
    }

    /// Somebody else wrote to the page.
    func invalidate(page: UInt64) { written(page &<< 12, 4096) }

    private func kill(_ block: UnsafeMutableRawPointer) {
        let header = unsafe header(block)
        unsafe header.pointee.alive = false
        let records = unsafe (block + MemoryLayout<Instruction>.stride).assumingMemoryBound(to: Instruction.self)
        for number in unsafe 0..<Int(header.pointee.recordCount) { unsafe records[number].handler = stale }
        // Take it out of the table; the entries behind it must stay findable.
        var index = hash(unsafe header.pointee.key)
        while let slot = unsafe slots[index] {
            if unsafe slot.block == block {
                remove(at: index)
                return
            }
            index = unsafe (index + 1) & (slots.count - 1)
        }
    }

    private func remove(at start: Int) {
        unsafe slots[start] = nil
        slotCount -= 1
        var index = unsafe (start + 1) & (slots.count - 1)
        while let slot = unsafe slots[index] {
            unsafe slots[index] = nil
            slotCount -= 1
            unsafe insert(slot)
            index = unsafe (index + 1) & (slots.count - 1)
        }
    }

    /// Forgets all code. No record may be used after this.
    func flush() {
        unsafe pages.keys.forEach { memory.clearCode(page: $0, by: .interpreter) }
        unsafe pages.removeAll(keepingCapacity: true)
        for index in unsafe slots.indices { unsafe slots[index] = nil }
        slotCount = 0
        used = 0
        onFlush()
    }
}
//:
