internal import GuestMemory

//L:240 MADT: who interrupts whom
//
// One entry per CPU, one for the I/O APIC, and two confessions (5.2.12.5): the
// timer, IRQ 0 since 1981, arrives at pin 2, because pin 0 was taken by the
// cascade of 8259s; and the SCI is a level in a world of edges.

enum MADT {
    /// PCAT_COMPAT: there is a pair of 8259s, to be masked.
    private static let hasPIC: UInt32 = 1
    /// MPS INTI flags: active high, level-triggered.
    static let levelHigh: UInt16 = 1 | 3 << 2

    static func build(_ machine: ACPIMachine) -> [UInt8] {
        var body = WireBytes()
        body.append(UInt32(truncatingIfNeeded: MemoryMap.localAPIC.rawValue))
        body.append(hasPIC)
        for (index, identifier) in machine.apicIDs.enumerated() { append(&body, cpu: UInt32(index), identifier) }

        body.bytes += [1, 12, MemoryMap.ioAPICIdentifier, 0]
        body.append(UInt32(truncatingIfNeeded: MemoryMap.ioAPIC.rawValue))
        body.append(UInt32(0))  // its first GSI
        append(&body, irq: 0, gsi: MemoryMap.timerGSI, flags: 0)
        append(&body, irq: UInt8(MemoryMap.sciGSI), gsi: MemoryMap.sciGSI, flags: levelHigh)
        // NMI at LINT1, of all CPUs.
        body.bytes += [4, 6, 0xff, 0, 0, 1]
        if machine.apicIDs.contains(where: { $0 >= 255 }) {
            body.bytes += [0xa, 12, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0]
        }
        return SystemTable.build("APIC", revision: 6, body.bytes)
    }

    /// A CPU: by a Local APIC entry, or by a Local x2APIC entry where one byte is not enough.
    private static func append(_ body: inout WireBytes, cpu: UInt32, _ identifier: UInt32) {
        let enabled: UInt32 = 1
        if identifier < 255, cpu < 255 {
            body.bytes += [0, 8, UInt8(cpu), UInt8(identifier)]
            body.append(enabled)
        } else {
            body.bytes += [9, 16, 0, 0]
            body.append(identifier)
            body.append(enabled)
            body.append(cpu)
        }
    }

    /// An Interrupt Source Override of the ISA bus.
    private static func append(_ body: inout WireBytes, irq: UInt8, gsi: Int, flags: UInt16) {
        body.bytes += [2, 10, 0, irq]
        body.append(UInt32(gsi))
        body.append(flags)
    }
}
//:
