package import GuestMemory
package import HostInterface

//L:220 The tables
//
// What a kernel cannot find by looking, ACPI tells it: an RSDP that is found
// by its magic string (or because boot_params points at it) points at the
// XSDT, and that at the rest:
//
//     0xf_0000 RSDP --> XSDT --> FADT --> DSDT   the devices, in AML
//                          |        +---> FACS   firmware's and OS's common lock
//                          +---> MADT            CPUs, I/O APIC, who interrupts where
//
// Should the machine be "hardware-reduced", as ARM servers and most microVMs
// are? Then there is no power management block, and Linux also forgets about
// 8259, 8254 and ISA interrupts, which is quick. We keep the block: it is
// three registers, kernels of any age switch off by it, and what would make it
// slow (a PM timer calibration, a hunt for a keyboard, a probe for VGA) Linux
// does not do where it is told the TSC's frequency and that there is none.

/// What differs between our machines, as far as ACPI and the MP table are concerned.
package struct ACPIMachine: Sendable {
    /// The local APICs' identifiers, in the order of the CPUs.
    package var apicIDs: [UInt32]
    /// The virtio-mmio windows (see `MemoryMap.virtioWindow`) with a device behind.
    package var virtioSlots: [Int]

    package init(apicIDs: [UInt32] = [0], virtioSlots: [Int] = []) {
        self.apicIDs = apicIDs
        self.virtioSlots = virtioSlots
    }
}

/// The ACPI tables of one machine, for a fixed place in memory.
package struct ACPITables: Sendable {
    /// Where the RSDP will be; what `loadKernel` wants to know.
    package static let rsdp = GuestPhysicalAddress(0xf_0000)
    /// The other tables come before it.
    static let start = BootArea.acpi.lowerBound
    static let limit = Int(rsdp.rawValue - BootArea.acpi.lowerBound)

    /// From `start`.
    let tables: [UInt8]
    let pointer: [UInt8]

    /// - Throws: that there are more CPUs than the tables have room for.
    package init(_ machine: ACPIMachine) throws(HostError) {
        // An AML name has three digits for the CPU; the room given runs out before.
        guard machine.apicIDs.count < 1 << 12 else { throw Self.tooMany(machine) }
        var bytes: [UInt8] = []
        func place(_ table: [UInt8]) -> UInt64 {
            // FACS wants 64; for the others it is a courtesy.
            bytes += [UInt8](repeating: 0, count: -bytes.count & 63)
            let address = Self.start + UInt64(bytes.count)
            bytes += table
            return address
        }
        let facs = place(FACS.build())
        let dsdt = place(DSDT.build(machine))
        let fadt = place(FADT.build(facs: facs, dsdt: dsdt))
        let madt = place(MADT.build(machine))
        var entries = WireBytes()
        entries.append(fadt)
        entries.append(madt)
        let xsdt = place(SystemTable.build("XSDT", revision: 1, entries.bytes))
        guard bytes.count <= Self.limit else { throw Self.tooMany(machine) }
        tables = bytes
        pointer = Self.rootPointer(xsdt: xsdt)
    }

    package func write(to memory: GuestMemory) throws(HostError) {
        do throws(GuestMemoryError) {
            try memory.write(tables, at: GuestPhysicalAddress(Self.start))
            try memory.write(pointer, at: Self.rsdp)
        } catch { throw HostError("cannot write the ACPI tables: \(error)") }
    }

    private static func tooMany(_ machine: ACPIMachine) -> HostError {
        HostError("the ACPI tables have no room for \(machine.apicIDs.count) CPUs", advice: "use fewer CPUs")
    }

    /// RSDP (5.2.5.3) of revision 2, with its two checksums. No RSDT: only
    /// kernels from before the year 2000 would look for one.
    private static func rootPointer(xsdt: UInt64) -> [UInt8] {
        var bytes = WireBytes(count: 36)
        bytes.put(Array("RSD PTR ".utf8), at: 0)
        bytes.put(SystemTable.manufacturer, at: 9)
        bytes.put(UInt8(2), at: 15)
        bytes.put(UInt32(36), at: 20)
        bytes.put(xsdt, at: 24)
        bytes.put(SystemTable.checksum(bytes.bytes[..<20]), at: 8)
        bytes.put(SystemTable.checksum(bytes.bytes[...]), at: 32)
        return bytes.bytes
    }
}
//:

/// What all tables begin with (5.2.6).
enum SystemTable {
    static let headerBytes = 36
    static let manufacturer = Array("ROOST ".utf8)

    static func build(_ signature: String, revision: UInt8, _ body: [UInt8]) -> [UInt8] {
        var bytes = WireBytes(count: headerBytes)
        bytes.bytes += body
        bytes.put(Array(signature.utf8), at: 0)
        bytes.put(UInt32(bytes.bytes.count), at: 4)
        bytes.put(revision, at: 8)
        bytes.put(manufacturer, at: 10)
        bytes.put(Array("ROOSTVM ".utf8), at: 16)
        bytes.put(UInt32(1), at: 24)
        bytes.put(Array("RST ".utf8), at: 28)
        bytes.put(UInt32(1), at: 32)
        bytes.put(checksum(bytes.bytes[...]), at: 9)
        return bytes.bytes
    }

    /// What makes the sum of all bytes 0.
    static func checksum(_ bytes: ArraySlice<UInt8>) -> UInt8 { 0 &- bytes.reduce(0, &+) }
}

/// FACS (5.2.10) has no header of the common kind and no checksum.
enum FACS {
    static func build() -> [UInt8] {
        var bytes = WireBytes(count: 64)
        bytes.put(Array("FACS".utf8), at: 0)
        bytes.put(UInt32(64), at: 4)
        bytes.put(UInt8(2), at: 32)
        return bytes.bytes
    }
}
