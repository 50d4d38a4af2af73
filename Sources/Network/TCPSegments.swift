/// A large frame as the segments that its sender wants made of it (TSO), for those
/// who have not agreed to do so themselves.
///
/// Each gets the large one's headers: lengths, the sequence number and IPv4's
/// identification are its own; FIN and PSH are the last one's, and CWR, which says
/// that congestion has been heard of, is the first one's (RFC 3168, 6.1.2).
@safe struct TCPSegments {
    private let frame: FrameBytes
    /// Where IP begins.
    private let network: Int
    private let transport: Int
    private let data: Int
    private let end: Int
    private let size: Int
    private let isIPv4: Bool

    let count: Int

    private enum Flag {
        static let fin: UInt8 = 0x01
        static let push: UInt8 = 0x08
        static let congestionWindowReduced: UInt8 = 0x80
    }

    /// - Parameter frame: without its header, which has been checked to ask for segments.
    /// - Returns: nil if it is not the TCP in IPv4 or IPv6 that the header says, without
    ///   fragments and, in IPv6, extensions.
    init?(_ frame: FrameBytes, _ header: FrameHeader) {
        // GUEST: lengths and offsets are checked against each other and the frame's end, here and only here.
        self.frame = frame
        network = frame.typeOffset + 2
        isIPv4 = header.segmentKind == .tcp4
        guard network + (isIPv4 ? 20 : 40) <= frame.count, frame.half(network - 2) == (isIPv4 ? 0x0800 : 0x86dd),
            frame.byte(network) >> 4 == (isIPv4 ? 4 : 6)
        else { return nil }
        if isIPv4 {
            let headerLength = Int(frame.byte(network) & 0xf) * 4
            guard headerLength >= 20, frame.half(network + 6) & 0x3fff == 0, frame.byte(network + 9) == 6 else {
                return nil
            }
            transport = network + headerLength
            end = network + Int(frame.half(network + 2))
        } else {
            guard frame.byte(network + 6) == 6 else { return nil }
            transport = network + 40
            end = transport + Int(frame.half(network + 4))
        }
        guard end <= frame.count, transport + 20 <= end, transport == Int(header.checksumStart),
            header.checksumOffset == 16
        else { return nil }
        let headerLength = Int(frame.byte(transport + 12) >> 4) * 4
        data = transport + headerLength
        guard headerLength >= 20, data <= end else { return nil }
        size = Int(header.segmentSize)
        count = max(1, (end - data + size - 1) / size)
    }

    /// Where TCP's data begins: the length of a segment's headers.
    var headersLength: Int { data }

    private func range(_ index: Int) -> Range<Int> {
        let start = data + index * size
        return start..<min(start + size, end)
    }

    /// A segment's length as a frame without virtio's header.
    func byteCount(_ index: Int) -> Int { data + range(index).count }

    /// Writes a segment, but for the checksum of its TCP, to which the returned header
    /// says how to complete it.
    func write(_ index: Int, to piece: FrameBytes) -> FrameHeader {
        let range = range(index)
        frame.copy(0..<data, to: 0, of: piece)
        frame.copy(range, to: data, of: piece)
        let length = data - network + range.count
        let addresses: Range<Int>
        if isIPv4 {
            piece.setHalf(network + 2, UInt16(truncatingIfNeeded: length))
            piece.setHalf(network + 4, frame.half(network + 4) &+ UInt16(truncatingIfNeeded: index))
            piece.setHalf(network + 10, 0)
            piece.setHalf(network + 10, (~piece.sum(network..<transport)).bigEndian)
            addresses = network + 12..<network + 20
        } else {
            piece.setHalf(network + 4, UInt16(truncatingIfNeeded: length - 40))
            addresses = network + 8..<network + 40
        }
        piece.setWord(transport + 4, frame.word(transport + 4) &+ UInt32(truncatingIfNeeded: index * size))
        var flags = frame.byte(transport + 13)
        if index > 0 { flags &= ~Flag.congestionWindowReduced }
        if index < count - 1 { flags &= ~(Flag.fin | Flag.push) }
        piece.setByte(transport + 13, flags)
        let start = InternetChecksum.pseudoHeader(ofTCP: data - transport + range.count)
        piece.setHalf(transport + 16, piece.sum(addresses, from: start).bigEndian)
        var header = FrameHeader()
        header.flags = .needsChecksum
        header.checksumStart = UInt16(truncatingIfNeeded: transport)
        header.checksumOffset = 16
        return header
    }
}
