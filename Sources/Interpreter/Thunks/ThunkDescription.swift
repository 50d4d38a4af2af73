internal import CZydis

/// What `Thunk` tells about an instruction, from what Zydis does.
extension Thunk {
    /// Whether the x87's registers, which are MMX's too, are involved.
    static func usesFPU(_ instruction: UnsafePointer<ZydisDecodedInstruction>, _ form: InstructionForm) -> Bool {
        unsafe NativeInstructions.isX87(instruction) || isMMX(instruction, form)
    }

    private static func isMMX(_ instruction: UnsafePointer<ZydisDecodedInstruction>, _ form: InstructionForm) -> Bool {
        if form.usesMMX { return true }
        return unsafe instruction.pointee.mnemonic == ZYDIS_MNEMONIC_EMMS
    }

    /// The register that numbers a bit in memory.
    static func bitRegister(
        _ instruction: UnsafePointer<ZydisDecodedInstruction>, _ operands: UnsafePointer<ZydisDecodedOperand>,
        _ form: InstructionForm
    ) -> Int? {
        switch unsafe instruction.pointee.mnemonic {
        case ZYDIS_MNEMONIC_BT, ZYDIS_MNEMONIC_BTS, ZYDIS_MNEMONIC_BTR, ZYDIS_MNEMONIC_BTC:
            guard form.memoryIndex == 0, unsafe operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER else { return nil }
            return unsafe RegisterName(operands[1].reg.value)?.number
        default: return nil
        }
    }

    init(
        _ instruction: UnsafePointer<ZydisDecodedInstruction>, _ operands: UnsafePointer<ZydisDecodedOperand>,
        _ form: InstructionForm, entry: UnsafeRawPointer, isIntel: Bool
    ) {
        let mnemonic = unsafe instruction.pointee.mnemonic
        let isVEX = unsafe instruction.pointee.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX
        unsafe self.entry = entry

        if let index = form.memoryIndex {
            memoryBytes = Int(unsafe operands[index].size / 8)
            let actions = unsafe operands[index].actions
            let reads = actions & UInt8(ZYDIS_OPERAND_ACTION_MASK_READ.rawValue) != 0
            let writes = actions & UInt8(ZYDIS_OPERAND_ACTION_MASK_WRITE.rawValue) != 0
            memoryAccess = reads ? (writes ? .readWrite : .read) : .write
        } else {
            memoryBytes = 0
            memoryAccess = .none
        }
        alignment = unsafe NativeInstructions.alignment(instruction, form, memoryBytes: memoryBytes, isIntel: isIntel)
        isLocked =
            unsafe instruction.pointee.attributes & ZYDIS_ATTRIB_HAS_LOCK != 0
            || mnemonic == ZYDIS_MNEMONIC_XCHG && form.memoryIndex != nil

        var gate = Gate()
        fpuOpcode = 0
        let isX87 = unsafe NativeInstructions.isX87(instruction)
        let isMMX = unsafe Self.isMMX(instruction, form)
        if isX87 {
            gate = mnemonic == ZYDIS_MNEMONIC_FWAIT ? .fwait : .x87
            if NativeInstructions.waits(mnemonic) { gate.insert(.waitsForFPU) }
            fpu = mnemonic == ZYDIS_MNEMONIC_FWAIT ? .untouched : NativeInstructions.record(mnemonic)
        } else {
            if isMMX { gate.formUnion([.mmx, .waitsForFPU]) }
            fpu = isMMX ? .kept : .untouched
        }
        usesMXCSR = unsafe NativeInstructions.raisesSIMDExceptions(instruction, form)
        if isVEX {
            gate.insert(.protectedMode)
            if form.usesXMM || form.usesYMM { gate.insert(.avx) }
        } else if form.usesXMM || usesMXCSR {
            gate.insert(.sse)
        }
        self.gate = gate
        touchesFlags = form.readsFlags || form.flagsWritten != 0
        bitRegister = unsafe Int8(Self.bitRegister(instruction, operands, form) ?? -1)

        let result = usesMXCSR ? unsafe Self.floatResult(instruction, operands) : (bytes: 0, register: 0, count: 0)
        (floatBytes, floatRegister, floatCount) = (result.bytes, result.register, result.count)
    }

    /// The destination's floating-point elements, where a computed one may be tiny.
    private static func floatResult(
        _ instruction: UnsafePointer<ZydisDecodedInstruction>, _ operands: UnsafePointer<ZydisDecodedOperand>
    ) -> (bytes: UInt8, register: UInt8, count: UInt8) {
        let none = (bytes: UInt8(0), register: UInt8(0), count: UInt8(0))
        switch unsafe instruction.pointee.mnemonic {
        // These hand an operand on, denormal or not.
        case ZYDIS_MNEMONIC_MINPS, ZYDIS_MNEMONIC_MINPD, ZYDIS_MNEMONIC_MINSS, ZYDIS_MNEMONIC_MINSD,
            ZYDIS_MNEMONIC_MAXPS, ZYDIS_MNEMONIC_MAXPD, ZYDIS_MNEMONIC_MAXSS, ZYDIS_MNEMONIC_MAXSD,
            ZYDIS_MNEMONIC_VMINPS, ZYDIS_MNEMONIC_VMINPD, ZYDIS_MNEMONIC_VMINSS, ZYDIS_MNEMONIC_VMINSD,
            ZYDIS_MNEMONIC_VMAXPS, ZYDIS_MNEMONIC_VMAXPD, ZYDIS_MNEMONIC_VMAXSS, ZYDIS_MNEMONIC_VMAXSD:
            return none
        case ZYDIS_MNEMONIC_VCVTPS2PH:
            let register =
                unsafe operands[0].type == ZYDIS_OPERAND_TYPE_REGISTER
                ? operands[0].reg.value.rawValue - ZYDIS_REGISTER_XMM0.rawValue : 0
            return (2, UInt8(truncatingIfNeeded: register), UInt8(unsafe operands[1].size / 32))
        default: break
        }
        let first = unsafe operands[0]
        guard first.type == ZYDIS_OPERAND_TYPE_REGISTER,
            first.actions & UInt8(ZYDIS_OPERAND_ACTION_MASK_WRITE.rawValue) != 0,
            first.element_type == ZYDIS_ELEMENT_TYPE_FLOAT32 || first.element_type == ZYDIS_ELEMENT_TYPE_FLOAT64
        else { return none }
        let number: UInt32
        let register = first.reg.value.rawValue
        switch register {
        case ZYDIS_REGISTER_XMM0.rawValue...ZYDIS_REGISTER_XMM15.rawValue:
            number = register - ZYDIS_REGISTER_XMM0.rawValue
        case ZYDIS_REGISTER_YMM0.rawValue...ZYDIS_REGISTER_YMM15.rawValue:
            number = register - ZYDIS_REGISTER_YMM0.rawValue
        default: return none
        }
        // Of a scalar instruction some operand has one element only.
        var count = first.element_count
        for index in 1..<max(1, Int(unsafe instruction.pointee.operand_count_visible))
        where unsafe operands[index].type != ZYDIS_OPERAND_TYPE_IMMEDIATE {
            count = min(count, unsafe operands[index].element_count)
        }
        return (UInt8(first.element_size / 8), UInt8(number), UInt8(truncatingIfNeeded: count))
    }
}
