import HostInterface
import Testing

/// A whole Debian with systemd, as `make debian` makes it: $ROOST_DEBIAN says where it is. `.ci/run` makes one.
@Suite struct DebianTests {
    static let image = environmentVariable("ROOST_DEBIAN")

    @Test(.enabled(if: image != nil, "ROOST_DEBIAN names no image; `make debian` makes one"))
    func bootsToALoginPromptRebootsAndIsReachedBySSH() throws {
        let image = try #require(Self.image)
        let folder = try Files.createTemporaryFolder(beside: "/tmp/roost-debian")
        defer { Files.remove(folder) }
        let port = try TestServer.freePort()
        let key =
            (environmentVariable("ROOST_CACHE") ?? (environmentVariable("HOME") ?? "") + "/.cache/roost")
            + "/debian/id_ed25519"
        let script = """
            set -e
            \(BootTests.command) disk create --backing \(image) --backing-format raw \(folder)/disk.qcow2
            : >\(folder)/log
            \(BootTests.command) run --disk \(folder)/disk.qcow2 --net user,forward=\(port):22 --console hvc0 \\
                --append 'root=/dev/vda rw' </dev/null >\(folder)/log 2>&1 &
            guest=$!
            prompts() {
                for try in $(seq 1200); do
                    [ $(grep -c 'debian login:' \(folder)/log) -ge $1 ] && return 0
                    kill -0 $guest || return 1
                    sleep 0.1
                done
                return 1
            }
            inside() {
                ssh -q -i \(key) -p \(port) -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \\
                    -o ConnectTimeout=60 root@127.0.0.1 "$@"
            }
            prompts 1 && echo prompt
            inside 'systemctl is-system-running --wait; cat /proc/sys/kernel/hostname; ip -4 -o addr show eth0 | grep -o 10.0.2.15'
            inside 'echo kept >/root/kept; reboot' || true
            prompts 2 && echo prompt again
            inside 'cat /root/kept; poweroff' || true
            wait $guest && echo off
            """
        let result = try Subprocess.run(["timeout", "400", "bash", "-c", script])
        let log = (try? readFile(folder + "/log")).map { String(decoding: $0.suffix(4000), as: UTF8.self) } ?? ""
        #expect(
            String(decoding: result.output, as: UTF8.self)
                == "prompt\nrunning\ndebian\n10.0.2.15\nprompt again\nkept\noff\n", "\(result.errorText)\n\(log)")
    }
}
