internal import Synchronization

//D:250 A page of bells
//
// Xen tells a Guest of an event by setting bits in memory, and by one interrupt
// if the Guest might not look by itself. There are three floors, so that
// neither side ever has to look through 4096 bits:
//
//     upcall_pending   1 bit        "look"
//     pending_sel      64 bits      "…into these words"
//     pending          64 × 64 bits one for each port
//     mask             64 × 64 bits "not now": the bit above it stays, and waits
//
// Each is set from below to above and taken from above to below, and whoever
// finds a bit set already has nothing more to do: somebody is on the way.
// (Xen's public headers, xen.h.)

/// The Host's view of a Guest's shared_info page: memory that the Guest writes to as it likes.
@safe struct SharedInfo: @unchecked Sendable {
    private let page: UnsafeMutableRawPointer
    /// The page's first vcpu_info, or where the Guest wants it to be instead.
    private var vcpuInfo: UnsafeMutableRawPointer

    /// - Parameter page: 4096 bytes that outlive this.
    init(_ page: UnsafeMutableRawPointer) {
        unsafe (self.page, vcpuInfo) = (page, page)
    }

    private func word(_ offset: Int, _ port: Int) -> UnsafeMutablePointer<Atomic<UInt64>> {
        unsafe (page + offset + port / 64 * 8).assumingMemoryBound(to: Atomic<UInt64>.self)
    }

    private var selector: UnsafeMutablePointer<Atomic<UInt64>> {
        unsafe (vcpuInfo + XenABI.VCPUInfo.evtchnPendingSel).assumingMemoryBound(to: Atomic<UInt64>.self)
    }

    private var upcall: UnsafeMutablePointer<Atomic<UInt8>> {
        unsafe vcpuInfo.assumingMemoryBound(to: Atomic<UInt8>.self)
    }

    private static func bit(_ port: Int) -> UInt64 { 1 << UInt64(port % 64) }

    /// Sets a port's bit.
    ///
    /// - Returns: whether the Guest has to be interrupted.
    func setPending(_ port: Int) -> Bool {
        // ORDERING: every step is a full barrier: what the sender wrote before comes before the bit, and the
        // bit before the look at the mask, which the Guest clears before it looks at the bit.
        let old = unsafe word(XenABI.SharedInfo.evtchnPending, port).pointee.bitwiseOr(
            Self.bit(port), ordering: .sequentiallyConsistent
        ).oldValue
        if old & Self.bit(port) != 0 { return false }
        return isMasked(port) ? false : select(port)
    }

    /// Clears a port's mask.
    ///
    /// - Returns: whether the Guest has to be interrupted, since the port has waited.
    func unmask(_ port: Int) -> Bool {
        let old = unsafe word(XenABI.SharedInfo.evtchnMask, port).pointee.bitwiseAnd(
            ~Self.bit(port), ordering: .sequentiallyConsistent
        ).oldValue
        guard old & Self.bit(port) != 0, isPending(port) else { return false }
        return select(port)
    }

    private func select(_ port: Int) -> Bool {
        let bit: UInt64 = 1 << UInt64(port / 64)
        let old = unsafe selector.pointee.bitwiseOr(bit, ordering: .sequentiallyConsistent).oldValue
        return old & bit == 0 && callUp()
    }

    /// - Returns: whether nobody had called already.
    private func callUp() -> Bool { unsafe upcall.pointee.exchange(1, ordering: .sequentiallyConsistent) == 0 }

    /// The Guest has been called, and has not looked yet.
    var hasCalled: Bool { unsafe upcall.pointee.load(ordering: .sequentiallyConsistent) != 0 }

    func isPending(_ port: Int) -> Bool {
        unsafe word(XenABI.SharedInfo.evtchnPending, port).pointee.load(ordering: .sequentiallyConsistent)
            & Self.bit(port) != 0
    }

    func isMasked(_ port: Int) -> Bool {
        unsafe word(XenABI.SharedInfo.evtchnMask, port).pointee.load(ordering: .sequentiallyConsistent) & Self.bit(port)
            != 0
    }

    /// What a Guest does when it is called, for a domain that has no CPU: takes all ports that are set and not masked.
    func takePending() -> [Int] {
        var ports: [Int] = []
        while unsafe upcall.pointee.exchange(0, ordering: .sequentiallyConsistent) != 0 {
            var words = unsafe selector.pointee.exchange(0, ordering: .sequentiallyConsistent)
            while words != 0 {
                let first = words.trailingZeroBitCount * 64
                words &= words &- 1
                for port in first..<first + 64 where isPending(port) && !isMasked(port) {
                    clearPending(port)
                    ports.append(port)
                }
            }
        }
        return ports
    }

    func clearPending(_ port: Int) {
        unsafe word(XenABI.SharedInfo.evtchnPending, port).pointee.bitwiseAnd(
            ~Self.bit(port), ordering: .sequentiallyConsistent)
    }

    /// The vcpu_info is there from now on. What was set in the old one is not lost: all words are to be looked at.
    ///
    /// - Parameter place: 64 bytes at a multiple of 8, that outlive this.
    mutating func moveVCPUInfo(to place: UnsafeMutableRawPointer) {
        unsafe place.copyMemory(from: vcpuInfo, byteCount: XenABI.VCPUInfo.byteCount)
        unsafe vcpuInfo = place
        unsafe selector.pointee.store(.max, ordering: .sequentiallyConsistent)
        unsafe upcall.pointee.store(1, ordering: .sequentiallyConsistent)
    }

    /// It has not been moved.
    var hasOwnVCPUInfo: Bool { unsafe vcpuInfo == page }
}
//:
