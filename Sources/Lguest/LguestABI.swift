// Shared with the Guest: Guest/Sources/GuestKit has a link to this file. So it
// imports nothing, and holds numbers only. docs/lguest-abi.md has them in words.

/// Hypercalls by their number, which a Guest has in RAX when it does VMCALL;
/// arguments in RBX, RCX, RDX, RSI, the result in RAX.
public enum LguestHypercall {
    @inlinable public static var flushAsync: UInt64 { 0 }
    @inlinable public static var initialize: UInt64 { 1 }
    @inlinable public static var shutdown: UInt64 { 2 }
    @inlinable public static var loadGDT: UInt64 { 3 }
    @inlinable public static var newPageTable: UInt64 { 4 }
    @inlinable public static var flushTLB: UInt64 { 5 }
    @inlinable public static var loadIDTEntry: UInt64 { 6 }
    @inlinable public static var setStack: UInt64 { 7 }
    @inlinable public static var ts: UInt64 { 8 }
    @inlinable public static var setClockEvent: UInt64 { 9 }
    @inlinable public static var halt: UInt64 { 10 }
    @inlinable public static var getWallClock: UInt64 { 11 }
    @inlinable public static var bindDMA: UInt64 { 12 }
    @inlinable public static var sendDMA: UInt64 { 13 }
    @inlinable public static var setPTE: UInt64 { 14 }
    @inlinable public static var setPMD: UInt64 { 15 }
    @inlinable public static var loadTLS: UInt64 { 16 }
    @inlinable public static var notify: UInt64 { 17 }
    @inlinable public static var loadGDTEntry: UInt64 { 18 }
    @inlinable public static var sendInterrupts: UInt64 { 19 }

    /// Where the machine has Xen's interface (CPUID says so), `xen + n` is Xen's hypercall n, with its arguments in
    /// RBX, RCX and RDX, and an errno, negative, in RAX if it fails.
    @inlinable public static var xen: UInt64 { 0x5845_4e00 }
    @inlinable public static var xenCount: UInt64 { 64 }

    /// RCX of `shutdown`.
    @inlinable public static var powerOff: UInt64 { 1 }
    @inlinable public static var restart: UInt64 { 2 }
    /// The text, its NUL included, that `shutdown` reads at most.
    @inlinable public static var shutdownTextBytes: Int { 128 }
    /// The text of a Guest that ends because it is done.
    public static var powerDownText: StaticString { "Power down" }
}

/// struct lguest_data: what Guest and Host share, at the address that
/// `initialize` names. Offsets in bytes.
public enum LguestData {
    /// 64 bits: 0, or `interruptsEnabled`.
    @inlinable public static var irqEnabled: UInt64 { 0 }
    /// 64 bits: bit n blocks irq n.
    @inlinable public static var blockedInterrupts: UInt64 { 8 }
    /// Host: 64 bits. Not written: the CPU's own CR2 is there.
    @inlinable public static var cr2: UInt64 { 16 }
    /// Host: 64 bits of seconds, 64 bits of nanoseconds, UTC, as of the last interrupt.
    @inlinable public static var time: UInt64 { 24 }
    /// Host: 64 bits; `interruptsEnabled` if one waits for `irqEnabled`.
    @inlinable public static var irqPending: UInt64 { 40 }
    /// 64 bytes: the status of each slot of the ring.
    @inlinable public static var hypercallStatus: UInt64 { 48 }
    /// 64 × 5 × 64 bits: number, then four arguments.
    @inlinable public static var hypercalls: UInt64 { 112 }
    /// Host: 64 bits: bytes at the top of the address space that are not the Guest's. 0.
    @inlinable public static var reservedMemory: UInt64 { 2672 }
    /// Host: 32 bits; 0 if the TSC is no clock.
    @inlinable public static var tscKHz: UInt64 { 2680 }
    /// Host: 16 bits.
    @inlinable public static var guestID: UInt64 { 2684 }
    /// 64 bits each: no interrupt comes while RIP is in start ..< end.
    @inlinable public static var noInterruptStart: UInt64 { 2688 }
    @inlinable public static var noInterruptEnd: UInt64 { 2696 }
    /// 64 and 32 bits: of no use here, and not looked at.
    @inlinable public static var kernelAddress: UInt64 { 2704 }
    @inlinable public static var syscallVector: UInt64 { 2712 }
    @inlinable public static var byteCount: Int { 2720 }

    @inlinable public static var ringSize: Int { 64 }
    @inlinable public static var ringEntryBytes: UInt64 { 40 }
    /// A slot that is free: the Host has done it, or nobody has used it.
    @inlinable public static var slotFree: UInt8 { 0xff }
    /// RFLAGS.IF, which is what the first version kept here.
    @inlinable public static var interruptsEnabled: UInt64 { 0x200 }
}

/// Interrupts: 0 is the clock, the others are devices'. Irq n comes as vector 32 + n.
public enum LguestIRQ {
    @inlinable public static var count: Int { 32 }
    @inlinable public static var clock: Int { 0 }
    @inlinable public static var firstVector: Int { 32 }
}

/// struct lguest_dma: a buffer in up to 16 sections. Offsets in bytes.
public enum LguestDMA {
    /// 32 bits: 0 if it is free for the Host to fill; then how many bytes are in it.
    @inlinable public static var usedLength: UInt64 { 0 }
    /// 16 × 64 bits, guest-physical.
    @inlinable public static var addresses: UInt64 { 8 }
    /// 16 × 16 bits; the first 0 ends the list.
    @inlinable public static var lengths: UInt64 { 136 }
    @inlinable public static var byteCount: Int { 168 }
    @inlinable public static var maximumSections: Int { 16 }
    /// Arrays that one Guest may have bound.
    @inlinable public static var maximumBindings: Int { 32 }
    /// Buffers in an array: whoever sends looks through all of them, if it has to.
    @inlinable public static var maximumBuffers: Int { 4096 }
    /// A section is in one page.
    @inlinable public static var maximumSectionBytes: Int { 4096 }
}

/// struct lguest_device_desc and what follows it, without padding. Offsets in bytes.
public enum LguestDescriptor {
    /// 8 bits: virtio's device number; 0 ends the page.
    @inlinable public static var type: UInt64 { 0 }
    @inlinable public static var queueCount: UInt64 { 1 }
    /// Of each of the two arrays of feature bits.
    @inlinable public static var featureBytes: UInt64 { 2 }
    @inlinable public static var configurationBytes: UInt64 { 3 }
    @inlinable public static var status: UInt64 { 4 }
    @inlinable public static var headerBytes: UInt64 { 5 }

    /// lguest_vqconfig, one for each queue: entries 16 bits, irq 16, page number of the ring 32.
    @inlinable public static var queueBytes: UInt64 { 8 }
    /// A ring's used part begins at a multiple of this.
    @inlinable public static var ringAlignment: UInt64 { 4096 }

    /// Status bits, as virtio has them.
    @inlinable public static var acknowledge: UInt8 { 1 }
    @inlinable public static var driver: UInt8 { 2 }
    @inlinable public static var driverOK: UInt8 { 4 }
    /// Host: the driver has broken a rule.
    @inlinable public static var needsReset: UInt8 { 64 }
    @inlinable public static var failed: UInt8 { 128 }
}

/// Requests to the Host interface: the first word of a `write`.
public enum LguestRequest {
    /// base, pfnlimit, pgdir, start.
    @inlinable public static var initialize: UInt64 { 0 }
    /// key.
    @inlinable public static var getDMA: UInt64 { 1 }
    /// irq.
    @inlinable public static var irq: UInt64 { 2 }
    /// 1 to break, 0 to release.
    @inlinable public static var breakOut: UInt64 { 3 }
    /// address, file descriptor.
    @inlinable public static var eventFD: UInt64 { 4 }
}

/// What a Guest's file says of itself: an ELF note with this name and type,
/// whose only word is the version.
public enum LguestNote {
    public static var name: StaticString { "Lguest" }
    @inlinable public static var type: UInt32 { 1 }
    @inlinable public static var version: UInt32 { 1 }
}

/// The page at guest-physical 0: the few fields of Linux's boot_params
/// (Documentation/arch/x86/zero-page.rst) that the Launcher fills. RSI points to it.
public enum LguestBoot {
    /// 8 bits: how many ranges of memory; one.
    @inlinable public static var e820Count: UInt64 { 0x1e8 }
    /// 20 bytes each: address 64 bits, byte count 64, type 32 (1: RAM).
    @inlinable public static var e820Table: UInt64 { 0x2d0 }
    /// 16 bits: the boot protocol's version, 2.7.
    @inlinable public static var version: UInt64 { 0x206 }
    /// 8 bits: who loaded it; 0xff, nobody whom the list knows.
    @inlinable public static var loaderType: UInt64 { 0x210 }
    /// 32 bits each; 0 if there is no initrd.
    @inlinable public static var initrdAddress: UInt64 { 0x218 }
    @inlinable public static var initrdBytes: UInt64 { 0x21c }
    /// 32 bits: where the command line is, with a NUL at its end.
    @inlinable public static var commandLinePointer: UInt64 { 0x228 }
    /// 32 bits: hardware_subarch; 1 is lguest.
    @inlinable public static var subarchitecture: UInt64 { 0x23c }
    @inlinable public static var commandLineAddress: UInt64 { 4096 }
    @inlinable public static var commandLineBytes: Int { 2048 }
    /// Where a Guest's program may begin: below are the two pages above.
    @inlinable public static var firstFreeAddress: UInt64 { 0x4000 }
}
