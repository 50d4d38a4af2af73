package import GuestMemory
package import HostInterface

//L:245 What there was before ACPI
//
// A kernel booted with acpi=off reads none of the tables above, and then knows
// of one CPU and two 8259s, fifteen interrupts in all: none of them is a
// virtio device's. The machine of 1994 has an answer, Intel's MultiProcessor
// Specification (1.4, chapter 4). Its table can be found by its magic, a list
// of entries of five kinds, in their order:
//
//     0xf_0100 "_MP_" --> 0xf_0110 "PCMP"   0 processor, for each CPU
//                                           1 bus: ISA, and no other
//                                           2 I/O APIC
//                                           3 interrupt, for each pin in use
//                                           4 local interrupt: LINT0, LINT1
//
// It says what the MADT says, with two differences. Nothing is the default:
// even IRQ 1 at pin 1 has its entry. And an interrupt comes from a bus, so
// virtio needs one. We have no PCI, and to the name that would be honest,
// INTERN, Linux answers "Unknown bustype"; so pins 16 to 47 are ISA's, with
// numbers that no slot ever had. Linux takes the number as it is, and so the
// one on its command line (see `KernelCommandLine`) means the same pin.
//
// Only a kernel that was told acpi=off finds it: who has ACPI should not have
// to wonder which of two descriptions to believe.

/// The MP floating pointer structure and configuration table of one machine.
package struct MPTable: Sendable {
    /// Where the floating pointer structure will be: in the BIOS's 64 KiB, on 16 bytes, behind the RSDP.
    package static let pointer = GuestPhysicalAddress(0xf_0100)
    private static let pointerBytes = 16
    private static let start = pointer + UInt64(pointerBytes)
    private static let headerBytes = 44
    private static let revision: UInt8 = 4
    private static let busISA: UInt8 = 0
    private static let everyLocalAPIC: UInt8 = 0xff

    /// Table 4-10's interrupt types.
    private enum InterruptType: UInt8 { case vectored = 0, nonMaskable, systemManagement, external }

    private let bytes: [UInt8]

    package init(_ machine: ACPIMachine) {
        // An identifier has one byte, and 255 is all of them: a CPU beyond does without this table.
        let processors = machine.apicIDs.prefix { $0 < 0xff }.map { UInt8($0) }
        var entries = processors.enumerated().map { Self.processor($1, isBoot: $0 == 0) }
        entries.append([1, Self.busISA] + Array("ISA   ".utf8))
        entries.append(Self.ioAPIC)
        entries += Self.interrupts(virtioSlots: machine.virtioSlots)
        // The 8259s are wired to the boot CPU alone, NMI to all.
        entries.append(Self.interrupt(4, .external, irq: 0, to: processors.first ?? 0, pin: 0))
        entries.append(Self.interrupt(4, .nonMaskable, irq: 0, to: Self.everyLocalAPIC, pin: 1))
        bytes = Self.floatingPointer + Self.table(entries)
    }

    package func write(to memory: GuestMemory) throws(HostError) {
        do { try memory.write(bytes, at: Self.pointer) } catch {
            throw HostError("cannot write the MP table: \(error)")
        }
    }

    /// 4.1. Of its feature bytes, zeros say: there is a table, and no IMCR between the 8259s and the CPU.
    private static var floatingPointer: [UInt8] {
        var bytes = WireBytes(count: pointerBytes)
        bytes.put(Array("_MP_".utf8), at: 0)
        bytes.put(UInt32(truncatingIfNeeded: start.rawValue), at: 4)
        bytes.put(UInt8(pointerBytes / 16), at: 8)
        bytes.put(revision, at: 9)
        bytes.put(SystemTable.checksum(bytes.bytes[...]), at: 10)
        return bytes.bytes
    }

    /// 4.2: the header, and what it is a header of.
    private static func table(_ entries: [[UInt8]]) -> [UInt8] {
        var bytes = WireBytes(count: headerBytes)
        bytes.bytes += entries.joined()
        bytes.put(Array("PCMP".utf8), at: 0)
        bytes.put(UInt16(bytes.bytes.count), at: 4)
        bytes.put(revision, at: 6)
        bytes.put(Array("ROOST   ROOSTVM     ".utf8), at: 8)
        bytes.put(UInt16(entries.count), at: 34)
        bytes.put(UInt32(truncatingIfNeeded: MemoryMap.localAPIC.rawValue), at: 36)
        bytes.put(SystemTable.checksum(bytes.bytes[...]), at: 7)
        return bytes.bytes
    }

    /// 4.3.1. Signature and features are for processors without CPUID: family 6; FPU, MCE, CX8, APIC.
    private static func processor(_ identifier: UInt8, isBoot: Bool) -> [UInt8] {
        var bytes = WireBytes(count: 20)
        bytes.put(identifier, at: 1)
        bytes.put(UInt8(truncatingIfNeeded: LocalAPIC.version), at: 2)
        bytes.put(UInt8(isBoot ? 3 : 1), at: 3)
        bytes.put(UInt32(6 << 8), at: 4)
        bytes.put(UInt32(1 << 0 | 1 << 7 | 1 << 8 | 1 << 9), at: 8)
        return bytes.bytes
    }

    /// 4.3.3, enabled.
    private static var ioAPIC: [UInt8] {
        var bytes = WireBytes(count: 8)
        bytes.put([2, MemoryMap.ioAPICIdentifier, UInt8(truncatingIfNeeded: IOAPIC.version), 1], at: 0)
        bytes.put(UInt32(truncatingIfNeeded: MemoryMap.ioAPIC.rawValue), at: 4)
        return bytes.bytes
    }

    /// The I/O APIC's pins: ISA's but for the cascade, then those of the virtio windows in use.
    private static func interrupts(virtioSlots: [Int]) -> [[UInt8]] {
        let isa = (0..<16).filter { $0 != 2 }.map { irq in
            interrupt(
                3, .vectored, flags: irq == MemoryMap.sciGSI ? MADT.levelHigh : 0, irq: irq,
                to: MemoryMap.ioAPICIdentifier, pin: irq == 0 ? MemoryMap.timerGSI : irq)
        }
        let virtio = virtioSlots.map(MemoryMap.virtioGSI).map { gsi in
            interrupt(3, .vectored, flags: MADT.levelHigh, irq: gsi, to: MemoryMap.ioAPICIdentifier, pin: gsi)
        }
        return isa + virtio
    }

    /// 4.3.4 and, with a LINT for a pin, 4.3.5. Flags of 0: as ISA has it, an edge, active high.
    private static func interrupt(
        _ kind: UInt8, _ type: InterruptType, flags: UInt16 = 0, irq: Int, to apic: UInt8, pin: Int
    ) -> [UInt8] {
        var bytes = WireBytes(count: 8)
        bytes.put([kind, type.rawValue], at: 0)
        bytes.put(flags, at: 2)
        bytes.put([busISA, UInt8(irq), apic, UInt8(pin)], at: 4)
        return bytes.bytes
    }
}
//:
