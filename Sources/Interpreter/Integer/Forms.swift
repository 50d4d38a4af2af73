internal import X86

//S:150 Forms
//
// An ADD is an ADD, whether its operands are registers, memory or constants,
// and whether they are 8 or 64 bits wide. The operations are therefore
// written once, the forms are written once, and the compiler multiplies: every
// line of the tables in `Tables.swift` becomes a function of its own, with
// nothing left to decide when it runs.

extension CPU {
    @inline(__always) func rr<O: BinaryOperation, T: GuestInteger>(_ o: O.Type, _ t: T.Type, _ i: InstructionPointer) {
        let result = unsafe O.apply(self, register(i.pointee.r1, T.self), register(i.pointee.r2, T.self))
        if O.writesResult { unsafe setRegister(i.pointee.r1, result) }
    }

    @inline(__always) func ri<O: BinaryOperation, T: GuestInteger>(_ o: O.Type, _ t: T.Type, _ i: InstructionPointer) {
        let result = unsafe O.apply(self, register(i.pointee.r1, T.self), T(truncatingIfNeeded: i.pointee.immediate))
        if O.writesResult { unsafe setRegister(i.pointee.r1, result) }
    }

    @inline(__always) func rm<O: BinaryOperation, T: GuestInteger>(
        _ o: O.Type, _ t: T.Type, _ i: InstructionPointer
    ) throws(Stop) {
        let value = try load(unsafe address(i, MemoryLayout<T>.size, write: false), T.self)
        let result = unsafe O.apply(self, register(i.pointee.r1, T.self), value)
        if O.writesResult { unsafe setRegister(i.pointee.r1, result) }
    }

    @inline(__always) func mr<O: BinaryOperation, T: GuestInteger>(
        _ o: O.Type, _ t: T.Type, _ i: InstructionPointer
    ) throws(Stop) {
        let value = unsafe register(i.pointee.r2, T.self)
        let address = unsafe try address(i, MemoryLayout<T>.size, write: O.writesResult)
        if O.writesResult {
            try modify(address, T.self) { O.apply(self, $0, value) }
        } else {
            _ = O.apply(self, try load(address, T.self), value)
        }
    }

    @inline(__always) func mi<O: BinaryOperation, T: GuestInteger>(
        _ o: O.Type, _ t: T.Type, _ i: InstructionPointer
    ) throws(Stop) {
        let value = unsafe T(truncatingIfNeeded: i.pointee.immediate)
        let address = unsafe try address(i, MemoryLayout<T>.size, write: O.writesResult)
        if O.writesResult {
            try modify(address, T.self) { O.apply(self, $0, value) }
        } else {
            _ = O.apply(self, try load(address, T.self), value)
        }
    }

    @inline(__always) func unaryR<O: UnaryOperation, T: GuestInteger>(_ o: O.Type, _ t: T.Type, _ i: InstructionPointer)
    {
        unsafe setRegister(i.pointee.r1, O.apply(self, register(i.pointee.r1, T.self)))
    }

    @inline(__always) func unaryM<O: UnaryOperation, T: GuestInteger>(
        _ o: O.Type, _ t: T.Type, _ i: InstructionPointer
    ) throws(Stop) {
        let address = unsafe try address(i, MemoryLayout<T>.size, write: true)
        try modify(address, T.self) { O.apply(self, $0) }
    }

    /// The count: CL where `r2` names it, else the immediate.
    @inline(__always) private func shiftCount<T: GuestInteger>(_ i: InstructionPointer, _ t: T.Type, byCL: Bool) -> Int
    {
        let count = byCL ? rcx : unsafe i.pointee.immediate
        return Int(truncatingIfNeeded: count & (T.bitWidth == 64 ? 63 : 31))
    }

    @inline(__always) func shiftR<O: ShiftOperation, T: GuestInteger>(
        _ o: O.Type, _ t: T.Type, _ i: InstructionPointer, byCL: Bool
    ) {
        let count = unsafe shiftCount(i, T.self, byCL: byCL)
        let value = unsafe register(i.pointee.r1, T.self)
        // A 32-bit register is written, and its upper half cleared, even so.
        unsafe setRegister(i.pointee.r1, count == 0 ? value : O.apply(self, value, count))
    }

    @inline(__always) func shiftM<O: ShiftOperation, T: GuestInteger>(
        _ o: O.Type, _ t: T.Type, _ i: InstructionPointer
    ) throws(Stop) {
        let count = unsafe shiftCount(i, T.self, byCL: i.pointee.small != 0)
        let address = unsafe try address(i, MemoryLayout<T>.size, write: true)
        try modify(address, T.self) { count == 0 ? $0 : O.apply(self, $0, count) }
    }

    // MARK: Moves

    @inline(__always) func loadRegister<T: GuestInteger>(_ t: T.Type, _ i: InstructionPointer) throws(Stop) {
        unsafe setRegister(i.pointee.r1, try load(address(i, MemoryLayout<T>.size, write: false), T.self))
    }

    @inline(__always) func storeRegister<T: GuestInteger>(_ t: T.Type, _ i: InstructionPointer) throws(Stop) {
        unsafe try store(address(i, MemoryLayout<T>.size, write: true), register(i.pointee.r2, T.self))
    }

    @inline(__always) func storeImmediate<T: GuestInteger>(_ t: T.Type, _ i: InstructionPointer) throws(Stop) {
        unsafe try store(address(i, MemoryLayout<T>.size, write: true), T(truncatingIfNeeded: i.pointee.immediate))
    }

    /// MOVZX and MOVSX from a register; `To` is as wide as the destination.
    @inline(__always) func extendR<From: GuestInteger, To: GuestInteger>(
        _ f: From.Type, _ t: To.Type, _ i: InstructionPointer, signed: Bool
    ) {
        let value = unsafe register(i.pointee.r2, From.self)
        unsafe setRegister(
            i.pointee.r1,
            signed ? To(truncatingIfNeeded: From.Signed(truncatingIfNeeded: value)) : To(truncatingIfNeeded: value))
    }

    @inline(__always) func extendM<From: GuestInteger, To: GuestInteger>(
        _ f: From.Type, _ t: To.Type, _ i: InstructionPointer, signed: Bool
    ) throws(Stop) {
        let value = unsafe try load(address(i, MemoryLayout<From>.size, write: false), From.self)
        unsafe setRegister(
            i.pointee.r1,
            signed ? To(truncatingIfNeeded: From.Signed(truncatingIfNeeded: value)) : To(truncatingIfNeeded: value))
    }
}
//:
