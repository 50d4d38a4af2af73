import Platform
import Testing

@Suite struct KernelCommandLineTests {
    @Test(arguments: [
        ("", false), ("console=ttyS0", false), ("acpi=off", true), ("a acpi=off b", true), ("\tacpi=off\n", true),
        ("acpi=\"off\"", true), ("acpi=offset xacpi=off", false), ("acpi=off acpi=force", false),
        ("acpi=force acpi=off", true), ("acpi=off acpi=strict", true), ("a=\"b acpi=off c\"", false),
        ("init=/sh -- acpi=off", false), ("acpi=off -- acpi=force", true), ("a=\"x -- y\" acpi=off", true),
        ("a=\"not closed acpi=off", false),
    ]) func readsWhetherThereIsACPI(_ line: String, _ isOff: Bool) {
        #expect(KernelCommandLine(line).turnsACPIOff == isOff)
    }

    @Test(arguments: [
        ("", "virtio_mmio.device=4K@0xd0000000:16 virtio_mmio.device=4K@0xd001f000:47"),
        ("acpi=off ", "acpi=off virtio_mmio.device=4K@0xd0000000:16 virtio_mmio.device=4K@0xd001f000:47"),
        // What follows the dashes is for init.
        (
            "acpi=off  -- single x",
            "acpi=off virtio_mmio.device=4K@0xd0000000:16 virtio_mmio.device=4K@0xd001f000:47 -- single x"
        ),
        ("-- s", "virtio_mmio.device=4K@0xd0000000:16 virtio_mmio.device=4K@0xd001f000:47 -- s"),
        ("a=\"é\" virtio_mmio.device=1K@0x1000:5 b", "a=\"é\" virtio_mmio.device=1K@0x1000:5 b"),
    ]) func namesTheDevices(_ line: String, _ whole: String) {
        #expect(KernelCommandLine(line).naming(virtioSlots: [0, 31]) == whole)
    }

    @Test func leavesALineWithoutDevicesAlone() {
        #expect(KernelCommandLine("acpi=off  -- x ").naming(virtioSlots: []) == "acpi=off  -- x ")
    }

    /// A line that names devices already is not added to, not even our own.
    @Test func namesThemOnce() {
        let line = KernelCommandLine("acpi=off").naming(virtioSlots: [0])
        #expect(KernelCommandLine(line).naming(virtioSlots: [0]) == line)
    }
}
