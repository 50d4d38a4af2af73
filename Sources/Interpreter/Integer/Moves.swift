internal import CZydis
internal import VirtualCPU
internal import X86

extension LoweringTable {
    mutating func addMoves() {
        unsafe self[ZYDIS_MNEMONIC_MOV] = { lowering in
            let width = lowering.operandBytes(0)
            if let destination = lowering.gpr(0) {
                unsafe lowering.record.r1 = destination
                if let source = lowering.gpr(1) {
                    unsafe lowering.record.r2 = source
                    return unsafe MoveForms.register[width]
                }
                if lowering.isImmediate(1) {
                    unsafe lowering.record.immediate = lowering.immediate(1)
                    return unsafe MoveForms.immediate[width]
                }
                if lowering.isMemory(1) {
                    lowering.setMemory(1)
                    return unsafe MoveForms.load[width]
                }
            } else if lowering.isMemory(0) {
                if let source = lowering.gpr(1) {
                    lowering.setMemory(0)
                    unsafe lowering.record.r2 = source
                    return unsafe MoveForms.store[width]
                }
                if lowering.isImmediate(1) {
                    lowering.setMemory(0)
                    unsafe lowering.record.immediate = lowering.immediate(1)
                    return unsafe MoveForms.storeImmediate[width]
                }
            }
            return unsafe lowering.moveSystem()
        }
        unsafe set([ZYDIS_MNEMONIC_MOVZX, ZYDIS_MNEMONIC_MOVSX, ZYDIS_MNEMONIC_MOVSXD]) { lowering in
            guard let destination = lowering.gpr(0) else { return nil }
            let isMemory = lowering.isMemory(1)
            let to = lowering.operandBytes(0)
            // MOVSXD to 16 bits reads no more than that (SDM 2B); on AMD's CPUs it reads 32, as a thunk does too.
            let from = min(to, lowering.operandBytes(1))
            if isMemory, from < lowering.operandBytes(1), !lowering.isIntel { return nil }
            unsafe lowering.record.r1 = destination
            let signed = lowering.mnemonic != ZYDIS_MNEMONIC_MOVZX
            if isMemory {
                lowering.setMemory(1)
            } else {
                unsafe lowering.record.r2 = lowering.gpr(1) ?? 0
            }
            return unsafe ExtendForms.handler(from: from, to: to, signed: signed, memory: isMemory)
        }
        unsafe self[ZYDIS_MNEMONIC_LEA] = { lowering in
            guard let destination = lowering.gpr(0) else { return nil }
            unsafe lowering.record.r1 = destination
            let width = lowering.operandBytes(0)
            lowering.setMemory(1)
            let simple = unsafe lowering.d.pointee.address_width == 64
            if simple && width == 8 { return unsafe Handlers.lea64 }
            unsafe lowering.record.operandBytes = UInt8(width)
            return unsafe Handlers.leaAny
        }
        unsafe self[ZYDIS_MNEMONIC_XCHG] = { lowering in
            guard let first = lowering.gpr(0), let second = lowering.gpr(1) else { return nil }
            unsafe lowering.record.r1 = first
            unsafe lowering.record.r2 = second
            return unsafe Handlers.exchange(bytes: lowering.operandBytes(0))
        }
        unsafe self[ZYDIS_MNEMONIC_BSWAP] = { lowering in
            guard let register = lowering.gpr(0) else { return nil }
            unsafe lowering.record.r1 = register
            switch lowering.operandBytes(0) {
            case 8: return unsafe Handlers.bswap64
            case 4: return unsafe Handlers.bswap32
            default: return unsafe Handlers.bswap16
            }
        }
        let conditions = LoweringTable.conditions(
            ZYDIS_MNEMONIC_CMOVO, ZYDIS_MNEMONIC_CMOVNO, ZYDIS_MNEMONIC_CMOVB, ZYDIS_MNEMONIC_CMOVNB,
            ZYDIS_MNEMONIC_CMOVZ, ZYDIS_MNEMONIC_CMOVNZ, ZYDIS_MNEMONIC_CMOVBE, ZYDIS_MNEMONIC_CMOVNBE,
            ZYDIS_MNEMONIC_CMOVS, ZYDIS_MNEMONIC_CMOVNS, ZYDIS_MNEMONIC_CMOVP, ZYDIS_MNEMONIC_CMOVNP,
            ZYDIS_MNEMONIC_CMOVL, ZYDIS_MNEMONIC_CMOVNL, ZYDIS_MNEMONIC_CMOVLE, ZYDIS_MNEMONIC_CMOVNLE)
        for (mnemonic, code) in conditions {
            unsafe self[mnemonic] = { lowering in
                guard let destination = lowering.gpr(0) else { return nil }
                unsafe lowering.record.r1 = destination
                unsafe lowering.record.small = code
                if let source = lowering.gpr(1) {
                    unsafe lowering.record.r2 = source
                } else {
                    lowering.setMemory(1)
                }
                switch lowering.operandBytes(0) {
                case 2: return unsafe Handlers.cmov16
                case 4: return unsafe Handlers.cmov32
                default: return unsafe Handlers.cmov64
                }
            }
        }
        unsafe set([ZYDIS_MNEMONIC_CBW, ZYDIS_MNEMONIC_CWDE, ZYDIS_MNEMONIC_CDQE]) { lowering in
            unsafe lowering.record.r1 = 0
            unsafe lowering.record.r2 = 0
            let to = lowering.mnemonic == ZYDIS_MNEMONIC_CBW ? 2 : lowering.mnemonic == ZYDIS_MNEMONIC_CWDE ? 4 : 8
            return unsafe ExtendForms.handler(from: to / 2, to: to, signed: true, memory: false)
        }
        unsafe set([ZYDIS_MNEMONIC_CWD, ZYDIS_MNEMONIC_CDQ, ZYDIS_MNEMONIC_CQO]) { lowering in
            switch lowering.mnemonic {
            case ZYDIS_MNEMONIC_CWD: unsafe Handlers.cwd
            case ZYDIS_MNEMONIC_CDQ: unsafe Handlers.cdq
            default: unsafe Handlers.cqo
            }
        }
        unsafe self[ZYDIS_MNEMONIC_XLAT] = { lowering in
            // [rBX + zero-extended AL]: the index is given in `XLAT`'s handler.
            unsafe lowering.record.options.insert(.complexAddress)
            unsafe lowering.record.base = UInt8(Register.rbx * 8)
            let operand = unsafe lowering.operands
            for n in unsafe 0..<Int(lowering.d.pointee.operand_count)
            where unsafe operand[n].type == ZYDIS_OPERAND_TYPE_MEMORY {
                unsafe lowering.record.segment = UInt8(
                    Lowering.segment(unsafe operand[n].mem.segment) ?? SegmentName.ds)
            }
            return unsafe Handlers.xlat
        }
        unsafe set([
            ZYDIS_MNEMONIC_NOP, ZYDIS_MNEMONIC_ENDBR32, ZYDIS_MNEMONIC_ENDBR64, ZYDIS_MNEMONIC_PREFETCH,
            ZYDIS_MNEMONIC_PREFETCHNTA, ZYDIS_MNEMONIC_PREFETCHT0, ZYDIS_MNEMONIC_PREFETCHT1, ZYDIS_MNEMONIC_PREFETCHT2,
            ZYDIS_MNEMONIC_PREFETCHW, ZYDIS_MNEMONIC_PREFETCHWT1, ZYDIS_MNEMONIC_LFENCE, ZYDIS_MNEMONIC_CLDEMOTE,
            ZYDIS_MNEMONIC_MFENCE, ZYDIS_MNEMONIC_SFENCE, ZYDIS_MNEMONIC_SERIALIZE, ZYDIS_MNEMONIC_RDSSPD,
            ZYDIS_MNEMONIC_RDSSPQ,
        ]) { lowering in
            // 0F 0D of a register: Intel's no-operation; AMD's prefetches take memory alone (APM 3, "PREFETCHlevel").
            if !lowering.isIntel && lowering.isPrefetchOfRegister { return unsafe Handlers.undefined }
            return unsafe Handlers.nop
        }
        unsafe self[ZYDIS_MNEMONIC_PAUSE] = { lowering in
            // F3 90 with REX.B: Intel's CPUs pause, AMD's see 90 with REX.B, which is XCHG of R8 and rAX.
            if unsafe lowering.isIntel || lowering.d.pointee.raw.rex.B == 0 { return unsafe Handlers.nop }
            unsafe lowering.record.r1 = UInt8(8 * 8)
            unsafe lowering.record.r2 = UInt8(Register.rax * 8)
            return unsafe Handlers.exchange(bytes: lowering.bytes)
        }
    }
}

extension Lowering {
    fileprivate var isPrefetchOfRegister: Bool {
        let instruction = unsafe d.pointee
        return unsafe instruction.opcode_map == ZYDIS_OPCODE_MAP_0F && instruction.opcode == 0x0d
            && instruction.raw.modrm.mod == 3
    }
}

/// MOVZX and MOVSX by their two widths. To 64 bits unsigned is to 32.
// swift-format-ignore: rows of a table.
enum ExtendForms {
    static func handler(from: Int, to: Int, signed: Bool, memory: Bool) -> Handler? {
        switch (from, to, signed, memory) {
        case (1, 2, false, false):
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.extendR(UInt8.self, UInt16.self, i, signed: false)
                }
            }
        case (1, _, false, false):
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.extendR(UInt8.self, UInt64.self, i, signed: false)
                }
            }
        case (2, 2, false, false):
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.extendR(UInt16.self, UInt16.self, i, signed: false)
                }
            }
        case (2, _, false, false):
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.extendR(UInt16.self, UInt64.self, i, signed: false)
                }
            }
        case (1, 2, true, false):
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.extendR(UInt8.self, UInt16.self, i, signed: true)
                }
            }
        case (1, 4, true, false):
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.extendR(UInt8.self, UInt32.self, i, signed: true)
                }
            }
        case (1, 8, true, false):
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.extendR(UInt8.self, UInt64.self, i, signed: true)
                }
            }
        case (2, 2, true, false):
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.extendR(UInt16.self, UInt16.self, i, signed: true)
                }
            }
        case (2, 4, true, false):
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.extendR(UInt16.self, UInt32.self, i, signed: true)
                }
            }
        case (2, 8, true, false):
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.extendR(UInt16.self, UInt64.self, i, signed: true)
                }
            }
        case (4, 4, true, false):
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.extendR(UInt32.self, UInt32.self, i, signed: true)
                }
            }
        case (4, 8, true, false):
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.extendR(UInt32.self, UInt64.self, i, signed: true)
                }
            }
        case (1, 2, false, true):
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe try cpu.extendM(UInt8.self, UInt16.self, i, signed: false)
                }
            }
        case (1, _, false, true):
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe try cpu.extendM(UInt8.self, UInt64.self, i, signed: false)
                }
            }
        case (2, 2, false, true):
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe try cpu.extendM(UInt16.self, UInt16.self, i, signed: false)
                }
            }
        case (2, _, false, true):
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe try cpu.extendM(UInt16.self, UInt64.self, i, signed: false)
                }
            }
        case (1, 2, true, true):
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe try cpu.extendM(UInt8.self, UInt16.self, i, signed: true)
                }
            }
        case (1, 4, true, true):
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe try cpu.extendM(UInt8.self, UInt32.self, i, signed: true)
                }
            }
        case (1, 8, true, true):
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe try cpu.extendM(UInt8.self, UInt64.self, i, signed: true)
                }
            }
        case (2, 2, true, true):
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe try cpu.extendM(UInt16.self, UInt16.self, i, signed: true)
                }
            }
        case (2, 4, true, true):
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe try cpu.extendM(UInt16.self, UInt32.self, i, signed: true)
                }
            }
        case (2, 8, true, true):
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe try cpu.extendM(UInt16.self, UInt64.self, i, signed: true)
                }
            }
        case (4, 4, true, true):
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe try cpu.extendM(UInt32.self, UInt32.self, i, signed: true)
                }
            }
        case (4, 8, true, true):
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe try cpu.extendM(UInt32.self, UInt64.self, i, signed: true)
                }
            }
        default: nil
        }
    }
}

extension CPU {
    @inline(__always) func exchange<T: GuestInteger>(_ t: T.Type, _ i: InstructionPointer) {
        let first = unsafe register(i.pointee.r1, T.self), second = unsafe register(i.pointee.r2, T.self)
        unsafe setRegister(i.pointee.r1, second)
        unsafe setRegister(i.pointee.r2, first)
    }

    /// The source is read, and may fault, whether the condition holds or not.
    @inline(__always) func conditionalMove<T: GuestInteger>(_ t: T.Type, _ i: InstructionPointer) throws(Stop) {
        let value: T
        if unsafe i.pointee.options.contains(.memory) {
            value = unsafe try load(address(i, MemoryLayout<T>.size, write: false), T.self)
        } else {
            value = unsafe register(i.pointee.r2, T.self)
        }
        unsafe setRegister(i.pointee.r1, condition(Int(i.pointee.small)) ? value : register(i.pointee.r1, T.self))
    }

    func translateByte(_ i: InstructionPointer) throws(Stop) {
        var offset = self[Register.rbx] &+ (self[Register.rax] & 0xff)
        if unsafe i.pointee.options.contains(.address32) { offset &= 0xffff_ffff }
        if unsafe i.pointee.options.contains(.address16) { offset &= 0xffff }
        let address = unsafe try linear(
            segment: Int(i.pointee.segment), offset, 1, write: false, long: i.pointee.options.contains(.long))
        setRegister(0, try load(address, UInt8.self))
    }
}

extension Handlers {
    static let nop: Handler = { unsafe UnsafeRawPointer($1 + MemoryLayout<Instruction>.stride) }
    static let lea64: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in
            unsafe cpu.setRegister(i.pointee.r1, cpu.effectiveAddress(i))
        }
    }
    static let leaAny: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in
            unsafe cpu.setRegister(number: Int(i.pointee.r1 >> 3), bytes: Int(i.pointee.operandBytes), cpu.offset(i))
        }
    }
    static func exchange(bytes: Int) -> Handler {
        switch bytes {
        case 1: unsafe xchg8
        case 2: unsafe xchg16
        case 4: unsafe xchg32
        default: unsafe xchg64
        }
    }
    static let xchg8: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.exchange(UInt8.self, i) } }
    static let xchg16: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.exchange(UInt16.self, i) }
    }
    static let xchg32: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.exchange(UInt32.self, i) }
    }
    static let xchg64: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.exchange(UInt64.self, i) }
    }
    static let bswap64: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in
            unsafe cpu.setRegister(i.pointee.r1, cpu.register(i.pointee.r1, UInt64.self).byteSwapped)
        }
    }
    static let bswap32: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in
            unsafe cpu.setRegister(i.pointee.r1, cpu.register(i.pointee.r1, UInt32.self).byteSwapped)
        }
    }
    /// Undefined by the manual; every CPU we know clears the register.
    static let bswap16: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in
            unsafe cpu.setRegister(i.pointee.r1, UInt16(0))
        }
    }
    static let cmov16: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.conditionalMove(UInt16.self, i) }
    }
    static let cmov32: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.conditionalMove(UInt32.self, i) }
    }
    static let cmov64: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.conditionalMove(UInt64.self, i) }
    }
    static let cwd: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in
            cpu.setRegister(16, UInt16(bitPattern: Int16(truncatingIfNeeded: cpu[0]) &>> 15))
        }
    }
    static let cdq: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in
            cpu.setRegister(16, UInt32(bitPattern: Int32(truncatingIfNeeded: cpu[0]) &>> 31))
        }
    }
    static let cqo: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in
            cpu[Register.rdx] = UInt64(bitPattern: Int64(bitPattern: cpu[0]) &>> 63)
        }
    }
    static let xlat: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.translateByte(i) } }
}
