import CPUOracle
import Testing

@Suite struct HostCPUTests {
    let host = HostCPU(image: MemoryImage(seed: 1))

    @Test func layoutsAreThoseOfC() { #expect(HostCPU.layoutsAgree) }

    @Test func addsAndSetsFlags() {
        var test = TestCase(code: [0x48, 0x01, 0xc8])  // add rax, rcx
        test.gpr[0] = 0x7fff_ffff_ffff_ffff
        test.gpr[1] = 1
        let outcome = host.run(test)
        #expect(outcome.vector == 3)
        #expect(outcome.gpr[0] == 1 << 63)
        #expect(outcome.rflags & 0x8d5 == 0x894)  // OF SF AF PF
        #expect(outcome.rip == test.rip + 4)
        #expect(outcome.changeCount == 0)
    }

    @Test func everyRegisterArrivesAndReturns() {
        var test = TestCase(code: [0x90])
        for index in 0..<16 { test.gpr[index] = UInt64(index) &* 0x0123_4567_89ab_cdef }
        for index in 0..<64 { test.ymm[index] = UInt64(index) &* 0xfedc_ba98_7654_3211 }
        for index in 0..<8 {
            test.fxsave[4 + 2 * index] = 1 << 63 | UInt64(index)
            test.fxsave[5 + 2 * index] = 0x3fff
        }
        test.fxsave[0] = 0xff_3800_037f
        test.mxcsr = 0x5fbf
        let outcome = host.run(test)
        for index in 0..<16 { #expect(outcome.gpr[index] == test.gpr[index]) }
        for index in 0..<64 { #expect(outcome.ymm[index] == test.ymm[index]) }
        for index in 0..<20 where index != 3 { #expect(outcome.fxsave[index] == test.fxsave[index]) }
        #expect(outcome.mxcsr == 0x5fbf)
    }

    @Test func divisionByZeroIsVector0() {
        var test = TestCase(code: [0xf7, 0xf1])  // div ecx
        test.gpr[1] = 0
        let outcome = host.run(test)
        #expect(outcome.vector == 0)
        #expect(outcome.rip == test.rip)
    }

    @Test func storeOverTheEndFaultsAtTheUnmappedPage() {
        var test = TestCase(code: [0x48, 0x89, 0x08])  // mov [rax], rcx
        test.gpr[0] = OracleLayout.data.upperBound - 3
        let outcome = host.run(test)
        #expect(outcome.vector == 14)
        #expect(outcome.errorCode == 6)  // user, write, not present
        #expect(outcome.cr2 == OracleLayout.data.upperBound)
        #expect(outcome.changeCount == 0)
    }

    @Test func storeIntoReadOnlyPageIsAProtectionFault() {
        var test = TestCase(code: [0x48, 0x89, 0x08])
        test.gpr[0] = OracleLayout.rom.lowerBound + 8
        let outcome = host.run(test)
        #expect(outcome.vector == 14)
        #expect(outcome.errorCode == 7)
    }

    @Test func nonCanonicalAddressIsGeneralProtection() {
        var test = TestCase(code: [0x48, 0x89, 0x08])
        test.gpr[0] = 1 << 50
        #expect(host.run(test).vector == 13)
    }

    @Test func unmaskedVectorExceptionIsVector19() {
        var test = TestCase(code: [0x0f, 0x5e, 0xc1])  // divps xmm0, xmm1
        test.mxcsr = 0x1f80 & ~(1 << 9)
        test.ymm[0] = 0x3f80_0000_3f80_0000
        test.ymm[1] = test.ymm[0]
        let outcome = host.run(test)
        #expect(outcome.vector == 19)
        #expect(outcome.mxcsr & 4 == 4)
        #expect(outcome.ymm[0] == test.ymm[0])
    }

    @Test func pendingX87ExceptionIsVector16() {
        var test = TestCase(code: [0xd9, 0xe8])  // fld1
        test.fxsave[0] = 0x8081_037e  // invalid: unmasked, pending
        #expect(host.run(test).vector == 16)
    }

    @Test func storesAreSeenAndUndone() {
        var test = TestCase(code: [0x48, 0x89, 0x08])
        test.gpr[0] = OracleLayout.stack.lowerBound + 0x20
        test.gpr[1] = 0x1122_3344_5566_7788
        test.patch(OracleLayout.stack.lowerBound + 0x20, [1, 2, 3, 4, 5, 6, 7, 8])
        let outcome = host.run(test)
        #expect(outcome.changeCount == 1)
        #expect(outcome.changes[0].address == test.gpr[0])
        #expect(outcome.changes[0].value == test.gpr[1])
        var look = TestCase(code: [0x48, 0x8b, 0x08])  // mov rcx, [rax]
        look.gpr[0] = test.gpr[0]
        #expect(host.run(look).gpr[1] == MemoryImage(seed: 1).words[1024 + 4])
    }

    @Test func endlessLoopIsGivenUpAndTheNextCaseRuns() {
        host.patience = 100
        let outcomes = host.run([TestCase(code: [0xeb, 0xfe]), TestCase(code: [0x90])])
        #expect(outcomes[0].vector == Outcome.timedOut)
        #expect(outcomes[1].vector == 3)
    }

    @Test func systemCallEndsTheChildAlone() {
        var test = TestCase(code: [0x0f, 0x05])  // syscall
        test.gpr[0] = 39  // getpid
        let outcomes = host.run([test, TestCase(code: [0x90])])
        #expect(outcomes[0].vector == Outcome.died)
        #expect(outcomes[1].vector == 3)
    }
}
