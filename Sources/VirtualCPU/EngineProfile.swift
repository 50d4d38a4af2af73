//S:040 Where a Guest's time goes
//
// A thousand times a second somebody posts `.sample`, and the engine, the next
// time it looks at its requests, writes down where it is. That costs nothing
// between two samples, and is honest within a block: the place is not where
// the clock rang, but where the engine could next be asked, which in
// translated code is where the next block begins.
//
// A miss of the TLB is written down each time. To find its place costs an
// engine no more than the walk that follows it.

/// A place in the Guest's code.
package struct CodePlace: Hashable, Sendable {
    /// Linear.
    package var address: UInt64
    /// A program's, by the address of its page tables; nil: the kernel's.
    package var program: UInt64?
    /// The page is all that is known; `address` is its first byte's.
    package var isPage: Bool

    package init(_ address: UInt64, program: UInt64? = nil, isPage: Bool = false) {
        self.address = address
        self.program = program
        self.isPage = isPage
    }
}

/// How often something happened, by place.
package struct PlaceCounts: Sendable {
    package private(set) var counts: [CodePlace: UInt64] = [:]
    /// At places that came when there were too many already.
    package private(set) var elsewhere: UInt64 = 0
    package private(set) var total: UInt64 = 0

    /// A Guest that runs for months, or wants to do us harm, finds ever new places: this is 16 MiB of them.
    package static let mostPlaces = 1 << 18

    package init() {}

    package mutating func add(_ place: CodePlace) {
        total &+= 1
        if counts[place] == nil && counts.count >= Self.mostPlaces {
            elsewhere &+= 1
        } else {
            counts[place, default: 0] &+= 1
        }
    }
}

/// What an engine writes down while it is watched. Only for the vCPU's thread.
package final class EngineProfile {
    package private(set) var samples = PlaceCounts()
    /// Data accesses whose page the TLB did not know.
    package private(set) var tlbMisses = PlaceCounts()
    /// By vector: faults and traps that were delivered.
    package private(set) var exceptions = [UInt64](repeating: 0, count: 32)

    package init() {}

    package func addSample(_ place: CodePlace) { samples.add(place) }
    package func addTLBMiss(_ place: CodePlace) { tlbMisses.add(place) }
    package func addException(_ vector: UInt8) { exceptions[Int(vector & 31)] &+= 1 }
}
//:
