internal import CZydis
internal import Glibc
internal import VirtualCPU
internal import X86

//S:180 Strings, by the page
//
// A REP MOVS of a megabyte is one instruction to the Guest and need not be a
// quarter of a million steps to us. Where the direction is up and both sides
// lie in RAM, we go page by page, at the speed of the Host's memmove. After
// every piece RSI, RDI and RCX say how far we are, so that a page fault, an
// interrupt or a question to the Host can come between, and the instruction
// simply be run again (SDM 2B, "REP").

extension LoweringTable {
    mutating func addStrings() {
        let kinds: [(ZydisMnemonic, StringKind, UInt8)] = [
            (ZYDIS_MNEMONIC_MOVSB, .move, 1), (ZYDIS_MNEMONIC_MOVSW, .move, 2), (ZYDIS_MNEMONIC_MOVSD, .move, 4),
            (ZYDIS_MNEMONIC_MOVSQ, .move, 8),
            (ZYDIS_MNEMONIC_STOSB, .store, 1), (ZYDIS_MNEMONIC_STOSW, .store, 2), (ZYDIS_MNEMONIC_STOSD, .store, 4),
            (ZYDIS_MNEMONIC_STOSQ, .store, 8),
            (ZYDIS_MNEMONIC_LODSB, .load, 1), (ZYDIS_MNEMONIC_LODSW, .load, 2), (ZYDIS_MNEMONIC_LODSD, .load, 4),
            (ZYDIS_MNEMONIC_LODSQ, .load, 8),
            (ZYDIS_MNEMONIC_SCASB, .scan, 1), (ZYDIS_MNEMONIC_SCASW, .scan, 2), (ZYDIS_MNEMONIC_SCASD, .scan, 4),
            (ZYDIS_MNEMONIC_SCASQ, .scan, 8),
            (ZYDIS_MNEMONIC_CMPSB, .compare, 1), (ZYDIS_MNEMONIC_CMPSW, .compare, 2),
            (ZYDIS_MNEMONIC_CMPSD, .compare, 4), (ZYDIS_MNEMONIC_CMPSQ, .compare, 8),
            (ZYDIS_MNEMONIC_INSB, .input, 1), (ZYDIS_MNEMONIC_INSW, .input, 2), (ZYDIS_MNEMONIC_INSD, .input, 4),
            (ZYDIS_MNEMONIC_OUTSB, .output, 1), (ZYDIS_MNEMONIC_OUTSW, .output, 2), (ZYDIS_MNEMONIC_OUTSD, .output, 4),
        ]
        for (mnemonic, kind, bytes) in kinds {
            unsafe self[mnemonic] = { lowering in
                // MOVSD and CMPSD are SSE instructions too.
                guard
                    unsafe lowering.d.pointee.meta.category == ZYDIS_CATEGORY_STRINGOP
                        || lowering.d.pointee.meta.category == ZYDIS_CATEGORY_IOSTRINGOP
                else { return nil }
                unsafe lowering.record.small = kind.rawValue
                unsafe lowering.record.operandBytes = bytes
                // The segment of the source, which may be overridden.
                unsafe lowering.record.segment = UInt8(lowering.sourceSegment)
                return unsafe Handlers.string
            }
        }
    }
}

enum StringKind: UInt8 { case move, store, load, scan, compare, input, output }

extension Lowering {
    var sourceSegment: Int {
        for n in unsafe 0..<Int(d.pointee.operand_count) where isMemory(n) {
            let memory = unsafe operands[n].mem
            if Lowering.gpr(memory.base) == UInt8(Register.rsi * 8) {
                return Lowering.segment(memory.segment) ?? SegmentName.ds
            }
        }
        return SegmentName.ds
    }
}

extension CPU {
    /// Runs a string instruction to its end, or as far as it gets.
    func string(_ i: InstructionPointer) -> UnsafeRawPointer? {
        let record = unsafe i.pointee
        let repeats = unsafe !record.options.isDisjoint(with: [.rep, .repne])
        let mask: UInt64 =
            unsafe record.options.contains(.address32)
            ? 0xffff_ffff : record.options.contains(.address16) ? 0xffff : .max
        guard let kind = unsafe StringKind(rawValue: record.small) else { return nil }
        let flags = unsafe core.flags
        do throws(Stop) {
            // The right to a port is looked at even if nothing will go through it.
            if kind == .input || kind == .output {
                unsafe try checkPort(UInt16(truncatingIfNeeded: self[Register.rdx]), Int(record.operandBytes))
            }
            if !repeats {
                _ = unsafe try element(record, kind, mask, count: 1)
                return unsafe UnsafeRawPointer(i + 1)
            }
            while true {
                let count = rcx & mask
                if count == 0 {
                    // A 32-bit counter is written back, even if it was zero at once.
                    return unsafe UnsafeRawPointer(i + 1)
                }
                // A trap comes after each iteration (SDM 3B, 17.3.1.4).
                let done = unsafe try element(record, kind, mask, count: core.stepping ? 1 : count)
                advance(Register.rcx, by: 0 &- done, mask)
                if unsafe core.answerCount > 0 { forgetAnswers() }
                if kind == .scan || kind == .compare, unsafe zero == record.options.contains(.repne) {
                    return unsafe UnsafeRawPointer(i + 1)
                }
                if rcx & mask == 0 { return unsafe UnsafeRawPointer(i + 1) }
                if unsafe isRequested || core.stepping && (core.stepTraps || core.pendingDebug != 0) {
                    // Between iterations, RF is pushed as 1: the instruction's breakpoint was met already.
                    if unsafe core.stepping { state.rflags |= RFlags.resume }
                    unsafe state.rip = rip(i)
                    unsafe core.event = .lookup
                    return nil
                }
            }
        } catch {
            // SCAS and CMPS that fault have their old flags again, however far they got (SDM 2B, "REP");
            // on AMD's CPUs those of the last element that was compared.
            if owner.features.isIntel { unsafe core.flags = flags }
            return unsafe stopped(self, i)
        }
    }

    /// Adds to a register at the address size: 32 bits clear the upper half.
    private func advance(_ number: Int, by step: UInt64, _ mask: UInt64) {
        let sum = self[number] &+ step
        self[number] = mask == 0xffff ? self[number] & ~0xffff | sum & 0xffff : sum & mask
    }

    /// Does at least one element and at most `count`; returns how many.
    private func element(_ record: Instruction, _ kind: StringKind, _ mask: UInt64, count: UInt64) throws(Stop)
        -> UInt64
    {
        let bytes = unsafe Int(record.operandBytes)
        let long = unsafe record.options.contains(.long)
        let down = state.rflags & RFlags.direction != 0
        let step = down ? 0 &- UInt64(bytes) : UInt64(bytes)
        let si = self[Register.rsi] & mask, di = self[Register.rdi] & mask
        func source() throws(Stop) -> UInt64 {
            unsafe try linear(segment: Int(record.segment), si, bytes, write: false, long: long)
        }
        func destination(write: Bool) throws(Stop) -> UInt64 {
            try linear(segment: SegmentName.es, di, bytes, write: write, long: long)
        }
        switch kind {
        case .move:
            let from = try source(), to = try destination(write: true)
            if count > 1, !down, long, !seesEveryAccess, let done = try movePiece(from, to, bytes, count) {
                advance(Register.rsi, by: done &* UInt64(bytes), mask)
                advance(Register.rdi, by: done &* UInt64(bytes), mask)
                return done
            }
            try store(to, try load(from, bytes: bytes), bytes: bytes)
            advance(Register.rsi, by: step, mask)
            advance(Register.rdi, by: step, mask)
        case .store:
            let to = try destination(write: true)
            if count > 1, !down, long, !seesEveryAccess, let done = try fillPiece(to, bytes, count) {
                advance(Register.rdi, by: done &* UInt64(bytes), mask)
                return done
            }
            try store(to, self[Register.rax], bytes: bytes)
            advance(Register.rdi, by: step, mask)
        case .load:
            setRegister(number: Register.rax, bytes: bytes, try load(try source(), bytes: bytes))
            advance(Register.rsi, by: step, mask)
        case .scan:
            compare(self[Register.rax], try load(try destination(write: false), bytes: bytes), bytes)
            advance(Register.rdi, by: step, mask)
        case .compare:
            let first = try load(try source(), bytes: bytes)
            compare(first, try load(try destination(write: false), bytes: bytes), bytes)
            advance(Register.rsi, by: step, mask)
            advance(Register.rdi, by: step, mask)
        case .input:
            let port = UInt16(truncatingIfNeeded: self[Register.rdx])
            let to = try destination(write: true)
            try checkWritable(to, bytes)
            let value = try ask(.portRead(port: port, bytes: bytes))
            try store(to, value, bytes: bytes)
            if unsafe core.watching { noteWatchedPort(port, bytes) }
            advance(Register.rdi, by: step, mask)
        case .output:
            let port = UInt16(truncatingIfNeeded: self[Register.rdx])
            let value = try load(try source(), bytes: bytes)
            _ = try ask(.portWrite(port: port, bytes: bytes, value: UInt32(truncatingIfNeeded: value)))
            if unsafe core.watching { noteWatchedPort(port, bytes) }
            advance(Register.rsi, by: step, mask)
        }
        return 1
    }

    private func compare(_ a: UInt64, _ b: UInt64, _ bytes: Int) {
        switch bytes {
        case 1: _ = Subtract.apply(self, UInt8(truncatingIfNeeded: a), UInt8(truncatingIfNeeded: b))
        case 2: _ = Subtract.apply(self, UInt16(truncatingIfNeeded: a), UInt16(truncatingIfNeeded: b))
        case 4: _ = Subtract.apply(self, UInt32(truncatingIfNeeded: a), UInt32(truncatingIfNeeded: b))
        default: _ = Subtract.apply(self, a, b)
        }
    }

    /// How many elements fit before either page ends.
    private func piece(_ addresses: UInt64..., bytes: Int, count: UInt64) -> UInt64 {
        addresses.reduce(count) { min($0, (4096 &- ($1 & 0xfff)) / UInt64(bytes)) }
    }

    /// Moves up to a page upwards; nil where the pieces are not plain RAM, or
    /// overlap so that an element is read after it was written.
    private func movePiece(_ from: UInt64, _ to: UInt64, _ bytes: Int, _ count: UInt64) throws(Stop) -> UInt64? {
        let elements = piece(from, to, bytes: bytes, count: count)
        let length = Int(elements) * bytes
        guard elements > 0, let source = unsafe try hostOperand(from, length, write: false),
            let destination = unsafe try hostOperand(to, length, write: true)
        else { return nil }
        let distance = unsafe destination - source
        if distance > 0 && distance < length { return nil }
        unsafe memmove(destination, source, length)
        return elements
    }

    private func fillPiece(_ to: UInt64, _ bytes: Int, _ count: UInt64) throws(Stop) -> UInt64? {
        let elements = piece(to, bytes: bytes, count: count)
        let length = Int(elements) * bytes
        guard elements > 0, let destination = unsafe try hostOperand(to, length, write: true) else { return nil }
        let value = self[Register.rax]
        let low = value & 0xff
        let pattern =
            bytes == 1
            ? low : bytes == 2 ? low &* 0x101 : bytes == 4 ? low &* 0x0101_0101 : low &* 0x0101_0101_0101_0101
        let mask = bytes == 8 ? UInt64.max : (1 &<< UInt64(bytes * 8)) &- 1
        if pattern == value & mask {
            unsafe memset(destination, Int32(low), length)
            return elements
        }
        for n in 0..<Int(elements) {
            switch bytes {
            case 2: unsafe (destination + n * 2).storeBytes(of: UInt16(truncatingIfNeeded: value), as: UInt16.self)
            case 4: unsafe (destination + n * 4).storeBytes(of: UInt32(truncatingIfNeeded: value), as: UInt32.self)
            default: unsafe (destination + n * 8).storeBytes(of: value, as: UInt64.self)
            }
        }
        return elements
    }
}

extension Handlers {
    static let string: Handler = { unsafe branch($0, $1) { cpu, i in unsafe cpu.string(i) } }
}
//:
