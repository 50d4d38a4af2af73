internal import HostInterface
internal import Synchronization

/// What the Guest's kernel says on its console: its last 64 KiB are kept, to
/// be shown when it dies, and with `--verbose` all of it is shown as it comes.
package final class KernelLog: Sendable {
    private static let kept = 64 << 10

    private let bytes = Mutex<[UInt8]>([])
    private let show: (@Sendable ([UInt8]) -> Void)?

    /// - Parameter show: takes all of it, too.
    package init(show: (@Sendable ([UInt8]) -> Void)? = nil) { self.show = show }

    package func append(_ new: [UInt8]) {
        bytes.withLock { bytes in
            bytes += new
            // Cut rarely: moving 64 KiB for each byte would be dear.
            if bytes.count > 2 * Self.kept { bytes.removeFirst(bytes.count - Self.kept) }
        }
        show?(new)
    }

    /// The last lines, at most `count` of them, without carriage returns and control characters.
    package func lastLines(_ count: Int) -> [String] {
        let text = bytes.withLock { bytes in
            String(
                decoding: bytes.suffix(Self.kept).filter { $0 == 0x0a || $0 == 0x09 || $0 >= 0x20 && $0 != 0x7f },
                as: UTF8.self)
        }
        return text.split(separator: "\n").suffix(count).map(String.init)
    }

    /// What the kernel panicked of; nil if it did not.
    package var panic: String? {
        let mark = "Kernel panic - not syncing: "
        for line in lastLines(.max).reversed() {
            if let range = line.firstRange(of: mark) { return String(line[range.upperBound...]) }
        }
        return nil
    }
}
