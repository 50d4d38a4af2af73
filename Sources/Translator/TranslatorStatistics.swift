internal import HostInterface
internal import Interpreter
internal import VirtualCPU

//S:550 What it comes to
//
// A program that computes runs at a half to a third of the CPU's own speed; one
// that copies, calls the kernel or waits for a pipe, at nearly all of it, for
// there the Host's CPU does in one instruction what the Guest's was meant to.
// Of what is lost, most goes into the checks of addresses (S:470): eight
// instructions for an access that shares its check with no other. Returns
// and far jumps take six (S:500), flags that nobody wants, but who knows, five.
//
// `make bench` measures it against QEMU's TCG, row by row, and writes what it
// finds into SPECIFICATION.md, with what was tried where it falls short. What
// a run did is counted here, and printed at its end by --verbose.
//:

/// What the Translator counts of its own work.
struct TranslatorStatistics {
    /// How often all code was forgotten, and the longest that the Guest waited for it, in ticks.
    var flushes: UInt64 = 0
    var longestStall: UInt64 = 0
    /// How often code was looked up by RIP: for jumps that the jump table did not know, and
    /// behind instructions of the Interpreter's after which the block does not go on.
    var lookUps: UInt64 = 0
    /// Of `BlockTranslator.translatedBytes`: what was forgotten.
    var forgottenBytes: UInt64 = 0
}

/// A moment, by the time-stamp counter: to ask a clock would cost as much as what we measure.
struct TimeStamp {
    private let counter = HostClock.timeStampCounter

    /// Ticks since then.
    var elapsed: UInt64 { HostClock.timeStampCounter &- counter }

    static func nanoseconds(ticks: UInt64) -> UInt64 {
        let frequency = HostClock.timeStampFrequency
        let (high, low) = ticks.multipliedFullWidth(by: 1_000_000_000)
        return high < frequency ? frequency.dividingFullWidth((high, low)).quotient : .max
    }
}

extension Translator {
    /// For `--verbose`; Benchmarks/report.sh reads these names, docs/profiling.md explains them.
    var report: EngineReport {
        let fallbacks = core.fallbackFigures
        return EngineReport(
            figures: [
                EngineReport.Figure("translated-instructions", blocks.translatedInstructions),
                EngineReport.Figure("translated-bytes", blocks.translatedBytes &- statistics.forgottenBytes),
                EngineReport.Figure("translation-nanoseconds", TimeStamp.nanoseconds(ticks: blocks.translationTicks)),
                EngineReport.Figure("code-bytes", UInt64(store.usedBytes)),
                EngineReport.Figure("flushes", statistics.flushes),
                EngineReport.Figure("longest-stall-nanoseconds", TimeStamp.nanoseconds(ticks: statistics.longestStall)),
                EngineReport.Figure("tlb-fills", tlb.fills),
                EngineReport.Figure("tlb-flushes", tlb.flushes),
                EngineReport.Figure("jump-table-misses", statistics.lookUps),
                EngineReport.Figure("interpreted", fallbacks.reduce(0) { $0 &+ $1.value }),
            ], fallbacks: fallbacks)
    }
}
