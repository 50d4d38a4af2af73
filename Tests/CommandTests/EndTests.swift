import Glibc
import HostInterface
import Synchronization
import Testing

/// How a Guest can end, and what of it the user sees.
@Suite struct EndTests {
    private func run(_ kernel: TinyKernel, _ more: String...) throws -> Subprocess.Result {
        try kernel.withFile { try Subprocess.run(["timeout", "20", Command.path, "run", "--kernel", $0] + more) }
    }

    @Test func poweroffIsSuccess() throws { #expect(try run(.powersOff).status == 0) }

    @Test func theExitPortGivesTheStatus() throws { #expect(try run(.exits).status == 5 * 2 + 1) }

    @Test func rebootEndsWhereItIsNotWanted() throws { #expect(try run(.resets, "--no-reboot").status == 0) }

    /// It goes on and on, until timeout(1) has had enough.
    @Test func rebootRestarts() throws {
        let result = try TinyKernel.resets.withFile {
            try Subprocess.run(["timeout", "2", Command.path, "run", "--kernel", $0])
        }
        #expect(result.status == 124)
    }

    @Test func aDeadGuestIsReported() throws {
        let result = try run(.dies)
        #expect(result.status == 70)
        let lines = result.errorText.split(separator: "\n")
        #expect(lines.first?.hasPrefix("roost: the guest died: ") == true)
        #expect(result.errorText.contains("0000000000100020"), "no RIP")
        #expect(result.errorText.contains("0f 0b"), "no bytes at RIP")
        #expect(result.output == [])
    }
}

/// What a Guest is told of its machine where it will not look at the ACPI tables.
@Suite struct WithoutACPITests {
    private func look(_ line: String) throws -> Subprocess.Result {
        try TinyKernel.looksAround.withFile {
            try Subprocess.run(["timeout", "20", Command.path, "run", "--kernel", $0, "--append", line])
        }
    }

    @Test func thereIsAnMPTableAndTheDevicesAreNamed() throws {
        let result = try look("acpi=off -- for init")
        #expect(result.status == 4 * 2 + 1, "\(result.errorText)")
        let line = String(decoding: result.output, as: UTF8.self)
        #expect(line.hasSuffix(" acpi=off virtio_mmio.device=4K@0xd0000000:16 -- for init"), "\(line)")
    }

    @Test func withACPIThereIsNeither() throws {
        let result = try look("acpi=strict")
        #expect(result.status == 1, "\(result.errorText)")
        let line = String(decoding: result.output, as: UTF8.self)
        #expect(line.hasSuffix(" acpi=strict"), "\(line)")
    }
}

/// The terminal is the user's again, whatever happens.
@Suite(.serialized) struct TerminalTests {
    /// Runs a Guest that prints and then sleeps for ever, with the terminal
    /// as its input; calls `act` once the terminal is raw.
    private func session(_ act: (PseudoTerminal, Int32) throws -> Void) throws -> (
        status: Int32, terminal: PseudoTerminal
    ) {
        let terminal = try PseudoTerminal()
        #expect(terminal.isOrdinary)
        let path = Command.path
        let pid = Atomic<Int32>(0)
        let status = Atomic<Int32>(-1)
        try TinyKernel.prints.withFile { file in
            try withoutActuallyEscaping(act) { act in
                let input = terminal.terminal
                let child = try Child(path, file, input)
                defer { child.join() }
                // 10 s: the machine may be busy.
                for _ in 0..<1000 where !terminal.isRaw && child.pid.load(ordering: .acquiring) >= 0 { usleep(10_000) }
                #expect(terminal.isRaw, "never became raw")
                pid.store(child.pid.load(ordering: .acquiring), ordering: .relaxed)
                try act(terminal, pid.load(ordering: .relaxed))
                child.join()
                status.store(child.status.load(ordering: .acquiring), ordering: .relaxed)
            }
        }
        return (status.load(ordering: .relaxed), terminal)
    }

    private final class Child: Sendable {
        let pid = Atomic<Int32>(0)
        let status = Atomic<Int32>(-1)
        private let thread = Mutex<HostThread?>(nil)

        init(_ path: String, _ file: String, _ input: Int32) throws {
            let thread = try HostThread(name: "child") { [self] in
                let result = try? Subprocess.run(
                    ["timeout", "--foreground", "30", path, "run", "--kernel", file], input: input,
                    // Swift's own report of a crash takes many seconds, and is not what we test.
                    environment: ["SWIFT_BACKTRACE": "enable=no"],
                    started: { pid.store($0, ordering: .releasing) })
                status.store(result?.status ?? -2, ordering: .releasing)
            }
            self.thread.withLock { $0 = thread }
        }

        func join() { thread.withLock { $0.take() }?.join() }
    }

    /// timeout(1) is between us and the command, and hands signals on, but for those that it cannot catch.
    private func kill(childOf pid: Int32, _ signal: Int32) throws {
        _ = try Subprocess.run(["pkill", "-\(signal)", "-P", "\(pid)"])
    }

    @Test func controlAXQuits() throws {
        let (status, terminal) = try session { terminal, _ in terminal.type("\u{1}x") }
        #expect(status == 0)
        #expect(terminal.isOrdinary)
    }

    @Test func threeInterruptsQuit() throws {
        let (status, terminal) = try session { terminal, _ in terminal.type("\u{3}\u{3}\u{3}") }
        #expect(status == 0)
        #expect(terminal.isOrdinary)
    }

    @Test(arguments: [SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP])
    func anySignalRestoresIt(_ signal: Int32) throws {
        let (status, terminal) = try session { _, pid in try kill(childOf: pid, signal) }
        #expect(status == 128 + signal || status == signal, "it was to die of the signal, not to exit with \(status)")
        #expect(terminal.isOrdinary)
    }

    @Test func stoppingGivesItBackAndGoingOnTakesIt() throws {
        let (status, terminal) = try session { terminal, pid in
            try kill(childOf: pid, SIGTSTP)
            for _ in 0..<500 where !terminal.isOrdinary { usleep(10_000) }
            #expect(terminal.isOrdinary, "raw while stopped")
            try kill(childOf: pid, SIGCONT)
            for _ in 0..<500 where !terminal.isRaw { usleep(10_000) }
            #expect(terminal.isRaw, "not raw again")
            terminal.type("\u{1}x")
        }
        #expect(status == 0)
        #expect(terminal.isOrdinary)
    }
}
