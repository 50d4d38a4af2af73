package import VirtualCPU
internal import X86

//S:380 The state that a kernel saves for its tasks
//
// FXSAVE and XSAVE move the vector registers to memory and back: 512 bytes of
// x87 and SSE, a header, and AVX's upper halves (SDM 1, 13.4):
//
//     0     FXSAVE area: FCW FSW FTW FOP FIP FDP MXCSR mask, ST0…7, XMM0…15
//     512   XSTATE_BV, XCOMP_BV, 48 reserved bytes
//     576   upper halves of YMM0…15
//
// Only the standard format exists here; XSAVEC and XSAVES are not shown. The
// core moves the whole area to a buffer of its own first, with the faults
// that this takes, so that here nothing can fail but the contents.

/// FXSAVE, XSAVE, their counterparts, and MXCSR.
package enum ExtendedState {
    package static let x87: UInt64 = 1, sse: UInt64 = 2, avx: UInt64 = 4
    /// What XCR0 may hold.
    package static let supported: UInt64 = x87 | sse | avx
    package static let legacyBytes = 512
    package static let headerBytes = 64
    package static let avxOffset = 576, avxBytes = 256
    /// The bits that MXCSR has (DAZ included); others are #GP.
    package static let mxcsrMask: UInt32 = 0xffff
    private static let hostMXCSR: UInt64 = 0xffff_0000_1f80

    /// A vCPU's state where it lies: of two kilobytes no copy is wanted.
    package typealias StatePointer = UnsafeMutablePointer<VCPUState>

    private static func vectors(_ state: StatePointer) -> UnsafeMutablePointer<UInt64> {
        unsafe withUnsafeMutablePointer(to: &state.pointee.ymm) {
            unsafe UnsafeMutableRawPointer($0).assumingMemoryBound(to: UInt64.self)
        }
    }

    private static func x87(_ state: StatePointer) -> UnsafeMutablePointer<UInt64> {
        unsafe withUnsafeMutablePointer(to: &state.pointee.x87) {
            unsafe UnsafeMutableRawPointer($0).assumingMemoryBound(to: UInt64.self)
        }
    }

    /// Bytes of the standard-format area for the components in `xcr0`
    /// (CPUID leaf 0xd, subleaf 0, EBX).
    package static func areaBytes(_ xcr0: UInt64) -> Int { xcr0 & avx != 0 ? avxOffset + avxBytes : avxOffset }

    /// LDMXCSR. False: #GP(0).
    package static func loadMXCSR(_ value: UInt32, _ state: StatePointer) -> Bool {
        if value & ~mxcsrMask != 0 { return false }
        unsafe state.pointee.mxcsr = value
        return true
    }

    /// VZEROUPPER, or VZEROALL where `all`; outside 64-bit mode only YMM0…7.
    package static func zeroVectors(all: Bool, wide: Bool, _ state: StatePointer) {
        for register in 0..<(wide ? 16 : 8) {
            if all { unsafe (vectors(state)[4 * register], vectors(state)[4 * register + 1]) = (0, 0) }
            unsafe (vectors(state)[4 * register + 2], vectors(state)[4 * register + 3]) = (0, 0)
        }
    }

    // MARK: - FXSAVE, FXRSTOR

    /// The legacy area's x87 part: bytes 0…23 and ST0…7.
    private static func saveX87(_ state: StatePointer, _ area: UnsafeMutableRawPointer, pointers64: Bool) {
        unsafe store(x87(state)[0] & 0xffff_00ff_ffff_ffff, area, 0)
        // Without REX.W: 32-bit offsets, and selectors that newer CPUs give as 0.
        let mask: UInt64 = pointers64 ? .max : 0xffff_ffff
        unsafe store(x87(state)[1] & mask, area, 8)
        unsafe store(x87(state)[2] & mask, area, 16)
        for index in 0..<8 {
            unsafe store(x87(state)[4 + 2 * index], area, 32 + 16 * index)
            unsafe store(x87(state)[5 + 2 * index] & 0xffff, area, 40 + 16 * index)
        }
    }

    private static func loadX87(_ state: StatePointer, _ area: UnsafeRawPointer, pointers64: Bool) {
        var control = unsafe load(area, 0) & 0x07ff_00ff_ffff_ffff
        // FCW bit 6 reads as 1, bits 7 and 13…15 as 0. FSW's ES and B follow from what is pending and unmasked.
        control = control & ~0xe0c0 | 0x40
        let pending = (control >> 16) & ~control & 0x3f
        control = pending != 0 ? control | 0x8080_0000 : control & ~0x8080_0000
        let mask: UInt64 = pointers64 ? .max : 0xffff_ffff
        unsafe x87(state)[0] = control
        unsafe x87(state)[1] = unsafe load(area, 8) & mask
        unsafe x87(state)[2] = unsafe load(area, 16) & mask
        unsafe x87(state)[3] = hostMXCSR
        for index in 0..<8 {
            unsafe x87(state)[4 + 2 * index] = unsafe load(area, 32 + 16 * index)
            unsafe x87(state)[5 + 2 * index] = unsafe load(area, 40 + 16 * index) & 0xffff
        }
    }

    /// x87 as after FNINIT, with its registers empty and zero.
    private static func initializeX87(_ state: StatePointer) {
        for index in 0..<20 { unsafe x87(state)[index] = 0 }
        unsafe x87(state)[0] = 0x37f
        unsafe x87(state)[3] = hostMXCSR
    }

    private static func saveSSE(_ state: StatePointer, _ area: UnsafeMutableRawPointer, wide: Bool) {
        for register in 0..<(wide ? 16 : 8) {
            unsafe store(vectors(state)[4 * register], area, 160 + 16 * register)
            unsafe store(vectors(state)[4 * register + 1], area, 168 + 16 * register)
        }
    }

    private static func loadSSE(_ state: StatePointer, _ area: UnsafeRawPointer?, wide: Bool) {
        for register in 0..<(wide ? 16 : 8) {
            if let area = unsafe area {
                unsafe vectors(state)[4 * register] = unsafe load(area, 160 + 16 * register)
                unsafe vectors(state)[4 * register + 1] = unsafe load(area, 168 + 16 * register)
            } else {
                unsafe (vectors(state)[4 * register], vectors(state)[4 * register + 1]) = (0, 0)
            }
        }
    }

    private static func loadAVX(_ state: StatePointer, _ area: UnsafeRawPointer?, wide: Bool) {
        for register in 0..<(wide ? 16 : 8) {
            if let area = unsafe area {
                unsafe vectors(state)[4 * register + 2] = unsafe load(area, avxOffset + 16 * register)
                unsafe vectors(state)[4 * register + 3] = unsafe load(area, avxOffset + 8 + 16 * register)
            } else {
                unsafe (vectors(state)[4 * register + 2], vectors(state)[4 * register + 3]) = (0, 0)
            }
        }
    }

    /// FXSAVE over `area`, 512 bytes that hold what memory held: not all of them are written.
    ///
    /// - Parameters:
    ///   - pointers64: FXSAVE64, that is REX.W.
    ///   - wide: 64-bit mode: sixteen registers, not eight.
    package static func fxsave(
        _ state: StatePointer, into area: UnsafeMutableRawPointer, pointers64: Bool, wide: Bool
    ) {
        unsafe saveX87(state, area, pointers64: pointers64)
        unsafe store(UInt64(state.pointee.mxcsr) | UInt64(mxcsrMask) << 32, area, 24)
        unsafe saveSSE(state, area, wide: wide)
    }

    /// FXRSTOR from a private copy of 512 bytes. False: #GP(0), nothing changed.
    package static func fxrstor(
        _ state: StatePointer, from area: UnsafeRawPointer, pointers64: Bool, wide: Bool
    ) -> Bool {
        guard unsafe loadMXCSR(UInt32(truncatingIfNeeded: unsafe load(area, 24)), state) else { return false }
        unsafe loadX87(state, area, pointers64: pointers64)
        unsafe loadSSE(state, area, wide: wide)
        return true
    }

    // MARK: - XSAVE, XRSTOR

    /// The components that are not in their initial state (SDM 1, 13.6).
    package static func inUse(_ state: StatePointer) -> UInt64 {
        var result: UInt64 = 0
        if unsafe x87(state)[0] != 0x37f || x87(state)[1] != 0 || x87(state)[2] != 0 { result |= x87 }
        for index in 4..<20 where unsafe x87(state)[index] != 0 { result |= x87 }
        // MXCSR is part of SSE, but has no say here but its initial value's.
        if unsafe state.pointee.mxcsr != 0x1f80 { result |= sse }
        for register in 0..<16 {
            if unsafe vectors(state)[4 * register] | vectors(state)[4 * register + 1] != 0 { result |= sse }
            if unsafe vectors(state)[4 * register + 2] | vectors(state)[4 * register + 3] != 0 { result |= avx }
        }
        return result
    }

    /// XSAVE or XSAVEOPT over `area`, which holds what memory held and is
    /// `areaBytes(xcr0)` long (the core has checked 64-byte alignment).
    ///
    /// - Parameters:
    ///   - mask: EDX:EAX.
    ///   - optimised: XSAVEOPT: components in their initial state are not written.
    package static func xsave(
        _ state: StatePointer, mask: UInt64, into area: UnsafeMutableRawPointer, optimised: Bool,
        pointers64: Bool, wide: Bool
    ) {
        let requested = unsafe mask & state.pointee.xcr0 & supported
        let used = unsafe inUse(state)
        let written = optimised ? requested & used : requested
        if written & x87 != 0 { unsafe saveX87(state, area, pointers64: pointers64) }
        // MXCSR goes with SSE and with AVX, and always when asked (SDM 1, 13.7 and 13.9).
        if requested & (sse | avx) != 0 {
            unsafe store(UInt64(state.pointee.mxcsr) | UInt64(mxcsrMask) << 32, area, 24)
        }
        if written & sse != 0 { unsafe saveSSE(state, area, wide: wide) }
        if written & avx != 0 {
            for register in 0..<(wide ? 16 : 8) {
                unsafe store(vectors(state)[4 * register + 2], area, avxOffset + 16 * register)
                unsafe store(vectors(state)[4 * register + 3], area, avxOffset + 8 + 16 * register)
            }
        }
        // XSTATE_BV keeps the bits that were not asked for.
        let old = unsafe load(area, 512)
        unsafe store(old & ~requested | requested & used, area, 512)
    }

    /// XRSTOR from a private copy of `areaBytes(xcr0)` bytes. False: #GP(0), nothing changed.
    package static func xrstor(
        _ state: StatePointer, mask: UInt64, from area: UnsafeRawPointer, pointers64: Bool, wide: Bool
    ) -> Bool {
        let xstate = unsafe load(area, 512)
        // Bits beyond XCR0, a compacted area, reserved header bytes (SDM 1, 13.8.1).
        if unsafe xstate & ~state.pointee.xcr0 != 0 { return false }
        for offset in [520, 528] where unsafe load(area, offset) != 0 { return false }
        let requested = unsafe mask & state.pointee.xcr0 & supported
        if requested & (sse | avx) != 0 {
            // In the standard form MXCSR is loaded whatever XSTATE_BV says.
            guard unsafe loadMXCSR(UInt32(truncatingIfNeeded: unsafe load(area, 24)), state) else { return false }
        }
        if requested & x87 != 0 {
            if xstate & x87 != 0 {
                unsafe loadX87(state, area, pointers64: pointers64)
            } else {
                unsafe initializeX87(state)
            }
        }
        if requested & sse != 0 { unsafe loadSSE(state, xstate & sse != 0 ? area : nil, wide: wide) }
        if requested & avx != 0 { unsafe loadAVX(state, xstate & avx != 0 ? area : nil, wide: wide) }
        return true
    }

    private static func load(_ area: UnsafeRawPointer, _ offset: Int) -> UInt64 {
        unsafe area.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
    }

    private static func store(_ value: UInt64, _ area: UnsafeMutableRawPointer, _ offset: Int) {
        unsafe area.storeBytes(of: value, toByteOffset: offset, as: UInt64.self)
    }
}
//:
