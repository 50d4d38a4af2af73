import Network
import Testing

/// Frames with work left undone, for those who take them and those who do not.
struct SwitchOffloadTests {
    private let lan = Switch()
    private let options: [UInt8] = [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]

    /// TCP in either IP, behind a virtual LAN's tag if one is wanted, with the sum of the
    /// pseudo header in its checksum's place, and the header that describes it.
    private func segment(
        _ data: [UInt8], isIPv4: Bool, tag: [UInt8] = [], flags: UInt8 = 0x18, size: Int = 0, to: [UInt8],
        from: [UInt8]
    ) -> (frame: [UInt8], header: FrameHeader) {
        var tcp = Packets.half(40_000) + Packets.half(80) + Packets.word(0xffff_fff0) + Packets.word(77)
        tcp += [UInt8(5 + options.count / 4) << 4, flags] + Packets.half(512) + [0, 0, 0, 0] + options + data
        tcp.replaceSubrange(
            16..<18, with: Packets.half(Packets.sum(isIPv4 ? pseudo4(tcp.count) : pseudo6(tcp.count))))
        let packet = isIPv4 ? Packets.ipv4(6, tcp) : Packets.ipv6(6, tcp, from: near, to: far)
        var header = FrameHeader()
        header.flags = .needsChecksum
        header.checksumStart = UInt16((isIPv4 ? 34 : 54) + tag.count)
        header.checksumOffset = 16
        if size > 0 {
            header.segmentKind = isIPv4 ? .tcp4 : .tcp6
            header.segmentSize = UInt16(size)
            header.congestionMarked = flags & 0x80 != 0
            header.headersLength = header.checksumStart + 20 + UInt16(options.count)
        }
        return (to + from + tag + packet[12...], header)
    }
    private let near = Packets.address6(0xfd00, 1)
    private let far = Packets.address6(0xfd00, 2)
    private func pseudo4(_ count: Int) -> [UInt8] { Packets.pseudo(6, count, Packets.guest, Packets.host) }
    private func pseudo6(_ count: Int) -> [UInt8] { near + far + Packets.word(UInt32(count)) + [0, 0, 0, 6] }

    /// What must come of it, by the book: RFC 791, 8200 and 9293.
    private func reference(
        _ frame: [UInt8], _ header: FrameHeader, isIPv4: Bool, tag: Int, isComplete: Bool
    ) -> [[UInt8]] {
        let network = 14 + tag
        let transport = network + (isIPv4 ? 20 : 40)
        let data = transport + 20 + options.count
        let size = Int(header.segmentSize)
        return stride(from: data, to: frame.count, by: size).map { start in
            let isLast = start + size >= frame.count
            let payload = frame[start..<min(start + size, frame.count)]
            var tcp = Array(frame[transport..<data])
            tcp.replaceSubrange(4..<8, with: Packets.word(Packets.word(tcp, 4) &+ UInt32(start - data)))
            if !isLast { tcp[13] &= ~0x09 }
            if start > data { tcp[13] &= ~0x80 }
            tcp += payload
            tcp.replaceSubrange(16..<18, with: [0, 0])
            let pseudo = isIPv4 ? pseudo4(tcp.count) : pseudo6(tcp.count)
            tcp.replaceSubrange(
                16..<18, with: isComplete ? Packets.checksum(pseudo + tcp) : Packets.half(Packets.sum(pseudo)))
            var packet = Array(frame[network..<transport])
            if isIPv4 {
                packet.replaceSubrange(2..<4, with: Packets.half(20 + tcp.count))
                packet.replaceSubrange(4..<6, with: Packets.half(Packets.half(packet, 4) + (start - data) / size))
                packet.replaceSubrange(10..<12, with: [0, 0])
                packet.replaceSubrange(10..<12, with: Packets.checksum(packet))
            } else {
                packet.replaceSubrange(4..<6, with: Packets.half(tcp.count))
            }
            return Array(frame[..<network]) + packet + tcp
        }
    }

    @Test(arguments: [true, false], [0, 4, 8])
    func passesALargeSegmentAsItIs(_ isIPv4: Bool, _ tag: Int) throws {
        let (anna, bert) = try (Neighbour(lan), Neighbour(lan))
        let words = Noise.bytes(seed: 1, 60_000)
        let tags: [UInt8] = tag == 8 ? [0x88, 0xa8, 0, 1, 0x81, 0, 0, 2] : tag == 4 ? [0x81, 0, 0, 2] : []
        let (frame, described) = segment(
            words, isIPv4: isIPv4, tag: tags, flags: 0x98, size: 1448, to: bert.card, from: anna.card)
        // This length is a hint, and set right where it is wrong.
        var header = described
        header.headersLength = 3
        #expect(anna.guest.send(frame, header))
        #expect(bert.fetch() == [frame])
        let length = UInt8((isIPv4 ? 34 : 54) + 32 + tag)
        #expect(
            bert.guest.lastHeader
                == [1, isIPv4 ? 0x81 : 0x84, length, 0, 0xa8, 5, length - 32, 0, 16, 0, 1, 0])
    }

    @Test(
        arguments: [
            ([], 1428, 0x19), ([.guestChecksum], 1428, 0x98), ([.guestChecksum, .guestTSO4, .guestTSO6], 1000, 0x99),
            // Congestion marks are one more thing to agree on.
            ([.guestTSO4, .guestTSO6, .guestECN], 536, 0x18),
        ] as [(NetworkOffloads, Int, UInt8)], [true, false])
    func cutsALargeSegmentForThoseWhoTakeNone(
        _ kind: (offloads: NetworkOffloads, size: Int, flags: UInt8), _ isIPv4: Bool
    ) throws {
        let anna = try Neighbour(lan)
        let bert = try Neighbour(lan, offloads: kind.offloads, largestPacket: 1500)
        let isComplete = !kind.offloads.contains(.guestChecksum)
        for (count, tag) in [(kind.size * 4, []), (50_001, [0x81, 0, 0, 2]), (3, [])] as [(Int, [UInt8])] {
            let (frame, header) = segment(
                Noise.bytes(seed: UInt64(count), count), isIPv4: isIPv4, tag: tag, flags: kind.flags, size: kind.size,
                to: bert.card, from: anna.card)
            #expect(anna.guest.send(frame, header))
            let pieces = bert.fetch()
            let expected = reference(frame, header, isIPv4: isIPv4, tag: tag.count, isComplete: isComplete)
            #expect(pieces.count == expected.count)
            for (index, (piece, wanted)) in zip(pieces, expected).enumerated() {
                let different = zip(piece, wanted).enumerated().first { $1.0 != $1.1 }?.offset
                #expect(piece.count == wanted.count && different == nil, "byte \(different ?? -1) of piece \(index)")
            }
            let start = UInt8((isIPv4 ? 34 : 54) + tag.count)
            #expect(
                bert.guest.lastHeader
                    == (isComplete ? [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0] : [1, 0, 0, 0, 0, 0, start, 0, 16, 0, 1, 0]))
        }
        #expect(bert.port.statistics.droppedFrames == 0)
    }

    @Test func completesChecksumsForThoseWhoWantThemDone() throws {
        let anna = try Neighbour(lan)
        let bert = try Neighbour(lan, offloads: [], largestPacket: 1500)
        let cleo = try Neighbour(lan, offloads: .guestChecksum, largestPacket: 1500)
        for isIPv4 in [true, false] {
            for count in [0, 1, 999, 1400] {
                let (frame, header) = segment(
                    Noise.bytes(seed: UInt64(count), count), isIPv4: isIPv4, to: Packets.broadcast, from: anna.card)
                #expect(anna.guest.send(frame, header))
                let received = try #require(bert.fetch().first)
                let tcp = Array(received[(isIPv4 ? 34 : 54)...])
                #expect(Packets.checksum((isIPv4 ? pseudo4(tcp.count) : pseudo6(tcp.count)) + tcp) == [0, 0])
                #expect(bert.guest.lastHeader == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0])
                // The other one got what was sent.
                #expect(cleo.fetch() == [frame])
                #expect(cleo.guest.lastHeader == [1, 0, 0, 0, 0, 0, isIPv4 ? 34 : 54, 0, 16, 0, 1, 0])
            }
        }
    }

    @Test func dropsAndCountsSegmentsTooLargeForTheReceiver() throws {
        let anna = try Neighbour(lan)
        let bert = try Neighbour(lan, offloads: [], largestPacket: 1500)
        let (frame, header) = segment(
            [UInt8](repeating: 1, count: 20_000), isIPv4: true, size: 8000, to: bert.card, from: anna.card)
        #expect(anna.guest.send(frame, header))
        #expect(bert.fetch().isEmpty)
        #expect(bert.port.statistics.droppedFrames > 0)
    }

    @Test func survivesAGreatManyTinySegments() throws {
        let anna = try Neighbour(lan)
        let bert = try Neighbour(lan, offloads: [], largestPacket: 1500)
        let (frame, header) = segment(
            [UInt8](repeating: 1, count: 65_000), isIPv4: true, size: 1, to: bert.card, from: anna.card)
        #expect(anna.guest.send(frame, header))
        let received = bert.fetch()
        #expect(received.allSatisfy { $0.count == 67 })
        #expect(received.count > 10_000 && bert.port.statistics.droppedFrames == 1)
    }

    @Test(
        arguments: [
            ("another version of IP", 14, 0x65), ("IP options over TCP", 14, 0x46),
            ("too short an IP header", 14, 0x44),
            ("a packet longer than the frame", 16, 0xff), ("a fragment", 20, 0x20), ("UDP", 23, 17),
            ("TCP options behind the packet", 46, 0xf0), ("half a TCP header", 46, 0x40), ("no IP", 12, 0x86),
        ] as [(String, Int, UInt8)])
    func refusesLargeSegmentsThatAreNone(_ what: String, _ offset: Int, _ value: UInt8) throws {
        let (anna, bert) = try (Neighbour(lan), Neighbour(lan))
        var (frame, header) = segment(
            [UInt8](repeating: 1, count: 10), isIPv4: true, size: 5, to: bert.card, from: anna.card)
        #expect(anna.guest.send(frame, header))
        #expect(bert.fetch().count == 1)
        frame[offset] = value
        #expect(!anna.guest.send(frame, header), "\(what)")
        header.segmentKind = .tcp6
        #expect(!anna.guest.send(frame, header))
        #expect(bert.fetch().isEmpty && anna.port.statistics.refusedFrames == 2)
    }
}
