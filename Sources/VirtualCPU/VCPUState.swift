package import X86

//S:010 What a CPU is
//
// Everything that makes one vCPU differ from another is in this struct, in
// line, without a single reference. It is never copied in the dark
// (`~Copyable`), lives at one address for as long as its engine does, and its
// first field is at offset 0: generated code finds a register by adding a
// constant to one pointer.

/// The architectural state of one vCPU. Only the thread that runs it touches it.
@frozen package struct VCPUState: ~Copyable {
    /// rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8…r15; then what an address
    /// may be made from besides: see `AddressSlot`.
    package var gpr = InlineArray<24, UInt64>(repeating: 0)
    /// YMM0…YMM15, 32 bytes each: XMM in the lower half.
    package var ymm = InlineArray<64, UInt64>(repeating: 0)
    /// x87 and MMX as FXSAVE64 writes them: bytes 0…159 count. The rest is the
    /// thunks' rubbish. At a multiple of 16, as that instruction demands.
    package var x87 = InlineArray<64, UInt64>(repeating: 0)
    /// Is here to make the whole struct, and with it `x87`, aligned to 16 bytes.
    package var alignment = SIMD2<UInt64>()
    package var mxcsr: UInt32 = 0x1f80

    package var rip: UInt64 = 0xfff0
    /// All of RFLAGS; while an engine runs, it may keep the arithmetic six elsewhere.
    package var rflags: UInt64 = RFlags.alwaysOne

    /// ES, CS, SS, DS, FS, GS.
    package var segments = InlineArray<6, Segment> { index in
        Segment.realMode(selector: 0, type: index == SegmentName.cs ? 0x9b : 0x93)
    }
    package var ldtr = Segment(limit: 0xffff, attributes: 0x82)
    package var tr = Segment(limit: 0xffff, attributes: 0x8b)
    package var gdtr = DescriptorTable(limit: 0xffff)
    package var idtr = DescriptorTable(limit: 0xffff)

    package var cr0: UInt64 = CR0.extensionType | CR0.notWriteThrough | CR0.cacheDisable
    package var cr2: UInt64 = 0
    package var cr3: UInt64 = 0
    package var cr4: UInt64 = 0
    package var xcr0: UInt64 = 1
    package var efer: UInt64 = 0
    /// DR0…DR7; 4 and 5 unused.
    package var dr: InlineArray<8, UInt64> = [0, 0, 0, 0, 0, 0, 0xffff_0ff0, 0x400]

    package var star: UInt64 = 0
    package var lstar: UInt64 = 0
    package var cstar: UInt64 = 0
    package var syscallMask: UInt64 = 0
    package var kernelGSBase: UInt64 = 0
    package var sysenterCS: UInt64 = 0
    package var sysenterESP: UInt64 = 0
    package var sysenterEIP: UInt64 = 0
    package var pat: UInt64 = 0x0007_0406_0007_0406
    package var tscAux: UInt64 = 0
    /// Guest TSC − host TSC.
    package var tscOffset: UInt64 = 0
    package var tscAdjust: UInt64 = 0
    package var miscEnable: UInt64 = 1
    package var mtrrDefaultType: UInt64 = 0xc06
    package var speculationControl: UInt64 = 0

    /// A CPU after RESET (SDM 3A, table 9-1).
    package init() {
        segments[SegmentName.cs] = Segment(selector: 0xf000, base: 0xffff_0000, limit: 0xffff, attributes: 0x9b)
        gpr[Register.rdx] = 0x600
        x87[0] = 0x37f  // FCW
        x87[3] = 0xffff_0000_1f80  // MXCSR and its mask, never the Guest's: see the thunks.
    }
}
//:

/// The slots of `VCPUState.gpr` past r15.
public enum AddressSlot {
    /// Always 0: "no base", "no index", "flat segment".
    @inlinable public static var zero: Int { 16 }
    /// RIP of offset 0 of the code page being run.
    @inlinable public static var codePage: Int { 17 }
    /// Segment bases, in the order of `SegmentName`.
    @inlinable public static var segmentBases: Int { 18 }
}
