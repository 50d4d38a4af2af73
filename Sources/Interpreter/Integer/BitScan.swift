internal import CZydis
internal import VirtualCPU
internal import X86

// BSF and BSR. A source of 0 leaves the destination alone, all of it, and sets
// ZF: no word of that in SDM 2A, but Linux relies on it and every CPU does it.

extension LoweringTable {
    mutating func addBitScans() {
        unsafe set([ZYDIS_MNEMONIC_BSF, ZYDIS_MNEMONIC_BSR]) { lowering in
            guard let destination = lowering.gpr(0) else { return nil }
            unsafe lowering.record.r1 = destination
            unsafe lowering.record.operandBytes = UInt8(lowering.operandBytes(0))
            unsafe lowering.record.small = lowering.mnemonic == ZYDIS_MNEMONIC_BSR ? 1 : 0
            if let source = lowering.gpr(1) { unsafe lowering.record.r2 = source } else { lowering.setMemory(1) }
            return unsafe Handlers.bitScan
        }
    }
}

extension CPU {
    func bitScan(_ i: InstructionPointer) throws(Stop) {
        let source = unsafe try wideSource(i)
        if source != 0 {
            let number = unsafe i.pointee.small != 0 ? 63 - source.leadingZeroBitCount : source.trailingZeroBitCount
            unsafe setRegister(number: Int(i.pointee.r1 >> 3), bytes: Int(i.pointee.operandBytes), UInt64(number))
        }
        setFlagsOfLogic(source)
    }
}

extension Handlers {
    static let bitScan: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.bitScan(i) } }
}
