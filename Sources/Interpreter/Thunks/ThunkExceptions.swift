package import VirtualCPU

//S:320 Exceptions that the Host must not see
//
// A thunk runs in our process, so a floating-point trap in it would be a
// SIGFPE to us. Two ways out, one per unit.
//
// SSE raises its exceptions at once. With everything masked in the Guest's
// MXCSR (as Linux has it, so nearly always) the thunk runs with that MXCSR,
// and the flags stick in it as they should. If something is unmasked, we run
// with all masked and the flags cleared, look at the flags, and if the Guest
// is owed an exception we put everything back as it was.
//
// x87 raises its exceptions late: at the next x87 instruction that waits.
// FXRSTOR, the instruction, FXSAVE: nothing in between waits but the
// instruction, and the core has looked at FSW.ES before it.

extension Thunk {
    private static let masks: UInt32 = 0x1f80
    private static let flags: UInt32 = 0x3f

    @usableFromInline func runCarefully(
        _ state: UnsafeMutablePointer<VCPUState>, memory: UnsafeMutableRawPointer, rip: UInt64, address: UInt64
    ) -> Bool {
        let record = unsafe X87Record(state.pointee.x87)
        if usesMXCSR, unsafe state.pointee.mxcsr & Self.masks != Self.masks {
            guard unsafe runUnmasked(state, memory: memory) else { return false }
        } else {
            unsafe call(state, memory)
        }
        // The record in the state is the Host's now, if it is one at all: AMD's CPUs keep
        // it only while an exception is pending (APM 2, 11.4.4). The Guest has ours.
        let image = unsafe X87Environment(memory, bytes: memoryBytes)
        switch fpu {
        case .untouched: break
        case .kept: unsafe record.set(in: &state.pointee.x87)
        case .recorded:
            let operand = memoryBytes != 0 ? address : record.operand
            let last = X87Record(opcode: fpuOpcode, instruction: rip, operand: operand)
            unsafe last.set(in: &state.pointee.x87)
        case .stored:
            unsafe record.set(in: &state.pointee.x87)
            image.record = record
        case .saved:
            unsafe X87Record().set(in: &state.pointee.x87)
            image.record = record
        case .loaded: unsafe image.record.set(in: &state.pointee.x87)
        case .cleared: unsafe X87Record().set(in: &state.pointee.x87)
        }
        return true
    }

    /// With some SIMD exception unmasked in the Guest's MXCSR.
    private func runUnmasked(_ state: UnsafeMutablePointer<VCPUState>, memory: UnsafeMutableRawPointer) -> Bool {
        let mxcsr = unsafe state.pointee.mxcsr
        let (gpr, rflags, ymm, x87) = unsafe (
            state.pointee.gpr, state.pointee.rflags, state.pointee.ymm, state.pointee.x87
        )
        // Flush-to-zero has no say while underflow is unmasked (SDM 1, 10.2.3.3).
        let underflowUnmasked = mxcsr & 1 << 11 == 0
        let trial = (mxcsr | Self.masks) & ~Self.flags & ~(underflowUnmasked ? 1 << 15 : 0)
        unsafe state.pointee.mxcsr = trial

        // A store (VCVTPS2PH alone, among those that raise) goes aside first.
        var bounce = InlineArray<4, SIMD2<UInt64>>(repeating: .zero)
        let writes = memoryAccess == .write || memoryAccess == .readWrite
        if writes {
            unsafe withUnsafeMutableBytes(of: &bounce) { buffer in
                guard let base = buffer.baseAddress else { return }
                if memoryAccess == .readWrite { unsafe base.copyMemory(from: memory, byteCount: memoryBytes) }
                unsafe call(state, base)
            }
        } else {
            unsafe call(state, memory)
        }

        var raised = unsafe state.pointee.mxcsr & Self.flags
        if underflowUnmasked, raised & 1 << 4 == 0, unsafe underflowsExactly(state, stored: bounce) { raised |= 1 << 4 }
        let unmasked = ~(mxcsr >> 7) & Self.flags
        // IE, DE and ZE come before the computation: if one of them stops the
        // instruction, no element gets as far as OE, UE or PE (SDM 1, 11.5.3.2).
        if raised & unmasked & 7 != 0 { raised &= 7 }
        unsafe state.pointee.mxcsr = mxcsr | raised
        if raised & unmasked == 0 {
            if writes {
                unsafe withUnsafeBytes(of: &bounce) { buffer in
                    guard let base = buffer.baseAddress else { return }
                    unsafe memory.copyMemory(from: base, byteCount: memoryBytes)
                }
            }
            return true
        }
        unsafe state.pointee.gpr = gpr
        unsafe state.pointee.rflags = rflags
        unsafe state.pointee.ymm = ymm
        unsafe state.pointee.x87 = x87
        return false
    }

    /// Masked, a tiny result raises UE only if it is inexact as well;
    /// unmasked, always (SDM 1, 4.9.1.5). The exact ones show as denormals.
    private func underflowsExactly(
        _ state: UnsafeMutablePointer<VCPUState>, stored: InlineArray<4, SIMD2<UInt64>>
    ) -> Bool {
        // As IEEE 754 lays them out: how many bits below the exponent.
        let fraction: UInt64 = floatBytes == 8 ? 52 : floatBytes == 4 ? 23 : 10
        let width = Int(floatBytes) * 8
        let isStored = memoryAccess == .write || memoryAccess == .readWrite
        for element in 0..<Int(floatCount) {
            let (index, shift) = (element * width / 64, UInt64(element * width % 64))
            let word =
                unsafe isStored ? stored[index / 2][index % 2] : state.pointee.ymm[Int(floatRegister) * 4 + index]
            // All but the sign, at the word's top.
            let magnitude = ((word >> shift) << UInt64(64 - width)) << 1
            if magnitude != 0, magnitude >> UInt64(65 - width) < 1 << fraction { return true }
        }
        return false
    }
}
//:
