import Grants
import Testing

/// Xen's numbers, once more, and its structs by their fields.
@Suite struct XenABITests {
    @Test func hypercalls() {
        typealias Call = XenABI.Hypercall
        #expect(
            [
                Call.memoryOp, Call.setTimerOp, Call.xenVersion, Call.consoleIO, Call.grantTableOp, Call.vmAssist,
                Call.vcpuOp, Call.mmuextOp, Call.schedOp, Call.eventChannelOp, Call.physdevOp, Call.hvmOp,
            ] == [12, 15, 17, 18, 20, 21, 24, 26, 29, 32, 33, 34])
        #expect(Call.stubBytes == 32)
    }

    @Test func domains() {
        typealias ID = XenABI.DOMID
        #expect(
            [ID.selfID, ID.io, ID.xen, ID.cow, ID.invalid, ID.idle]
                == [0x7ff0, 0x7ff1, 0x7ff2, 0x7ff3, 0x7ff4, 0x7fff])
        #expect(ID.firstReserved == 0x7ff0)
    }

    @Test func errors() {
        typealias E = XenABI.Errno
        #expect(
            [
                E.eperm, E.enoent, E.esrch, E.eio, E.e2big, E.ebadf, E.eagain, E.enomem, E.eacces, E.efault, E.ebusy,
                E.eexist, E.enodev, E.einval, E.enotty, E.efbig, E.enospc, E.enosys, E.enotconn,
            ] == [1, 2, 3, 5, 7, 9, 11, 12, 13, 14, 16, 17, 19, 22, 25, 27, 28, 38, 107])
    }

    @Test func cpuid() {
        typealias ID = XenABI.CPUID
        let text = [ID.signatureEBX, ID.signatureECX, ID.signatureEDX].flatMap { word in
            (0..<4).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) }
        }
        #expect(String(decoding: text, as: UTF8.self) == "XenVMMXenVMM")
        #expect([ID.first, ID.last, ID.step] == [0x4000_0000, 0x4000_ff00, 0x100])
        #expect([ID.versionLeaf, ID.hypercallLeaf, ID.timeLeaf, ID.hvmLeaf] == [1, 2, 3, 4])
        #expect([ID.hvmHasVCPUID, ID.hvmHasDomid, ID.hvmHasUpcallVector] == [8, 16, 64])
    }

    private struct FeatureInfo { var submapIdx: UInt32 = 0, submap: UInt32 = 0 }

    @Test func features() {
        typealias Version = XenABI.XENVER
        #expect([Version.version, Version.extraversion, Version.getFeatures] == [0, 1, 6])
        typealias Info = XenABI.FeatureInfo
        check(FeatureInfo.self, Info.byteCount, [(\.submapIdx, Info.submapIdx), (\.submap, Info.submap)])
        typealias F = XenABI.XENFEAT
        #expect(
            [
                F.writablePageTables, F.writableDescriptorTables, F.autoTranslatedPhysmap, F.supervisorModeKernel,
                F.paePgdirAbove4GB, F.mmuPTUpdatePreserveAD, F.highmemAssist, F.gnttabMapAvailBits, F.hvmCallbackVector,
                F.hvmSafePvclock, F.hvmPirqs, F.dom0, F.memoryOpVnodeSupported, F.linuxRsdpUnrestricted,
            ] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15])
    }

    // MARK: Event channels

    private struct BindInterdomain { var remoteDom: UInt16 = 0, remotePort: UInt32 = 0, localPort: UInt32 = 0 }
    private struct Three { var first: UInt32 = 0, second: UInt32 = 0, third: UInt32 = 0 }
    private struct Two { var first: UInt32 = 0, second: UInt32 = 0 }
    private struct Status {
        var dom: UInt16 = 0, port: UInt32 = 0, status: UInt32 = 0, vcpu: UInt32 = 0, detail: UInt16 = 0
        var interdomainPort: UInt32 = 0
    }
    private struct AllocUnbound { var dom: UInt16 = 0, remoteDom: UInt16 = 0, port: UInt32 = 0 }
    private struct InitControl {
        var controlGFN: UInt64 = 0, offset: UInt32 = 0, vcpu: UInt32 = 0, linkBits: UInt8 = 0
    }

    @Test func eventChannelOperations() {
        typealias Op = XenABI.EVTCHNOP
        #expect(
            [
                Op.bindInterdomain, Op.bindVIRQ, Op.bindPIRQ, Op.close, Op.send, Op.status, Op.allocUnbound, Op.bindIPI,
                Op.bindVCPU, Op.unmask, Op.reset, Op.initControl, Op.expandArray, Op.setPriority,
            ] == Array(0...13))
        typealias State = XenABI.EVTCHNSTAT
        #expect(
            [State.closed, State.unbound, State.interdomain, State.pirq, State.virq, State.ipi] == Array(0...5))
        typealias V = XenABI.VIRQ
        #expect(
            [
                V.timer, V.debug, V.console, V.domExc, V.tbuf, V.debugger, V.xenoprof, V.conRing, V.pcpuState,
                V.memEvent, V.argo, V.enomem, V.xenpmu, V.arch0, V.count,
            ] == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 16, 24])
    }

    @Test func eventChannelStructs() {
        typealias Inter = XenABI.EvtchnBindInterdomain
        check(
            BindInterdomain.self, Inter.byteCount,
            [(\.remoteDom, Inter.remoteDom), (\.remotePort, Inter.remotePort), (\.localPort, Inter.localPort)])
        typealias VIRQ = XenABI.EvtchnBindVIRQ
        check(Three.self, VIRQ.byteCount, [(\.first, VIRQ.virq), (\.second, VIRQ.vcpu), (\.third, VIRQ.port)])
        typealias PIRQ = XenABI.EvtchnBindPIRQ
        check(Three.self, PIRQ.byteCount, [(\.first, PIRQ.pirq), (\.second, PIRQ.flags), (\.third, PIRQ.port)])
        check(UInt32.self, XenABI.EvtchnPort.byteCount, [(\.self, XenABI.EvtchnPort.port)])
        typealias State = XenABI.EvtchnStatus
        check(
            Status.self, State.byteCount,
            [
                (\.dom, State.dom), (\.port, State.port), (\.status, State.status), (\.vcpu, State.vcpu),
                (\.detail, State.detail), (\.detail, State.interdomainDom), (\.interdomainPort, State.interdomainPort),
            ])
        typealias Alloc = XenABI.EvtchnAllocUnbound
        check(
            AllocUnbound.self, Alloc.byteCount,
            [(\.dom, Alloc.dom), (\.remoteDom, Alloc.remoteDom), (\.port, Alloc.port)])
        typealias IPI = XenABI.EvtchnBindIPI
        check(Two.self, IPI.byteCount, [(\.first, IPI.vcpu), (\.second, IPI.port)])
        typealias VCPU = XenABI.EvtchnBindVCPU
        check(Two.self, VCPU.byteCount, [(\.first, VCPU.port), (\.second, VCPU.vcpu)])
        check(UInt16.self, XenABI.EvtchnReset.byteCount, [(\.self, XenABI.EvtchnReset.dom)])
        typealias Control = XenABI.EvtchnInitControl
        check(
            InitControl.self, Control.byteCount,
            [
                (\.controlGFN, Control.controlGFN), (\.offset, Control.offset), (\.vcpu, Control.vcpu),
                (\.linkBits, Control.linkBits),
            ])
        check(UInt64.self, XenABI.EvtchnExpandArray.byteCount, [(\.self, XenABI.EvtchnExpandArray.arrayGFN)])
        typealias Priority = XenABI.EvtchnSetPriority
        check(Two.self, Priority.byteCount, [(\.first, Priority.port), (\.second, Priority.priority)])
    }

    // MARK: Shared pages

    private struct TimeInfo {
        var version: UInt32 = 0, pad: UInt32 = 0, tscTimestamp: UInt64 = 0, systemTime: UInt64 = 0
        var tscToSystemMul: UInt32 = 0, tscShift: Int8 = 0, flags: UInt8 = 0, end: UInt16 = 0
    }
    private struct VCPUInfo {
        var pending: UInt8 = 0, mask: UInt8 = 0, pendingSel: UInt64 = 0, cr2: UInt64 = 0, pad: UInt64 = 0
        var time = TimeInfo()
    }
    private struct SharedInfo {
        var vcpuInfo = InlineArray<32, VCPUInfo>(repeating: VCPUInfo())
        var pending = InlineArray<64, UInt64>(repeating: 0), mask = InlineArray<64, UInt64>(repeating: 0)
        var wcVersion: UInt32 = 0, wcSec: UInt32 = 0, wcNsec: UInt32 = 0, wcSecHi: UInt32 = 0
        var maxPFN: UInt64 = 0, frameListList: UInt64 = 0, nmiReason: UInt64 = 0
        var p2mCR3: UInt64 = 0, p2mVaddr: UInt64 = 0, p2mGeneration: UInt64 = 0
    }

    @Test func sharedInfo() {
        typealias Time = XenABI.VCPUTimeInfo
        check(
            TimeInfo.self, Time.byteCount,
            [
                (\.version, Time.version), (\.tscTimestamp, Time.tscTimestamp), (\.systemTime, Time.systemTime),
                (\.tscToSystemMul, Time.tscToSystemMul), (\.tscShift, Time.tscShift), (\.flags, Time.flags),
            ])
        #expect(Time.tscStable == 1)
        typealias VCPU = XenABI.VCPUInfo
        check(
            VCPUInfo.self, VCPU.byteCount,
            [
                (\.pending, VCPU.evtchnUpcallPending), (\.mask, VCPU.evtchnUpcallMask),
                (\.pendingSel, VCPU.evtchnPendingSel), (\.cr2, VCPU.archCR2), (\.time, VCPU.time),
            ])
        typealias Shared = XenABI.SharedInfo
        let fields: [(PartialKeyPath<SharedInfo>, Int)] = [
            (\.vcpuInfo, Shared.vcpuInfo), (\.pending, Shared.evtchnPending), (\.mask, Shared.evtchnMask),
            (\.wcVersion, Shared.wcVersion), (\.wcSec, Shared.wcSec), (\.wcNsec, Shared.wcNsec),
            (\.wcSecHi, Shared.wcSecHi), (\.maxPFN, Shared.arch), (\.maxPFN, Shared.maxPFN),
            (\.frameListList, Shared.pfnToMFNFrameListList), (\.nmiReason, Shared.nmiReason),
            (\.p2mCR3, Shared.p2mCR3), (\.p2mVaddr, Shared.p2mVaddr), (\.p2mGeneration, Shared.p2mGeneration),
        ]
        check(SharedInfo.self, 0xc40, fields)
        #expect((Shared.vcpuCount, Shared.evtchnWords) == (32, 64))
        #expect(Int(Shared.evtchnCount) == Shared.evtchnWords * 64)
    }

    // MARK: Memory and the rest

    private struct AddToPhysmap {
        var domid: UInt16 = 0, size: UInt16 = 0, space: UInt32 = 0, idx: UInt64 = 0, gpfn: UInt64 = 0
    }
    private struct HVMParam { var domid: UInt16 = 0, pad: UInt16 = 0, index: UInt32 = 0, value: UInt64 = 0 }
    private struct UpcallVector { var vcpu: UInt32 = 0, vector: UInt8 = 0 }
    private struct RegisterInfo { var mfn: UInt64 = 0, offset: UInt32 = 0, rsvd: UInt32 = 0 }

    @Test func memory() {
        typealias Op = XenABI.XENMEM
        #expect(
            [
                Op.increaseReservation, Op.decreaseReservation, Op.currentReservation, Op.maximumReservation,
                Op.populatePhysmap, Op.addToPhysmap, Op.memoryMap, Op.removeFromPhysmap, Op.addToPhysmapBatch,
            ] == [0, 1, 3, 4, 6, 7, 9, 15, 23])
        typealias Add = XenABI.AddToPhysmap
        check(
            AddToPhysmap.self, Add.byteCount,
            [
                (\.domid, Add.domid), (\.size, Add.size), (\.space, Add.space), (\.idx, Add.idx), (\.gpfn, Add.gpfn),
            ])
        #expect(Add.idxGrantTableStatus == 0x8000_0000)
        typealias Space = XenABI.XENMAPSPACE
        #expect(
            [Space.sharedInfo, Space.grantTable, Space.gmfn, Space.gmfnRange, Space.gmfnForeign, Space.devMMIO]
                == Array(0...5))
    }

    @Test func parameters() {
        typealias Op = XenABI.HVMOP
        #expect([Op.setParam, Op.getParam, Op.pagetableDying, Op.setEvtchnUpcallVector] == [0, 1, 9, 23])
        typealias Param = XenABI.HVMParam
        check(
            HVMParam.self, Param.byteCount,
            [(\.domid, Param.domid), (\.index, Param.index), (\.value, Param.value)])
        typealias Index = XenABI.HVMPARAM
        #expect(
            [Index.callbackIRQ, Index.storePFN, Index.storeEvtchn, Index.consolePFN, Index.consoleEvtchn]
                == [0, 1, 2, 17, 18])
        #expect([Index.callbackTypeGSI, Index.callbackTypePCIINTx, Index.callbackTypeVector] == [0, 1, 2])
        #expect(Index.callbackTypeShift == 56)
        typealias Vector = XenABI.HVMEvtchnUpcallVector
        check(UpcallVector.self, Vector.byteCount, [(\.vcpu, Vector.vcpu), (\.vector, Vector.vector)])
        #expect(Vector.minimum == 16)
    }

    @Test func processors() {
        typealias Op = XenABI.VCPUOP
        #expect(
            [
                Op.registerRunstateMemoryArea, Op.stopPeriodicTimer, Op.setSingleshotTimer, Op.stopSingleshotTimer,
                Op.registerVCPUInfo, Op.registerVCPUTimeMemoryArea,
            ] == [5, 7, 8, 9, 10, 13])
        typealias Register = XenABI.RegisterVCPUInfo
        check(RegisterInfo.self, Register.byteCount, [(\.mfn, Register.mfn), (\.offset, Register.offset)])
        typealias Sched = XenABI.SCHEDOP
        #expect(
            [
                Sched.yield, Sched.block, Sched.shutdown, Sched.poll, Sched.remoteShutdown, Sched.shutdownCode,
                Sched.watchdog, Sched.pinOverride,
            ] == Array(0...7))
        check(UInt32.self, XenABI.SchedShutdown.byteCount, [(\.self, XenABI.SchedShutdown.reason)])
        typealias Reason = XenABI.SHUTDOWN
        #expect(
            [Reason.poweroff, Reason.reboot, Reason.suspend, Reason.crash, Reason.watchdog, Reason.softReset]
                == Array(0...5))
    }

    // MARK: PVH

    private struct StartInfo {
        var magic: UInt32 = 0, version: UInt32 = 0, flags: UInt32 = 0, nrModules: UInt32 = 0
        var modlistPaddr: UInt64 = 0, cmdlinePaddr: UInt64 = 0, rsdpPaddr: UInt64 = 0, memmapPaddr: UInt64 = 0
        var memmapEntries: UInt32 = 0, reserved: UInt32 = 0
    }
    private struct Four { var first: UInt64 = 0, second: UInt64 = 0, third: UInt64 = 0, fourth: UInt64 = 0 }
    private struct MemmapEntry { var addr: UInt64 = 0, size: UInt64 = 0, type: UInt32 = 0, reserved: UInt32 = 0 }

    @Test func startInfo() {
        typealias Start = XenABI.StartInfo
        check(
            StartInfo.self, Start.byteCount,
            [
                (\.magic, Start.magic), (\.version, Start.version), (\.flags, Start.flags),
                (\.nrModules, Start.nrModules), (\.modlistPaddr, Start.modlistPaddr),
                (\.cmdlinePaddr, Start.cmdlinePaddr), (\.rsdpPaddr, Start.rsdpPaddr),
                (\.memmapPaddr, Start.memmapPaddr), (\.memmapEntries, Start.memmapEntries),
            ])
        #expect(Start.magicValue == 0x336e_c578 && Start.versionWithMemmap == 1 && Start.physicalEntryNote == 18)
        typealias Module = XenABI.ModlistEntry
        check(
            Four.self, Module.byteCount,
            [(\.first, Module.paddr), (\.second, Module.size), (\.third, Module.cmdlinePaddr)])
        typealias Map = XenABI.MemmapEntry
        check(MemmapEntry.self, Map.byteCount, [(\.addr, Map.addr), (\.size, Map.size), (\.type, Map.type)])
        #expect(XenABI.PlatformPCI.vendor == 0x5853 && XenABI.PlatformPCI.device == 1)
        #expect(XenABI.PlatformPCI.ioBAR == 0 && XenABI.PlatformPCI.memoryBAR == 1)
    }
}
