import HostInterface
import Testing

/// Stock kernels, from power-on to a command and its exit status. They are
/// fetched once; without a network these tests fail, for a green run that
/// booted nothing would be a lie.
@Suite(.serialized) struct BootTests {
    static let command = ".build/release/roost"

    private func run(_ arguments: [String], seconds: Int = 300, script input: String = "") throws -> Subprocess.Result {
        let words = (["timeout", "\(seconds)", Self.command, "run"] + arguments).map {
            "'" + $0.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "'\\''") + "'"
        }
        return try Subprocess.run(
            ["sh", "-c", "printf %s \"$INPUT\" | " + words.joined(separator: " ")], environment: ["INPUT": input])
    }

    /// The cloud kernel by default, Debian's ordinary one by name.
    @Test(arguments: [[], ["--kernel", "debian:linux-image-amd64"]])
    func runsACommand(_ kernel: [String]) throws {
        let result = try run(kernel + ["--", "sh", "-c", "echo hi; echo oh >&2; exit 7"])
        #expect(result.status == 7, "\(result.errorText)")
        #expect(String(decoding: result.output, as: UTF8.self) == "hi\n")
        #expect(result.errorText == "oh\n")
    }

    /// Every block of the kernel's, at least the first times, by both engines.
    @Test func bootsInLockstep() throws {
        let result = try run(["--engine", "lockstep", "--", "sh", "-c", "exit 7"])
        #expect(result.status == 7, "\(result.errorText)")
    }

    @Test func argumentsAndInputArriveAsTheyAre() throws {
        let result = try run(
            ["--", "sh", "-c", "cat; printf '[%s]' \"$@\"", "sh", "it's", "", "a  b", "$HOME\n"],
            script: "one\ntwo \u{4}\u{16}\u{3} three")
        #expect(result.status == 0, "\(result.errorText)")
        #expect(
            String(decoding: result.output, as: UTF8.self) == "one\ntwo \u{4}\u{16}\u{3} three[it's][][a  b][$HOME\n]")
    }

    @Test func withoutACommandAShellReadsItsInput() throws {
        let result = try run([], script: "echo $((6 * 7)); uname -s; poweroff\n")
        #expect(result.status == 0, "\(result.errorText)")
        #expect(String(decoding: result.output, as: UTF8.self) == "42\nLinux\n")
    }

    @Test func aRebootEndsWhereItIsNotWanted() throws {
        let result = try run(["--no-reboot", "--", "reboot"])
        #expect(result.status == 0, "\(result.errorText)")
    }

    /// The second boot's shell finds the input at its end, as the first left it.
    @Test func aRebootStartsAgain() throws {
        let result = try run([], script: "echo first; reboot\n")
        #expect(result.status == 0, "\(result.errorText)")
        #expect(String(decoding: result.output, as: UTF8.self) == "first\n")
    }

    @Test func theLogIsShownWhereItIsWanted() throws {
        let result = try run(["--verbose", "--", "true"])
        #expect(result.status == 0)
        #expect(result.output == [])
        #expect(result.errorText.contains("Linux version"))
    }

    /// The kernel's own list of its names, put to use: what is hot has a name, and the kernel is where it says.
    @Test func aProfileNamesTheKernelsFunctions() throws {
        let folder = try Files.createTemporaryFolder(beside: "/tmp/roost-profile")
        defer { Files.remove(folder) }
        let map = try run(["--", "cat", "/proc/kallsyms"])
        #expect(map.status == 0)
        try Files.writeAtomically(map.output, to: folder + "/map")
        let result = try run([
            "--profile", folder + "/profile", "--symbols", folder + "/map", "--", "sh", "-c", "ls -lR /sys >/dev/null",
        ])
        #expect(result.status == 0, "\(result.errorText)")
        let text = String(decoding: try readFile(folder + "/profile"), as: UTF8.self)
        #expect(text.contains("symbols: the kernel is where its symbols say\n"))
        let functions = text.split(separator: "\n").drop { !$0.hasPrefix("== Samples by function") }
        let total = functions.first.flatMap { Int($0.split(separator: " ").last ?? "") } ?? 0
        #expect(total > 100)
        #expect(functions.dropFirst().prefix { !$0.hasPrefix("==") }.contains { $0.contains("  kernel ") })
        #expect(text.contains("out to port 0x3f8") && text.contains("#PF") && text.contains("vector 0xec"))
    }

    /// Debian's kernel has no way to find a virtio device but ACPI; a user's terminal among them is missed at once.
    @Test func withoutACPIThereAreNoDevices() throws {
        let plain = try run(["--append", "acpi=off", "--", "ls", "/sys/bus/virtio/devices"])
        #expect(plain.status == 0 && plain.output == [], "\(plain.errorText)")
        let console = try run(["--append", "acpi=off", "--console", "hvc0", "--", "echo", "hi"])
        #expect(console.status == 70 && console.output == [])
        #expect(console.errorText.contains("has no /dev/hvc0"), "\(console.errorText)")
    }

    @Test func aPanicIsADeath() throws {
        let result = try run(["--append", "console=ttyS0 panic=-1 rdinit=/none root=/dev/none"])
        #expect(result.status == 70)
        #expect(result.errorText.contains("panicked"))
    }
}
