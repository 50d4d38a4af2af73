//G:080 A bus that is a page
//
// PCI wants to be asked, function by function, whether somebody is at home.
// lguest's bus is a page just above the top of memory, with one descriptor
// after the other, each as long as it is; a type of 0 ends it. To scan the bus
// is to read it:
//
//      for device in LguestBus.devices { … }
//
// The Host wrote the page, and the Host could write anything anywhere else as
// well, so there is nothing to defend against. There is something to get wrong
// though, and a descriptor that would run over the page's end ends the scan.

/// The page of devices above the top of memory.
public enum LguestBus {
    /// All of them, in the Launcher's order.
    public static var devices: Devices { Devices() }

    /// The first device that `Driver` can drive, with its driver; nil if there is none.
    public static func first<Driver: LguestDriver & ~Copyable>(_: Driver.Type) -> Driver? {
        for device in devices where device.type == Driver.type {
            if let driver = Driver(device) { return driver }
        }
        return nil
    }

    /// The same for a program that cannot do without.
    public static func require<Driver: LguestDriver & ~Copyable>(_ driver: Driver.Type, _ name: StaticString) -> Driver
    {
        guard let found = first(driver) else { panic("there is no \(name)") }
        return found
    }

    static var page: Region { Region(address: Boot.memoryBytes, count: Pages.size) }

    /// Where the last device's pages end.
    static var end: UInt64 {
        var end = page.address + UInt64(page.count)
        for device in devices {
            for index in 0..<device.queueCount {
                let ring = device.ring(index)
                end = max(end, ring.address + UInt64(ring.count))
            }
        }
        return end
    }

    /// Reads one descriptor after the other.
    public struct Devices: Sequence, IteratorProtocol {
        private var offset = 0

        /// The next device; nil at the end of the page.
        public mutating func next() -> LguestDevice? {
            let page = LguestBus.page
            guard offset <= page.count - Int(LguestDescriptor.headerBytes), page[offset] != 0 else { return nil }
            let device = LguestDevice(page, offset)
            guard device.byteCount <= page.count - offset else { return nil }
            offset += device.byteCount
            return device
        }
    }
}

/// Who drives devices of one type.
public protocol LguestDriver: ~Copyable {
    /// virtio's number for such devices.
    static var type: UInt8 { get }
    /// Sets the device up and starts it. Nil: it cannot be driven, and its status says FAILED.
    init?(_ device: LguestDevice)
}
//:
