internal import GuestMemory
package import Virtio

/// A descriptor as a driver writes it.
package struct Descriptor: Sendable {
    package static let next: UInt16 = 1
    package static let write: UInt16 = 2
    package static let indirect: UInt16 = 4

    package var address: UInt64
    package var length: UInt32
    package var flags: UInt16
    package var next: UInt16

    package init(_ address: UInt64, _ length: UInt32, flags: UInt16 = 0, next: UInt16 = 0) {
        (self.address, self.length, self.flags, self.next) = (address, length, flags, next)
    }
}

/// A piece of RAM that a driver lends a device.
package struct Buffer: Sendable {
    package let address: UInt64
    package let count: Int
    package let isWritable: Bool

    package init(_ address: UInt64, _ count: Int, isWritable: Bool) {
        (self.address, self.count, self.isWritable) = (address, count, isWritable)
    }
}

/// What a driver cannot go on after.
package struct DriverError: Error, CustomStringConvertible {
    package let description: String
    package init(_ description: String) { self.description = description }
}

/// The driver's side of one split virtqueue. It can be used as it should be, by
/// `add`, or word by word.
package final class DriverQueue {
    package struct Used: Equatable, Sendable {
        package let head: UInt32
        package let written: UInt32

        package init(head: UInt32, written: UInt32) { (self.head, self.written) = (head, written) }
    }

    package let index: Int
    package let layout: QueueLayout
    package var size: UInt16 { layout.size }
    package let ram: WatchedMemory
    /// What the available index is, once published.
    package var nextAvailable: UInt16 = 0
    private var lastUsed: UInt16 = 0
    private var free: [UInt16]
    /// Chains with the device, by head: their descriptors, and how many bytes are writable.
    private var lent: [UInt16: (descriptors: [UInt16], writable: Int)] = [:]

    init(index: Int, layout: QueueLayout, ram: WatchedMemory) {
        self.index = index
        self.layout = layout
        self.ram = ram
        free = (0..<layout.size).reversed()
    }

    package var usedBytes: Int { 6 + 8 * Int(size) }
    package var availableFlags: UInt64 { layout.available.rawValue }
    package var availableIndex: UInt64 { layout.available.rawValue + 2 }
    package var usedEvent: UInt64 { layout.available.rawValue + 4 + 2 * UInt64(size) }
    package var usedFlags: UInt64 { layout.used.rawValue }
    package var usedIndex: UInt64 { layout.used.rawValue + 2 }
    package var availableEvent: UInt64 { layout.used.rawValue + 4 + 8 * UInt64(size) }

    /// Zeroes rings and table, as a driver does before it says where they are.
    package func clear() throws {
        for (address, count) in [
            (layout.descriptors, 16 * Int(size)), (layout.available, 6 + 2 * Int(size)), (layout.used, usedBytes),
        ] { try ram.write([UInt8](repeating: 0, count: count), at: address.rawValue) }
        ram.allow(layout.used.rawValue, usedBytes)
    }

    // MARK: Word by word

    package func set(_ index: UInt16, _ descriptor: Descriptor, inTable table: UInt64? = nil) throws {
        let place = (table ?? layout.descriptors.rawValue) + 16 * UInt64(index)
        try ram.store(descriptor.address, at: place)
        try ram.store(descriptor.length, at: place + 8)
        try ram.store(descriptor.flags, at: place + 12)
        try ram.store(descriptor.next, at: place + 14)
    }

    /// Puts a head into the available ring; the device sees it after `publish`.
    package func offer(_ head: UInt16) throws {
        try ram.store(head, at: layout.available.rawValue + 4 + 2 * UInt64(nextAvailable % size))
        nextAvailable &+= 1
    }

    package func publish() throws { try ram.storeShared(nextAvailable, at: availableIndex) }

    // MARK: As it should be

    package var chainsWithDevice: Int { lent.count }
    package var freeDescriptors: Int { free.count }

    /// Lends the device a chain of these buffers.
    ///
    /// - Parameter table: where to put an indirect table; nil: no such thing.
    /// - Returns: the chain's head.
    @discardableResult
    package func add(_ buffers: [Buffer], table: UInt64? = nil) throws -> UInt16 {
        let needed = table == nil ? buffers.count : 1
        guard needed > 0, free.count >= needed else { throw DriverError("queue \(index) is full") }
        let own = (0..<needed).map { _ in free.removeLast() }
        for (position, buffer) in buffers.enumerated() {
            let isLast = position == buffers.count - 1
            let flags = (buffer.isWritable ? Descriptor.write : 0) | (isLast ? 0 : Descriptor.next)
            let next = isLast ? 0 : table == nil ? own[position + 1] : UInt16(position + 1)
            let place = table == nil ? own[position] : UInt16(position)
            try set(
                place, Descriptor(buffer.address, UInt32(buffer.count), flags: flags, next: next), inTable: table)
            if buffer.isWritable { ram.allow(buffer.address, buffer.count) }
        }
        if let table {
            try set(own[0], Descriptor(table, UInt32(16 * buffers.count), flags: Descriptor.indirect))
        }
        lent[own[0]] = (own, buffers.reduce(0) { $0 + ($1.isWritable ? $1.count : 0) })
        try offer(own[0])
        try publish()
        return own[0]
    }

    /// The next chain that the device has given back; nil if there is none.
    ///
    /// - Throws: if it is none that the device had, or with more bytes written than it had room for.
    package func takeUsed() throws -> Used? {
        guard try ram.loadShared(at: usedIndex) != lastUsed else { return nil }
        let place = layout.used.rawValue + 4 + 8 * UInt64(lastUsed % size)
        let used = Used(
            head: try ram.load(at: place, as: UInt32.self), written: try ram.load(at: place + 4, as: UInt32.self))
        lastUsed &+= 1
        guard let head = UInt16(exactly: used.head), let chain = lent.removeValue(forKey: head) else {
            throw DriverError("queue \(index): the device gave back chain \(used.head), which it did not have")
        }
        guard used.written <= chain.writable else {
            throw DriverError("queue \(index): \(used.written) bytes written to a chain with \(chain.writable)")
        }
        free += chain.descriptors.reversed()
        return used
    }
}
