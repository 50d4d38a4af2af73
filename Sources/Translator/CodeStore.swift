internal import GuestMemory
internal import HostInterface
internal import Interpreter
internal import Synchronization

//S:450 What has been translated
//
// A block is known by the physical address of its first byte and by the mode
// (S:400), so that a page that is mapped twice is translated once. Kernel code
// is known by its virtual page besides, because there RIP is written into the
// code as a constant; a program's may lie anywhere (the loader sees to that),
// and finds its page in `AddressSlot.codePage`.
//
// Blocks lead to each other by direct jumps, patched in when the target is
// there. Each such link is noted with its target: a block that dies has its
// links undone, and its entry leads to where code is looked up anew.

/// A translated run of instructions.
struct Block: BitwiseCopyable {
    var key: BlockKey
    /// Where jumps with the flags in their slot come in, and those with the flags in the CPU. Executable addresses.
    var entry: UInt
    var direct: UInt
    /// What the entries are overwritten with: jumps to these places.
    var staleEntry: UInt
    var staleDirect: UInt
    /// Byte offsets in its page, first and past the last that the translation depends on.
    var start: UInt16
    var end: UInt16
    var alive = true
    /// The next block of the same page; the first link that leads here.
    var nextInPage: Int32 = -1
    var firstLink: Int32 = -1
}

struct BlockKey: Hashable, BitwiseCopyable {
    var physical: UInt64
    /// Page-aligned, the mode in the low bits; the virtual page is 0 where code does not depend on it.
    var virtualAndMode: UInt64

    init(physical: UInt64, page: UInt64, mode: TranslationMode) {
        self.physical = physical
        virtualAndMode = page | UInt64(mode.rawValue)
    }

    var hash: UInt64 { (physical ^ virtualAndMode &* 0xff51_afd7_ed55_8ccd) &* 0x9e37_79b9_7f4a_7c15 }
}

/// A direct jump from one block to another, or to where one will be made.
@unsafe struct Link: BitwiseCopyable {
    /// The displacement, in the writable view, and where it leads while unlinked.
    var place: UnsafeMutablePointer<UInt8>
    var unlinked: UnsafeMutablePointer<UInt8>
    /// RIP, or the distance from the code page where that is not fixed.
    var target: Int64
    var isRelative: Bool
    /// Into another page: valid only while translations of addresses are.
    var isCross: Bool
    /// The flags are in their slot.
    var viaSlot: Bool
    /// The physical page that it stands in.
    var page: UInt64
    /// The block it leads to, and the next link that leads there.
    var block: Int32 = -1
    var nextLink: Int32 = -1
    var isLinked = false
}

/// All translated code: the buffer, the blocks in it, and who leads where.
@safe final class CodeStore {
    private struct Page {
        var first: Int32
        /// Which 64-byte granules any block depends on.
        var granules: UInt64
    }

    private let memory: GuestMemory
    let buffer: ExecutableMemory
    /// Executable address − writable address.
    let delta: Int
    private(set) var blocks: [Block] = []
    private(set) var links: [Link] = unsafe []
    private var crossLinks: [Int32] = []
    /// Open addressing: block number + 1, 0 for none.
    private var slots: [Int32]
    private var pages: [UInt64: Page] = [:]
    var start = 0
    var used = 0

    static let capacity = 48 << 20
    /// Room for the largest block.
    static let reserve = 64 << 10

    init(memory: GuestMemory) throws(HostError) {
        self.memory = memory
        buffer = try ExecutableMemory(byteCount: Self.capacity)
        delta = unsafe buffer.executable - UnsafeRawPointer(buffer.writable)
        slots = Array(repeating: 0, count: 1 << 16)
    }

    var isFull: Bool { used > Self.capacity - Self.reserve }

    func emitter() -> Emitter { unsafe Emitter(buffer.writable + used, delta: delta) }

    /// Takes what the emitter wrote.
    func advance(to emitter: borrowing Emitter) {
        used = unsafe (UnsafeRawPointer(emitter.at) - UnsafeRawPointer(buffer.writable) + 15) & ~15
    }

    func writable(_ address: UInt) -> UnsafeMutablePointer<UInt8> {
        unsafe buffer.writable.assumingMemoryBound(to: UInt8.self) + Int(address &- UInt(bitPattern: buffer.executable))
    }

    // MARK: Blocks

    func find(_ key: BlockKey) -> Int32? {
        var index = Int(truncatingIfNeeded: key.hash >> 32) & (slots.count - 1)
        while slots[index] != 0 {
            let number = slots[index] - 1
            if blocks[Int(number)].key == key && blocks[Int(number)].alive { return number }
            index = (index + 1) & (slots.count - 1)
        }
        return nil
    }

    /// To be called before the bytes of a block are read. True if the page was no code before.
    func announce(_ page: UInt64) -> Bool {
        if memory.isCode(page: page, of: .translator) { return false }
        memory.markCode(page: page, by: .translator)
        // ORDERING: our mark, then our reads; theirs in `GuestMemory.write`: the
        // bytes, then a look at the mark. One of the two sees the other.
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        return true
    }

    func add(_ block: Block) -> Int32 {
        let number = Int32(blocks.count)
        var block = block
        let page = block.key.physical >> 12
        var entry = pages[page] ?? Page(first: -1, granules: 0)
        block.nextInPage = entry.first
        entry.first = number
        entry.granules |= Self.granules(Int(block.start), Int(block.end))
        pages[page] = entry
        blocks.append(block)
        if blocks.count * 2 > slots.count { grow() } else { insert(number) }
        return number
    }

    private func insert(_ number: Int32) {
        var index = Int(truncatingIfNeeded: blocks[Int(number)].key.hash >> 32) & (slots.count - 1)
        while slots[index] != 0 { index = (index + 1) & (slots.count - 1) }
        slots[index] = number + 1
    }

    private func grow() {
        slots = Array(repeating: 0, count: slots.count * 2)
        for number in blocks.indices where blocks[number].alive { insert(Int32(number)) }
    }

    private static func granules(_ start: Int, _ end: Int) -> UInt64 {
        let first = UInt64(start >> 6), last = UInt64(max(start, end - 1) >> 6)
        return (UInt64.max &<< first) & (UInt64.max &>> (63 - last))
    }

    // MARK: Links

    func add(_ link: Link) -> Int32 {
        unsafe links.append(link)
        return unsafe Int32(links.count - 1)
    }

    /// The jump goes straight to the block from now on.
    func connect(_ number: Int32, to block: Int32) {
        let link = unsafe links[Int(number)]
        if unsafe link.isLinked { return }
        let target = blocks[Int(block)]
        unsafe Emitter.patch(link.place, to: writable(link.viaSlot ? target.entry : target.direct))
        unsafe links[Int(number)].isLinked = true
        unsafe links[Int(number)].block = block
        unsafe links[Int(number)].nextLink = target.firstLink
        blocks[Int(block)].firstLink = number
        if unsafe link.isCross { crossLinks.append(number) }
    }

    private func disconnect(_ number: Int32) {
        let link = unsafe links[Int(number)]
        guard unsafe link.isLinked else { return }
        unsafe Emitter.patch(link.place, to: link.unlinked)
        unsafe links[Int(number)].isLinked = false
    }

    /// Addresses of kernel code may lead elsewhere now.
    func disconnectCrossLinks() {
        if crossLinks.isEmpty { return }
        for number in crossLinks {
            disconnect(number)
            unsafe links[Int(number)].block = -1
        }
        crossLinks.removeAll(keepingCapacity: true)
        // The blocks' lists anew, without them.
        for number in blocks.indices { blocks[number].firstLink = -1 }
        for number in unsafe links.indices where unsafe links[number].isLinked {
            let block = unsafe Int(links[number].block)
            unsafe links[number].nextLink = blocks[block].firstLink
            blocks[block].firstLink = Int32(number)
        }
    }

    // MARK: Invalidation

    /// Kills what depends on `count` bytes from a physical address, within one page; true if anything did.
    func written(_ physical: UInt64, _ count: Int) -> Bool {
        let pageNumber = physical >> 12
        guard let page = pages[pageNumber] else { return false }
        let start = Int(physical & 0xfff), end = start + count
        if page.granules & Self.granules(start, end) == 0 { return false }
        var kept: Int32 = -1
        var granules: UInt64 = 0
        var next = page.first
        var killed = false
        while next >= 0 {
            let number = next
            let block = blocks[Int(number)]
            next = block.nextInPage
            if Int(block.start) < end && start < Int(block.end) {
                kill(number)
                killed = true
            } else {
                blocks[Int(number)].nextInPage = kept
                kept = number
                granules |= Self.granules(Int(block.start), Int(block.end))
            }
        }
        if kept < 0 {
            pages[pageNumber] = nil
            memory.clearCode(page: pageNumber, by: .translator)
        } else {
            pages[pageNumber] = Page(first: kept, granules: granules)
        }
        return killed
    }

    /// Whether `written` would kill anything.
    func holds(_ physical: UInt64, _ count: Int) -> Bool {
        let start = Int(physical & 0xfff), end = start + count
        var next = pages[physical >> 12]?.first ?? -1
        while next >= 0 {
            let block = blocks[Int(next)]
            if Int(block.start) < end && start < Int(block.end) { return true }
            next = block.nextInPage
        }
        return false
    }

    private func kill(_ number: Int32) {
        let block = blocks[Int(number)]
        blocks[Int(number)].alive = false
        var link = block.firstLink
        while link >= 0 {
            let next = unsafe links[Int(link)].nextLink
            disconnect(link)
            unsafe links[Int(link)].block = -1
            link = next
        }
        overwrite(block.direct, with: block.staleDirect)
        if block.entry != block.direct { overwrite(block.entry, with: block.staleEntry) }
    }

    private func overwrite(_ address: UInt, with target: UInt) {
        let place = unsafe writable(address)
        unsafe place.pointee = 0xe9
        unsafe Emitter.patch(place + 1, to: writable(target))
    }

    /// Forgets all code. None may be running.
    func removeAll() {
        for page in pages.keys { memory.clearCode(page: page, by: .translator) }
        pages.removeAll(keepingCapacity: true)
        blocks.removeAll(keepingCapacity: true)
        unsafe links.removeAll(keepingCapacity: true)
        crossLinks.removeAll(keepingCapacity: true)
        for index in slots.indices { slots[index] = 0 }
        used = start
    }
}
//:
