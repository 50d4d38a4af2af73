//H:120 The bus
//
// Ports and MMIO are the same thing at different widths: a number, and who
// answers to it. Nobody answers to most numbers; on a PC such a read finds
// the lines pulled up and gives all ones, and a write goes nowhere. Kernels
// probe for hardware by exactly that, so it is not an error.
//
// The vCPU's thread calls the device directly. Whatever a device does must
// therefore be quick, and anything that can block belongs on a thread of the
// device's own.

/// What sits on a bus. Called on a vCPU's thread.
package protocol BusDevice: AnyObject {
    /// - Parameters:
    ///   - offset: from the start of the range that the device was registered for.
    ///   - bytes: 1, 2, 4 or 8, all inside the range. The offset can be odd.
    func read(offset: UInt64, bytes: Int) -> UInt64
    func write(offset: UInt64, bytes: Int, value: UInt64)
}

/// A device of byte-wide registers, as most of the old ones are. A wider access
/// is that many single ones, from the lowest address up, as the ISA bus did it.
package protocol ByteDevice: BusDevice {
    func read(register: Int) -> UInt8
    func write(register: Int, _ value: UInt8)
}

extension ByteDevice {
    package func read(offset: UInt64, bytes: Int) -> UInt64 {
        var value: UInt64 = 0
        for index in 0..<bytes {
            let byte = read(register: Int(truncatingIfNeeded: offset) &+ index)
            value |= UInt64(byte) << UInt64(index &* 8)
        }
        return value
    }

    package func write(offset: UInt64, bytes: Int, value: UInt64) {
        for index in 0..<bytes {
            write(
                register: Int(truncatingIfNeeded: offset) &+ index,
                UInt8(truncatingIfNeeded: value >> UInt64(index &* 8)))
        }
    }
}

/// Who answers where. Filled before the Guest runs, only read afterwards.
package final class Bus: @unchecked Sendable {
    private struct Entry {
        let start: UInt64
        let last: UInt64
        let device: any BusDevice
    }

    /// In order of addresses, none overlapping.
    private var entries: [Entry] = []

    package init() {}

    /// Gives `device` the addresses `start ..< start + count`. Not while a Guest runs.
    package func register(_ device: any BusDevice, at start: UInt64, count: UInt64) {
        precondition(count > 0 && start <= UInt64.max - count)
        let entry = Entry(start: start, last: start + count - 1, device: device)
        let place = entries.firstIndex { $0.start > start } ?? entries.count
        precondition(place == entries.count || entry.last < entries[place].start, "two devices at \(start)")
        precondition(place == 0 || entries[place - 1].last < start, "two devices at \(start)")
        entries.insert(entry, at: place)
    }

    private func find(_ address: UInt64) -> Entry? {
        var low = 0
        var high = entries.count
        while low < high {
            let middle = (low + high) / 2
            if entries[middle].last < address { low = middle + 1 } else { high = middle }
        }
        guard low < entries.count, entries[low].start <= address else { return nil }
        return entries[low]
    }

    /// - Parameter bytes: 1…8.
    package func read(_ address: UInt64, bytes: Int) -> UInt64 {
        let ones = UInt64.max >> UInt64(64 &- bytes &* 8)
        guard let entry = find(address) else {
            return bytes == 1 ? ones : readBytes(address, bytes: bytes)
        }
        // An access that runs over the device's end, or of a strange size, is taken apart.
        guard UInt64(bytes) &- 1 <= entry.last &- address, bytes.nonzeroBitCount == 1 else {
            return bytes == 1 ? ones : readBytes(address, bytes: bytes)
        }
        return entry.device.read(offset: address &- entry.start, bytes: bytes) & ones
    }

    private func readBytes(_ address: UInt64, bytes: Int) -> UInt64 {
        var value: UInt64 = 0
        for index in 0..<UInt64(bytes) { value |= read(address &+ index, bytes: 1) << (index &* 8) }
        return value
    }

    package func write(_ address: UInt64, bytes: Int, value: UInt64) {
        if let entry = find(address), UInt64(bytes) &- 1 <= entry.last &- address, bytes.nonzeroBitCount == 1 {
            let ones = UInt64.max >> UInt64(64 &- bytes &* 8)
            entry.device.write(offset: address &- entry.start, bytes: bytes, value: value & ones)
        } else if bytes > 1 {
            for index in 0..<UInt64(bytes) { write(address &+ index, bytes: 1, value: value >> (index &* 8) & 0xff) }
        }
    }
}
//:
