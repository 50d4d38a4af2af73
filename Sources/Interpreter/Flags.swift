internal import VirtualCPU
internal import X86

//S:110 Flags, put off
//
// See `LazyFlags` for the idea. The reward is in the middle of the file: an
// ADD costs six instructions for all its flags, and the condition of a jump
// three or four.

extension CPU {
    @inline(__always) var carry: Bool { unsafe core.flags.carries >> 63 != 0 }
    @inline(__always) var zero: Bool { unsafe core.flags.result == 0 }
    @inline(__always) var sign: Bool { unsafe (core.flags.result >> 63) ^ (core.flags.carries & 1) != 0 }
    @inline(__always) var overflow: Bool { unsafe (core.flags.carries ^ (core.flags.carries &<< 1)) >> 63 != 0 }
    @inline(__always) var auxiliary: Bool { unsafe core.flags.carries & 8 != 0 }
    @inline(__always) var parity: Bool {
        unsafe UInt8(truncatingIfNeeded: core.flags.result ^ (core.flags.carries &>> 8)).nonzeroBitCount & 1 == 0
    }

    /// The six arithmetic flags where RFLAGS has them.
    var arithmeticFlags: UInt64 {
        (carry ? RFlags.carry : 0) | (parity ? RFlags.parity : 0) | (auxiliary ? RFlags.auxiliary : 0)
            | (zero ? RFlags.zero : 0) | (sign ? RFlags.sign : 0) | (overflow ? RFlags.overflow : 0)
    }

    /// Takes the six from an image of RFLAGS.
    func setArithmeticFlags(_ rflags: UInt64) {
        let zero = rflags & RFlags.zero != 0
        // Not zero: a result of 1, and its parity and sign corrected.
        let result: UInt64 = zero ? 0 : 1
        var carries: UInt64 = rflags & RFlags.sign != 0 ? 1 : 0
        let parityIsEven = result == 0
        if parityIsEven != (rflags & RFlags.parity != 0) { carries |= 1 << 8 }
        if rflags & RFlags.auxiliary != 0 { carries |= 8 }
        let carry = rflags & RFlags.carry != 0
        if carry { carries |= 1 << 63 }
        if carry != (rflags & RFlags.overflow != 0) { carries |= 1 << 62 }
        unsafe core.flags = LazyFlags(result: result, carries: carries)
    }

    /// RFLAGS, complete.
    var rflags: UInt64 { state.rflags & ~RFlags.arithmetic | arithmeticFlags }

    // MARK: Leaving flags behind

    @inline(__always) static func signExtend<T: GuestInteger>(_ value: T) -> UInt64 {
        UInt64(bitPattern: Int64(truncatingIfNeeded: T.Signed(truncatingIfNeeded: value)))
    }

    /// `carryOut`: bit n is the carry (or borrow) out of bit n.
    @inline(__always) func setFlags<T: GuestInteger>(_ result: T, carryOut: T) {
        let carries = UInt64(truncatingIfNeeded: carryOut)
        unsafe core.flags.result = CPU.signExtend(result)
        unsafe core.flags.carries =
            T.bitWidth == 64
            ? carries & 0xc000_0000_0000_0008
            : (carries &<< UInt64(64 - T.bitWidth)) & 0xc000_0000_0000_0000 | carries & 8
    }

    @inline(__always) func setFlagsOfLogic<T: GuestInteger>(_ result: T) {
        unsafe core.flags.result = CPU.signExtend(result)
        unsafe core.flags.carries = 0
    }

    /// Result flags from `result`, CF and OF as given, AF cleared.
    @inline(__always) func setFlags<T: GuestInteger>(_ result: T, carry: Bool, overflow: Bool) {
        unsafe core.flags.result = CPU.signExtend(result)
        unsafe core.flags.carries = (carry ? 1 << 63 : 0) | (carry != overflow ? 1 << 62 : 0)
    }

    /// CF and OF alone.
    @inline(__always) func setCarry(_ carry: Bool, overflow: Bool) {
        let rest = unsafe core.flags.carries & 0x3fff_ffff_ffff_ffff
        unsafe core.flags.carries = rest | (carry ? 1 << 63 : 0) | (carry != overflow ? 1 << 62 : 0)
    }

    /// CF alone.
    @inline(__always) func setCarry(_ carry: Bool) { setCarry(carry, overflow: overflow) }

    /// A condition code of Jcc, SETcc, CMOVcc (SDM 1, appendix B).
    @inline(__always) func condition(_ code: Int) -> Bool {
        let value: Bool
        switch code >> 1 {
        case 0: value = overflow
        case 1: value = carry
        case 2: value = zero
        case 3: value = carry || zero
        case 4: value = sign
        case 5: value = parity
        case 6: value = sign != overflow
        default: value = zero || sign != overflow
        }
        return value != (code & 1 != 0)
    }
}
//:
