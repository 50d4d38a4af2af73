package import VirtualCPU
internal import X86

//S:310 The instruction runs itself
//
// The Guest's CPU is of the Host's kind. To write out in Swift what DPPS or
// FPATAN or AESENC do would be years of work, each line a chance to differ
// from the silicon. So we don't. The instruction itself is put into a thunk:
// a few machine instructions that fetch from `VCPUState` exactly the
// registers that it reads, the instruction, and a few more that put back
// what it wrote.
//
//     thunk(rdi: state, rsi: memory operand)
//         movups xmm1, [rdi + ymm 1]
//         addsd  xmm1, [rsi]              <- the Guest's own, its address replaced
//         movups [rdi + ymm 1], xmm1
//         ret
//
// What is left to us is what the CPU cannot know: whether the Guest's kernel
// has enabled such instructions (`gate`), and where the operand is.

/// Machine code that performs one instruction on a `VCPUState`.
@safe @frozen package struct Thunk: BitwiseCopyable, @unchecked Sendable {
    package enum MemoryAccess: UInt8, BitwiseCopyable, Sendable { case none, read, write, readWrite }

    /// The checks that come before the instruction, in the order of `gateFault`.
    @frozen package struct Gate: OptionSet, BitwiseCopyable, Sendable {
        package let rawValue: UInt8
        package init(rawValue: UInt8) { self.rawValue = rawValue }
        /// #NM if CR0.EM or CR0.TS.
        package static let x87 = Gate(rawValue: 1)
        /// #UD if CR0.EM, #NM if CR0.TS.
        package static let mmx = Gate(rawValue: 2)
        /// #UD if CR0.EM or not CR4.OSFXSR, #NM if CR0.TS.
        package static let sse = Gate(rawValue: 4)
        /// #UD if not CR4.OSXSAVE or XCR0 lacks SSE or AVX, #NM if CR0.TS.
        package static let avx = Gate(rawValue: 8)
        /// FWAIT: #NM if CR0.MP and CR0.TS.
        package static let fwait = Gate(rawValue: 16)
        /// #MF if an unmasked x87 exception is pending (FSW.ES).
        package static let waitsForFPU = Gate(rawValue: 32)
        /// A VEX prefix: #UD in real and virtual-8086 mode. The decoder must not even have been asked.
        package static let protectedMode = Gate(rawValue: 64)
    }

    /// What happens to the x87's record of its last instruction (SDM 1, 8.1.8).
    package enum FPURecord: UInt8, BitwiseCopyable, Sendable {
        /// No x87 state is touched at all.
        case untouched
        /// This instruction becomes the last one.
        case recorded
        /// MMX and the control instructions: stays as it was.
        case kept
        /// FNSTENV: stays, and belongs in the image.
        case stored
        /// FNSAVE: belongs in the image, and is forgotten.
        case saved
        /// FLDENV, FRSTOR: comes from the image.
        case loaded
        /// FNINIT: is forgotten.
        case cleared
    }

    /// `@convention(c) (state, memory operand) -> Void`. Prefer `run`.
    package let entry: UnsafeRawPointer
    /// Size of the memory operand; 0: there is none.
    package let memoryBytes: Int
    package let memoryAccess: MemoryAccess
    /// 1, or what the operand's linear address must be a multiple of: else #GP(0).
    /// A bounce buffer must be aligned to 32 always.
    package let alignment: UInt8
    package let gate: Gate
    package let fpu: FPURecord
    /// Reads MXCSR and may raise SIMD exceptions: `run` returning false is #XM.
    package let usesMXCSR: Bool
    /// Reads or writes arithmetic flags, in `VCPUState.rflags`.
    package let touchesFlags: Bool
    /// BT, BTS, BTR, BTC of memory with the bit number in this register: the
    /// core adds `bitStringOffset` to the operand's offset. -1: any other instruction.
    package let bitRegister: Int8
    /// LOCK: the operand's pages must be the Guest's own RAM, not a bounce buffer.
    package let isLocked: Bool
    /// Element size of a floating-point destination in bytes, 0 for others:
    /// see `underflowsExactly`.
    let floatBytes: UInt8
    /// Number of the destination vector register and of its elements.
    let floatRegister: UInt8
    let floatCount: UInt8
    /// The 11 bits of an x87 opcode.
    var fpuOpcode: UInt16
}

extension Thunk {
    /// The exception that the enabling bits demand before the instruction may run.
    package func gateFault(_ state: borrowing VCPUState) -> UInt8? {
        if gate.isEmpty { return nil }
        return slowGateFault(state)
    }

    @usableFromInline func slowGateFault(_ state: borrowing VCPUState) -> UInt8? {
        let cr0 = state.cr0
        if !gate.isDisjoint(with: [.mmx, .sse]), cr0 & CR0.emulation != 0 { return Vector.invalidOpcode }
        if gate.contains(.sse), state.cr4 & CR4.osFXSR == 0 { return Vector.invalidOpcode }
        if gate.contains(.protectedMode),
            cr0 & CR0.protectedMode == 0 || state.rflags & RFlags.virtual8086 != 0
        {
            return Vector.invalidOpcode
        }
        if gate.contains(.avx), state.cr4 & CR4.osXSave == 0 || state.xcr0 & 6 != 6 { return Vector.invalidOpcode }
        if gate.contains(.x87), cr0 & CR0.emulation != 0 { return Vector.deviceNotAvailable }
        if !gate.isDisjoint(with: [.x87, .mmx, .sse, .avx]), cr0 & CR0.taskSwitched != 0 {
            return Vector.deviceNotAvailable
        }
        if gate.contains(.fwait), cr0 & CR0.taskSwitched != 0, cr0 & CR0.monitorCoprocessor != 0 {
            return Vector.deviceNotAvailable
        }
        // ES, bit 7 of FSW, sums up what is pending and unmasked.
        if gate.contains(.waitsForFPU), state.x87[0] & 1 << 23 != 0 { return Vector.floatingPoint }
        return nil
    }

    /// For a bit string in memory: what to add to the operand's address, for
    /// the bit number in `bitRegister` (SDM 2A, BT). Call before `run`.
    package func bitStringOffset(_ state: borrowing VCPUState) -> UInt64 {
        guard bitRegister >= 0 else { return 0 }
        let number = state.gpr[Int(bitRegister)]
        let bit: Int64 =
            switch memoryBytes {
            case 2: Int64(Int16(truncatingIfNeeded: number))
            case 4: Int64(Int32(truncatingIfNeeded: number))
            default: Int64(bitPattern: number)
            }
        return UInt64(bitPattern: bit >> 3) & ~UInt64(memoryBytes &- 1)
    }

    /// Performs the instruction. `gateFault` has been asked, the memory operand
    /// translated and its alignment checked.
    ///
    /// - Parameters:
    ///   - memory: host address of the operand: guest RAM, or a bounce buffer
    ///     where the operand crosses pages or is a device. Anything if there is none.
    ///   - rip: the instruction's, as x87 keeps it.
    ///   - address: the memory operand's offset, as x87 keeps it.
    /// - Returns: false if a SIMD exception is due: MXCSR tells which, and
    ///   nothing else has changed. #XM, or #UD where CR4.OSXMMEXCPT is clear.
    @inline(__always) package func run(
        _ state: UnsafeMutablePointer<VCPUState>, memory: UnsafeMutableRawPointer, rip: UInt64, address: UInt64
    ) -> Bool {
        if !usesMXCSR, fpu == .untouched {
            unsafe call(state, memory)
            return true
        }
        return unsafe runCarefully(state, memory: memory, rip: rip, address: address)
    }

    /// The bare call.
    @inline(__always) package func call(
        _ state: UnsafeMutablePointer<VCPUState>, _ memory: UnsafeMutableRawPointer
    ) {
        // SAFETY: `entry` was written by ThunkBuilder to this convention and
        // stays until its cache is emptied, which the core waits for.
        let function = unsafe unsafeBitCast(
            entry, to: (@convention(c) (UnsafeMutableRawPointer, UnsafeMutableRawPointer) -> Void).self)
        unsafe function(UnsafeMutableRawPointer(state), memory)
    }
}
//:
