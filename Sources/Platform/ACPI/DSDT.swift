internal import GuestMemory

/// The DSDT: \_S5 and the devices that cannot be found by looking.
enum DSDT {
    static func build(_ machine: ACPIMachine) -> [UInt8] {
        var devices = machine.apicIDs.indices.map(processor)
        if let com1 = MemoryMap.serialPorts.first { devices.append(serial(com1.port, com1.irq)) }
        devices.append(clock)
        devices += machine.virtioSlots.map(virtio)
        let terms: [AML.Term] = [
            // SLP_TYP for PM1a and PM1b; the other two are reserved (7.4.2).
            AML.define(
                "\\_S5",
                AML.package([
                    AML.integer(UInt64(MemoryMap.sleepTypeS5)), AML.integer(UInt64(MemoryMap.sleepTypeS5)),
                    AML.integer(0),
                    AML.integer(0),
                ])),
            AML.scope("\\_SB", devices),
        ]
        return SystemTable.build("DSDT", revision: 2, Array(terms.joined()))
    }

    /// Its _UID is what the MADT calls it.
    private static func processor(_ index: Int) -> AML.Term {
        AML.device(
            "C" + hex(index, digits: 3),
            [AML.define("_HID", AML.string("ACPI0007")), AML.define("_UID", AML.integer(UInt64(index)))])
    }

    private static func serial(_ port: UInt16, _ irq: Int) -> AML.Term {
        AML.device(
            "COM1",
            [
                AML.define("_HID", AML.eisaID("PNP0501")), AML.define("_UID", AML.integer(1)),
                AML.define("_CRS", Resource.template(Resource.ports(port, count: 8), Resource.irq(irq))),
            ])
    }

    private static var clock: AML.Term {
        AML.device(
            "RTC",
            [
                AML.define("_HID", AML.eisaID("PNP0B00")),
                AML.define(
                    "_CRS", Resource.template(Resource.ports(MemoryMap.rtc, count: 2), Resource.irq(MemoryMap.rtcIRQ))),
            ])
    }

    /// LNRO0005 is Linux's name for virtio-mmio. The interrupt is a level:
    /// it stays up until the driver has written InterruptACK (virtio 1.2, 4.2.2).
    private static func virtio(_ slot: Int) -> AML.Term {
        AML.device(
            "V" + hex(slot, digits: 3),
            [
                AML.define("_HID", AML.string("LNRO0005")), AML.define("_UID", AML.integer(UInt64(slot))),
                AML.define("_CCA", AML.integer(1)),
                AML.define(
                    "_CRS",
                    Resource.template(
                        Resource.memory(
                            UInt32(MemoryMap.virtioWindow(slot: slot).rawValue),
                            count: UInt32(MemoryMap.virtioWindowBytes)),
                        Resource.levelInterrupt(UInt32(MemoryMap.virtioGSI(slot: slot))))),
            ])
    }

    private static func hex(_ number: Int, digits: Int) -> String {
        let text = String(number, radix: 16, uppercase: true)
        return String(repeating: "0", count: max(0, digits - text.count)) + text
    }
}
