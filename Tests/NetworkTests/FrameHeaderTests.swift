import Network
import Testing

struct FrameHeaderTests {
    static let everything: NetworkOffloads = [.checksum, .tso4, .tso6, .ecn]

    private func check(
        _ header: [UInt8], count: Int = 100, accepted: NetworkOffloads = everything
    ) -> FrameHeader? {
        let frame = header + [UInt8](repeating: 0, count: FrameHeader.byteCount - header.count + count)
        return unsafe frame.withUnsafeBytes { unsafe FrameHeader(checking: $0, accepted: accepted) }
    }

    @Test func isLaidOutAsVirtioSays() {
        var header = FrameHeader()
        header.flags = .needsChecksum
        header.segmentKind = .tcp6
        header.congestionMarked = true
        header.headersLength = 0x0102
        header.segmentSize = 0x0304
        header.checksumStart = 34
        header.checksumOffset = 16
        var bytes = [UInt8](repeating: 0xff, count: FrameHeader.byteCount + 100)
        unsafe bytes.withUnsafeMutableBytes { unsafe header.write(to: $0) }
        #expect(Array(bytes.prefix(12)) == [1, 0x84, 2, 1, 4, 3, 34, 0, 16, 0, 1, 0])
        let read = unsafe bytes.withUnsafeBytes {
            unsafe FrameHeader(checking: $0, accepted: FrameHeaderTests.everything)
        }
        #expect(read == header)
    }

    @Test func acceptsWhatWasAgreedOn() {
        #expect(check([]) != nil)
        #expect(check([], count: 14) != nil)
        #expect(check([], count: 14 + 65_536) != nil)
        // The checksum's last byte is the frame's last byte.
        #expect(check([1, 0, 0, 0, 0, 0, 34, 0, 64, 0]) != nil)
        #expect(check([1, 1, 54, 0, 100, 0, 34, 0, 16, 0]) != nil)
    }

    @Test(
        arguments: [
            ([1, 0, 0, 0, 0, 0, 34, 0, 65, 0], "a checksum that ends behind the frame"),
            ([1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], "a checksum that starts behind the frame"),
            ([1, 0, 0, 0, 0, 0, 13, 0, 16, 0], "a checksum of the Ethernet header"),
            ([0, 2], "an unknown kind of segment"),
            ([0, 0x80], "congestion marked where there is no segment"),
            ([0, 1, 54, 0, 100, 0, 34, 0, 16, 0], "segments without a checksum to be done"),
            ([1, 1, 54, 0, 0, 0, 34, 0, 16, 0], "segments of no size"),
        ] as [([UInt8], String)])
    func refuses(_ header: [UInt8], _ what: String) { #expect(check(header) == nil, "\(what)") }

    @Test func refusesWhatWasNotAgreedOn() {
        #expect(check([1, 0, 0, 0, 0, 0, 34, 0, 16, 0], accepted: []) == nil)
        #expect(check([1, 1, 54, 0, 100, 0, 34, 0, 16, 0], accepted: [.checksum, .tso6]) == nil)
        #expect(check([1, 4, 54, 0, 100, 0, 34, 0, 16, 0], accepted: [.checksum, .tso4]) == nil)
        #expect(check([1, 0x81, 54, 0, 100, 0, 34, 0, 16, 0], accepted: [.checksum, .tso4]) == nil)
    }

    @Test func refusesFramesTooShortAndTooLong() {
        #expect(check([], count: 13) == nil)
        #expect(check([], count: 14 + 65_537) == nil)
    }
}

struct InternetChecksumTests {
    @Test(arguments: 0..<200) func sumsAsTheSchoolbookDoes(_ count: Int) {
        var noise = Noise(seed: UInt64(count))
        for _ in 0..<20 {
            // Many ones make many carries.
            let bytes = noise.bytes(count).map { $0 | ($0 & 1 == 0 ? 0xff : 0) }
            let sum = unsafe bytes.withUnsafeBytes { unsafe InternetChecksum.sum($0) }
            // Zero and its complement are the same number here.
            #expect(Int(sum.bigEndian) % 0xffff == Packets.sum(bytes) % 0xffff)
        }
    }

    @Test func adjustsAsIfItHadSummedAgain() {
        var noise = Noise(seed: 7)
        for _ in 0..<1000 {
            var bytes = noise.bytes(40)
            let old = UInt16(Packets.half(Packets.checksum(bytes), 0))
            let before = UInt16(Packets.half(bytes, 10))
            let after = UInt16(truncatingIfNeeded: noise.next())
            bytes.replaceSubrange(10..<12, with: Packets.half(Int(after)))
            let new = Packets.half(Packets.checksum(bytes), 0)
            #expect(Int(InternetChecksum.adjust(old, from: before, to: after)) % 0xffff == new % 0xffff)
        }
    }
}
