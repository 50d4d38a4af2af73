internal import CGuest

//G:130 Another Host's tongue
//
// Xen is a Host, too, and an older one than lguest. What it knows better is how
// Guests share memory when neither trusts the other; and as Linux speaks its
// tongue anyway, ours is bilingual: where CPUID says "XenVMMXenVMM", Xen's
// hypercalls can be had under lguest's numbers, 0x58454e00 plus Xen's.
//
// Three things are to be set up before the first of them is of use, and they
// are when it is. Pages that Xen shares with us, and later those of other
// Guests, need addresses that nothing else has. There is a window for them,
// from the first 2 MiB above memory and devices on:
//
//      memory | devices |  ...  | store | shared_info | grant table … | others' pages …
//                               └ 2 MiB boundary
//
// It is mapped to itself, like everything. The Host changes what is behind an
// address; the address does not change, so there is nothing to tell the CPU.

/// Xen's interface, where the Host has it (`roost run --xen`).
public enum Xen {
    /// Found by CPUID; 0: not looked for yet, 1: it is not there.
    @safe nonisolated(unsafe) private static var base: UInt32 = 0
    @safe nonisolated(unsafe) private static var scratch: Region?

    /// Whether the Host has it.
    public static var isPresent: Bool {
        if base == 0 { base = find() ?? 1 }
        return base != 1
    }

    private static func find() -> UInt32? {
        typealias CPUID = XenABI.CPUID
        var leaf = CPUID.first
        while leaf <= CPUID.last {
            let found = guest_cpuid(leaf)
            if found.ebx == CPUID.signatureEBX, found.ecx == CPUID.signatureECX, found.edx == CPUID.signatureEDX,
                found.eax >= leaf + CPUID.hvmLeaf
            {
                return leaf
            }
            leaf += CPUID.step
        }
        return nil
    }

    /// This Guest's number among the Host's. Ends the Guest if there is no Xen.
    public static var domid: UInt16 {
        guard isPresent else { panic("there is no Xen here: roost run --xen, or \"xen\": true in a house's file") }
        return UInt16(truncatingIfNeeded: guest_cpuid(base + XenABI.CPUID.hvmLeaf).ecx)
    }

    // MARK: Hypercalls

    /// Most take the address of a struct. This is a page to have it in; the next call uses it again, so it is
    /// not for an interrupt's handler.
    static var arguments: Region {
        if let scratch { return scratch }
        // Also says no if there is no Xen.
        _ = domid
        let taken = Pages.take()
        scratch = taken
        return taken
    }

    /// - Parameter number: one of `XenABI.Hypercall`.
    /// - Returns: at least 0.
    /// - Throws: the errno.
    @discardableResult static func call(
        _ number: UInt64, _ operation: UInt32, _ argument: UInt64, _ count: Int = 0
    ) throws(XenError) -> Int64 {
        let result = Int64(
            bitPattern: Hypercall.call(
                LguestHypercall.xen + number, UInt64(operation), argument, UInt64(count)))
        guard result >= 0 else { throw XenError(errno: Int32(truncatingIfNeeded: -result)) }
        return result
    }

    /// HVM_PARAM_…: what the Host has to say about itself.
    static func parameter(_ index: UInt32) -> UInt64 {
        typealias Fields = XenABI.HVMParam
        let call = arguments.prefix(Fields.byteCount)
        call.fill()
        call.store(XenABI.DOMID.selfID, at: Fields.domid)
        call.store(index, at: Fields.index)
        _ = try? Xen.call(XenABI.Hypercall.hvmOp, XenABI.HVMOP.getParam, call.address)
        return call.load(Fields.value)
    }

    static func setParameter(_ index: UInt32, _ value: UInt64) throws(XenError) {
        typealias Fields = XenABI.HVMParam
        let call = arguments.prefix(Fields.byteCount)
        call.fill()
        call.store(XenABI.DOMID.selfID, at: Fields.domid)
        call.store(index, at: Fields.index)
        call.store(value, at: Fields.value)
        try Xen.call(XenABI.Hypercall.hvmOp, XenABI.HVMOP.setParam, call.address)
    }

    /// Has one of Xen's pages shown in the window, at its page `place`.
    static func show(_ space: UInt32, _ index: Int, at place: Int) -> Region {
        typealias Fields = XenABI.AddToPhysmap
        let page = XenWindow.page(place)
        let call = arguments.prefix(Fields.byteCount)
        call.fill()
        call.store(XenABI.DOMID.selfID, at: Fields.domid)
        call.store(space, at: Fields.space)
        call.store(UInt64(index), at: Fields.idx)
        call.store(page.address / UInt64(Pages.size), at: Fields.gpfn)
        do throws(XenError) {
            try Xen.call(XenABI.Hypercall.memoryOp, XenABI.XENMEM.addToPhysmap, call.address)
        } catch {
            panic("Xen does not show its page \(index) of \(space): error \(error.errno)")
        }
        return page
    }
}
//:

/// Why Xen, or its store, does not do what it was asked to.
public struct XenError: Error, Equatable {
    /// As Linux numbers them, positive: 2 is ENOENT.
    public let errno: Int32

    /// ENOENT.
    public static let notFound = XenError(errno: XenABI.Errno.enoent)
    /// EACCES.
    public static let noAccess = XenError(errno: XenABI.Errno.eacces)
    /// EINVAL.
    public static let invalid = XenError(errno: XenABI.Errno.einval)
}
