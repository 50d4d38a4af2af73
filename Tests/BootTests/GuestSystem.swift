import HostInterface
import Launcher

/// A Guest with more in it than busybox: an initramfs of its own, with a
/// script to run and the files it wants. What the script prints comes over the
/// first serial port, between two words.
struct GuestSystem {
    private var archive = CPIOArchive()

    init(script: String) throws {
        for folder in ["bin", "dev", "etc", "proc", "root", "run", "sbin", "sys", "tmp", "usr/bin", "usr/sbin"] {
            archive.addFolder(folder)
        }
        archive.addCharacterDevice("dev/console", major: 5, minor: 1)
        let folder = try Self.packages().folder(of: "busybox-static")
        archive.addFile("bin/busybox", try Self.read(folder, "bin/busybox"), mode: 0o755)
        archive.addLink("bin/sh", to: "busybox")
        archive.addFile("etc/passwd", "root::0:0:root:/root:/bin/sh\n")
        archive.addFile("etc/group", "root:x:0:\n")
        archive.addFile("test", "#!/bin/sh\n" + script + "\n", mode: 0o755)
        archive.addFile(
            "init",
            """
            #!/bin/busybox sh
            /bin/busybox --install -s
            mount -t devtmpfs devtmpfs /dev
            mount -t proc proc /proc
            mount -t sysfs sysfs /sys
            mkdir -p /dev/shm
            mount -t tmpfs tmpfs /dev/shm
            mount -t tmpfs tmpfs /tmp
            echo BEGIN
            /test 2>&1
            echo "END $?"
            poweroff -f

            """, mode: 0o755)
    }

    static func packages(_ architecture: String = PackageStore.guestArchitecture) throws -> PackageStore {
        PackageStore(architecture: architecture, progress: try Progress(enabled: false))
    }

    /// A file of an unpacked package. /bin and /lib are a part of /usr since Debian 13.
    static func read(_ folder: String, _ path: String) throws -> [UInt8] {
        try readFile(folder + (Files.exists(folder + "/" + path) ? "/" : "/usr/") + path)
    }

    mutating func addProgram(_ path: String, _ contents: [UInt8]) { archive.addFile(path, contents, mode: 0o755) }
    mutating func addLink(_ path: String, to target: String) { archive.addLink(path, to: target) }

    /// Boots, and returns what the script printed, and its exit status; nil where it did not come to its end.
    func run(memory: String = "512M", seconds: Int) throws -> (output: String, status: Int?, everything: String) {
        let folder = try Files.createTemporaryFolder(beside: "/tmp/roost-test")
        defer { Files.remove(folder) }
        try Files.writeAtomically(archive.finished(), to: folder + "/initrd")
        let result = try Subprocess.run(
            [
                "timeout", "\(seconds)", BootTests.command, "run", "--memory", memory, "--initrd", folder + "/initrd",
                "--append", GuestConfiguration.defaultCommandLine + " quiet",
            ])
        let text = String(decoding: result.output.filter { $0 != 0x0d }, as: UTF8.self)
        let everything = text + result.errorText
        guard let begin = text.firstRange(of: "BEGIN\n"), let end = text.firstRange(of: "\nEND ") else {
            return (text, nil, everything)
        }
        let output = begin.upperBound < end.lowerBound ? String(text[begin.upperBound..<end.lowerBound]) : ""
        let status = text[end.upperBound...].prefix { $0.isNumber }
        return (output, Int(status), everything)
    }
}
