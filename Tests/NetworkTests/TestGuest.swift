import Glibc
import HostInterface
import Network
import Testing

/// What a virtio-net device and the Guest behind it are to a back end.
@safe final class TestGuest {
    let network: any NetworkBackend
    private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: FrameHeader.largestFrame, alignment: 8)
    let takesSegments: Bool
    /// The header of the frame that came last.
    private(set) var lastHeader: [UInt8] = []

    init(
        _ network: any NetworkBackend, offloads: NetworkOffloads? = nil, largestPacket: Int = FrameHeader.largestPacket
    ) throws {
        self.network = network
        takesSegments = (offloads ?? network.offloads).contains(.guestTSO4)
        try network.configure(offloads ?? network.offloads, largestPacket: largestPacket)
        try network.start()
    }

    convenience init(forwards: [PortForward] = []) throws { try self.init(UserNetwork(forwards: forwards)) }

    deinit {
        network.stop()
        unsafe buffer.deallocate()
    }

    @discardableResult
    func send(_ frame: [UInt8], _ header: FrameHeader = FrameHeader()) -> Bool {
        var bytes = [UInt8](repeating: 0, count: FrameHeader.byteCount) + frame
        return unsafe bytes.withUnsafeMutableBytes { bytes in
            unsafe header.write(to: bytes)
            return unsafe network.send(bytes)
        }
    }

    /// As a driver does that leaves the checksum to the device.
    @discardableResult
    func sendPartial(_ frame: [UInt8], segmentSize: UInt16 = 0) -> Bool {
        var header = FrameHeader()
        header.flags = .needsChecksum
        header.checksumStart = 34
        header.checksumOffset = 16
        if segmentSize > 0 {
            header.segmentKind = .tcp4
            header.segmentSize = segmentSize
            header.headersLength = 54
        }
        return send(frame, header)
    }

    /// The next frame, if it comes within the time.
    func receive(milliseconds: Int32 = 5000) -> [UInt8]? {
        while true {
            if let count = unsafe network.receive(into: buffer) {
                lastHeader = unsafe Array(buffer[..<FrameHeader.byteCount])
                return unsafe Array(buffer[FrameHeader.byteCount..<count])
            }
            guard waitReadable([network.readable], milliseconds: milliseconds)[0] else { return nil }
        }
    }

    /// The next frame that is like that; others are lost.
    func receive(where matches: ([UInt8]) -> Bool) -> [UInt8]? {
        while let frame = receive() {
            if matches(frame) { return frame }
        }
        return nil
    }
}

/// A TCP connection of a Guest's, of the simplest kind: nothing is lost, nothing is out of order.
final class TestConnection {
    let guest: TestGuest
    let port: Int
    let source: Int
    private(set) var sequence: UInt32 = 1000
    private(set) var acknowledge: UInt32 = 0
    private(set) var received: [UInt8] = []
    private(set) var largestSegment = 0
    private(set) var wasReset = false
    /// What the host has acknowledged.
    private var acknowledged: UInt32 = 0

    /// - Returns: nil if it was refused.
    init?(_ guest: TestGuest, to port: Int, source: Int = 40_000, segment: Int = 65_480) {
        self.guest = guest
        self.port = port
        self.source = source
        guest.send(
            Packets.tcp(
                source, port, sequence: sequence, acknowledge: 0, .syn, options: [2, 4] + Packets.half(segment)))
        sequence &+= 1
        guard let answer = next(), answer.flags.contains([.syn, .ack]) else { return nil }
        acknowledge = answer.sequence &+ 1
        acknowledged = answer.acknowledge
        guest.send(Packets.tcp(source, port, sequence: sequence, acknowledge: acknowledge, .ack))
    }

    private struct Segment {
        let flags: Packets.TCPFlags
        let sequence: UInt32
        let acknowledge: UInt32
        let payload: [UInt8]
    }

    private func next() -> Segment? {
        let frame = guest.receive { frame in
            Packets.half(frame, 12) == 0x0800 && frame[23] == 6 && Packets.half(frame, 34) == port
                && Packets.half(frame, 36) == source
        }
        guard let frame else { return nil }
        let end = 14 + Packets.half(frame, 16)
        let tcp = Array(frame[34..<end])
        let from = IPv4Address(rawValue: Packets.word(frame, 26))
        let pseudo = Packets.pseudo(6, tcp.count, from, Packets.guest)
        if guest.lastHeader[0] & 1 != 0 {
            // Segments put together: each piece's checksum is to be computed upon this.
            #expect(Array(tcp[16..<18]) == Packets.half(Packets.sum(pseudo)))
            #expect(guest.lastHeader == [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 1, 0])
        } else {
            #expect(Packets.checksum(pseudo + tcp) == [0, 0])
            #expect(tcp.count <= 1480 || !guest.takesSegments)
        }
        return Segment(
            flags: Packets.TCPFlags(rawValue: tcp[13]), sequence: Packets.word(tcp, 4),
            acknowledge: Packets.word(tcp, 8), payload: Array(tcp[(Int(tcp[12] >> 4) * 4)...]))
    }

    /// Takes one segment in, and acknowledges its data.
    ///
    /// - Returns: false if none came.
    @discardableResult
    func step() -> Bool {
        guard let segment = next() else { return false }
        if segment.flags.contains(.reset) {
            wasReset = true
            return true
        }
        acknowledged = segment.acknowledge
        if segment.sequence == acknowledge, !segment.payload.isEmpty {
            received += segment.payload
            largestSegment = max(largestSegment, segment.payload.count)
            acknowledge &+= UInt32(segment.payload.count)
            guest.send(Packets.tcp(source, port, sequence: sequence, acknowledge: acknowledge, .ack))
        }
        return true
    }

    /// Sends, and waits until the host has taken all of it.
    func send(_ bytes: [UInt8], segment: Int = 30_000) {
        var rest = bytes[...]
        while !rest.isEmpty && !wasReset {
            let piece = Array(rest.prefix(segment))
            push(piece)
            rest = rest.dropFirst(piece.count)
            while acknowledged != sequence && !wasReset { guard step() else { return } }
        }
    }

    /// Sends without waiting.
    func push(_ bytes: [UInt8]) {
        let frame = Packets.tcp(
            source, port, sequence: sequence, acknowledge: acknowledge, [.ack, .push], bytes, partial: true)
        guest.sendPartial(frame, segmentSize: bytes.count > 1460 ? 1460 : 0)
        sequence &+= UInt32(bytes.count)
    }
}

/// A socket of the host's on its loopback interface. Any thread may use it, one may close it.
final class HostSocket: @unchecked Sendable {
    /// Linux's SOCK_STREAM and SOCK_DGRAM.
    enum Kind: Int32 { case stream = 1, datagram }

    let descriptor: Int32

    init(descriptor: Int32) {
        self.descriptor = descriptor
        // Longer than any test should take, and shorter than for ever.
        var time = timeval(tv_sec: 10, tv_usec: 0)
        _ = unsafe setsockopt(
            descriptor, SOL_SOCKET, SO_RCVTIMEO, &time, socklen_t(MemoryLayout<timeval>.size))
    }

    convenience init(_ kind: Kind) { self.init(descriptor: socket(AF_INET, kind.rawValue, 0)) }

    /// Bound to a port that nobody else has, and listening if it is TCP's.
    static func bound(_ kind: Kind) -> HostSocket {
        let made = HostSocket(kind)
        _ = unsafe made.withAddress(port: 0) { unsafe bind(made.descriptor, $0, $1) }
        if kind == .stream { _ = listen(made.descriptor, 100) }
        return made
    }

    private var isClosed = false

    deinit { if !isClosed { close(descriptor) } }

    private func withAddress(port: Int, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32) -> Int32 {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        return unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
    }

    var port: Int {
        var address = sockaddr_in()
        var count = socklen_t(MemoryLayout<sockaddr_in>.size)
        _ = unsafe withUnsafeMutablePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe getsockname(descriptor, $0, &count)
            }
        }
        return Int(UInt16(bigEndian: address.sin_port))
    }

    func connect(_ port: Int) -> Bool {
        unsafe withAddress(port: port) { unsafe Glibc.connect(descriptor, $0, $1) } == 0
    }

    func accept() -> HostSocket { HostSocket(descriptor: Glibc.accept(descriptor, nil, nil)) }

    func send(_ bytes: [UInt8]) -> Int { unsafe Glibc.send(descriptor, bytes, bytes.count, 0x4000 /* MSG_NOSIGNAL */) }

    /// As much as the kernel takes now.
    func sendAtOnce(_ bytes: [UInt8]) -> Int {
        unsafe Glibc.send(descriptor, bytes, bytes.count, 0x4040 /* … and MSG_DONTWAIT */)
    }

    func receive(_ limit: Int = 1 << 20) -> [UInt8] {
        unsafe [UInt8](unsafeUninitializedCapacity: limit) { buffer, count in
            count = unsafe max(0, recv(descriptor, buffer.baseAddress, limit, 0))
        }
    }

    func receive(exactly count: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        while bytes.count < count {
            let more = receive(count - bytes.count)
            if more.isEmpty { break }
            bytes += more
        }
        return bytes
    }

    /// Sends back what came, as echo servers do.
    func echo() -> [UInt8] {
        let (request, sender) = receiveDatagram()
        answer(request, to: sender)
        return request
    }

    /// Sends a datagram, many times, to the one who sends the next one.
    func answer(_ bytes: [UInt8], times: Int, pause: () -> Void) {
        let (_, sender) = receiveDatagram()
        for _ in 0..<times {
            answer(bytes, to: sender)
            pause()
        }
    }

    private func receiveDatagram() -> (bytes: [UInt8], sender: sockaddr_in) {
        var sender = sockaddr_in()
        var count = socklen_t(MemoryLayout<sockaddr_in>.size)
        var bytes = [UInt8](repeating: 0, count: 70_000)
        let length = unsafe withUnsafeMutablePointer(to: &sender) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe recvfrom(descriptor, &bytes, bytes.count, 0, $0, &count)
            }
        }
        return (Array(bytes.prefix(max(0, length))), sender)
    }

    private func answer(_ bytes: [UInt8], to sender: sockaddr_in) {
        _ = unsafe withUnsafePointer(to: sender) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe sendto(descriptor, bytes, bytes.count, 0, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
    }

    /// Closes with a reset.
    func abort() {
        var linger = linger(l_onoff: 1, l_linger: 0)
        _ = unsafe setsockopt(
            descriptor, SOL_SOCKET, SO_LINGER, &linger, socklen_t(MemoryLayout<linger>.size))
        close(descriptor)
        isClosed = true
    }
}
