import CHost
import CZydis
import HostInterface
import Interpreter
import Testing
import VirtualCPU
import X86

/// Random instructions of every form that a thunk takes, run on random state.
@Suite struct ThunkSweepTests {
    /// Bytes that are often an instruction of interest.
    private static func instruction(_ random: inout Random, long: Bool) -> [UInt8] {
        var bytes: [UInt8] = []
        if random.below(3) == 0 {
            let r = random.byte(), v = random.byte()
            let inverted: UInt8 = long ? r & 0xe0 : r & 0x20 | 0xc0
            if random.below(3) == 0 {
                bytes = [0xc5, long ? v : v | 0xc0]
            } else {
                bytes = [0xc4, inverted | UInt8(1 + random.below(3)), v]
            }
        } else {
            if random.below(8) == 0 { bytes.append(0xf0) }
            if random.below(3) == 0 { bytes.append(0x66) }
            if random.below(3) == 0 { bytes.append(random.below(2) == 0 ? 0xf2 : 0xf3) }
            if long, random.below(2) == 0 { bytes.append(0x40 | random.byte() & 15) }
            switch random.below(5) {
            case 0: break
            case 1, 2: bytes.append(0x0f)
            case 3: bytes += [0x0f, 0x38]
            default: bytes += [0x0f, 0x3a]
            }
        }
        if random.below(8) == 0 { bytes.append(0xd8 | random.byte() & 7) } else { bytes.append(random.byte()) }
        for _ in 0..<10 { bytes.append(random.byte()) }
        return bytes
    }

    private static func randomize(_ bench: Bench, _ random: inout Random) {
        let corners: [UInt64] = [
            0, 1, .max, 1 << 63, 0x7fff_ffff_ffff_ffff, 0x7ff0_0000_0000_0000, 0x3ff0_0000_0000_0000, 0x8000_0000,
            0x7f80_0000_7f80_0001, 0x0000_0001_0000_0001,
        ]
        func value() -> UInt64 { random.below(3) == 0 ? corners[random.below(corners.count)] : random.next() }
        for register in 0..<16 { bench[gpr: register] = value() }
        for word in 0..<64 { unsafe bench.state.pointee.ymm[word] = value() }
        for register in 0..<8 {
            unsafe bench.state.pointee.x87[4 + 2 * register] = value()
            unsafe bench.state.pointee.x87[5 + 2 * register] = random.next() & 0xffff
        }
        // Any control word with any pending flags that it masks; ES and B clear.
        let control = random.next() & 0xf3f | 0x40
        let status = random.next() & 0x477f & ~(~control & 0x3f)
        unsafe bench.state.pointee.x87[0] = control | status << 16 | (random.next() & 0xff) << 32
        unsafe bench.state.pointee.x87[1] = 1
        unsafe bench.state.pointee.x87[2] = 2
        let masks = random.below(2) == 0 ? 0x1f80 : random.next() & 0x1f80
        bench.mxcsr = UInt32(truncatingIfNeeded: random.next() & 0xe07f | masks)
        bench.flags = random.next() & 0xcd5 | 0x202
        for word in 0..<64 { unsafe bench.memory.storeBytes(of: value(), toByteOffset: 8 * word, as: UInt64.self) }
    }

    @Test func nothingCrashesAndNothingElseChanges() throws {
        let seed = HostClock.monotonicNanoseconds
        print("ThunkSweepTests seed \(seed)")
        var random = Random(seed: seed)
        let bench = try Bench()
        var (ran, mnemonics) = (0, Set<UInt32>())
        for _ in 0..<500_000 {
            let bits = [16, 32, 64, 64][random.below(4)]
            let bytes = Self.instruction(&random, long: bits == 64)
            guard let thunk = bench.thunk(bytes, bits: bits) else { continue }
            let mnemonic = unsafe bench.instruction.pointee.mnemonic
            let (written, vectorsWritten) = Self.destinations(bench)
            let length = Int(unsafe bench.instruction.pointee.length)
            let text = bytes[0..<length].map { String($0, radix: 16) }.joined(separator: " ") + " in \(bits)"

            // Zydis sees the same instruction in what the thunk holds.
            let again = unsafe bytes.withUnsafeBufferPointer { buffer -> [UInt8]? in
                guard let base = buffer.baseAddress else { return nil }
                return unsafe bench.cache.reencoded(bench.instruction, operands: bench.operands, bytes: base)
            }
            let shape = Self.shape(bench)
            let host = try #require(again)
            #expect(bench.decode(host), "\(text) became \(host)")
            #expect(unsafe bench.instruction.pointee.mnemonic == mnemonic, "\(text) became \(host)")
            #expect(unsafe Int(bench.instruction.pointee.length) == host.count, "\(text) became \(host)")
            #expect(Self.shape(bench) == shape, "\(text) became \(host)")

            Self.randomize(bench, &random)
            if thunk.gate.contains(.waitsForFPU), unsafe bench.state.pointee.x87[0] & 1 << 23 != 0 { continue }
            let before = unsafe (bench.state.pointee.gpr, bench.state.pointee.ymm, bench.state.pointee.rflags)
            let memory = (0..<64).map { unsafe bench.memory.load(fromByteOffset: 8 * $0, as: UInt64.self) }
            chost_set_mxcsr(0x1f80)
            _ = unsafe thunk.run(bench.state, memory: bench.operand, rip: 0x1234, address: 0x5678)
            // Flags in the Host's MXCSR: a thunk that should have used the Guest's.
            if !thunk.usesMXCSR, chost_mxcsr() != 0x1f80 { Issue.record("\(text) leaves its mark in MXCSR") }
            chost_set_mxcsr(0x1f80)
            ran += 1
            mnemonics.insert(mnemonic.rawValue)
            for register in 0..<16 where written & 1 << register == 0 {
                if bench[gpr: register] != before.0[register] { Issue.record("\(text) changes register \(register)") }
            }
            for word in 0..<64 where vectorsWritten & 1 << (word / 4) == 0 {
                if unsafe bench.state.pointee.ymm[word] != before.1[word] {
                    Issue.record("\(text) changes vector word \(word)")
                }
            }
            #expect((bench.flags ^ before.2) & ~RFlags.arithmetic == 0, "\(text) changes system flags")
            let size = thunk.memoryAccess == .write || thunk.memoryAccess == .readWrite ? thunk.memoryBytes : 0
            for byte in 0..<512 where !(Bench.operandOffset..<Bench.operandOffset + size ~= byte) {
                let now = unsafe bench.memory.load(fromByteOffset: byte, as: UInt8.self)
                if now != UInt8(truncatingIfNeeded: memory[byte / 8] >> UInt64(byte % 8 * 8)) {
                    Issue.record("\(text) writes byte \(byte)")
                }
            }
            let pointer = unsafe bench.state.pointee.x87[1]
            #expect([0, 1, 0x1234].contains(pointer) || thunk.fpu == .loaded, "\(text) leaks \(pointer)")
        }
        print("\(ran) run, \(mnemonics.count) mnemonics, \(bench.cache.count) thunks")
        #expect(ran > 60_000)
        #expect(mnemonics.count > 700)
    }

    /// Kinds, sizes and actions of the operands.
    private static func shape(_ bench: Bench) -> [UInt32] {
        (0..<Int(unsafe bench.instruction.pointee.operand_count)).flatMap { index -> [UInt32] in
            let operand = unsafe bench.operands[index]
            // RFLAGS is FLAGS in 16-bit mode.
            if operand.visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN { return [] }
            return [operand.type.rawValue, UInt32(operand.size), UInt32(operand.actions)]
        }
    }

    private static func destinations(_ bench: Bench) -> (gpr: UInt32, vector: UInt32) {
        var (gpr, vector) = (UInt32(0), UInt32(0))
        for index in 0..<Int(unsafe bench.instruction.pointee.operand_count) {
            let operand = unsafe bench.operands[index]
            guard operand.type == ZYDIS_OPERAND_TYPE_REGISTER, operand.actions & 0xa != 0 else { continue }
            let register = operand.reg.value
            let wide = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, register)
            let number = ZydisRegisterGetId(wide)
            switch ZydisRegisterGetClass(wide) {
            case ZYDIS_REGCLASS_GPR64: gpr |= 1 << UInt32(number)
            case ZYDIS_REGCLASS_XMM, ZYDIS_REGCLASS_YMM, ZYDIS_REGCLASS_ZMM: vector |= 1 << UInt32(number)
            default: break
            }
        }
        return (gpr, vector)
    }

    /// Not a check: how long a thunk takes to run and to make.
    @Test func speed() throws {
        let bench = try Bench()
        let cases: [(String, [UInt8])] = [
            ("addsd xmm0, xmm1", [0xf2, 0x0f, 0x58, 0xc1]), ("paddd xmm0, xmm1", [0x66, 0x0f, 0xfe, 0xc1]),
            ("movdqu xmm0, [m]", [0xf3, 0x0f, 0x6f, 0x06]), ("popcnt rax, rcx", [0xf3, 0x48, 0x0f, 0xb8, 0xc1]),
            ("lock cmpxchg [m], rcx", [0xf0, 0x48, 0x0f, 0xb1, 0x0e]), ("adc rax, rcx", [0x48, 0x11, 0xc8]),
            ("vpaddd ymm0, ymm1, ymm2", [0xc5, 0xf5, 0xfe, 0xc2]), ("fadd st0, st1", [0xd8, 0xc1]),
        ]
        for _ in 0..<2 { bench.run([0xd9, 0xee]) }  // fldz
        for (name, bytes) in cases {
            guard let thunk = bench.thunk(bytes) else { continue }
            var best = UInt64.max
            for _ in 0..<10 {
                let start = HostClock.monotonicNanoseconds
                for _ in 0..<20_000 { _ = unsafe thunk.run(bench.state, memory: bench.operand, rip: 1, address: 2) }
                best = min(best, HostClock.monotonicNanoseconds - start)
            }
            print("\(name): \(Double(best) / 20_000) ns")
        }
        _ = bench.decode([0xf2, 0x0f, 0x58, 0xc1])
        let bytes: [UInt8] = [0xf2, 0x0f, 0x58, 0xc1]
        for name in ["anew", "known"] {
            let start = HostClock.monotonicNanoseconds
            for _ in 0..<100_000 {
                if name == "anew" { bench.cache.removeAll() }
                _ = unsafe bytes.withUnsafeBufferPointer {
                    unsafe bench.cache.thunk(for: bench.instruction, operands: bench.operands, bytes: $0.baseAddress!)
                }
            }
            print("making a thunk, \(name): \(Double(HostClock.monotonicNanoseconds - start) / 1e5) ns")
        }
    }
}
