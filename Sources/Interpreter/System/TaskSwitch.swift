internal import VirtualCPU
internal import X86

/// Why a task is switched to.
enum TaskSwitchCause { case jump, call, interrupt, interruptReturn }

extension CPU {
    func switchTask(
        _ selector: UInt16, _ cause: TaskSwitchCause, returnTo rip: UInt64, rflags: UInt64, external: UInt32
    ) throws(Stop) {
        throw generalProtection(selector.selectorIndex | external)
    }
    func returnFromTask(_ rip: UInt64) throws(Stop) { throw generalProtection() }
}
