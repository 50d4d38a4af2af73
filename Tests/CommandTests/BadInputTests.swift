import Glibc
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
        expectOneLine(try Command.run("run", "/nonexistent/kernel"), status: 1, naming: "/nonexistent/kernel")
        expectOneLine(try Command.run("run", "one", "stray"), status: 64, naming: "stray")
        expectOneLine(try Command.run("run", "one", "--kernel", "two"), status: 64, naming: "'one'", "--kernel two")
        expectOneLine(try Command.run("walk"), status: 64, naming: "walk")
        expectOneLine(try Command.run("run", "--initrd", "/dev/null", "--", "true"), status: 64, naming: "--initrd")
    }

    @Test func sharing() throws {
        expectOneLine(try Command.run("run", "--file", "a:b"), status: 64, naming: "--file", "'b'", "slash")
        expectOneLine(try Command.run("run", "--file", "/nonexistent/a"), status: 1, naming: "/nonexistent/a")
        expectOneLine(try Command.run("run", "--file", "a", "--initrd", "/dev/null"), status: 64, naming: "--initrd")
        expectOneLine(try Command.run("run", "--xen", "--kernel", "/bin/true"), status: 1, naming: "/bin/true", "--xen")
        expectOneLine(try Command.run("grants", "--house", "nowhere"), status: 1, naming: "nowhere")
        expectOneLine(try Command.run("grants", "stray"), status: 64, naming: "stray")
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

    /// Before anything is fetched or run, and with nothing created or changed.
    @Test func disks() throws {
        func refused(_ disk: String, status: Int32 = 1, _ words: String...) throws {
            let result = try Command.run("run", "--kernel", "/nonexistent/vmlinuz", "--disk", disk)
            expectOneLine(result, status: status, naming: "")
            for word in words { #expect(result.errorText.contains(word), "\(result.errorText)") }
        }
        try refused("/nonexistent/disk", "/nonexistent/disk", "No such file")
        try refused("/etc", "/etc", "folder")
        try refused("/dev/null", "/dev/null")
        try refused("", status: 64, "--disk")
        try refused("disk,format=vmdk", status: 64, "--disk", "vmdk", "qcow2")
        try refused("disk,frob", status: 64, "--disk", "frob")
        try refused("disk,serial=twenty-one-characters", status: 64, "serial")
        #expect(!Files.exists("/nonexistent/disk"))
        try withFile([UInt8](repeating: 0, count: 1000)) {
            try refused($0, $0, "512")
            #expect(try readFile($0).count == 1000)
        }
        try withFile([]) { try refused($0, $0, "empty") }
        // A qcow2 by its first bytes, which a Guest could have written.
        try withFile([0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 3] + [UInt8](repeating: 0, count: 1016)) {
            try refused($0, $0)
        }
    }

    @Test func networksAndConsoles() throws {
        func refused(_ option: String, _ value: String, status: Int32, _ words: String...) throws {
            let result = try Command.run("run", "--kernel", "/nonexistent/vmlinuz", option, value)
            expectOneLine(result, status: status, naming: "")
            for word in words { #expect(result.errorText.contains(word), "\(result.errorText)") }
        }
        try refused("--net", "wifi", status: 64, "--net", "wifi", "user")
        try refused("--net", "lan0", status: 64, "--net", "lan0", "a switch of that name needs a house", "roost up")
        try refused("--net", "user,forward=80", status: 64, "forward=80")
        try refused("--net", "user,forward=99999:22", status: 64, "99999")
        try refused("--net", "tap=", status: 64, "tap")
        try refused("--net", "tap=roost-nosuch", status: 1, "roost-nosuch", "ip tuntap add")
        try refused("--console", "tty9", status: 64, "--console", "tty9", "hvc0")
        let busy = try Listener()
        try refused("--net", "user,forward=\(busy.port):22", status: 1, "\(busy.port)", "in use")
    }

    /// With the place in the file; what can be wrong there besides, HouseFileTests knows.
    @Test(arguments: [
        ("", "1:1"), ("{", "1:2"), ("[]", "1:1"), ("{}", "1:1"), ("{\"guests\": [}", "1:13"),
        ("{\"guests\": {}}", "1:12"),
        ("{\"guests\": []}", "1:12"), ("{\"guests\":\n [\n{}]}", "3:1"), ("{\"guests\": [{\"name\": 1}]}", "1:22"),
        ("{\"guests\": [{\"name\": \"a/b\"}]}", "1:22"), ("{\"guests\": [{\"nmae\": \"a\"}]}", "1:14"),
        ("{\"guests\": [{\"name\": \"a\"}, {\"name\": \"a\"}]}", "1:37"), ("// house\n{}", "1:1"),
        ("\u{feff}{}", "1:1"),
        ("{\"guests\": [{\"name\": \"a\", \"memory\": \"lots\"}]}", "1:37"),
        ("{\"guests\": [{\"name\": \"a\",\n\"disks\": [\"\"]}]}", "2:11"),
        ("{\"guests\": [{\"name\": \"a\",\n\"engine\": \"warp\"}]}", "2:11"),
        ("{\"guests\": [{\"name\": \"a\",\n\"net\": \"wi fi\"}]}", "2:8"),
        ("{\"guests\": [{\"name\": \"a\",\n\"command\": [1]}]}", "2:13"),
        ("{\"guests\": [{\"name\": \"a\",\n\"regions\": {\"r\": \"0\"}}]}", "2:13"),
        ("{\"guests\": [{\"name\": \"a\"}]} x", "1:29"), ("{\"guests\": [{\"name\": \"a\n\"}]}", "1:24"),
    ])
    func housesThatCannotBe(_ text: String, _ place: String) throws {
        try withFile(Array(text.utf8)) { file in
            expectOneLine(try Command.run("up", file), status: 1, naming: "\(file):\(place): ")
        }
    }

    @Test func housesThatCannotBeHad() throws {
        expectOneLine(try Command.run("up"), status: 64, naming: "<file>")
        expectOneLine(try Command.run("up", "/nonexistent/house.json"), status: 1, naming: "/nonexistent/house.json")
        expectOneLine(try Command.run("up", "/etc"), status: 1, naming: "/etc")
        expectOneLine(try Command.run("stop"), status: 64, naming: "<name>", "roost stop")
        expectOneLine(try Command.run("console"), status: 64, naming: "<name>", "roost console")
        // All is found before anything starts.
        let guests =
            "{\"name\": \"first\", \"kernel\": \"/dev/null\"}, {\"name\": \"b\", \"kernel\": \"/nonexistent/k\"}"
        try withFile(Array("{\"name\": \"x\", \"guests\": [\(guests)]}".utf8)) {
            expectOneLine(try Command.run("up", $0), status: 1, naming: "first: ", "/dev/null")
        }
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
            "--symbols", "--disk", "--net", "--console", "--rng", "Ctrl-A",
        ] {
            #expect(text.contains(option))
        }
        let version = try Command.run("--version")
        #expect(version.status == 0 && String(decoding: version.output, as: UTF8.self).hasPrefix("roost "))
    }
}

/// A TCP port of 127.0.0.1 that is taken.
private final class Listener {
    let port: UInt16
    private let descriptor: Int32

    init() throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let number = descriptor
        let bound = unsafe withUnsafeMutableBytes(of: &address) { bytes in
            let pointer = unsafe bytes.assumingMemoryBound(to: sockaddr.self).baseAddress
            return unsafe bind(number, pointer, length) == 0 && listen(number, 1) == 0
                && getsockname(number, pointer, &length) == 0
        }
        port = UInt16(bigEndian: address.sin_port)
        try #require(bound)
    }

    deinit { close(descriptor) }
}
