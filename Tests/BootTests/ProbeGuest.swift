import HostInterface
import Launcher
import Testing

/// A Guest at whose console a test sits. Its shell does one line after the
/// other, and one of them starts the probe (Tests/GrantPrograms), which has an
/// answer for each.
final class ProbeGuest {
    /// What the Guest's shell is.
    static let command = #"stty -echo; while read -r line; do eval "$line"; echo "status $?"; done"#

    let name: String
    /// What the others know it by. As long as there has been no probe, 0.
    private(set) var domid = 0

    private let console: FileDescriptor
    private var reader = ControlFrameReader()
    /// Printed, and no line yet.
    private var text: [UInt8] = []
    private var lines: [String] = []
    private var lastLines: [String] = []
    private var marks = 0
    private var hasProbe = false
    /// Why it ended, if it has.
    private(set) var end: String?

    init(name: String, console: consuming FileDescriptor) throws {
        self.name = name
        self.console = console
        try send(ControlFrame(.console, name))
    }

    // MARK: Lines

    func say(_ line: String) throws { try send(ControlFrame(.input, line + "\n")) }

    private func send(_ frame: ControlFrame) throws {
        guard UnixSockets.send(frame.bytes[...], to: console.rawValue) == frame.bytes.count else {
            throw trouble("does not listen")
        }
    }

    /// What it prints next.
    func line(seconds: Int = 20) throws -> String {
        let end = HostClock.monotonicNanoseconds + UInt64(seconds) * 1_000_000_000
        while lines.isEmpty { try read(until: end, for: "says nothing more") }
        lastLines = lastLines.suffix(20) + [lines[0]]
        return lines.removeFirst()
    }

    private func read(until end: UInt64, for what: String) throws {
        let now = HostClock.monotonicNanoseconds
        guard now < end, waitReadable([console.rawValue], milliseconds: Int32((end - now) / 1_000_000 + 1))[0] else {
            throw trouble(what)
        }
        guard let bytes = UnixSockets.receive(from: console.rawValue), !reader.isLost else { throw trouble("is gone") }
        reader.take(bytes)
        while let frame = reader.next() {
            switch frame.kind {
            case .output: take(frame.payload)
            case .ended: self.end = frame.text
            default: throw trouble("has no console: \(frame.text)")
            }
        }
        if lines.isEmpty, let reason = self.end, what != "runs on" { throw trouble("has ended: \(reason)") }
    }

    private func take(_ bytes: [UInt8]) {
        for byte in bytes where byte != 0x0d {
            if byte != 0x0a {
                text.append(byte)
            } else {
                lines.append(String(decoding: text, as: UTF8.self))
                text = []
            }
        }
    }

    private func trouble(_ what: String) -> HostError {
        HostError("\(name) \(what); the last it printed:\n" + lastLines.joined(separator: "\n"))
    }

    /// Reads past all that was printed before, be it from a Guest that has only begun to boot.
    private func settle(seconds: Int) throws {
        marks += 1
        // No command of the probe's.
        try say(hasProbe ? "mark\(marks)" : "echo bad mark\(marks)")
        while try line(seconds: seconds) != "bad mark\(marks)" {}
        if !hasProbe { _ = try status() }
    }

    // MARK: The shell

    /// The exit status of what was said last, and what else was printed.
    func status(seconds: Int = 20) throws -> (status: Int?, output: [String]) {
        var output: [String] = []
        while true {
            let line = try line(seconds: seconds)
            if line.hasPrefix("status ") { return (Int(line.dropFirst("status ".count)), output) }
            output.append(line)
        }
    }

    /// A line of shell, done.
    func run(_ line: String, seconds: Int = 20) throws -> (status: Int?, output: [String]) {
        try endProbe()
        try say(line)
        return try status(seconds: seconds)
    }

    /// Waits until the shell is there.
    func boot() throws {
        hasProbe = false
        try settle(seconds: 60)
    }

    // MARK: The probe

    /// A new probe, that has nothing open.
    func startProbe() throws {
        try endProbe()
        try say("probe")
        hasProbe = true
        try settle(seconds: 20)
        domid = try Int(get("domid").joined()) ?? 0
    }

    func endProbe() throws {
        guard hasProbe else { return }
        try get("exit 0")
        try expectStatus(0)
    }

    /// Without a chance to clean up.
    func killProbe() throws {
        try get("kill")
        try expectStatus(137)
    }

    private func expectStatus(_ expected: Int) throws {
        hasProbe = false
        let status = try status().status
        guard status == expected else { throw trouble("ended its probe with another status") }
    }

    /// The probe's answer to a command.
    func ask(_ command: String, seconds: Int = 20) throws -> String {
        try say(command)
        return try answer(seconds: seconds)
    }

    /// The answer to the oldest command that has none yet.
    func answer(seconds: Int = 20) throws -> String {
        let beginnings = ["ok", "error ", "timeout", "signal ", "bad "]
        while true {
            let line = try line(seconds: seconds)
            if beginnings.contains(where: line.hasPrefix) { return line }
        }
    }

    /// The answers to commands that the probe finds waiting, so that there is no time between them.
    func ask(atOnce commands: [String]) throws -> [String] {
        try say(commands.joined(separator: "\n"))
        return try commands.map { _ in try answer() }
    }

    /// What it answers besides "ok".
    ///
    /// - Throws: if it answers anything else.
    @discardableResult func get(_ command: String, seconds: Int = 20) throws -> [String] {
        let answer = try ask(command, seconds: seconds)
        guard answer == "ok" || answer.hasPrefix("ok ") else { throw trouble("answers '\(command)' with '\(answer)'") }
        return answer.split(separator: " ").dropFirst().map(String.init)
    }

    /// Commands, and the answers that there should be.
    func check(
        _ table: KeyValuePairs<String, String>, sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        for (command, expected) in table {
            let answer = try ask(command)
            #expect(answer == expected, "\(name): \(command)", sourceLocation: sourceLocation)
        }
    }

    /// Waits until the Guest has ended.
    ///
    /// - Returns: why, in words.
    func waitForEnd(seconds: Int = 20) throws -> String {
        let deadline = HostClock.monotonicNanoseconds + UInt64(seconds) * 1_000_000_000
        while true {
            if let end { return end }
            try read(until: deadline, for: "runs on")
        }
    }
}
