//L:230 FADT: the fixed hardware
//
// The table with the most fields and the least to say (5.2.9). Each register
// appears twice, once as a port number from 1996 and once as a "generic
// address", because nobody may ever remove anything. Our SMI_CMD is 0: there
// is no firmware to take the power management over from, ACPI is always on.

enum FADT {
    /// With the header: ACPI 6.5's table 5.9.
    static let byteCount = 276

    private enum Offset {
        static let facs = 36, dsdt = 40, sciInterrupt = 46, pm1aEvent = 56, pm1aControl = 64, pmTimer = 76
        static let pm1EventBytes = 88, pm1ControlBytes = 89, pmTimerBytes = 91, c2Latency = 96, c3Latency = 98
        static let century = 108, bootArchitecture = 109, flags = 112, resetRegister = 116, resetValue = 128
        static let minorVersion = 131, wideDSDT = 140, widePM1aEvent = 148, widePM1aControl = 172, widePMTimer = 208
    }

    /// IAPC_BOOT_ARCH: 0 LEGACY_DEVICES, 1 8042, 2 "VGA Not Present".
    private static let bootArchitecture: UInt16 =
        1 << 0 | (MemoryMap.announcesKeyboardController ? 1 << 1 : 0) | 1 << 2

    /// 0 WBINVD works; 2 C1 on all processors; 4, 5 no power or sleep button;
    /// 6 the RTC cannot wake; 8 the timer has 32 bits; 10 RESET_REG works.
    private static let flags: UInt32 = 1 << 0 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 10

    static func build(facs: UInt64, dsdt: UInt64) -> [UInt8] {
        var body = WireBytes(count: byteCount - SystemTable.headerBytes)
        func at(_ offset: Int) -> Int { offset - SystemTable.headerBytes }
        // Both addresses are below 4 GiB. For the FACS, only one may be given.
        body.put(UInt32(truncatingIfNeeded: facs), at: at(Offset.facs))
        body.put(UInt32(truncatingIfNeeded: dsdt), at: at(Offset.dsdt))
        body.put(dsdt, at: at(Offset.wideDSDT))
        body.put(UInt16(MemoryMap.sciGSI), at: at(Offset.sciInterrupt))
        let registers: [(port: UInt16, bytes: UInt8, narrow: Int, length: Int, wide: Int)] = [
            (MemoryMap.pm1aEvent, 4, Offset.pm1aEvent, Offset.pm1EventBytes, Offset.widePM1aEvent),
            (MemoryMap.pm1aControl, 2, Offset.pm1aControl, Offset.pm1ControlBytes, Offset.widePM1aControl),
            (MemoryMap.pmTimer, 4, Offset.pmTimer, Offset.pmTimerBytes, Offset.widePMTimer),
        ]
        for register in registers {
            body.put(UInt32(register.port), at: at(register.narrow))
            body.put(register.bytes, at: at(register.length))
            // PM1 is read in halves of two bytes: status and enable.
            let access: UInt8 = register.port == MemoryMap.pmTimer ? 3 : 2
            body.put(address(register.port, bits: register.bytes * 8, access: access), at: at(register.wide))
        }
        // "Larger than 100", "larger than 1000": there is no C2, no C3.
        body.put(UInt16(101), at: at(Offset.c2Latency))
        body.put(UInt16(1001), at: at(Offset.c3Latency))
        body.put(MemoryMap.rtcCenturyRegister, at: at(Offset.century))
        body.put(bootArchitecture, at: at(Offset.bootArchitecture))
        body.put(flags, at: at(Offset.flags))
        body.put(address(MemoryMap.resetRegister, bits: 8, access: 1), at: at(Offset.resetRegister))
        body.put(MemoryMap.resetValue, at: at(Offset.resetValue))
        body.put(UInt8(5), at: at(Offset.minorVersion))
        return SystemTable.build("FACP", revision: 6, body.bytes)
    }

    /// A Generic Address Structure (5.2.3.2) in I/O space.
    private static func address(_ port: UInt16, bits: UInt8, access: UInt8) -> [UInt8] {
        var bytes = WireBytes(count: 12)
        bytes.put([1, bits, 0, access], at: 0)
        bytes.put(UInt64(port), at: 4)
        return bytes.bytes
    }
}
//:
