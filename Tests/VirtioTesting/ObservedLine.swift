package import Platform
internal import Synchronization

/// An interrupt line into an 8259 that has it level-triggered and all else
/// masked, so that the chip's INTR shows the line.
package final class ObservedLine: Sendable {
    private final class Output: Sendable {
        let isHigh = Atomic(false)
        let rises = Atomic(0)
    }

    private static let gsi = 5
    private let output = Output()
    package let line: InterruptLine

    package init() {
        let output = output
        let pic = PIC8259 { isHigh in
            output.isHigh.store(isHigh, ordering: .releasing)
            if isHigh { output.rises.wrappingAdd(1, ordering: .acquiringAndReleasing) }
        }
        pic.write(register: 4, 1 << UInt8(Self.gsi))
        pic.write(register: 1, ~(1 << UInt8(Self.gsi)))
        line = InterruptLines(ioAPIC: IOAPIC(bus: APICBus()), pic: pic).line(gsi: Self.gsi)
    }

    package var isHigh: Bool { output.isHigh.load(ordering: .acquiring) }
    /// How often it went from low to high.
    package var rises: Int { output.rises.load(ordering: .acquiring) }
}
