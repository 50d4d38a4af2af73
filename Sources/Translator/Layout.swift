internal import GuestMemory
internal import HostInterface
internal import Interpreter
internal import VirtualCPU
internal import X86

//S:410 One pointer for everything
//
// Translated code has the Guest's registers in the Host's, and needs to reach
// the rest (what does not fit, the software TLB, the word through which other
// threads call) without giving up many of them. It gives up one: RSP, which
// is the context's address. Everything is `[rsp + constant]`, a call goes just
// below it, and a signal that the Host gets finds a stack where it expects
// one: at no time is a number that the Guest chose in the Host's RSP. (The
// Guest's own is in R15. R13 and R14 are for our work; the Guest's R13 to R15
// stay in the state.)
//
//      rsp - 64 KiB   room for calls and signal frames
//      rsp            the Interpreter's core, the vCPU's state first in it
//          + 0x3000   slots: see `Slot`
//          + 0x4000   the request word's page
//          + 0x5000   TLB of supervisor pages, then the kernel's jump table
//          + 0x55000  TLBs and jump tables of one address space
//
// The last part is there once for each of eight address spaces. All else is
// shared between eight images of the whole, which are mappings of one memfd:
// to switch to another PCID is to load another RSP, and what the TLB knew of
// the last one is still there when it comes back.

/// Byte offsets from RSP while translated code runs.
enum Layout {
    static let stackBytes = 0x10000
    static let slots: Int32 = 0x3000
    static let requestWord: Int32 = 0x4000
    static let kernelRead: Int32 = 0x5000
    static let kernelWrite: Int32 = 0xd000
    static let kernelJumps = JumpTable(tags: 0x15000, count: 8192)
    static let space: Int32 = 0x55000
    static let userRead: Int32 = space
    static let userWrite: Int32 = space + 0x8000
    static let openRead: Int32 = space + 0x10000
    static let openWrite: Int32 = space + 0x18000
    static let userJumps = JumpTable(tags: space + 0x20000, count: 4096)
    static let openJumps = JumpTable(tags: space + 0x40000, count: 512)
    static let end: Int32 = space + Int32(spaceBytes)
    static let spaceBytes = 0x44000
    static let spaceCount = 8

    static let tlbEntries = 1024
    /// From a table's tags to its addends, and to its second way.
    static let addends: Int32 = 0x2000
    static let secondWay: Int32 = 0x4000
}

/// Eight bytes each, at `Layout.slots`.
enum Slot {
    /// RSP of the function that entered translated code.
    static let hostStack = Layout.slots
    /// Arithmetic flags as LAHF and SETO AL leave them in EAX.
    static let flags = Layout.slots + 8
    static let temporary = Layout.slots + 16
    /// A value that waits while the second operand's page is looked up.
    static let operand = Layout.slots + 24
    /// What a stub was told, see `SiteInfo`.
    static let info = Layout.slots + 32
    static let address = Layout.slots + 40
    static let returnAddress = Layout.slots + 48
    /// RSP to go on with: the image of the present address space.
    static let image = Layout.slots + 56
    /// The `Translator`.
    static let owner = Layout.slots + 64
    /// What the Interpreter's TLB pointer is with SMAP in force, and with AC set.
    static let closedSet = Slot.owner + 8
    static let openSet = Slot.owner + 16
    static let userSet = Slot.owner + 24
    /// Not 0: SYSCALL and SYSRET may be done in place, with these for CS and SS.
    static let systemCalls = Slot.owner + 32
    /// What the groups of a block have in common (S:475).
    static let addends = Layout.slots + 128
    static let kernelSegments = Layout.slots + 256
    static let userSegments = Layout.slots + 256 + 64
}

/// A TLB as generated code reads it: two arrays; and behind them two more of the
/// same kind, where what was pushed out of the first waits to be called back (S:435).
@safe struct SoftTLBTable {
    /// The pages' linear addresses.
    let tags: UnsafeMutablePointer<UInt64>
    /// Host address − linear address.
    var addends: UnsafeMutablePointer<UInt64> { unsafe tags + Int(Layout.addends) / 8 }

    /// No address is found: whatever is looked up in slot `index` has that
    /// number in bits 12…21, canonical or not, and this tag has not.
    static func emptyTag(_ index: Int) -> UInt64 { UInt64(index ^ 1) &<< 12 }

    private var secondTags: UnsafeMutablePointer<UInt64> { unsafe tags + Int(Layout.secondWay) / 8 }
    private var secondAddends: UnsafeMutablePointer<UInt64> { unsafe secondTags + Int(Layout.addends) / 8 }

    func empty(_ index: Int) {
        unsafe tags[index] = Self.emptyTag(index)
        unsafe secondTags[index] = Self.emptyTag(index)
    }

    func isEmpty(_ index: Int) -> Bool { unsafe tags[index] == Self.emptyTag(index) }

    func holds(_ index: Int, tag: UInt64) -> Bool { unsafe tags[index] == tag || secondTags[index] == tag }

    func holds(_ index: Int, host: UInt64) -> Bool {
        unsafe tags[index] &+ addends[index] == host || secondTags[index] &+ secondAddends[index] == host
    }

    func empty() {
        for index in 0..<Layout.tlbEntries { empty(index) }
    }

    func enter(_ index: Int, tag: UInt64, addend: UInt64) {
        if unsafe tags[index] != tag {
            unsafe secondTags[index] = tags[index]
            unsafe secondAddends[index] = addends[index]
        }
        unsafe tags[index] = tag
        unsafe addends[index] = addend
    }
}

/// Where the code of a RIP is: two arrays, of RIPs and of addresses of code, and
/// behind them two for what was pushed out of those (S:435). Offsets from RSP.
struct JumpTable: Equatable {
    let tags: Int32
    let count: Int
    var codes: Int32 { tags + Int32(count * 8) }
    var secondTags: Int32 { tags + Int32(count * 16) }
    var secondCodes: Int32 { tags + Int32(count * 24) }

    /// Functions of different pages that begin at the same place of theirs must
    /// not share a slot. `Emitter.jumpSlot` does the same.
    func slot(_ rip: UInt64) -> Int {
        Int(truncatingIfNeeded: rip ^ (rip & 0xffff_ffff) >> 12) & (count - 1)
    }

    /// A RIP that is looked for in another slot.
    static func emptyTag(_ slot: Int) -> UInt64 { slot == 0 ? 1 : 0 }
}

/// The memory behind the layout: eight images of one context.
@safe final class ContextImages {
    private let range: AddressRange
    private let file: MemoryFile
    static let stride = (Layout.stackBytes + Int(Layout.end) + 0xffff) & ~0xffff

    /// - Parameter requests: the file with the request word at its start.
    init(requests: Int32) throws(HostError) {
        let shared = Layout.stackBytes + Int(Layout.space)
        let file = try MemoryFile(
            name: "roost-vcpu", byteCount: shared + Layout.spaceCount * Layout.spaceBytes)
        let range = try AddressRange(reserving: Self.stride * Layout.spaceCount)
        for number in 0..<Layout.spaceCount {
            let start = number * Self.stride
            try range.map(file, fileOffset: 0, at: start, count: shared)
            try range.map(
                file, fileOffset: shared + number * Layout.spaceBytes, at: start + shared, count: Layout.spaceBytes)
            try range.map(
                descriptor: requests, fileOffset: 0, at: start + Layout.stackBytes + Int(Layout.requestWord),
                count: 4096)
        }
        self.file = file
        self.range = range
    }

    /// What RSP is in this address space.
    func base(_ number: Int) -> UnsafeMutableRawPointer {
        unsafe range.base + number * Self.stride + Layout.stackBytes
    }
}
//:
