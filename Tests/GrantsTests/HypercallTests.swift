import EngineTesting
import Grants
import GuestMemory
import HostInterface
import Platform
import Synchronization
import Testing
import VirtualCPU
import X86

private typealias Call = XenABI.Hypercall
private typealias Place = XenGuest.Place

private let fault: Int64 = -14, invalid: Int64 = -22, unknown: Int64 = -38, notPermitted: Int64 = -1
private let noEntry: Int64 = -2

/// The interface as a kernel sees it: numbers in registers, structs at linear addresses.
@Suite struct HypercallTests {
    let house = DomainHouse()
    let anna: XenGuest

    init() throws { anna = try XenGuest(in: house, name: "anna") }

    // MARK: Arguments

    /// Of every operation with a struct: how many bytes of it have to be there.
    private static let structs: [(number: UInt64, operation: UInt32, byteCount: UInt64)] = [
        (Call.eventChannelOp, XenABI.EVTCHNOP.bindInterdomain, 12), (Call.eventChannelOp, XenABI.EVTCHNOP.bindVIRQ, 12),
        (Call.eventChannelOp, XenABI.EVTCHNOP.close, 4), (Call.eventChannelOp, XenABI.EVTCHNOP.send, 4),
        (Call.eventChannelOp, XenABI.EVTCHNOP.status, 24), (Call.eventChannelOp, XenABI.EVTCHNOP.allocUnbound, 8),
        (Call.eventChannelOp, XenABI.EVTCHNOP.bindIPI, 8), (Call.eventChannelOp, XenABI.EVTCHNOP.bindVCPU, 8),
        (Call.eventChannelOp, XenABI.EVTCHNOP.unmask, 4), (Call.eventChannelOp, XenABI.EVTCHNOP.reset, 2),
        (Call.memoryOp, XenABI.XENMEM.addToPhysmap, 24), (Call.memoryOp, XenABI.XENMEM.removeFromPhysmap, 16),
        (Call.hvmOp, XenABI.HVMOP.setParam, 16), (Call.hvmOp, XenABI.HVMOP.getParam, 16),
        (Call.hvmOp, XenABI.HVMOP.setEvtchnUpcallVector, 8), (Call.schedOp, XenABI.SCHEDOP.shutdown, 4),
        (Call.xenVersion, XenABI.XENVER.extraversion, 16), (Call.xenVersion, XenABI.XENVER.getFeatures, 8),
        (Call.grantTableOp, GrantABI.GNTTABOP.mapGrantRef, 32),
        (Call.grantTableOp, GrantABI.GNTTABOP.unmapGrantRef, 24),
        (Call.grantTableOp, GrantABI.GNTTABOP.copy, 40), (Call.grantTableOp, GrantABI.GNTTABOP.querySize, 16),
        (Call.grantTableOp, GrantABI.GNTTABOP.setupTable, 24), (Call.grantTableOp, GrantABI.GNTTABOP.setVersion, 4),
        (Call.grantTableOp, GrantABI.GNTTABOP.getVersion, 8),
    ]

    @Test(arguments: structs.indices) func aStructThatIsNotAllThereIsAFault(_ index: Int) throws {
        defer { anna.close() }
        let (number, operation, byteCount) = Self.structs[index]
        // Its last byte is in a page where there is nothing.
        try anna.map(linear: 0x41, to: 0)
        for address in [
            XenGuest.unmapped, 0x41 << 12, 0x41 << 12 - byteCount + 1, 1 << 47, 0x8000_0000_0000_0000, .max, 0,
        ] {
            if address == 0 { try anna.map(linear: 0, to: 0) }
            #expect(anna.call(number, operation, address, 1) == fault, "\(address)")
        }
        // A table of page tables that is nowhere, or not in RAM.
        for cr3: UInt64 in [0x6000, 0x100000, 0x20_0000, 0xf_ffff_ffff_f000] {
            #expect(
                anna.interface.call(number, UInt64(operation), Place.arguments, 1, cr3: cr3) == fault, "\(cr3)")
        }
        #expect(anna.interface.remarks == [])
        #expect(anna.shutdowns == [])
    }

    @Test func argumentsMayCrossAPage() throws {
        defer { anna.close() }
        // Two pages that are neighbours only to the kernel; the struct begins at every place before their border.
        try anna.map(linear: 0x50, to: 0x60 << 12 | 7)
        try anna.map(linear: 0x51, to: 0x70 << 12 | 7)
        typealias Fields = XenABI.EvtchnAllocUnbound
        for before in UInt64(0)...8 {
            func put<T: FixedWidthInteger & BitwiseCopyable>(_ value: T, _ offset: Int) throws {
                for index in 0..<MemoryLayout<T>.size {
                    let linear = 0x51 << 12 - before + UInt64(offset + index)
                    let page: UInt64 = linear < 0x51 << 12 ? 0x60 : 0x70
                    try anna.store(UInt8(truncatingIfNeeded: value >> T(index * 8)), at: page << 12 + linear % 4096)
                }
            }
            try put(XenABI.DOMID.selfID, Fields.dom)
            try put(0x1234 as UInt16, Fields.remoteDom)
            try put(0 as UInt32, Fields.port)
            let address = 0x51 << 12 - before
            #expect(anna.call(Call.eventChannelOp, XenABI.EVTCHNOP.allocUnbound, address) == 0)
            var port: UInt32 = 0
            for index in 0..<UInt64(4) {
                let linear = address + UInt64(Fields.port) + index
                let page: UInt64 = linear < 0x51 << 12 ? 0x60 : 0x70
                port |= UInt32(try anna.load(page << 12 + linear % 4096, as: UInt8.self)) << UInt32(index * 8)
            }
            #expect(port == UInt32(2 + before))
            #expect(anna.status(Int(port)) == (0, XenGuest.Status(kind: 1, domid: 0x1234)))
        }
    }

    @Test func aStructInLargePagesAndAtHighAddresses() throws {
        defer { anna.close() }
        // A kernel's half: the same tables once more.
        try anna.store(Place.tables + 0x1000 | 7, at: Place.tables + 511 * 8)
        try anna.store(Place.tables + 0x2000 | 7, at: Place.tables + 0x1000 + 510 * 8)
        let high: UInt64 = 0xffff_ffff_8000_0000
        try anna.store(0 as UInt32, at: Place.arguments)
        #expect(anna.call(Call.xenVersion, XenABI.XENVER.getFeatures, high + Place.arguments) == 0)
        #expect(try anna.load(Place.arguments + 4, as: UInt32.self) == 1 << 2 | 1 << 8)
        // A page of another's, by way of a large page of the Guest's.
        try anna.grant(8, page: 0x44, to: anna.id)
        #expect(anna.map(8, of: anna.id, atPage: Place.window).status == 0)
        #expect(anna.call(Call.xenVersion, XenABI.XENVER.getFeatures, high + Place.window << 12) == 0 as Int64)
        #expect(try anna.load(0x44 << 12 + 4, as: UInt32.self) == 1 << 2 | 1 << 8)
    }

    @Test func anAnswerIsNotWrittenToAPageForReading() throws {
        defer { anna.close() }
        let bert = try XenGuest(in: house, name: "bert")
        defer { bert.close() }
        try bert.grant(8, page: 0x44, to: anna.id, readOnly: true)
        #expect(anna.map(8, of: bert.id, atPage: Place.window, readOnly: true).status == 0)
        let address = Place.window << 12
        #expect(anna.call(Call.xenVersion, XenABI.XENVER.getFeatures, address) == fault)
        #expect(anna.call(Call.xenVersion, XenABI.XENVER.extraversion, address) == fault)
        // A port whose number the caller cannot be told is closed again.
        try bert.store(XenABI.DOMID.selfID, at: 0x44 << 12)
        #expect(anna.call(Call.eventChannelOp, XenABI.EVTCHNOP.allocUnbound, address) == fault)
        #expect(anna.bindIPI() == 2)
        // What is only read may be there.
        try bert.store(2 as UInt32, at: 0x44 << 12)
        #expect(anna.call(Call.eventChannelOp, XenABI.EVTCHNOP.send, address) == 0)
        #expect(anna.isPending(2))
        #expect(try bert.load(0x44 << 12 + 4, as: UInt64.self) == 0)
        #expect(try anna.load(address + 4, as: UInt64.self) == 0)
    }

    // MARK: Calls that there are not

    @Test func whatIsUnknownIsCounted() throws {
        defer { anna.close() }
        for number: UInt64 in [0, 1, 11, 15, 18, 21, 26, 33, 35, 41, 127, 1 << 32 | 17, .max] {
            #expect(anna.interface.call(number, 3, 0, 0, cr3: Place.tables) == unknown)
        }
        for operation: UInt32 in [2, 11, 12, 13, 99] { #expect(anna.call(Call.eventChannelOp, operation) == unknown) }
        for operation: UInt32 in [3, 4, 7, 9, 11, 12, 99] {
            #expect(anna.call(Call.grantTableOp, operation, Place.arguments, 0) == unknown)
        }
        for operation: UInt32 in [0, 1, 3, 4, 6, 9, 23] { #expect(anna.call(Call.memoryOp, operation) == unknown) }
        #expect(anna.call(Call.hvmOp, XenABI.HVMOP.pagetableDying) == unknown)
        #expect(anna.call(Call.schedOp, XenABI.SCHEDOP.block) == unknown)
        #expect(anna.call(Call.vcpuOp, XenABI.VCPUOP.registerRunstateMemoryArea) == unknown)
        #expect(anna.call(Call.vcpuOp, XenABI.VCPUOP.setSingleshotTimer) == unknown)
        #expect(anna.interface.remarks.count == 36)
        #expect(anna.interface.remarks.contains("xen: hypercall 34, operation 9: not there, asked for 1 times"))
        for _ in 0..<3 { anna.call(Call.hvmOp, XenABI.HVMOP.pagetableDying) }
        #expect(anna.interface.remarks.contains("xen: hypercall 34, operation 9: not there, asked for 4 times"))
        // A Guest that asks for everything does not fill the Host's memory.
        for number in UInt64(1000)..<2000 { _ = anna.interface.call(number, 0, 0, 0, cr3: Place.tables) }
        #expect(anna.interface.remarks.count == 64)
    }

    @Test func whatIsKnownAndRefusedIsNotCounted() throws {
        defer { anna.close() }
        #expect(anna.send(77) == invalid)
        #expect(anna.call(Call.xenVersion, XenABI.XENVER.getFeatures, XenGuest.unmapped) == fault)
        #expect(anna.interface.remarks == [])
    }

    // MARK: Arrays

    @Test func eachElementHasAStatusOfItsOwn() throws {
        defer { anna.close() }
        let bert = try XenGuest(in: house, name: "bert")
        defer { bert.close() }
        try bert.grant(8, page: 20, to: anna.id)
        try bert.grant(9, page: 21, to: anna.id, readOnly: true)
        let page = Place.window << 12
        // More of them than fit in a page.
        let maps: [(reference: UInt32, domid: UInt16, address: UInt64, flags: UInt32, status: Int16)] = [
            (8, bert.id, page, 2, 0), (8, 77, page + 4096, 2, -2), (600, bert.id, page + 4096, 2, -3),
            (9, bert.id, page + 4096, 2, -1), (9, bert.id, page + 4096, 6, 0), (8, bert.id, page, 2, -5),
            (8, bert.id, page + 8192, 6, 0), (8, bert.id, page + 0x3000, 0, -3), (8, bert.id, page + 0x3000, 1, -1),
        ]
        let start = 0x91 << 12 - UInt64(4 * GrantABI.MapGrantRef.byteCount) - 8
        for (index, map) in maps.enumerated() {
            try anna.putMap(
                map.reference, of: map.domid, at: map.address, flags: map.flags,
                in: start + UInt64(index * GrantABI.MapGrantRef.byteCount))
        }
        let flushes = anna.flushes
        #expect(anna.call(Call.grantTableOp, GrantABI.GNTTABOP.mapGrantRef, start, UInt64(maps.count)) == 0)
        var handles: [UInt32] = []
        for (index, map) in maps.enumerated() {
            let place = start + UInt64(index * GrantABI.MapGrantRef.byteCount)
            let status = try anna.load(place + UInt64(GrantABI.MapGrantRef.status), as: Int16.self)
            #expect(status == map.status, "element \(index)")
            let handle = try anna.load(place + UInt64(GrantABI.MapGrantRef.handle), as: UInt32.self)
            if status == 0 { handles.append(handle) } else { #expect(handle == .max) }
        }
        #expect(handles == [0, 1, 2])
        // Once for all.
        #expect(anna.flushes == flushes + 1)
    }

    @Test func noElementsAreNoWork() throws {
        defer { anna.close() }
        for operation: UInt32 in [0, 1, 2, 5, 6, 8, 10] {
            #expect(anna.call(Call.grantTableOp, operation, XenGuest.unmapped, 0) == 0)
        }
        #expect(anna.flushes == 0)
    }

    @Test func aHugeCountEndsWhereMemoryDoes() throws {
        defer { anna.close() }
        for count: UInt64 in [1 << 31, 1 << 32, .max] {
            #expect(anna.call(Call.grantTableOp, GrantABI.GNTTABOP.mapGrantRef, Place.arguments, count) == invalid)
        }
        // Zeros: unmap handle 0, which is none.
        try anna.map(linear: 0x90, to: 0)
        #expect(anna.call(Call.grantTableOp, GrantABI.GNTTABOP.unmapGrantRef, 0x80 << 12, 1 << 31 - 1) == fault)
        let size = UInt64(GrantABI.UnmapGrantRef.byteCount)
        for index in 0..<(0x10 << 12 / size) {
            let status = try anna.load(0x80 << 12 + index * size + 20, as: Int16.self)
            try #require(status == GrantABI.GNTST.badHandle, "element \(index)")
        }
    }

    @Test func whatWasDoneBeforeAFaultIsDone() throws {
        defer { anna.close() }
        try anna.grant(8, page: 20, to: anna.id, readOnly: true)
        try anna.map(linear: 0x91, to: 0)
        let start = 0x91 << 12 - UInt64(GrantABI.MapGrantRef.byteCount)
        try anna.putMap(8, of: anna.id, at: Place.window << 12, flags: 6, in: start)
        #expect(anna.call(Call.grantTableOp, GrantABI.GNTTABOP.mapGrantRef, start, 2) == fault)
        #expect(anna.memory.isForeign(page: Place.window))
        #expect(anna.flushes == 1)
        #expect(anna.unmap(0, atPage: Place.window) == 0)
    }

    // MARK: Sizes and versions

    @Test func theTablesSize() throws {
        defer { anna.close() }
        typealias Fields = GrantABI.QuerySize
        func query(_ domid: UInt16) throws -> [Int] {
            try anna.store(domid, at: Place.arguments)
            #expect(anna.call(Call.grantTableOp, GrantABI.GNTTABOP.querySize, Place.arguments, 1) == 0)
            return [
                Int(try anna.load(Place.arguments + UInt64(Fields.status), as: Int16.self)),
                Int(try anna.load(Place.arguments + UInt64(Fields.nrFrames), as: UInt32.self)),
                Int(try anna.load(Place.arguments + UInt64(Fields.maxNrFrames), as: UInt32.self)),
            ]
        }
        #expect(try query(XenABI.DOMID.selfID) == [0, 1, 64])
        #expect(anna.addToPhysmap(1, 5, at: 40) == 0)
        #expect(try query(anna.id) == [0, 6, 64])
        #expect(try query(77)[0] == Int(GrantABI.GNTST.permissionDenied))
    }

    @Test func theTablesPlaces() throws {
        defer { anna.close() }
        typealias Fields = GrantABI.SetupTable
        func setUp(_ count: UInt32, list: UInt64, of domid: UInt16 = XenABI.DOMID.selfID) throws -> (Int64, Int16) {
            try anna.store(domid, at: Place.arguments)
            try anna.store(count, at: Place.arguments + UInt64(Fields.nrFrames))
            try anna.store(list, at: Place.arguments + UInt64(Fields.frameList))
            let result = anna.call(Call.grantTableOp, GrantABI.GNTTABOP.setupTable, Place.arguments, 1)
            return (result, try anna.load(Place.arguments + UInt64(Fields.status), as: Int16.self))
        }
        #expect(try setUp(2, list: 0x9ff8) == (0, 0))
        #expect(try anna.load(0x9ff8, as: UInt64.self) == Place.grantFrame)
        #expect(try anna.load(0xa000, as: UInt64.self) == .max)
        try anna.store(0 as UInt64, at: 0xa000)
        #expect(try setUp(65, list: 0x9000) == (0, GrantABI.GNTST.generalError))
        #expect(try setUp(.max, list: 0x9000) == (0, GrantABI.GNTST.generalError))
        #expect(try setUp(1, list: 0x9000, of: 77) == (0, GrantABI.GNTST.permissionDenied))
        #expect(try setUp(1, list: XenGuest.unmapped).0 == fault)
        #expect(try setUp(0, list: XenGuest.unmapped) == (0, 0))
    }

    @Test func thereIsOneVersionOfTheTable() throws {
        defer { anna.close() }
        for (version, result) in [(1, 0), (2, unknown), (0, invalid), (3, invalid), (.max, invalid)]
            as [(UInt32, Int64)]
        {
            try anna.store(version, at: Place.arguments)
            #expect(anna.call(Call.grantTableOp, GrantABI.GNTTABOP.setVersion, Place.arguments, 1) == result)
        }
        try anna.store(XenABI.DOMID.selfID, at: Place.arguments)
        #expect(anna.call(Call.grantTableOp, GrantABI.GNTTABOP.getVersion, Place.arguments, 1) == 0)
        #expect(try anna.load(Place.arguments + 4, as: UInt32.self) == 1)
    }

    @Test func versionAndFeatures() throws {
        defer { anna.close() }
        #expect(anna.call(Call.xenVersion, XenABI.XENVER.version) == 4 << 16 | 17)
        #expect(anna.call(Call.xenVersion, XenABI.XENVER.extraversion, Place.arguments) == 0)
        #expect(try anna.memory.read(GuestPhysicalAddress(Place.arguments), count: 8) == Array(".roost".utf8) + [0, 0])
        try anna.store(1 as UInt32, at: Place.arguments)
        #expect(anna.call(Call.xenVersion, XenABI.XENVER.getFeatures, Place.arguments) == 0)
        #expect(try anna.load(Place.arguments + 4, as: UInt32.self) == 0)
    }

    // MARK: The machine's

    @Test func waysToBeInterrupted() throws {
        defer { anna.close() }
        let index = XenABI.HVMPARAM.callbackIRQ
        // A line that there is not, before there is any way.
        #expect(anna.setParam(index, 99) == unknown)
        #expect(anna.setParam(index, 2 << 56 | 0xf3) == 0)
        #expect(anna.setParam(index, 9) == 0)
        #expect(anna.setParam(index, 99) == 0)
        #expect(anna.setParam(index, 1 << 56 | 5) == unknown)
        #expect(anna.setParam(index, 3 << 56) == unknown)
        #expect(anna.upcallKinds == ["directly 243", "line 9"])
        #expect(anna.setParam(index, 2 << 56 | 0xf3, of: 77) == notPermitted)
        for other: UInt32 in [1, 2, 3, 17, 99, .max] { #expect(anna.setParam(other, 1) == unknown) }
        // None: what comes then waits.
        #expect(anna.setParam(index, 0) == 0)
        let port = anna.bindIPI()
        anna.send(port)
        #expect(anna.upcalls == 0)
        #expect(anna.setParam(index, 9) == 0)
        #expect(anna.upcalls == 1)
    }

    @Test func aVectorByTheInterruptController() throws {
        defer { anna.close() }
        func set(_ vector: UInt8, vcpu: UInt32 = 0) throws -> Int64 {
            try anna.store(vcpu, at: Place.arguments)
            try anna.store(vector, at: Place.arguments + UInt64(XenABI.HVMEvtchnUpcallVector.vector))
            return anna.call(Call.hvmOp, XenABI.HVMOP.setEvtchnUpcallVector, Place.arguments)
        }
        #expect(try set(0xf3) == 0)
        #expect(try set(0x10) == 0)
        #expect(try set(0x0f) == invalid)
        #expect(try set(0) == invalid)
        #expect(try set(0xf3, vcpu: 1) == noEntry)
        #expect(anna.upcallKinds == ["message 243", "message 16"])
    }

    @Test func parametersThatCanBeRead() throws {
        defer { anna.close() }
        #expect(anna.getParam(XenABI.HVMPARAM.storeEvtchn) == (0, 1))
        #expect(anna.getParam(XenABI.HVMPARAM.storePFN) == (0, 0))
        for index in [XenABI.HVMPARAM.callbackIRQ, XenABI.HVMPARAM.consolePFN, XenABI.HVMPARAM.consoleEvtchn] {
            #expect(anna.getParam(index) == (0, 0))
        }
        #expect(anna.getParam(99).result == unknown)
        #expect(anna.getParam(1, of: 77).result == notPermitted)
        #expect(anna.getParam(1, of: anna.id).result == 0)
    }

    @Test func theRunEnds() throws {
        defer { anna.close() }
        for (reason, result) in [(0, 0), (1, 0), (2, invalid), (3, 0), (4, invalid), (99, invalid)]
            as [(UInt32, Int64)]
        {
            try anna.store(reason, at: Place.arguments)
            #expect(anna.call(Call.schedOp, XenABI.SCHEDOP.shutdown, Place.arguments) == result)
        }
        #expect(anna.shutdowns == [0, 1, 2, 3, 4, 99])
        #expect(anna.call(Call.schedOp, XenABI.SCHEDOP.yield) == 0)
        #expect(anna.call(Call.schedOp, XenABI.SCHEDOP.poll) == 0)
    }

    @Test func thereIsOneCPU() throws {
        defer { anna.close() }
        #expect(anna.call(Call.vcpuOp, XenABI.VCPUOP.stopPeriodicTimer, 0) == 0)
        #expect(anna.call(Call.vcpuOp, XenABI.VCPUOP.stopSingleshotTimer, 0) == 0)
        for number: UInt64 in [1, 31, .max] {
            #expect(anna.call(Call.vcpuOp, XenABI.VCPUOP.registerVCPUInfo, number, Place.arguments) == noEntry)
        }
        #expect(anna.call(Call.vcpuOp, XenABI.VCPUOP.registerVCPUInfo, 0, XenGuest.unmapped) == fault)
    }

    // MARK: How it is found

    @Test func leavesNameXenAndTheDomain() throws {
        defer { anna.close() }
        // The sheet's test 8: behind somebody else's, and found by the step that Linux takes.
        let leaves = anna.interface.hypervisorLeaves
        #expect(leaves.base == 0x4000_0100)
        #expect(
            leaves.leaves[0] == CPUFeatures.Leaf(eax: 0x4000_0104, ebx: 0x566e_6558, ecx: 0x6558_4d4d, edx: 0x4d4d_566e)
        )
        #expect(leaves.leaves[1].eax == 4 << 16 | 17)
        #expect((leaves.leaves[2].eax, leaves.leaves[2].ebx) == (1, XenInterface.hypercallMSR))
        #expect(leaves.leaves[4] == CPUFeatures.Leaf(eax: 1 << 3 | 1 << 4 | 1 << 6, ecx: UInt32(anna.id)))
        #expect(leaves.leaves.count == 5)
    }

    @Test func theHypercallPage() throws {
        defer { anna.close() }
        #expect(anna.interface.writeHypercallMSR(0x40 << 12))
        for number in UInt64(0)..<128 {
            let stub = try anna.memory.read(GuestPhysicalAddress(0x40 << 12 + number * 32), count: 9)
            if number == 23 {
                #expect(stub.prefix(2) == [0x0f, 0x0b])
            } else {
                #expect(stub == [0xb8, UInt8(number), 0, 0, 0, 0x0f, 0x01, 0xc1, 0xc3])
            }
        }
        for wrong: UInt64 in [0x40001, 0x100 << 12, 0x200 << 12, 1 << 40, 0xffff_ffff_ffff_f000] {
            #expect(!anna.interface.writeHypercallMSR(wrong), "\(wrong)")
        }
    }
}

/// The interface on a PC, by what is in the vCPU's registers.
@Suite(.everyEngine) struct XenPCTests {
    private func withPC(_ body: (XenPC, any VCPU, XenGuest, LocalAPIC) throws -> Void) throws {
        let house = DomainHouse()
        // Its memory and tables are what is wanted of it.
        let guest = try XenGuest(in: house)
        defer { guest.close() }
        let requests = VCPURequests()
        let vcpu = try TestedEngine.current.makeVCPU(guest.memory, requests, nil)
        let apic = LocalAPIC(
            identifier: 0, requests: requests, bus: APICBus(), clock: HostMachineClock(),
            alarms: try AlarmClock(HostMachineClock()), acknowledgeExternal: { 0xff })
        try body(XenPC(guest.domain, of: house, vcpu: vcpu, localAPIC: apic), vcpu, guest, apic)
    }

    private func setRegisters(_ vcpu: any VCPU, _ number: UInt64, _ operation: UInt64, privilege: Int = 0) {
        vcpu.withState { state in
            state.cr3 = Place.tables
            state.gpr[Register.rax] = number
            state.gpr[Register.rdi] = operation
            state.gpr[Register.rsi] = Place.arguments
            state.gpr[Register.rdx] = 0
            state.cr0 |= CR0.protectedMode
            for segment in [SegmentName.ss, SegmentName.cs] {
                state.segments[segment].attributes =
                    state.segments[segment].attributes & ~0x60 | UInt32(privilege) << 5
            }
        }
    }

    @Test func onlyTheKernelIsHeard() throws {
        try withPC { pc, vcpu, _, _ in
            for (privilege, result) in [(3, .max), (1, .max), (0, 4 << 16 | 17)] as [(Int, UInt64)] {
                setRegisters(vcpu, Call.xenVersion, UInt64(XenABI.XENVER.version), privilege: privilege)
                #expect(pc.perform(on: vcpu) == nil)
                #expect(vcpu.readState { $0.gpr[Register.rax] } == result)
            }
            setRegisters(vcpu, 99, 0, privilege: 3)
            _ = pc.perform(on: vcpu)
            #expect(pc.remarks == [])
            setRegisters(vcpu, 99, 0)
            _ = pc.perform(on: vcpu)
            #expect(vcpu.readState { $0.gpr[Register.rax] } == UInt64(bitPattern: -38))
            #expect(pc.remarks.count == 1)
        }
    }

    @Test func shutdownEndsTheRun() throws {
        try withPC { pc, vcpu, guest, _ in
            for (reason, outcome) in [(0, "poweroff"), (1, "reset"), (3, "reset"), (5, "reset"), (2, "")]
                as [(UInt32, String)]
            {
                try guest.store(reason, at: Place.arguments)
                setRegisters(vcpu, Call.schedOp, UInt64(XenABI.SCHEDOP.shutdown))
                #expect(pc.perform(on: vcpu).map { "\($0)" } ?? "" == outcome)
                setRegisters(vcpu, Call.schedOp, UInt64(XenABI.SCHEDOP.yield))
                #expect(pc.perform(on: vcpu) == nil)
            }
        }
    }

    @Test func oneMSRIsItsOwn() throws {
        try withPC { pc, _, guest, _ in
            #expect(pc.writeMSR(XenInterface.hypercallMSR, 0x40 << 12) == true)
            #expect(pc.writeMSR(XenInterface.hypercallMSR, 0x40 << 12 | 1) == false)
            #expect(pc.writeMSR(XenInterface.hypercallMSR + 1, 0) == nil)
            #expect(pc.readMSR(XenInterface.hypercallMSR) == nil)
            let first = try guest.load(0x40 << 12, as: UInt8.self)
            #expect(first == 0xb8)
        }
    }

    @Test func anEventIsAVectorThatNoControllerHears() throws {
        try withPC { pc, vcpu, guest, apic in
            try guest.store(XenABI.HVMPARAM.callbackIRQ, at: Place.arguments + UInt64(XenABI.HVMParam.index))
            try guest.store(XenABI.DOMID.selfID, at: Place.arguments)
            try guest.store(2 << 56 | 0xf3 as UInt64, at: Place.arguments + UInt64(XenABI.HVMParam.value))
            setRegisters(vcpu, Call.hvmOp, UInt64(XenABI.HVMOP.setParam))
            #expect(pc.perform(on: vcpu) == nil)
            #expect(vcpu.readState { $0.gpr[Register.rax] } == 0)
            let port = guest.bindIPI()
            guest.send(port)
            #expect(apic.acknowledgeInterrupt() == 0xf3)
            // Nothing is in service: no EOI is due, and the next comes as well.
            #expect(guest.takeEvents() == [port])
            guest.send(port)
            #expect(apic.acknowledgeInterrupt() == 0xf3)
        }
    }
}

/// The interface on lguest's machine.
@Suite struct XenLinesTests {
    private final class Lines: Sendable {
        let raised = Mutex<[Int]>([])
    }

    @Test func aGuestReadsItsNameFromTheStore() throws {
        let house = DomainHouse()
        let guest = try XenGuest(in: house, name: "anna")
        defer { guest.close() }
        let lines = Lines()
        let lguest = XenLines(guest.domain, of: house, lines: 1..<32) { irq in lines.raised.withLock { $0.append(irq) } }
        lguest.end()
        try lguest.begin()
        guest.place()
        func call(_ number: UInt64, _ operation: UInt32) -> Int64 {
            lguest.call(number, UInt64(operation), Place.arguments, 0, cr3: Place.tables)
        }
        func param(_ operation: UInt32, _ index: UInt32, _ value: UInt64) throws -> (Int64, UInt64) {
            try guest.store(XenABI.DOMID.selfID, at: Place.arguments)
            try guest.store(index, at: Place.arguments + 4)
            try guest.store(value, at: Place.arguments + 8)
            let result = call(Call.hvmOp, operation)
            return (result, try guest.load(Place.arguments + 8, as: UInt64.self))
        }
        // Lines that there are; there is no vector.
        for (value, result) in [(0, 0), (32, unknown), (2 << 56 | 0xf3, unknown), (31, 0), (32, 0)] as [(UInt64, Int64)]
        {
            #expect(try param(XenABI.HVMOP.setParam, XenABI.HVMPARAM.callbackIRQ, value).0 == result)
        }
        let page = try param(XenABI.HVMOP.getParam, XenABI.HVMPARAM.storePFN, 0).1
        let port = try param(XenABI.HVMOP.getParam, XenABI.HVMPARAM.storeEvtchn, 0).1
        #expect((page, port) == (Place.window, 1))
        // READ of its name: header and path, then the index behind it.
        let path = Array("/local/domain/\(guest.id)/name".utf8) + [0]
        for (index, word) in [2, 7, 0, UInt32(path.count)].enumerated() {
            try guest.store(word, at: page << 12 + UInt64(index * 4))
        }
        try guest.memory.write(path, at: GuestPhysicalAddress(page << 12 + 16))
        try guest.store(UInt32(16 + path.count), at: page << 12 + 2052)
        try guest.store(UInt32(port), at: Place.arguments)
        #expect(call(Call.eventChannelOp, XenABI.EVTCHNOP.send) == 0)
        #expect(lines.raised.withLock { $0 } == [31])
        #expect(guest.takeEvents() == [1])
        #expect(try guest.load(page << 12 + 2060, as: UInt32.self) == 20)
        #expect(try guest.memory.read(GuestPhysicalAddress(page << 12 + 1024), count: 4) == [2, 0, 0, 0])
        #expect(try guest.memory.read(GuestPhysicalAddress(page << 12 + 1040), count: 4) == Array("anna".utf8))
        #expect(call(Call.schedOp, XenABI.SCHEDOP.shutdown) == invalid)
        #expect(lguest.remarks.count == 1)
    }

    @Test(arguments: [1 << 20, 2 << 20, (2 << 20) + 4096, 64 << 20] as [UInt64])
    func theWindowBeginsWithALargePage(_ end: UInt64) {
        let window = XenLines.window(above: end)
        #expect(window.lowerBound >= end && window.lowerBound < end + 2 << 20)
        #expect(window.lowerBound % (2 << 20) == 0)
        #expect(window.count == 256 << 20)
    }
}
