internal import GuestMemory
internal import HostInterface
internal import Interpreter
internal import Synchronization

//S:450 What has been translated
//
// A block is known by the physical address of its first byte and by the mode
// (S:400), so that a page that is mapped twice is translated once. Code in the
// lowest or the highest 2 GiB, where a constant of 32 bits reaches, is known by
// its virtual page besides, because there RIP is written into the code as a
// constant: that is kernels, and programs that are not position-independent.
// All other code may lie anywhere (the loader sees to that), and finds its page
// in `AddressSlot.codePage`. Its entry puts it there; links, which do not leave
// the page, come in behind that.
//
// Blocks lead to each other by direct jumps, patched in when the target is
// there. Each such link is noted with its target: a block that dies has its
// links undone, and its entries lead to where code is looked up anew.

/// A translated run of instructions.
struct Block: BitwiseCopyable {
    var key: BlockKey
    /// Where jumps come in, as executable addresses: from anywhere, with the flags
    /// in their slot and RIP in R14 (for which code that knows its address does
    /// not ask: there `entry` is `linked`); by a link, flags in their slot; by a
    /// link, flags in the CPU. Where no flags are wanted the last two are one.
    var entry: UInt = 0
    var linked: UInt = 0
    var direct: UInt = 0
    /// What the entries are overwritten with: jumps to these places.
    var staleEntry: UInt = 0
    var staleLinked: UInt = 0
    var staleDirect: UInt = 0
    /// Byte offsets in its page, first and past the last that the translation depends on.
    var start: UInt16
    var end: UInt16
    var alive = true
    /// Its first instruction goes on in the page behind.
    var straddles = false
    /// The physical address of that, and the number of the entry that stands for this block there.
    var secondPage: UInt64 = 0
    var partner: Int32 = -1
    /// The next block of the same page; the first link that leads here.
    var nextInPage: Int32 = -1
    var firstLink: Int32 = -1
}

struct BlockKey: BitwiseCopyable {
    var physical: UInt64
    /// Page-aligned, the mode in the low bits; the virtual page is 0 where code does not depend on it.
    var virtualAndMode: UInt64

    init(physical: UInt64, page: UInt64, mode: TranslationMode) {
        self.physical = physical
        virtualAndMode = page | UInt64(mode.rawValue)
    }

    var mode: TranslationMode { TranslationMode(rawValue: UInt8(truncatingIfNeeded: virtualAndMode)) }

    @inline(__always) var slot: Int {
        let hash = (physical ^ virtualAndMode &* 0xff51_afd7_ed55_8ccd) &* 0x9e37_79b9_7f4a_7c15
        return Int(truncatingIfNeeded: hash >> 40) & (CodeStore.slotCount - 1)
    }

    @inline(__always) static func == (a: BlockKey, b: BlockKey) -> Bool {
        a.physical == b.physical && a.virtualAndMode == b.virtualAndMode
    }
}

/// A direct jump from one block to another, or to where one will be made.
struct Link: BitwiseCopyable {
    struct Kind: OptionSet, BitwiseCopyable {
        let rawValue: UInt8
        /// The target is a distance from the code page, which is not fixed.
        static let relative = Kind(rawValue: 1)
        /// Into another page: valid only while translations of addresses are.
        static let cross = Kind(rawValue: 2)
        /// The flags are in their slot.
        static let viaSlot = Kind(rawValue: 4)
        static let linked = Kind(rawValue: 8)
        /// To code without groups (S:475).
        static let alone = Kind(rawValue: 16)
    }

    /// The displacement, and where it leads while unlinked, in bytes from the buffer's start.
    var place: Int32
    var unlinked: Int32
    /// RIP, or the distance.
    var target: Int64
    var kind: Kind
    /// The block it stands in; the one it leads to; the next link that leads there.
    var source: Int32
    var block: Int32 = -1
    var nextLink: Int32 = -1
}

/// All translated code: the buffer, the blocks in it, and who leads where.
///
/// The tables are plain memory of a fixed size, of which the Host gives what
/// is touched.
@safe final class CodeStore {
    /// The blocks of a page of code.
    private struct Page: BitwiseCopyable {
        var first: Int32 = -1
        /// Which 64-byte granules any block depends on.
        var granules: UInt64 = 0
    }

    private struct Counts {
        var blocks = 0
        var links = 0
        var crossLinks = 0
        var used = 0
        var start = 0
        var records = 0
    }

    private let memory: GuestMemory
    private let buffer: ExecutableMemory
    private let tables: AddressRange
    private let counts: UnsafeMutablePointer<Counts>
    let blocks: UnsafeMutablePointer<Block>
    let links: UnsafeMutablePointer<Link>
    /// Links into other pages, by number; one may be named twice.
    private let crossLinks: UnsafeMutablePointer<Int32>
    /// Open addressing: block number + 1, 0 for none.
    private let slots: UnsafeMutablePointer<Int32>
    private let pages: UnsafeMutablePointer<Page>
    private let pageCount: Int
    /// The Interpreter's records of instructions that are left to it.
    private let records: UnsafeMutableRawPointer
    /// Executable address − writable address.
    let delta: Int

    static let capacity = 48 << 20
    /// Room for the largest block.
    static let reserve = 64 << 10
    static let blockCapacity = 1 << 18
    static let linkCapacity = 1 << 20
    static let slotCount = 1 << 20
    static let recordCapacity = 1 << 18

    init(memory: GuestMemory) throws(HostError) {
        self.memory = memory
        buffer = try ExecutableMemory(byteCount: Self.capacity)
        delta = unsafe buffer.executable - UnsafeRawPointer(buffer.writable)
        pageCount = Int(memory.addressEnd >> 12)
        var size = 0
        func place<T>(_ type: T.Type, _ count: Int) -> Int {
            defer { size += (count * MemoryLayout<T>.stride + 4095) & ~4095 }
            return size
        }
        let offsets = (
            place(Block.self, Self.blockCapacity), place(Link.self, Self.linkCapacity),
            place(Int32.self, Self.linkCapacity * 2), place(Int32.self, Self.slotCount), place(Page.self, pageCount),
            place(UInt8.self, Self.recordCapacity * InterpreterVCPU.recordBytes)
        )
        tables = try AddressRange(allocating: size)
        unsafe blocks = unsafe (tables.base + offsets.0).bindMemory(to: Block.self, capacity: Self.blockCapacity)
        unsafe links = unsafe (tables.base + offsets.1).bindMemory(to: Link.self, capacity: Self.linkCapacity)
        unsafe crossLinks = unsafe (tables.base + offsets.2).bindMemory(to: Int32.self, capacity: Self.linkCapacity * 2)
        unsafe slots = unsafe (tables.base + offsets.3).bindMemory(to: Int32.self, capacity: Self.slotCount)
        unsafe pages = unsafe (tables.base + offsets.4).bindMemory(to: Page.self, capacity: pageCount)
        unsafe records = unsafe tables.base + offsets.5
        unsafe counts = .allocate(capacity: 1)
        unsafe counts.initialize(to: Counts())
    }

    deinit { unsafe counts.deallocate() }

    var isFull: Bool {
        unsafe counts.pointee.used > Self.capacity - Self.reserve || counts.pointee.blocks > Self.blockCapacity - 2
            || counts.pointee.records > Self.recordCapacity - 64 || counts.pointee.links > Self.linkCapacity - 256
            || counts.pointee.crossLinks > 2 * Self.linkCapacity - 256
    }

    /// Bytes of generated code.
    var usedBytes: Int { unsafe counts.pointee.used }

    func emitter() -> Emitter { unsafe Emitter(buffer.writable + counts.pointee.used, delta: delta) }

    /// Takes what the emitter wrote.
    func advance(to emitter: borrowing Emitter) {
        unsafe counts.pointee.used = (Int(offset(emitter.at)) + 15) & ~15
    }

    /// What has been written until now stays for ever.
    func keepPrologue() { unsafe counts.pointee.start = unsafe counts.pointee.used }

    func writable(_ address: UInt) -> BufferPlace {
        unsafe place(Int32(truncatingIfNeeded: address &- UInt(bitPattern: buffer.executable)))
    }

    func offset(_ place: BufferPlace) -> Int32 {
        unsafe Int32(truncatingIfNeeded: UnsafeRawPointer(place.pointer) - UnsafeRawPointer(buffer.writable))
    }

    private func place(_ offset: Int32) -> BufferPlace {
        unsafe BufferPlace(pointer: buffer.writable.assumingMemoryBound(to: UInt8.self) + Int(offset))
    }

    // MARK: Blocks

    /// The number that the next block will have.
    var nextBlock: Int32 { unsafe Int32(truncatingIfNeeded: counts.pointee.blocks) }

    func find(_ key: BlockKey) -> Int32? {
        var index = key.slot
        while unsafe slots[index] != 0 {
            let number = unsafe slots[index] &- 1
            let block = unsafe blocks + Int(number)
            if unsafe block.pointee.key == key && block.pointee.alive { return number }
            index = (index &+ 1) & (Self.slotCount - 1)
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
        let number = nextBlock
        unsafe counts.pointee.blocks &+= 1
        var block = block
        let page = unsafe pages + Int(truncatingIfNeeded: block.key.physical >> 12)
        // Fresh memory is zero, and 0 is a block: an untouched page has no granules.
        block.nextInPage = unsafe page.pointee.granules == 0 ? -1 : page.pointee.first
        unsafe page.pointee.first = number
        unsafe page.pointee.granules |= Self.granules(Int(block.start), Int(block.end))
        unsafe blocks[Int(number)] = block
        var index = block.key.slot
        while unsafe slots[index] != 0 { index = (index &+ 1) & (Self.slotCount - 1) }
        unsafe slots[index] = number &+ 1
        return number
    }

    /// The block's last bytes are in a second page, the first `count` of that.
    func addSecondPage(of number: Int32, count: Int) {
        let block = unsafe blocks[Int(number)]
        let key = BlockKey(physical: block.secondPage, page: .max << 12, mode: [])
        var stand = Block(
            key: key, start: 0, end: UInt16(count))
        stand.partner = number
        _ = add(stand)
    }

    private static func granules(_ start: Int, _ end: Int) -> UInt64 {
        let first = UInt64(start >> 6), last = UInt64(max(start, end - 1) >> 6)
        return (UInt64.max &<< first) & (UInt64.max &>> (63 - last))
    }

    /// Room for one more record of the Interpreter's.
    func addRecord() -> UnsafeMutableRawPointer {
        let number = unsafe counts.pointee.records
        unsafe counts.pointee.records = number &+ 1
        return unsafe records + number * InterpreterVCPU.recordBytes
    }

    // MARK: Links

    func add(_ link: Link) -> Int32 {
        let number = unsafe counts.pointee.links
        unsafe links[number] = link
        unsafe counts.pointee.links = number &+ 1
        return Int32(truncatingIfNeeded: number)
    }

    /// The jump goes straight to the block from now on.
    func connect(_ number: Int32, to block: Int32) {
        let link = unsafe links + Int(number)
        if unsafe link.pointee.kind.contains(.linked) { return }
        let target = unsafe blocks + Int(block)
        let address = unsafe link.pointee.kind.contains(.viaSlot) ? target.pointee.linked : target.pointee.direct
        unsafe Emitter.patch(place(link.pointee.place), to: writable(address))
        unsafe link.pointee.kind.insert(.linked)
        unsafe link.pointee.block = block
        unsafe link.pointee.nextLink = unsafe target.pointee.firstLink
        unsafe target.pointee.firstLink = number
        if unsafe link.pointee.kind.contains(.cross) {
            unsafe crossLinks[counts.pointee.crossLinks] = number
            unsafe counts.pointee.crossLinks &+= 1
        }
    }

    private func disconnect(_ number: Int32) {
        let link = unsafe links + Int(number)
        guard unsafe link.pointee.kind.contains(.linked) else { return }
        unsafe Emitter.patch(place(link.pointee.place), to: place(link.pointee.unlinked))
        unsafe link.pointee.kind.remove(.linked)
        unsafe link.pointee.block = -1
    }

    /// Addresses of kernel code may lead elsewhere now.
    func disconnectCrossLinks() {
        if unsafe counts.pointee.crossLinks == 0 { return }
        for index in unsafe 0..<counts.pointee.crossLinks { unsafe disconnect(crossLinks[index]) }
        unsafe counts.pointee.crossLinks = 0
        // The blocks' lists anew, without them.
        for number in unsafe 0..<counts.pointee.blocks { unsafe blocks[number].firstLink = -1 }
        for number in unsafe 0..<counts.pointee.links where unsafe links[number].kind.contains(.linked) {
            let block = unsafe blocks + Int(links[number].block)
            unsafe links[number].nextLink = unsafe block.pointee.firstLink
            unsafe block.pointee.firstLink = Int32(truncatingIfNeeded: number)
        }
    }

    // MARK: Invalidation

    /// Kills what depends on `count` bytes from a physical address, within one page; true if anything did.
    func written(_ physical: UInt64, _ count: Int) -> Bool {
        guard physical >> 12 < UInt64(pageCount) else { return false }
        let page = unsafe pages + Int(physical >> 12)
        let start = Int(physical & 0xfff), end = start + count
        if unsafe page.pointee.granules & Self.granules(start, end) == 0 { return false }
        var kept: Int32 = -1
        var granules: UInt64 = 0
        var next = unsafe page.pointee.first
        var killed = false
        while next >= 0 {
            let number = next
            let block = unsafe blocks + Int(number)
            next = unsafe block.pointee.nextInPage
            if unsafe Int(block.pointee.start) < end && start < Int(block.pointee.end) {
                kill(number)
                killed = true
            } else {
                unsafe block.pointee.nextInPage = kept
                kept = number
                unsafe granules |= Self.granules(Int(block.pointee.start), Int(block.pointee.end))
            }
        }
        unsafe page.pointee = Page(first: kept, granules: granules)
        if kept < 0 { memory.clearCode(page: physical >> 12, by: .translator) }
        return killed
    }

    /// Whether `written` would kill anything.
    func holds(_ physical: UInt64, _ count: Int) -> Bool {
        guard physical >> 12 < UInt64(pageCount) else { return false }
        let start = Int(physical & 0xfff), end = start + count
        var next = unsafe pages[Int(physical >> 12)].first
        while next >= 0 {
            let block = unsafe blocks + Int(next)
            if unsafe Int(block.pointee.start) < end && start < Int(block.pointee.end) { return true }
            next = unsafe block.pointee.nextInPage
        }
        return false
    }

    func kill(_ number: Int32) {
        let block = unsafe blocks[Int(number)]
        guard block.alive else { return }
        if block.partner >= 0 && block.entry == 0 {
            // It stands for one that begins in the page before.
            unsafe blocks[Int(number)].alive = false
            kill(block.partner)
            return
        }
        unsafe blocks[Int(number)].alive = false
        unsafe blocks[Int(number)].firstLink = -1
        var link = block.firstLink
        while link >= 0 {
            let next = unsafe links[Int(link)].nextLink
            disconnect(link)
            link = next
        }
        overwrite(block.direct, with: block.staleDirect)
        if block.linked != block.direct { overwrite(block.linked, with: block.staleLinked) }
        if block.entry != block.linked { overwrite(block.entry, with: block.staleEntry) }
    }

    private func overwrite(_ address: UInt, with target: UInt) {
        var e = unsafe Emitter(writable(address).pointer, delta: delta)
        e.jump(to: writable(target))
    }

    /// Forgets all code. None may be running.
    func removeAll() {
        for number in unsafe 0..<counts.pointee.blocks {
            let page = unsafe blocks[number].key.physical >> 12
            unsafe pages[Int(page)] = Page()
            memory.clearCode(page: page, by: .translator)
        }
        unsafe slots.update(repeating: 0, count: Self.slotCount)
        let start = unsafe counts.pointee.start
        unsafe counts.pointee = Counts()
        unsafe counts.pointee.start = start
        unsafe counts.pointee.used = start
    }
}
//:
