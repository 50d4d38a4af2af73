internal import GuestMemory
internal import HostInterface
internal import Synchronization

//H:330 A buffer, read once
//
// A Guest's buffer for inter-guest DMA is a list of at most 16 places in its
// memory, and lies in that memory itself, where the Guest may change it under
// our hands. So we take a copy, check each place of the copy, and from then
// on look at nothing else. A Guest that rewrites its list while we copy has
// wasted its time.
//
//      used_len 32 | – 32 | address 64 × 16 | length 16 × 16

/// What a Guest must die of.
struct DMAFault: Error {
    let reason: String
}

/// The list of a `struct lguest_dma`, checked against the memory of the Guest that owns it.
struct DMABuffer {
    /// Sections that lie end to end are one: a buffer of many pages is copied in one go.
    private struct Run {
        var address = GuestPhysicalAddress(0)
        var byteCount = 0
    }

    private var runs = InlineArray<16, Run>(repeating: Run())
    /// Of runs.
    private(set) var count = 0

    /// - Throws: for an entry that is not inside one page of `memory`.
    init(at address: GuestPhysicalAddress, in memory: GuestMemory) throws(DMAFault) {
        guard let base = unsafe memory.hostPointer(address, LguestDMA.byteCount) else {
            throw DMAFault(reason: "bad DMA address \(address)")
        }
        for index in 0..<LguestDMA.maximumSections {
            // The one and only look at each.
            let length = unsafe (base + Int(LguestDMA.lengths) + 2 * index).loadUnaligned(as: UInt16.self)
            if length == 0 { break }
            let place = unsafe (base + Int(LguestDMA.addresses) + 8 * index).loadUnaligned(as: UInt64.self)
            let section = Run(address: GuestPhysicalAddress(place), byteCount: Int(length))
            guard section.byteCount <= LguestDMA.maximumSectionBytes,
                Int(place & 0xfff) + section.byteCount <= 4096, memory.contains(section.address, section.byteCount)
            else { throw DMAFault(reason: "bad DMA entry: \(length)@\(section.address)") }
            if count > 0, runs[count - 1].address + UInt64(runs[count - 1].byteCount) == section.address {
                runs[count - 1].byteCount += section.byteCount
            } else {
                runs[count] = section
                count += 1
            }
        }
    }

    /// Copies as much as both have room for, whatever their sections.
    ///
    /// The original counted how far it was in a section of the source, but
    /// always copied from the section's start: it went unnoticed as long as
    /// both sides cut their buffers alike.
    ///
    /// - Returns: how many bytes.
    static func copy(_ source: DMABuffer, from: GuestMemory, to target: DMABuffer, in memory: GuestMemory) -> Int {
        var total = 0
        let (from, view) = (from.view, memory.view)
        var (sourceIndex, targetIndex) = (0, 0)
        var (sourceOffset, targetOffset) = (0, 0)
        while sourceIndex < source.count, targetIndex < target.count {
            let (piece, place) = (source.runs[sourceIndex], target.runs[targetIndex])
            let count = min(piece.byteCount - sourceOffset, place.byteCount - targetOffset)
            // SAFETY: both were checked to be memory, and memory does not shrink. Guests may share it, and so may these.
            if let bytes = unsafe from.hostPointer(piece.address + UInt64(sourceOffset), count),
                let room = unsafe view.hostPointer(place.address + UInt64(targetOffset), count)
            {
                unsafe room.copyMemory(from: bytes, byteCount: count)
            }
            total += count
            sourceOffset += count
            targetOffset += count
            if sourceOffset == piece.byteCount { (sourceIndex, sourceOffset) = (sourceIndex + 1, 0) }
            if targetOffset == place.byteCount { (targetIndex, targetOffset) = (targetIndex + 1, 0) }
        }
        // Code may have been overwritten; its owner hears of it before it hears of the data.
        // ORDERING: as in `GuestMemory.noteWrite`, once for all.
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        for index in 0..<target.count {
            let run = target.runs[index]
            for page in run.address.page...(run.address + UInt64(run.byteCount - 1)).page where view.isCode(page: page)
            {
                memory.noteWrite(GuestPhysicalAddress(page << 12), 1)
            }
        }
        return total
    }
}
//:

/// The first word of a `struct lguest_dma`, through which a Guest and its Host, or two Guests, hand it over.
enum DMAUsedLength {
    /// Nil outside memory.
    static func load(at address: GuestPhysicalAddress, in memory: GuestMemory) -> UInt32? {
        // ORDERING: acquires what its owner wrote before it said that the buffer is free.
        unsafe word(address, memory).map { unsafe $0.pointee.load(ordering: .acquiring) }
    }

    static func store(_ value: UInt32, at address: GuestPhysicalAddress, in memory: GuestMemory) {
        // ORDERING: who sees it sees the data.
        unsafe word(address, memory)?.pointee.store(value, ordering: .releasing)
        memory.noteWrite(address, 4)
    }

    /// Only where the address is a multiple of 4 is it one access; where it is not, its owner gets what it asked for.
    private static func word(_ address: GuestPhysicalAddress, _ memory: GuestMemory) -> UnsafePointer<Atomic<UInt32>>? {
        guard let place = unsafe memory.hostPointer(address + LguestDMA.usedLength, LguestDMA.byteCount) else {
            return nil
        }
        return unsafe UnsafePointer(place.assumingMemoryBound(to: Atomic<UInt32>.self))
    }
}
