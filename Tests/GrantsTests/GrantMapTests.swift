import Grants
import GuestMemory
import Testing

/// Two domains, of which anna grants and bert maps.
private struct Pair {
    let house = DomainHouse()
    let anna: XenGuest
    let bert: XenGuest

    init(windowPages: UInt64 = 24) throws {
        anna = try XenGuest(in: house, name: "anna", windowPages: windowPages)
        bert = try XenGuest(in: house, name: "bert", windowPages: windowPages)
        try anna.setWord(ofPage: Self.page, Self.word)
    }

    func close() {
        anna.close()
        bert.close()
    }

    static let reference: UInt32 = 9, page: UInt64 = 20, word: UInt64 = 0xa11a
    /// The first page of the window.
    static let there: UInt64 = XenGuest.Place.window

    func grant(readOnly: Bool = false) throws {
        try anna.grant(Self.reference, page: Self.page, to: bert.id, readOnly: readOnly)
    }
    func map(readOnly: Bool = false) -> (status: Int16, handle: UInt32) {
        bert.map(Self.reference, of: anna.id, atPage: Self.there, readOnly: readOnly)
    }
    var flags: UInt16 { anna.entry(Self.reference).flags }
}

private typealias GNTST = GrantABI.GNTST
private typealias GTF = GrantABI.GTF
private typealias GNTMAP = GrantABI.GNTMAP

@Suite struct GrantMapTests {
    @Test func aMappedPageIsOneForBoth() throws {
        let pair = try Pair()
        defer { pair.close() }
        try pair.grant()
        #expect(pair.bert.word(ofPage: Pair.there) == nil)
        let (status, handle) = pair.map()
        #expect(status == GNTST.okay)
        #expect(pair.bert.word(ofPage: Pair.there) == Pair.word)
        #expect(pair.flags == GTF.permitAccess | GTF.reading | GTF.writing)
        try pair.bert.setWord(ofPage: Pair.there, 5)
        #expect(pair.anna.word(ofPage: Pair.page) == 5)
        #expect(pair.bert.unmap(handle, atPage: Pair.there) == GNTST.okay)
        #expect(pair.bert.word(ofPage: Pair.there) == nil)
        #expect(pair.flags == GTF.permitAccess)
    }

    @Test func whatIsStoredInAReadOnlyPageDoesNotReachItsOwner() throws {
        let pair = try Pair()
        defer { pair.close() }
        try pair.grant(readOnly: true)
        #expect(pair.map(readOnly: true).status == GNTST.okay)
        #expect(pair.flags == GTF.permitAccess | GTF.readonly | GTF.reading)
        #expect(pair.bert.memory.isReadOnly(page: Pair.there))
        // A device of bert's that was told to write there.
        try pair.bert.setWord(ofPage: Pair.there, 5)
        #expect(pair.anna.word(ofPage: Pair.page) == Pair.word)
        #expect(pair.bert.flushes == 1)
    }

    // MARK: Statuses

    /// What is wrong, as far as it is; each is told before those that follow (Xen's order).
    enum Fault: Int, CaseIterable {
        case noMapFlag, deviceMap, unknownDomain, badReference, wrongType, noAddress
    }
    private static let statuses: [Int16] = [
        GNTST.badGntref, GNTST.generalError, GNTST.badDomain, GNTST.badGntref, GNTST.generalError, GNTST.badVirtAddr,
    ]

    @Test(arguments: Fault.allCases) func theFirstFaultInXensOrderIsTold(_ fault: Fault) throws {
        let pair = try Pair()
        defer { pair.close() }
        try pair.grant()
        // Every set of faults in which this one is the first.
        for later in 0..<(1 << (Fault.allCases.count - fault.rawValue - 1)) {
            let has = { (other: Fault) in
                other == fault
                    || other.rawValue > fault.rawValue && later >> (other.rawValue - fault.rawValue - 1) & 1 != 0
            }
            try pair.anna.grant(Pair.reference, page: Pair.page, to: pair.bert.id)
            if has(.wrongType) {
                try pair.anna.setEntry(Pair.reference, .init(flags: 2, domid: pair.bert.id, frame: 20))
            }
            let flags: UInt32 =
                has(.noMapFlag)
                ? has(.deviceMap) ? GNTMAP.containsPTE : 0
                : has(.deviceMap) ? GNTMAP.hostMap | GNTMAP.deviceMap : GNTMAP.hostMap
            let status = pair.bert.map(
                has(.badReference) ? 512 : Pair.reference, of: has(.unknownDomain) ? 77 : pair.anna.id,
                at: has(.noAddress) ? 0x5000 : Pair.there << 12, flags: flags
            ).status
            #expect(status == Self.statuses[fault.rawValue], "\(fault), and then \(later)")
            #expect(pair.bert.word(ofPage: Pair.there) == nil)
            #expect(pair.flags & (GTF.reading | GTF.writing) == 0)
        }
    }

    @Test(arguments: [
        (GNTMAP.hostMap | GNTMAP.applicationMap, GNTST.generalError),
        (GNTMAP.hostMap | GNTMAP.containsPTE, GNTST.generalError),
        (GNTMAP.deviceMap, GNTST.generalError),
        (GNTMAP.readonly, GNTST.badGntref),
        (GNTMAP.hostMap | 1 << GNTMAP.guestAvail0, GNTST.okay),
    ]) func flagsThatAGuestWithItsOwnMemoryMayHave(_ flags: UInt32, _ status: Int16) throws {
        let pair = try Pair()
        defer { pair.close() }
        try pair.grant()
        let found = pair.bert.map(Pair.reference, of: pair.anna.id, at: Pair.there << 12, flags: flags)
        #expect(found.status == status)
    }

    @Test func aGuessedReferenceMapsNothing() throws {
        let pair = try Pair()
        defer { pair.close() }
        try pair.grant()
        for reference in UInt32(0)..<512 where reference != Pair.reference {
            #expect(pair.bert.map(reference, of: pair.anna.id, atPage: Pair.there).status == GNTST.generalError)
        }
        for reference: UInt32 in [512, 513, 32768, .max] {
            #expect(pair.bert.map(reference, of: pair.anna.id, atPage: Pair.there).status == GNTST.badGntref)
        }
        #expect(pair.bert.word(ofPage: Pair.there) == nil)
    }

    @Test(arguments: [0, 0x7ff0, 0x7ff1, 0x7ff4, 0x7fff, 0xffff, 3] as [UInt16])
    func onlyADomainThatIsThereGrants(_ domid: UInt16) throws {
        let pair = try Pair()
        defer { pair.close() }
        try pair.grant()
        #expect(pair.bert.map(Pair.reference, of: domid, atPage: Pair.there).status == GNTST.badDomain)
    }

    @Test func aGrantIsForOneDomain() throws {
        let pair = try Pair()
        defer { pair.close() }
        let carl = try XenGuest(in: pair.house, name: "carl")
        defer { carl.close() }
        try pair.grant()
        #expect(carl.map(Pair.reference, of: pair.anna.id, atPage: Pair.there).status == GNTST.generalError)
        #expect(pair.map().status == GNTST.okay)
        // Granted over to somebody else while it is in use: it is not his before it is free.
        try pair.anna.grant(Pair.reference, page: 21, to: carl.id)
        #expect(carl.map(Pair.reference, of: pair.anna.id, atPage: Pair.there).status == GNTST.generalError)
        #expect(pair.bert.unmap(0, atPage: Pair.there) == GNTST.okay)
        #expect(carl.map(Pair.reference, of: pair.anna.id, atPage: Pair.there).status == GNTST.okay)
        #expect(carl.word(ofPage: Pair.there) == 0)
    }

    @Test func aReadOnlyGrantIsNotMappedForWriting() throws {
        let pair = try Pair()
        defer { pair.close() }
        try pair.grant(readOnly: true)
        #expect(pair.map().status == GNTST.generalError)
        #expect(pair.flags == GTF.permitAccess | GTF.readonly)
        #expect(pair.map(readOnly: true).status == GNTST.okay)
        #expect(pair.bert.map(Pair.reference, of: pair.anna.id, atPage: Pair.there + 1).status == GNTST.generalError)
        #expect(pair.flags == GTF.permitAccess | GTF.readonly | GTF.reading)
    }

    @Test(arguments: [256, 511, 0x200, 0x201, 0x1000, 0xf_ffff, UInt32.max])
    func aFrameThatIsNotTheGrantersRAMIsABadPage(_ frame: UInt32) throws {
        let pair = try Pair()
        defer { pair.close() }
        // That anna has a page of bert's there makes it no page of hers.
        try pair.bert.grant(8, page: 30, to: pair.anna.id)
        #expect(pair.anna.map(8, of: pair.bert.id, atPage: 0x200).status == GNTST.okay)
        try pair.anna.grant(Pair.reference, page: UInt64(frame), to: pair.bert.id)
        #expect(pair.map().status == GNTST.badPage)
        #expect(pair.flags == GTF.permitAccess)
    }

    @Test func thePagesOfTheHostsAreNotForGranting() throws {
        let pair = try Pair()
        defer { pair.close() }
        for page in [XenGuest.Place.sharedInfo, XenGuest.Place.grantFrame] {
            try pair.anna.grant(Pair.reference, page: page, to: pair.bert.id)
            #expect(pair.map().status == GNTST.badPage)
        }
    }

    @Test(
        arguments: [
            0, 0x1000, 0xff000, 0x100000, 0x1ff000, 0x200008, 0x218000, 1 << 40, 1 << 63, 0xffff_ffff_ffff_f000,
            1 << 52 | 0x200000,
        ] as [UInt64])
    func onlyTheWindowTakesPages(_ address: UInt64) throws {
        let pair = try Pair()
        defer { pair.close() }
        try pair.grant()
        #expect(
            pair.bert.map(Pair.reference, of: pair.anna.id, at: address).status == GNTST.badVirtAddr)
        #expect(pair.flags == GTF.permitAccess)
    }

    @Test func oneAddressHoldsOnePage() throws {
        let pair = try Pair()
        defer { pair.close() }
        try pair.grant()
        #expect(pair.map().status == GNTST.okay)
        #expect(pair.map().status == GNTST.badVirtAddr)
        #expect(pair.bert.addToPhysmap(XenABI.XENMAPSPACE.grantTable, 1, at: Pair.there) == -22)
        #expect(pair.bert.addToPhysmap(XenABI.XENMAPSPACE.grantTable, 1, at: Pair.there + 1) == 0)
        #expect(
            pair.bert.map(Pair.reference, of: pair.anna.id, atPage: Pair.there + 1).status == GNTST.badVirtAddr)
    }

    // MARK: Unmapping

    @Test func unmapTellsWhatIsWrong() throws {
        let pair = try Pair()
        defer { pair.close() }
        try pair.grant()
        #expect(pair.bert.unmap(0, atPage: Pair.there) == GNTST.badHandle)
        let handle = pair.map().handle
        for wrong in [handle + 1, 1 << 20, .max] {
            #expect(pair.bert.unmap(wrong, atPage: Pair.there) == GNTST.badHandle)
        }
        // Handles are a domain's own.
        #expect(pair.anna.unmap(handle, atPage: Pair.there) == GNTST.badHandle)
        #expect(pair.bert.unmap(handle, atPage: Pair.there + 1) == GNTST.generalError)
        #expect(pair.bert.unmap(handle, at: Pair.there << 12 + 1) == GNTST.generalError)
        #expect(pair.bert.unmap(handle, at: 0) == GNTST.okay)
        #expect(pair.bert.word(ofPage: Pair.there) == Pair.word)
        #expect(pair.bert.unmap(handle, atPage: Pair.there) == GNTST.okay)
        #expect(pair.bert.unmap(handle, atPage: Pair.there) == GNTST.badHandle)
        #expect(pair.flags == GTF.permitAccess)
    }

    @Test func bitsGoWithTheLastOfEachKind() throws {
        let pair = try Pair()
        defer { pair.close() }
        try pair.grant()
        let writer = pair.map().handle
        let reader = pair.bert.map(Pair.reference, of: pair.anna.id, atPage: Pair.there + 1, readOnly: true).handle
        let other = pair.bert.map(Pair.reference, of: pair.anna.id, atPage: Pair.there + 2).handle
        #expect(pair.bert.unmap(writer, atPage: Pair.there) == 0)
        #expect(pair.flags == GTF.permitAccess | GTF.reading | GTF.writing)
        #expect(pair.bert.unmap(other, atPage: Pair.there + 2) == 0)
        #expect(pair.flags == GTF.permitAccess | GTF.reading)
        #expect(pair.bert.unmap(reader, atPage: Pair.there + 1) == 0)
        #expect(pair.flags == GTF.permitAccess)
    }

    // The sheet's test 5.
    @Test func aGrantInUseIsNotEnded() throws {
        let pair = try Pair()
        defer { pair.close() }
        try pair.grant()
        let handle = pair.map().handle
        let flags = pair.flags
        #expect(!pair.anna.endGrant(Pair.reference))
        #expect(pair.flags == flags)
        #expect(pair.bert.unmap(handle, atPage: Pair.there) == 0)
        #expect(pair.anna.endGrant(Pair.reference))
        #expect(pair.flags == GTF.invalid)
        #expect(pair.map().status == GNTST.generalError)
    }

    @Test func anOverwrittenEntryChangesNothingForWhoHasThePage() throws {
        let pair = try Pair()
        defer { pair.close() }
        try pair.grant()
        let handle = pair.map().handle
        try pair.anna.setWord(ofPage: 21, 21)
        try pair.anna.grant(Pair.reference, page: 21, to: pair.bert.id)
        #expect(pair.bert.word(ofPage: Pair.there) == Pair.word)
        // The frame counts that was there when the first came.
        let second = pair.bert.map(Pair.reference, of: pair.anna.id, atPage: Pair.there + 1).handle
        #expect(pair.bert.word(ofPage: Pair.there + 1) == Pair.word)
        #expect(pair.bert.unmap(handle, atPage: Pair.there) == 0)
        #expect(pair.bert.unmap(second, atPage: Pair.there + 1) == 0)
        #expect(pair.map().status == GNTST.okay)
        #expect(pair.bert.word(ofPage: Pair.there) == 21)
    }

    @Test func aDomainHasNoMoreThanSoManyPages() throws {
        let house = DomainHouse()
        let anna = try XenGuest(in: house), bert = try XenGuest(in: house, windowPages: 9000)
        defer {
            anna.close()
            bert.close()
        }
        try anna.grant(8, page: 20, to: bert.id, readOnly: true)
        for number in UInt64(0)..<8192 {
            try #require(bert.map(8, of: anna.id, atPage: 0x200 + number, readOnly: true).status == GNTST.okay)
        }
        #expect(bert.map(8, of: anna.id, atPage: 0x200 + 8192, readOnly: true).status == GNTST.noSpace)
        #expect(bert.unmap(77, atPage: 0x200 + 77) == 0)
        #expect(bert.map(8, of: anna.id, atPage: 0x200 + 8192, readOnly: true) == (GNTST.okay, 77))
        bert.reset()
        #expect(anna.entry(8).flags == GTF.permitAccess | GTF.readonly)
    }

    // MARK: Copies

    @Test func copiesGoBothWays() throws {
        let pair = try Pair()
        defer { pair.close() }
        try pair.grant()
        try pair.bert.setWord(ofPage: 40, 0xbeef)
        #expect(
            pair.bert.copy(.grant(Pair.reference, of: pair.anna.id), .page(41, offset: 4088), count: 8) == GNTST.okay)
        #expect(try pair.bert.load(41 << 12 + 4088, as: UInt64.self) == Pair.word)
        #expect(pair.bert.copy(.page(40), .grant(Pair.reference, of: pair.anna.id, offset: 16), count: 8) == GNTST.okay)
        #expect(try pair.anna.load(Pair.page << 12 + 16, as: UInt64.self) == 0xbeef)
        #expect(pair.bert.copy(.page(40), .page(42), count: 4096) == GNTST.okay)
        #expect(pair.bert.word(ofPage: 42) == 0xbeef)
        #expect(pair.flags == GTF.permitAccess)
    }

    @Test func copiesThatAreRefused() throws {
        let pair = try Pair()
        defer { pair.close() }
        try pair.grant(readOnly: true)
        let (anna, bert) = (pair.anna, pair.bert)
        let good = XenGuest.Side.grant(Pair.reference, of: anna.id)
        #expect(bert.copy(good, .page(41, offset: 1), count: 4096) == GNTST.badCopyArg)
        #expect(bert.copy(.page(41, offset: .max), .page(41), count: .max) == GNTST.badCopyArg)
        #expect(bert.copy(.page(41), good, count: 8) == GNTST.generalError)
        #expect(bert.copy(good, .page(41, domid: anna.id), count: 8) == GNTST.permissionDenied)
        #expect(bert.copy(.grant(10, of: anna.id), .page(41), count: 8) == GNTST.generalError)
        #expect(bert.copy(.grant(512, of: anna.id), .page(41), count: 8) == GNTST.badGntref)
        #expect(bert.copy(.grant(9, of: 77), .page(41), count: 8) == GNTST.badDomain)
        for page: UInt64 in [256, 300, 0x200, 0x218, 1 << 40, 1 << 52 | 41, .max] {
            #expect(bert.copy(good, .page(page), count: 8) == GNTST.badPage, "\(page)")
            #expect(bert.copy(.page(page), .page(41), count: 8) == GNTST.badPage, "\(page)")
        }
        #expect(bert.map(Pair.reference, of: anna.id, atPage: Pair.there, readOnly: true).status == 0)
        #expect(bert.copy(.page(41), .page(Pair.there), count: 8) == GNTST.badPage)
        #expect(bert.copy(.page(Pair.there), .page(41), count: 8) == GNTST.okay)
        #expect(anna.word(ofPage: Pair.page) == Pair.word)
        #expect(pair.flags == GTF.permitAccess | GTF.readonly | GTF.reading)
    }

    // An address just behind the last that can ever have memory.
    @Test func aCopyOfNothingAtTheVeryEnd() throws {
        let window = UInt64(4096) - XenGuest.Place.window
        let pair = try Pair(windowPages: window)
        defer { pair.close() }
        // What is behind the one table of bytes is the other, as it happens.
        pair.bert.memory.markCode(page: 0, by: .interpreter)
        #expect(pair.bert.copy(.page(41), .page(4095, offset: 4096), count: 0) == GNTST.badPage)
        #expect(pair.bert.copy(.page(4095, offset: 4096), .page(41), count: 0) == GNTST.badPage)
        #expect(!pair.bert.memory.contains(GuestPhysicalAddress(4096 << 12), 0))
    }

    // What is granted is the page, not what its owner has put in front of it.
    @Test func aCopyDoesNotReachAPageOfTheHosts() throws {
        let pair = try Pair()
        defer { pair.close() }
        try pair.grant()
        #expect(pair.map().status == GNTST.okay)
        #expect(pair.anna.addToPhysmap(XenABI.XENMAPSPACE.grantTable, 1, at: Pair.page) == 0)
        try pair.bert.setWord(ofPage: 40, 0xbeef)
        #expect(pair.bert.copy(.page(40), .grant(Pair.reference, of: pair.anna.id), count: 8) == GNTST.badPage)
        #expect(pair.anna.word(ofPage: Pair.page) == 0)
        #expect(pair.bert.word(ofPage: Pair.there) == Pair.word)
    }

    // MARK: Special pages

    // Shifted left by 12, these are pages of RAM and of the window.
    @Test(arguments: [1 << 52 | 20, 1 << 52 | 0x200, 1 << 63 | 0x203, .max, 0x218, 256, 1 << 40] as [UInt64])
    func noSpecialPageIsPutWhereNoneCanBe(_ page: UInt64) throws {
        let pair = try Pair()
        defer { pair.close() }
        #expect(pair.anna.addToPhysmap(XenABI.XENMAPSPACE.grantTable, 1, at: page) == -22)
        #expect(pair.anna.word(ofPage: Pair.page) == Pair.word)
        #expect(pair.anna.removeFromPhysmap(page: page) == -22)
    }

    @Test func aSpecialPageCanMoveAndGo() throws {
        let pair = try Pair()
        defer { pair.close() }
        let anna = pair.anna
        try anna.setWord(ofPage: 30, 30)
        #expect(anna.addToPhysmap(XenABI.XENMAPSPACE.grantTable, 1, at: 30) == 0)
        #expect(anna.word(ofPage: 30) == 0)
        try anna.setWord(ofPage: 30, 77)
        #expect(anna.addToPhysmap(XenABI.XENMAPSPACE.grantTable, 1, at: 0x204) == 0)
        #expect((anna.word(ofPage: 30), anna.word(ofPage: 0x204)) == (30, 77))
        #expect(anna.addToPhysmap(XenABI.XENMAPSPACE.grantTable, 1, at: 0x204) == 0)
        #expect(anna.addToPhysmap(XenABI.XENMAPSPACE.grantTable, 2, at: 0x204) == -22)
        #expect(anna.removeFromPhysmap(page: 0x204) == 0)
        #expect(anna.word(ofPage: 0x204) == nil)
        #expect(anna.removeFromPhysmap(page: 0x204) == -22)
        #expect(anna.removeFromPhysmap(page: 30) == -22)
        // The table is as large as ever.
        #expect(pair.bert.map(1023, of: anna.id, atPage: Pair.there).status == GNTST.generalError)
        #expect(pair.bert.map(1536, of: anna.id, atPage: Pair.there).status == GNTST.badGntref)
    }

    @Test func spacesThatThereAreNot() throws {
        let pair = try Pair()
        defer { pair.close() }
        for (space, index) in [(0, 1), (1, 64), (1, 0x8000_0000), (1, .max), (2, 0), (3, 0), (4, 0), (5, 0), (99, 0)]
            as [(UInt32, UInt64)]
        {
            #expect(pair.anna.addToPhysmap(space, index, at: 40) == -22, "\(space), \(index)")
        }
        #expect(pair.anna.addToPhysmap(0, 0, at: 40, of: pair.bert.id) == -1)
        #expect(pair.anna.removeFromPhysmap(page: XenGuest.Place.sharedInfo, of: pair.bert.id) == -1)
        #expect(pair.anna.addToPhysmap(1, 63, at: 40, of: pair.anna.id) == 0)
    }

    // MARK: The end of one of them

    @Test(arguments: [false, true]) func theGranterEnds(_ isReadOnly: Bool) throws {
        let pair = try Pair()
        try pair.grant()
        let handle = pair.map(readOnly: isReadOnly).handle
        let address = unsafe UInt(bitPattern: pair.bert.pointer(Pair.there << 12))
        let number = pair.anna.id
        pair.anna.close()
        #expect(pair.bert.word(ofPage: Pair.there) == 0)
        let addressAfter = unsafe UInt(bitPattern: pair.bert.pointer(Pair.there << 12))
        #expect(address != 0 && addressAfter == address)
        #expect(pair.bert.memory.isReadOnly(page: Pair.there) == isReadOnly)
        // Another of her number knows nothing of it.
        let other = try XenGuest(in: pair.house, name: "other")
        #expect(other.id == number)
        try other.grant(Pair.reference, page: Pair.page, to: pair.bert.id)
        try other.setWord(ofPage: Pair.page, 66)
        let second = pair.bert.map(Pair.reference, of: number, atPage: Pair.there + 1).handle
        #expect(pair.bert.word(ofPage: Pair.there) == 0)
        #expect(pair.bert.unmap(handle, atPage: Pair.there) == GNTST.okay)
        #expect(pair.bert.word(ofPage: Pair.there) == nil)
        #expect(other.entry(Pair.reference).flags == GTF.permitAccess | GTF.reading | GTF.writing)
        #expect(pair.bert.word(ofPage: Pair.there + 1) == 66)
        #expect(pair.bert.unmap(second, atPage: Pair.there + 1) == GNTST.okay)
        #expect(other.entry(Pair.reference).flags == GTF.permitAccess)
        #expect(pair.bert.unmap(handle, atPage: Pair.there) == GNTST.badHandle)
        pair.bert.close()
        other.close()
    }

    @Test func theMapperEnds() throws {
        let pair = try Pair()
        try pair.grant()
        #expect(pair.map().status == 0)
        #expect(pair.bert.map(Pair.reference, of: pair.anna.id, atPage: Pair.there + 1, readOnly: true).status == 0)
        pair.bert.close()
        #expect(pair.flags == GTF.permitAccess)
        #expect(pair.anna.endGrant(Pair.reference))
        #expect(pair.bert.word(ofPage: Pair.there) == nil)
        pair.anna.close()
    }

    @Test func eachMapsOfTheOtherAndOneEnds() throws {
        let pair = try Pair()
        try pair.grant()
        try pair.bert.grant(8, page: 30, to: pair.anna.id)
        try pair.bert.setWord(ofPage: 30, 30)
        let handle = pair.map().handle
        #expect(pair.anna.map(8, of: pair.bert.id, atPage: Pair.there).status == 0)
        pair.anna.reset()
        #expect(pair.bert.entry(8).flags == GTF.permitAccess)
        #expect(pair.anna.word(ofPage: Pair.there) == nil)
        #expect(pair.bert.word(ofPage: Pair.there) == 0)
        // Her memory is hers again, as it was.
        #expect(pair.anna.word(ofPage: Pair.page) == Pair.word)
        pair.anna.place()
        #expect(pair.anna.entry(Pair.reference) == .init())
        #expect(pair.bert.unmap(handle, atPage: Pair.there) == GNTST.okay)
        pair.close()
    }

    @Test func aDomainMapsItsOwnPage() throws {
        let pair = try Pair()
        try pair.anna.grant(8, page: Pair.page, to: pair.anna.id)
        #expect(pair.anna.map(8, of: pair.anna.id, atPage: Pair.there).status == 0)
        #expect(pair.anna.word(ofPage: Pair.there) == Pair.word)
        pair.anna.reset()
        #expect(pair.anna.word(ofPage: Pair.there) == nil)
        pair.close()
    }

    @Test func aRebootLeaksNothing() throws {
        let pair = try Pair()
        defer { pair.close() }
        func live() throws -> [Int] {
            pair.anna.place()
            pair.bert.place()
            try pair.grant()
            try pair.bert.grant(8, page: 30, to: pair.anna.id)
            let first = pair.map().handle
            let second = pair.anna.map(8, of: pair.bert.id, atPage: Pair.there).handle
            let port = pair.anna.allocUnbound(for: pair.bert.id)
            let other = pair.bert.bindInterdomain(pair.anna.id, UInt32(port))
            return [Int(first), Int(second), port, other, pair.bert.bindVIRQ(0), pair.anna.bindIPI()]
        }
        let first = try live()
        #expect(first == [0, 0, 2, 2, 3, 3])
        for round in 0..<200 {
            pair.anna.reset()
            pair.bert.reset()
            #expect(try live() == first, "round \(round)")
        }
    }
}
