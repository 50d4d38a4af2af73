package import HostInterface
package import VirtualCPU
internal import GuestMemory
internal import X86

/// Xen's interface on a machine that is no PC: whoever owns it hands the
/// hypercalls on, and it interrupts its Guest by numbers of its own.
package final class XenLines: XenMachine {
    private let lines: Range<Int>
    private let raise: @Sendable (_ line: Int) -> Void
    private var interface: XenInterface!
    private unowned var vcpu: (any VCPU)?

    /// Where pages of others go in a Guest whose memory ends there: from the next 2 MiB on, so that a Guest that
    /// maps its memory by large pages has none in which there is both. The first page is the store's.
    package static func window(above end: UInt64) -> Range<UInt64> {
        let start = (end + largePage - 1) / largePage * largePage
        return start..<start + (256 << 20)
    }
    private static let largePage: UInt64 = 2 << 20

    /// - Parameters:
    ///   - lines: the numbers that the Guest can choose from.
    ///   - raise: makes one of these interrupts pending.
    package init(
        _ domain: Domain, of house: DomainHouse, lines: Range<Int>, raise: @escaping @Sendable (_ line: Int) -> Void
    ) {
        self.lines = lines
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

    /// See `XenInterface.call`.
    package func call(_ number: UInt64, _ first: UInt64, _ second: UInt64, _ third: UInt64, cr3: UInt64) -> Int64 {
        interface.call(number, first, second, third, cr3: cr3)
    }

    // MARK: XenMachine

    package func upcall(directly vector: UInt8) -> (@Sendable () -> Void)? { nil }
    package func upcall(byMessage vector: UInt8) -> (@Sendable () -> Void)? { nil }

    package func upcall(byLine number: Int) -> (@Sendable () -> Void)? {
        guard lines.contains(number) else { return nil }
        return { [raise] in raise(number) }
    }

    /// The machine has a way of its own for that.
    package func shutDown(_ reason: UInt32) -> Bool { false }

    package var isStopping: Bool { vcpu?.requests.pending.contains(.stop) ?? false }
    package func flushTranslations() { vcpu?.flushTranslations() }
}
