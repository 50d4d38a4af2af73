internal import CZydis
internal import Synchronization
internal import VirtualCPU
internal import X86

//S:170 Branches
//
// A branch whose target lies in its own page finds, once it has been taken,
// the target's record in its `link`, and follows it with one test: has
// anybody asked for the vCPU? Every other jump looks in the jump cache, by
// virtual address. Only a miss there leaves the loop. The request word is
// looked at whenever a branch is taken, so no loop can run past it.

extension CPU {
    @inline(__always) var isRequested: Bool {
        unsafe core.requests.pointee.load(ordering: .relaxed) & core.pollMask != 0
    }

    /// Goes on at `target`, which must be canonical or within CS's limit.
    @inline(__always) func jump(to target: UInt64) -> UnsafeRawPointer? {
        let slot = unsafe core.jumpCache + JumpCacheEntry.index(target)
        if unsafe slot.pointee.rip == target && slot.pointee.key == core.modeKey, !isRequested {
            unsafe codePage = slot.pointee.codePage
            return unsafe slot.pointee.record
        }
        state.rip = target
        unsafe core.event = .lookup
        return nil
    }

    @inline(__always) func takeBranch(_ i: InstructionPointer) -> UnsafeRawPointer? {
        if let link = unsafe i.pointee.link, !isRequested { return UnsafeRawPointer(link) }
        return unsafe slowBranch(i)
    }

    /// The target of a relative branch: RIP cut to the operand size.
    func target(_ i: InstructionPointer) -> UInt64 {
        let target = unsafe nextRIP(i) &+ i.pointee.immediate
        switch unsafe i.pointee.operandBytes {
        case 8: return target
        case 4: return target & 0xffff_ffff
        default: return target & 0xffff
        }
    }

    /// #GP(0) unless code may be run at `target` (SDM 2, "CALL", "JMP", "RET").
    @inline(__always) func checkTarget(_ target: UInt64) throws(Stop) {
        if unsafe core.codeSize == .bits64 {
            if !isCanonical(target) { throw generalProtection() }
        } else if target > UInt64(state.segments[SegmentName.cs].limit) {
            throw generalProtection()
        }
    }

    @inline(never) func slowBranch(_ i: InstructionPointer) -> UnsafeRawPointer? {
        let target = unsafe target(i)
        do throws(Stop) { try checkTarget(target) } catch { return unsafe stopped(self, i) }
        // In the same page, seen from its start, whatever address it is mapped at?
        if target &- codePage < 4096, unsafe i.pointee.spare == Instruction.linkable, !isRequested {
            return unsafe owner.link(i, to: target)
        }
        return unsafe jump(to: target)
    }
}

extension Instruction {
    /// `spare` of a branch in a block; one that is run from elsewhere has 0.
    static let linkable: UInt32 = 1
    /// `mnemonic` of a dead record that leads on to its successor.
    static let forwarding = UInt16.max
}

extension LoweringTable {
    mutating func addControlFlow() {
        let conditions = LoweringTable.conditions(
            ZYDIS_MNEMONIC_JO, ZYDIS_MNEMONIC_JNO, ZYDIS_MNEMONIC_JB, ZYDIS_MNEMONIC_JNB,
            ZYDIS_MNEMONIC_JZ, ZYDIS_MNEMONIC_JNZ, ZYDIS_MNEMONIC_JBE, ZYDIS_MNEMONIC_JNBE,
            ZYDIS_MNEMONIC_JS, ZYDIS_MNEMONIC_JNS, ZYDIS_MNEMONIC_JP, ZYDIS_MNEMONIC_JNP,
            ZYDIS_MNEMONIC_JL, ZYDIS_MNEMONIC_JNL, ZYDIS_MNEMONIC_JLE, ZYDIS_MNEMONIC_JNLE)
        for (mnemonic, code) in conditions {
            unsafe self[mnemonic] = { lowering in
                lowering.setBranch()
                return unsafe Handlers.jcc[Int(code)]
            }
        }
        unsafe self[ZYDIS_MNEMONIC_JMP] = { lowering in
            if lowering.isImmediate(0) {
                lowering.setBranch()
                return unsafe Handlers.jmp
            }
            guard lowering.setIndirect() else { return unsafe lowering.farTransfer() }
            return unsafe Handlers.jmpIndirect
        }
        unsafe self[ZYDIS_MNEMONIC_CALL] = { lowering in
            if lowering.isImmediate(0) {
                lowering.setBranch()
                return unsafe lowering.isLong && lowering.bytes == 8 ? Handlers.call64 : Handlers.callLegacy
            }
            guard lowering.setIndirect() else { return unsafe lowering.farTransfer() }
            return unsafe lowering.isLong && lowering.bytes == 8 ? Handlers.callIndirect64 : Handlers.callIndirectLegacy
        }
        unsafe self[ZYDIS_MNEMONIC_RET] = { lowering in
            if unsafe lowering.d.pointee.opcode & 0xf8 == 0xc8 { return unsafe lowering.farTransfer() }
            lowering.endsBlock = true
            unsafe lowering.record.operandBytes = lowering.branchBytes
            unsafe lowering.record.immediate = lowering.isImmediate(0) ? lowering.immediate(0) : 0
            return unsafe lowering.isLong && lowering.record.operandBytes == 8 ? Handlers.ret64 : Handlers.retLegacy
        }
        unsafe set([
            ZYDIS_MNEMONIC_LOOP, ZYDIS_MNEMONIC_LOOPE, ZYDIS_MNEMONIC_LOOPNE, ZYDIS_MNEMONIC_JCXZ,
            ZYDIS_MNEMONIC_JECXZ, ZYDIS_MNEMONIC_JRCXZ,
        ]) { lowering in
            lowering.setBranch()
            switch lowering.mnemonic {
            case ZYDIS_MNEMONIC_LOOP: return unsafe Handlers.loop
            case ZYDIS_MNEMONIC_LOOPE: return unsafe Handlers.loope
            case ZYDIS_MNEMONIC_LOOPNE: return unsafe Handlers.loopne
            default: return unsafe Handlers.jcxz
            }
        }
    }
}

extension Lowering {
    /// How wide RIP is after a near branch: 64 bits in long mode whatever the prefixes say (Intel; AMD heeds 66).
    var branchBytes: UInt8 { isLong ? 8 : unsafe d.pointee.operand_width == 16 ? 2 : 4 }

    mutating func setBranch() {
        unsafe record.operandBytes = branchBytes
        unsafe record.immediate = immediate(0)
        unsafe record.spare = unsafe Instruction.linkable
        if mnemonic == ZYDIS_MNEMONIC_JMP || mnemonic == ZYDIS_MNEMONIC_CALL { endsBlock = true }
    }

    /// A near branch through a register or memory; false if it is a far one.
    mutating func setIndirect() -> Bool {
        if unsafe d.pointee.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR { return false }
        endsBlock = true
        unsafe record.operandBytes = branchBytes
        if let register = gpr(0) {
            unsafe record.r1 = register
        } else {
            setMemory(0)
        }
        return true
    }
}

extension CPU {
    private func indirectTarget(_ i: InstructionPointer) throws(Stop) -> UInt64 {
        let bytes = unsafe Int(i.pointee.operandBytes)
        if unsafe i.pointee.options.contains(.memory) { return unsafe try loadOperand(i, bytes) }
        return unsafe register(i.pointee.r1, bytes: bytes)
    }

    @inline(__always) func jumpIndirect(_ i: InstructionPointer) -> UnsafeRawPointer? {
        do throws(Stop) {
            let target = unsafe try indirectTarget(i)
            try checkTarget(target)
            return unsafe jump(to: target)
        } catch { return unsafe stopped(self, i) }
    }

    @inline(__always) func callIndirect(_ i: InstructionPointer, long: Bool) -> UnsafeRawPointer? {
        do throws(Stop) {
            let target = unsafe try indirectTarget(i)
            try checkTarget(target)
            if long {
                unsafe try push64(nextRIP(i))
            } else {
                unsafe try push(nextRIP(i), Int(i.pointee.operandBytes))
            }
            return unsafe jump(to: target)
        } catch { return unsafe stopped(self, i) }
    }

    @inline(__always) func callRelative(_ i: InstructionPointer, long: Bool) -> UnsafeRawPointer? {
        do throws(Stop) {
            if long {
                // The link vouches for the target; without one it must be checked before the push.
                if unsafe i.pointee.link == nil { unsafe try checkTarget(target(i)) }
                unsafe try push64(nextRIP(i))
            } else {
                unsafe try checkTarget(target(i))
                unsafe try push(nextRIP(i), Int(i.pointee.operandBytes))
            }
            return unsafe takeBranch(i)
        } catch { return unsafe stopped(self, i) }
    }

    @inline(__always) func returnNear(_ i: InstructionPointer, long: Bool) -> UnsafeRawPointer? {
        do throws(Stop) {
            if long {
                let top = rsp
                let target = try pop64()
                if !isCanonical(target) {
                    rsp = top
                    throw generalProtection()
                }
                unsafe rsp &+= i.pointee.immediate
                return unsafe jump(to: target)
            }
            let bytes = unsafe Int(i.pointee.operandBytes)
            let target = try peek(bytes)
            try checkTarget(target)
            unsafe setStackPointer(rsp &+ UInt64(bytes) &+ i.pointee.immediate)
            return unsafe jump(to: target)
        } catch { return unsafe stopped(self, i) }
    }

    /// rCX of the address size.
    private func counter(_ i: InstructionPointer) -> UInt64 {
        let count = rcx
        if unsafe i.pointee.options.contains(.address32) { return count & 0xffff_ffff }
        return unsafe i.pointee.options.contains(.address16) ? count & 0xffff : count
    }

    func loop(_ i: InstructionPointer, while condition: Bool) -> UnsafeRawPointer? {
        let count = unsafe counter(i) &- 1
        let taken: Bool
        let target = unsafe target(i)
        if unsafe i.pointee.options.contains(.address32) {
            taken = count & 0xffff_ffff != 0 && condition
        } else if unsafe i.pointee.options.contains(.address16) {
            taken = count & 0xffff != 0 && condition
        } else {
            taken = count != 0 && condition
        }
        if taken { do throws(Stop) { try checkTarget(target) } catch { return unsafe stopped(self, i) } }
        if unsafe i.pointee.options.contains(.address32) {
            setRegister(8, UInt32(truncatingIfNeeded: count))
        } else if unsafe i.pointee.options.contains(.address16) {
            setRegister(8, UInt16(truncatingIfNeeded: count))
        } else {
            rcx = count
        }
        return unsafe taken ? takeBranch(i) : UnsafeRawPointer(i + 1)
    }

    func jumpIfCounterZero(_ i: InstructionPointer) -> UnsafeRawPointer? {
        unsafe counter(i) == 0 ? takeBranch(i) : UnsafeRawPointer(i + 1)
    }
}

/// The frame of a handler that returns the next record itself.
@inline(__always) func branch(
    _ raw: UnsafeMutableRawPointer, _ record: UnsafeRawPointer, _ body: (CPU, InstructionPointer) -> UnsafeRawPointer?
) -> UnsafeRawPointer? {
    unsafe body(CPU(raw), record.assumingMemoryBound(to: Instruction.self))
}

extension Handlers {
    @inline(__always) private static func jumpIf(
        _ raw: UnsafeMutableRawPointer, _ record: UnsafeRawPointer, _ condition: (CPU) -> Bool
    ) -> UnsafeRawPointer? {
        unsafe branch(raw, record) { cpu, i in unsafe condition(cpu) ? cpu.takeBranch(i) : UnsafeRawPointer(i + 1) }
    }

    /// By condition code.
    static let jcc: [Handler] = unsafe [
        { unsafe jumpIf($0, $1) { $0.overflow } }, { unsafe jumpIf($0, $1) { !$0.overflow } },
        { unsafe jumpIf($0, $1) { $0.carry } }, { unsafe jumpIf($0, $1) { !$0.carry } },
        { unsafe jumpIf($0, $1) { $0.zero } }, { unsafe jumpIf($0, $1) { !$0.zero } },
        { unsafe jumpIf($0, $1) { $0.carry || $0.zero } }, { unsafe jumpIf($0, $1) { !($0.carry || $0.zero) } },
        { unsafe jumpIf($0, $1) { $0.sign } }, { unsafe jumpIf($0, $1) { !$0.sign } },
        { unsafe jumpIf($0, $1) { $0.parity } }, { unsafe jumpIf($0, $1) { !$0.parity } },
        { unsafe jumpIf($0, $1) { $0.sign != $0.overflow } }, { unsafe jumpIf($0, $1) { $0.sign == $0.overflow } },
        { unsafe jumpIf($0, $1) { $0.zero || $0.sign != $0.overflow } },
        { unsafe jumpIf($0, $1) { !$0.zero && $0.sign == $0.overflow } },
    ]
    static let jmp: Handler = { unsafe branch($0, $1) { cpu, i in unsafe cpu.takeBranch(i) } }
    static let jmpIndirect: Handler = { unsafe branch($0, $1) { cpu, i in unsafe cpu.jumpIndirect(i) } }
    static let call64: Handler = { unsafe branch($0, $1) { cpu, i in unsafe cpu.callRelative(i, long: true) } }
    static let callLegacy: Handler = { unsafe branch($0, $1) { cpu, i in unsafe cpu.callRelative(i, long: false) } }
    static let callIndirect64: Handler = { unsafe branch($0, $1) { cpu, i in unsafe cpu.callIndirect(i, long: true) } }
    static let callIndirectLegacy: Handler = {
        unsafe branch($0, $1) { cpu, i in unsafe cpu.callIndirect(i, long: false) }
    }
    static let ret64: Handler = { unsafe branch($0, $1) { cpu, i in unsafe cpu.returnNear(i, long: true) } }
    static let retLegacy: Handler = { unsafe branch($0, $1) { cpu, i in unsafe cpu.returnNear(i, long: false) } }
    static let loop: Handler = { unsafe branch($0, $1) { cpu, i in unsafe cpu.loop(i, while: true) } }
    static let loope: Handler = { unsafe branch($0, $1) { cpu, i in unsafe cpu.loop(i, while: cpu.zero) } }
    static let loopne: Handler = { unsafe branch($0, $1) { cpu, i in unsafe cpu.loop(i, while: !cpu.zero) } }
    static let jcxz: Handler = { unsafe branch($0, $1) { cpu, i in unsafe cpu.jumpIfCounterZero(i) } }
    /// Behind the last record of a block: goes on with the code after it.
    static let endOfBlock: Handler = {
        unsafe branch($0, $1) { cpu, i in
            if let link = unsafe i.pointee.link { return UnsafeRawPointer(link) }
            let rip = unsafe cpu.rip(i)
            if unsafe i.pointee.spare == Instruction.linkable && i.pointee.offset < 4096 && !cpu.isRequested {
                return unsafe cpu.owner.link(i, to: rip)
            }
            return unsafe cpu.jump(to: rip)
        }
    }
    /// In place of a record whose bytes were overwritten. Links and the jump
    /// cache may still lead here: find the code anew, and pass them on to it.
    static let stale: Handler = {
        unsafe branch($0, $1) { cpu, i in
            let rip = unsafe cpu.rip(i)
            if unsafe i.pointee.offset < 4096, let record = unsafe cpu.owner.link(i, to: rip) {
                if unsafe i.pointee.link == UnsafeMutableRawPointer(mutating: record) {
                    unsafe UnsafeMutablePointer(mutating: i).pointee.handler = Handlers.forward
                    unsafe UnsafeMutablePointer(mutating: i).pointee.mnemonic = Instruction.forwarding
                }
                return unsafe record
            }
            cpu.state.rip = rip
            return nil
        }
    }
    /// What `stale` becomes when it knows its successor. The successor may die
    /// too, and so on: a program that rewrites its loop at every pass would make
    /// a chain of ever more such records, did not each skip its next on the way.
    static let forward: Handler = {
        let record = unsafe UnsafeMutableRawPointer(mutating: $1).assumingMemoryBound(to: Instruction.self)
        if let next = unsafe record.pointee.link?.assumingMemoryBound(to: Instruction.self),
            unsafe next.pointee.mnemonic == Instruction.forwarding
        {
            unsafe record.pointee.link = next.pointee.link
        }
        return unsafe UnsafeRawPointer(record.pointee.link)
    }
}
//:
