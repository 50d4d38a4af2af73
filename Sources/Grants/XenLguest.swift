package import HostInterface
internal import Lguest
package import VirtualCPU
internal import GuestMemory
internal import X86

/// Xen's interface on lguest's machine: hypercalls by their own numbers,
/// interrupts by lguest's.
package final class XenLguest: XenCalls, XenMachine {
    private let raise: @Sendable (_ irq: Int) -> Void
    private var interface: XenInterface!
    private unowned var vcpu: (any VCPU)?

    /// Where pages of others go in a Guest whose memory ends there: from the next 2 MiB on, so that a Guest that
    /// maps its memory by large pages has none in which there is both. The first page is the store's.
    package static func window(above end: UInt64) -> Range<UInt64> {
        let start = (end + largePage - 1) / largePage * largePage
        return start..<start + (256 << 20)
    }
    private static let largePage: UInt64 = 2 << 20

    /// - Parameter raise: makes one of lguest's interrupts pending.
    package init(_ domain: Domain, of house: DomainHouse, raise: @escaping @Sendable (_ irq: Int) -> Void) {
        self.raise = raise
        interface = XenInterface(domain, of: house, on: self)
    }

    /// The vCPU that it is the interface of; before its first `run`.
    package func attach(_ vcpu: any VCPU) {
        self.vcpu = vcpu
        vcpu.offer(interface.hypervisorLeaves)
    }

    /// What was asked for in vain, in lines.
    package var remarks: [String] { interface.remarks }

    /// Before the Guest's first instruction.
    ///
    /// - Throws: what the host lacks.
    package func begin() throws(HostError) {
        guard let window = interface.domain.memory.foreignWindows.first else { return }
        try interface.begin(storeAt: window.lowerBound)
    }

    /// Undoes all that others have of it, and it of others. Its vCPU and its devices stand still.
    package func end() { interface.house.end(interface.domain) }

    // MARK: XenCalls

    package func call(_ number: UInt64, _ first: UInt64, _ second: UInt64, _ third: UInt64, cr3: UInt64) -> Int64 {
        interface.call(number, first, second, third, cr3: cr3)
    }

    // MARK: XenMachine

    package func upcall(directly vector: UInt8) -> (@Sendable () -> Void)? { nil }
    package func upcall(byMessage vector: UInt8) -> (@Sendable () -> Void)? { nil }

    package func upcall(byLine number: Int) -> (@Sendable () -> Void)? {
        guard (1..<LguestIRQ.count).contains(number) else { return nil }
        return { [raise] in raise(number) }
    }

    /// lguest's has a call of its own for that.
    package func shutDown(_ reason: UInt32) -> Bool { false }

    package var isStopping: Bool { vcpu?.requests.pending.contains(.stop) ?? false }
    package func flushTranslations() { vcpu?.flushTranslations() }
}
