internal import HostInterface
internal import Network
internal import Storage
internal import Virtio
internal import VirtioDevices

//L:300 The list of devices
//
// lguest's Launcher had a line for each option that made a device, and so has
// ours. A new device is its file in VirtioDevices, an option, and a line here
// (docs/adding-a-device.md). The order is the order of the windows, and so of
// the names that a Guest gives: the first disk is /dev/vda.

/// Which devices there are, and what their drivers are called.
struct DeviceCatalog {
    struct Entry: Sendable {
        /// The modules with the driver, where that is not built into the kernel.
        let modules: [String]
        /// As many of the kind as were asked for.
        let make: @Sendable (GuestConfiguration, Commons) throws -> [any VirtioDevice]
    }

    static let entries = [
        Entry(modules: ["virtio_blk"]) { configuration, _ in
            try configuration.disks.enumerated().map { try makeDisk($0, $1) }
        },
        Entry(modules: ["virtio_net"]) { try makeCard($0.network, $1).map { [$0] } ?? [] },
        Entry(modules: ["virtio_console"]) { configuration, _ in
            configuration.console == .hvc0 ? [VirtioDevices.Console()] : []
        },
        Entry(modules: ["virtio_rng"]) { configuration, _ in configuration.hasEntropy ? [Entropy()] : [] },
    ]

    private(set) var devices: [any VirtioDevice]
    let modules: [String]

    /// The user's terminal, if it is one of the devices.
    var terminal: VirtioDevices.Console? { devices.lazy.compactMap { $0 as? VirtioDevices.Console }.first }

    /// Opens what the devices stand on.
    init(_ configuration: GuestConfiguration, _ commons: Commons) throws {
        var devices: [any VirtioDevice] = []
        var modules: [String] = []
        for entry in Self.entries {
            let made = try entry.make(configuration, commons)
            if !made.isEmpty { modules += entry.modules }
            devices += made
        }
        self.devices = devices
        self.modules =
            (devices.isEmpty ? [] : ["virtio_mmio"] + modules)
            + (configuration.isXen ? ["xen_gntalloc", "xen_gntdev", "xen_evtchn"] : [])
    }

    /// For a machine that has nothing else to type at.
    mutating func addTerminal() {
        if terminal == nil { devices.append(VirtioDevices.Console()) }
    }

    private static func makeCard(_ option: NetworkOption, _ commons: Commons) throws -> (any VirtioDevice)? {
        let backend = try option.makeBackend(findSwitch: { name throws(HostError) in try commons.findSwitch(name) })
        guard let backend else { return nil }
        // On a switch each card has an address of its own.
        return Net(backend, address: (backend.cardAddress ?? option.macAddress)?.bytes ?? Net.defaultAddress)
    }

    private static func makeDisk(_ index: Int, _ disk: DiskOption) throws -> any VirtioDevice {
        let image = try DiskImages.open(path: disk.path, format: disk.format, readOnly: disk.isReadOnly)
        // A Guest can write to the first bytes of its disk what they would say
        // of another format, and name any file of ours as what is behind it.
        // So bytes alone do not decide: the name, which is the user's, must agree.
        let isNamedQcow2 = disk.path.hasSuffix(".qcow2")
        guard disk.format != nil || isNamedQcow2 == (image.format == .qcow2) else {
            let looks = isNamedQcow2 ? "its name ends in .qcow2, and its contents are not" : "it begins as qcow2 does"
            throw HostError(
                "cannot tell the format of \(disk.path): \(looks)", advice: "add ,format=raw or ,format=qcow2")
        }
        return Block(image, serial: disk.serial ?? "roost-\(index)")
    }
}
//:
