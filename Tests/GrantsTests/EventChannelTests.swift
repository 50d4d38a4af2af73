import Grants
import HostInterface
import Synchronization
import Testing

private enum Errno {
    static let noEntry = -2, noProcess = -3, exists = -17, invalid = -22, noSpace = -28, notPermitted = -1
}

/// Two domains with a channel between them.
private struct Pair {
    let house = DomainHouse()
    let anna: XenGuest
    let bert: XenGuest
    /// Each one's end.
    let annas: Int
    let berts: Int

    init() throws {
        anna = try XenGuest(in: house, name: "anna")
        bert = try XenGuest(in: house, name: "bert")
        anna.listen()
        bert.listen()
        annas = anna.allocUnbound(for: bert.id)
        berts = bert.bindInterdomain(anna.id, UInt32(annas))
        _ = bert.takeEvents()
    }

    func close() {
        anna.close()
        bert.close()
    }
}

@Suite struct EventChannelTests {
    // MARK: Delivery

    @Test func anEventSetsThreeFloorsOfBits() throws {
        let pair = try Pair()
        defer { pair.close() }
        let before = pair.bert.upcalls
        #expect(pair.anna.send(pair.annas) == 0)
        #expect(pair.bert.isPending(pair.berts))
        #expect(pair.bert.selector == 1)
        #expect(pair.bert.upcallPending)
        #expect(pair.bert.upcalls == before + 1)
        #expect(pair.bert.takeEvents() == [pair.berts])
        #expect(pair.bert.takeEvents() == [])
    }

    // The sheet's test 7.
    @Test func aSecondSendWhileItIsPendingSetsNothingMore() throws {
        let pair = try Pair()
        defer { pair.close() }
        pair.anna.send(pair.annas)
        let before = pair.bert.upcalls
        // The Guest has taken the upper floors down, and not yet come to the port.
        pair.bert.upcallPending = false
        pair.bert.selector = 0
        pair.anna.send(pair.annas)
        #expect(pair.bert.selector == 0)
        #expect(!pair.bert.upcallPending)
        #expect(pair.bert.upcalls == before)
    }

    @Test func oneCallIsEnoughForAnyNumberOfPorts() throws {
        let pair = try Pair()
        defer { pair.close() }
        let second = pair.anna.allocUnbound(for: pair.bert.id)
        // One in another word.
        while pair.bert.bindIPI() < 64 {}
        let other = pair.bert.bindInterdomain(pair.anna.id, UInt32(second))
        _ = pair.bert.takeEvents()
        let before = pair.bert.upcalls
        pair.anna.send(pair.annas)
        pair.anna.send(second)
        #expect(pair.bert.selector == 3)
        #expect(pair.bert.upcalls == before + 1)
        #expect(pair.bert.takeEvents() == [pair.berts, other])
    }

    @Test func aMaskedPortWaitsAndUnmaskingDelivers() throws {
        let pair = try Pair()
        defer { pair.close() }
        let before = pair.bert.upcalls
        pair.bert.setMasked(pair.berts, true)
        pair.anna.send(pair.annas)
        #expect(pair.bert.isPending(pair.berts))
        #expect(pair.bert.selector == 0)
        #expect(!pair.bert.upcallPending)
        #expect(pair.bert.takeEvents() == [])
        #expect(pair.bert.unmask(pair.berts) == 0)
        #expect(pair.bert.selector == 1)
        #expect(pair.bert.upcalls == before + 1)
        #expect(pair.bert.takeEvents() == [pair.berts])
        // Of one that is not pending, or was not masked, there is nothing to tell.
        pair.bert.setMasked(pair.berts, true)
        #expect(pair.bert.unmask(pair.berts) == 0)
        pair.bert.setMasked(pair.berts, true)
        pair.anna.send(pair.annas)
        pair.bert.setMasked(pair.berts, false)
        #expect(pair.bert.unmask(pair.berts) == 0)
        #expect(pair.bert.upcalls == before + 1)
        #expect(pair.bert.selector == 0)
    }

    @Test func bindingLeavesTheOwnEndPending() throws {
        let house = DomainHouse()
        let anna = try XenGuest(in: house), bert = try XenGuest(in: house)
        defer {
            anna.close()
            bert.close()
        }
        anna.listen()
        bert.listen()
        let port = anna.allocUnbound(for: bert.id)
        // Rung before there is a bell.
        #expect(anna.send(port) == 0)
        let other = bert.bindInterdomain(anna.id, UInt32(port))
        #expect(bert.isPending(other))
        #expect(bert.upcalls == 1)
        #expect(!anna.isPending(port))
        #expect(bert.takeEvents() == [other])
    }

    @Test func portsOfEveryWordAreFound() throws {
        let pair = try Pair()
        defer { pair.close() }
        var ports = [pair.berts]
        while ports.count < 1000 { ports.append(pair.bert.bindIPI()) }
        #expect(ports == Array(2..<1002))
        for port in ports.dropFirst() { #expect(pair.bert.send(port) == 0) }
        #expect(pair.bert.selector == 0xffff)
        #expect(pair.bert.takeEvents() == Array(3..<1002))
    }

    @Test func whoListensLateIsToldOfWhatWaits() throws {
        let house = DomainHouse()
        let anna = try XenGuest(in: house)
        defer { anna.close() }
        let port = anna.bindIPI()
        anna.send(port)
        #expect(anna.upcalls == 0)
        #expect(anna.upcallPending)
        #expect(anna.listen() == 0)
        #expect(anna.upcalls == 1)
        #expect(anna.takeEvents() == [port])
        #expect(anna.listen() == 0)
        #expect(anna.upcalls == 1)
    }

    // MARK: vcpu_info

    @Test func movingVCPUInfoLosesNothing() throws {
        let pair = try Pair()
        defer { pair.close() }
        pair.anna.send(pair.annas)
        let before = pair.bert.upcalls
        #expect(pair.bert.registerVCPUInfo(at: 0xcfc0) == 0)
        #expect(pair.bert.upcalls == before + 1)
        pair.bert.vcpuInfo = 0xcfc0
        #expect(pair.bert.upcallPending)
        #expect(pair.bert.selector == .max)
        #expect(pair.bert.takeEvents() == [pair.berts])
        pair.anna.send(pair.annas)
        #expect(pair.bert.takeEvents() == [pair.berts])
        #expect(pair.bert.upcalls == before + 2)
        #expect(pair.bert.registerVCPUInfo(at: 0xd000) == Int64(Errno.invalid))
    }

    @Test func eventsThatComeWhileVCPUInfoMovesAreSeen() throws {
        for _ in 0..<50 {
            let pair = try Pair()
            let isOver = Atomic(false)
            let sender = try HostThread(name: "sender") {
                while !isOver.load(ordering: .relaxed) { pair.anna.send(pair.annas) }
            }
            #expect(pair.bert.registerVCPUInfo(at: XenGuest.Place.vcpuInfo) == 0)
            pair.bert.vcpuInfo = XenGuest.Place.vcpuInfo
            #expect(pair.bert.takeEvents().allSatisfy { $0 == pair.berts })
            let end = HostClock.monotonicNanoseconds + 10_000_000_000
            while !pair.bert.upcallPending, HostClock.monotonicNanoseconds < end {}
            #expect(pair.bert.takeEventsOnce() == [pair.berts])
            isOver.store(true, ordering: .relaxed)
            sender.join()
            pair.close()
        }
    }

    @Test(
        arguments: [
            0xc004, 0xcfc8, 0xcff8, 0x100000, 0x200000, 1 << 40, 0xa000, 0xb040, 0xffff_ffff_ffff_ffc0,
        ] as [UInt64])
    func vcpuInfoIsOfTheGuestsRAMInOnePage(_ address: UInt64) throws {
        let house = DomainHouse()
        let anna = try XenGuest(in: house)
        defer { anna.close() }
        #expect(anna.registerVCPUInfo(at: address) == Int64(Errno.invalid))
        #expect(anna.registerVCPUInfo(at: 0xc000) == 0)
    }

    @Test func aRebootForgetsWhereVCPUInfoWas() throws {
        let pair = try Pair()
        defer { pair.close() }
        #expect(pair.bert.registerVCPUInfo(at: XenGuest.Place.vcpuInfo) == 0)
        pair.bert.reset()
        pair.bert.place()
        try pair.bert.store(0 as UInt64, at: XenGuest.Place.vcpuInfo)
        let port = pair.bert.bindIPI()
        pair.bert.send(port)
        #expect(try pair.bert.load(XenGuest.Place.vcpuInfo, as: UInt64.self) == 0)
        #expect(pair.bert.takeEvents() == [port])
        #expect(pair.bert.registerVCPUInfo(at: XenGuest.Place.vcpuInfo) == 0)
    }

    // MARK: Errors

    @Test func bindingTellsWhatIsWrong() throws {
        let pair = try Pair()
        defer { pair.close() }
        let carl = try XenGuest(in: pair.house)
        defer { carl.close() }
        let port = UInt32(pair.anna.allocUnbound(for: pair.bert.id))
        for domid: UInt16 in [0, 4, 0x7ff1, 0x7ff4, .max] {
            #expect(pair.bert.bindInterdomain(domid, port) == Errno.noProcess)
        }
        for wrong in [0, 1, UInt32(pair.annas), 77, 4095, 4096, 1 << 31, .max] {
            #expect(pair.bert.bindInterdomain(pair.anna.id, wrong) == Errno.invalid, "\(wrong)")
        }
        #expect(carl.bindInterdomain(pair.anna.id, port) == Errno.invalid)
        #expect(pair.anna.bindInterdomain(pair.anna.id, port) == Errno.invalid)
        #expect(pair.bert.bindInterdomain(pair.anna.id, port) == pair.berts + 1)
        #expect(pair.bert.bindInterdomain(pair.anna.id, port) == Errno.invalid)
        #expect(pair.anna.allocUnbound(for: 1, of: pair.bert.id) == Errno.notPermitted)
    }

    @Test(arguments: [0, 4, 77, 4095, 4096, 1 << 20, Int(UInt32.max)])
    func aPortThatIsNoneIsRefused(_ port: Int) throws {
        let pair = try Pair()
        defer { pair.close() }
        #expect(pair.anna.send(port) == Int64(Errno.invalid))
        #expect(pair.anna.unmask(port) == Int64(Errno.invalid))
        #expect(pair.anna.closePort(port) == Int64(Errno.invalid))
        let status = pair.anna.status(port)
        if (1..<4096).contains(port) {
            #expect(status == (0, XenGuest.Status(kind: 0)))
        } else {
            #expect(status.result == Int64(Errno.invalid))
        }
    }

    @Test func virtualInterruptsAreBoundOnce() throws {
        let pair = try Pair()
        defer { pair.close() }
        let port = pair.anna.bindVIRQ(0)
        #expect(port > 0)
        #expect(pair.anna.bindVIRQ(0) == Errno.exists)
        #expect(pair.anna.bindVIRQ(23) > 0)
        #expect(pair.anna.bindVIRQ(24) == Errno.invalid)
        #expect(pair.anna.bindVIRQ(.max) == Errno.invalid)
        #expect(pair.anna.bindVIRQ(1, vcpu: 1) == Errno.noEntry)
        #expect(pair.anna.bindIPI(vcpu: 1) == Errno.noEntry)
        // It is nobody's to ring at.
        #expect(pair.anna.send(port) == Int64(Errno.invalid))
        #expect(pair.anna.closePort(port) == 0)
        #expect(pair.anna.bindVIRQ(0) == port)
    }

    @Test func thereAre4095Ports() throws {
        let house = DomainHouse()
        let anna = try XenGuest(in: house), bert = try XenGuest(in: house)
        defer {
            anna.close()
            bert.close()
        }
        let waiting = bert.allocUnbound(for: anna.id)
        for port in 2..<4096 { try #require(anna.bindIPI() == port) }
        #expect(anna.bindIPI() == Errno.noSpace)
        #expect(anna.allocUnbound(for: bert.id) == Errno.noSpace)
        #expect(anna.bindVIRQ(0) == Errno.noSpace)
        #expect(anna.bindInterdomain(bert.id, UInt32(waiting)) == Errno.noSpace)
        #expect(bert.status(waiting) == (0, XenGuest.Status(kind: 1, domid: anna.id)))
        #expect(anna.send(4095) == 0)
        #expect(anna.selector == 1 << 63)
        #expect(anna.closePort(77) == 0)
        #expect(anna.bindInterdomain(bert.id, UInt32(waiting)) == 77)
    }

    // MARK: Ends

    @Test func theOtherEndOfAClosedPortWaitsAgain() throws {
        let pair = try Pair()
        defer { pair.close() }
        #expect(pair.bert.closePort(pair.berts) == 0)
        #expect(pair.anna.status(pair.annas) == (0, XenGuest.Status(kind: 1, domid: pair.bert.id)))
        // A live peer is told by its peer, not by the Host.
        #expect(!pair.anna.isPending(pair.annas))
        #expect(pair.anna.send(pair.annas) == 0)
        #expect(pair.bert.bindInterdomain(pair.anna.id, UInt32(pair.annas)) == pair.berts)
        #expect(pair.bert.isPending(pair.berts))
    }

    @Test func whatWaitedAtAPortGoesWithIt() throws {
        let pair = try Pair()
        defer { pair.close() }
        pair.anna.send(pair.annas)
        #expect(pair.bert.closePort(pair.berts) == 0)
        #expect(!pair.bert.isPending(pair.berts))
        #expect(pair.bert.bindIPI() == pair.berts)
        #expect(pair.bert.takeEvents() == [])
    }

    @Test(arguments: [false, true]) func thePeersOfADeadDomainHearItOnce(_ comesBack: Bool) throws {
        let pair = try Pair()
        let second = pair.anna.allocUnbound(for: pair.bert.id)
        let other = pair.bert.bindInterdomain(pair.anna.id, UInt32(second))
        let lonely = pair.bert.allocUnbound(for: pair.anna.id)
        _ = pair.bert.takeEvents()
        let before = pair.bert.upcalls
        if comesBack { pair.anna.reset() } else { pair.anna.close() }
        #expect(pair.bert.upcalls == before + 1)
        #expect(pair.bert.takeEvents() == [pair.berts, other])
        for port in [pair.berts, other, lonely] {
            #expect(pair.bert.status(port) == (0, XenGuest.Status(kind: 1, domid: pair.anna.id)))
            #expect(pair.bert.send(port) == 0)
            #expect(!pair.bert.isPending(port))
        }
        pair.close()
        #expect(pair.bert.upcalls == before + 1)
    }

    @Test func statusOfEachKind() throws {
        let pair = try Pair()
        defer { pair.close() }
        typealias Status = XenGuest.Status
        let anna = pair.anna
        #expect(anna.status(1) == (0, Status(kind: 2)))
        #expect(anna.status(pair.annas) == (0, Status(kind: 2, domid: pair.bert.id, port: UInt32(pair.berts))))
        #expect(anna.status(anna.allocUnbound(for: 99)) == (0, Status(kind: 1, domid: 99)))
        #expect(anna.status(anna.allocUnbound(for: XenABI.DOMID.selfID)) == (0, Status(kind: 1, domid: anna.id)))
        #expect(anna.status(anna.bindVIRQ(5)) == (0, Status(kind: 4, domid: 5)))
        #expect(anna.status(anna.bindIPI()) == (0, Status(kind: 5)))
        #expect(anna.status(200) == (0, Status(kind: 0)))
        #expect(anna.status(1, of: anna.id).result == 0)
        #expect(anna.status(1, of: pair.bert.id).result == Int64(Errno.notPermitted))
    }

    @Test func aChannelToItself() throws {
        let house = DomainHouse()
        let anna = try XenGuest(in: house)
        let first = anna.allocUnbound(for: XenABI.DOMID.selfID)
        let second = anna.bindInterdomain(XenABI.DOMID.selfID, UInt32(first))
        #expect(anna.takeEvents() == [second])
        anna.send(second)
        #expect(anna.takeEvents() == [first])
        anna.send(first)
        #expect(anna.takeEvents() == [second])
        #expect(anna.closePort(second) == 0)
        #expect(anna.status(first) == (0, XenGuest.Status(kind: 1, domid: anna.id)))
        #expect(anna.bindInterdomain(anna.id, UInt32(first)) == second)
        anna.close()
    }

    @Test func resetClosesAllPorts() throws {
        let pair = try Pair()
        defer { pair.close() }
        typealias Call = XenABI.Hypercall
        #expect(
            try pair.anna.call(Call.eventChannelOp, XenABI.EVTCHNOP.reset, [.u16(0, pair.bert.id)]) == -1)
        #expect(
            try pair.anna.call(Call.eventChannelOp, XenABI.EVTCHNOP.reset, [.u16(0, XenABI.DOMID.selfID)]) == 0)
        #expect(pair.bert.status(pair.berts) == (0, XenGuest.Status(kind: 1, domid: pair.anna.id)))
        #expect((1..<10).allSatisfy { pair.anna.status($0) == (0, XenGuest.Status(kind: 0)) })
    }

    // MARK: A storm

    @Test func aStormInterruptsOnlyWhoHasNotBeenCalled() throws {
        let pair = try Pair()
        defer { pair.close() }
        let (anna, bert) = (pair.anna, pair.bert)
        // Some in each of several words.
        let extra = try (0..<8).map { number in
            while number % 2 == 1, bert.bindIPI() % 64 < 62 {}
            let port = anna.allocUnbound(for: bert.id)
            try #require(bert.bindInterdomain(anna.id, UInt32(port)) > 0)
            return port
        }
        _ = bert.takeEvents()
        // One call is open from the interrupt until the Guest takes the flag down.
        let open = Atomic(0), tooMany = Atomic(0), before = bert.upcalls
        bert.onUpcall = {
            if open.wrappingAdd(1, ordering: .sequentiallyConsistent).oldValue != 0 {
                tooMany.wrappingAdd(1, ordering: .sequentiallyConsistent)
            }
        }
        let isOver = Atomic(false), sent = Atomic(0)
        let sender = try HostThread(name: "storm") {
            while !isOver.load(ordering: .relaxed) {
                for port in extra { anna.send(port) }
                sent.wrappingAdd(8, ordering: .relaxed)
            }
        }
        let end = HostClock.monotonicNanoseconds + 500_000_000
        var taken = 0
        while HostClock.monotonicNanoseconds < end {
            guard open.load(ordering: .sequentiallyConsistent) == 1, bert.upcallPending else { continue }
            // Before the flag: from there on, the next call may come.
            open.store(0, ordering: .sequentiallyConsistent)
            taken += bert.takeEventsOnce().count
        }
        isOver.store(true, ordering: .relaxed)
        sender.join()
        #expect(tooMany.load(ordering: .relaxed) == 0)
        #expect(bert.upcalls > before)
        #expect(taken > 0 && taken <= sent.load(ordering: .relaxed))
        print("EventChannelTests: \(sent.load(ordering: .relaxed)) sent, \(bert.upcalls - before) interrupts")
        bert.onUpcall = nil
    }
}
