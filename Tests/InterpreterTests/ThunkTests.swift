import CZydis
import HostInterface
import Interpreter
import Testing
import VirtualCPU
import X86

@Suite struct ThunkTests {
    private let rax = 0, rcx = 1, rdx = 2, rbx = 3, rsp = 4, rsi = 6, rdi = 7

    @Test func registersAndFlags() throws {
        let bench = try Bench()
        bench[gpr: rcx] = 0x8000_0000_0000_0003
        bench.flags = 0xed7  // all six set, interrupts on, DF on
        #expect(bench.run([0xf3, 0x48, 0x0f, 0xb8, 0xc1]) == true)  // popcnt rax, rcx
        #expect(bench[gpr: rax] == 3)
        #expect(bench.flags == 0x602)
        // 32 bits zero the upper half, 16 and 8 merge.
        bench[gpr: rax] = .max
        bench.run([0xf3, 0x0f, 0xb8, 0xc1])
        #expect(bench[gpr: rax] == 2)
        bench[gpr: rax] = 0x1111_2222_3333_4444
        bench.run([0x66, 0xf3, 0x0f, 0xb8, 0xc1])
        #expect(bench[gpr: rax] == 0x1111_2222_3333_0002)
        // adc rax, rcx reads CF; inc leaves it.
        bench[gpr: rax] = 1
        bench[gpr: rcx] = 1
        bench.flags = 3
        bench.run([0x48, 0x11, 0xc8])
        #expect(bench[gpr: rax] == 3)
        bench.flags = 3
        bench.run([0x48, 0xff, 0xc0])
        #expect(bench[gpr: rax] == 4 && bench.flags & 1 == 1)
        // A shift by CL = 0 leaves every flag.
        bench[gpr: rcx] = 0
        bench.flags = 0x8d7
        bench.run([0x48, 0xd3, 0xe0])
        #expect(bench.flags == 0x8d7)
    }

    @Test func pointersGiveWay() throws {
        let bench = try Bench()
        // Every register is the Guest's, also those that the thunk was called with.
        for register in 0..<16 {
            bench[gpr: register] = 100 + UInt64(register)
            let (rex, low) = (UInt8(register >> 3), UInt8(register & 7))
            bench.store(5)
            bench.run([0x48 | rex << 2, 0x03, low << 3 | 6])  // add reg, [rsi]
            #expect(bench[gpr: register] == 105 + UInt64(register), "add \(register)")
            bench.run([0x48 | rex << 2, 0x0f, 0xc1, low << 3 | 7])  // xadd [rdi], reg
            #expect(bench[gpr: register] == 5 && bench.load() == 110 + UInt64(register), "xadd \(register)")
            bench.run([0x48 | rex, 0x0f, 0xc8 | low])  // bswap reg
            #expect(bench[gpr: register] == UInt64(5).byteSwapped, "bswap \(register)")
        }
        bench[gpr: rsp] = 0x0f0f
        bench[gpr: rdi] = 0xffff
        bench.run([0xc4, 0xe2, 0xd8, 0xf2, 0xc7])  // andn rax, rsp, rdi
        #expect(bench[gpr: rax] == 0xf0f0)
    }

    @Test func locked() throws {
        let bench = try Bench()
        bench.store(7)
        (bench[gpr: rax], bench[gpr: rsi]) = (7, 9)
        let thunk = try #require(bench.thunk([0xf0, 0x48, 0x0f, 0xb1, 0x34, 0x24]))  // lock cmpxchg [rsp], rsi
        #expect(thunk.isLocked && thunk.memoryBytes == 8 && thunk.memoryAccess == .readWrite)
        bench.run([0xf0, 0x48, 0x0f, 0xb1, 0x34, 0x24])
        #expect(bench.load() == 9 && bench.flags & 0x40 != 0)
        // cmpxchg16b takes rax, rbx, rcx, rdx, and its operand must be aligned.
        bench.store(1, 2)
        (bench[gpr: rax], bench[gpr: rdx], bench[gpr: rbx], bench[gpr: rcx]) = (1, 2, 3, 4)
        let wide: [UInt8] = [0xf0, 0x48, 0x0f, 0xc7, 0x0f]
        #expect(bench.thunk(wide)?.alignment == 16)
        bench.run(wide)
        #expect(bench.load(0) == 3 && bench.load(1) == 4)
        bench.run(wide)
        #expect(bench[gpr: rax] == 3 && bench[gpr: rdx] == 4 && bench.flags & 0x40 == 0)
    }

    @Test func highBytes() throws {
        let bench = try Bench()
        bench[gpr: rax] = 0x1122
        bench[gpr: rdx] = 0x3344
        bench.run([0x00, 0xf4])  // add ah, dh
        #expect(bench[gpr: rax] == 0x4422)
        bench.store(0x0f)
        bench.run([0x02, 0x27])  // add ah, [rdi]
        #expect(bench[gpr: rax] == 0x5322)
        bench.run([0x0f, 0xb6, 0xe4])  // movzx esp, ah
        #expect(bench[gpr: rsp] == 0x53)
        bench.run([0x40, 0x00, 0xc4])  // add spl, al: with REX
        #expect(bench[gpr: rsp] == 0x75)
    }

    @Test func otherModes() throws {
        let bench = try Bench()
        bench[gpr: rsp] = 0xffff_ffff
        bench.run([0x44], bits: 32)  // inc esp: a REX prefix in 64-bit mode
        #expect(bench[gpr: rsp] == 0)
        bench[gpr: rcx] = 0x1_ffff
        bench.run([0x41], bits: 16)  // inc cx
        #expect(bench[gpr: rcx] == 0x1_0000)
        bench[gpr: rcx] = 0xffff
        bench.run([0x66, 0x41], bits: 16)  // inc ecx
        #expect(bench[gpr: rcx] == 0x1_0000)
        bench.store(3)
        bench[gpr: rcx] = 5
        bench.run([0x0f, 0xaf, 0x4a, 0x10], bits: 16)  // imul cx, [bp + si + 16]
        #expect(bench[gpr: rcx] == 15)
        #expect(bench.thunk([0x0f, 0xaf, 0x4a, 0x10], bits: 16)?.memoryBytes == 2)
        // 66 has two meanings: pxor mm in 16-bit mode must not become pxor xmm.
        bench[vector: 0, word: 0] = 1
        bench.run([0x0f, 0xef, 0xc0], bits: 16)
        #expect(bench[vector: 0, word: 0] == 1)
    }

    @Test func bitStrings() throws {
        let bench = try Bench()
        bench[gpr: rcx] = UInt64(bitPattern: -65)
        let bytes: [UInt8] = [0xf0, 0x48, 0x0f, 0xab, 0x0e]  // lock bts [rsi], rcx
        let thunk = try #require(bench.thunk(bytes))
        #expect(thunk.bitRegister == 1)
        #expect(unsafe thunk.bitStringOffset(bench.state.pointee) == UInt64(bitPattern: -16))
        bench.store(0)
        bench.run(bytes)
        #expect(bench.load() == 1 << 63)
        #expect(bench[gpr: rcx] == UInt64(bitPattern: -65))
    }

    @Test func roundingAndStickyFlags() throws {
        let bench = try Bench()
        bench[vector: 0, word: 0] = (1.0).bitPattern
        bench[vector: 0, word: 1] = 77
        bench[vector: 0, word: 2] = 88
        bench[vector: 1, word: 0] = (3.0).bitPattern
        let divide: [UInt8] = [0xf2, 0x0f, 0x5e, 0xc1]  // divsd xmm0, xmm1
        bench.run(divide)
        let nearest = bench[vector: 0, word: 0]
        #expect(bench.mxcsr == 0x1fa0)
        #expect(bench[vector: 0, word: 1] == 77 && bench[vector: 0, word: 2] == 88)
        bench[vector: 0, word: 0] = (1.0).bitPattern
        bench.mxcsr = 0x1f80 | 2 << 13  // up
        bench.run(divide)
        #expect(bench[vector: 0, word: 0] == nearest + 1)
        // And our own arithmetic is as it was.
        let (one, three) = (Double(bench.load() & 1) + 1, Double(bench.load() & 0) + 3)
        #expect((one / three).bitPattern == nearest)
    }

    @Test func unmaskedSIMDExceptions() throws {
        let bench = try Bench()
        let divide: [UInt8] = [0x66, 0x0f, 0x5e, 0xc1]  // divpd xmm0, xmm1
        (bench[vector: 0, word: 0], bench[vector: 0, word: 1]) = ((1.0).bitPattern, (1.0).bitPattern)
        (bench[vector: 1, word: 0], bench[vector: 1, word: 1]) = ((0.0).bitPattern, (3.0).bitPattern)
        bench.mxcsr = 0x1f80 & ~(1 << 9)  // divide by zero
        #expect(bench.run(divide) == false)
        #expect(bench[vector: 0, word: 0] == (1.0).bitPattern && bench[vector: 0, word: 1] == (1.0).bitPattern)
        #expect(bench.mxcsr == (0x1f80 & ~(1 << 9)) | 4, "inexact of the other element is not reported")
        // An unmasked one that does not happen: all goes on.
        bench.mxcsr = 0x1f80 & ~(1 << 7)
        #expect(bench.run(divide) == true)
        #expect(bench[vector: 0, word: 0] == Double.infinity.bitPattern)
        #expect(bench.mxcsr == (0x1f80 & ~(1 << 7)) | 0x24)
        // A tiny but exact result underflows only when unmasked.
        let multiply: [UInt8] = [0xf2, 0x0f, 0x59, 0xc1]
        bench[vector: 0, word: 0] = Double.leastNormalMagnitude.bitPattern
        bench[vector: 1, word: 0] = (0.5).bitPattern
        bench.mxcsr = 0x1f80
        #expect(bench.run(multiply) == true && bench.mxcsr == 0x1f80)
        bench[vector: 0, word: 0] = Double.leastNormalMagnitude.bitPattern
        bench.mxcsr = 0x1f80 & ~(1 << 11)
        #expect(bench.run(multiply) == false && bench.mxcsr & 0x3f == 0x10)
    }

    @Test func x87KeepsTheGuestsAddresses() throws {
        let bench = try Bench()
        bench.run([0xd9, 0xe8])  // fld1
        bench.store(UInt64((2.5).bitPattern))
        bench.run([0xdc, 0x06])  // fadd qword [rsi]
        #expect(bench[st: 0] == 0xe000_0000_0000_0000)  // 3.5
        #expect(unsafe bench.state.pointee.x87[1] == 0x1122_3344)
        #expect(unsafe bench.state.pointee.x87[2] == 0x5566_7788)
        #expect(unsafe bench.state.pointee.x87[0] >> 48 == 0x406)
        #expect(unsafe bench.state.pointee.x87[3] & 0xffff_ffff == 0x1f80)
        // FNSTENV gives the Guest what the Guest may know.
        bench.run([0xd9, 0x36])
        #expect(unsafe bench.operand.load(fromByteOffset: 12, as: UInt32.self) == 0x1122_3344)
        #expect(unsafe bench.operand.load(fromByteOffset: 20, as: UInt32.self) == 0x5566_7788)
        #expect(bench.thunk([0x66, 0xd9, 0x36])?.memoryBytes == 14)
        // All loads of the image and its stores agree about what FNSAVE keeps.
        bench.run([0xdd, 0x36])  // fnsave
        #expect(unsafe bench.state.pointee.x87[1] == 0)
        bench.run([0xdd, 0x26])  // frstor
        #expect(bench[st: 0] == 0xe000_0000_0000_0000)
        #expect(unsafe bench.state.pointee.x87[1] == 0x1122_3344)
    }

    @Test func x87ExceptionsStayPending() throws {
        let bench = try Bench()
        bench.store(0x37b)  // divide by zero unmasked
        bench.run([0xd9, 0x2e])  // fldcw
        bench.run([0xd9, 0xe8])  // fld1
        bench.run([0xd9, 0xee])  // fldz
        bench.run([0xde, 0xf9])  // fdivp st1
        let status: [UInt8] = [0xdf, 0xe0]  // fnstsw ax
        bench.run(status)
        #expect(bench[gpr: rax] & 0x8084 == 0x8084)
        let add = try #require(bench.thunk([0xd8, 0xc1]))
        #expect(unsafe add.gateFault(bench.state.pointee) == Vector.floatingPoint)
        #expect(unsafe bench.thunk(status)?.gateFault(bench.state.pointee) == nil)
        #expect(unsafe bench.thunk([0x9b])?.gateFault(bench.state.pointee) == Vector.floatingPoint)
        bench.run([0xdb, 0xe2])  // fnclex
        #expect(unsafe add.gateFault(bench.state.pointee) == nil)
    }

    @Test func mmxAndItsNeighbours() throws {
        let bench = try Bench()
        bench.store(0x0102_0304_0506_0708)
        bench.run([0x0f, 0x6f, 0x0e])  // movq mm1, [rsi]
        bench.run([0x0f, 0xfc, 0xc9])  // paddb mm1, mm1
        bench.run([0xf3, 0x0f, 0xd6, 0xd1])  // movq2dq xmm2, mm1
        #expect(bench[vector: 2, word: 0] == 0x0204_0608_0a0c_0e10)
        #expect(bench[st: 1] == 0x0204_0608_0a0c_0e10)
        bench.store(0x0000_0002_0000_0001)
        bench.run([0x0f, 0x6f, 0x06])
        bench.run([0x0f, 0x2a, 0xc0])  // cvtpi2ps xmm0, mm0
        #expect(bench[vector: 0, word: 0] == 0x4000_0000_3f80_0000)
        let gate = try #require(bench.thunk([0x0f, 0x2a, 0xc0])).gate
        #expect(gate == [.mmx, .sse, .waitsForFPU])
        #expect(unsafe bench.state.pointee.x87[0] >> 32 & 0xff == 0xff)
        bench.run([0x0f, 0x77])  // emms
        #expect(unsafe bench.state.pointee.x87[0] >> 32 & 0xff == 0)
    }

    @Test(.enabled(if: ISAFeatures.host.contains(.avx2))) func upperHalves() throws {
        let bench = try Bench()
        for word in 0..<4 {
            bench[vector: 0, word: word] = 1
            bench[vector: 1, word: word] = 2
        }
        bench.run([0x66, 0x0f, 0xd4, 0xc1])  // paddq xmm0, xmm1
        #expect((0..<4).map { bench[vector: 0, word: $0] } == [3, 3, 1, 1])
        bench.run([0xc5, 0xf9, 0xd4, 0xc1])  // vpaddq xmm0, xmm0, xmm1
        #expect((0..<4).map { bench[vector: 0, word: $0] } == [5, 5, 0, 0])
        bench.run([0xc5, 0xfd, 0xd4, 0xc1])  // vpaddq ymm0, ymm0, ymm1
        #expect((0..<4).map { bench[vector: 0, word: $0] } == [7, 7, 2, 2])
        bench.run([0xc4, 0x41, 0x7d, 0x6f, 0xc8])  // vmovdqa ymm9, ymm8
        #expect((0..<4).map { bench[vector: 9, word: $0] } == [0, 0, 0, 0])
        bench.run([0xc4, 0xe1, 0xf9, 0x6e, 0xc1], bits: 32)  // W ignored: vmovd xmm0, ecx
        bench[gpr: rcx] = .max
        bench.run([0xc4, 0xe1, 0xf9, 0x6e, 0xc1], bits: 32)
        #expect(bench[vector: 0, word: 0] == 0xffff_ffff)
    }

    @Test func alignments() throws {
        let bench = try Bench()
        let table: [([UInt8], UInt8, Int)] = [
            ([0x0f, 0x28, 0x06], 16, 16),  // movaps
            ([0x0f, 0x10, 0x06], 1, 16),  // movups
            ([0x66, 0x0f, 0x6f, 0x06], 16, 16),  // movdqa
            ([0xf3, 0x0f, 0x6f, 0x06], 1, 16),  // movdqu
            ([0xf2, 0x0f, 0xf0, 0x06], 1, 16),  // lddqu
            ([0x66, 0x0f, 0xfc, 0x06], 16, 16),  // paddb
            ([0xf2, 0x0f, 0x58, 0x06], 1, 8),  // addsd
            ([0x66, 0x0f, 0x3a, 0x63, 0x06, 0], 1, 16),  // pcmpistri
            ([0x66, 0x0f, 0x38, 0x30, 0x06], 1, 8),  // pmovzxbw
            ([0x0f, 0xfc, 0x06], 1, 8),  // paddb mm
            ([0xc5, 0xfc, 0x28, 0x06], 32, 32),  // vmovaps ymm
            ([0xc5, 0xfc, 0x10, 0x06], 1, 32),  // vmovups ymm
            ([0xc5, 0xf8, 0x58, 0x06], 1, 16),  // vaddps xmm
            ([0xdb, 0x2e], 1, 10),  // fld m80
        ]
        for (bytes, alignment, size) in table {
            if bytes[0] == 0xc5, !ISAFeatures.host.contains(.avx) { continue }
            let thunk = try #require(bench.thunk(bytes), "\(bytes)")
            #expect(thunk.alignment == alignment && thunk.memoryBytes == size, "\(bytes)")
        }
    }

    @Test func gates() throws {
        let bench = try Bench()
        let add = try #require(bench.thunk([0x0f, 0x58, 0xc1]))
        #expect(unsafe add.gateFault(bench.state.pointee) == Vector.invalidOpcode, "no OSFXSR")
        unsafe bench.state.pointee.cr4 = CR4.osFXSR
        #expect(unsafe add.gateFault(bench.state.pointee) == nil)
        unsafe bench.state.pointee.cr0 |= CR0.taskSwitched
        #expect(unsafe add.gateFault(bench.state.pointee) == Vector.deviceNotAvailable)
        #expect(unsafe bench.thunk([0x9b])?.gateFault(bench.state.pointee) == nil, "FWAIT wants MP too")
        unsafe bench.state.pointee.cr0 = CR0.emulation
        #expect(unsafe add.gateFault(bench.state.pointee) == Vector.invalidOpcode)
        #expect(unsafe bench.thunk([0xd8, 0xc1])?.gateFault(bench.state.pointee) == Vector.deviceNotAvailable)
        #expect(bench.thunk([0x48, 0x0f, 0xb1, 0x0e])?.gate.isEmpty == true)
    }

    @Test func sensitiveInstructionsHaveNone() throws {
        let bench = try Bench()
        let sensitive: [[UInt8]] = [
            [0x0f, 0x05], [0x0f, 0xa2], [0x0f, 0x31], [0xf4], [0xcc], [0xcd, 0x80], [0x50], [0x58], [0xc3],
            [0xe8, 0, 0, 0, 0], [0x74, 0], [0xff, 0x26], [0x9c], [0x9d], [0xc8, 0, 0, 0], [0xc9], [0xfa], [0xfb],
            [0xfc], [0xfd], [0xee], [0xec], [0xa4], [0xf3, 0x48, 0xab], [0x8e, 0xd8], [0x8c, 0xd8], [0x0f, 0x20, 0xc0],
            [0x0f, 0x22, 0xc0], [0x0f, 0x01, 0xd0], [0x0f, 0x01, 0xf9], [0x0f, 0x01, 0x16], [0x0f, 0xae, 0x06],
            [0x0f, 0xae, 0x0e], [0x0f, 0xae, 0x16], [0x0f, 0xae, 0x1e], [0x0f, 0xae, 0x26], [0x0f, 0xae, 0x3e],
            [0xf3, 0x48, 0x0f, 0xae, 0xc0], [0xf3, 0x48, 0x0f, 0xae, 0xd0], [0x48, 0xf7, 0xf1], [0x48, 0xf7, 0xf9],
            [0x0f, 0x0b], [0x48, 0x8d, 0x06], [0x48, 0xa1, 0, 0, 0, 0, 0, 0, 0, 0], [0xd7], [0x0f, 0x18, 0x06],
            [0xc5, 0xf8, 0x77], [0xc4, 0xe2, 0x79, 0x2c, 0x06], [0x66, 0x0f, 0xf7, 0xc1], [0xf3, 0x90],
            [0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc1], [0xc7, 0xf8, 0, 0, 0, 0], [0x0f, 0x30], [0x0f, 0x32], [0x0f, 0x08],
            [0xc4, 0xe2, 0x7d, 0xdc, 0xc1],  // VAES
        ]
        for bytes in sensitive { #expect(bench.thunk(bytes) == nil, "\(bytes)") }
    }
}
