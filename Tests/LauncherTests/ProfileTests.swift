import GuestMemory
import Launcher
import Testing
import VirtualCPU

@Suite struct ProfileTests {
    @Test func exitsAreCountedAndTimed() {
        let profile = GuestProfile()
        profile.enters(at: 1000)
        profile.leaves(.portRead(port: 0x60, bytes: 1), at: 1100)
        profile.enters(at: 1130)
        profile.leaves(.portRead(port: 0x60, bytes: 1), at: 1200)
        profile.enters(at: 1205)
        profile.leaves(.halt, at: 1300)
        profile.enters(at: 2300)
        profile.leaves(.mmioWrite(GuestPhysicalAddress(0xfec0_0010), bytes: 4, value: 1), at: 2400)
        #expect(profile.guestNanoseconds == 100 + 70 + 95 + 100)
        #expect(profile.exits[.portRead(0x60)] == GuestProfile.Exits(count: 2, nanoseconds: 35))
        #expect(profile.exits[.halt] == GuestProfile.Exits(count: 1, nanoseconds: 1000))
        #expect(profile.exits[.mmioWrite(page: 0xfec00)] == GuestProfile.Exits(count: 1, nanoseconds: 0))
    }

    /// What comes between a Guest's end and its next start is nobody's time.
    @Test func timeBetweenTwoLivesDoesNotCount() {
        let profile = GuestProfile()
        profile.enters(at: 0)
        profile.leaves(.stopped, at: 10)
        profile.enters(at: 1_000_000)
        profile.leaves(.halt, at: 1_000_005)
        #expect(profile.guestNanoseconds == 15)
        #expect(profile.exits[.stopped]?.nanoseconds == 0)
    }

    @Test func aGuestCannotFillOurMemoryWithCauses() {
        let profile = GuestProfile()
        for index in 0..<20_000 as Range<UInt32> { profile.leaves(.readMSR(index), at: 0) }
        #expect(profile.exits.count <= GuestProfile.mostCauses + 1)
        #expect(profile.exits.reduce(0) { $0 + $1.value.count } == 20_000)
    }

    @Test func aGuestCannotFillOurMemoryWithPlaces() {
        var counts = PlaceCounts()
        let most = PlaceCounts.mostPlaces
        for index in 0..<most + 10 { counts.add(CodePlace(UInt64(index))) }
        counts.add(CodePlace(0))
        #expect(counts.counts.count == most && counts.elsewhere == 10 && counts.total == UInt64(most + 11))
        #expect(counts.counts[CodePlace(0)] == 2)
    }

    @Test func theReportIsSortedAndCut() {
        let many = (1...25 as ClosedRange<UInt64>).map { EngineReport.Figure("i\($0)", $0) }
        let report = EngineReport(
            figures: [EngineReport.Figure("flushes", 3)], fallbacks: many + [EngineReport.Figure("never", 0)])
        let lines = report.text(engine: "translator").split(separator: "\n")
        #expect(lines.first == "translator: flushes 3")
        #expect(lines[1] == "translator: fallback i25 25")
        #expect(lines.count == 1 + 20 + 1)
        #expect(lines.last == "translator: fallback others 15")
        #expect(EngineReport().text(engine: "interpreter") == "")
    }

    @Test func theTextHasEverySection() {
        let profile = GuestProfile()
        profile.enters(at: 0)
        profile.leaves(.writeMSR(0x6e0, value: 0), at: 3_000_000)
        profile.enters(at: 4_000_000)
        profile.addInterrupt(0xec)
        for _ in 0..<3 { profile.engine.addSample(CodePlace(0xffff_ffff_8100_0000)) }
        profile.engine.addSample(CodePlace(0x40_1000, program: 0x1234_5000))
        profile.engine.addTLBMiss(CodePlace(0x40_2000, program: 0x1234_5000, isPage: true))
        profile.engine.addException(14)
        let report = EngineReport(
            figures: [EngineReport.Figure("flushes", 3)], fallbacks: [EngineReport.Figure("wrmsr", 7)])
        let text = ProfileText(
            engine: "translator", report: report, profile: profile, names: GuestSymbols([], systemCallEntry: 0)
        ).description
        for line in [
            "in the guest: 0.003 s,  75.0%", "in the host: 0.001 s,  25.0%", "samples: 4",
            "== Samples by function: 4", "         3  75.0%  kernel, without a name",
            "         1  25.0%  program with page tables at 0x12345000",
            "         3  75.0%  kernel 0xffffffff81000000",
            "== TLB misses of data: 1",
            "         1 100.0%  program 0x402000, somewhere in this page (page tables at 0x12345000)",
            "== Exits: 1", "         1 100.0%       1.0  wrmsr 0x6e0", "== Interrupts delivered: 1",
            "         1 100.0%  vector 0xec", "         1 100.0%  #PF", "         7 100.0%  wrmsr",
            "              3  flushes",
        ] { #expect(text.split(separator: "\n").contains { $0 == line }, "no line '\(line)' in\n\(text)") }
    }
}
