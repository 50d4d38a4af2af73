internal import X86

// What the two-operand instructions compute, apart from where their operands are.

protocol BinaryOperation {
    /// False for CMP and TEST: only the flags are wanted.
    static var writesResult: Bool { get }
    static func apply<T: GuestInteger>(_ cpu: CPU, _ a: T, _ b: T) -> T
}

extension BinaryOperation {
    @inline(__always) static var writesResult: Bool { true }
}

enum Add: BinaryOperation {
    @inline(__always) static func apply<T: GuestInteger>(_ cpu: CPU, _ a: T, _ b: T) -> T {
        let result = a &+ b
        cpu.setFlags(result, carryOut: (a & b) | ((a | b) & ~result))
        return result
    }
}

enum AddWithCarry: BinaryOperation {
    @inline(__always) static func apply<T: GuestInteger>(_ cpu: CPU, _ a: T, _ b: T) -> T {
        let result = a &+ b &+ (cpu.carry ? 1 : 0)
        cpu.setFlags(result, carryOut: (a & b) | ((a | b) & ~result))
        return result
    }
}

enum Subtract: BinaryOperation {
    @inline(__always) static func apply<T: GuestInteger>(_ cpu: CPU, _ a: T, _ b: T) -> T {
        let result = a &- b
        cpu.setFlags(result, carryOut: (~a & b) | (~(a ^ b) & result))
        return result
    }
}

enum SubtractWithBorrow: BinaryOperation {
    @inline(__always) static func apply<T: GuestInteger>(_ cpu: CPU, _ a: T, _ b: T) -> T {
        let result = a &- b &- (cpu.carry ? 1 : 0)
        cpu.setFlags(result, carryOut: (~a & b) | (~(a ^ b) & result))
        return result
    }
}

enum Compare: BinaryOperation {
    @inline(__always) static var writesResult: Bool { false }
    @inline(__always) static func apply<T: GuestInteger>(_ cpu: CPU, _ a: T, _ b: T) -> T { Subtract.apply(cpu, a, b) }
}

enum And: BinaryOperation {
    @inline(__always) static func apply<T: GuestInteger>(_ cpu: CPU, _ a: T, _ b: T) -> T {
        let result = a & b
        cpu.setFlagsOfLogic(result)
        return result
    }
}

enum Test: BinaryOperation {
    @inline(__always) static var writesResult: Bool { false }
    @inline(__always) static func apply<T: GuestInteger>(_ cpu: CPU, _ a: T, _ b: T) -> T { And.apply(cpu, a, b) }
}

enum Or: BinaryOperation {
    @inline(__always) static func apply<T: GuestInteger>(_ cpu: CPU, _ a: T, _ b: T) -> T {
        let result = a | b
        cpu.setFlagsOfLogic(result)
        return result
    }
}

enum ExclusiveOr: BinaryOperation {
    @inline(__always) static func apply<T: GuestInteger>(_ cpu: CPU, _ a: T, _ b: T) -> T {
        let result = a ^ b
        cpu.setFlagsOfLogic(result)
        return result
    }
}

protocol UnaryOperation {
    static func apply<T: GuestInteger>(_ cpu: CPU, _ a: T) -> T
}

enum Increment: UnaryOperation {
    @inline(__always) static func apply<T: GuestInteger>(_ cpu: CPU, _ a: T) -> T {
        let carry = cpu.carry
        let result = Add.apply(cpu, a, 1)
        cpu.setCarry(carry)
        return result
    }
}

enum Decrement: UnaryOperation {
    @inline(__always) static func apply<T: GuestInteger>(_ cpu: CPU, _ a: T) -> T {
        let carry = cpu.carry
        let result = Subtract.apply(cpu, a, 1)
        cpu.setCarry(carry)
        return result
    }
}

enum Negate: UnaryOperation {
    @inline(__always) static func apply<T: GuestInteger>(_ cpu: CPU, _ a: T) -> T { Subtract.apply(cpu, 0, a) }
}

enum Not: UnaryOperation {
    @inline(__always) static func apply<T: GuestInteger>(_ cpu: CPU, _ a: T) -> T { ~a }
}

/// Shifts and rotates without the carry in the ring; the count is masked to 5
/// or 6 bits already and is not 0 (SDM 2B, "SAL/SAR/SHL/SHR", "RCL/RCR/ROL/ROR").
/// OF is defined for counts of 1 only; we give it the value that the formula
/// for 1 gives, which is what Intel's CPUs do.
protocol ShiftOperation {
    static func apply<T: GuestInteger>(_ cpu: CPU, _ a: T, _ count: Int) -> T
}

enum ShiftLeft: ShiftOperation {
    @inline(__always) static func apply<T: GuestInteger>(_ cpu: CPU, _ a: T, _ count: Int) -> T {
        let result = a << T(truncatingIfNeeded: count)
        let carry = count <= T.bitWidth && (a >> T(truncatingIfNeeded: T.bitWidth &- count)) & 1 != 0
        cpu.setFlags(result, carry: carry, overflow: (result >> T(truncatingIfNeeded: T.bitWidth - 1) != 0) != carry)
        return result
    }
}

enum ShiftRight: ShiftOperation {
    @inline(__always) static func apply<T: GuestInteger>(_ cpu: CPU, _ a: T, _ count: Int) -> T {
        let result = a >> T(truncatingIfNeeded: count)
        let carry = (a >> T(truncatingIfNeeded: count &- 1)) & 1 != 0
        let top = a >> T(truncatingIfNeeded: T.bitWidth - 1) != 0
        cpu.setFlags(result, carry: carry, overflow: count == 1 && top)
        return result
    }
}

enum ShiftArithmetic: ShiftOperation {
    @inline(__always) static func apply<T: GuestInteger>(_ cpu: CPU, _ a: T, _ count: Int) -> T {
        let signed = T.Signed(truncatingIfNeeded: a)
        let result = T(truncatingIfNeeded: signed >> T.Signed(truncatingIfNeeded: count))
        let carry = (signed >> T.Signed(truncatingIfNeeded: count &- 1)) & 1 != 0
        cpu.setFlags(result, carry: carry, overflow: false)
        return result
    }
}

enum RotateLeft: ShiftOperation {
    @inline(__always) static func apply<T: GuestInteger>(_ cpu: CPU, _ a: T, _ count: Int) -> T {
        let turn = T(truncatingIfNeeded: count & (T.bitWidth - 1))
        let back = T(truncatingIfNeeded: (T.bitWidth &- count) & (T.bitWidth - 1))
        let value = turn == 0 ? a : (a &<< turn) | (a &>> back)
        cpu.setCarry(
            value & 1 != 0, overflow: (value >> T(truncatingIfNeeded: T.bitWidth - 1) != 0) != (value & 1 != 0))
        return value
    }
}

enum RotateRight: ShiftOperation {
    @inline(__always) static func apply<T: GuestInteger>(_ cpu: CPU, _ a: T, _ count: Int) -> T {
        let turn = T(truncatingIfNeeded: count & (T.bitWidth - 1))
        let back = T(truncatingIfNeeded: (T.bitWidth &- count) & (T.bitWidth - 1))
        let value = turn == 0 ? a : (a &>> turn) | (a &<< back)
        let top = value >> T(truncatingIfNeeded: T.bitWidth - 1) != 0
        let next = (value >> T(truncatingIfNeeded: T.bitWidth - 2)) & 1 != 0
        cpu.setCarry(top, overflow: top != next)
        return value
    }
}
