package import GuestMemory

//D:020 Three tables in the Guest's memory
//
// A split virtqueue of N entries is three tables, wherever the driver puts
// them (virtio 1.2, 2.7):
//
//      descriptors   N × { address 64, length 32, flags 16, next 16 }     align 16
//      available     flags 16, idx 16, N × head 16, used_event 16         align 2
//      used          flags 16, idx 16, N × { id 32, length 32 }, avail_event 16   align 4
//
// The driver writes the first two and we the third. A descriptor is a buffer,
// and a chain of them is a request: first what we may read, then what we may
// write.

/// Where a driver has put a queue.
package struct QueueLayout: Equatable, Sendable {
    package var size: UInt16 = 0
    package var descriptors = GuestPhysicalAddress(0)
    package var available = GuestPhysicalAddress(0)
    package var used = GuestPhysicalAddress(0)
    package var isReady = false

    package init() {}

    package static let descriptorBytes = 16
    var descriptorTableBytes: Int { Self.descriptorBytes * Int(size) }
    var availableBytes: Int { 6 + 2 * Int(size) }
    var usedBytes: Int { 6 + 8 * Int(size) }

    /// Whether a device can use it.
    ///
    /// - Throws: the first rule that it breaks.
    package func check(in memory: GuestMemory, maximum: UInt16) throws(DriverBreach) {
        guard size > 0, size <= maximum, size.nonzeroBitCount == 1 else {
            throw DriverBreach("a queue of \(size) entries; it must be a power of two up to \(maximum)")
        }
        for (name, address, bytes, alignment) in [
            ("descriptor table", descriptors, descriptorTableBytes, 16 as UInt64),
            ("available ring", available, availableBytes, 2), ("used ring", used, usedBytes, 4),
        ] {
            guard address.rawValue % alignment == 0 else {
                throw DriverBreach("the \(name) at \(address) is not aligned to \(alignment) bytes")
            }
            guard memory.contains(address, bytes) else {
                throw DriverBreach("the \(name) at \(address) is not inside RAM")
            }
        }
    }
}
//:
