import HostInterface
import Launcher
import Testing

/// stress-ng, which checks what it computes. `ROOST_STRESS_SECONDS` says how
/// long each method takes; `make test-thorough` sets it.
@Suite(.serialized) struct StressTests {
    static let seconds = environmentVariable("ROOST_STRESS_SECONDS").flatMap { Int($0) }

    /// stress-ng 0.15 of Debian 12 and what it is linked with.
    private static let packages = [
        "stress-ng", "libc6", "libapparmor1", "libbsd0", "libmd0", "libcrypt1", "libegl1", "libglvnd0", "libgbm1",
        "libgles2", "libipsec-mb1", "libjpeg62-turbo", "libjudydebian1", "libkmod2", "libsctp1", "libxxhash0", "zlib1g",
        "libdrm2", "libexpat1", "libwayland-server0", "libffi8", "libxcb-randr0", "libxcb1", "libxau6", "libxdmcp6",
        "liblzma5", "libzstd1", "libssl3",
    ]

    static let methods = [
        "--cpu 2 --cpu-method all", "--vm 1 --vm-bytes 32M --vm-method all", "--memcpy 1", "--fork 2", "--vfork 1",
        "--signal 1", "--sigsegv 1", "--futex 1", "--switch 1", "--matrix 1", "--memthrash 1", "--x86syscall 1",
    ]

    @Test(.enabled(if: seconds != nil, "it takes minutes: make test-thorough"))
    func stressFindsNothing() throws {
        let seconds = Self.seconds ?? 10
        let script = Self.methods.map {
            "stress-ng --verify --timeout \(seconds) \($0) >/tmp/log 2>&1 || { echo 'failed: \($0)'; tail -n 20 /tmp/log; failed=1; }"
        }
        var system = try GuestSystem(script: "failed=0\n" + script.joined(separator: "\n") + "\nexit $failed")
        try addPrograms(&system)
        let result = try system.run(memory: "512M", seconds: 300 + Self.methods.count * (seconds * 4 + 30))
        #expect(result.status == 0, "\(result.everything)")
    }

    /// Every program and library of the packages, libraries in one folder.
    private func addPrograms(_ system: inout GuestSystem) throws {
        let store = try GuestSystem.packages()
        for package in Self.packages {
            let folder = try store.folder(of: package)
            for path in Files.tree(folder) {
                let name = path.split(separator: "/").last.map(String.init) ?? ""
                if path.hasSuffix("bin/stress-ng") {
                    system.addProgram("bin/stress-ng", try readFile(folder + "/" + path))
                } else if name.contains(".so"), path.contains("lib/x86_64-linux-gnu/"), !path.contains("gconv") {
                    // A link's target may be absolute, or elsewhere: a copy always works.
                    guard let contents = try? readFile(folder + "/" + path) else { continue }
                    system.addProgram("lib/x86_64-linux-gnu/" + name, contents)
                    if name == "ld-linux-x86-64.so.2" { system.addProgram("lib64/" + name, contents) }
                }
            }
        }
    }
}
