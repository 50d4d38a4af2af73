package import GuestMemory

/// One descriptor, read by what docs/lguest-abi.md says and nothing else.
package struct DeviceDescription {
    package struct Queue: Equatable {
        package let entries: UInt16
        package let irq: Int
        package let ring: UInt64

        package var available: UInt64 { ring + 16 * UInt64(entries) }
        /// At the next multiple of 4096.
        package var used: UInt64 { (available + 6 + 2 * UInt64(entries) + 4095) & ~4095 }
    }

    package let address: UInt64
    package let type: UInt8
    package let queues: [Queue]
    package let features: UInt64
    package let featureBytes: UInt64
    package let configurationBytes: UInt64

    /// Nil at the end of the page.
    package init?(at address: UInt64, _ memory: GuestMemory) throws {
        let header = try memory.bytes(address, 5)
        if header[0] == 0 { return nil }
        self.address = address
        type = header[0]
        featureBytes = UInt64(header[2])
        configurationBytes = UInt64(header[3])
        queues = try (0..<Int(header[1])).map { index in
            let bytes = try memory.bytes(address + 5 + UInt64(index) * 8, 8).map { UInt64($0) }
            return Queue(
                entries: UInt16(bytes[0] | bytes[1] << 8), irq: Int(bytes[2] | bytes[3] << 8),
                ring: (bytes[4] | bytes[5] << 8 | bytes[6] << 16 | bytes[7] << 24) * 4096)
        }
        features = try memory.load(at: GuestPhysicalAddress(address + 5 + UInt64(queues.count) * 8), as: UInt64.self)
    }

    package var status: UInt64 { address + 4 }
    package var offered: UInt64 { address + 5 + UInt64(queues.count) * 8 }
    package var accepted: UInt64 { offered + featureBytes }
    package var configuration: UInt64 { accepted + featureBytes }
    package var end: UInt64 { configuration + configurationBytes }
}
