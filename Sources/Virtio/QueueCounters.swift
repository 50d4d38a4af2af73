internal import Synchronization

/// What went through one queue since the machine was made. One thread counts,
/// any thread looks.
package final class QueueCounters: Sendable {
    private let requests = Atomic<UInt64>(0)
    private let readableBytes = Atomic<UInt64>(0)
    private let writtenBytes = Atomic<UInt64>(0)
    private let interrupts = Atomic<UInt64>(0)
    private let suppressed = Atomic<UInt64>(0)
    private let depths = Atomic<UInt64>(0)
    private let deepest = Atomic<UInt64>(0)

    package init() {}

    /// One thread writes: no locked instruction is needed.
    @inline(__always)
    private func add(_ amount: Int, to counter: borrowing Atomic<UInt64>) {
        let old = counter.load(ordering: .relaxed)
        counter.store(old &+ UInt64(truncatingIfNeeded: amount), ordering: .relaxed)
    }

    func took(_ chain: DescriptorChain, inFlight: UInt16) {
        add(1, to: requests)
        add(chain.readable.byteCount, to: readableBytes)
        add(Int(inFlight), to: depths)
        if UInt64(inFlight) > deepest.load(ordering: .relaxed) { deepest.store(UInt64(inFlight), ordering: .relaxed) }
    }

    func completed(written: Int) { add(written, to: writtenBytes) }

    func asked(interrupted: Bool) { if interrupted { add(1, to: interrupts) } else { add(1, to: suppressed) } }

    package struct Snapshot: Equatable, Sendable {
        /// Chains taken.
        package let requests: UInt64
        /// Bytes that the driver gave us to read, and that we wrote.
        package let readableBytes: UInt64
        package let writtenBytes: UInt64
        package let interrupts: UInt64
        /// Times that we had something to tell and the driver did not want to be interrupted.
        package let suppressed: UInt64
        /// Chains that were ours at once: on average when one was taken, and at most.
        package let meanDepth: Double
        package let mostDepth: UInt64
    }

    package var snapshot: Snapshot {
        let requests = requests.load(ordering: .relaxed)
        return Snapshot(
            requests: requests, readableBytes: readableBytes.load(ordering: .relaxed),
            writtenBytes: writtenBytes.load(ordering: .relaxed), interrupts: interrupts.load(ordering: .relaxed),
            suppressed: suppressed.load(ordering: .relaxed),
            meanDepth: requests == 0 ? 0 : Double(depths.load(ordering: .relaxed)) / Double(requests),
            mostDepth: deepest.load(ordering: .relaxed))
    }
}
