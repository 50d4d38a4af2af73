internal import VirtualCPU

//S:120 Two compares for every access
//
// Every load and store of the Guest goes through a software TLB. An entry
// says: the page at this virtual address may be read (written, run), and its
// bytes are so far from that address in the Host's memory. There is a set of
// entries for each kind of privilege, so that a hit needs no further question:
// what a user program may not touch is not in the user's set.
//
// A tag is the page's address with the generation in its low twelve bits. To
// flush is to count the generation up by one: no entry matches any more.

/// One page in the software TLB.
struct TLBEntry: BitwiseCopyable {
    var readTag: UInt64 = 0
    var writeTag: UInt64 = 0
    var executeTag: UInt64 = 0
    /// Host address − guest virtual address.
    var addend: UInt64 = 0

    static let setSize = 1024
    /// User; supervisor with SMAP in force; supervisor; and one that is never
    /// filled, for when every access must be looked at (#AC, watchpoints).
    static let setCount = 4
    static let user = 0, supervisor = 1, supervisorOpen = 2, never = 3
}

extension CPU {
    @inline(__always) func tlbEntry(_ address: UInt64) -> UnsafeMutablePointer<TLBEntry> {
        unsafe core.tlb + Int(truncatingIfNeeded: (address >> 12) & UInt64(TLBEntry.setSize - 1))
    }

    @inline(__always) func tlbTag(_ address: UInt64) -> UInt64 { unsafe (address & ~0xfff) | core.tlbGeneration }

    /// Loads from a linear address at the present privilege.
    @inline(__always) func load<T: GuestInteger>(_ address: UInt64, _ type: T.Type) throws(Stop) -> T {
        let entry = unsafe tlbEntry(address)
        if unsafe entry.pointee.readTag == tlbTag(address),
            T.bitWidth == 8 || address & 0xfff <= UInt64(4096 - MemoryLayout<T>.size)
        {
            // SAFETY: a valid tag vouches for the whole page at address + addend.
            let pointer = unsafe UnsafeRawPointer(bitPattern: UInt(address &+ entry.pointee.addend)).unsafelyUnwrapped
            return unsafe pointer.loadUnaligned(as: T.self)
        }
        return T(truncatingIfNeeded: try slowLoad(address, MemoryLayout<T>.size))
    }

    @inline(__always) func store<T: GuestInteger>(_ address: UInt64, _ value: T) throws(Stop) {
        let entry = unsafe tlbEntry(address)
        if unsafe entry.pointee.writeTag == tlbTag(address),
            T.bitWidth == 8 || address & 0xfff <= UInt64(4096 - MemoryLayout<T>.size)
        {
            let pointer = unsafe UnsafeMutableRawPointer(bitPattern: UInt(address &+ entry.pointee.addend))
                .unsafelyUnwrapped
            unsafe pointer.storeBytes(of: value, as: T.self)
            return
        }
        try slowStore(address, UInt64(truncatingIfNeeded: value), MemoryLayout<T>.size)
    }

    /// Where `count` bytes lie in the Host, if they are in one page that the
    /// TLB can vouch for; fills the TLB. Nil for all that needs care.
    @inline(__always) func hostOperand(_ address: UInt64, _ count: Int, write: Bool) throws(Stop)
        -> UnsafeMutableRawPointer?
    {
        guard address & 0xfff <= UInt64(truncatingIfNeeded: 4096 &- count) else { return nil }
        let entry = unsafe tlbEntry(address)
        let tag = unsafe write ? entry.pointee.writeTag : entry.pointee.readTag
        if tag == tlbTag(address) {
            return unsafe UnsafeMutableRawPointer(bitPattern: UInt(address &+ entry.pointee.addend))
        }
        return unsafe try slowHostOperand(address, count, write: write)
    }

    /// Writes an address that was just loaded from: checked for writing before
    /// anything is changed, as a read-modify-write must be.
    @inline(__always) func modify<T: GuestInteger>(
        _ address: UInt64, _ type: T.Type, _ change: (T) -> T
    ) throws(Stop) {
        if let pointer = unsafe try hostOperand(address, MemoryLayout<T>.size, write: true) {
            let old = unsafe pointer.loadUnaligned(as: T.self)
            unsafe pointer.storeBytes(of: change(old), as: T.self)
            return
        }
        try checkModifiable(address, MemoryLayout<T>.size)
        let old = T(truncatingIfNeeded: try slowLoad(address, MemoryLayout<T>.size))
        let flags = unsafe core.flags
        let new = change(old)
        do throws(Stop) {
            try slowStore(address, UInt64(truncatingIfNeeded: new), MemoryLayout<T>.size)
        } catch {
            // The Host must be asked first: nothing has happened yet, flags included.
            unsafe core.flags = flags
            throw error
        }
    }

    /// Forgets every translation, and every virtual address of code. An
    /// accelerator may know better what it can keep.
    func flushTLB(_ scope: FlushScope = .everything) {
        flushOwnTLB()
        owner.accelerator?.flushTranslations(scope)
    }

    /// The same without the accelerator's.
    func flushOwnTLB() {
        unsafe core.largeMappings.clear()
        unsafe core.tlbGeneration &+= 1
        if unsafe core.tlbGeneration > 0xfff {
            unsafe core.tlbSets.update(repeating: TLBEntry(), count: TLBEntry.setSize * TLBEntry.setCount)
            unsafe core.tlbGeneration = 1
        }
        forgetJumps()
    }

    /// INVLPG: forgets one page, whatever its size.
    func flushTLB(page address: UInt64) {
        owner.accelerator?.flushTranslations(.page(address))
        if unsafe core.largeMappings.contains(address) {
            flushOwnTLB()
            return
        }
        let index = Int(truncatingIfNeeded: (address >> 12) & UInt64(TLBEntry.setSize - 1))
        for set in 0..<TLBEntry.setCount { unsafe core.tlbSets[set * TLBEntry.setSize + index] = TLBEntry() }
        forgetJumps()
    }

    /// The jump cache is by virtual address: make all of it stale.
    func forgetJumps() {
        unsafe core.codeGeneration &+= 1
        unsafe core.modeKey = unsafe core.codeGeneration &<< 8 | core.modeKey & 0xff
    }
}
//:

/// The span of virtual addresses that large pages were used for since the
/// last flush: an INVLPG in it must forget more than one 4 KiB entry.
struct AddressSpan {
    private var low = UInt64.max
    private var high: UInt64 = 0
    mutating func insert(_ address: UInt64) {
        low = min(low, address)
        high = max(high, address)
    }
    func contains(_ address: UInt64) -> Bool { address >= low && address <= high }
    mutating func clear() { self = AddressSpan() }
}
