import Interpreter
import Testing
import VirtualCPU
import X86

/// Sixteen words of memory at 0x1000; above them, faults.
private struct SmallMemory: VectorMemory {
    var bytes = [UInt8](repeating: 0, count: 128)

    private func range(_ offset: UInt64, _ count: Int) -> Range<Int>? {
        guard offset >= 0x1000, offset &- 0x1000 <= UInt64(bytes.count - count) else { return nil }
        let start = Int(offset - 0x1000)
        return start..<start + count
    }
    func checkAddresses(_ offset: UInt64, bytes count: Int) -> Bool { true }
    func load(_ offset: UInt64, bytes count: Int) -> UInt64? {
        guard let range = range(offset, count) else { return nil }
        return bytes[range].reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
    func probeStore(_ offset: UInt64, bytes count: Int) -> Bool { range(offset, count) != nil }
    mutating func store(_ offset: UInt64, _ value: UInt64, bytes count: Int) -> Bool {
        guard let range = range(offset, count) else { return false }
        for (index, place) in range.enumerated() {
            bytes[place] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index))
        }
        return true
    }
}

@Suite struct VectorStateTests {
    private func access(_ bench: Bench, _ bytes: [UInt8]) -> VectorAccess? {
        guard bench.decode(bytes) else { return nil }
        return unsafe VectorAccess(bench.instruction, operands: bench.operands, features: bench.cache.features)
    }

    @Test(.enabled(if: ISAFeatures.host.contains(.avx2))) func maskedMoves() throws {
        let bench = try Bench()
        var memory = SmallMemory()
        for index in 0..<128 { memory.bytes[index] = UInt8(index) }
        // vmaskmovps ymm0, ymm1, [rsi]: elements 0 and 5; the rest may lie where it faults.
        (bench[vector: 1, word: 0], bench[vector: 1, word: 2]) = (0x8000_0000, 0x8000_0000 << 32)
        bench[vector: 0, word: 3] = 9
        let load = try #require(access(bench, [0xc4, 0xe2, 0x75, 0x2c, 0x06]))
        #expect(load.memoryBytes == 32)
        #expect(unsafe load.run(&bench.state.pointee, at: 0x1000, &memory))
        #expect((0..<4).map { bench[vector: 0, word: $0] } == [0x0302_0100, 0, 0x1716_1514 << 32, 0])
        #expect(unsafe load.run(&bench.state.pointee, at: 0x1000 + 128 - 24, &memory))
        #expect(unsafe !load.run(&bench.state.pointee, at: 0x1000 + 128 - 20, &memory))
        // vpmaskmovq [rsi], xmm1, xmm2: the first element only.
        (bench[vector: 1, word: 0], bench[vector: 1, word: 1]) = (1 << 63, 1)
        bench[vector: 2, word: 0] = 0xaaaa
        let store = try #require(access(bench, [0xc4, 0xe2, 0xf1, 0x8e, 0x16]))
        #expect(unsafe store.run(&bench.state.pointee, at: 0x1000 + 120, &memory))
        #expect(memory.load(0x1000 + 120, bytes: 8) == 0xaaaa)
        // maskmovdqu xmm2, xmm3
        bench[vector: 3, word: 0] = 0x80_0000
        bench[vector: 2, word: 0] = 0x5566_7788
        let bytes = try #require(access(bench, [0x66, 0x0f, 0xf7, 0xd3]))
        #expect(unsafe bytes.run(&bench.state.pointee, at: 0x1000, &memory))
        #expect(memory.load(0x1000, bytes: 4) == 0x0366_0100)
    }

    @Test(.enabled(if: ISAFeatures.host.contains(.avx2))) func gathersGoOnAfterAFault() throws {
        let bench = try Bench()
        var memory = SmallMemory()
        for index in 0..<16 { _ = memory.store(0x1000 + 8 * UInt64(index), UInt64(100 + index), bytes: 8) }
        // vpgatherdq ymm0, [rsi + xmm1 * 8], ymm2
        let gather = try #require(access(bench, [0xc4, 0xe2, 0xed, 0x90, 0x04, 0xce]))
        #expect(!gather.isUndefined && gather.memoryBytes == 0)
        (bench[vector: 1, word: 0], bench[vector: 1, word: 1]) = (1 << 32 | 3, 5 << 32 | 99)
        for word in 0..<4 {
            bench[vector: 2, word: word] = word == 1 ? 0 : 1 << 63
            bench[vector: 0, word: word] = 7
        }
        #expect(unsafe !gather.run(&bench.state.pointee, at: 0x1000, &memory))
        #expect((0..<4).map { bench[vector: 0, word: $0] } == [103, 7, 7, 7])
        #expect((0..<4).map { bench[vector: 2, word: $0] } == [0, 0, .max, .max])
        bench[vector: 1, word: 1] = 5 << 32 | UInt64(UInt32(bitPattern: -1))
        #expect(unsafe gather.run(&bench.state.pointee, at: 0x1010, &memory))
        #expect((0..<4).map { bench[vector: 0, word: $0] } == [103, 7, 101, 107])
        #expect((0..<4).map { bench[vector: 2, word: $0] } == [0, 0, 0, 0])
        // vpgatherdd xmm1, [rsi + xmm1], xmm2 names a register twice.
        #expect(access(bench, [0xc4, 0xe2, 0x69, 0x90, 0x0c, 0x0e])?.isUndefined ?? true)
    }

    @Test func saveAndRestore() throws {
        let bench = try Bench()
        var area = [UInt8](repeating: 0, count: 832)
        unsafe bench.state.pointee.xcr0 = 7
        bench.run([0xd9, 0xe8])  // fld1
        for word in 0..<64 { bench[vector: word / 4, word: word % 4] = UInt64(word + 1) }
        bench.mxcsr = 0x1fa0
        #expect(ExtendedState.areaBytes(7) == area.count)
        unsafe area.withUnsafeMutableBytes {
            unsafe ExtendedState.xsave(
                bench.state, mask: .max, into: $0.baseAddress!, optimised: true, pointers64: true, wide: true)
        }
        #expect(area[512] == 7 && area[24] == 0xa0 && area[576] == 3)
        func restore(_ mask: UInt64) -> Bool {
            unsafe area.withUnsafeBytes {
                unsafe ExtendedState.xrstor(
                    bench.state, mask: mask, from: $0.baseAddress!, pointers64: true, wide: true)
            }
        }
        unsafe bench.state.pointee.ymm = InlineArray(repeating: 0)
        bench.run([0xdb, 0xe3])
        bench.mxcsr = 0x1f80
        #expect(restore(7))
        #expect(bench[vector: 15, word: 3] == 64 && bench[vector: 15, word: 0] == 61 && bench.mxcsr == 0x1fa0)
        #expect(bench[st: 0] == 1 << 63)
        // A clear bit of XSTATE_BV puts the component into its initial state, if it is asked for.
        area[512] = 3
        #expect(restore(3) && bench[vector: 15, word: 3] == 64)
        #expect(restore(4) && bench[vector: 15, word: 3] == 0 && bench[vector: 15, word: 0] == 61)
        area[512] = 0
        #expect(restore(1) && bench[st: 0] == 0)
        #expect(unsafe bench.state.pointee.x87[0] == 0x37f)
        // What must not be set: unknown components, XCOMP_BV, the header's reserve, MXCSR's upper half.
        for place in [513, 520, 528, 26] {
            area[place] = 1
            #expect(!restore(7), "byte \(place)")
            area[place] = 0
        }
        #expect(restore(7))
        // The image's MXCSR must go on being the Host's, or our own arithmetic would trap.
        #expect(unsafe bench.state.pointee.x87[3] & 0xffff_ffff == 0x1f80)
    }

    @Test func fxsaveMatchesTheCPUs() throws {
        let bench = try Bench()
        var area = [UInt8](repeating: 0xee, count: 512)
        bench.run([0xd9, 0xeb])  // fldpi
        bench[vector: 9, word: 1] = 0x1234
        unsafe area.withUnsafeMutableBytes {
            unsafe ExtendedState.fxsave(bench.state, into: $0.baseAddress!, pointers64: false, wide: false)
        }
        #expect(Array(area[8..<16]) == [0x44, 0x33, 0x22, 0x11, 0, 0, 0, 0])
        #expect(area[0] == 0x7f && area[1] == 3 && area[4] == 0x80 && area[39] == 0xc9)
        #expect(area[160] == 0 && area[288] == 0xee, "eight registers outside 64-bit mode")
        #expect(area[500] == 0xee)
        bench.run([0xdb, 0xe3])
        let done = unsafe area.withUnsafeBytes {
            unsafe ExtendedState.fxrstor(bench.state, from: $0.baseAddress!, pointers64: false, wide: false)
        }
        #expect(done && bench[st: 0] == 0xc90f_daa2_2168_c235)
        // Bytes that no FXSAVE wrote must not become a pending exception out of nothing.
        area[2] = 0x80
        _ = unsafe area.withUnsafeBytes {
            unsafe ExtendedState.fxrstor(bench.state, from: $0.baseAddress!, pointers64: false, wide: false)
        }
        #expect(unsafe bench.state.pointee.x87[0] & 0x80_0000 == 0)
    }
}
