package import HostInterface
package import Platform
package import VirtualCPU
internal import X86

/// Xen's interface on a PC: hypercalls by VMCALL, interrupts by the local APIC.
package final class XenPC: HypercallInterface, XenMachine {
    private let localAPIC: LocalAPIC
    private var interface: XenInterface!
    private unowned let vcpu: any VCPU
    private var outcome: RunOutcome?

    package var domain: Domain { interface.domain }
    /// What was asked for in vain, in lines.
    package var remarks: [String] { interface.remarks }

    /// Makes the domain that a PC's Guest is; `end` is to come before its memory goes.
    package init(
        _ domain: Domain, of house: DomainHouse, vcpu: any VCPU, localAPIC: LocalAPIC
    ) {
        self.vcpu = vcpu
        self.localAPIC = localAPIC
        interface = XenInterface(domain, of: house, on: self)
        vcpu.offer(interface.hypervisorLeaves)
    }

    /// Before the Guest's first instruction, and after each `end`.
    ///
    /// - Throws: what the host lacks.
    package func begin() throws(HostError) {
        try interface.begin(storeAt: MemoryMap.hypervisorPages.lowerBound)
    }

    /// Undoes all that others have of it, and it of others. Its vCPU and its devices stand still.
    package func end() { interface.house.end(domain) }

    // MARK: HypercallInterface

    package func perform(on vcpu: any VCPU) -> RunOutcome? {
        let call = vcpu.hypercall
        guard call.privilege == 0 else {
            vcpu.answerHypercall(UInt64(bitPattern: -1))  // EPERM
            return nil
        }
        let cr3 = vcpu.readState { $0.cr3 }
        let result = interface.call(call.rax, call.rdi, call.rsi, call.rdx, cr3: cr3)
        vcpu.answerHypercall(UInt64(bitPattern: result))
        return outcome.take()
    }

    package func readMSR(_ index: UInt32) -> UInt64? { nil }

    package func writeMSR(_ index: UInt32, _ value: UInt64) -> Bool? {
        index == XenInterface.hypercallMSR ? interface.writeHypercallMSR(value) : nil
    }

    // MARK: XenMachine

    package func upcall(directly vector: UInt8) -> (@Sendable () -> Void)? {
        { [localAPIC] in localAPIC.deliverDirectly(vector) }
    }

    package func upcall(byMessage vector: UInt8) -> (@Sendable () -> Void)? {
        { [localAPIC] in localAPIC.deliver(vector) }
    }

    /// A PC with a vector needs no line.
    package func upcall(byLine number: Int) -> (@Sendable () -> Void)? { nil }

    package func shutDown(_ reason: UInt32) -> Bool {
        switch reason {
        case XenABI.SHUTDOWN.poweroff: outcome = .poweroff
        // Why it crashed is in the kernel's log: see GuestRun.
        case XenABI.SHUTDOWN.reboot, XenABI.SHUTDOWN.crash, XenABI.SHUTDOWN.softReset: outcome = .reset
        default: return false
        }
        return true
    }

    package var isStopping: Bool { vcpu.requests.pending.contains(.stop) }
    package func flushTranslations() { vcpu.flushTranslations() }
}
