//G:110 Guest to Guest
//
// Two Guests of one Host may share a page, and then a word of it has an
// address in each of them. That word is a key: not what is in it counts, but
// which word it is. Who wants to receive binds buffers to a key; who sends to
// it has its bytes copied by the Host into one of them, and the receiver is
// interrupted. No queue, no device, no copy but that one.
//
//      struct lguest_dma:  used_len 32, (32 unused)
//                          16 × address 64
//                          16 × length 16
//
// A section is in one page, so what goes over a page's end takes two.

/// One struct lguest_dma: a buffer in up to 16 sections.
struct DMABuffer {
    let record: Region

    /// Names the region, section by section, as far as 16 of them reach.
    init(_ record: Region, for region: Region) {
        self.record = record
        record.fill()
        var rest = region
        for section in 0..<LguestDMA.maximumSections where rest.count > 0 {
            let length = min(rest.count, LguestDMA.maximumSectionBytes - Int(rest.address % 4096))
            record.store(rest.address, at: Int(LguestDMA.addresses) + 8 * section)
            record.store(UInt16(length), at: Int(LguestDMA.lengths) + 2 * section)
            rest = rest.part(length, rest.count - length)
        }
    }

    /// One that has its sections already.
    init(bound record: Region) { self.record = record }

    /// 0: free for the Host.
    var usedLength: Int {
        // ORDERING: the Host releases it after the data.
        get { Int(record.loadAcquiringWord(Int(LguestDMA.usedLength))) }
        // ORDERING: whoever saw it 0 may overwrite the data that was read before.
        nonmutating set { record.storeReleasingWord(UInt32(newValue), at: Int(LguestDMA.usedLength)) }
    }
}

/// Sending to whoever has bound a key.
public enum DMA {
    /// Copies the region, of up to 15 pages, to the receiver's next buffer.
    ///
    /// - Returns: how many bytes were taken; 0 if nobody has a buffer free.
    public static func send(_ region: Region, to key: UInt64) -> Int {
        let buffer = DMABuffer(outgoing, for: region)
        Hypercall.sendDMA(key: key, buffer: buffer.record.address)
        return buffer.usedLength
    }

    /// The same with a text.
    public static func send(_ text: Text, to key: UInt64) -> Int { text.withRegion { send($0, to: key) } }

    @safe nonisolated(unsafe) private static var scratch: Region?

    private static var outgoing: Region {
        if let scratch { return scratch }
        let taken = Pages.take().prefix(LguestDMA.byteCount)
        scratch = taken
        return taken
    }
}

/// Buffers bound to a key, each of a page, and what others have sent into them.
public struct Inbox: ~Copyable {
    private let key: UInt64
    private let records: Region
    private let pages: Region
    private let count: Int
    private var oldest = 0

    /// Binds up to 24 buffers to the key, on an interrupt from 1 to 31. Nil: the Host has no room.
    public init?(key: UInt64, irq: Int, buffers: Int = 8) {
        precondition(buffers > 0 && buffers * LguestDMA.byteCount <= Pages.size && irq > 0)
        self.key = key
        count = buffers
        records = Pages.take()
        pages = Pages.take(buffers)
        for index in 0..<buffers { _ = DMABuffer(record(index), for: page(index)) }
        guard Hypercall.bindDMA(key: key, buffers: records.address, count: buffers, irq: irq) else { return nil }
    }

    deinit {
        _ = Hypercall.bindDMA(key: key, buffers: records.address, count: count, irq: 0)
    }

    /// The oldest message, which stays until `pop`; nil if there is none. The
    /// Host fills the buffers in order, from the one after the last.
    public var message: Region? {
        let length = buffer(oldest).usedLength
        return length > 0 ? page(oldest).prefix(min(length, Pages.size)) : nil
    }

    /// Gives the oldest message's buffer back to the Host.
    public mutating func pop() {
        buffer(oldest).usedLength = 0
        oldest = (oldest + 1) % count
    }

    private func buffer(_ index: Int) -> DMABuffer { DMABuffer(bound: record(index)) }
    private func page(_ index: Int) -> Region { pages.part(index * Pages.size, Pages.size) }

    private func record(_ index: Int) -> Region {
        records.part(index * LguestDMA.byteCount, LguestDMA.byteCount)
    }
}
//:
