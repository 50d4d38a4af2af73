import HostInterface
import Storage
import Testing

@Suite struct RawImageTests {
    @Test func exists() { #expect(DiskFormat.raw.rawValue == "raw") }
}
