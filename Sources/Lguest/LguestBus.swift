package import GuestMemory
package import HostInterface
package import Virtio

//D:210 What NOTIFY is for
//
// One hypercall with one address does for all devices what a bus does. The
// address is that of a ring: there is something in it. Of a descriptor: look at
// the status. Of anything else in memory: a text, for a Guest that wants to say
// something before it has a console. While a device runs its rings' addresses
// have an eventfd on them, so that a notification goes from the hypercall to
// the queue's thread by one write(2) and the Launcher never hears of it.

/// All devices of one Guest, on the page above its RAM. The owner's thread.
package final class LguestBus {
    private let memory: GuestMemory
    private let guest: LguestGuest
    private let devices: [LguestDevice]
    private let note: @Sendable (String) -> Void
    private let print: @Sendable ([UInt8]) -> Void

    /// Pages above RAM that a Guest with these devices has: one for descriptors, the rest for rings.
    package static func pageCount(for devices: [any VirtioDevice]) -> UInt64 {
        devices.reduce(1) { sum, device in
            device.queueSizes.reduce(sum) {
                $0 + RingPlace(address: GuestPhysicalAddress(0), size: $1, irq: 0).pageCount
            }
        }
    }

    /// Describes the devices to a Guest that has not begun.
    ///
    /// - Parameters:
    ///   - memory: RAM, and `pageCount` pages more.
    ///   - ramBytes: of RAM.
    ///   - print: takes the early console's text.
    ///   - note: takes remarks on what its drivers did wrong.
    /// - Throws: for more devices than the page, or 31 interrupts, have room for.
    package init(
        _ devices: [any VirtioDevice], of guest: LguestGuest, memory: GuestMemory, ramBytes: UInt64,
        print: @escaping @Sendable ([UInt8]) -> Void, note: @escaping @Sendable (String) -> Void
    ) throws(HostError) {
        self.memory = memory
        self.guest = guest
        self.print = print
        self.note = note
        var place = GuestPhysicalAddress(ramBytes)
        var nextPage = ramBytes / 4096 + 1
        var nextIRQ = 1
        var list: [LguestDevice] = []
        for device in devices {
            let configuration = device.configuration
            var rings: [RingPlace] = []
            for size in device.queueSizes {
                let ring = RingPlace(address: GuestPhysicalAddress(nextPage * 4096), size: size, irq: nextIRQ)
                (nextPage, nextIRQ) = (nextPage + ring.pageCount, nextIRQ + 1)
                rings.append(ring)
            }
            let layout = DescriptorLayout(
                address: place, queueCount: rings.count, configurationBytes: configuration.count)
            // The page's last byte stays 0: it ends the list.
            guard nextIRQ <= LguestIRQ.count, layout.end.rawValue < ramBytes + 4096, configuration.count <= 255 else {
                throw HostError("\(devices.count) devices are too many for one guest", advice: "give it fewer disks")
            }
            list.append(
                try LguestDevice(
                    device, layout: layout, rings: rings, memory: memory,
                    raise: { [weak guest] irq in try? guest?.raise(irq: irq) },
                    isGuestAsleep: { [weak guest] in guest?.isAsleep ?? false }, note: note))
            place = layout.end
        }
        self.devices = list
    }

    /// The devices' transports, for a report.
    package var transports: [VirtioTransport] { devices.map(\.transport) }

    /// Does what a NOTIFY that came out of `run` asks for; kills the Guest for an address that it has not.
    package func notify(_ address: UInt64) {
        for device in devices {
            if device.layout.address.rawValue == address {
                let wasRunning = device.isRunning
                let isRunning = device.statusChanged(note: note)
                if isRunning != wasRunning { if isRunning { listen(to: device) } else { ignore(device) } }
                return
            }
            if let queue = device.rings.firstIndex(where: { $0.address.rawValue == address }) {
                // Drivers may use a device while they set it up: disks are read for partitions.
                if !device.isRunning {
                    device.start()
                    if device.isRunning { listen(to: device) }
                }
                return device.transport.notify(queue: UInt32(queue))
            }
        }
        guard memory.contains(GuestPhysicalAddress(address), 1) else {
            return guest.kill("Bad NOTIFY 0x" + String(address, radix: 16))
        }
        // As much as a terminal takes at once, and a Guest may want to say.
        guard let text = memory.text(at: GuestPhysicalAddress(address), atMost: 65536) else { return }
        if !text.isEmpty { print(text) }
    }

    private func listen(to device: LguestDevice) {
        for (index, ring) in device.rings.enumerated() {
            do throws(Errno) {
                try guest.attach(eventFD: device.transport.doorbell(ofQueue: index), to: ring.address.rawValue)
            } catch { note("\(device.transport.device.type.name): no eventfd: \(error)") }
        }
    }

    private func ignore(_ device: LguestDevice) {
        for ring in device.rings { guest.detach(address: ring.address.rawValue) }
    }

    /// Ends what the devices' threads do with the Guest's memory.
    package func stop() {
        for device in devices {
            ignore(device)
            device.stop()
        }
    }
}
//:
