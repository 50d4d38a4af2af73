import HostInterface
import Testing

/// What tools/make-debian says before it makes anything: no network, no
/// package and no kernel are asked for. That an image boots is BootTests' to say.
@Suite struct DebianImageTests {
    private func expectRefusal(
        _ arguments: String..., status: Int32 = 64, naming words: String..., cache: String = "/nonexistent",
        at place: SourceLocation = #_sourceLocation
    ) throws {
        let result = try Subprocess.run(
            ["tools/make-debian"] + arguments, environment: ["ROOST_CACHE": cache, "ROOST": "/nonexistent/roost"])
        #expect(result.status == status, "\(result.errorText)", sourceLocation: place)
        #expect(result.output == [], sourceLocation: place)
        #expect(result.errorText.split(separator: "\n").count == 1, "\(result.errorText)", sourceLocation: place)
        #expect(result.errorText.hasPrefix("make-debian: "), "\(result.errorText)", sourceLocation: place)
        for word in words { #expect(result.errorText.contains(word), "\(result.errorText)", sourceLocation: place) }
    }

    /// A cache that claims to have the kernel.
    private func withCache(_ body: (String) throws -> Void) throws {
        let folder = try Files.createTemporaryFolder(beside: "/tmp/roost-debian")
        defer { Files.remove(folder) }
        try Files.createFolder(folder + "/packages/linux-image-0")
        try Files.writeAtomically(
            Array("linux-image-0".utf8), to: folder + "/packages/linux-image-cloud-amd64.name")
        try body(folder)
    }

    @Test func wrongCommandLines() throws {
        try expectRefusal(naming: "FILE", "usage")
        try expectRefusal("a", "b", naming: "'b'")
        try expectRefusal("--frobnicate", "a", naming: "--frobnicate")
        try expectRefusal("--size", naming: "--size")
        for size in ["lots", "0G", "2", "-1G", "2G2", ""] {
            try expectRefusal("--size", size, "a", naming: "2G or 1500M")
        }
        for package in ["--option", "fio;id", "Fio", "../fio", "*"] {
            try expectRefusal("--packages", "dbench \(package)", "a", naming: "'\(package)'")
        }
        try expectRefusal("--kernel", "../linux", "a", naming: "'../linux'")
    }

    @Test func placesThatAreNone() throws {
        try expectRefusal("/nonexistent/disk.ext4", status: 1, naming: "/nonexistent")
        try expectRefusal("/tmp", status: 1, naming: "/tmp", "folder")
        try expectRefusal("/tmp/roost-debian.ext4", status: 1, naming: "/nonexistent/roost", "make build")
    }

    /// A disk may hold somebody's work: it stays as it is, byte for byte.
    @Test func aDiskThatWasMadeOtherwiseIsLeftAlone() throws {
        try withCache { cache in
            let contents = [UInt8](repeating: 7, count: 2048)
            try Files.writeAtomically(contents, to: cache + "/disk.ext4")
            try expectRefusal(cache + "/disk.ext4", status: 1, naming: "disk.ext4", "move it away", cache: cache)
            #expect(try readFile(cache + "/disk.ext4") == contents)
            #expect(Files.list(cache) == ["disk.ext4", "packages"])
        }
    }

    /// A file system's UUID says what went into it, in whatever order it was asked for.
    @Test func aDiskThatIsThereIsEnough() throws {
        try withCache { cache in
            // "1G dbench fio linux-image-0", as SHA-256 and then as a UUID of version 8, where ext4 has it (0x68 of the superblock).
            let uuid: [UInt8] = [
                0xd8, 0x81, 0x62, 0xe8, 0xdc, 0x72, 0x8f, 0xb9, 0x88, 0x2c, 0x07, 0x0e, 0xaa, 0x74, 0xa6, 0xc4,
            ]
            let disk = [UInt8](repeating: 0, count: 1128) + uuid + [UInt8](repeating: 0, count: 904)
            try Files.writeAtomically(disk, to: cache + "/disk.ext4")
            for packages in ["fio dbench", " dbench fio fio "] {
                let result = try Subprocess.run(
                    ["tools/make-debian", "--size", "1G", "--packages", packages, cache + "/disk.ext4"],
                    environment: ["ROOST_CACHE": cache])
                #expect(result.status == 0 && result.errorText.contains("there already"), "\(result.errorText)")
            }
            try expectRefusal(
                "--size", "2G", "--packages", "fio dbench", cache + "/disk.ext4", status: 1, naming: "size",
                cache: cache)
            #expect(try readFile(cache + "/disk.ext4") == disk)
        }
    }
}
