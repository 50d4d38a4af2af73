// Shared with the Guest: it imports nothing, and holds numbers only. The names
// are those of Xen's public headers (xen.h, event_channel.h, memory.h, sched.h,
// vcpu.h, features.h, hvm/), in Swift's case; offsets and sizes are in bytes, and
// of x86-64.

//D:245 What a guest of Xen's expects
//
// A hypercall is a number in RAX and up to five arguments in RDI, RSI, RDX,
// R10 and R8. Most take an operation first, then the address of a struct, which
// is an address of the caller's: whoever answers walks the caller's page
// tables. The answer is in RAX, and if it is negative, it is an errno.
//
// An event channel has two ends, each with a port, and carries no data: only
// that something happened. D:250 draws how the guest is told, D:260 how two ends
// meet.

/// Hypercalls, event channels and the pages that a guest shares with Xen.
public enum XenABI {
    /// __HYPERVISOR_…: RAX.
    public enum Hypercall {
        @inlinable public static var memoryOp: UInt64 { 12 }
        @inlinable public static var setTimerOp: UInt64 { 15 }
        @inlinable public static var xenVersion: UInt64 { 17 }
        @inlinable public static var consoleIO: UInt64 { 18 }
        @inlinable public static var grantTableOp: UInt64 { 20 }
        @inlinable public static var vmAssist: UInt64 { 21 }
        @inlinable public static var vcpuOp: UInt64 { 24 }
        @inlinable public static var mmuextOp: UInt64 { 26 }
        @inlinable public static var schedOp: UInt64 { 29 }
        @inlinable public static var eventChannelOp: UInt64 { 32 }
        @inlinable public static var physdevOp: UInt64 { 33 }
        @inlinable public static var hvmOp: UInt64 { 34 }
        /// A call's code in the hypercall page: this times its number.
        @inlinable public static var stubBytes: Int { 32 }
    }

    /// DOMID_…: domains that are none. Real ones are below `firstReserved`.
    public enum DOMID {
        @inlinable public static var firstReserved: UInt16 { 0x7ff0 }
        @inlinable public static var selfID: UInt16 { 0x7ff0 }
        @inlinable public static var io: UInt16 { 0x7ff1 }
        @inlinable public static var xen: UInt16 { 0x7ff2 }
        @inlinable public static var cow: UInt16 { 0x7ff3 }
        @inlinable public static var invalid: UInt16 { 0x7ff4 }
        @inlinable public static var idle: UInt16 { 0x7fff }
    }

    /// Errors: a hypercall's result is minus one of these, and so is an ioctl's. Xen's numbers are Linux's.
    public enum Errno {
        @inlinable public static var eperm: Int32 { 1 }
        @inlinable public static var enoent: Int32 { 2 }
        @inlinable public static var esrch: Int32 { 3 }
        @inlinable public static var eio: Int32 { 5 }
        @inlinable public static var e2big: Int32 { 7 }
        @inlinable public static var ebadf: Int32 { 9 }
        @inlinable public static var eagain: Int32 { 11 }
        @inlinable public static var enomem: Int32 { 12 }
        @inlinable public static var eacces: Int32 { 13 }
        @inlinable public static var efault: Int32 { 14 }
        @inlinable public static var ebusy: Int32 { 16 }
        @inlinable public static var eexist: Int32 { 17 }
        @inlinable public static var enodev: Int32 { 19 }
        @inlinable public static var einval: Int32 { 22 }
        @inlinable public static var enotty: Int32 { 25 }
        @inlinable public static var efbig: Int32 { 27 }
        @inlinable public static var enospc: Int32 { 28 }
        @inlinable public static var enosys: Int32 { 38 }
        @inlinable public static var enotconn: Int32 { 107 }
    }

    /// Where CPUID has Xen: from `first` on, a step for each hypervisor that may be there.
    public enum CPUID {
        @inlinable public static var first: UInt32 { 0x4000_0000 }
        @inlinable public static var last: UInt32 { 0x4000_ff00 }
        @inlinable public static var step: UInt32 { 0x100 }
        /// "XenVMMXenVMM", as EBX, ECX and EDX have it.
        @inlinable public static var signatureEBX: UInt32 { 0x566e_6558 }
        @inlinable public static var signatureECX: UInt32 { 0x6558_4d4d }
        @inlinable public static var signatureEDX: UInt32 { 0x4d4d_566e }
        /// From the base: EAX has major << 16 | minor.
        @inlinable public static var versionLeaf: UInt32 { 1 }
        /// EAX has the number of hypercall pages, EBX their MSR.
        @inlinable public static var hypercallLeaf: UInt32 { 2 }
        @inlinable public static var timeLeaf: UInt32 { 3 }
        @inlinable public static var hvmLeaf: UInt32 { 4 }
        /// EAX of `hvmLeaf`: EBX has the virtual CPU's number, ECX the domain's.
        @inlinable public static var hvmHasVCPUID: UInt32 { 1 << 3 }
        @inlinable public static var hvmHasDomid: UInt32 { 1 << 4 }
        /// EAX of `hvmLeaf`: HVMOP_set_evtchn_upcall_vector is there.
        @inlinable public static var hvmHasUpcallVector: UInt32 { 1 << 6 }
    }

    /// XENVER_…: xen_version's operations.
    public enum XENVER {
        @inlinable public static var version: UInt32 { 0 }
        @inlinable public static var extraversion: UInt32 { 1 }
        @inlinable public static var getFeatures: UInt32 { 6 }
    }

    /// struct xen_feature_info.
    public enum FeatureInfo {
        @inlinable public static var submapIdx: Int { 0 }
        /// Out.
        @inlinable public static var submap: Int { 4 }
        @inlinable public static var byteCount: Int { 8 }
    }

    /// XENFEAT_…: bits of submap 0, by number.
    public enum XENFEAT {
        @inlinable public static var writablePageTables: UInt32 { 0 }
        @inlinable public static var writableDescriptorTables: UInt32 { 1 }
        @inlinable public static var autoTranslatedPhysmap: UInt32 { 2 }
        @inlinable public static var supervisorModeKernel: UInt32 { 3 }
        @inlinable public static var paePgdirAbove4GB: UInt32 { 4 }
        @inlinable public static var mmuPTUpdatePreserveAD: UInt32 { 5 }
        @inlinable public static var highmemAssist: UInt32 { 6 }
        @inlinable public static var gnttabMapAvailBits: UInt32 { 7 }
        @inlinable public static var hvmCallbackVector: UInt32 { 8 }
        @inlinable public static var hvmSafePvclock: UInt32 { 9 }
        @inlinable public static var hvmPirqs: UInt32 { 10 }
        @inlinable public static var dom0: UInt32 { 11 }
        @inlinable public static var memoryOpVnodeSupported: UInt32 { 13 }
        @inlinable public static var linuxRsdpUnrestricted: UInt32 { 15 }
    }
}

extension XenABI {
    /// EVTCHNOP_…: event_channel_op's operations.
    public enum EVTCHNOP {
        @inlinable public static var bindInterdomain: UInt32 { 0 }
        @inlinable public static var bindVIRQ: UInt32 { 1 }
        @inlinable public static var bindPIRQ: UInt32 { 2 }
        @inlinable public static var close: UInt32 { 3 }
        @inlinable public static var send: UInt32 { 4 }
        @inlinable public static var status: UInt32 { 5 }
        @inlinable public static var allocUnbound: UInt32 { 6 }
        @inlinable public static var bindIPI: UInt32 { 7 }
        @inlinable public static var bindVCPU: UInt32 { 8 }
        @inlinable public static var unmask: UInt32 { 9 }
        @inlinable public static var reset: UInt32 { 10 }
        @inlinable public static var initControl: UInt32 { 11 }
        @inlinable public static var expandArray: UInt32 { 12 }
        @inlinable public static var setPriority: UInt32 { 13 }
    }

    /// struct evtchn_bind_interdomain.
    public enum EvtchnBindInterdomain {
        @inlinable public static var remoteDom: Int { 0 }
        @inlinable public static var remotePort: Int { 4 }
        /// Out.
        @inlinable public static var localPort: Int { 8 }
        @inlinable public static var byteCount: Int { 12 }
    }

    /// struct evtchn_bind_virq.
    public enum EvtchnBindVIRQ {
        @inlinable public static var virq: Int { 0 }
        @inlinable public static var vcpu: Int { 4 }
        /// Out.
        @inlinable public static var port: Int { 8 }
        @inlinable public static var byteCount: Int { 12 }
    }

    /// struct evtchn_bind_pirq.
    public enum EvtchnBindPIRQ {
        @inlinable public static var pirq: Int { 0 }
        @inlinable public static var flags: Int { 4 }
        /// Out.
        @inlinable public static var port: Int { 8 }
        @inlinable public static var byteCount: Int { 12 }
    }

    /// struct evtchn_close, evtchn_send, evtchn_unmask: a port.
    public enum EvtchnPort {
        @inlinable public static var port: Int { 0 }
        @inlinable public static var byteCount: Int { 4 }
    }

    /// struct evtchn_status.
    public enum EvtchnStatus {
        @inlinable public static var dom: Int { 0 }
        @inlinable public static var port: Int { 4 }
        /// Out, as is what follows: `EVTCHNSTAT`.
        @inlinable public static var status: Int { 8 }
        @inlinable public static var vcpu: Int { 12 }
        /// The domain of one that is unbound; the interrupt's number of a pirq or virq.
        @inlinable public static var detail: Int { 16 }
        @inlinable public static var interdomainDom: Int { 16 }
        @inlinable public static var interdomainPort: Int { 20 }
        @inlinable public static var byteCount: Int { 24 }
    }

    /// EVTCHNSTAT_…
    public enum EVTCHNSTAT {
        @inlinable public static var closed: UInt32 { 0 }
        @inlinable public static var unbound: UInt32 { 1 }
        @inlinable public static var interdomain: UInt32 { 2 }
        @inlinable public static var pirq: UInt32 { 3 }
        @inlinable public static var virq: UInt32 { 4 }
        @inlinable public static var ipi: UInt32 { 5 }
    }

    /// struct evtchn_alloc_unbound.
    public enum EvtchnAllocUnbound {
        @inlinable public static var dom: Int { 0 }
        @inlinable public static var remoteDom: Int { 2 }
        /// Out.
        @inlinable public static var port: Int { 4 }
        @inlinable public static var byteCount: Int { 8 }
    }

    /// struct evtchn_bind_ipi.
    public enum EvtchnBindIPI {
        @inlinable public static var vcpu: Int { 0 }
        /// Out.
        @inlinable public static var port: Int { 4 }
        @inlinable public static var byteCount: Int { 8 }
    }

    /// struct evtchn_bind_vcpu.
    public enum EvtchnBindVCPU {
        @inlinable public static var port: Int { 0 }
        @inlinable public static var vcpu: Int { 4 }
        @inlinable public static var byteCount: Int { 8 }
    }

    /// struct evtchn_reset.
    public enum EvtchnReset {
        @inlinable public static var dom: Int { 0 }
        @inlinable public static var byteCount: Int { 2 }
    }

    /// struct evtchn_init_control.
    public enum EvtchnInitControl {
        @inlinable public static var controlGFN: Int { 0 }
        @inlinable public static var offset: Int { 8 }
        @inlinable public static var vcpu: Int { 12 }
        /// Out.
        @inlinable public static var linkBits: Int { 16 }
        @inlinable public static var byteCount: Int { 24 }
    }

    /// struct evtchn_expand_array.
    public enum EvtchnExpandArray {
        @inlinable public static var arrayGFN: Int { 0 }
        @inlinable public static var byteCount: Int { 8 }
    }

    /// struct evtchn_set_priority.
    public enum EvtchnSetPriority {
        @inlinable public static var port: Int { 0 }
        @inlinable public static var priority: Int { 4 }
        @inlinable public static var byteCount: Int { 8 }
    }

    /// VIRQ_…: interrupts that come from Xen itself.
    public enum VIRQ {
        @inlinable public static var timer: UInt32 { 0 }
        @inlinable public static var debug: UInt32 { 1 }
        @inlinable public static var console: UInt32 { 2 }
        @inlinable public static var domExc: UInt32 { 3 }
        @inlinable public static var tbuf: UInt32 { 4 }
        @inlinable public static var debugger: UInt32 { 6 }
        @inlinable public static var xenoprof: UInt32 { 7 }
        @inlinable public static var conRing: UInt32 { 8 }
        @inlinable public static var pcpuState: UInt32 { 9 }
        @inlinable public static var memEvent: UInt32 { 10 }
        @inlinable public static var argo: UInt32 { 11 }
        @inlinable public static var enomem: UInt32 { 12 }
        @inlinable public static var xenpmu: UInt32 { 13 }
        /// The first of eight that each architecture has for itself.
        @inlinable public static var arch0: UInt32 { 16 }
        @inlinable public static var count: UInt32 { 24 }
    }

    /// struct shared_info: one page.
    public enum SharedInfo {
        /// `VCPUInfo`, one after the other.
        @inlinable public static var vcpuInfo: Int { 0 }
        @inlinable public static var vcpuCount: Int { 32 }
        /// 64 × 64 bits each, one bit for each port.
        @inlinable public static var evtchnPending: Int { 0x800 }
        @inlinable public static var evtchnMask: Int { 0xa00 }
        @inlinable public static var evtchnWords: Int { 64 }
        /// Ports of the two-level kind; 0 is never one.
        @inlinable public static var evtchnCount: UInt32 { 4096 }
        /// The time of day at which the guest's clock was 0; odd while it changes.
        @inlinable public static var wcVersion: Int { 0xc00 }
        @inlinable public static var wcSec: Int { 0xc04 }
        @inlinable public static var wcNsec: Int { 0xc08 }
        @inlinable public static var wcSecHi: Int { 0xc0c }
        /// struct arch_shared_info.
        @inlinable public static var arch: Int { 0xc10 }
        @inlinable public static var maxPFN: Int { 0xc10 }
        @inlinable public static var pfnToMFNFrameListList: Int { 0xc18 }
        @inlinable public static var nmiReason: Int { 0xc20 }
        @inlinable public static var p2mCR3: Int { 0xc28 }
        @inlinable public static var p2mVaddr: Int { 0xc30 }
        @inlinable public static var p2mGeneration: Int { 0xc38 }
    }

    /// struct vcpu_info.
    public enum VCPUInfo {
        @inlinable public static var evtchnUpcallPending: Int { 0 }
        @inlinable public static var evtchnUpcallMask: Int { 1 }
        /// 64 bits: which words of evtchn_pending to look at.
        @inlinable public static var evtchnPendingSel: Int { 8 }
        @inlinable public static var archCR2: Int { 16 }
        /// `VCPUTimeInfo`.
        @inlinable public static var time: Int { 32 }
        @inlinable public static var byteCount: Int { 64 }
    }

    /// struct vcpu_time_info: ns = system_time + ((Δtsc << shift) · mul) >> 32.
    public enum VCPUTimeInfo {
        /// Odd while it changes.
        @inlinable public static var version: Int { 0 }
        @inlinable public static var tscTimestamp: Int { 8 }
        @inlinable public static var systemTime: Int { 16 }
        @inlinable public static var tscToSystemMul: Int { 24 }
        /// 8 bits, signed.
        @inlinable public static var tscShift: Int { 28 }
        @inlinable public static var flags: Int { 29 }
        @inlinable public static var byteCount: Int { 32 }
        /// XEN_PVCLOCK_TSC_STABLE_BIT.
        @inlinable public static var tscStable: UInt8 { 1 }
    }
}
//:

extension XenABI {
    /// XENMEM_…: memory_op's operations.
    public enum XENMEM {
        @inlinable public static var increaseReservation: UInt32 { 0 }
        @inlinable public static var decreaseReservation: UInt32 { 1 }
        @inlinable public static var currentReservation: UInt32 { 3 }
        @inlinable public static var maximumReservation: UInt32 { 4 }
        @inlinable public static var populatePhysmap: UInt32 { 6 }
        @inlinable public static var addToPhysmap: UInt32 { 7 }
        @inlinable public static var memoryMap: UInt32 { 9 }
        @inlinable public static var removeFromPhysmap: UInt32 { 15 }
        @inlinable public static var addToPhysmapBatch: UInt32 { 23 }
    }

    /// struct xen_add_to_physmap.
    public enum AddToPhysmap {
        @inlinable public static var domid: Int { 0 }
        /// Of `gmfnRange` only.
        @inlinable public static var size: Int { 2 }
        /// `XENMAPSPACE`.
        @inlinable public static var space: Int { 4 }
        @inlinable public static var idx: Int { 8 }
        @inlinable public static var gpfn: Int { 16 }
        @inlinable public static var byteCount: Int { 24 }
        /// XENMAPIDX_grant_table_status: idx is of version 2's status frames.
        @inlinable public static var idxGrantTableStatus: UInt64 { 0x8000_0000 }
    }

    /// XENMAPSPACE_…: what to put into the guest's memory.
    public enum XENMAPSPACE {
        @inlinable public static var sharedInfo: UInt32 { 0 }
        @inlinable public static var grantTable: UInt32 { 1 }
        @inlinable public static var gmfn: UInt32 { 2 }
        @inlinable public static var gmfnRange: UInt32 { 3 }
        @inlinable public static var gmfnForeign: UInt32 { 4 }
        @inlinable public static var devMMIO: UInt32 { 5 }
    }

    /// HVMOP_…: hvm_op's operations.
    public enum HVMOP {
        @inlinable public static var setParam: UInt32 { 0 }
        @inlinable public static var getParam: UInt32 { 1 }
        @inlinable public static var pagetableDying: UInt32 { 9 }
        @inlinable public static var setEvtchnUpcallVector: UInt32 { 23 }
    }

    /// struct xen_hvm_param.
    public enum HVMParam {
        @inlinable public static var domid: Int { 0 }
        @inlinable public static var index: Int { 4 }
        /// Out of `getParam`.
        @inlinable public static var value: Int { 8 }
        @inlinable public static var byteCount: Int { 16 }
    }

    /// struct xen_hvm_evtchn_upcall_vector.
    public enum HVMEvtchnUpcallVector {
        @inlinable public static var vcpu: Int { 0 }
        @inlinable public static var vector: Int { 4 }
        @inlinable public static var byteCount: Int { 8 }
        /// Smaller ones are refused.
        @inlinable public static var minimum: UInt8 { 0x10 }
    }

    /// HVM_PARAM_…
    public enum HVMPARAM {
        @inlinable public static var callbackIRQ: UInt32 { 0 }
        @inlinable public static var storePFN: UInt32 { 1 }
        @inlinable public static var storeEvtchn: UInt32 { 2 }
        @inlinable public static var consolePFN: UInt32 { 17 }
        @inlinable public static var consoleEvtchn: UInt32 { 18 }
        /// HVM_PARAM_CALLBACK_TYPE_…: bits 63:56 of `callbackIRQ`.
        @inlinable public static var callbackTypeGSI: UInt64 { 0 }
        @inlinable public static var callbackTypePCIINTx: UInt64 { 1 }
        @inlinable public static var callbackTypeVector: UInt64 { 2 }
        @inlinable public static var callbackTypeShift: UInt64 { 56 }
    }

    /// VCPUOP_…: vcpu_op's operations.
    public enum VCPUOP {
        @inlinable public static var registerRunstateMemoryArea: UInt32 { 5 }
        @inlinable public static var stopPeriodicTimer: UInt32 { 7 }
        @inlinable public static var setSingleshotTimer: UInt32 { 8 }
        @inlinable public static var stopSingleshotTimer: UInt32 { 9 }
        @inlinable public static var registerVCPUInfo: UInt32 { 10 }
        @inlinable public static var registerVCPUTimeMemoryArea: UInt32 { 13 }
    }

    /// struct vcpu_register_vcpu_info.
    public enum RegisterVCPUInfo {
        @inlinable public static var mfn: Int { 0 }
        @inlinable public static var offset: Int { 8 }
        @inlinable public static var byteCount: Int { 16 }
    }

    /// SCHEDOP_…: sched_op's operations.
    public enum SCHEDOP {
        @inlinable public static var yield: UInt32 { 0 }
        @inlinable public static var block: UInt32 { 1 }
        @inlinable public static var shutdown: UInt32 { 2 }
        @inlinable public static var poll: UInt32 { 3 }
        @inlinable public static var remoteShutdown: UInt32 { 4 }
        @inlinable public static var shutdownCode: UInt32 { 5 }
        @inlinable public static var watchdog: UInt32 { 6 }
        @inlinable public static var pinOverride: UInt32 { 7 }
    }

    /// struct sched_shutdown.
    public enum SchedShutdown {
        @inlinable public static var reason: Int { 0 }
        @inlinable public static var byteCount: Int { 4 }
    }

    /// SHUTDOWN_…: reasons.
    public enum SHUTDOWN {
        @inlinable public static var poweroff: UInt32 { 0 }
        @inlinable public static var reboot: UInt32 { 1 }
        @inlinable public static var suspend: UInt32 { 2 }
        @inlinable public static var crash: UInt32 { 3 }
        @inlinable public static var watchdog: UInt32 { 4 }
        @inlinable public static var softReset: UInt32 { 5 }
    }

    /// The platform device, without which an HVM guest that is no PVH guest has no grant table.
    public enum PlatformPCI {
        @inlinable public static var vendor: UInt16 { 0x5853 }
        @inlinable public static var device: UInt16 { 0x0001 }
        /// A range of ports.
        @inlinable public static var ioBAR: Int { 0 }
        /// Memory, from whose beginning on the guest puts the table's frames.
        @inlinable public static var memoryBAR: Int { 1 }
    }

    /// struct hvm_start_info: what EBX points to in a PVH guest's first moment.
    public enum StartInfo {
        @inlinable public static var magic: Int { 0 }
        @inlinable public static var version: Int { 4 }
        @inlinable public static var flags: Int { 8 }
        @inlinable public static var nrModules: Int { 12 }
        @inlinable public static var modlistPaddr: Int { 16 }
        @inlinable public static var cmdlinePaddr: Int { 24 }
        @inlinable public static var rsdpPaddr: Int { 32 }
        @inlinable public static var memmapPaddr: Int { 40 }
        @inlinable public static var memmapEntries: Int { 48 }
        @inlinable public static var byteCount: Int { 56 }
        /// XEN_HVM_START_MAGIC_VALUE.
        @inlinable public static var magicValue: UInt32 { 0x336e_c578 }
        @inlinable public static var versionWithMemmap: UInt32 { 1 }
        /// XEN_ELFNOTE_PHYS32_ENTRY: the type of the note that has the entry's address.
        @inlinable public static var physicalEntryNote: UInt32 { 18 }
    }

    /// struct hvm_modlist_entry.
    public enum ModlistEntry {
        @inlinable public static var paddr: Int { 0 }
        @inlinable public static var size: Int { 8 }
        @inlinable public static var cmdlinePaddr: Int { 16 }
        @inlinable public static var byteCount: Int { 32 }
    }

    /// struct hvm_memmap_table_entry.
    public enum MemmapEntry {
        @inlinable public static var addr: Int { 0 }
        @inlinable public static var size: Int { 8 }
        /// As e820 has it.
        @inlinable public static var type: Int { 16 }
        @inlinable public static var byteCount: Int { 24 }
    }
}
