//G:104 A disk
//
// A request has three parts: 16 bytes that say what and where, the data, and a
// byte in which the device answers. The data may be anywhere in memory, so
// nothing is copied on our side.

/// A virtio disk, one request at a time.
public struct Disk: ~Copyable, LguestDriver {
    /// virtio's number for it.
    public static let type: UInt8 = 2
    /// What `sectors` counts, whatever the disk's blocks are.
    public static let sectorBytes = 512

    private enum Feature {
        static let readOnly: UInt64 = 1 << 5
        static let flush: UInt64 = 1 << 9
    }

    private enum Request {
        static let read: UInt32 = 0
        static let write: UInt32 = 1
        static let flush: UInt32 = 4
    }

    /// How many there are.
    public let sectors: UInt64
    /// Whether `write` is in vain.
    public let isReadOnly: Bool
    private let canFlush: Bool
    private var queue: Virtqueue
    private let page = Pages.take()
    private var header: Region { page.part(0, 16) }
    private var answer: Region { page.part(16, 1) }

    /// Starts it.
    public init?(_ device: LguestDevice) {
        guard let features = device.accept(Feature.readOnly | Feature.flush), let queue = device.queue(0),
            let sectors = device.take(0, as: UInt64.self), device.start()
        else {
            device.fail()
            return nil
        }
        self.queue = queue
        self.sectors = sectors
        isReadOnly = features & Feature.readOnly != 0
        canFlush = features & Feature.flush != 0
    }

    /// Fills the region, whole sectors, from `sector` on. False: it could not.
    public mutating func read(_ sector: UInt64, into region: Region) -> Bool {
        ask(Request.read, sector)
        return finish(queue.add([.read(header), .write(region), .write(answer)]))
    }

    /// Writes the region, whole sectors, from `sector` on. False: it could not.
    public mutating func write(_ sector: UInt64, from region: Region) -> Bool {
        ask(Request.write, sector)
        return finish(queue.add([.read(header), .read(region), .write(answer)]))
    }

    /// What was written before is on the disk when this is done.
    public mutating func flush() -> Bool {
        guard canFlush else { return true }
        ask(Request.flush, 0)
        return finish(queue.add([.read(header), .write(answer)]))
    }

    private func ask(_ request: UInt32, _ sector: UInt64) {
        header.store(request, at: 0)
        header.store(sector, at: 8)
        answer[0] = 0xff
    }

    private mutating func finish(_ isAdded: Bool) -> Bool {
        guard isAdded else { return false }
        queue.notify()
        _ = queue.wait()
        return answer[0] == 0
    }
}
//:
