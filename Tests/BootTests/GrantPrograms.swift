import HostInterface
import Launcher
import Testing

/// What Guests that share pages run: compiled once, where there is what that takes.
enum GrantPrograms {
    static let canBeMade =
        (try? CCompiler.compile(
            """
            #include <linux/types.h>
            #include <xen/gntalloc.h>
            int main(void) { return 0; }
            """)) != nil

    static let probe = Result { try make("probe", in: "Tests/GrantPrograms") }
    static let ring = Result { try make("ring", in: "Examples/sharing") }
    /// Of a library that few hosts have.
    static let vchan = Result { try make("vchan", in: "Examples/sharing") }
    static let hasVchan = (try? vchan.get()) != nil

    private static func make(_ program: String, in source: String) throws -> [UInt8] {
        let root = #filePath.split(separator: "/").dropLast(3).map { "/" + $0 }.joined()
        let folder = try Files.createTemporaryFolder(beside: "/tmp/roost-test")
        defer { Files.remove(folder) }
        let result = try Subprocess.run(
            ["make", "-s", "-C", root + "/" + source, "OUT=" + folder, folder + "/" + program])
        guard result.status == 0 else { throw HostError("cannot make \(program): \(result.errorText)") }
        return try readFile(folder + "/" + program)
    }
}
