package import Virtio
internal import VirtioDevices

/// A request that a device must fulfil, whatever way its buffers are cut.
package struct GoodRequest: Sendable {
    /// What the device reads.
    package var readable: [UInt8]
    /// How many bytes it may write.
    package var writable: Int
    /// Judges how many it has written, and all of the writable bytes.
    package let isFulfilled: @Sendable (_ written: Int, _ bytes: [UInt8]) -> Bool

    package init(
        readable: [UInt8] = [], writable: Int = 0,
        isFulfilled: @escaping @Sendable (_ written: Int, _ bytes: [UInt8]) -> Bool
    ) {
        self.readable = readable
        self.writable = writable
        self.isFulfilled = isFulfilled
    }
}

/// A device that must survive any driver.
package struct TestedDevice: Sendable, CustomStringConvertible {
    package let description: String
    /// The queue that the hostile cases are about: one that the device serves without being asked by the host.
    package let queue: Int
    /// Whether each chain comes back by itself: not those that wait for the host.
    package let answersAll: Bool
    package let make: @Sendable () throws -> any VirtioDevice
    /// What happens on the host's side when the driver notifies.
    package let nudge: @Sendable (any VirtioDevice) -> Void
    package let request: GoodRequest
    /// What only a driver of this device can do wrong.
    package let cases: [HostileCase]

    package init(
        _ name: String, queue: Int = 0, request: GoodRequest, cases: [HostileCase] = [], answersAll: Bool = true,
        make: @escaping @Sendable () throws -> any VirtioDevice,
        nudge: @escaping @Sendable (any VirtioDevice) -> Void = { _ in }
    ) {
        description = name
        self.queue = queue
        self.request = request
        self.cases = cases
        self.answersAll = answersAll
        self.make = make
        self.nudge = nudge
    }

    /// All of them. A new device is a line here.
    package static let all = [
        echo, rng, block, readOnlyBlock, qcow2Block, consoleOut, consoleIn, netOut, netIn, userNet,
    ]

    package static let echo = TestedDevice("echo", request: .echo) { EchoDevice() }
    package static let rng = TestedDevice("rng", request: .random) { Entropy() }
}

extension GoodRequest {
    package static let echo = GoodRequest(readable: Array("Is there anybody there?".utf8), writable: 40) {
        $0 == 23 && Array($1.prefix(23)) == Array("Is there anybody there?".utf8)
    }
    /// All alike is what 64 random bytes are not.
    package static let random = GoodRequest(writable: 64) { $0 == 64 && Set($1).count > 8 }
}

/// How a request's bytes are cut into buffers.
package enum Cut: CaseIterable, Sendable {
    case whole, bytes, indirect, indirectBytes
    /// One buffer of its own for the first byte and for the last.
    case ends

    fileprivate func pieces(_ count: Int) -> [Int] {
        switch self {
        case .whole, .indirect: count > 0 ? [count] : []
        case .bytes, .indirectBytes: [Int](repeating: 1, count: count)
        case .ends: count > 2 ? [1, count - 2, 1] : [Int](repeating: 1, count: count)
        }
    }

    fileprivate var isIndirect: Bool { self == .indirect || self == .indirectBytes }
}

extension GuestDriver {
    /// Lays a request's buffers out in RAM, readable ones first.
    package func buffers(_ request: GoodRequest, cut: Cut = .whole) throws -> [Buffer] {
        var buffers: [Buffer] = []
        var offset = 0
        for count in cut.pieces(request.readable.count) {
            let address = allocate(count, alignment: 1)
            try ram.write(Array(request.readable[offset..<offset + count]), at: address)
            buffers.append(Buffer(address, count, isWritable: false))
            offset += count
        }
        for count in cut.pieces(request.writable) {
            buffers.append(Buffer(allocate(count, alignment: 1), count, isWritable: true))
        }
        return buffers
    }

    /// Makes a request, and waits until it is fulfilled.
    ///
    /// - Throws: if it is not.
    package func perform(_ request: GoodRequest, on queue: DriverQueue, cut: Cut = .whole) throws {
        let buffers = try buffers(request, cut: cut)
        let table = cut.isIndirect ? allocate(16 * buffers.count) : nil
        try queue.add(buffers, table: table)
        notify(queue.index)
        let used = try waitUsed(queue)
        var bytes: [UInt8] = []
        for buffer in buffers where buffer.isWritable { bytes += try ram.read(buffer.address, count: buffer.count) }
        guard request.isFulfilled(Int(used.written), bytes) else {
            throw DriverError("a good request is not fulfilled (\(used.written) bytes written)")
        }
    }
}
