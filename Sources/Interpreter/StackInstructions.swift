internal import CZydis
internal import VirtualCPU
internal import X86

extension LoweringTable {
    mutating func addStack() {
        unsafe self[ZYDIS_MNEMONIC_PUSH] = { lowering in
            let width = lowering.stackBytes
            unsafe lowering.record.operandBytes = width
            if let register = lowering.gpr(0) {
                unsafe lowering.record.r1 = register
                return unsafe lowering.isLong && width == 8 ? Handlers.pushRegister64 : Handlers.pushRegister
            }
            if lowering.isImmediate(0) {
                unsafe lowering.record.immediate = lowering.immediate(0)
                return unsafe Handlers.pushImmediate
            }
            if lowering.isMemory(0) {
                lowering.setMemory(0)
                return unsafe Handlers.pushMemory
            }
            guard let segment = Lowering.segment(lowering.register(0)) else { return nil }
            unsafe lowering.record.small = UInt8(segment)
            return unsafe Handlers.pushSegment
        }
        unsafe self[ZYDIS_MNEMONIC_POP] = { lowering in
            let width = lowering.stackBytes
            unsafe lowering.record.operandBytes = width
            if let register = lowering.gpr(0) {
                unsafe lowering.record.r1 = register
                return unsafe lowering.isLong && width == 8 ? Handlers.popRegister64 : Handlers.popRegister
            }
            if lowering.isMemory(0) {
                lowering.setMemory(0)
                // An address made from RSP is made from its value after the pop.
                if unsafe lowering.record.base == UInt8(Register.rsp * 8) { unsafe lowering.record.small = 1 }
                return unsafe Handlers.popMemory
            }
            return unsafe lowering.popSegment()
        }
        unsafe set([ZYDIS_MNEMONIC_PUSHA, ZYDIS_MNEMONIC_PUSHAD]) { lowering in
            unsafe lowering.record.operandBytes = lowering.mnemonic == ZYDIS_MNEMONIC_PUSHA ? 2 : 4
            return unsafe Handlers.pusha
        }
        unsafe set([ZYDIS_MNEMONIC_POPA, ZYDIS_MNEMONIC_POPAD]) { lowering in
            unsafe lowering.record.operandBytes = lowering.mnemonic == ZYDIS_MNEMONIC_POPA ? 2 : 4
            return unsafe Handlers.popa
        }
        unsafe self[ZYDIS_MNEMONIC_ENTER] = { lowering in
            unsafe lowering.record.operandBytes = lowering.stackBytes
            unsafe lowering.record.immediate = lowering.immediate(0) & 0xffff
            unsafe lowering.record.small = UInt8(truncatingIfNeeded: lowering.immediate(1) & 31)
            return unsafe Handlers.enter
        }
        unsafe self[ZYDIS_MNEMONIC_LEAVE] = { lowering in
            unsafe lowering.record.operandBytes = lowering.stackBytes
            return unsafe Handlers.leave
        }
    }
}

extension Lowering {
    /// What PUSH and POP move: the operand size, 64 bits by default in long mode.
    var stackBytes: UInt8 {
        isLong ? (unsafe d.pointee.operand_width == 16 ? 2 : 8) : unsafe d.pointee.operand_width / 8
    }
}

extension CPU {
    func popToMemory(_ i: InstructionPointer) throws(Stop) {
        let bytes = unsafe Int(i.pointee.operandBytes)
        let top = rsp
        let value = try peek(bytes)
        if unsafe i.pointee.small != 0 { setStackPointer(top &+ UInt64(bytes)) }
        do throws(Stop) {
            unsafe try store(address(i, bytes, write: true), value, bytes: bytes)
        } catch {
            rsp = top
            throw error
        }
        if unsafe i.pointee.small == 0 { setStackPointer(top &+ UInt64(bytes)) }
    }

    func pushAll(_ bytes: Int) throws(Stop) {
        let top = rsp
        do throws(Stop) {
            for number in 0..<8 { try push(number == Register.rsp ? top : self[number], bytes) }
        } catch {
            rsp = top
            throw error
        }
    }

    func popAll(_ bytes: Int) throws(Stop) {
        var values = InlineArray<8, UInt64>(repeating: 0)
        for number in 0..<8 { values[7 - number] = try peek(bytes, depth: number * bytes) }
        setStackPointer(rsp &+ UInt64(bytes * 8))
        for number in 0..<8 where number != Register.rsp { setRegister(number: number, bytes: bytes, values[number]) }
    }

    /// ENTER (SDM 2A): `level` frame pointers are copied, then room is made.
    func enter(_ i: InstructionPointer) throws(Stop) {
        let bytes = unsafe Int(i.pointee.operandBytes)
        let level = unsafe Int(i.pointee.small)
        let top = rsp
        do throws(Stop) {
            try push(self[Register.rbp], bytes)
            let frame = rsp
            for number in stride(from: 1, to: level, by: 1) {
                let value = try loadFromStack(self[Register.rbp] &- UInt64(number * bytes), bytes)
                try push(value, bytes)
            }
            if level > 0 { try push(frame, bytes) }
            let bottom = unsafe (rsp &- i.pointee.immediate) & stackMask
            // The end of the new frame must be writable (a page fault here, not later).
            do throws(Stop) {
                try checkModifiable(stackAddress(bottom, bytes, write: true), bytes)
            } catch { throw onStack(error) }
            setStackPointer(bottom)
            setRegister(number: Register.rbp, bytes: bytes, frame)
        } catch {
            rsp = top
            throw error
        }
    }

    func leaveFrame(_ bytes: Int) throws(Stop) {
        let top = rsp
        setStackPointer(self[Register.rbp])
        do throws(Stop) {
            setRegister(number: Register.rbp, bytes: bytes, try pop(bytes))
        } catch {
            rsp = top
            throw error
        }
    }
}

extension Handlers {
    static let pushRegister64: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in
            unsafe try cpu.push64(cpu.register(i.pointee.r1, UInt64.self))
        }
    }
    static let popRegister64: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in
            unsafe cpu.setRegister(i.pointee.r1, try cpu.pop64())
        }
    }
    static let pushRegister: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in
            unsafe try cpu.push(cpu.register(i.pointee.r1, UInt64.self), Int(i.pointee.operandBytes))
        }
    }
    static let popRegister: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in
            let bytes = unsafe Int(i.pointee.operandBytes)
            unsafe cpu.setRegister(number: Int(i.pointee.r1 >> 3), bytes: bytes, try cpu.pop(bytes))
        }
    }
    static let pushImmediate: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in
            unsafe try cpu.push(i.pointee.immediate, Int(i.pointee.operandBytes))
        }
    }
    static let pushMemory: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in
            let bytes = unsafe Int(i.pointee.operandBytes)
            unsafe try cpu.push(cpu.loadOperand(i, bytes), bytes)
        }
    }
    static let popMemory: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.popToMemory(i) } }
    static let pushSegment: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in
            unsafe try cpu.push(UInt64(cpu.state.segments[Int(i.pointee.small)].selector), Int(i.pointee.operandBytes))
        }
    }
    static let pusha: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.pushAll(Int(i.pointee.operandBytes)) }
    }
    static let popa: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.popAll(Int(i.pointee.operandBytes)) }
    }
    static let enter: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.enter(i) } }
    static let leave: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.leaveFrame(Int(i.pointee.operandBytes)) }
    }
}
