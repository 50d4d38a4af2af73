import HostInterface
import Testing

/// What `--verbose` and `--profile` tell when a Guest has ended.
@Suite struct ProfileTests {
    private func run(_ kernel: TinyKernel, _ more: [String]) throws -> Subprocess.Result {
        try kernel.withFile { try Subprocess.run(["timeout", "20", Command.path, "run", "--kernel", $0] + more) }
    }

    /// Benchmarks/report.sh reads these.
    @Test func verboseEndsWithTheEnginesFigures() throws {
        let result = try run(.powersOff, ["--engine", "translator", "--verbose"])
        #expect(result.status == 0)
        let lines = result.errorText.split(separator: "\n")
        for name in [
            "translated-instructions", "translated-bytes", "translation-nanoseconds", "code-bytes", "flushes",
            "longest-stall-nanoseconds", "tlb-fills", "tlb-flushes", "interpreted",
        ] {
            let line = lines.first { $0.hasPrefix("translator: \(name) ") }
            #expect(line.flatMap { UInt64($0.split(separator: " ")[2]) } != nil, "no \(name) in \(result.errorText)")
        }
    }

    @Test func withoutItThereIsNothing() throws {
        #expect(try run(.powersOff, ["--engine", "translator"]).errorText == "")
    }

    /// Runs it to its end; what it came to, and what was written.
    private func profile(_ kernel: TinyKernel, _ more: String...) throws -> (result: Subprocess.Result, text: String) {
        let folder = try Files.createTemporaryFolder(beside: "/tmp/roost-profile")
        defer { Files.remove(folder) }
        let result = try run(kernel, more + ["--profile", folder + "/profile"])
        return (result, String(decoding: try readFile(folder + "/profile"), as: UTF8.self))
    }

    @Test(arguments: ["translator", "interpreter"])
    func aProfileIsWritten(_ engine: String) throws {
        let (result, text) = try profile(.powersOff, "--engine", engine)
        #expect(result.status == 0 && result.errorText == "")
        #expect(text.hasPrefix("Profile of a guest on the engine \(engine)\n"))
        #expect(text.contains("out to port 0x604"))
        for section in ["Samples by function", "TLB misses", "Interrupts", "Exceptions", "Instructions left"] {
            #expect(text.contains("== " + section))
        }
    }

    /// A Guest that dies, or is reset, has been watched all the same.
    @Test func howeverTheGuestEnds() throws {
        let (death, causes) = try profile(.dies)
        #expect(death.status == 70 && causes.contains("#UD"))
        let (reset, exits) = try profile(.resets, "--no-reboot")
        #expect(reset.status == 0 && exits.contains("out to port 0x64"))
    }
}
