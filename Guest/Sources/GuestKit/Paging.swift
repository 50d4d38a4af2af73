internal import CGuest

//G:040 A map of one's own
//
// The Launcher's page table maps everything, and stays in the Launcher's hands
// only as long as we do not write over it: it lies in memory that is ours. So
// the first thing made of free pages is another. All of memory mapped to
// itself, 2 MiB with each entry; 512 MiB are 256 entries, and nothing is cleared
// or touched that nobody asked for. All of what happens between LGUEST_INIT and
// the first word of `hello` takes about a millisecond on the Translator, most of
// it spent on translating code that runs once.
//
//      PML4 ──> page directory pointers ──> page directory: 512 × 2 MiB
//                                               └─> page table: 512 × 4 KiB
//
// The last level is made only where a single page has to go: page 0, for the
// pointers that are nil in languages that have such, and the page under the
// stack.

/// The Guest's page table: addresses are mapped to themselves.
public enum Paging {
    private static let present: UInt64 = 1
    private static let writable: UInt64 = 2
    private static let large: UInt64 = 0x80
    private static let addressMask: UInt64 = 0x000f_ffff_ffff_f000
    private static let largeBytes: UInt64 = 2 << 20

    @safe nonisolated(unsafe) private static var root = Region(address: 0, count: 0)

    static func begin() {
        root = Pages.take()
        map(0..<LguestBus.end)
        unmap(page: 0)
        unmap(page: guest_address_of_stack_guard())
        guest_load_page_table(root.address)
    }

    /// Maps what is not yet mapped, in units of 2 MiB.
    public static func map(_ range: Range<UInt64>) {
        var address = range.lowerBound / largeBytes * largeBytes
        while address < range.upperBound {
            let (table, offset) = directory(address)
            if table.load(offset, as: UInt64.self) & present == 0 {
                table.store(address | large | writable | present, at: offset)
            }
            address += largeBytes
        }
    }

    /// Takes 4 KiB off the map: whoever touches them ends in a page fault.
    public static func unmap(page: UInt64) {
        let (table, offset) = directory(page)
        let entry: UInt64 = table.load(offset)
        guard entry & present != 0 else { return }
        let pages: Region
        if entry & large == 0 {
            pages = Region(address: entry & addressMask, count: Pages.size)
        } else {
            pages = Pages.take()
            let first = entry & addressMask & ~(largeBytes - 1)
            for index in 0..<512 {
                pages.store((first + UInt64(index) * 4096) | writable | present, at: index * 8)
            }
            table.store(pages.address | writable | present, at: offset)
        }
        pages.store(UInt64(0), at: Int(page >> 12 & 511) * 8)
        guest_forget_page(page)
    }

    /// The page directory that has the address, and the offset of its entry there.
    private static func directory(_ address: UInt64) -> (Region, Int) {
        let pointers = next(root, Int(address >> 39 & 511) * 8)
        return (next(pointers, Int(address >> 30 & 511) * 8), Int(address >> 21 & 511) * 8)
    }

    private static func next(_ table: Region, _ offset: Int) -> Region {
        let entry: UInt64 = table.load(offset)
        if entry & present != 0 { return Region(address: entry & addressMask, count: Pages.size) }
        let made = Pages.take()
        table.store(made.address | writable | present, at: offset)
        return made
    }
}
//:
