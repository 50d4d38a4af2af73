// What PlatformBootTests/Golden.swift holds the compiled bytes of (without the table's header):
//   iasl -oa -p dsdt Tests/Golden/dsdt.asl
DefinitionBlock ("", "DSDT", 2, "ROOST ", "ROOSTVM ", 1)
{
    Name (\_S5, Package () { 5, 5, Zero, Zero })
    Scope (\_SB)
    {
        Device (C000)
        {
            Name (_HID, "ACPI0007")
            Name (_UID, Zero)
        }
        Device (COM1)
        {
            Name (_HID, EisaId ("PNP0501"))
            Name (_UID, One)
            Name (_CRS, ResourceTemplate () { IO (Decode16, 0x03f8, 0x03f8, 1, 8) IRQNoFlags () { 4 } })
        }
        Device (RTC)
        {
            Name (_HID, EisaId ("PNP0B00"))
            Name (_CRS, ResourceTemplate () { IO (Decode16, 0x0070, 0x0070, 1, 2) IRQNoFlags () { 8 } })
        }
        Device (V000)
        {
            Name (_HID, "LNRO0005")
            Name (_UID, Zero)
            Name (_CCA, One)
            Name (_CRS, ResourceTemplate ()
            {
                Memory32Fixed (ReadWrite, 0xd0000000, 0x1000)
                Interrupt (ResourceConsumer, Level, ActiveHigh, Exclusive) { 16 }
            })
        }
        Device (V01F)
        {
            Name (_HID, "LNRO0005")
            Name (_UID, 31)
            Name (_CCA, One)
            Name (_CRS, ResourceTemplate ()
            {
                Memory32Fixed (ReadWrite, 0xd001f000, 0x1000)
                Interrupt (ResourceConsumer, Level, ActiveHigh, Exclusive) { 47 }
            })
        }
    }
}
