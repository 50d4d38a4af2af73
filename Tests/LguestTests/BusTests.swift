import EngineTesting
import GuestMemory
import HostInterface
import Lguest
import LguestTesting
import Testing
import Virtio
import VirtioDevices
import VirtioTesting

/// The page above RAM, and what NOTIFY does (B4; docs/lguest-abi.md, "Devices").
@Suite struct BusTests {
    private static let driverOK: UInt8 = 7, needsReset: UInt8 = 64, failed: UInt8 = 128

    // MARK: The page

    /// F11. All of it, byte by byte.
    @Test func thePageIsAsTheDocumentHasIt() throws {
        let bus = try BusGuest([Console(), Entropy()])
        let ring: [UInt8] = [0, 0, 0, 0x30, 1, 0, 0, 0]  // 28, 29, 32
        let expected: [UInt8] =
            [3, 2, 8, 4, 0]
            + [64, 0, 1, 0, 0x01, 0x01, 0, 0] + [64, 0, 2, 0, 0x03, 0x01, 0, 0]
            + [1, 0, 0, 0x30, 1, 0, 0, 0] + [0, 0, 0, 0, 0, 0, 0, 0] + [0, 0, 0, 0]
            + [4, 1, 8, 0, 0] + [64, 0, 3, 0, 0x05, 0x01, 0, 0] + ring + [0, 0, 0, 0, 0, 0, 0, 0]
        let page = try bus.memory.bytes(BusGuest.ramBytes, 4096)
        #expect(page == expected + [UInt8](repeating: 0, count: 4096 - expected.count))
        #expect(bus.memory.byteCount == BusGuest.ramBytes + 7 * 4096)
    }

    @Test func aGuestWithoutDevicesHasAnEmptyPage() throws {
        let bus = try BusGuest([])
        #expect(bus.devices.isEmpty)
        #expect(bus.memory.byteCount == BusGuest.ramBytes + 4096)
    }

    /// 32 interrupts, and the first is the clock's.
    @Test func thereIsRoomForSomanyDevices() throws {
        let bus = try BusGuest((0..<31).map { _ in Entropy() })
        #expect(bus.devices.map { $0.queues[0].irq } == Array(1...31))
        #expect(Set(bus.devices.map { $0.queues[0].ring }).count == 31)
        #expect(throws: HostError.self) { try BusGuest((0..<32).map { _ in Entropy() }) }
    }

    // MARK: Starting

    @Test func driverOKStartsADevice() throws {
        let bus = try BusGuest([EchoDevice()])
        let device = bus.devices[0]
        try bus.start(device)
        try bus.put([1, 2, 3], room: 8, device.queues[0])
        // From here on an eventfd takes it, and the Launcher hears nothing.
        #expect(!bus.notify(device.queues[0].ring))
        #expect(try bus.waitUsed(device.queues[0], room: 4) == [1, 2, 3, 0])
        try bus.waitInterrupt(device.queues[0].irq)
        #expect(bus.notes == [])
    }

    @Test func nothingStartsBeforeDriverOK() throws {
        let bus = try BusGuest([EchoDevice()])
        let device = bus.devices[0]
        try bus.accept(VirtioFeature.version1, device)
        for status in [1, 3] as [UInt8] {
            try bus.set(status: status, device)
            #expect(bus.notify(device.address))
            #expect(bus.bus.transports[0].status == [])
        }
    }

    /// B4: a kick that reaches the Launcher starts the device.
    @Test func aKickStartsADevice() throws {
        let bus = try BusGuest([EchoDevice()])
        let device = bus.devices[0]
        try bus.accept(VirtioFeature.version1, device)
        try bus.set(status: 3, device)
        try bus.put([9, 8], room: 8, device.queues[0])
        #expect(bus.notify(device.queues[0].ring))
        #expect(try bus.waitUsed(device.queues[0], room: 3) == [9, 8, 0])
        // DRIVER_OK comes when it runs already.
        try bus.set(status: Self.driverOK, device)
        #expect(bus.notify(device.address))
        try bus.put([7], room: 8, device.queues[0], index: 1)
        #expect(!bus.notify(device.queues[0].ring))
        #expect(try bus.waitUsed(device.queues[0], index: 2, room: 2) == [7, 0])
    }

    @Test func everyDeviceHasItsOwn() throws {
        let bus = try BusGuest([EchoDevice(), Entropy(), EchoDevice()])
        for device in bus.devices { try bus.start(device) }
        for (index, device) in bus.devices.enumerated() {
            try bus.put(device.type == 4 ? [] : [UInt8(index)], room: 16, device.queues[0])
            #expect(!bus.notify(device.queues[0].ring))
            let bytes = try bus.waitUsed(device.queues[0], room: 16)
            if device.type != 4 { #expect(bytes[0] == UInt8(index)) } else { #expect(Set(bytes).count > 2) }
            try bus.waitInterrupt(device.queues[0].irq)
        }
    }

    // MARK: Reset and failure

    /// F12.
    @Test func aResetClearsFeaturesAndRings() throws {
        let bus = try BusGuest([EchoDevice()])
        let device = bus.devices[0]
        for round in 0..<3 as Range<UInt8> {
            try bus.start(device)
            try bus.put([round, 2, 3], room: 8, device.queues[0])
            #expect(!bus.notify(device.queues[0].ring))
            #expect(try bus.waitUsed(device.queues[0], room: 3) == [round, 2, 3])
            try bus.set(status: 0, device)
            #expect(bus.notify(device.address))
            #expect(try bus.memory.bytes(device.accepted, 8).allSatisfy { $0 == 0 })
            #expect(try bus.memory.bytes(device.queues[0].ring, 3 * 4096).allSatisfy { $0 == 0 })
            #expect(try bus.memory.bytes(device.queues[1].ring, 2 * 4096).allSatisfy { $0 == 0 })
            #expect(bus.bus.transports[0].status == [])
            _ = bus.guest.takeInterrupts()
        }
        // Its rings' addresses are nobody's eventfd any more.
        #expect(bus.notify(device.queues[0].ring))
    }

    @Test(arguments: [1 << 32 | 1 << 7, 1, 0, .max] as [UInt64])
    func featuresThatAreNotAllowed(_ features: UInt64) throws {
        let bus = try BusGuest([EchoDevice()])
        let device = bus.devices[0]
        try bus.start(device, features: features)
        #expect(try bus.status(device) == Self.driverOK | Self.needsReset)
        try bus.waitInterrupt(device.queues[0].irq)
        #expect(!bus.notes.isEmpty)
        #expect(bus.guest.guest.death == nil)
        // Nothing but a reset helps.
        try bus.put([1, 2, 3], room: 8, device.queues[0])
        bus.notify(device.queues[0].ring)
        #expect(try bus.memory.load(at: GuestPhysicalAddress(device.queues[0].used + 2), as: UInt16.self) == 0)
        try bus.set(status: 0, device)
        bus.notify(device.address)
        #expect(try bus.status(device) == 0)
        try bus.start(device)
        try bus.put([1, 2, 3], room: 8, device.queues[0])
        bus.notify(device.queues[0].ring)
        #expect(try bus.waitUsed(device.queues[0], room: 3) == [1, 2, 3])
    }

    /// B5: more heads than there are entries.
    @Test func aBrokenRingNeedsAReset() throws {
        let bus = try BusGuest([EchoDevice()])
        let device = bus.devices[0]
        try bus.start(device)
        try bus.memory.store(UInt16(300), at: GuestPhysicalAddress(device.queues[0].available + 2))
        bus.notify(device.queues[0].ring)
        try bus.wait { try bus.status(device) == Self.driverOK | Self.needsReset }
        try bus.waitInterrupt(device.queues[0].irq)
        try bus.set(status: 0, device)
        bus.notify(device.address)
        try bus.start(device)
        try bus.put([1], room: 8, device.queues[0])
        bus.notify(device.queues[0].ring)
        #expect(try bus.waitUsed(device.queues[0], room: 1) == [1])
    }

    @Test func failedStopsADevice() throws {
        let bus = try BusGuest([EchoDevice()])
        let device = bus.devices[0]
        try bus.start(device)
        try bus.set(status: Self.driverOK | Self.failed, device)
        #expect(bus.notify(device.address))
        #expect(bus.notes == ["virtio-console: the driver has failed"])
        #expect(bus.bus.transports[0].status == [])
        #expect(bus.guest.guest.death == nil)
    }

    // MARK: Configuration

    @Test func whatTheDriverWritesReachesTheDevice() throws {
        let echo = EchoDevice()
        let bus = try BusGuest([echo])
        let device = bus.devices[0]
        // Before it starts, and afterwards.
        try bus.memory.put([9, 9], device.configuration)
        try bus.start(device)
        #expect(echo.configuration == [9, 9, 3, 4, 5, 6, 7, 8])
        try bus.memory.put([7], device.configuration + 7)
        bus.notify(device.address)
        #expect(echo.configuration == [9, 9, 3, 4, 5, 6, 7, 7])
    }

    /// A configuration that the driver cannot write is what it was.
    @Test func whatTheDeviceDoesNotTakeIsUndone() throws {
        let bus = try BusGuest([Console()])
        let device = bus.devices[0]
        try bus.start(device, features: VirtioFeature.version1 | 1)
        try bus.memory.put([1, 2, 3, 4], device.configuration)
        bus.notify(device.address)
        #expect(try bus.memory.bytes(device.configuration, 4) == [0, 0, 0, 0])
    }

    @Test func aResizedWindowIsInTheConfigurationAndInterrupts() throws {
        let console = Console()
        let bus = try BusGuest([console])
        let device = bus.devices[0]
        try bus.start(device, features: VirtioFeature.version1 | 1)
        console.resize(WindowSize(rows: 43, columns: 132))
        try bus.waitInterrupt(device.queues[0].irq)
        #expect(try bus.memory.bytes(device.configuration, 4) == [132, 0, 43, 0])
    }

    /// The window had its size before there was a driver.
    @Test func aSizeFromBeforeIsSeenFromTheStart() throws {
        let console = Console()
        let bus = try BusGuest([console])
        console.resize(WindowSize(rows: 25, columns: 80))
        try bus.start(bus.devices[0], features: VirtioFeature.version1 | 1)
        #expect(try bus.memory.bytes(bus.devices[0].configuration, 4) == [80, 0, 25, 0])
    }

    /// What the host has changed meanwhile is no wish of the driver's.
    @Test func aChangeFromBeforeIsNotUndone() throws {
        let echo = EchoDevice()
        let bus = try BusGuest([echo])
        echo.change(configuration: [8, 7, 6, 5, 4, 3, 2, 1])
        try bus.start(bus.devices[0])
        #expect(echo.configuration == [8, 7, 6, 5, 4, 3, 2, 1])
        #expect(try bus.memory.bytes(bus.devices[0].configuration, 8) == [8, 7, 6, 5, 4, 3, 2, 1])
    }

    // MARK: Other addresses

    @Test func anyOtherAddressIsTheEarlyConsole() throws {
        let bus = try BusGuest([Entropy()])
        try bus.memory.put(Array("Hello".utf8) + [0] + Array("not this".utf8), 0x70000)
        #expect(bus.notify(0x70000))
        #expect(bus.notify(0x70003))
        // Nothing is nothing.
        #expect(bus.notify(0x70005))
        #expect(bus.text == "Hellolo")
    }

    /// F16: bounded by the end of memory.
    @Test func aTextWithoutAnEndEndsWithMemory() throws {
        let bus = try BusGuest([Entropy()])
        let end = bus.memory.byteCount
        try bus.memory.put(Array("abc".utf8), end - 3)
        #expect(bus.notify(end - 3))
        #expect(bus.notify(end - 1))
        #expect(bus.text == "abcc")
        #expect(bus.guest.guest.death == nil)
    }

    @Test func aTextHasAMost() throws {
        let bus = try BusGuest([])
        try bus.memory.put([UInt8](repeating: 0x61, count: 100_000), 0x70000)
        #expect(bus.notify(0x70000))
        #expect(bus.text.utf8.count == 65536)
    }

    @Test func anAddressAboveMemoryKills() throws {
        for beyond in [0, 1, 4096, UInt64.max - (1 << 21)] {
            let bus = try BusGuest([Entropy()])
            let address = bus.memory.byteCount &+ beyond
            #expect(bus.notify(address))
            #expect(bus.guest.run() == .died("Bad NOTIFY 0x" + String(address, radix: 16)))
        }
    }

    // MARK: A Guest that scribbles

    /// What it does to its descriptors beyond status, accepted features and configuration changes nothing.
    @Test func theHostDoesNotReadBackWhatItWrote() throws {
        let bus = try BusGuest([EchoDevice(), EchoDevice()])
        let device = bus.devices[0]
        for (start, end) in [(device.address, device.status), (device.address + 5, device.accepted)] {
            try bus.memory.put([UInt8](repeating: 0xee, count: Int(end - start)), start)
        }
        for device in bus.devices {
            try bus.start(device)
            try bus.put([1, 2, 3], room: 8, device.queues[0])
            #expect(!bus.notify(device.queues[0].ring))
            #expect(try bus.waitUsed(device.queues[0], room: 3) == [1, 2, 3])
            try bus.waitInterrupt(device.queues[0].irq)
        }
    }

    // MARK: The end

    @Test func afterStopNoDeviceTouchesMemory() throws {
        let bus = try BusGuest([EchoDevice()])
        let device = bus.devices[0]
        try bus.start(device)
        bus.bus.stop()
        try bus.put([1, 2, 3], room: 8, device.queues[0])
        bus.bus.transports[0].notify(queue: 0)
        #expect(try bus.memory.load(at: GuestPhysicalAddress(device.queues[0].used + 2), as: UInt16.self) == 0)
        #expect(bus.bus.transports[0].status == [])
    }

    // MARK: With code

    /// A driver in the Guest: starts the device, kicks, sleeps until it is interrupted.
    @Test(.everyEngine) func aDriverInTheGuest() throws {
        let devices = [Entropy()]
        let ram = BusGuest.ramBytes
        let memory = try GuestMemory(byteCount: ram + LguestBus.pageCount(for: devices) * 4096, hasHole: false)
        try memory.prepareGuest()
        try memory.putHandlers()
        let host = TestHost()
        let guest = try host.host.open()
        let watch = Watch(guest)
        defer { watch.end() }
        let bus = try LguestBus(
            devices, of: guest, memory: memory, ramBytes: ram, print: { _ in },
            note: { note in Issue.record("\(note)") })
        let device = try #require(try DeviceDescription(at: ram, memory))
        let queue = device.queues[0]
        try memory.put(
            TestGuest.program { program in
                program.takeInterrupts()
                program.put(VirtioFeature.version1, at: device.accepted)
                program.put(7, at: device.status, size: 1)
                program.notify(device.address)
                program.put(0x70000, at: queue.ring)
                program.put(64 | 2 << 32, at: queue.ring + 8)
                program.put(0, at: queue.available + 4, size: 2)
                program.put(1, at: queue.available + 2, size: 2)
                program.notify(queue.ring)
                program.sleep(untilInterrupts: 1)
                program.powerDown()
            })
        try guest.initialize(memory: memory, pgdir: Place.pageTable, start: Place.code)
        var notified: [UInt64] = []
        while guest.death == nil {
            do throws(Errno) {
                if case .notify(let address) = try guest.run() {
                    notified.append(address)
                    bus.notify(address)
                }
            } catch { #expect(error == .notFound) }
        }
        #expect(guest.death?.reason == "CRASH: Power down")
        #expect(notified == [device.address])
        #expect(try Set(memory.bytes(0x70000, 64)).count > 8)
        #expect(try memory.bytes(Place.log, 9) == [1, 0, 0, 0, 0, 0, 0, 0, UInt8(queue.irq)])
        bus.stop()
        guest.close()
    }
}
