// Shared with the Guest: it imports nothing, and holds numbers only. The names
// are those of Xen's public headers (grant_table.h) and of Linux's (gntalloc.h,
// gntdev.h, evtchn.h), in Swift's case; offsets and sizes are in bytes, and of
// 64-bit machines.

//D:240 A page lent to a neighbour
//
// A domain that wants to share a page does not ask anybody. It has a table in
// its own memory, which the hypervisor reads too, and writes there: this frame,
// for that domain. The number of the entry is the grant reference, and whoever
// hears of it and is that domain may map the page.
//
//      an entry, version 1     flags 16 | domid 16 | frame 32
//                              bits 0-1 type, 2 readonly, 3 reading, 4 writing
//
// 512 of them in a page of the table; the first eight are promised to others
// (0 the console, 1 the store). The owner writes type and readonly, the
// hypervisor reading and writing, which say that somebody has the page now. So
// two parties write the same 16 bits, and D:420 tells what that costs.

/// Grant tables, and the devices by which Linux gives them to programs.
public enum GrantABI {
    /// grant_entry_v1_t: what a table is made of.
    public enum EntryV1 {
        /// 16 bits: a type, then flags (`GTF`).
        @inlinable public static var flags: Int { 0 }
        /// 16 bits: whom it is for.
        @inlinable public static var domid: Int { 2 }
        /// 32 bits: the number of the granted frame.
        @inlinable public static var frame: Int { 4 }
        @inlinable public static var byteCount: Int { 8 }
        /// In a frame of the table.
        @inlinable public static var perFrame: Int { 512 }
    }

    /// Entries that the toolstack fills: `GNTTAB_NR_RESERVED_ENTRIES`.
    @inlinable public static var reservedEntries: UInt32 { 8 }
    @inlinable public static var reservedConsole: UInt32 { 0 }
    @inlinable public static var reservedXenstore: UInt32 { 1 }

    /// GTF_…: an entry's first 16 bits.
    public enum GTF {
        @inlinable public static var typeMask: UInt16 { 3 }
        @inlinable public static var invalid: UInt16 { 0 }
        @inlinable public static var permitAccess: UInt16 { 1 }
        @inlinable public static var acceptTransfer: UInt16 { 2 }
        /// Version 2 only.
        @inlinable public static var transitive: UInt16 { 3 }
        /// Owner's, of `permitAccess`.
        @inlinable public static var readonly: UInt16 { 0x4 }
        /// Hypervisor's: somebody has the page.
        @inlinable public static var reading: UInt16 { 0x8 }
        /// Hypervisor's: somebody may write to it; `reading` is set, too.
        @inlinable public static var writing: UInt16 { 0x10 }
        @inlinable public static var pwt: UInt16 { 0x20 }
        @inlinable public static var pcd: UInt16 { 0x40 }
        @inlinable public static var pat: UInt16 { 0x80 }
        /// Version 2 only.
        @inlinable public static var subPage: UInt16 { 0x100 }
        /// Hypervisor's, of `acceptTransfer`.
        @inlinable public static var transferCommitted: UInt16 { 0x4 }
        @inlinable public static var transferCompleted: UInt16 { 0x8 }
    }

    /// GNTST_…: how an operation went.
    public enum GNTST {
        @inlinable public static var okay: Int16 { 0 }
        @inlinable public static var generalError: Int16 { -1 }
        @inlinable public static var badDomain: Int16 { -2 }
        @inlinable public static var badGntref: Int16 { -3 }
        @inlinable public static var badHandle: Int16 { -4 }
        @inlinable public static var badVirtAddr: Int16 { -5 }
        @inlinable public static var badDevAddr: Int16 { -6 }
        @inlinable public static var noDeviceSpace: Int16 { -7 }
        @inlinable public static var permissionDenied: Int16 { -8 }
        @inlinable public static var badPage: Int16 { -9 }
        @inlinable public static var badCopyArg: Int16 { -10 }
        @inlinable public static var addressTooBig: Int16 { -11 }
        @inlinable public static var eagain: Int16 { -12 }
        @inlinable public static var noSpace: Int16 { -13 }
    }

    /// GNTMAP_…: how a page is to be mapped.
    public enum GNTMAP {
        @inlinable public static var deviceMap: UInt32 { 1 }
        @inlinable public static var hostMap: UInt32 { 2 }
        @inlinable public static var readonly: UInt32 { 4 }
        @inlinable public static var applicationMap: UInt32 { 8 }
        @inlinable public static var containsPTE: UInt32 { 0x10 }
        /// Bits from here on are the guest's to use.
        @inlinable public static var guestAvail0: UInt32 { 16 }
    }

    /// GNTTABOP_…: the first argument of the hypercall grant_table_op.
    public enum GNTTABOP {
        @inlinable public static var mapGrantRef: UInt32 { 0 }
        @inlinable public static var unmapGrantRef: UInt32 { 1 }
        @inlinable public static var setupTable: UInt32 { 2 }
        @inlinable public static var dumpTable: UInt32 { 3 }
        @inlinable public static var transfer: UInt32 { 4 }
        @inlinable public static var copy: UInt32 { 5 }
        @inlinable public static var querySize: UInt32 { 6 }
        @inlinable public static var unmapAndReplace: UInt32 { 7 }
        @inlinable public static var setVersion: UInt32 { 8 }
        @inlinable public static var getStatusFrames: UInt32 { 9 }
        @inlinable public static var getVersion: UInt32 { 10 }
        @inlinable public static var swapGrantRef: UInt32 { 11 }
        /// Arm only.
        @inlinable public static var cacheFlush: UInt32 { 12 }
    }

    /// struct gnttab_map_grant_ref.
    public enum MapGrantRef {
        @inlinable public static var hostAddr: Int { 0 }
        @inlinable public static var flags: Int { 8 }
        @inlinable public static var ref: Int { 12 }
        @inlinable public static var dom: Int { 16 }
        /// Out, as is what follows.
        @inlinable public static var status: Int { 18 }
        @inlinable public static var handle: Int { 20 }
        @inlinable public static var devBusAddr: Int { 24 }
        @inlinable public static var byteCount: Int { 32 }
    }

    /// struct gnttab_unmap_grant_ref.
    public enum UnmapGrantRef {
        @inlinable public static var hostAddr: Int { 0 }
        @inlinable public static var devBusAddr: Int { 8 }
        @inlinable public static var handle: Int { 16 }
        /// Out.
        @inlinable public static var status: Int { 20 }
        @inlinable public static var byteCount: Int { 24 }
    }

    /// struct gnttab_setup_table.
    public enum SetupTable {
        @inlinable public static var dom: Int { 0 }
        @inlinable public static var nrFrames: Int { 4 }
        /// Out.
        @inlinable public static var status: Int { 8 }
        /// A pointer to an array of 64 bits each, which is out.
        @inlinable public static var frameList: Int { 16 }
        @inlinable public static var byteCount: Int { 24 }
    }

    /// struct gnttab_dump_table.
    public enum DumpTable {
        @inlinable public static var dom: Int { 0 }
        /// Out.
        @inlinable public static var status: Int { 2 }
        @inlinable public static var byteCount: Int { 4 }
    }

    /// struct gnttab_transfer.
    public enum Transfer {
        @inlinable public static var mfn: Int { 0 }
        @inlinable public static var domid: Int { 8 }
        @inlinable public static var ref: Int { 12 }
        /// Out.
        @inlinable public static var status: Int { 16 }
        @inlinable public static var byteCount: Int { 24 }
    }

    /// struct gnttab_copy: two sides (`CopySide`), then how much.
    public enum Copy {
        @inlinable public static var source: Int { 0 }
        @inlinable public static var dest: Int { 16 }
        @inlinable public static var len: Int { 32 }
        /// `GNTCOPY`.
        @inlinable public static var flags: Int { 34 }
        /// Out.
        @inlinable public static var status: Int { 36 }
        @inlinable public static var byteCount: Int { 40 }
    }

    /// A side of a copy, from where it begins.
    public enum CopySide {
        /// 32 bits of a reference, or 64 of a frame's number.
        @inlinable public static var refOrGMFN: Int { 0 }
        @inlinable public static var domid: Int { 8 }
        @inlinable public static var offset: Int { 10 }
        @inlinable public static var byteCount: Int { 16 }
    }

    /// GNTCOPY_…: which side is a reference. gntdev has the same two.
    public enum GNTCOPY {
        @inlinable public static var sourceGref: UInt16 { 1 }
        @inlinable public static var destGref: UInt16 { 2 }
    }

    /// struct gnttab_query_size.
    public enum QuerySize {
        @inlinable public static var dom: Int { 0 }
        /// Out, as is what follows.
        @inlinable public static var nrFrames: Int { 4 }
        @inlinable public static var maxNrFrames: Int { 8 }
        @inlinable public static var status: Int { 12 }
        @inlinable public static var byteCount: Int { 16 }
    }

    /// struct gnttab_unmap_and_replace.
    public enum UnmapAndReplace {
        @inlinable public static var hostAddr: Int { 0 }
        @inlinable public static var newAddr: Int { 8 }
        @inlinable public static var handle: Int { 16 }
        /// Out.
        @inlinable public static var status: Int { 20 }
        @inlinable public static var byteCount: Int { 24 }
    }

    /// struct gnttab_set_version.
    public enum SetVersion {
        /// In: the one that is wanted. Out: the one that is.
        @inlinable public static var version: Int { 0 }
        @inlinable public static var byteCount: Int { 4 }
    }

    /// struct gnttab_get_status_frames.
    public enum GetStatusFrames {
        @inlinable public static var nrFrames: Int { 0 }
        @inlinable public static var dom: Int { 4 }
        /// Out.
        @inlinable public static var status: Int { 6 }
        @inlinable public static var frameList: Int { 8 }
        @inlinable public static var byteCount: Int { 16 }
    }

    /// struct gnttab_get_version.
    public enum GetVersion {
        @inlinable public static var dom: Int { 0 }
        /// Out.
        @inlinable public static var version: Int { 4 }
        @inlinable public static var byteCount: Int { 8 }
    }

    /// struct gnttab_swap_grant_ref.
    public enum SwapGrantRef {
        @inlinable public static var refA: Int { 0 }
        @inlinable public static var refB: Int { 4 }
        /// Out.
        @inlinable public static var status: Int { 8 }
        @inlinable public static var byteCount: Int { 12 }
    }
}
//:

// What Linux's programs say to its devices. All three use _IOC_NONE, so a number is
// size << 16 | type << 8 | nr. A struct that ends in an array is counted with one element of it.

extension GrantABI {
    /// What gntalloc and gntdev call a page.
    @inlinable public static var pageBytes: UInt64 { 4096 }

    /// IOCTL_GNTALLOC_…, of /dev/xen/gntalloc.
    public enum GntallocIOCTL {
        @inlinable public static var allocGref: UInt { 0x0018_4705 }
        @inlinable public static var deallocGref: UInt { 0x0010_4706 }
        @inlinable public static var setUnmapNotify: UInt { 0x0010_4707 }
    }

    /// struct ioctl_gntalloc_alloc_gref.
    public enum GntallocAllocGref {
        @inlinable public static var domid: Int { 0 }
        @inlinable public static var flags: Int { 2 }
        @inlinable public static var count: Int { 4 }
        /// Out, as is what follows.
        @inlinable public static var index: Int { 8 }
        /// 32 bits each.
        @inlinable public static var grefIDs: Int { 16 }
        /// With one reference.
        @inlinable public static var byteCount: Int { 24 }
        /// GNTALLOC_FLAG_WRITABLE; other bits are ignored.
        @inlinable public static var flagWritable: UInt16 { 1 }
        /// Pages that all files together may have, unless the module is told otherwise.
        @inlinable public static var defaultLimit: UInt32 { 1024 }
    }

    /// struct ioctl_gntalloc_dealloc_gref.
    public enum GntallocDeallocGref {
        @inlinable public static var index: Int { 0 }
        @inlinable public static var count: Int { 8 }
        @inlinable public static var byteCount: Int { 16 }
    }

    /// struct ioctl_gntalloc_unmap_notify, and gntdev's of the same form.
    public enum UnmapNotify {
        @inlinable public static var index: Int { 0 }
        @inlinable public static var action: Int { 8 }
        @inlinable public static var eventChannelPort: Int { 12 }
        @inlinable public static var byteCount: Int { 16 }
        /// UNMAP_NOTIFY_…: actions, or-ed; 0 takes a notification back.
        @inlinable public static var clearByte: UInt32 { 1 }
        @inlinable public static var sendEvent: UInt32 { 2 }
    }

    /// IOCTL_GNTDEV_…, of /dev/xen/gntdev.
    public enum GntdevIOCTL {
        @inlinable public static var mapGrantRef: UInt { 0x0018_4700 }
        @inlinable public static var unmapGrantRef: UInt { 0x0010_4701 }
        @inlinable public static var getOffsetForVaddr: UInt { 0x0018_4702 }
        /// Of old; today's drivers do not know it.
        @inlinable public static var setMaxGrants: UInt { 0x0004_4703 }
        @inlinable public static var setUnmapNotify: UInt { 0x0010_4707 }
        @inlinable public static var grantCopy: UInt { 0x0010_4708 }
        @inlinable public static var dmabufExpFromRefs: UInt { 0x0014_4709 }
        @inlinable public static var dmabufExpWaitReleased: UInt { 0x0008_470a }
        @inlinable public static var dmabufImpToRefs: UInt { 0x0014_470b }
        @inlinable public static var dmabufImpRelease: UInt { 0x0008_470c }
    }

    /// struct ioctl_gntdev_map_grant_ref.
    public enum GntdevMapGrantRef {
        @inlinable public static var count: Int { 0 }
        /// Out.
        @inlinable public static var index: Int { 8 }
        /// `GntdevGrantRef`, one after the other.
        @inlinable public static var refs: Int { 16 }
        /// With one reference.
        @inlinable public static var byteCount: Int { 24 }
        /// References in one request, at most.
        @inlinable public static var defaultLimit: UInt32 { 65536 }
    }

    /// struct ioctl_gntdev_grant_ref.
    public enum GntdevGrantRef {
        @inlinable public static var domid: Int { 0 }
        @inlinable public static var ref: Int { 4 }
        @inlinable public static var byteCount: Int { 8 }
    }

    /// struct ioctl_gntdev_unmap_grant_ref.
    public enum GntdevUnmapGrantRef {
        @inlinable public static var index: Int { 0 }
        @inlinable public static var count: Int { 8 }
        @inlinable public static var byteCount: Int { 16 }
    }

    /// struct ioctl_gntdev_get_offset_for_vaddr.
    public enum GntdevGetOffsetForVaddr {
        @inlinable public static var vaddr: Int { 0 }
        /// Out, as is what follows.
        @inlinable public static var offset: Int { 8 }
        @inlinable public static var count: Int { 16 }
        @inlinable public static var byteCount: Int { 24 }
    }

    /// struct ioctl_gntdev_grant_copy.
    public enum GntdevGrantCopy {
        @inlinable public static var count: Int { 0 }
        @inlinable public static var segments: Int { 8 }
        @inlinable public static var byteCount: Int { 16 }
    }

    /// struct gntdev_grant_copy_segment. A side is a pointer, or a reference with offset and domain.
    public enum GntdevGrantCopySegment {
        @inlinable public static var source: Int { 0 }
        @inlinable public static var dest: Int { 8 }
        @inlinable public static var len: Int { 16 }
        @inlinable public static var flags: Int { 18 }
        /// Out.
        @inlinable public static var status: Int { 20 }
        @inlinable public static var byteCount: Int { 24 }
        /// Within a side that is a reference.
        @inlinable public static var sideRef: Int { 0 }
        @inlinable public static var sideOffset: Int { 4 }
        @inlinable public static var sideDomid: Int { 6 }
    }

    /// IOCTL_EVTCHN_…, of /dev/xen/evtchn. What is bound is the ioctl's result.
    public enum EvtchnIOCTL {
        @inlinable public static var bindVIRQ: UInt { 0x0004_4500 }
        @inlinable public static var bindInterdomain: UInt { 0x0008_4501 }
        @inlinable public static var bindUnboundPort: UInt { 0x0004_4502 }
        @inlinable public static var unbind: UInt { 0x0004_4503 }
        @inlinable public static var notify: UInt { 0x0004_4504 }
        @inlinable public static var reset: UInt { 0x0000_4505 }
        @inlinable public static var restrictDomid: UInt { 0x0002_4506 }
    }

    /// struct ioctl_evtchn_bind_interdomain. The other structs are one field each.
    public enum EvtchnBindInterdomain {
        @inlinable public static var remoteDomain: Int { 0 }
        @inlinable public static var remotePort: Int { 4 }
        @inlinable public static var byteCount: Int { 8 }
    }
}
