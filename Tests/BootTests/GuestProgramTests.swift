import HostInterface
import Launcher
import Testing

/// Programs in a booted Guest, on the engine that users get.
@Suite(.serialized) struct GuestProgramTests {
    /// Small, usual, and large. Debian's kernel takes 46 MB for itself: with 64 MiB it has come up nowhere.
    @Test(arguments: [72, 256, 2048]) func bootsWithMemory(_ megabytes: Int) throws {
        // Zeros, written and read back, and what their MD5 is.
        let (count, sum) =
            megabytes < 256 ? (4, "b5cfa9d6c8febd618f91ac2843d50a1c") : (64, "7f614da9329cd3aebf59b91aadc30bf0")
        let system = try GuestSystem(
            script: """
                grep MemTotal /proc/meminfo
                dd if=/dev/zero of=/tmp/fill bs=1M count=\(count) 2>/dev/null && md5sum </tmp/fill
                """)
        let result = try system.run(memory: "\(megabytes)M", seconds: 300)
        #expect(result.status == 0, "\(result.everything)")
        let words = result.output.split(whereSeparator: { $0 == " " || $0 == "\n" })
        let kibibytes = words.compactMap { Int($0) }.first ?? 0
        #expect(kibibytes > (megabytes * 96 / 100 - 46) * 1024 && kibibytes < megabytes * 1024, "\(result.output)")
        #expect(result.output.contains(sum), "\(result.output)")
    }

    /// The compatibility mode of a 64-bit kernel: INT 0x80, segments, 32-bit code.
    @Test func i386ProgramsRun() throws {
        let folder = try GuestSystem.packages("i386").folder(of: "busybox-static")
        var system = try GuestSystem(
            script: """
                bb=/bin/busybox32
                $bb echo hello from $($bb expr 6 '*' 7)
                echo roost | $bb md5sum
                echo 'BEGIN { for (i = 0; i < 1000; i++) s += i * i / 7; printf "%.3f\\n", s }' >/tmp/a
                $bb awk -f /tmp/a
                $bb seq 1 2000 | $bb sort -rn | $bb head -n 1
                $bb tar -C /bin -c busybox32 | $bb gzip -1 | $bb gunzip | $bb tar -t
                $bb sh -c 'for i in 1 2 3; do $0 true | $0 cat & done; wait; echo joined; kill -USR1 $$' $bb
                echo status $?
                """)
        system.addProgram("bin/busybox32", try GuestSystem.read(folder, "bin/busybox"))
        let result = try system.run(seconds: 300)
        #expect(result.status == 0, "\(result.everything)")
        let expected = """
            hello from 42
            10e9e1235ccb6e1e6961b951a7431753  -
            47547642.857
            2000
            busybox32
            joined
            status 138
            """
        #expect(
            result.output.split(separator: "\n").filter { !$0.contains("User defined") }.joined(separator: "\n")
                == expected)
    }

    /// How late a sleeper wakes, by the Guest's own clock.
    @Test(.enabled(if: CCompiler.isPresent, "there is no cc here that links statically"))
    func sleepsEndInTime() throws {
        let program = try CCompiler.compile(
            """
            #include <stdio.h>
            #include <stdlib.h>
            #include <time.h>
            static int compare(const void *a, const void *b) { long d = *(long *)a - *(long *)b; return (d > 0) - (d < 0); }
            int main(void) {
                long late[100];
                for (int i = 0; i < 100; i++) {
                    struct timespec a, b, t = {0, 10 * 1000 * 1000};
                    clock_gettime(CLOCK_MONOTONIC, &a);
                    nanosleep(&t, 0);
                    clock_gettime(CLOCK_MONOTONIC, &b);
                    late[i] = (b.tv_sec - a.tv_sec) * 1000000000L + b.tv_nsec - a.tv_nsec - t.tv_nsec;
                }
                qsort(late, 100, sizeof *late, compare);
                printf("%ld %ld %ld\\n", late[0], late[50], late[99]);
            }
            """)
        var system = try GuestSystem(script: "sleep 1; sleeps")
        system.addProgram("bin/sleeps", program)
        let result = try system.run(seconds: 300)
        #expect(result.status == 0, "\(result.everything)")
        let late = result.output.split(separator: " ").compactMap { Int($0) }
        try #require(late.count >= 2, "\(result.output)")
        print("sleeps of 10 ms were late by \(result.output) ns: least, median, most")
        #expect(late[0] >= 0)
        #expect(late[1] < 1_000_000, "the median sleep was \(late[1]) ns late")
    }
}

/// The host's C compiler, for programs that no package has.
enum CCompiler {
    static let isPresent = (try? compile("int main(void) { return 0; }")) != nil

    static func compile(_ source: String) throws -> [UInt8] {
        let folder = try Files.createTemporaryFolder(beside: "/tmp/roost-test")
        defer { Files.remove(folder) }
        try Files.writeAtomically(Array(source.utf8), to: folder + "/program.c")
        let result = try Subprocess.run(["cc", "-O2", "-static", "-o", "program", "program.c"], in: folder)
        guard result.status == 0 else { throw HostError("cc failed: \(result.errorText)") }
        return try readFile(folder + "/program")
    }
}
