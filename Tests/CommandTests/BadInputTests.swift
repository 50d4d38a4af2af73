import HostInterface
import Testing

/// Bad input: one line that names the file or the option and what to do; 64
/// for usage, 1 for the rest.
@Suite struct BadInputTests {
    private func expectOneLine(
        _ result: Subprocess.Result, status: Int32, naming words: String..., at place: SourceLocation = #_sourceLocation
    ) {
        #expect(result.status == status, "\(result.errorText)", sourceLocation: place)
        #expect(result.output == [], sourceLocation: place)
        #expect(result.errorText.split(separator: "\n").count == 1, "\(result.errorText)", sourceLocation: place)
        #expect(result.errorText.hasPrefix("roost: "), "\(result.errorText)", sourceLocation: place)
        for word in words { #expect(result.errorText.contains(word), "\(result.errorText)", sourceLocation: place) }
    }

    private func withFile(_ bytes: [UInt8], _ body: (String) throws -> Void) throws {
        let folder = try Files.createTemporaryFolder(beside: "/tmp/roost-bad")
        defer { Files.remove(folder) }
        try Files.writeAtomically(bytes, to: folder + "/file")
        try body(folder + "/file")
    }

    @Test func usage() throws {
        expectOneLine(try Command.run("run", "--frobnicate"), status: 64, naming: "--frobnicate")
        expectOneLine(try Command.run("run", "--memory"), status: 64, naming: "--memory")
        expectOneLine(try Command.run("run", "--memory", "lots"), status: 64, naming: "--memory", "lots", "512M")
        expectOneLine(try Command.run("run", "--memory", "1M"), status: 64, naming: "--memory", "1M")
        expectOneLine(try Command.run("run", "--engine", "warp"), status: 64, naming: "--engine", "warp", "interpreter")
        expectOneLine(try Command.run("run", "stray"), status: 64, naming: "stray")
        expectOneLine(try Command.run("walk"), status: 64, naming: "walk")
        expectOneLine(try Command.run("run", "--initrd", "/dev/null", "--", "true"), status: 64, naming: "--initrd")
    }

    @Test func filesThatCannotBeRead() throws {
        expectOneLine(
            try Command.run("run", "--kernel", "/nonexistent/vmlinuz"), status: 1, naming: "/nonexistent/vmlinuz")
        expectOneLine(try Command.run("run", "--kernel", "/etc"), status: 1, naming: "/etc")
        expectOneLine(try Command.run("run", "--kernel", "/dev/null"), status: 1, naming: "/dev/null")
        try withFile([]) { expectOneLine(try Command.run("run", "--kernel", $0), status: 1, naming: $0, "empty") }
    }

    @Test func filesThatAreNoKernels() throws {
        try withFile(Array("#!/bin/sh\necho hello\n".utf8) + [UInt8](repeating: 0x20, count: 8192)) {
            expectOneLine(try Command.run("run", "--kernel", $0), status: 1, naming: $0, "kernel")
        }
        // An ARM64 Linux Image: its magic number is at offset 56.
        var arm = [UInt8](repeating: 0, count: 4096)
        arm.replaceSubrange(56..<60, with: [0x41, 0x52, 0x4d, 0x64])
        try withFile(arm) { expectOneLine(try Command.run("run", "--kernel", $0), status: 1, naming: $0, "ARM64") }
        expectOneLine(
            try Command.run("run", "--kernel", "debian:No Such Package"), status: 1, naming: "No Such Package")
    }

    /// Before anything is fetched or run.
    @Test func profilesThatCannotBeWritten() throws {
        for path in ["/nonexistent/profile", "/etc"] {
            expectOneLine(
                try Command.run("run", "--kernel", "/nonexistent/vmlinuz", "--profile", path), status: 1,
                naming: "profile", path)
        }
        expectOneLine(try Command.run("run", "--symbols", "/dev/null"), status: 64, naming: "--symbols", "--profile")
        expectOneLine(
            try Command.run("run", "--profile", "/dev/null", "--symbols", "/nonexistent/System.map"), status: 1,
            naming: "/nonexistent/System.map")
        try withFile(Array("no symbols at all".utf8)) {
            expectOneLine(
                try Command.run("run", "--profile", "/dev/null", "--symbols", $0), status: 1, naming: $0, "System.map")
        }
    }

    /// No network is asked: this PATH has no apt.
    @Test func aMachineWithoutAptIsToldOfTheOption() throws {
        let folder = try Files.createTemporaryFolder(beside: "/tmp/roost-noapt")
        defer { Files.remove(folder) }
        let result = try Command.run("run", environment: ["PATH": "/nonexistent", "ROOST_CACHE": folder])
        expectOneLine(result, status: 1, naming: "apt", "--kernel")
    }

    @Test func helpAndVersionAreNoErrors() throws {
        let help = try Command.run("run", "--help")
        #expect(help.status == 0 && help.errorText.isEmpty)
        let text = String(decoding: help.output, as: UTF8.self)
        for option in [
            "--kernel", "--initrd", "--append", "--memory", "--engine", "--no-reboot", "--verbose", "--profile",
            "--symbols",
            "Ctrl-A",
        ] {
            #expect(text.contains(option))
        }
        let version = try Command.run("--version")
        #expect(version.status == 0 && String(decoding: version.output, as: UTF8.self).hasPrefix("roost "))
    }
}
