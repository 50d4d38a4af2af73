import CPUOracle
import Grants
import HostInterface
import Testing

/// Whatever programs and neighbours do, against `GrantModel`. `ROOST_SEED` chooses the sequence.
@Suite struct GrantModelTests {
    private static let steps = 20_000

    @Test func theAllocatorDoesWhatTheModelDoes() throws {
        let seed = environmentVariable("ROOST_SEED").flatMap { UInt64($0) } ?? .random(in: 0 ... .max)
        print("GrantModelTests: ROOST_SEED=\(seed)")
        var play = GrantPlay(seed: seed)
        for step in 0..<Self.steps {
            let action = try play.step()
            if let difference = try play.difference() {
                Issue.record("seed \(seed), step \(step), \(action): \(difference)")
                return
            }
        }
        if let leak = try play.end() { Issue.record("seed \(seed), at the end: \(leak)") }
        print("GrantModelTests: \(play.counts.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" })")
        for outcome in [
            "allocated", "above the limit", "no page", "table full", "guessed", "deallocated", "not deallocated",
            "mapped",
            "not mapped", "forked", "unmapped", "notify", "no notify", "notified", "deferred", "reaped", "no file left",
        ] {
            #expect(play.counts[outcome, default: 0] > 0, "the sequence never came to: \(outcome)")
        }
    }
}

/// One sequence, played to the allocator and to the model.
private struct GrantPlay {
    private static let limit: UInt32 = 40, fileLimit: UInt32 = 4
    private static let ports: [UInt32] = [3, 4, 5]

    private var random: SeededGenerator
    private let lender = Lender(limit: limit, files: fileLimit)
    private var model = GrantModel(limit: Int(limit), ports: ports)
    private var files: [Int: GrantFile] = [:]
    private var mappings: [Int: Mapped] = [:]
    private var next = 0
    private var problem: String?
    private(set) var counts: [String: Int] = [:]

    init(seed: UInt64) {
        random = SeededGenerator(seed: seed)
        for port in Self.ports { lender.domain.open(port: port) }
    }

    private mutating func count(_ outcome: String) { counts[outcome, default: 0] += 1 }

    private var isMapped: (UInt32) -> Bool { { [domain = lender.domain] in domain.maps[$0] != nil } }

    private mutating func expect(_ expected: GrantError?, _ body: () throws -> Void) {
        var found: GrantError?
        do { try body() } catch { found = error as? GrantError }
        if found != expected { problem = "\(String(describing: found)) instead of \(String(describing: expected))" }
    }

    /// Something that is there, or nearly.
    private mutating func place(_ file: Int) -> (index: UInt64, count: UInt32) {
        let pages = model.files[file]?.pages.keys.sorted() ?? []
        var index = pages.isEmpty || random.chance(10) ? UInt64(random.below(60)) * 4096 : random.pick(pages)
        if random.chance(2) { index = random.pick([.max, .max & ~4095, 1 << 63, index + 1, index &- 4096]) }
        // Most often as long as the run is, at most.
        var length = 1
        while length < 8, pages.contains(index &+ UInt64(length) * 4096), random.chance(70) { length += 1 }
        return (index, random.chance(5) ? random.pick([0, 41, .max, UInt32(length) + 1]) : UInt32(length))
    }

    // MARK: Steps

    /// - Returns: what it was.
    mutating func step() throws -> String {
        let deferred = lender.allocator.deferredCount
        defer { if lender.allocator.deferredCount > deferred { count("deferred") } }
        if random.chance(20) { return foreign() }
        guard let file = files.keys.sorted().randomElement(using: &random), !random.chance(4) else { return open() }
        switch random.below(20) {
        case 0..<6: return allocate(file)
        case 6..<9:
            let (index, count) = place(file)
            let expected = model.deallocate(file, index, count, isMapped: isMapped)
            expect(expected) { [lender, files] in try lender.deallocate(index, count, in: files[file] ?? lender.open())
            }
            self.count(expected == nil ? "deallocated" : "not deallocated")
            return "deallocate \(file), \(index), \(count)"
        case 9..<12: return try map(file)
        case 12..<14:
            guard let old = mappings.keys.sorted().randomElement(using: &random), let mapped = mappings[old],
                mappings.count < 30
            else { return "no fork" }
            mappings[next] = lender.fork(mapped)
            model.fork(old, as: next)
            next += 1
            count("forked")
            return "fork \(old)"
        case 14..<17:
            guard let old = mappings.keys.sorted().randomElement(using: &random) else { return "no unmap" }
            model.unmap(old, isMapped: isMapped)
            if let mapped = mappings.removeValue(forKey: old) { lender.unmap(mapped) }
            count("unmapped")
            return "unmap \(old)"
        case 17..<19:
            let index = place(file).index &+ UInt64(random.below(4096))
            let action = UInt32(random.chance(10) ? random.pick([4, 5, 0x80]) : random.below(4))
            let port = random.chance(10) ? 9 : random.pick(Self.ports)
            let expected = model.notify(file, index, action, port)
            expect(expected) { [lender, files] in
                try lender.notify(index, action, port: port, in: files[file] ?? lender.open())
            }
            count(expected == nil ? "notify" : "no notify")
            return "notify \(file), \(index), \(action), \(port)"
        default:
            guard random.chance(30) else {
                lender.allocator.reap()
                model.reap(isMapped)
                count("reaped")
                return "reap"
            }
            model.close(file, isMapped: isMapped)
            if let closed = files.removeValue(forKey: file) {
                expect(nil) { [lender] in try lender.allocator.close(closed) }
            }
            count("closed")
            return "close \(file)"
        }
    }

    private mutating func open() -> String {
        let isFull = files.count == Int(Self.fileLimit)
        var opened: GrantFile?
        expect(isFull ? .noMemory : nil) { [lender] in opened = try lender.open() }
        if let opened {
            files[next] = opened
            model.open(next)
            next += 1
        }
        count(isFull ? "no file left" : "opened")
        return "open"
    }

    private mutating func allocate(_ number: Int) -> String {
        guard let file = files[number] else { return "" }
        let domain = lender.domain
        let count = random.chance(3) ? random.pick([0, 41, .max]) : UInt32(1 + random.below(8))
        let action = "allocate \(number), \(count)"
        // One in three fails on the way, and then somebody may have guessed a reference.
        let isFailing = random.chance(30), element = random.below(Int(min(count, 9)) + 1)
        let isPage = random.chance(50)
        if isFailing, isPage { domain.pagesUntilFailure = element }
        if isFailing, !isPage { domain.grantsUntilFailure = element }
        if isFailing, random.chance(50) { domain.guesses = Set((8..<60).filter { _ in random.chance(20) }) }
        let start = model.files[number]?.next ?? 0
        let isAdmitted = model.admits(count, isMapped: isMapped)
        let fails = isAdmitted && isFailing && element < Int(count)
        let expected: GrantError? = !isAdmitted ? .noSpace : !fails ? nil : isPage ? .noMemory : .noSpace
        var index: UInt64?
        expect(expected) { [lender] in index = try lender.allocate(count, for: UInt16(number & 0xff), in: file) }
        domain.pagesUntilFailure = nil
        domain.grantsUntilFailure = nil
        domain.guesses = []
        if let index {
            if index != start { problem = "index \(index) instead of \(start)" }
            var new: [(frame: UInt64, reference: UInt32)] = []
            for place in 0..<UInt64(count) {
                guard let reference = try? lender.reference(index + place * 4096, in: file),
                    let frame = try? lender.frame(index + place * 4096, in: file),
                    domain.grants[reference] == .init(frame: frame, domid: UInt16(number & 0xff), readOnly: false)
                else {
                    problem = "page \(place) is not granted"
                    break
                }
                new.append((frame, reference))
            }
            model.allocated(number, new)
            self.count("allocated")
        } else {
            let known = Set(model.pages.values.map(\.reference))
            for (reference, grant) in domain.grants where !known.contains(reference) {
                if domain.maps[reference] == nil { problem = "\(reference) is left over" }
                model.abandoned((grant.frame, reference))
                self.count("guessed")
            }
            self.count(!fails ? "above the limit" : isPage ? "no page" : "table full")
        }
        return action
    }

    private mutating func map(_ file: Int) throws -> String {
        let (index, length) = place(file)
        let isShared = !random.chance(3)
        guard mappings.count < 30, let granted = files[file] else { return "no map" }
        let expected = model.map(next, file, index, length, isShared: isShared)
        var mapped: Mapped?
        expect(expected) { [lender] in mapped = try lender.map(index, length, isShared: isShared, in: granted) }
        mappings[next] = mapped
        next += 1
        count(expected == nil ? "mapped" : "not mapped")
        return "map \(file), \(index), \(length)"
    }

    /// What the other side does.
    private mutating func foreign() -> String {
        let domain = lender.domain
        if random.chance(45), let reference = domain.grants.keys.sorted().randomElement(using: &random) {
            // A deferred page's grant is as good as any to somebody who has it already.
            domain.map(reference)
            return "map \(reference) from outside"
        }
        guard let reference = domain.maps.keys.sorted().randomElement(using: &random) else { return "no unmap outside" }
        domain.unmap(reference)
        return "unmap \(reference) from outside"
    }

    // MARK: Comparing

    /// What the allocator has that the model has not.
    mutating func difference() throws -> String? {
        if let problem { return problem }
        let domain = lender.domain
        if let first = domain.problems.first { return first }
        if !lender.keepsToItsMemory { return "wrote behind its memory" }
        if Int(lender.allocator.pageCount) != model.pages.count {
            return "pageCount \(lender.allocator.pageCount) instead of \(model.pages.count)"
        }
        if Int(lender.allocator.deferredCount) != model.deferred {
            return "deferredCount \(lender.allocator.deferredCount) instead of \(model.deferred)"
        }
        // Neither leaked nor freed too soon.
        if Set(domain.pages.keys) != Set(model.pages.values.map(\.frame)) {
            return "pages \(domain.pages.keys.sorted())"
        }
        if Set(domain.grants.keys) != Set(model.pages.values.map(\.reference)) {
            return "grants \(domain.grants.keys.sorted())"
        }
        if domain.ports != model.ports { return "ports \(domain.ports) instead of \(model.ports)" }
        let (events, expected) = (domain.takeNotifications(), model.takeEvents())
        if events != expected { return "events \(events) instead of \(expected)" }
        counts["notified", default: 0] += events.count
        for (number, file) in files {
            for (index, page) in model.files[number]?.pages ?? [:] {
                let frame = try? lender.frame(index, in: file)
                if frame != model.pages[page]?.frame { return "file \(number), \(index): \(String(describing: frame))" }
            }
        }
        for (number, mapped) in mappings {
            let expected = model.mappings[number, default: []].compactMap { model.pages[$0]?.frame }
            if lender.frames(mapped) != expected { return "mapping \(number)" }
        }
        return nil
    }

    /// When all have let go, all of it is there again.
    mutating func end() throws -> String? {
        for mapped in mappings.values { lender.unmap(mapped) }
        for file in files.values { try lender.allocator.close(file) }
        while let reference = lender.domain.maps.keys.first { lender.domain.unmap(reference) }
        lender.allocator.reap()
        let domain = lender.domain
        if !domain.pages.isEmpty || !domain.grants.isEmpty || domain.ports.values.contains(where: { $0 != 0 }) {
            return "pages \(domain.pages.keys.sorted()), grants \(domain.grants.keys.sorted()), ports \(domain.ports)"
        }
        guard lender.allocator.pageCount == 0, lender.allocator.deferredCount == 0 else { return "counts" }
        try lender.allocate(Self.limit, in: lender.open())
        return domain.problems.first
    }
}
