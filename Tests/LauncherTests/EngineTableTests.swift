import HostInterface
import Launcher
import Synchronization
import Testing
import Translator

/// Which engine is taken, on hosts that lack this or that.
@Suite struct EngineTableTests {
    private struct Untouched: Error {}

    private func engine(_ name: String, missing reason: String? = nil) -> Engine {
        Engine(name: name, unavailability: { reason }, makeVCPU: { _, _, _ in throw Untouched() })
    }

    private func automatic(_ engines: [Engine]) throws -> (name: String, notes: [String]) {
        var notes: [String] = []
        let engine = try EngineTable.engine(named: EngineTable.automatic, of: engines) { notes.append($0) }
        return (engine.name, notes)
    }

    @Test func automaticTakesTheFirst() throws {
        let (name, notes) = try automatic([engine("quick"), engine("slow")])
        #expect(name == "quick" && notes == [])
    }

    @Test func automaticPassesOverWhatDoesNotRunAndSaysWhy() throws {
        let (name, notes) = try automatic([engine("quick", missing: "it is Sunday"), engine("slow")])
        #expect(name == "slow")
        #expect(notes.count == 1 && notes[0].contains("quick") && notes[0].contains("it is Sunday"))
    }

    @Test func aHostForNoEngineIsToldAllReasons() {
        let error = #expect(throws: HostError.self) {
            try automatic([engine("quick", missing: "it is Sunday"), engine("slow", missing: "it rains")])
        }
        #expect(error?.description.contains("quick: it is Sunday; slow: it rains") == true)
    }

    @Test func whatIsAskedForByNameAndDoesNotRunIsAnError() {
        let error = #expect(throws: HostError.self) {
            try EngineTable.engine(named: "quick", of: [engine("quick", missing: "it is Sunday"), engine("slow")])
        }
        for word in ["quick", "it is Sunday", "--engine auto"] {
            #expect(error?.description.contains(word) == true)
        }
    }

    @Test func theTranslatorSaysWhatItMisses() {
        let whole = HostAbilities(hasFlagTransfers: true, executionFailure: nil)
        #expect(TranslatorVCPU.unavailability(on: whole) == nil)
        var old = whole
        old.hasFlagTransfers = false
        #expect(TranslatorVCPU.unavailability(on: old)?.contains("LAHF") == true)
        var sealed = whole
        sealed.executionFailure = "cannot map generated code executable: Operation not permitted"
        #expect(TranslatorVCPU.unavailability(on: sealed) == sealed.executionFailure)
    }

    /// Every x86-64 host that we know of.
    @Test func thisHostRunsTheTranslator() throws {
        let host = HostAbilities.probe()
        #expect(host.hasFlagTransfers && host.executionFailure == nil)
        #expect(try EngineTable.engine(named: EngineTable.automatic).name == TranslatorVCPU.engineName)
    }
}
