import Grants

/// What an allocator does, without lists, buckets and counters: sets, and sums over them.
struct GrantModel {
    struct Page {
        var frame: UInt64
        var reference: UInt32
        var isInFile = true
        var mappings = 0
        /// The byte, if one is to be cleared, and the port, if one is to be rung.
        var byte: Int?
        var port: UInt32?

        var isUsed: Bool { isInFile || mappings > 0 }
    }

    struct File {
        var next: UInt64 = 0
        /// Pages by index.
        var pages: [UInt64: Int] = [:]
    }

    private(set) var limit: Int
    private(set) var pages: [Int: Page] = [:]
    private(set) var files: [Int: File] = [:]
    private(set) var mappings: [Int: [Int]] = [:]
    private(set) var ports: [UInt32: Int] = [:]
    private(set) var events: [FakeDomain.Event] = []
    private var nextPage = 0

    init(limit: Int, ports: [UInt32]) {
        self.limit = limit
        for port in ports { self.ports[port] = 0 }
    }

    var deferred: Int { pages.values.count { !$0.isUsed } }

    mutating func takeEvents() -> [FakeDomain.Event] {
        defer { events = [] }
        return events
    }

    mutating func open(_ file: Int) { files[file] = File() }

    mutating func close(_ file: Int, isMapped: (UInt32) -> Bool) {
        reap(isMapped)
        for (_, page) in files[file, default: File()].pages.sorted(by: { $0.key < $1.key }) {
            pages[page]?.isInFile = false
            drop(page, isMapped)
        }
        files[file] = nil
    }

    /// Whether there is room for so many.
    mutating func admits(_ count: UInt32, isMapped: (UInt32) -> Bool) -> Bool {
        reap(isMapped)
        return pages.count + Int(count) <= limit
    }

    mutating func allocated(_ file: Int, _ new: [(frame: UInt64, reference: UInt32)]) {
        for page in new {
            pages[nextPage] = Page(frame: page.frame, reference: page.reference)
            let index = files[file]?.next ?? 0
            files[file]?.pages[index] = nextPage
            files[file]?.next = index + 4096
            nextPage += 1
        }
    }

    /// A page of a request that failed, and that somebody had mapped by then.
    mutating func abandoned(_ page: (frame: UInt64, reference: UInt32)) {
        pages[nextPage] = Page(frame: page.frame, reference: page.reference, isInFile: false)
        nextPage += 1
    }

    /// The pages of a run, if it is one.
    func run(_ file: Int, _ index: UInt64, _ count: UInt32) -> [Int]? {
        guard let file = files[file], count > 0, count <= limit else { return nil }
        let run = (0..<UInt64(count)).compactMap { file.pages[index &+ $0 * 4096] }
        return run.count == Int(count) ? run : nil
    }

    mutating func deallocate(_ file: Int, _ index: UInt64, _ count: UInt32, isMapped: (UInt32) -> Bool) -> GrantError? {
        reap(isMapped)
        guard let run = run(file, index, count) else { return .invalid }
        for (place, page) in run.enumerated() {
            files[file]?.pages[index + UInt64(place) * 4096] = nil
            pages[page]?.isInFile = false
            drop(page, isMapped)
        }
        return nil
    }

    mutating func map(_ mapping: Int, _ file: Int, _ index: UInt64, _ count: UInt32, isShared: Bool) -> GrantError? {
        guard isShared, count > 0, index % 4096 == 0 else { return .invalid }
        guard let run = run(file, index, count) else { return .notFound }
        for page in run { pages[page]?.mappings += 1 }
        mappings[mapping] = run
        return nil
    }

    mutating func fork(_ mapping: Int, as copy: Int) {
        mappings[copy] = mappings[mapping]
        for page in mappings[copy, default: []] { pages[page]?.mappings += 1 }
    }

    mutating func unmap(_ mapping: Int, isMapped: (UInt32) -> Bool) {
        for page in mappings.removeValue(forKey: mapping) ?? [] {
            pages[page]?.mappings -= 1
            drop(page, isMapped)
        }
    }

    mutating func notify(_ file: Int, _ index: UInt64, _ action: UInt32, _ port: UInt32) -> GrantError? {
        guard let page = files[file]?.pages[index / 4096 * 4096] else { return .notFound }
        if action > 3 || action & 2 != 0 && ports[port] == nil { return .invalid }
        if let old = pages[page]?.port { ports[old, default: 0] -= 1 }
        pages[page]?.byte = action & 1 != 0 ? Int(index % 4096) : nil
        pages[page]?.port = action & 2 != 0 ? port : nil
        if action & 2 != 0 { ports[port, default: 0] += 1 }
        return nil
    }

    mutating func reap(_ isMapped: (UInt32) -> Bool) {
        pages = pages.filter { $0.value.isUsed || isMapped($0.value.reference) }
    }

    private mutating func drop(_ number: Int, _ isMapped: (UInt32) -> Bool) {
        guard let page = pages[number], !page.isUsed else { return }
        if let byte = page.byte { events.append(.cleared(frame: page.frame, offset: byte)) }
        if let port = page.port {
            events.append(.rang(port))
            ports[port, default: 0] -= 1
        }
        pages[number]?.byte = nil
        pages[number]?.port = nil
        if !isMapped(page.reference) { pages[number] = nil }
    }
}
