package import GuestMemory

/// A Guest's own view of its memory, for whoever looks at it from outside of an
/// engine: no rights are asked about, no bit is set.
package enum LinearMemory {
    /// Four-level paging (SDM 3A, 4.5.4). Nil if nothing is there.
    package static func translate(_ address: UInt64, cr3: UInt64, in memory: GuestMemory) -> GuestPhysicalAddress? {
        var table = cr3 & PhysicalAddress.frame
        for level in stride(from: 3, through: 0, by: -1) {
            let shift = UInt64(12 + 9 * level)
            let place = GuestPhysicalAddress(table + (address >> shift & 511) * 8)
            guard let entry = try? memory.load(at: place, as: UInt64.self), entry & PageEntry.present != 0 else {
                return nil
            }
            if level == 0 || level < 3 && entry & PageEntry.large != 0 {
                let inside = (1 as UInt64) << shift - 1
                return GuestPhysicalAddress(entry & PhysicalAddress.frame & ~inside | address & inside)
            }
            table = entry & PhysicalAddress.frame
        }
        return nil
    }
}
