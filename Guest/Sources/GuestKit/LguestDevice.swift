//G:085 One device
//
// A descriptor is a header of five bytes, then a line for each queue, then two
// rows of feature bits (what it can, what we want), then its configuration,
// which looks different for each type. Nothing is aligned.
//
//      type queues features configuration status
//      { entries 16, irq 16, page 32 } …   offered …   accepted …   configuration …
//
// Who has taken a field of the configuration has taken it: a second `take` of
// the same bytes gets nothing. lguest's fields once had a type each, and its
// drivers marked in there what they had looked at, so that nobody found it
// twice; ours have none, and so we remember it in a bit for each byte of the page.

/// A device on the bus: where its descriptor is, and how to talk about it.
public struct LguestDevice: Sendable {
    private let page: Region
    private let offset: Int

    init(_ page: Region, _ offset: Int) {
        self.page = page
        self.offset = offset
    }

    /// virtio's number: 1 network, 2 disk, 3 console, 4 entropy.
    public var type: UInt8 { byte(LguestDescriptor.type) }
    /// How many `queue` knows.
    public var queueCount: Int { Int(byte(LguestDescriptor.queueCount)) }
    /// How long the configuration is.
    public var configurationBytes: Int { Int(byte(LguestDescriptor.configurationBytes)) }

    private var featureBytes: Int { Int(byte(LguestDescriptor.featureBytes)) }
    private var featureOffset: Int { offset + Int(LguestDescriptor.headerBytes) + queueCount * 8 }
    private var configurationOffset: Int { featureOffset + 2 * featureBytes }
    var byteCount: Int { configurationOffset + configurationBytes - offset }

    private func byte(_ field: UInt64) -> UInt8 { page[offset + Int(field)] }

    // MARK: Status

    /// ACKNOWLEDGE, DRIVER, DRIVER_OK and so on. A change is told to the Host.
    public var status: UInt8 {
        get { byte(LguestDescriptor.status) }
        nonmutating set {
            page[offset + Int(LguestDescriptor.status)] = newValue
            Hypercall.notify(page.address + UInt64(offset))
        }
    }

    /// The Host says that the driver has broken a rule.
    public var needsReset: Bool { status & LguestDescriptor.needsReset != 0 }

    /// Back to how the Launcher made it; its fields can be taken again.
    public func reset() {
        status = 0
        LguestDevice.taken.forget(configurationOffset..<configurationOffset + configurationBytes)
    }

    // MARK: Features

    /// VIRTIO_F_VERSION_1: what every device here has, and every driver accepts.
    public static let version1: UInt64 = 1 << 32

    /// What the device offers, bit by bit. Those above 63 are nobody's yet.
    public var offered: UInt64 {
        var bits: UInt64 = 0
        for index in 0..<min(featureBytes, 8) { bits |= UInt64(page[featureOffset + index]) << UInt64(index * 8) }
        return bits
    }

    /// Resets the device and accepts VERSION_1 and what is offered of `wanted`.
    ///
    /// - Returns: what was accepted; nil, and the device is given up, if it has no VERSION_1.
    public func accept(_ wanted: UInt64 = 0) -> UInt64? {
        reset()
        status = LguestDescriptor.acknowledge | LguestDescriptor.driver
        let offered = offered
        guard offered & LguestDevice.version1 != 0 else {
            fail()
            return nil
        }
        let accepted = offered & (wanted | LguestDevice.version1)
        for index in 0..<min(featureBytes, 8) {
            page[featureOffset + featureBytes + index] = UInt8(truncatingIfNeeded: accepted >> UInt64(index * 8))
        }
        return accepted
    }

    /// DRIVER_OK: the device may begin. False: it does not like what was accepted.
    public func start() -> Bool {
        status |= LguestDescriptor.driverOK
        return !needsReset
    }

    /// FAILED: it is given up, and the device stops.
    public func fail() { status |= LguestDescriptor.failed }

    // MARK: Configuration

    @safe nonisolated(unsafe) private static var taken = TakenBytes()

    /// A field of the configuration, for whoever comes first: nil if part of it
    /// has been taken before, or is not there.
    public func take<Value: BitwiseCopyable>(_ field: Int, as type: Value.Type = Value.self) -> Value? {
        let length = MemoryLayout<Value>.size
        guard field >= 0, length <= configurationBytes, field <= configurationBytes - length else { return nil }
        let start = configurationOffset + field
        guard LguestDevice.taken.take(start..<start + length) else { return nil }
        return page.load(start, as: type)  // The type said: it could be the Optional as well.
    }

    // MARK: Queues

    /// Queue `index`, ready for use; nil if the device has no such queue, or one of no use.
    public func queue(_ index: Int) -> Virtqueue? {
        guard index >= 0, index < queueCount else { return nil }
        let entries = entries(index)
        guard entries > 0, entries.nonzeroBitCount == 1 else { return nil }
        return Virtqueue(ring(index), entries: entries)
    }

    private func line(_ index: Int) -> Int {
        offset + Int(LguestDescriptor.headerBytes) + index * Int(LguestDescriptor.queueBytes)
    }

    private func entries(_ index: Int) -> UInt16 { page.load(line(index)) }

    func ring(_ index: Int) -> Region {
        Region(
            address: UInt64(page.load(line(index) + 4, as: UInt32.self)) * 4096,
            count: Virtqueue.byteCount(entries(index)))
    }
}

/// Which bytes of the descriptors' page somebody has taken.
private struct TakenBytes {
    private var bits = InlineArray<64, UInt64>(repeating: 0)

    /// False, and nothing is taken, if one of them has been.
    mutating func take(_ bytes: Range<Int>) -> Bool {
        for byte in bytes where bits[byte / 64] & 1 << UInt64(byte % 64) != 0 { return false }
        for byte in bytes { bits[byte / 64] |= 1 << UInt64(byte % 64) }
        return true
    }

    mutating func forget(_ bytes: Range<Int>) {
        for byte in bytes { bits[byte / 64] &= ~(1 << UInt64(byte % 64)) }
    }
}
//:
