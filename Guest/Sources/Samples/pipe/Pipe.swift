import GuestKit

/// How fast bytes go from one Guest to another by memory that they share. `peer=N` as in `lend`; the lower number
/// sends `bytes=1G`, in blocks of `block=128K`, through a ring of `pages=256`.
///
/// Each block is copied twice: from a buffer of the sender's into the ring, and out of the ring into a
/// buffer of the receiver's. Both go on at once, each Guest on a CPU of its own. Beside it stands what the sender's CPU
/// copies when it copies the same blocks between two buffers of its own, each as large as the ring, while the other
/// sleeps. What is checked is that each page is the right one: its first word is its number in all that is sent,
/// and the receiver looks for it in its own buffer.
///
/// A smaller ring is slower, and not for want of room (64 pages: 8 GB/s, 256: 20). It seems that its lines go straight
/// from the cache of one CPU to that of the other, and those of a larger one by way of the cache that both share.
@main struct Pipe {
    static let peer = UInt16(truncatingIfNeeded: Boot.number("peer") ?? (Xen.domid == 1 ? 2 : 1))

    static func main() {
        if Xen.domid < peer { send() } else { receive() }
    }

    static func send() {
        let pages = Int(Boot.number("pages") ?? 256)
        let blockBytes = Int(Boot.bytes("block") ?? 128 << 10)
        guard blockBytes % Pages.size == 0, pages * Pages.size % blockBytes == 0, pages <= Ring.mostPages else {
            panic("a block is pages, and a ring up to \(Ring.mostPages), in blocks")
        }
        let (buffer, other) = (Pages.take(pages), Pages.take(pages))
        let total = Int(Boot.bytes("bytes") ?? 1 << 30) / blockBytes
        let memcpy = measure(blockBytes, total) { place in
            other.part(place, blockBytes).copy(from: buffer.part(place, blockBytes))
        }

        guard var ring = Ring.lend(pages, blockBytes: blockBytes, total: total, to: peer) else {
            panic("there is nothing to lend")
        }
        ring.awaitReceiver()
        let start = Clock.nanoseconds
        for block in 0..<total {
            let place = block * blockBytes % buffer.count
            stamp(buffer.part(place, blockBytes), block)
            guard ring.awaitRoom(block) else { return print("\(peer) has gone after \(block) blocks") }
            ring.blocks.part(place, blockBytes).copy(from: buffer.part(place, blockBytes))
            ring.put(block + 1)
        }
        guard ring.awaitEmpty(total) else { return print("\(peer) has gone") }
        let taken = max(Clock.nanoseconds - start, 1)
        let (bytes, ms) = (UInt64(total * blockBytes), taken / 1_000_000)
        let decimals: Text = "\(ms / 100 % 10)\(ms / 10 % 10)\(ms % 10)"
        print(
            "pipe bytes=\(bytes) seconds=\(ms / 1000).\(decimals) MBps=\(bytes * 1000 / taken) memcpyMBps=\(memcpy) wrong=\(ring.wrong) sleeps=\(ring.sleeps)"
        )
    }

    static func receive() {
        guard var ring = Ring.borrow(from: peer) else { return print("\(peer) has gone") }
        let buffer = Pages.take(ring.blocks.count / Pages.size)
        var wrong = 0
        for block in 0..<ring.total {
            let place = block * ring.blockBytes % buffer.count
            guard ring.awaitBlock(block) else { return print("\(peer) has gone after \(block) blocks") }
            let own = buffer.part(place, ring.blockBytes)
            own.copy(from: ring.blocks.part(place, ring.blockBytes))
            ring.take(block + 1)
            for page in 0..<ring.blockBytes / Pages.size where own.load(page * Pages.size) != number(page, own, block) {
                wrong += 1
            }
            if wrong > 0 { ring.report(wrong) }
        }
        print("received \(ring.total) blocks, \(wrong) pages were wrong, slept \(ring.sleeps) times")
        ring.awaitEnd()
    }

    /// What the first word of a page has: never 0, which is what a page is whose owner has died.
    static func number(_ page: Int, _ block: Region, _ number: Int) -> UInt64 {
        UInt64(number * (block.count / Pages.size) + page + 1)
    }

    static func stamp(_ block: Region, _ index: Int) {
        for page in 0..<block.count / Pages.size { block.store(number(page, block, index), at: page * Pages.size) }
    }

    /// In MB/s, of as many blocks as will be sent, but 256 MB at most. The first round is for the pages to be there.
    static func measure(_ blockBytes: Int, _ total: Int, _ copy: (_ place: Int) -> Void) -> UInt64 {
        let inRing = Int(Boot.number("pages") ?? 256) * Pages.size / blockBytes
        for block in 0..<inRing { copy(block * blockBytes) }
        let count = max(min(total, (256 << 20) / blockBytes), 1)
        let start = Clock.nanoseconds
        for block in 0..<count { copy(block % inRing * blockBytes) }
        return UInt64(count * blockBytes) * 1000 / max(Clock.nanoseconds - start, 1)
    }
}
