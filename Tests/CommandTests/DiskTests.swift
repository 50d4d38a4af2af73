import HostInterface
import Testing

/// `roost disk`, as a user has it.
@Suite struct DiskTests {
    private func withFolder(_ body: (String) throws -> Void) throws {
        let folder = try Files.createTemporaryFolder(beside: "/tmp/roost-disk")
        defer { Files.remove(folder) }
        try body(folder)
    }

    private func expectRefusal(
        _ result: Subprocess.Result, status: Int32, naming words: String..., at place: SourceLocation = #_sourceLocation
    ) {
        #expect(result.status == status, "\(result.errorText)", sourceLocation: place)
        #expect(result.output == [], sourceLocation: place)
        #expect(result.errorText.split(separator: "\n").count == 1, "\(result.errorText)", sourceLocation: place)
        for word in words { #expect(result.errorText.contains(word), "\(result.errorText)", sourceLocation: place) }
    }

    @Test func createdAndToldAbout() throws {
        try withFolder { folder in
            let (base, overlay) = (folder + "/base.raw", folder + "/overlay.qcow2")
            #expect(try Command.run("disk", "create", "--size", "3M", "--format", "raw", base).status == 0)
            #expect(try readFile(base) == [UInt8](repeating: 0, count: 3 << 20))
            let creation = try Command.run("disk", "create", "--backing", base, overlay)
            #expect(creation.status == 0 && creation.output.isEmpty, "\(creation.errorText)")
            let info = try Command.run("disk", "info", overlay)
            let text = String(decoding: info.output, as: UTF8.self)
            #expect(info.status == 0)
            for part in ["qcow2", "3 MiB (3145728 bytes)", "64 KiB", base, "raw", "in use:     no"] {
                #expect(text.contains(part), "\(text)")
            }
        }
    }

    @Test func usage() throws {
        try withFolder { folder in
            let path = folder + "/disk"
            expectRefusal(
                try Command.run("disk", "create", path), status: 64, naming: "--size", "roost disk create --help")
            for size in ["lots", "-1", "0", "10X", "1.5G", "100", "9999999999999G", "١G"] {
                expectRefusal(try Command.run("disk", "create", "--size=\(size)", path), status: 64, naming: "--size")
            }
            expectRefusal(
                try Command.run("disk", "create", "--size", "1M", "--format", "vmdk", path), status: 64,
                naming: "--format", "vmdk", "qcow2")
            expectRefusal(
                try Command.run("disk", "create", "--size", "1M", "--backing-format", "raw", path), status: 64,
                naming: "--backing-format")
            expectRefusal(
                try Command.run("disk", "create", "--format", "raw", "--backing", "/etc/hosts", path), status: 64,
                naming: "--backing")
            expectRefusal(try Command.run("disk", "shred", path), status: 64, naming: "shred", "roost disk --help")
            expectRefusal(try Command.run("disk", "info"), status: 64, naming: "roost disk info --help")
            #expect(Files.list(folder) == [])
        }
    }

    @Test func nothingIsHarmedByARefusal() throws {
        try withFolder { folder in
            let path = folder + "/disk"
            expectRefusal(
                try Command.run("disk", "create", "--backing", folder + "/none", path), status: 1,
                naming: folder + "/none")
            expectRefusal(
                try Command.run("disk", "create", "--backing", folder, path), status: 1, naming: folder, "folder")
            expectRefusal(
                try Command.run("disk", "create", "--size", "1M", folder + "/none/disk"), status: 1,
                naming: "/none/disk")
            #expect(Files.list(folder) == [])
            try Files.writeAtomically(Array("precious".utf8), to: path)
            expectRefusal(try Command.run("disk", "create", "--size", "1M", path), status: 1, naming: path, "exists")
            #expect(try readFile(path) == Array("precious".utf8))
            expectRefusal(try Command.run("disk", "info", folder), status: 1, naming: folder)
            expectRefusal(try Command.run("disk", "info", "/dev/null"), status: 1, naming: "/dev/null")
        }
    }
}
