internal import Synchronization

//D:330 Two rings in a page
//
// A Guest talks to the store through one page of its own memory:
//
//        0  requests, 1024 bytes
//     1024  responses, 1024 bytes
//     2048  requests taken    (ours)        2052  requests put  (the Guest's)
//     2056  responses taken   (the Guest's) 2060  responses put (ours)
//     2064  what the server can do beyond the rest: nothing, 0
//
// The four indexes count bytes and run freely; a byte's place is its index
// modulo 1024. Each side writes two of them and believes the other two as far
// as it can: "put" less "taken" is how much is in a ring, and more than 1024
// cannot be. A Guest that says so has lost count, and there is no way to find
// a message's beginning again; nothing more is heard from it or said to it.
//
// The Guest can write anywhere at any time, to our indexes as well. So ours
// are kept here and only ever written there; its indexes are read once each
// time, and a byte of a request is copied once, before anybody looks at it.
//
// Who is woken when? Linux rings after it has put something into a ring that
// was empty, and after it has taken something from one that was full. So we
// may only stop with the requests all taken or with the responses full to the
// last byte, which is why a message that does not fit is begun anyway.

/// The store's end of one Guest's page. Used under the store's lock.
@safe struct StoreRing: @unchecked Sendable {
    static let byteCount: UInt32 = 1024

    private let requests: UnsafeRawPointer
    private let responses: UnsafeMutableRawPointer
    private let requestsTakenPlace: UnsafePointer<Atomic<UInt32>>
    private let requestsPutPlace: UnsafePointer<Atomic<UInt32>>
    private let responsesTakenPlace: UnsafePointer<Atomic<UInt32>>
    private let responsesPutPlace: UnsafePointer<Atomic<UInt32>>
    private var requestsTaken: UInt32 = 0
    private var responsesPut: UInt32 = 0

    /// - Parameter page: zeroes, and 4096 of them, as long as this lives.
    init(_ page: UnsafeMutableRawPointer) {
        // SAFETY: inside the page, which is aligned far better than an index needs.
        func index(_ offset: Int) -> UnsafePointer<Atomic<UInt32>> {
            unsafe UnsafePointer((page + offset).assumingMemoryBound(to: Atomic<UInt32>.self))
        }
        unsafe requests = UnsafeRawPointer(page)
        unsafe responses = page + 1024
        unsafe requestsTakenPlace = index(2048)
        unsafe requestsPutPlace = index(2052)
        unsafe responsesTakenPlace = index(2056)
        unsafe responsesPutPlace = index(2060)
        unsafe (page + 2064).storeBytes(of: 0, as: UInt32.self)
    }

    /// How many bytes of requests there are to be read.
    func available() throws(StoreLoss) -> Int {
        // GUEST: read once, and believed if it is at most a ring away.
        // ORDERING: pairs with the Guest's write barrier before it moves the index: the bytes are there.
        let count = unsafe requestsPutPlace.pointee.load(ordering: .acquiring) &- requestsTaken
        guard count <= Self.byteCount else { throw .requestIndexes }
        return Int(count)
    }

    /// How many bytes of responses there is room for.
    func room() throws(StoreLoss) -> Int {
        // GUEST: as above.
        // ORDERING: pairs with the Guest's barrier between taking the bytes and moving the index: it needs no more
        // of them.
        let count = unsafe responsesPut &- responsesTakenPlace.pointee.load(ordering: .acquiring)
        guard count <= Self.byteCount else { throw .responseIndexes }
        return Int(Self.byteCount - count)
    }

    /// Takes up to `count` bytes of requests.
    ///
    /// - Returns: how many; fewer only if there are no more.
    mutating func read(_ count: Int, into bytes: inout [UInt8]) throws(StoreLoss) -> Int {
        var taken = 0
        while taken < count {
            let available = try available()
            guard available > 0 else { break }
            let place = Int(requestsTaken % Self.byteCount)
            let piece = min(available, count - taken, Int(Self.byteCount) - place)
            // SAFETY: `piece` ends at the ring's end at the latest. The Guest may be writing: we get some bytes or
            // others.
            unsafe bytes.append(contentsOf: UnsafeRawBufferPointer(start: requests + place, count: piece))
            taken += piece
            requestsTaken &+= UInt32(piece)
            // ORDERING: after the copy; pairs with the Guest's barrier before it writes what it has room for.
            unsafe requestsTakenPlace.pointee.store(requestsTaken, ordering: .releasing)
            // ORDERING: our index, then our look at the Guest's; it moves its own, then looks whether the ring was
            // empty.
            atomicMemoryFence(ordering: .sequentiallyConsistent)
        }
        return taken
    }

    /// Puts as many bytes of responses as there is room for.
    ///
    /// - Returns: how many; fewer than all only if the ring is full, and the Guest has not taken anything since.
    mutating func write(_ bytes: ArraySlice<UInt8>) throws(StoreLoss) -> Int {
        var rest = bytes
        while !rest.isEmpty {
            let room = try room()
            guard room > 0 else { break }
            let place = Int(responsesPut % Self.byteCount)
            let piece = min(room, rest.count, Int(Self.byteCount) - place)
            // SAFETY: as in `read`.
            unsafe rest.withUnsafeBytes {
                unsafe UnsafeMutableRawBufferPointer(start: responses + place, count: piece)
                    .copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[..<piece]))
            }
            rest = rest.dropFirst(piece)
            responsesPut &+= UInt32(piece)
            // ORDERING: after the bytes; pairs with the Guest's read barrier after it has read the index.
            unsafe responsesPutPlace.pointee.store(responsesPut, ordering: .releasing)
            // ORDERING: our index, then our look at the Guest's; it moves its own, then looks whether the ring was
            // full.
            atomicMemoryFence(ordering: .sequentiallyConsistent)
        }
        return bytes.count - rest.count
    }
}
//:
