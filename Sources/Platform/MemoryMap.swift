package import GuestMemory

//H:100 Where everything is
//
// A PC has no list of its parts that a kernel could not find a mistake in, so
// we keep one, here, and take both the devices' addresses and the ACPI tables
// from it. Guest-physical memory, from below:
//
//     0x0000_0000   RAM, the first megabyte with a BIOS-shaped hole in the map
//     0x000a_0000   no VGA: RAM that no kernel is told of
//     0x000e_0000   the ACPI tables, where a BIOS would have kept them
//     0x0010_0000   RAM, up to 3 GiB at most
//     0xc000_0000   the device hole
//     0xd000_0000   32 virtio-mmio windows of 4 KiB
//     0xd100_0000   with Xen's interface, the page of its store
//     0xfec0_0000   I/O APIC
//     0xfee0_0000   local APIC (while in xAPIC mode)
//     0x1_0000_0000 the rest of RAM
//
// And the ports:
//
//     0x020 8259 master     0x040 8254            0x060 i8042 data
//     0x0a0 8259 slave      0x061 speaker, gate   0x064 i8042 command
//     0x4d0 8259 edge/level 0x070 RTC             0x092 fast A20, reset
//     0x080 POST codes      0x0e9 debug output    0x0f4 exit
//     0x3f8 COM1 (IRQ 4)    0x2f8 COM2 (IRQ 3)    0x3e8 COM3   0x2e8 COM4
//     0x600 PM1a event      0x604 PM1a control    0x608 PM timer
//     0xcf8 no PCI here     0xcf9 reset
//
// There is no VGA, no floppy, no IDE and no PCI.

/// Addresses, port numbers and interrupt numbers of the PC: constants only.
package enum MemoryMap {
    // MARK: MMIO

    package static let ioAPIC = GuestPhysicalAddress(0xfec0_0000)
    package static let localAPIC = GuestPhysicalAddress(0xfee0_0000)
    package static let apicWindowBytes: UInt64 = 0x1000

    /// Window `n` is at `virtioFirst + n * virtioWindowBytes` and has GSI `virtioFirstGSI + n`.
    package static let virtioFirst = GuestPhysicalAddress(0xd000_0000)
    package static let virtioWindowBytes: UInt64 = 0x1000
    package static let virtioSlots = 32
    package static let virtioFirstGSI = 16

    package static func virtioWindow(slot: Int) -> GuestPhysicalAddress {
        precondition(slot >= 0 && slot < virtioSlots)
        return virtioFirst + UInt64(slot) * virtioWindowBytes
    }

    package static func virtioGSI(slot: Int) -> Int {
        precondition(slot >= 0 && slot < virtioSlots)
        return virtioFirstGSI + slot
    }

    /// Pages that a hypervisor gives a Guest: 16 of them, reserved to the kernel.
    package static let hypervisorPages: Range<UInt64> = 0xd100_0000..<0xd101_0000

    /// Where pages of others can be put in a Guest with so much RAM: what lies free below the devices, and 4 GiB
    /// behind the end of all RAM. Which of the two, and where there, is the Guest's choice.
    package static func foreignWindows(ramBytes: UInt64) -> [Range<UInt64>] {
        let low = min(ramBytes, GuestMemory.holeStart)..<virtioFirst.rawValue
        let end = GuestMemory.holeEnd + (max(ramBytes, GuestMemory.holeStart) - GuestMemory.holeStart)
        return [low, hypervisorPages, end..<end + (4 << 30)]
    }

    // MARK: Interrupts

    /// Pins of the one I/O APIC; pin n is GSI n. 16 for ISA, 32 for virtio.
    package static let ioAPICPins = 48
    package static let ioAPICIdentifier: UInt8 = 0
    /// The PIT's IRQ 0 arrives at pin 2; all other ISA interrupts at the pin of
    /// their number. ACPI's MADT says so by an interrupt source override.
    package static let timerGSI = 2
    /// Level-triggered, active high, by another override.
    package static let sciGSI = 9
    package static let rtcIRQ = 8
    package static let keyboardIRQ = 1

    // MARK: Ports

    /// COM1…COM4 with their ISA interrupts.
    package static let serialPorts: [(port: UInt16, irq: Int)] = [(0x3f8, 4), (0x2f8, 3), (0x3e8, 4), (0x2e8, 3)]

    package static let picMaster: UInt16 = 0x20
    package static let picSlave: UInt16 = 0xa0
    package static let picEdgeLevel: UInt16 = 0x4d0
    package static let pit: UInt16 = 0x40
    package static let systemControlB: UInt16 = 0x61
    package static let keyboardData: UInt16 = 0x60
    package static let keyboardCommand: UInt16 = 0x64
    package static let rtc: UInt16 = 0x70
    package static let postCode: UInt16 = 0x80
    package static let systemControlA: UInt16 = 0x92
    package static let debugOutput: UInt16 = 0xe9
    package static let exit: UInt16 = 0xf4
    package static let pciConfiguration: UInt16 = 0xcf8

    // MARK: ACPI fixed hardware (ACPI 6.5, 4.8)

    /// PM1a_STS and PM1a_EN, two bytes each. There is no PM1b, no GPE block.
    package static let pm1aEvent: UInt16 = 0x600
    package static let pm1aControl: UInt16 = 0x604
    /// 32 bits wide (FADT: TMR_VAL_EXT).
    package static let pmTimer: UInt16 = 0x608
    /// FADT RESET_REG, one byte in I/O space, and what to write there.
    package static let resetRegister: UInt16 = 0xcf9
    package static let resetValue: UInt8 = 6
    /// SLP_TYPa of \_S5.
    package static let sleepTypeS5: UInt8 = 5
    /// FADT.CENTURY: the RTC's register with the century.
    package static let rtcCenturyRegister: UInt8 = 0x32
    /// There is an i8042, but only to reset the machine and to please old
    /// programs: FADT's IAPC_BOOT_ARCH says there is none, and so Linux does
    /// not spend time on looking for a keyboard.
    package static let announcesKeyboardController = false
}
//:
