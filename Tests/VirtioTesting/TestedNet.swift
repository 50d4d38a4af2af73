internal import HostInterface
internal import Network
internal import Virtio
internal import VirtioDevices

extension TestedDevice {
    package static let netOut = TestedDevice("net-out", queue: 1, request: .arp, cases: netCases) {
        Net(try EndlessNetwork())
    }
    /// The same with a network behind it.
    package static let userNet = TestedDevice("user-net", queue: 1, request: .arp, cases: netCases) {
        Net(try UserNetwork())
    }
    /// A driver's buffers may have to wait for others that make a frame's room.
    package static let netIn = TestedDevice("net-in", request: .frame, answersAll: false) { Net(try EndlessNetwork()) }

    // MARK: Rule 17

    private static func frame(_ name: String, _ bytes: [UInt8]) -> HostileCase {
        HostileCase(17, name, .used) { driver, device in
            let queue = driver.queues[device.queue]
            let request = GoodRequest(readable: bytes) { written, _ in written == 0 }
            try driver.perform(request, on: queue)
            try driver.perform(request, on: queue, cut: .ends)
        }
    }

    private static func header(
        flags: UInt8 = 0, kind: UInt8 = 0, headers: UInt16 = 0, segment: UInt16 = 0, start: UInt16 = 0,
        offset: UInt16 = 0
    ) -> [UInt8] {
        [flags, kind] + [headers, segment, start, offset, 0].flatMap { [UInt8($0 & 0xff), UInt8($0 >> 8)] }
    }

    private static let tcp: [UInt8] =
        [UInt8](repeating: 0xff, count: 12) + [
            8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2,
        ]
        + [UInt8](repeating: 0x50, count: 26)

    private static let netCases: [HostileCase] =
        [
            frame("a byte", [0]),
            frame("a header and nothing", header()),
            frame("a frame of 13 bytes", header() + [UInt8](repeating: 1, count: 13)),
            frame("a checksum that starts behind the frame", header(flags: 1, start: 60, offset: 0) + tcp),
            frame("a checksum behind the frame", header(flags: 1, start: 34, offset: 25) + tcp),
            frame("a checksum at the frame's last byte", header(flags: 1, start: 34, offset: 25) + tcp.dropLast()),
            frame("a checksum far behind the frame", header(flags: 1, start: .max, offset: .max) + tcp),
            frame(
                "segments of nothing", header(flags: 1, kind: 1, headers: 54, segment: 0, start: 34, offset: 16) + tcp),
            frame(
                "segments of one byte", header(flags: 1, kind: 1, headers: 54, segment: 1, start: 34, offset: 16) + tcp),
            frame(
                "headers longer than the frame",
                header(flags: 1, kind: 1, headers: .max, segment: 8, start: 34, offset: 16) + tcp),
            frame("segments without a checksum", header(kind: 1, headers: 54, segment: 8) + tcp),
        ]
        + (0...255 as ClosedRange<UInt8>).filter { ![0].contains($0) }.filter { $0 < 8 || $0 % 16 == 0 || $0 > 250 }.map
    {
        frame(
            "segments of kind \($0)", header(flags: 1, kind: $0, headers: 54, segment: 8, start: 34, offset: 16) + tcp)
    }
        + [
            HostileCase(17, "frames larger than any frame", .used) { driver, device in
                let queue = driver.queues[device.queue]
                for count in [
                    FrameHeader.largestFrame - 1, FrameHeader.largestFrame, FrameHeader.largestFrame + 1, 0x4_0000,
                ] {
                    let buffer = Buffer(driver.allocate(count), count, isWritable: false)
                    try queue.add([buffer])
                    driver.notify(device.queue)
                    _ = try driver.waitUsed(queue)
                }
            }
        ]
}

extension GoodRequest {
    /// "Who has 10.0.2.2?"
    fileprivate static let arp = GoodRequest(
        readable: [UInt8](repeating: 0, count: 12) + [UInt8](repeating: 0xff, count: 6) + [
            0x52, 0x54, 0, 0x12, 0x34, 0x56,
        ]
            + [
                8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 0x52, 0x54, 0, 0x12, 0x34, 0x56, 10, 0, 2, 15, 0, 0, 0, 0, 0, 0, 10, 0, 2,
                2,
            ]
    ) { written, _ in written == 0 }
    fileprivate static let frame = GoodRequest(writable: 128) { written, bytes in
        written == EndlessNetwork.frame.count && Array(bytes[12..<written]) == Array(EndlessNetwork.frame[12...])
    }
}

/// A cable whose other end takes all frames and always has another one.
private final class EndlessNetwork: NetworkBackend, @unchecked Sendable {
    static let frame = [UInt8](repeating: 0, count: 12) + (0..<60 as Range<UInt8>).map { $0 }

    /// Always readable.
    private let event: EventFD

    init() throws(HostError) {
        event = try EventFD()
        event.signal()
    }

    var offloads: NetworkOffloads { [.checksum, .guestChecksum, .tso4] }
    var mtu: Int { 1500 }
    var readable: Int32 { event.rawValue }
    var statistics: NetworkStatistics { NetworkStatistics() }

    func configure(_ accepted: NetworkOffloads, largestPacket: Int) throws(HostError) {}
    func start() throws(HostError) {}
    func stop() {}

    func send(_ frame: UnsafeMutableRawBufferPointer) -> Bool {
        precondition(frame.count <= FrameHeader.largestFrame + 1)
        return true
    }

    func receive(into buffer: UnsafeMutableRawBufferPointer) -> Int? {
        unsafe buffer.copyBytes(from: Self.frame)
        return Self.frame.count
    }
}
