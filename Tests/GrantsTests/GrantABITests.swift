import Grants
import Testing

/// Where each field of a struct is, and how long all of it.
func check<Layout>(
    _ layout: Layout.Type, _ byteCount: Int, _ fields: [(PartialKeyPath<Layout>, Int)],
    at place: SourceLocation = #_sourceLocation
) {
    for (number, (field, offset)) in fields.enumerated() {
        #expect(MemoryLayout<Layout>.offset(of: field) == offset, "field \(number)", sourceLocation: place)
    }
    #expect(MemoryLayout<Layout>.stride == byteCount, sourceLocation: place)
}

/// Numbers against C's rules: each struct is written down once more, by its fields, and
/// Swift lays these out as C does as long as no struct is inside another.
@Suite struct GrantABITests {
    /// _IOC with _IOC_NONE.
    private func number<Layout>(_ type: Character, _ number: UInt, _ layout: Layout.Type) -> UInt {
        UInt(MemoryLayout<Layout>.stride) << 16 | UInt(type.asciiValue ?? 0) << 8 | number
    }

    // MARK: The grant table

    private struct EntryV1 { var flags: UInt16 = 0, domid: UInt16 = 0, frame: UInt32 = 0 }

    @Test func entry() {
        typealias ABI = GrantABI.EntryV1
        check(EntryV1.self, ABI.byteCount, [(\.flags, ABI.flags), (\.domid, ABI.domid), (\.frame, ABI.frame)])
        #expect(ABI.perFrame * ABI.byteCount == 4096)
        #expect(GrantABI.pageBytes == 4096)
        #expect(GrantABI.reservedEntries == 8)
        #expect((GrantABI.reservedConsole, GrantABI.reservedXenstore) == (0, 1))
    }

    @Test func flags() {
        typealias GTF = GrantABI.GTF
        #expect([GTF.invalid, GTF.permitAccess, GTF.acceptTransfer, GTF.transitive] == [0, 1, 2, 3])
        #expect(GTF.typeMask == 3)
        #expect(
            [GTF.readonly, GTF.reading, GTF.writing, GTF.pwt, GTF.pcd, GTF.pat, GTF.subPage]
                == (2...8).map { 1 << $0 })
        #expect([GTF.transferCommitted, GTF.transferCompleted] == [4, 8])
    }

    @Test func statuses() {
        typealias GNTST = GrantABI.GNTST
        #expect(
            [
                GNTST.okay, GNTST.generalError, GNTST.badDomain, GNTST.badGntref, GNTST.badHandle, GNTST.badVirtAddr,
                GNTST.badDevAddr, GNTST.noDeviceSpace, GNTST.permissionDenied, GNTST.badPage, GNTST.badCopyArg,
                GNTST.addressTooBig, GNTST.eagain, GNTST.noSpace,
            ] == (0...13).map { -$0 })
    }

    @Test func operations() {
        typealias Op = GrantABI.GNTTABOP
        #expect(
            [
                Op.mapGrantRef, Op.unmapGrantRef, Op.setupTable, Op.dumpTable, Op.transfer, Op.copy, Op.querySize,
                Op.unmapAndReplace, Op.setVersion, Op.getStatusFrames, Op.getVersion, Op.swapGrantRef, Op.cacheFlush,
            ] == Array(0...12))
        typealias Map = GrantABI.GNTMAP
        #expect(
            [Map.deviceMap, Map.hostMap, Map.readonly, Map.applicationMap, Map.containsPTE] == (0...4).map { 1 << $0 })
        #expect(Map.guestAvail0 == 16)
        #expect([GrantABI.GNTCOPY.sourceGref, GrantABI.GNTCOPY.destGref] == [1, 2])
    }

    private struct MapGrantRef {
        var hostAddr: UInt64 = 0, flags: UInt32 = 0, ref: UInt32 = 0, dom: UInt16 = 0, status: Int16 = 0
        var handle: UInt32 = 0, devBusAddr: UInt64 = 0
    }
    private struct UnmapGrantRef {
        var hostAddr: UInt64 = 0, devBusAddr: UInt64 = 0, handle: UInt32 = 0, status: Int16 = 0
    }
    private struct SetupTable {
        var dom: UInt16 = 0, nrFrames: UInt32 = 0, status: Int16 = 0, frameList: UInt64 = 0
    }
    private struct DumpTable { var dom: UInt16 = 0, status: Int16 = 0 }
    private struct Transfer { var mfn: UInt64 = 0, domid: UInt16 = 0, ref: UInt32 = 0, status: Int16 = 0 }
    private struct CopySide { var refOrGMFN: UInt64 = 0, domid: UInt16 = 0, offset: UInt16 = 0, pad: UInt32 = 0 }
    private struct Copy {
        var source = CopySide(), dest = CopySide(), len: UInt16 = 0, flags: UInt16 = 0, status: Int16 = 0
    }
    private struct QuerySize {
        var dom: UInt16 = 0, nrFrames: UInt32 = 0, maxNrFrames: UInt32 = 0, status: Int16 = 0
    }
    private struct UnmapAndReplace {
        var hostAddr: UInt64 = 0, newAddr: UInt64 = 0, handle: UInt32 = 0, status: Int16 = 0
    }
    private struct SetVersion { var version: UInt32 = 0 }
    private struct GetStatusFrames {
        var nrFrames: UInt32 = 0, dom: UInt16 = 0, status: Int16 = 0, frameList: UInt64 = 0
    }
    private struct GetVersion { var dom: UInt16 = 0, pad: UInt16 = 0, version: UInt32 = 0 }
    private struct SwapGrantRef { var refA: UInt32 = 0, refB: UInt32 = 0, status: Int16 = 0 }

    @Test func operationsOfMapping() {
        typealias Map = GrantABI.MapGrantRef
        check(
            MapGrantRef.self, Map.byteCount,
            [
                (\.hostAddr, Map.hostAddr), (\.flags, Map.flags), (\.ref, Map.ref), (\.dom, Map.dom),
                (\.status, Map.status), (\.handle, Map.handle), (\.devBusAddr, Map.devBusAddr),
            ])
        typealias Unmap = GrantABI.UnmapGrantRef
        check(
            UnmapGrantRef.self, Unmap.byteCount,
            [
                (\.hostAddr, Unmap.hostAddr), (\.devBusAddr, Unmap.devBusAddr), (\.handle, Unmap.handle),
                (\.status, Unmap.status),
            ])
        typealias Replace = GrantABI.UnmapAndReplace
        check(
            UnmapAndReplace.self, Replace.byteCount,
            [
                (\.hostAddr, Replace.hostAddr), (\.newAddr, Replace.newAddr), (\.handle, Replace.handle),
                (\.status, Replace.status),
            ])
    }

    @Test func operationsOfTheTable() {
        typealias Setup = GrantABI.SetupTable
        check(
            SetupTable.self, Setup.byteCount,
            [
                (\.dom, Setup.dom), (\.nrFrames, Setup.nrFrames), (\.status, Setup.status),
                (\.frameList, Setup.frameList),
            ])
        typealias Dump = GrantABI.DumpTable
        check(DumpTable.self, Dump.byteCount, [(\.dom, Dump.dom), (\.status, Dump.status)])
        typealias Query = GrantABI.QuerySize
        check(
            QuerySize.self, Query.byteCount,
            [
                (\.dom, Query.dom), (\.nrFrames, Query.nrFrames), (\.maxNrFrames, Query.maxNrFrames),
                (\.status, Query.status),
            ])
        typealias Frames = GrantABI.GetStatusFrames
        check(
            GetStatusFrames.self, Frames.byteCount,
            [
                (\.nrFrames, Frames.nrFrames), (\.dom, Frames.dom), (\.status, Frames.status),
                (\.frameList, Frames.frameList),
            ])
        check(SetVersion.self, GrantABI.SetVersion.byteCount, [(\.version, GrantABI.SetVersion.version)])
        typealias Version = GrantABI.GetVersion
        check(GetVersion.self, Version.byteCount, [(\.dom, Version.dom), (\.version, Version.version)])
        typealias Swap = GrantABI.SwapGrantRef
        check(SwapGrantRef.self, Swap.byteCount, [(\.refA, Swap.refA), (\.refB, Swap.refB), (\.status, Swap.status)])
    }

    @Test func operationsOfCopying() {
        typealias ABI = GrantABI.Copy
        check(
            Copy.self, ABI.byteCount,
            [
                (\.source, ABI.source), (\.dest, ABI.dest), (\.len, ABI.len), (\.flags, ABI.flags),
                (\.status, ABI.status),
            ])
        typealias Side = GrantABI.CopySide
        check(
            CopySide.self, Side.byteCount,
            [(\.refOrGMFN, Side.refOrGMFN), (\.domid, Side.domid), (\.offset, Side.offset)])
        typealias Move = GrantABI.Transfer
        check(
            Transfer.self, Move.byteCount,
            [(\.mfn, Move.mfn), (\.domid, Move.domid), (\.ref, Move.ref), (\.status, Move.status)])
    }

    // MARK: Linux's devices

    private struct AllocGref {
        var domid: UInt16 = 0, flags: UInt16 = 0, count: UInt32 = 0, index: UInt64 = 0, grefIDs: UInt32 = 0
    }
    private struct DeallocGref { var index: UInt64 = 0, count: UInt32 = 0 }
    private struct UnmapNotify { var index: UInt64 = 0, action: UInt32 = 0, eventChannelPort: UInt32 = 0 }

    @Test func gntalloc() {
        typealias Number = GrantABI.GntallocIOCTL
        #expect([Number.allocGref, Number.deallocGref, Number.setUnmapNotify] == [0x184705, 0x104706, 0x104707])
        #expect(Number.allocGref == number("G", 5, AllocGref.self))
        #expect(Number.deallocGref == number("G", 6, DeallocGref.self))
        #expect(Number.setUnmapNotify == number("G", 7, UnmapNotify.self))
        typealias Alloc = GrantABI.GntallocAllocGref
        check(
            AllocGref.self, Alloc.byteCount,
            [
                (\.domid, Alloc.domid), (\.flags, Alloc.flags), (\.count, Alloc.count), (\.index, Alloc.index),
                (\.grefIDs, Alloc.grefIDs),
            ])
        #expect(Alloc.flagWritable == 1 && Alloc.defaultLimit == 1024)
        typealias Dealloc = GrantABI.GntallocDeallocGref
        check(DeallocGref.self, Dealloc.byteCount, [(\.index, Dealloc.index), (\.count, Dealloc.count)])
        typealias Notify = GrantABI.UnmapNotify
        check(
            UnmapNotify.self, Notify.byteCount,
            [(\.index, Notify.index), (\.action, Notify.action), (\.eventChannelPort, Notify.eventChannelPort)])
        #expect(Notify.clearByte == 1 && Notify.sendEvent == 2)
    }

    private struct DevMap { var count: UInt32 = 0, pad: UInt32 = 0, index: UInt64 = 0, refs: UInt64 = 0 }
    private struct DevRef { var domid: UInt32 = 0, ref: UInt32 = 0 }
    private struct DevUnmap { var index: UInt64 = 0, count: UInt32 = 0, pad: UInt32 = 0 }
    private struct DevOffset { var vaddr: UInt64 = 0, offset: UInt64 = 0, count: UInt32 = 0, pad: UInt32 = 0 }
    private struct DevCopy { var count: UInt32 = 0, segments: UInt64 = 0 }
    private struct DevSegment {
        var source: UInt64 = 0, dest: UInt64 = 0, len: UInt16 = 0, flags: UInt16 = 0, status: Int16 = 0
    }
    private struct DevSide { var ref: UInt32 = 0, offset: UInt16 = 0, domid: UInt16 = 0 }
    private struct Five { var a: UInt32 = 0, b: UInt32 = 0, c: UInt32 = 0, d: UInt32 = 0, e: UInt32 = 0 }

    @Test func gntdev() {
        typealias Number = GrantABI.GntdevIOCTL
        let expected = [
            number("G", 0, DevMap.self), number("G", 1, DevUnmap.self), number("G", 2, DevOffset.self),
            number("G", 3, UInt32.self), number("G", 7, UnmapNotify.self), number("G", 8, DevCopy.self),
            number("G", 9, Five.self), number("G", 10, DevRef.self), number("G", 11, Five.self),
            number("G", 12, DevRef.self),
        ]
        let found = [
            Number.mapGrantRef, Number.unmapGrantRef, Number.getOffsetForVaddr, Number.setMaxGrants,
            Number.setUnmapNotify, Number.grantCopy, Number.dmabufExpFromRefs, Number.dmabufExpWaitReleased,
            Number.dmabufImpToRefs, Number.dmabufImpRelease,
        ]
        #expect(found == expected)
        #expect(
            found == [
                0x184700, 0x104701, 0x184702, 0x44703, 0x104707, 0x104708, 0x144709, 0x8470a, 0x14470b, 0x8470c,
            ])
        typealias Map = GrantABI.GntdevMapGrantRef
        check(DevMap.self, Map.byteCount, [(\.count, Map.count), (\.index, Map.index), (\.refs, Map.refs)])
        #expect(Map.defaultLimit == 65536)
        typealias Ref = GrantABI.GntdevGrantRef
        check(DevRef.self, Ref.byteCount, [(\.domid, Ref.domid), (\.ref, Ref.ref)])
        typealias Unmap = GrantABI.GntdevUnmapGrantRef
        check(DevUnmap.self, Unmap.byteCount, [(\.index, Unmap.index), (\.count, Unmap.count)])
        typealias Offset = GrantABI.GntdevGetOffsetForVaddr
        check(
            DevOffset.self, Offset.byteCount,
            [(\.vaddr, Offset.vaddr), (\.offset, Offset.offset), (\.count, Offset.count)])
        typealias Copy = GrantABI.GntdevGrantCopy
        check(DevCopy.self, Copy.byteCount, [(\.count, Copy.count), (\.segments, Copy.segments)])
        typealias Segment = GrantABI.GntdevGrantCopySegment
        check(
            DevSegment.self, Segment.byteCount,
            [
                (\.source, Segment.source), (\.dest, Segment.dest), (\.len, Segment.len), (\.flags, Segment.flags),
                (\.status, Segment.status),
            ])
        check(
            DevSide.self, Segment.dest - Segment.source,
            [(\.ref, Segment.sideRef), (\.offset, Segment.sideOffset), (\.domid, Segment.sideDomid)])
    }

    private struct BindInterdomain { var remoteDomain: UInt32 = 0, remotePort: UInt32 = 0 }

    @Test func evtchn() {
        typealias Number = GrantABI.EvtchnIOCTL
        let found = [
            Number.bindVIRQ, Number.bindInterdomain, Number.bindUnboundPort, Number.unbind, Number.notify, Number.reset,
            Number.restrictDomid,
        ]
        #expect(found == [0x44500, 0x84501, 0x44502, 0x44503, 0x44504, 0x4505, 0x24506])
        #expect(Number.bindVIRQ == number("E", 0, UInt32.self))
        #expect(Number.bindInterdomain == number("E", 1, BindInterdomain.self))
        #expect(Number.restrictDomid == number("E", 6, UInt16.self))
        typealias Bind = GrantABI.EvtchnBindInterdomain
        check(
            BindInterdomain.self, Bind.byteCount,
            [(\.remoteDomain, Bind.remoteDomain), (\.remotePort, Bind.remotePort)])
    }
}
