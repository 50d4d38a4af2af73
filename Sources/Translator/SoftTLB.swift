internal import GuestMemory
internal import Interpreter
internal import X86

//S:430 Eight address spaces at once
//
// A Guest's kernel switches between programs by writing CR3, and with PCIDs it
// says, by bit 63, that what the TLB knows of the new one is still true. QEMU's
// TCG of Debian 12 knows no PCIDs and forgets everything each time: 54 µs for
// a byte through a pipe and back. We have eight sets of what belongs to one
// address space, each in an image of its own (S:410), and a PCID has one until
// eight others have come by. The kernel's pages, as it sees them while SMAP
// closes those of programs, are in tables that all images share: they are
// global, but for a few, which are remembered one by one and taken out when
// the address space changes.
//
// What a set was filled with is written down, so that emptying it costs what
// filling it did, and not 64 KiB of stores: up to 256 slots, beyond which all
// are emptied. Where pages of code lie is remembered besides (`FetchCache`), so
// that a block that the jump tables do not know costs no walk.

/// The TLBs and jump tables of one vCPU, as the images hold them.
@safe final class SoftTLB {
    private struct Space {
        /// The PCID, and what CR3 was with it.
        var pcid = UInt64.max
        var cr3: UInt64 = 0
        var lastUse: UInt64 = 0
        /// Pages whose code the jump table knows, as a set of hashes.
        let codePages = PageFilter(words: 16)
        let largePages = PageFilter(words: 16)
        /// What has been entered since they were emptied.
        let dataSlots = SlotList()
        let userSlots = SlotList()
        let openSlots = SlotList()
    }

    private let images: ContextImages
    private var spaces = (0..<Layout.spaceCount).map { _ in Space() }
    private var uses: UInt64 = 0
    private(set) var current = 0
    private let kernelCode = PageFilter(words: 1024)
    private let kernelLarge = PageFilter(words: 1024)
    /// Supervisor pages that are not global and were entered among those that
    /// are: the first few by address, for a kernel that patches itself maps a
    /// page, writes and unmaps it, ten thousand times during its boot.
    private var localPages = InlineArray<16, UInt64>(repeating: 0)
    /// One more than there is room for: some are not remembered.
    private var localPageCount = 0
    /// There is code of such a page in the kernel's jump table.
    private var kernelCodeHasLocal = false
    private let kernelSlots = SlotList()
    private let fetches = FetchCache()
    private let ram: RAMView

    /// For --verbose.
    private(set) var fills: UInt64 = 0
    private(set) var flushes: UInt64 = 0

    init(images: ContextImages, ram: RAMView) {
        self.images = images
        self.ram = ram
        for number in 0..<Layout.spaceCount {
            for slots in [spaces[number].dataSlots, spaces[number].userSlots, spaces[number].openSlots] {
                slots.giveUp()
            }
            emptySpace(number)
        }
        kernelSlots.giveUp()
        emptyKernel()
    }

    /// RSP for translated code.
    var image: UnsafeMutableRawPointer { unsafe images.base(current) }

    // MARK: Tables

    private func table(_ offset: Int32, of space: Int) -> SoftTLBTable {
        unsafe SoftTLBTable(tags: (images.base(space) + Int(offset)).assumingMemoryBound(to: UInt64.self))
    }

    private func jumps(_ offset: Int32, of space: Int) -> UnsafeMutablePointer<UInt64> {
        unsafe (images.base(space) + Int(offset)).assumingMemoryBound(to: UInt64.self)
    }

    private func empty(_ table: JumpTable, _ slot: Int, of space: Int) {
        unsafe jumps(table.tags, of: space)[slot] = JumpTable.emptyTag(slot)
        unsafe jumps(table.secondTags, of: space)[slot] = JumpTable.emptyTag(slot)
    }

    private func empty(_ table: JumpTable, of space: Int) {
        for slot in 0..<table.count { empty(table, slot, of: space) }
    }

    private func emptySpace(_ number: Int) {
        emptySpaceData(number)
        emptySpaceJumps(number)
    }

    private func emptySpaceData(_ number: Int) {
        let slots = spaces[number].dataSlots
        for offset in [Layout.userRead, Layout.userWrite, Layout.openRead, Layout.openWrite] {
            let table = table(offset, of: number)
            if slots.isComplete { slots.forEach { table.empty($0) } } else { table.empty() }
        }
        slots.removeAll()
        spaces[number].largePages.removeAll()
    }

    private func emptySpaceJumps(_ number: Int) {
        for (table, slots) in [
            (Layout.userJumps, spaces[number].userSlots), (Layout.openJumps, spaces[number].openSlots),
        ] {
            if slots.isComplete { slots.forEach { empty(table, $0, of: number) } } else { empty(table, of: number) }
            slots.removeAll()
        }
        spaces[number].codePages.removeAll()
        // What is not walked for again would not be noted again.
        fetches.removeAll()
    }

    private func emptyKernel() {
        emptyKernelData()
        emptyKernelJumps()
    }

    private func emptyKernelData() {
        table(Layout.kernelRead, of: 0).empty()
        table(Layout.kernelWrite, of: 0).empty()
        kernelLarge.removeAll()
        localPageCount = 0
    }

    private func emptyKernelTable() {
        if kernelSlots.isComplete {
            kernelSlots.forEach { empty(Layout.kernelJumps, $0, of: 0) }
        } else {
            empty(Layout.kernelJumps, of: 0)
        }
        kernelSlots.removeAll()
    }

    /// For a flush, after which links between pages are undone too: only then
    /// may it be forgotten which pages they lead to.
    private func emptyKernelJumps() {
        emptyKernelTable()
        kernelCode.removeAll()
        kernelCodeHasLocal = false
        fetches.removeAll()
    }

    // MARK: Data

    static let allTables = [
        Layout.kernelRead, Layout.kernelWrite, Layout.userRead, Layout.userWrite, Layout.openRead, Layout.openWrite,
    ]

    /// Offsets of the tables that this mode reads and writes through.
    static func tables(_ mode: TranslationMode) -> (read: Int32, write: Int32) {
        if mode.contains(.user) { return (Layout.userRead, Layout.userWrite) }
        if mode.contains(.open) { return (Layout.openRead, Layout.openWrite) }
        return (Layout.kernelRead, Layout.kernelWrite)
    }

    /// Enters what a walk has found; false if accesses to the page must not go unseen.
    func fill(_ address: UInt64, _ translation: Translation, mode: TranslationMode, write: Bool) -> Bool {
        let frame = translation.physical & ~0xfff
        guard let page = unsafe ram.hostPointer(GuestPhysicalAddress(frame), 4096) else { return false }
        let mayWrite = translation.writable && !ram.isCode(page: frame >> 12)
        if write && !mayWrite { return false }
        fills &+= 1
        let tag = address & ~0xfff
        let addend = UInt64(UInt(bitPattern: page)) &- tag
        let index = Int(truncatingIfNeeded: address >> 12) & (Layout.tlbEntries - 1)
        let tables = Self.tables(mode)
        let reads = table(tables.read, of: current), writes = table(tables.write, of: current)
        reads.enter(index, tag: tag, addend: addend)
        // A read must not cost another page its write entry: an instruction that
        // copies between two pages of one slot would chase its own tail.
        if mayWrite {
            if write || writes.holds(index, tag: tag) || writes.isEmpty(index) {
                writes.enter(index, tag: tag, addend: addend)
            }
        } else if writes.holds(index, tag: tag) {
            writes.empty(index)
        }
        let isKernel = tables.read == Layout.kernelRead
        if !isKernel { spaces[current].dataSlots.add(index) }
        if isKernel && !translation.global { noteLocal(tag) }
        if translation.span > 4096 {
            if isKernel {
                kernelLarge.insertLarge(address, translation.span)
            } else {
                spaces[current].largePages.insertLarge(address, translation.span)
            }
        }
        return true
    }

    private func noteLocal(_ page: UInt64) {
        for index in 0..<min(localPageCount, localPages.count) where localPages[index] == page { return }
        if localPageCount < localPages.count { localPages[localPageCount] = page }
        localPageCount = min(localPageCount + 1, localPages.count + 1)
    }

    /// The page has become code: no table may vouch for writes to it.
    func forgetWrites(to frame: UInt64) {
        guard let page = unsafe ram.hostPointer(GuestPhysicalAddress(frame & ~0xfff), 4096) else { return }
        let host = UInt64(UInt(bitPattern: page))
        func scan(_ table: SoftTLBTable) {
            for index in 0..<Layout.tlbEntries where table.holds(index, host: host) { table.empty(index) }
        }
        scan(table(Layout.kernelWrite, of: 0))
        for number in 0..<Layout.spaceCount where number == current || spaces[number].pcid != .max {
            scan(table(Layout.userWrite, of: number))
            scan(table(Layout.openWrite, of: number))
        }
    }

    // MARK: Code

    static let allJumpTables = [Layout.kernelJumps, Layout.userJumps, Layout.openJumps]

    /// Where code of this mode is looked for.
    static func jumpTable(_ mode: TranslationMode) -> JumpTable {
        mode.contains(.user) ? Layout.userJumps : mode.contains(.open) ? Layout.openJumps : Layout.kernelJumps
    }

    /// What `enterJump` was told, while it is in the first way.
    func findJump(_ rip: UInt64, mode: TranslationMode) -> UInt? {
        let table = Self.jumpTable(mode)
        let slot = table.slot(rip)
        guard unsafe jumps(table.tags, of: current)[slot] == rip else { return nil }
        return unsafe UInt(jumps(table.codes, of: current)[slot])
    }

    /// What a walk found before; counts as a use of the page for code.
    func findFetch(_ rip: UInt64, isUser: Bool) -> UInt64? { fetches.find(rip, isUser: isUser) }

    func enterFetch(_ rip: UInt64, _ translation: Translation, isUser: Bool) {
        fetches.enter(rip, translation, isUser: isUser)
        if isUser {
            if translation.span > 4096 { spaces[current].codePages.insertLarge(rip, translation.span) }
        } else {
            if translation.span > 4096 { kernelCode.insertLarge(rip, translation.span) }
            if !translation.global { kernelCodeHasLocal = true }
        }
    }

    /// Lets jumps to `rip` find `code` without us.
    func enterJump(_ rip: UInt64, _ code: UInt, mode: TranslationMode, straddles: Bool) {
        let table = Self.jumpTable(mode)
        let slot = table.slot(rip)
        let tags = unsafe jumps(table.tags, of: current), codes = unsafe jumps(table.codes, of: current)
        if unsafe tags[slot] != rip {
            unsafe jumps(table.secondTags, of: current)[slot] = tags[slot]
            unsafe jumps(table.secondCodes, of: current)[slot] = codes[slot]
        }
        unsafe tags[slot] = rip
        unsafe codes[slot] = UInt64(code)
        if table == Layout.userJumps { spaces[current].userSlots.add(slot) }
        if table == Layout.openJumps { spaces[current].openSlots.add(slot) }
        if table == Layout.kernelJumps {
            kernelSlots.add(slot)
            kernelCode.insert(rip >> 12)
            if straddles { kernelCode.insert(rip >> 12 &+ 1) }
        } else {
            spaces[current].codePages.insert(rip >> 12)
            if straddles { spaces[current].codePages.insert(rip >> 12 &+ 1) }
        }
    }

    /// All code is gone, or none of it is of the right kind.
    func forgetJumps() {
        emptyKernelTable()
        for number in 0..<Layout.spaceCount { emptySpaceJumps(number) }
    }

    /// No jump of this mode finds its target without us.
    func forgetJumps(of mode: TranslationMode) {
        if Self.jumpTable(mode) == Layout.kernelJumps {
            emptyKernelTable()
        } else if !spaces[current].codePages.isEmpty {
            emptySpaceJumps(current)
        }
    }

    // MARK: Flushing

    /// Returns whether kernel code may now lie elsewhere.
    func flush(_ scope: FlushScope, cr3: UInt64, cr4: UInt64) -> Bool {
        flushes &+= 1
        switch scope {
        case .everything, .page: fetches.removeAll()
        default: fetches.removeLocal()
        }
        switch scope {
        case .everything:
            for number in 0..<Layout.spaceCount where spaces[number].pcid != .max || number == current {
                emptySpace(number)
                spaces[number].pcid = .max
            }
            emptyKernel()
            spaces[current].pcid = cr4 & CR4.pcid != 0 ? cr3 & 0xfff : 0
            spaces[current].cr3 = cr3
            return true
        case .allContexts:
            for number in 0..<Layout.spaceCount where spaces[number].pcid != .max || number == current {
                emptySpace(number)
            }
            return forgetLocalKernelPages()
        case .context(let pcid):
            for number in 0..<Layout.spaceCount where spaces[number].pcid == pcid { emptySpace(number) }
            return forgetLocalKernelPages()
        case .page(let address): return flushPage(address, in: current)
        case .pageOf(let pcid, let address):
            guard let number = spaces.firstIndex(where: { $0.pcid == pcid }) else { return false }
            return flushPage(address, in: number)
        case .addressSpace(let keeps): return switchSpace(cr3: cr3, hasPCID: cr4 & CR4.pcid != 0, keeps: keeps)
        }
    }

    private func switchSpace(cr3: UInt64, hasPCID: Bool, keeps: Bool) -> Bool {
        uses &+= 1
        let pcid = hasPCID ? cr3 & 0xfff : 0
        if let known = spaces.firstIndex(where: { $0.pcid == pcid }) {
            // Another table under the old PCID: whether to keep is ours to choose, and no is always right.
            if !keeps || spaces[known].cr3 != cr3 { emptySpace(known) }
            current = known
        } else {
            let oldest = spaces.indices.min { spaces[$0].lastUse < spaces[$1].lastUse } ?? 0
            emptySpace(oldest)
            current = oldest
        }
        spaces[current].pcid = pcid
        spaces[current].cr3 = cr3
        spaces[current].lastUse = uses
        return forgetLocalKernelPages()
    }

    private func forgetLocalKernelPages() -> Bool {
        if localPageCount > localPages.count {
            emptyKernelData()
        } else {
            for index in 0..<localPageCount { emptyKernelPage(localPages[index]) }
            localPageCount = 0
        }
        guard kernelCodeHasLocal else { return false }
        emptyKernelJumps()
        return true
    }

    private func emptyKernelPage(_ address: UInt64) {
        let index = Int(truncatingIfNeeded: address >> 12) & (Layout.tlbEntries - 1)
        for offset in [Layout.kernelRead, Layout.kernelWrite] { table(offset, of: 0).empty(index) }
    }

    private func flushPage(_ address: UInt64, in number: Int) -> Bool {
        let index = Int(truncatingIfNeeded: address >> 12) & (Layout.tlbEntries - 1)
        for offset in [Layout.userRead, Layout.userWrite, Layout.openRead, Layout.openWrite] {
            table(offset, of: number).empty(index)
        }
        emptyKernelPage(address)
        if spaces[number].largePages.containsLarge(address) { emptySpaceData(number) }
        let codePages = spaces[number].codePages
        if codePages.contains(address >> 12) || codePages.containsLarge(address) { emptySpaceJumps(number) }
        if kernelLarge.containsLarge(address) { emptyKernelData() }
        guard kernelCode.contains(address >> 12) || kernelCode.containsLarge(address) else { return false }
        emptyKernelJumps()
        return true
    }
}
//:

//S:435 A second way
//
// A slot of the TLB is for one page, so that the check is short. Two pages
// that share one, a program's stack and its heap as chance will have it, would
// push each other out at every access, and to fill a slot takes 150 ns. So
// what is pushed out is kept beside, and the way to Swift begins with a look
// there (see `Runtime`): found, the two change places, in 5 ns. The tables
// that jumps ask (S:500) are made alike.
//:

/// Slots that were written since a table was empty: up to a number beyond which
/// it is as well to go through the table.
@safe final class SlotList {
    private static let capacity = 256
    private let slots: UnsafeMutablePointer<UInt16>
    private var count = 0

    init() { unsafe slots = .allocate(capacity: Self.capacity) }
    deinit { unsafe slots.deallocate() }

    /// Whether `forEach` knows them all.
    var isComplete: Bool { count <= Self.capacity }

    func add(_ slot: Int) {
        if count < Self.capacity { unsafe slots[count] = UInt16(truncatingIfNeeded: slot) }
        if count <= Self.capacity { count &+= 1 }
    }

    /// Nothing is known of the table.
    func giveUp() { count = Self.capacity + 1 }
    func removeAll() { count = 0 }

    func forEach(_ body: (Int) -> Void) {
        for index in 0..<min(count, Self.capacity) { unsafe body(Int(slots[index])) }
    }
}

/// Where pages of code lie, so that not every new block asks the page tables.
///
/// Direct-mapped; an entry is good while its generation is, which for pages
/// that are not global ends with every change of address space.
@safe final class FetchCache {
    private struct Entry: BitwiseCopyable {
        /// The page's linear address; bit 0: a program's.
        var tag = UInt64.max
        var physical: UInt64 = 0
        var generation: UInt64 = 0
        var isGlobal = false
    }

    private static let count = 256
    private let entries: UnsafeMutablePointer<Entry>
    private var generation: UInt64 = 1
    private var localGeneration: UInt64 = 1

    init() {
        unsafe entries = .allocate(capacity: Self.count)
        unsafe entries.initialize(repeating: Entry(), count: Self.count)
    }
    deinit { unsafe entries.deallocate() }

    private func entry(_ tag: UInt64) -> UnsafeMutablePointer<Entry> {
        unsafe entries + Int(truncatingIfNeeded: tag >> 12) & (Self.count - 1)
    }

    func find(_ rip: UInt64, isUser: Bool) -> UInt64? {
        let tag = rip & ~0xfff | (isUser ? 1 : 0)
        let entry = unsafe entry(tag)
        guard unsafe entry.pointee.tag == tag,
            unsafe entry.pointee.generation == (entry.pointee.isGlobal ? generation : localGeneration)
        else { return nil }
        return unsafe entry.pointee.physical | rip & 0xfff
    }

    func enter(_ rip: UInt64, _ translation: Translation, isUser: Bool) {
        let tag = rip & ~0xfff | (isUser ? 1 : 0)
        unsafe entry(tag).pointee = Entry(
            tag: tag, physical: translation.physical & ~0xfff,
            generation: translation.global ? generation : localGeneration, isGlobal: translation.global)
    }

    func removeLocal() { localGeneration &+= 1 }

    func removeAll() {
        generation &+= 1
        localGeneration &+= 1
    }
}

/// A set of page numbers that may say yes too often, but never no.
@safe final class PageFilter {
    private let words: Int
    private let bits: UnsafeMutablePointer<UInt64>
    private(set) var isEmpty = true

    /// - Parameter words: a power of two; 64 bits each.
    init(words: Int) {
        self.words = words
        unsafe bits = .allocate(capacity: words)
        unsafe bits.initialize(repeating: 0, count: words)
    }
    deinit { unsafe bits.deallocate() }

    private func place(_ page: UInt64) -> (Int, UInt64) {
        let hash = (page &* 0x9e37_79b9_7f4a_7c15) >> 32
        return (Int(hash >> 6) & (words - 1), 1 &<< (hash & 63))
    }

    func insert(_ page: UInt64) {
        let (word, bit) = place(page)
        unsafe bits[word] |= bit
        isEmpty = false
    }

    func contains(_ page: UInt64) -> Bool {
        let (word, bit) = place(page)
        return unsafe bits[word] & bit != 0
    }

    func removeAll() {
        if isEmpty { return }
        unsafe bits.update(repeating: 0, count: words)
        isEmpty = true
    }

    // Large pages by the GiB they are part of, or by their 2 (or 4) MiB.

    func insertLarge(_ address: UInt64, _ span: UInt64) {
        insert(span >= 1 << 30 ? address >> 30 | 1 << 60 : address >> 21 | 1 << 61)
        if span == 1 << 22 { insert(address >> 21 ^ 1 | 1 << 61) }
    }

    func containsLarge(_ address: UInt64) -> Bool {
        contains(address >> 21 | 1 << 61) || contains(address >> 30 | 1 << 60)
    }
}
