package import GuestMemory
package import HostInterface

//D:010 What a device is
//
// lguest's Launcher had four devices, and each was the same few things: a
// number that says what it is, feature bits, a little configuration, and a
// function for each of its queues. Virtio is what became of them, and a device
// here is still no more than that:
//
//      driver in the Guest                       device in the Host
//        reads type, features, configuration  <--  the device says them
//        sets queues up, says DRIVER_OK       -->  start: the queues are the device's now
//        puts buffers into a queue, notifies  -->  a thread of that queue wakes
//        takes them back, is interrupted      <--  … and puts them back
//        writes 0 to the status               -->  stop: hands off the Guest's memory
//
// How the driver finds the device, and where status and queue addresses are
// written, is the transport's business: virtio-mmio for Linux. Devices do not
// know which one they hang on.

/// What a device is, by number (virtio 1.2, section 5).
package enum VirtioDeviceType: UInt32, Sendable {
    case network = 1
    case block = 2
    case console = 3
    case entropy = 4

    /// As Linux's drivers call it.
    package var name: String {
        switch self {
        case .network: "virtio-net"
        case .block: "virtio-blk"
        case .console: "virtio-console"
        case .entropy: "virtio-rng"
        }
    }
}

/// Feature bits that are no device's own (virtio 1.2, section 6).
package enum VirtioFeature {
    package static let indirectDescriptors: UInt64 = 1 << 28
    package static let eventIndex: UInt64 = 1 << 29
    package static let version1: UInt64 = 1 << 32
    /// What the rings can do, whatever the device.
    package static let ring = indirectDescriptors | eventIndex | version1
    /// Bits 24…40 are the rings' and the transport's, all others the device's.
    package static let reserved: UInt64 = (1 << 41) - (1 << 24)
}

/// A device as its transport sees it. The transport calls it on a vCPU's
/// thread, one call at a time.
package protocol VirtioDevice: AnyObject, Sendable {
    var type: VirtioDeviceType { get }

    /// The longest that each of its queues can be: powers of two up to 32768.
    var queueSizes: [UInt16] { get }

    /// The device's own feature bits.
    var features: UInt64 { get }

    /// The device's configuration space as it is now (little endian).
    var configuration: [UInt8] { get }

    /// The driver has written to the configuration space, inside its bounds.
    func writeConfiguration(offset: Int, _ bytes: [UInt8])

    /// The driver is ready, the queues are the device's until `stop`.
    ///
    /// - Throws: what of the host's is in the way; the transport tells the driver that the device needs a reset.
    func start(_ activation: DeviceActivation) throws(HostError)

    /// When this returns no thread of the device touches the Guest's memory
    /// any more, and none will before the next `start`: requests in flight
    /// have been finished or given up.
    func stop()

    /// Lines about what only this device counts, for the end of a verbose run.
    var remarks: [String] { get }
}

extension VirtioDevice {
    package var configuration: [UInt8] { [] }
    package func writeConfiguration(offset: Int, _ bytes: [UInt8]) {}
    package var remarks: [String] { [] }
}

/// What a device is given when its driver is ready.
package struct DeviceActivation: Sendable {
    package let memory: GuestMemory
    /// By index; nil where the driver has not set one up.
    package let queues: [Virtqueue?]
    /// The device's and the rings' features that the driver has accepted.
    package let features: UInt64
    /// Tells the driver that the configuration has changed.
    package let configurationChanged: @Sendable () -> Void
    /// The driver has broken a rule: the device needs a reset. See `QueueThread`.
    package let breach: @Sendable (DriverBreach) -> Void

    package init(
        memory: GuestMemory, queues: [Virtqueue?], features: UInt64,
        configurationChanged: @escaping @Sendable () -> Void, breach: @escaping @Sendable (DriverBreach) -> Void
    ) {
        self.memory = memory
        self.queues = queues
        self.features = features
        self.configurationChanged = configurationChanged
        self.breach = breach
    }
}

/// A rule of the specification that the driver has broken, so that nothing it
/// says further can be relied upon: what happened, in words.
package struct DriverBreach: Error, Equatable, Sendable, CustomStringConvertible {
    package let description: String
    package init(_ description: String) { self.description = description }
}
//:
