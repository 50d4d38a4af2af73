package import GuestMemory
internal import Lguest

/// A `struct lguest_dma` as its Guest writes and reads it.
extension GuestMemory {
    /// Puts a free buffer there, of these sections.
    package func putList(_ sections: [(address: UInt64, byteCount: Int)], at place: UInt64, usedLength: UInt32 = 0)
        throws
    {
        for index in 0..<LguestDMA.maximumSections {
            let (address, byteCount) = index < sections.count ? sections[index] : (0, 0)
            try store(address, at: GuestPhysicalAddress(place + LguestDMA.addresses + UInt64(index) * 8))
            try store(
                UInt16(truncatingIfNeeded: byteCount),
                at: GuestPhysicalAddress(place + LguestDMA.lengths + UInt64(index) * 2))
        }
        try store(usedLength, at: GuestPhysicalAddress(place + LguestDMA.usedLength))
    }

    package func usedLength(_ place: UInt64) throws -> UInt32 {
        try load(at: GuestPhysicalAddress(place + LguestDMA.usedLength), as: UInt32.self)
    }

    package func bytes(_ address: UInt64, _ count: Int) throws -> [UInt8] {
        try read(GuestPhysicalAddress(address), count: count)
    }
    package func put(_ bytes: [UInt8], _ address: UInt64) throws { try write(bytes, at: GuestPhysicalAddress(address)) }
}
