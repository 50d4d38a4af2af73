import HostInterface
import Testing

/// The Launcher in C: as it is built with everything, and as its user would build it with the library.
@Suite(.enabled(if: Files.exists(".build/guests/hello.elf"), "there are no samples in .build/guests: make guests"))
struct CLauncherTests {
    private static let folder = Command.path.split(separator: "/", omittingEmptySubsequences: false).dropLast()
        .joined(separator: "/")

    private func check(_ launcher: String, environment: [String: String] = [:]) throws {
        func run(_ arguments: String...) throws -> Subprocess.Result {
            try Subprocess.run([launcher] + arguments, environment: environment)
        }
        let hello = try run("16", ".build/guests/hello.elf")
        #expect(hello.status == 0, "\(hello.errorText)")
        #expect(
            String(decoding: hello.output, as: UTF8.self) == "Hello from a Guest in Swift, with 16 MiB to itself.\n")

        // It has no devices to give.
        let dice = try run("16", ".build/guests/dice.elf")
        #expect(dice.status == 70)
        #expect(dice.errorText == "lguest: CRASH: there is no source of entropy\n")

        let nothing = try run("16", "/dev/null")
        #expect(nothing.status == 1)
        #expect(nothing.lastWords.contains("/dev/null"))
    }

    @Test func bootsAGuest() throws { try check(Self.folder + "/CLauncher") }

    @Test func bootsAGuestWithTheLibrary() throws {
        let header = Self.folder + "/LguestLibrary.build/include/LguestLibrary-Swift.h"
        try #require(Files.exists(header) && Files.exists(Self.folder + "/liblguest.so"), "the library was not built")
        let place = try Files.createTemporaryFolder(beside: "/tmp/roost-launcher")
        defer { Files.remove(place) }
        let compiler = try Subprocess.run([
            "clang", "-O1", "-Wall", "-Wextra", "-Werror", "-DLGUEST_H=\"\(try Files.absolutePath(header))\"",
            "Tests/CLauncher/launcher.c", "-o", place + "/launcher", "-L" + Self.folder, "-llguest",
        ])
        try #require(compiler.status == 0, "\(compiler.errorText)")
        try check(place + "/launcher", environment: ["LD_LIBRARY_PATH": Self.folder])
    }
}
