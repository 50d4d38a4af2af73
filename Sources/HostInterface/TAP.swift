internal import CHost
internal import Glibc

/// The host's end of a virtual Ethernet cable (Documentation/networking/tuntap.rst in
/// Linux): what is written to it comes out of a network interface of the host's,
/// and the other way round. Frames have virtio's header before them.
package struct TAP: ~Copyable, Sendable {
    package let name: String
    package let descriptor: FileDescriptor
    /// The interface's.
    package let mtu: Int

    /// Opens an interface that is there already; to make one takes rights that we
    /// do not ask for.
    package init(name: String, headerSize: Int) throws(HostError) {
        let advice = "as root: ip tuntap add \(name) mode tap user $USER vnet_hdr; ip link set \(name) up"
        // Attaching to a name that nobody has would make the interface, for one who may.
        let control = socket(AF_INET, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard control >= 0 else { throw HostError("cannot use the TAP \(name)", errno: .current) }
        let controlFile = FileDescriptor(owning: control)
        let mtu = unsafe chost_interface_mtu(controlFile.rawValue, name)
        guard mtu > 0 else { throw HostError("cannot use the TAP \(name)", errno: .current, advice: advice) }
        let file = try FileDescriptor.open("/dev/net/tun", O_RDWR | O_NONBLOCK)
        guard unsafe chost_tap_attach(file.rawValue, name, IFF_TAP | IFF_NO_PI | IFF_VNET_HDR) == 0 else {
            let error = Errno.current
            switch error {
            case .busy:
                throw HostError(
                    "cannot use the TAP \(name)", errno: error,
                    advice: "another process has it; each Guest needs its own")
            case .invalid:
                throw HostError(
                    "cannot use the TAP \(name)", errno: error,
                    advice: "it is no TAP, or was made without vnet_hdr; \(advice)")
            default: throw HostError("cannot use the TAP \(name)", errno: error, advice: advice)
            }
        }
        guard chost_tap_set_header_size(file.rawValue, Int32(headerSize)) == 0 else {
            throw HostError("cannot set the header size of the TAP \(name)", errno: .current)
        }
        descriptor = file
        self.name = name
        self.mtu = Int(mtu)
    }

    /// What the reader of frames can have left to it, as TUNSETOFFLOAD takes it.
    package struct Offloads: OptionSet, Sendable {
        package let rawValue: UInt32
        package init(rawValue: UInt32) { self.rawValue = rawValue }

        package static let checksum = Offloads(rawValue: UInt32(TUN_F_CSUM))
        package static let tso4 = Offloads(rawValue: UInt32(TUN_F_TSO4))
        package static let tso6 = Offloads(rawValue: UInt32(TUN_F_TSO6))
        package static let ecn = Offloads(rawValue: UInt32(TUN_F_TSO_ECN))
    }

    package func set(_ offloads: Offloads) throws(HostError) {
        guard chost_tap_set_offloads(descriptor.rawValue, offloads.rawValue) == 0 else {
            throw HostError("cannot set the offloads of the TAP \(name)", errno: .current)
        }
    }

    /// One frame into the cable, whole or not at all.
    package func write(_ frame: UnsafeRawBufferPointer) throws(Errno) {
        while unsafe Glibc.write(descriptor.rawValue, frame.baseAddress, frame.count) < 0 {
            if Errno.current != .interrupted { throw .current }
        }
    }
}
