import Network
import Testing

struct FrameHeaderTests {
    @Test func isAsLongAsVirtioSays() { #expect(FrameHeader.byteCount == 12) }
}
