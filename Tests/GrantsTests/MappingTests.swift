import Grants
import Testing

/// Mappings, the other side's maps, and what is done at a page's end.
@Suite struct MappingTests {
    private let page: UInt64 = 4096

    @Test func mapWantsAWholeRunOfTheFile() throws {
        let lender = Lender()
        let (file, other) = (try lender.open(), try lender.open())
        try lender.allocate(2, in: file)
        try lender.allocate(2, in: file)
        try lender.allocate(9, in: other)
        #expect(throws: GrantError.invalid) { _ = try lender.map(0, 1, isShared: false, in: file) }
        // That it is private comes first.
        #expect(throws: GrantError.invalid) { _ = try lender.map(9 * page, 1, isShared: false, in: file) }
        for (index, count) in [(0, 0), (1, 1), (page + 4095, 1)] as [(UInt64, UInt32)] {
            #expect(throws: GrantError.invalid) { _ = try lender.map(index, count, in: file) }
        }
        for (index, count) in [(0, 5), (3 * page, 2), (4 * page, 1), (.max & ~4095, 2)] as [(UInt64, UInt32)] {
            #expect(throws: GrantError.notFound) { _ = try lender.map(index, count, in: file) }
        }
        let mapped = try lender.map(page, 2, in: file)
        #expect(lender.frames(mapped) == [try lender.frame(page, in: file), try lender.frame(2 * page, in: file)])
    }

    @Test func mappedPagesLiveUntilTheyAreUnmapped() throws {
        let lender = Lender()
        let file = try lender.open()
        try lender.allocate(4, in: file)
        let mapped = try lender.map(0, 3, in: file)
        let frames = lender.frames(mapped)
        try lender.deallocate(0, 4, in: file)
        #expect(lender.granted == 3 && lender.allocator.pageCount == 3)
        #expect(lender.frames(mapped) == frames)
        // They are no longer the file's.
        #expect(throws: GrantError.notFound) { _ = try lender.map(0, 3, in: file) }
        #expect(throws: GrantError.notFound) { try lender.notify(0, 0, in: file) }
        #expect(throws: GrantError.invalid) { try lender.deallocate(0, 1, in: file) }
        lender.unmap(mapped)
        #expect(lender.granted == 0 && lender.domain.problems == [])
    }

    @Test func theFileKeepsWhatIsUnmapped() throws {
        let lender = Lender()
        let file = try lender.open()
        try lender.allocate(2, in: file)
        for _ in 0..<3 { lender.unmap(try lender.map(0, 2, in: file)) }
        #expect(lender.granted == 2)
        try lender.deallocate(0, 2, in: file)
        #expect(lender.granted == 0)
    }

    @Test func aForkHasTheMappingOnceMore() throws {
        let lender = Lender()
        let file = try lender.open()
        try lender.allocate(3, in: file)
        let parent = try lender.map(0, 2, in: file)
        let overlapping = try lender.map(page, 2, in: file)
        let child = try #require(lender.fork(parent))
        let grandchild = try #require(lender.fork(child))
        #expect(lender.frames(child) == lender.frames(parent))
        try lender.allocator.close(file)
        #expect(lender.granted == 3)
        lender.unmap(parent)
        lender.unmap(grandchild)
        #expect(lender.granted == 3)
        lender.unmap(child)
        #expect(lender.granted == 2)
        lender.unmap(overlapping)
        #expect(lender.granted == 0 && lender.domain.problems == [])
    }

    @Test func aMappingIsOfItsOwnAllocator() async {
        await #expect(processExitsWith: .failure) {
            let (lender, other) = (Lender(), Lender())
            let file = try lender.open()
            try lender.allocate(1, in: file)
            other.unmap(try lender.map(0, 1, in: file))
        }
    }

    // MARK: The other side

    @Test func whatTheOtherSideHasIsFreedLater() throws {
        let lender = Lender()
        let file = try lender.open()
        try lender.allocate(3, in: file)
        let reference = try lender.reference(page, in: file)
        lender.domain.map(reference)
        lender.domain.map(reference)
        try lender.deallocate(0, 3, in: file)
        #expect(lender.granted == 1 && lender.domain.pages.count == 1)
        #expect(lender.allocator.pageCount == 1 && lender.allocator.deferredCount == 1)
        lender.domain.unmap(reference)
        lender.allocator.reap()
        #expect(lender.granted == 1 && lender.allocator.deferredCount == 1)
        lender.domain.unmap(reference)
        // Nothing happens by itself.
        #expect(lender.granted == 1)
        lender.allocator.reap()
        #expect(lender.granted == 0 && lender.domain.pages.isEmpty)
        #expect(lender.allocator.pageCount == 0 && lender.allocator.deferredCount == 0)
        lender.allocator.reap()
        #expect(lender.domain.problems == [])
    }

    @Test func whoeverComesNextTriesAgain() throws {
        let lender = Lender()
        let (file, other) = (try lender.open(), try lender.open())
        try lender.allocate(9, in: other)
        let attempts: [() throws -> Void] = [
            { try lender.allocate(1, in: other) },
            { try lender.allocate(0, in: other) },
            { try lender.deallocate(0, 1, in: other) },
            { #expect(throws: GrantError.invalid) { try lender.deallocate(0, 1, in: other) } },
            { #expect(throws: GrantError.noSpace) { try lender.allocate(5000, in: other) } },
            { try lender.allocator.close(other) },
        ]
        for (number, attempt) in attempts.enumerated() {
            let index = try lender.allocate(1, in: file)
            let reference = try lender.reference(index, in: file)
            lender.domain.map(reference)
            try lender.deallocate(index, 1, in: file)
            #expect(lender.allocator.deferredCount == 1)
            lender.domain.unmap(reference)
            try attempt()
            #expect(lender.allocator.deferredCount == 0, "attempt \(number)")
        }
        #expect(lender.domain.problems == [])
    }

    /// A neighbour that never unmaps has the limit's pages at most, and the next request fails.
    @Test func deferredPagesCountAgainstTheLimit() throws {
        let lender = Lender(limit: 8)
        let file = try lender.open()
        for count in 0..<8 as Range<UInt32> {
            #expect(lender.allocator.deferredCount == count)
            let index = try lender.allocate(1, in: file)
            lender.domain.map(try lender.reference(index, in: file))
            try lender.deallocate(index, 1, in: file)
        }
        #expect(throws: GrantError.noSpace) { try lender.allocate(1, in: file) }
        #expect(lender.domain.pages.count == 8)
        for reference in lender.domain.maps.keys.sorted().prefix(3) { lender.domain.unmap(reference) }
        #expect(throws: GrantError.noSpace) { try lender.allocate(4, in: file) }
        try lender.allocate(3, in: file)
        #expect(lender.allocator.pageCount == 8 && lender.allocator.deferredCount == 5)
        for reference in lender.domain.maps.keys { lender.domain.unmap(reference) }
        try lender.allocator.close(file)
        #expect(lender.allocator.pageCount == 0 && lender.domain.pages.isEmpty && lender.domain.problems == [])
    }

    /// Our own mapping counts as long as it is there, theirs after that.
    @Test func aPageIsFreeWhenAllThreeHaveLetGo() throws {
        enum Holder: CaseIterable { case file, mapping, other }
        let orders: [[Holder]] = Holder.allCases.flatMap { first in
            Holder.allCases.filter { $0 != first }.flatMap { second in
                [[first, second] + Holder.allCases.filter { $0 != first && $0 != second }]
            }
        }
        #expect(orders.count == 6)
        for order in orders {
            let lender = Lender()
            let file = try lender.open()
            try lender.allocate(1, in: file)
            let reference = try lender.reference(0, in: file)
            let mapped = try lender.map(0, 1, in: file)
            lender.domain.map(reference)
            for holder in order {
                #expect(lender.granted == 1 && lender.domain.pages.count == 1, "\(order)")
                switch holder {
                case .file: try lender.deallocate(0, 1, in: file)
                case .mapping: lender.unmap(mapped)
                case .other: lender.domain.unmap(reference)
                }
                lender.allocator.reap()
            }
            #expect(lender.granted == 0 && lender.domain.pages.isEmpty && lender.domain.problems == [], "\(order)")
        }
    }

    // MARK: Notifying

    private let clear: UInt32 = 1, send: UInt32 = 2, both: UInt32 = 3

    @Test func theByteComesBeforeTheBell() throws {
        let lender = Lender()
        lender.domain.open(port: 5)
        let file = try lender.open()
        try lender.allocate(2, in: file)
        let frame = try lender.frame(page, in: file)
        let reference = try lender.reference(page, in: file)
        lender.domain.write(1, frame, at: 21)
        try lender.notify(page + 21, both, port: 5, in: file)
        // It is the other side that is to see it.
        lender.domain.map(reference)
        _ = lender.domain.takeEvents()
        try lender.deallocate(page, 1, in: file)
        #expect(lender.domain.takeEvents() == [.cleared(frame: frame, offset: 21), .rang(5)])
        #expect(lender.domain.pages[frame]?[21] == 0)
        // Once, though it takes a while.
        for _ in 0..<3 { lender.allocator.reap() }
        lender.domain.unmap(reference)
        lender.allocator.reap()
        #expect(lender.domain.takeEvents() == [.ended(reference)])
        #expect(lender.domain.ports == [5: 0])
    }

    @Test func itComesBeforeTheGrantEnds() throws {
        let lender = Lender()
        lender.domain.open(port: 5)
        let file = try lender.open()
        try lender.allocate(1, in: file)
        let (frame, reference) = (try lender.frame(0, in: file), try lender.reference(0, in: file))
        try lender.notify(0, both, port: 5, in: file)
        try lender.allocator.close(file)
        #expect(lender.domain.takeEvents() == [.cleared(frame: frame, offset: 0), .rang(5), .ended(reference)])
    }

    @Test(arguments: [true, false]) func itComesAtTheOwnersLastUse(fileIsLast: Bool) throws {
        let lender = Lender()
        lender.domain.open(port: 5)
        let file = try lender.open()
        try lender.allocate(1, in: file)
        let frame = try lender.frame(0, in: file)
        try lender.notify(4095, both, port: 5, in: file)
        let mapped = try lender.map(0, 1, in: file)
        let copy = try #require(lender.fork(mapped))
        if !fileIsLast { try lender.allocator.close(file) }
        lender.unmap(mapped)
        #expect(lender.domain.takeNotifications() == [])
        lender.unmap(copy)
        if fileIsLast {
            #expect(lender.domain.takeNotifications() == [])
            try lender.allocator.close(file)
        }
        #expect(lender.domain.takeNotifications() == [.cleared(frame: frame, offset: 4095), .rang(5)])
        #expect(lender.domain.ports == [5: 0] && lender.domain.problems == [])
    }

    @Test func eachOfTheTwoAlone() throws {
        let lender = Lender()
        lender.domain.open(port: 5)
        let file = try lender.open()
        try lender.allocate(2, in: file)
        let frame = try lender.frame(0, in: file)
        // A port is of no interest to those who do not want an event.
        try lender.notify(7, clear, port: 99, in: file)
        try lender.notify(page, send, port: 5, in: file)
        try lender.allocator.close(file)
        #expect(lender.domain.takeNotifications() == [.cleared(frame: frame, offset: 7), .rang(5)])
    }

    @Test func itsErrorsComeInOrder() throws {
        let lender = Lender()
        lender.domain.open(port: 5)
        let file = try lender.open()
        try lender.allocate(1, in: file)
        #expect(throws: GrantError.notFound) { try lender.notify(page, 4, port: 99, in: file) }
        #expect(throws: GrantError.notFound) { try lender.notify(page, both, port: 5, in: file) }
        #expect(lender.domain.ports == [5: 0])
        for action in [4, 5, 6, 7, 0x8000_0000, .max] as [UInt32] {
            #expect(throws: GrantError.invalid) { try lender.notify(0, action, port: 5, in: file) }
        }
        #expect(lender.domain.ports == [5: 0])
        for action in [send, both] {
            #expect(throws: GrantError.invalid) { try lender.notify(0, action, port: 99, in: file) }
        }
        try lender.allocator.close(file)
        #expect(lender.domain.takeNotifications() == [])
    }

    @Test func theLastOneCounts() throws {
        let lender = Lender()
        for port in 5...6 as ClosedRange<UInt32> { lender.domain.open(port: port) }
        let file = try lender.open()
        try lender.allocate(1, in: file)
        let frame = try lender.frame(0, in: file)
        try lender.notify(1, both, port: 5, in: file)
        #expect(lender.domain.ports == [5: 1, 6: 0])
        try lender.notify(2, both, port: 6, in: file)
        #expect(lender.domain.ports == [5: 0, 6: 1])
        // The same port once more is not let go between.
        try lender.notify(3, both, port: 6, in: file)
        #expect(lender.domain.ports == [5: 0, 6: 1])
        // What is refused changes nothing.
        #expect(throws: GrantError.invalid) { try lender.notify(4, both, port: 99, in: file) }
        #expect(throws: GrantError.invalid) { try lender.notify(4, 4, port: 5, in: file) }
        #expect(lender.domain.ports == [5: 0, 6: 1])
        try lender.allocator.close(file)
        #expect(lender.domain.takeNotifications() == [.cleared(frame: frame, offset: 3), .rang(6)])
        #expect(lender.domain.ports == [5: 0, 6: 0] && lender.domain.problems == [])
    }

    @Test func zeroTakesItBack() throws {
        let lender = Lender()
        lender.domain.open(port: 5)
        let file = try lender.open()
        try lender.allocate(1, in: file)
        try lender.notify(1, both, port: 5, in: file)
        try lender.notify(1, 0, port: 5, in: file)
        #expect(lender.domain.ports == [5: 0])
        // And the next page in the same place has none.
        try lender.deallocate(0, 1, in: file)
        try lender.allocate(1, in: file)
        try lender.allocator.close(file)
        #expect(lender.domain.takeNotifications() == [] && lender.domain.problems == [])
    }

    @Test func aPageTakesNoNotificationOver() throws {
        let lender = Lender(limit: 1)
        lender.domain.open(port: 5)
        let file = try lender.open()
        try lender.allocate(1, in: file)
        try lender.notify(1, both, port: 5, in: file)
        try lender.deallocate(0, 1, in: file)
        _ = lender.domain.takeEvents()
        let index = try lender.allocate(1, in: file)
        try lender.deallocate(index, 1, in: file)
        #expect(lender.domain.takeNotifications() == [] && lender.domain.problems == [])
    }
}
