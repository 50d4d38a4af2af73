package import GuestMemory
internal import Lguest
internal import Synchronization

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

/// Words that a Guest and a thread of the Host's use at the same time.
extension GuestMemory {
    /// - Parameter address: aligned, and inside memory.
    private func shared<T>(_ address: UInt64, _ type: Atomic<T>.Type) throws -> UnsafePointer<Atomic<T>> {
        let address = GuestPhysicalAddress(address)
        guard let place = unsafe hostPointer(address, MemoryLayout<T>.size) else {
            throw GuestMemoryError(address: address, byteCount: MemoryLayout<T>.size)
        }
        return unsafe UnsafePointer(place.assumingMemoryBound(to: type))
    }

    /// ORDERING: a driver's write barrier before it moves an index.
    package func publish(_ index: UInt16, at address: UInt64) throws {
        try unsafe shared(address, Atomic<UInt16>.self).pointee.store(index, ordering: .sequentiallyConsistent)
    }
    package func published(_ address: UInt64) throws -> UInt16 {
        try unsafe shared(address, Atomic<UInt16>.self).pointee.load(ordering: .sequentiallyConsistent)
    }

    /// Hands a DMA buffer back to the Host, if it has filled it.
    package func free(list address: UInt64) throws {
        let used = try unsafe shared(address, Atomic<UInt32>.self)
        if unsafe used.pointee.load(ordering: .acquiring) != 0 { unsafe used.pointee.store(0, ordering: .releasing) }
    }
}
