internal import CZydis
internal import VirtualCPU
internal import X86

// Decimal arithmetic and BOUND: instructions that 64-bit mode dropped, so the
// Host's CPU cannot run them for us. Formulas of SDM 2A.

extension LoweringTable {
    mutating func addDecimal() {
        unsafe self[ZYDIS_MNEMONIC_AAA] = { _ in unsafe Handlers.aaa }
        unsafe self[ZYDIS_MNEMONIC_AAS] = { _ in unsafe Handlers.aas }
        unsafe self[ZYDIS_MNEMONIC_DAA] = { _ in unsafe Handlers.daa }
        unsafe self[ZYDIS_MNEMONIC_DAS] = { _ in unsafe Handlers.das }
        unsafe self[ZYDIS_MNEMONIC_AAM] = { lowering in
            unsafe lowering.record.immediate = lowering.immediate(0) & 0xff
            return unsafe Handlers.aam
        }
        unsafe self[ZYDIS_MNEMONIC_AAD] = { lowering in
            unsafe lowering.record.immediate = lowering.immediate(0) & 0xff
            return unsafe Handlers.aad
        }
        unsafe self[ZYDIS_MNEMONIC_SALC] = { _ in unsafe Handlers.salc }
        unsafe self[ZYDIS_MNEMONIC_BOUND] = { lowering in
            guard let register = lowering.gpr(0), lowering.isMemory(1) else { return nil }
            unsafe lowering.record.r1 = register
            unsafe lowering.record.operandBytes = UInt8(lowering.operandBytes(0))
            lowering.setMemory(1)
            return unsafe Handlers.bound
        }
    }
}

extension CPU {
    private var al: UInt8 { register(0, UInt8.self) }
    private var ah: UInt8 { register(1, UInt8.self) }

    private func setDecimalFlags(_ al: UInt8, auxiliary: Bool, carry: Bool) {
        setFlagsOfLogic(al)
        unsafe core.flags.carries = (carry ? 3 << 62 : 0) | (auxiliary ? 8 : 0)
    }

    func asciiAdjust(subtract: Bool) {
        let adjust = al & 0xf > 9 || auxiliary
        if adjust {
            let ax = register(0, UInt16.self)
            setRegister(0, subtract ? ax &- 0x106 : ax &+ 0x106)
        }
        setRegister(0, al & 0xf)
        setDecimalFlags(al, auxiliary: adjust, carry: adjust)
    }

    func decimalAdjust(subtract: Bool) {
        let old = al
        let oldCarry = carry
        var newCarry = false
        let low = old & 0xf > 9 || auxiliary
        if low {
            newCarry = oldCarry || (subtract ? old < 6 : old > 0xf9)
            setRegister(0, subtract ? old &- 6 : old &+ 6)
        }
        if old > 0x99 || oldCarry {
            setRegister(0, subtract ? al &- 0x60 : al &+ 0x60)
            newCarry = true
        }
        setDecimalFlags(al, auxiliary: low, carry: newCarry)
    }

    func asciiMultiply(_ base: UInt8) throws(Stop) {
        if base == 0 { throw fault(Vector.divideError) }
        let value = al
        setRegister(1, value / base)
        setRegister(0, value % base)
        setFlagsOfLogic(al)
    }

    func asciiDivide(_ base: UInt8) {
        let value = al &+ ah &* base
        setRegister(0, UInt16(value))
        setFlagsOfLogic(value)
    }

    func checkBounds(_ i: InstructionPointer) throws(Stop) {
        let bytes = unsafe Int(i.pointee.operandBytes)
        let address = unsafe try address(i, bytes * 2, write: false)
        let index: Int64, low: Int64, high: Int64
        if bytes == 2 {
            index = unsafe Int64(Int16(bitPattern: register(i.pointee.r1, UInt16.self)))
            low = Int64(Int16(bitPattern: try load(address, UInt16.self)))
            high = Int64(Int16(bitPattern: try load(wrap(address &+ 2), UInt16.self)))
        } else {
            index = unsafe Int64(Int32(bitPattern: register(i.pointee.r1, UInt32.self)))
            low = Int64(Int32(bitPattern: try load(address, UInt32.self)))
            high = Int64(Int32(bitPattern: try load(wrap(address &+ 4), UInt32.self)))
        }
        if index < low || index > high { throw fault(Vector.boundRange) }
    }
}

extension Handlers {
    static let aaa: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in cpu.asciiAdjust(subtract: false) } }
    static let aas: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in cpu.asciiAdjust(subtract: true) } }
    static let daa: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in cpu.decimalAdjust(subtract: false) } }
    static let das: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in cpu.decimalAdjust(subtract: true) } }
    static let aam: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in
            unsafe try cpu.asciiMultiply(UInt8(truncatingIfNeeded: i.pointee.immediate))
        }
    }
    static let aad: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in
            unsafe cpu.asciiDivide(UInt8(truncatingIfNeeded: i.pointee.immediate))
        }
    }
    static let salc: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in cpu.setRegister(0, cpu.carry ? UInt8(0xff) : 0) }
    }
    static let bound: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.checkBounds(i) } }
}
