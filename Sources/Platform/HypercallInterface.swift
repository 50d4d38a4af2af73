package import VirtualCPU

/// A hypervisor's interface to its Guests, on a PC that has one: hypercalls, and
/// the MSRs that belong to them. All of it is called on the vCPU's thread.
package protocol HypercallInterface: AnyObject {
    /// Does the hypercall that the vCPU has just come out with, and answers it.
    ///
    /// - Returns: why the Guest's run ends, if that is what it asked for.
    func perform(on vcpu: any VCPU) -> RunOutcome?

    /// Nil: not an MSR of this interface.
    func readMSR(_ index: UInt32) -> UInt64?

    /// Whether the value is one that the MSR can have. Nil: not an MSR of this interface.
    func writeMSR(_ index: UInt32, _ value: UInt64) -> Bool?
}
