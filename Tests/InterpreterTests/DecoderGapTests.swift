import Interpreter
import Testing
import VirtualCPU
import X86

/// What Zydis 4.0 says too little about, one by one. The differential runs find
/// these too, but only on a Host that has them.
@Suite struct DecoderGapTests {
    private let rax = 0, rcx = 1, rdx = 2

    /// An operand of 16 bytes whose other side is MMX: a thunk that ran misaligned would take us along.
    @Test func conversionsToMMXWantAlignment() throws {
        let bench = try Bench()
        for opcode: UInt8 in [0x2d, 0x2c] {
            let thunk = try #require(bench.thunk([0x66, 0x0f, opcode, 0x06]))  // cvtpd2pi, cvttpd2pi mm0, [rsi]
            #expect(thunk.memoryBytes == 16 && thunk.alignment == 16)
            #expect(thunk.gate.contains(.sse) && thunk.gate.contains(.mmx))
        }
        // From memory to XMM they leave x87 alone.
        let other = try #require(bench.thunk([0x0f, 0x2a, 0x06]))  // cvtpi2ps xmm0, [rsi]
        #expect(other.fpu == .untouched && !other.gate.contains(.waitsForFPU))
    }

    @Test func x87ByItsOpcodes() throws {
        let bench = try Bench()
        bench.run([0xd9, 0xee])  // fldz
        bench.run([0xd9, 0xe8])  // fld1
        bench.flags = 0x8d7
        #expect(bench.run([0xdb, 0xf1]) == true)  // fcomi st0, st1
        #expect(bench.flags == 2)
        #expect(bench.run([0xdb, 0x0e]) == true)  // fisttp dword [rsi]
        #expect(bench.load() & 0xffff_ffff == 1)
        // One left: TOP is 7.
        #expect(unsafe bench.state.pointee.x87[0] >> 27 & 7 == 7)
    }

    @Test(.enabled(if: ISAFeatures.host.contains(.avx))) func vectorTestsSetFlags() throws {
        let bench = try Bench()
        for word in 0..<4 { bench[vector: 1, word: word] = 0 }
        for opcode: UInt8 in [0x17, 0x0e, 0x0f] {  // vptest, vtestps, vtestpd xmm1, xmm1
            bench.flags = 0x896
            #expect(bench.run([0xc4, 0xe2, 0x79, opcode, 0xc9]) == true)
            #expect(bench.flags == 0x43, "opcode \(opcode)")
        }
    }

    @Test func countsOfNothing() throws {
        let bench = try Bench()
        bench[gpr: rax] = 5
        bench[gpr: rcx] = 7
        bench.flags = 0x8d7
        bench.run([0x48, 0x0f, 0xa4, 0xc8, 0x40])  // shld rax, rcx, 64
        #expect(bench[gpr: rax] == 5 && bench.flags == 0x8d7)
    }
}
