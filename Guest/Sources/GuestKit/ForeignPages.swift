//G:150 Borrowing
//
// To map a page of another's one needs three things: who it is, the reference
// that it has told us, and an address. The Host looks at the other's table,
// and if there is a grant for us, has the page appear there. For each we get a
// number, by which it is given back.
//
// It is another's memory, and stays so. It may change between two looks at it,
// so: look once, keep what was seen, check that. And its owner may die; then
// it becomes zeros where it is, and is still ours to give back.

/// Pages of another Guest's, in a row. They are given back when this is let go.
public struct ForeignPages: ~Copyable {
    /// Where they are. If they are not writable, a store there is an exception, and the end.
    public let region: Region

    @safe nonisolated(unsafe) private static var handleTable: Region?
    /// How many fit into the page of arguments.
    private static let mostInOneCall = 128

    /// One page of the Guest `domid`.
    public init(of domid: UInt16, reference: UInt32, isWritable: Bool) throws(GrantStatus) {
        var one = InlineArray<1, UInt32>(repeating: reference)
        region = try unsafe withUnsafeMutableBytes(of: &one) { bytes throws(GrantStatus) in
            try Self.map(domid, Region(address: UInt64(UInt(bitPattern: bytes.baseAddress)), count: 4), isWritable)
        }
    }

    /// As many as there are references, of 32 bits each: all of them, or none.
    ///
    /// - Parameter references: may be another's memory, too. Each is read once.
    /// - Throws: the status of the first that cannot be mapped; `noSpace`, too, if there is no more room here.
    public init(of domid: UInt16, references: Region, isWritable: Bool) throws(GrantStatus) {
        region = try Self.map(domid, references, isWritable)
    }

    deinit { Self.unmap(region) }

    /// Gives them back. Without it, the end of its scope does.
    public consuming func close() {}

    private static func map(_ domid: UInt16, _ references: Region, _ isWritable: Bool) throws(GrantStatus) -> Region {
        typealias Fields = GrantABI.MapGrantRef
        let count = references.count / 4
        precondition(count > 0)
        let calls = Xen.arguments
        guard let region = XenWindow.takeForeign(count) else { throw .noSpace }
        var done = 0
        while done < count {
            let some = min(count - done, mostInOneCall)
            for index in 0..<some {
                let call = calls.part(index * Fields.byteCount, Fields.byteCount)
                call.store(region.address + UInt64((done + index) * Pages.size), at: Fields.hostAddr)
                call.store(
                    GrantABI.GNTMAP.hostMap | (isWritable ? 0 : GrantABI.GNTMAP.readonly), at: Fields.flags)
                call.store(references.load((done + index) * 4, as: UInt32.self), at: Fields.ref)
                call.store(domid, at: Fields.dom)
                call.store(GrantABI.GNTST.generalError, at: Fields.status)
            }
            _ = try? Xen.call(
                XenABI.Hypercall.grantTableOp, GrantABI.GNTTABOP.mapGrantRef, calls.address, some)
            var failure: GrantStatus?
            for index in 0..<some {
                let call = calls.part(index * Fields.byteCount, Fields.byteCount)
                let status: Int16 = call.load(Fields.status)
                let isMapped = status == GrantABI.GNTST.okay
                if !isMapped, failure == nil { failure = GrantStatus(rawValue: status) }
                handle(done + index, of: region, is: isMapped ? call.load(Fields.handle) : noHandle)
            }
            done += some
            if let failure {
                unmap(region.prefix(done * Pages.size))
                for index in done..<count { XenWindow.giveForeign(region.address + UInt64(index * Pages.size)) }
                throw failure
            }
        }
        return region
    }

    private static func unmap(_ region: Region) {
        typealias Fields = GrantABI.UnmapGrantRef
        let calls = Xen.arguments
        let count = region.count / Pages.size
        for start in stride(from: 0, to: count, by: mostInOneCall) {
            var some = 0
            for index in start..<min(start + mostInOneCall, count) {
                let handle = handle(index, of: region)
                guard handle != noHandle else { continue }
                let call = calls.part(some * Fields.byteCount, Fields.byteCount)
                call.fill()
                call.store(region.address + UInt64(index * Pages.size), at: Fields.hostAddr)
                call.store(handle, at: Fields.handle)
                some += 1
            }
            guard some > 0 else { continue }
            _ = try? Xen.call(
                XenABI.Hypercall.grantTableOp, GrantABI.GNTTABOP.unmapGrantRef, calls.address, some)
        }
        for index in 0..<count { XenWindow.giveForeign(region.address + UInt64(index * Pages.size)) }
    }

    // MARK: Handles, by where in the window their page is

    private static let noHandle = UInt32.max

    private static var handles: Region {
        if let handleTable { return handleTable }
        let taken = Pages.take(XenWindow.mostForeign * 4 / Pages.size)
        handleTable = taken
        return taken
    }

    private static func place(_ index: Int, _ region: Region) -> Int {
        XenWindow.foreignIndex(region.address) * 4 + index * 4
    }

    private static func handle(_ index: Int, of region: Region) -> UInt32 { handles.load(place(index, region)) }

    private static func handle(_ index: Int, of region: Region, is handle: UInt32) {
        handles.store(handle, at: place(index, region))
    }
}
//:

/// GNTST_…: why a grant cannot be mapped.
public struct GrantStatus: Error, Equatable {
    /// Xen's number, negative.
    public let rawValue: Int16

    /// It is not granted, or not to us, or not for writing.
    public static let generalError = GrantStatus(rawValue: GrantABI.GNTST.generalError)
    /// There is no such Guest.
    public static let badDomain = GrantStatus(rawValue: GrantABI.GNTST.badDomain)
    /// Its table is not that long.
    public static let badReference = GrantStatus(rawValue: GrantABI.GNTST.badGntref)
    /// What is granted is no page of RAM.
    public static let badPage = GrantStatus(rawValue: GrantABI.GNTST.badPage)
    /// There is no room for another mapping, here or at the Host.
    public static let noSpace = GrantStatus(rawValue: GrantABI.GNTST.noSpace)
}
