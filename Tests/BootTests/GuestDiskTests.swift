import Glibc
import HostInterface
import Launcher
import Testing

/// Disks, with a stock Guest that uses them.
@Suite(.serialized) struct GuestDiskTests {
    private static let thorough = StressTests.seconds != nil

    private func run(_ options: [String], _ script: String, seconds: Int = 200) throws -> Subprocess.Result {
        try Subprocess.run(
            ["timeout", "\(seconds)", BootTests.command, "run"] + options + ["--", "sh", "-c", script])
    }

    private func text(_ result: Subprocess.Result) -> String { String(decoding: result.output, as: UTF8.self) }

    /// A folder of the test's own, and a disk in it.
    private func withDisk(megabytes: Int, _ body: (_ folder: String, _ disk: String) throws -> Void) throws {
        let folder = try Files.createTemporaryFolder(beside: "/tmp/roost-disk")
        defer { Files.remove(folder) }
        try #require(try Subprocess.run(["truncate", "-s", "\(megabytes)M", folder + "/disk"]).status == 0)
        try body(folder, folder + "/disk")
    }

    @Test func whatIsWrittenIsThereAfterAReboot() throws {
        let megabytes = Self.thorough ? 1024 : 128
        try withDisk(megabytes: megabytes + 64) { folder, disk in
            let written = try run(
                ["--disk", disk + ",serial=first"],
                """
                cat /sys/block/vda/serial; echo
                mke2fs /dev/vda >/dev/null && mkdir /mnt && mount /dev/vda /mnt || exit 1
                dd if=/dev/urandom of=/mnt/seed bs=1M count=8 2>/dev/null
                for i in $(seq \(megabytes / 8)); do echo $i; cat /mnt/seed; done >/mnt/data
                md5sum </mnt/data; umount /mnt
                """, seconds: 600)
            #expect(written.status == 0, "\(written.errorText)")
            let lines = text(written).split(separator: "\n")
            #expect(lines.first == "first")
            let again = try run(
                ["--disk", disk + ",ro"],
                """
                mkdir /mnt && mount -o ro /dev/vda /mnt && md5sum </mnt/data
                echo x >/dev/vda 2>/dev/null || echo refused
                """, seconds: 600)
            #expect(text(again).split(separator: "\n") == [lines.last ?? "", "refused"], "\(again.errorText)")
        }
    }

    @Test func anOverlayKeepsItsBaseAsItWas() throws {
        try withDisk(megabytes: 16) { folder, base in
            let overlay = folder + "/overlay.qcow2"
            let made = try Subprocess.run([BootTests.command, "disk", "create", "--backing", base, overlay])
            #expect(made.status == 0, "\(made.errorText)")
            let result = try run(["--disk", overlay], "echo changed | dd of=/dev/vda bs=512 seek=100 conv=sync; sync")
            #expect(result.status == 0, "\(result.errorText)")
            #expect(try readFile(base).allSatisfy { $0 == 0 })
            let again = try run(["--disk", overlay], "dd if=/dev/vda bs=512 skip=100 count=1 2>/dev/null | head -n 1")
            #expect(text(again) == "changed\n")
        }
    }

    /// Runs `script`, which prints something, has `event` happen on the host
    /// (`$pid` is the Host's process), and goes on with a line on its input.
    private func run(disk: String, in folder: String, _ script: String, event: String) throws -> Subprocess.Result {
        try Files.writeAtomically(Array(script.utf8), to: folder + "/script")
        return try Subprocess.run([
            "timeout", "200", "bash", "-c",
            """
            bash -c 'echo $$ >\(folder)/pid; exec \(BootTests.command) run --disk \(disk) -- sh -c "$(cat \(folder)/script)"' \
                < <(while ! [ -s \(folder)/out ]; do sleep 0.1; done; pid=$(cat \(folder)/pid); \(event); echo go) \
                | tee \(folder)/out
            """,
        ])
    }

    /// EIO: the file gets shorter while the Guest runs.
    @Test func aDiskThatShrinksIsABadDisk() throws {
        try withDisk(megabytes: 32) { folder, disk in
            let result = try run(
                disk: disk, in: folder,
                """
                dd if=/dev/vda of=/dev/null bs=4k count=4 2>/dev/null && echo good; read line
                dd if=/dev/vda of=/dev/null bs=4k skip=4096 count=4 iflag=direct 2>/dev/null || echo bad
                dd if=/dev/vda of=/dev/null bs=4k count=4 iflag=direct 2>/dev/null && echo alive
                """, event: "truncate -s 1M \(disk)")
            #expect(text(result) == "good\nbad\nalive\n", "\(result.errorText)")
        }
    }

    /// A host that can store no more: a limit on the size of files (RLIMIT_FSIZE) is one that a test can set.
    @Test func aFullHostIsABadDisk() throws {
        try withDisk(megabytes: 1) { folder, _ in
            let overlay = folder + "/overlay.qcow2"
            let made = try Subprocess.run([BootTests.command, "disk", "create", "--size", "64M", overlay])
            #expect(made.status == 0, "\(made.errorText)")
            let result = try run(
                disk: overlay, in: folder,
                """
                dd if=/dev/zero of=/dev/vda bs=1M count=2 conv=fsync 2>/dev/null && echo good; read line
                dd if=/dev/zero of=/dev/vda bs=1M count=32 conv=fsync 2>/dev/null || echo full
                dd if=/dev/vda of=/dev/null bs=4k count=4 iflag=direct 2>/dev/null && echo alive
                """, event: "prlimit --pid $pid --fsize=\(8 << 20)")
            #expect(text(result) == "good\nfull\nalive\n", "\(result.errorText)")
        }
    }

    /// What the Guest was told is on the disk is there when its Host is killed.
    @Test(.enabled(if: Files.exists("/sbin/mke2fs") || Files.exists("/usr/sbin/mke2fs"), "there is no mke2fs here"))
    func whatWasFlushedSurvivesAKill() throws {
        let rounds = Self.thorough ? 20 : 2
        try withDisk(megabytes: 256) { folder, disk in
            let path = "PATH=$PATH:/usr/sbin:/sbin"
            let made = try Subprocess.run(["sh", "-c", "\(path); mke2fs -q -t ext4 \(disk)"])
            try #require(made.status == 0, "\(made.errorText)")
            for round in 1...rounds {
                // Files of many sizes, written, synced, renamed and removed; each line says what must be there.
                let load = """
                    mkdir -p /mnt && mount /dev/vda /mnt || exit 1
                    rm -rf /mnt/round\(round); mkdir /mnt/round\(round); cd /mnt/round\(round)
                    i=0
                    while :; do
                        i=$((i + 1))
                        dd if=/dev/urandom of=new bs=$((i * 997 % 9000 + 1)) count=$((i % 7 + 1)) 2>/dev/null
                        sum=$(md5sum <new | cut -c1-32)
                        mv new file$i; sync
                        echo "$i $sum"
                        [ $((i % 5)) = 0 ] && { rm file$((i - 4)); echo "$((i - 4)) gone"; }
                        dd if=/dev/zero of=noise bs=64k count=$((i % 13)) 2>/dev/null
                    done
                    """
                try Files.writeAtomically(Array(load.utf8), to: folder + "/load")
                // Killed in the middle of it, at a moment that is another each time.
                _ = try Subprocess.run([
                    "bash", "-c",
                    """
                    : >\(folder)/told
                    \(BootTests.command) run --disk \(disk) -- sh -c "$(cat \(folder)/load)" >\(folder)/told &
                    while [ $(wc -l <\(folder)/told) -lt \(10 + round * 7 % 23) ]; do
                        kill -0 $! 2>/dev/null || exit 1
                        sleep 0.0\(round % 9 + 1)
                    done
                    kill -9 $!; wait
                    """,
                ])
                let checked = try Subprocess.run(["sh", "-c", "\(path); e2fsck -p \(disk); e2fsck -fn \(disk)"])
                #expect(checked.status == 0, "\(String(decoding: checked.output, as: UTF8.self)) \(checked.errorText)")
                var told: [Substring: Substring] = [:]
                // The last line may be half a line.
                for line in String(decoding: try readFile(folder + "/told"), as: UTF8.self).split(separator: "\n")
                    .dropLast()
                {
                    let words = line.split(separator: " ")
                    if words.count == 2 { told[words[0]] = words[1] == "gone" ? nil : words[1] }
                }
                #expect(told.count > 5, "round \(round): \(told.count) files")
                let found = try run(
                    ["--disk", disk],
                    "mkdir /mnt; mount -o ro /dev/vda /mnt; cd /mnt/round\(round); md5sum file* | sed 's/  file/ /'")
                var there: [Substring: Substring] = [:]
                let output = text(found)
                for line in output.split(separator: "\n") {
                    let words = line.split(separator: " ")
                    if words.count == 2 { there[words[1]] = words[0] }
                }
                for (name, sum) in told where there[name] != sum && there[name] == nil {
                    // Removed after the last line that we saw of it, and before the kill: only the next to go may be missing.
                    let number = Int(name) ?? 0
                    let last = told.keys.compactMap { Int($0) }.max() ?? 0
                    #expect(number >= last - 5, "round \(round): file\(name) is lost")
                }
                for (name, sum) in told {
                    if let real = there[name] { #expect(real == sum, "round \(round): file\(name)") }
                }
            }
        }
    }

    /// /dev/hwrng is the host's.
    @Test func randomNumbersAreThere() throws {
        let result = try run(
            [], "dd if=/dev/hwrng bs=1k count=4 2>/dev/null | wc -c; cat /sys/class/misc/hw_random/rng_current")
        #expect(text(result) == "4096\nvirtio_rng.0\n", "\(result.errorText)")
    }

    /// Nothing polls: a Guest that does nothing costs nothing.
    @Test(.enabled(if: StressTests.seconds != nil, "it takes a minute: make test-thorough"))
    func anIdleGuestWithAllDevicesIsIdle() throws {
        try withDisk(megabytes: 16) { folder, disk in
            func cost(_ seconds: Int) throws -> Double {
                let result = try Subprocess.run([
                    "bash", "-c",
                    """
                    TIMEFORMAT='%U %S'
                    time \(BootTests.command) run --disk \(disk) --net user --console hvc0 -- sleep \(seconds)
                    """,
                ])
                let times = result.errorText.split(whereSeparator: { $0 == " " || $0 == "\n" }).suffix(2)
                return times.compactMap { Double($0) }.reduce(0, +)
            }
            let short = try cost(1)
            let long = try cost(61)
            print("an idle minute costs \(long - short) seconds of CPU time")
            #expect(long - short < 1.2)
        }
    }
}
