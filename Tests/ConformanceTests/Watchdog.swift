import Synchronization
import VirtualCPU

/// Stops a vCPU that is at the same case for two seconds: an instruction that
/// an engine never finishes is a result, not a hanging test.
final class Watchdog: Sendable {
    private let beats = Atomic<Int>(0)
    private let ended = Atomic<Bool>(false)

    init(_ requests: VCPURequests) {
        Task.detached { [weak self] in
            var last = -1
            while let self, !self.ended.load(ordering: .relaxed) {
                let now = self.beats.load(ordering: .relaxed)
                // Odd: a case runs. The host may take its time for the next ones.
                if now == last, now & 1 == 1 { requests.post(.stop) }
                last = now
                try? await Task.sleep(for: .seconds(2))
            }
        }
    }

    /// A case begins, or ends.
    func beat() { beats.wrappingAdd(1, ordering: .relaxed) }
    func end() { ended.store(true, ordering: .relaxed) }
}
