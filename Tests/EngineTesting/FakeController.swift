internal import Synchronization
package import VirtualCPU

/// Interrupts without an APIC: what a test raises waits in a line.
package final class FakeController: InterruptController, Sendable {
    package let requests = VCPURequests()
    private let waiting = Mutex<[UInt8]>([])
    private let priority = Atomic<UInt8>(0)

    package init() {}

    /// Any thread.
    package func raise(_ vector: UInt8) {
        waiting.withLock { waiting in
            waiting.append(vector)
            requests.post(.interrupt)
        }
    }

    package var count: Int { waiting.withLock { $0.count } }

    package func acknowledgeInterrupt() -> UInt8? {
        waiting.withLock { waiting in
            // As an APIC does: a vector of the present class or below stays where it is.
            guard let index = waiting.firstIndex(where: { $0 >> 4 > taskPriorityClass }) else {
                requests.clear(.interrupt)
                return nil
            }
            let vector = waiting.remove(at: index)
            if waiting.isEmpty { requests.clear(.interrupt) }
            return vector
        }
    }

    package var taskPriorityClass: UInt8 {
        get { priority.load(ordering: .relaxed) }
        set {
            priority.store(newValue, ordering: .relaxed)
            if count > 0 { requests.post(.interrupt) }
        }
    }
}
