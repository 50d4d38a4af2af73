internal import CZydis
internal import VirtualCPU
internal import X86

extension LoweringTable {
    mutating func addIntegers() {
        let binary: [(ZydisMnemonic, BinaryForms)] = [
            (ZYDIS_MNEMONIC_ADD, .add), (ZYDIS_MNEMONIC_ADC, .adc), (ZYDIS_MNEMONIC_SUB, .sub),
            (ZYDIS_MNEMONIC_SBB, .sbb), (ZYDIS_MNEMONIC_CMP, .cmp), (ZYDIS_MNEMONIC_AND, .and),
            (ZYDIS_MNEMONIC_TEST, .test), (ZYDIS_MNEMONIC_OR, .or), (ZYDIS_MNEMONIC_XOR, .xor),
        ]
        for (mnemonic, forms) in binary { unsafe self[mnemonic] = { unsafe $0.binary(forms) } }
        let unary: [(ZydisMnemonic, UnaryForms)] = [
            (ZYDIS_MNEMONIC_INC, .inc), (ZYDIS_MNEMONIC_DEC, .dec), (ZYDIS_MNEMONIC_NEG, .neg),
            (ZYDIS_MNEMONIC_NOT, .not),
        ]
        for (mnemonic, forms) in unary { unsafe self[mnemonic] = { unsafe $0.unary(forms) } }
        let shifts: [(ZydisMnemonic, ShiftForms)] = [
            (ZYDIS_MNEMONIC_SHL, .shl), (ZYDIS_MNEMONIC_SHR, .shr),
            (ZYDIS_MNEMONIC_SAR, .sar), (ZYDIS_MNEMONIC_ROL, .rol), (ZYDIS_MNEMONIC_ROR, .ror),
        ]
        for (mnemonic, forms) in shifts { unsafe self[mnemonic] = { unsafe $0.shift(forms) } }

        unsafe self[ZYDIS_MNEMONIC_IMUL] = { lowering in
            guard unsafe lowering.d.pointee.operand_count_visible >= 2, let destination = lowering.gpr(0) else {
                return unsafe lowering.wide(Handlers.imulWide)
            }
            unsafe lowering.record.r1 = destination
            let width = lowering.operandBytes(0)
            let hasConstant = unsafe lowering.d.pointee.operand_count_visible == 3
            if hasConstant { unsafe lowering.record.immediate = lowering.immediate(2) }
            unsafe lowering.record.small = hasConstant ? 1 : 0
            if let source = lowering.gpr(1) {
                unsafe lowering.record.r2 = source
            } else {
                lowering.setMemory(1)
            }
            return unsafe width == 8 ? Handlers.imul64 : width == 4 ? Handlers.imul32 : Handlers.imul16
        }
        unsafe self[ZYDIS_MNEMONIC_MUL] = { unsafe $0.wide(Handlers.mulWide) }
        unsafe self[ZYDIS_MNEMONIC_DIV] = { unsafe $0.wide(Handlers.div) }
        unsafe self[ZYDIS_MNEMONIC_IDIV] = { unsafe $0.wide(Handlers.idiv) }

        unsafe set([ZYDIS_MNEMONIC_BT, ZYDIS_MNEMONIC_BTS, ZYDIS_MNEMONIC_BTR, ZYDIS_MNEMONIC_BTC]) { lowering in
            if lowering.isLocked { return nil }
            switch lowering.mnemonic {
            case ZYDIS_MNEMONIC_BTS: unsafe lowering.record.small = 1
            case ZYDIS_MNEMONIC_BTR: unsafe lowering.record.small = 2
            case ZYDIS_MNEMONIC_BTC: unsafe lowering.record.small = 3
            default: break
            }
            unsafe lowering.record.operandBytes = UInt8(lowering.operandBytes(0))
            if let source = lowering.gpr(1) {
                unsafe lowering.record.r2 = source
                unsafe lowering.record.options.insert(.bitString)
            } else {
                unsafe lowering.record.immediate = lowering.immediate(1)
            }
            if let destination = lowering.gpr(0) {
                unsafe lowering.record.r1 = destination
                return unsafe Handlers.bitRegister
            }
            lowering.setMemory(0)
            if unsafe lowering.record.options.contains(.bitString) {
                unsafe lowering.record.options.insert(.complexAddress)
            }
            return unsafe Handlers.bitMemory
        }
        let conditions = LoweringTable.conditions(
            ZYDIS_MNEMONIC_SETO, ZYDIS_MNEMONIC_SETNO, ZYDIS_MNEMONIC_SETB, ZYDIS_MNEMONIC_SETNB,
            ZYDIS_MNEMONIC_SETZ, ZYDIS_MNEMONIC_SETNZ, ZYDIS_MNEMONIC_SETBE, ZYDIS_MNEMONIC_SETNBE,
            ZYDIS_MNEMONIC_SETS, ZYDIS_MNEMONIC_SETNS, ZYDIS_MNEMONIC_SETP, ZYDIS_MNEMONIC_SETNP,
            ZYDIS_MNEMONIC_SETL, ZYDIS_MNEMONIC_SETNL, ZYDIS_MNEMONIC_SETLE, ZYDIS_MNEMONIC_SETNLE)
        for (mnemonic, code) in conditions {
            unsafe self[mnemonic] = { lowering in
                unsafe lowering.record.small = code
                if let destination = lowering.gpr(0) {
                    unsafe lowering.record.r1 = destination
                    return unsafe Handlers.setRegister
                }
                lowering.setMemory(0)
                return unsafe Handlers.setMemory
            }
        }
        unsafe set([ZYDIS_MNEMONIC_CLC, ZYDIS_MNEMONIC_STC, ZYDIS_MNEMONIC_CMC, ZYDIS_MNEMONIC_CLD, ZYDIS_MNEMONIC_STD])
        { lowering in
            switch lowering.mnemonic {
            case ZYDIS_MNEMONIC_CLC: unsafe Handlers.clc
            case ZYDIS_MNEMONIC_STC: unsafe Handlers.stc
            case ZYDIS_MNEMONIC_CMC: unsafe Handlers.cmc
            case ZYDIS_MNEMONIC_CLD: unsafe Handlers.cld
            default: unsafe Handlers.std
            }
        }
        unsafe self[ZYDIS_MNEMONIC_LAHF] = { _ in unsafe Handlers.lahf }
        unsafe self[ZYDIS_MNEMONIC_SAHF] = { _ in unsafe Handlers.sahf }
        addBitScans()
        addDecimal()
    }

    /// Pairs the sixteen mnemonics with their condition codes, in the code's order.
    static func conditions(_ mnemonics: ZydisMnemonic...) -> [(ZydisMnemonic, UInt8)] {
        mnemonics.enumerated().map { ($1, UInt8($0)) }
    }
}

extension Lowering {
    /// MUL, IMUL, DIV, IDIV with rDX:rAX.
    mutating func wide(_ handler: @escaping Handler) -> Handler? {
        unsafe record.operandBytes = UInt8(operandBytes(0))
        if let source = gpr(0) {
            unsafe record.r2 = source
        } else {
            setMemory(0)
        }
        return unsafe handler
    }
}

extension CPU {
    /// The source of `Lowering.wide`, zero-extended.
    func wideSource(_ i: InstructionPointer) throws(Stop) -> UInt64 {
        let bytes = unsafe Int(i.pointee.operandBytes)
        if unsafe i.pointee.options.contains(.memory) { return unsafe try loadOperand(i, bytes) }
        return unsafe register(i.pointee.r2, bytes: bytes)
    }

    /// Sets rDX:rAX, or AX for bytes.
    func setWide(bytes: Int, low: UInt64, high: UInt64) {
        if bytes == 1 {
            setRegister(0, UInt16(truncatingIfNeeded: low & 0xff | high &<< 8))
        } else {
            setRegister(number: Register.rax, bytes: bytes, low)
            setRegister(number: Register.rdx, bytes: bytes, high)
        }
    }

    @inline(__always) func multiply<T: GuestInteger>(_ t: T.Type, _ i: InstructionPointer) throws(Stop) {
        let source: T
        if unsafe i.pointee.options.contains(.memory) {
            source = unsafe try load(address(i, MemoryLayout<T>.size, write: false), T.self)
        } else {
            source = unsafe register(i.pointee.r2, T.self)
        }
        let other =
            unsafe i.pointee.small != 0 ? T(truncatingIfNeeded: i.pointee.immediate) : register(i.pointee.r1, T.self)
        let (result, overflow) = T.Signed(truncatingIfNeeded: source)
            .multipliedReportingOverflow(by: T.Signed(truncatingIfNeeded: other))
        unsafe setRegister(i.pointee.r1, T(truncatingIfNeeded: result))
        setFlags(T(truncatingIfNeeded: result), carry: overflow, overflow: overflow)
    }

    func multiplyWide(_ i: InstructionPointer, signed: Bool) throws(Stop) {
        let bytes = unsafe Int(i.pointee.operandBytes)
        let source = unsafe try wideSource(i)
        let accumulator = self[Register.rax]
        let low: UInt64, high: UInt64
        if signed {
            let shift = UInt64(64 - bytes * 8)
            let a = Int64(bitPattern: source &<< shift) &>> Int64(shift)
            let b = Int64(bitPattern: accumulator &<< shift) &>> Int64(shift)
            let product = a.multipliedFullWidth(by: b)
            (low, high) =
                bytes == 8
                ? (product.low, UInt64(bitPattern: product.high))
                : (product.low, product.low &>> UInt64(bytes * 8))
        } else {
            let mask = bytes == 8 ? UInt64.max : (1 &<< UInt64(bytes * 8)) &- 1
            let product = source.multipliedFullWidth(by: accumulator & mask)
            (low, high) = bytes == 8 ? (product.low, product.high) : (product.low, product.low &>> UInt64(bytes * 8))
        }
        setWide(bytes: bytes, low: low, high: high)
        let shift = UInt64(64 - bytes * 8)
        let lowSign = UInt64(bitPattern: Int64(bitPattern: low &<< shift) &>> 63)
        let highPart = high &<< shift
        let overflow = signed ? highPart != lowSign &<< shift : highPart != 0
        switch bytes {
        case 1: setFlags(UInt8(truncatingIfNeeded: low), carry: overflow, overflow: overflow)
        case 2: setFlags(UInt16(truncatingIfNeeded: low), carry: overflow, overflow: overflow)
        case 4: setFlags(UInt32(truncatingIfNeeded: low), carry: overflow, overflow: overflow)
        default: setFlags(low, carry: overflow, overflow: overflow)
        }
    }

    func divide(_ i: InstructionPointer) throws(Stop) {
        let bytes = unsafe Int(i.pointee.operandBytes)
        let divisor = unsafe try wideSource(i)
        if divisor == 0 { throw fault(Vector.divideError) }
        let quotient: UInt64, remainder: UInt64
        if bytes == 8 {
            if self[Register.rdx] >= divisor { throw fault(Vector.divideError) }
            (quotient, remainder) = divisor.dividingFullWidth((self[Register.rdx], self[Register.rax]))
        } else {
            let dividend = self.dividend(bytes)
            (quotient, remainder) = dividend.quotientAndRemainder(dividingBy: divisor)
            if quotient &>> UInt64(bytes * 8) != 0 { throw fault(Vector.divideError) }
        }
        setWide(bytes: bytes, low: quotient, high: remainder)
    }

    /// rDX:rAX (AX for bytes) for operands of up to 32 bits, in 64 bits.
    private func dividend(_ bytes: Int) -> UInt64 {
        switch bytes {
        case 1: self[Register.rax] & 0xffff
        case 2: (self[Register.rdx] & 0xffff) &<< 16 | self[Register.rax] & 0xffff
        default: self[Register.rdx] &<< 32 | self[Register.rax] & 0xffff_ffff
        }
    }

    func divideSigned(_ i: InstructionPointer) throws(Stop) {
        let bytes = unsafe Int(i.pointee.operandBytes)
        let source = unsafe try wideSource(i)
        if source == 0 { throw fault(Vector.divideError) }
        let shift = Int64(64 - bytes * 8)
        let divisor = Int64(bitPattern: source &<< UInt64(shift)) &>> shift
        let quotient: Int64, remainder: Int64
        if bytes == 8 {
            // Magnitudes first: dividingFullWidth traps where the quotient does not fit.
            let high = Int64(bitPattern: self[Register.rdx])
            var magnitude = (high: UInt64(bitPattern: high), low: self[Register.rax])
            if high < 0 {
                magnitude.low = ~magnitude.low &+ 1
                magnitude.high = ~magnitude.high &+ (magnitude.low == 0 ? 1 : 0)
            }
            if magnitude.high >= divisor.magnitude { throw fault(Vector.divideError) }
            let result = divisor.magnitude.dividingFullWidth(magnitude)
            let negative = (high < 0) != (divisor < 0)
            if result.quotient > (negative ? 1 << 63 : 1 << 63 - 1) { throw fault(Vector.divideError) }
            quotient = Int64(bitPattern: negative ? 0 &- result.quotient : result.quotient)
            remainder = Int64(bitPattern: high < 0 ? 0 &- result.remainder : result.remainder)
        } else {
            let shift = Int64(64 - bytes * 16)
            let dividend = Int64(bitPattern: self.dividend(bytes) &<< UInt64(shift)) &>> shift
            if dividend == .min && divisor == -1 { throw fault(Vector.divideError) }
            (quotient, remainder) = dividend.quotientAndRemainder(dividingBy: divisor)
            let narrow = Int64(64 - bytes * 8)
            if (quotient &<< narrow) &>> narrow != quotient { throw fault(Vector.divideError) }
        }
        setWide(
            bytes: bytes, low: UInt64(bitPattern: quotient) & (bytes == 1 ? 0xff : .max),
            high: UInt64(bitPattern: remainder) & (bytes == 1 ? 0xff : .max))
    }

    // MARK: Bit tests

    private func changeBit(_ value: UInt64, _ bit: UInt64, _ kind: UInt8) -> UInt64 {
        setCarry(value &>> bit & 1 != 0)
        switch kind {
        case 1: return value | 1 &<< bit
        case 2: return value & ~(1 &<< bit)
        case 3: return value ^ 1 &<< bit
        default: return value
        }
    }

    func bitInRegister(_ i: InstructionPointer) {
        let bytes = unsafe Int(i.pointee.operandBytes)
        let index =
            unsafe i.pointee.options.contains(.bitString) ? register(i.pointee.r2, UInt64.self) : i.pointee.immediate
        let number = unsafe Int(i.pointee.r1 >> 3)
        let result = unsafe changeBit(self[number], index & UInt64(bytes * 8 - 1), i.pointee.small)
        if unsafe i.pointee.small != 0 { setRegister(number: number, bytes: bytes, result) }
    }

    /// A bit offset in a register reaches beyond the operand, up and down.
    func bitInMemory(_ i: InstructionPointer) throws(Stop) {
        let bytes = unsafe Int(i.pointee.operandBytes)
        let kind = unsafe i.pointee.small
        var index = unsafe i.pointee.immediate
        let address: UInt64
        if unsafe i.pointee.options.contains(.bitString) {
            let narrow = Int64(64 - bytes * 8)
            let signed = unsafe (Int64(bitPattern: register(i.pointee.r2, UInt64.self)) &<< narrow) &>> narrow
            index = UInt64(bitPattern: signed)
            let step = (signed &>> Int64((bytes * 8).trailingZeroBitCount)) &* Int64(bytes)
            var offset = unsafe offset(i) &+ UInt64(bitPattern: step)
            if unsafe i.pointee.options.contains(.address32) { offset &= 0xffff_ffff }
            if unsafe i.pointee.options.contains(.address16) { offset &= 0xffff }
            address = unsafe try linear(
                segment: Int(i.pointee.segment), offset, bytes, write: kind != 0,
                long: i.pointee.options.contains(.long))
        } else {
            address = unsafe try self.address(i, bytes, write: kind != 0)
        }
        let bit = index & UInt64(bytes * 8 - 1)
        switch bytes {
        case 2: try bit16(address, bit, kind)
        case 4: try bit32(address, bit, kind)
        default: try bit64(address, bit, kind)
        }
    }

    private func bit16(_ address: UInt64, _ bit: UInt64, _ kind: UInt8) throws(Stop) {
        if kind == 0 { _ = changeBit(UInt64(try load(address, UInt16.self)), bit, kind); return }
        try modify(address, UInt16.self) { UInt16(truncatingIfNeeded: changeBit(UInt64($0), bit, kind)) }
    }
    private func bit32(_ address: UInt64, _ bit: UInt64, _ kind: UInt8) throws(Stop) {
        if kind == 0 { _ = changeBit(UInt64(try load(address, UInt32.self)), bit, kind); return }
        try modify(address, UInt32.self) { UInt32(truncatingIfNeeded: changeBit(UInt64($0), bit, kind)) }
    }
    private func bit64(_ address: UInt64, _ bit: UInt64, _ kind: UInt8) throws(Stop) {
        if kind == 0 { _ = changeBit(try load(address, UInt64.self), bit, kind); return }
        try modify(address, UInt64.self) { changeBit($0, bit, kind) }
    }
}

/// The handlers that are not in a table of forms, each named for its instruction.
enum Handlers {}

extension Handlers {
    static let undefined: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in throw cpu.undefined() } }
    static let imul16: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.multiply(UInt16.self, i) }
    }
    static let imul32: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.multiply(UInt32.self, i) }
    }
    static let imul64: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.multiply(UInt64.self, i) }
    }
    static let imulWide: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.multiplyWide(i, signed: true) }
    }
    static let mulWide: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.multiplyWide(i, signed: false) }
    }
    static let div: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.divide(i) } }
    static let idiv: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.divideSigned(i) } }
    static let bitRegister: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.bitInRegister(i) } }
    static let bitMemory: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.bitInMemory(i) } }
    static let setRegister: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in
            unsafe cpu.setRegister(i.pointee.r1, cpu.condition(Int(i.pointee.small)) ? UInt8(1) : 0)
        }
    }
    static let setMemory: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in
            unsafe try cpu.store(cpu.address(i, 1, write: true), cpu.condition(Int(i.pointee.small)) ? UInt8(1) : 0)
        }
    }
    static let clc: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in cpu.setCarry(false) } }
    static let stc: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in cpu.setCarry(true) } }
    static let cmc: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in cpu.setCarry(!cpu.carry) } }
    static let cld: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in cpu.state.rflags &= ~RFlags.direction }
    }
    static let std: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in cpu.state.rflags |= RFlags.direction } }
    static let lahf: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in
            cpu.setRegister(1, UInt8(truncatingIfNeeded: cpu.arithmeticFlags | RFlags.alwaysOne))
        }
    }
    static let sahf: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in
            let ah = UInt64(cpu.register(1, UInt8.self))
            cpu.setArithmeticFlags(cpu.arithmeticFlags & RFlags.overflow | ah & RFlags.arithmetic)
        }
    }
}
