import CHost
import Glibc
import HostInterface
import Testing

/// The built command, run as a user runs it.
struct Command {
    /// Beside the test bundle, where the build puts both.
    static let path: String = {
        // .build/<triple>/release/<bundle>.xctest runs from the package's root or is given by its own path.
        let own = CommandLine.arguments.first { $0.hasSuffix(".xctest") } ?? CommandLine.arguments[0]
        let folder = own.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
        for candidate in [folder + "/roost", ".build/release/roost"] where Files.exists(candidate) { return candidate }
        return ".build/release/roost"
    }()

    static func run(_ arguments: String..., input: Int32? = nil, environment: [String: String] = [:]) throws
        -> Subprocess.Result
    {
        try Subprocess.run([path] + arguments, input: input, environment: environment)
    }
}

/// A pseudo-terminal, to see what the command does to one.
final class PseudoTerminal {
    let controller: Int32
    let terminal: Int32

    init() throws {
        var ends: (Int32, Int32) = (-1, -1)
        let result = unsafe chost_open_terminal(&ends.0, &ends.1)
        try #require(result == 0)
        (controller, terminal) = ends
    }

    deinit {
        close(controller)
        close(terminal)
    }

    /// The modes that raw and ordinary differ in.
    var isOrdinary: Bool {
        var modes = termios()
        guard unsafe tcgetattr(terminal, &modes) == 0 else { return false }
        return modes.c_lflag & UInt32(ECHO | ICANON | ISIG) == UInt32(ECHO | ICANON | ISIG)
            && modes.c_oflag & UInt32(OPOST) != 0
    }

    var isRaw: Bool {
        var modes = termios()
        guard unsafe tcgetattr(terminal, &modes) == 0 else { return false }
        return modes.c_lflag & UInt32(ECHO | ICANON | ISIG) == 0
    }

    func type(_ text: String) {
        let bytes = Array(text.utf8)
        _ = unsafe write(controller, bytes, bytes.count)
    }
}

/// The smallest of kernels: a multiboot header and a few instructions of
/// 32-bit code, at 1 MiB.
enum TinyKernel: String, CaseIterable {
    case powersOff, exits, dies, resets, prints, chatters, looksAround

    var code: [UInt8] {
        switch self {
        // mov $0x604, %dx; mov $0x3400, %ax; out %ax, %dx: ACPI's SLP_EN with the type of S5
        case .powersOff: [0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x34, 0x66, 0xef, 0xeb, 0xfe]
        // mov $5, %al; out %al, $0xf4
        case .exits: [0xb0, 0x05, 0xe6, 0xf4, 0xeb, 0xfe]
        // ud2, with no IDT to go through
        case .dies: [0x0f, 0x0b]
        // mov $0xfe, %al; out %al, $0x64: the keyboard controller's reset
        case .resets: [0xb0, 0xfe, 0xe6, 0x64, 0xeb, 0xfe]
        // 'h' and a newline to COM1; cli; hlt
        case .prints: [0x66, 0xba, 0xf8, 0x03, 0xb0, 0x68, 0xee, 0xb0, 0x0a, 0xee, 0xfa, 0xf4, 0xeb, 0xfd]
        // 1: 'h' and a newline to COM1; jmp 1b
        case .chatters: [0x66, 0xba, 0xf8, 0x03, 0xb0, 0x68, 0xee, 0xb0, 0x0a, 0xee, 0xeb, 0xf8]
        case .looksAround:
            [
                // Its command line to COM1: mov 16(%ebx), %esi; mov $0x3f8, %dx;
                // 1: lodsb; test %al, %al; jz 2f; out %al, %dx; jmp 1b
                0x8b, 0x73, 0x10, 0x66, 0xba, 0xf8, 0x03, 0xac, 0x84, 0xc0, 0x74, 0x03, 0xee, 0xeb, 0xf8,
                // Is there an MP table? 2: mov $0xf0000, %esi; 3: cmpl $"_MP_", (%esi); je 4f; add $16, %esi;
                // cmp $0x100000, %esi; jb 3b
                0xbe, 0x00, 0x00, 0x0f, 0x00, 0x81, 0x3e, 0x5f, 0x4d, 0x50, 0x5f, 0x74, 0x0f, 0x83, 0xc6, 0x10,
                0x81, 0xfe, 0x00, 0x00, 0x10, 0x00, 0x72, 0xed,
                // 0, or its revision, to the exit port: xor %eax, %eax; jmp 5f; 4: mov 9(%esi), %al; 5: out %al, $0xf4
                0x31, 0xc0, 0xeb, 0x03, 0x8a, 0x46, 0x09, 0xe6, 0xf4, 0xeb, 0xfe,
            ]
        }
    }

    /// Multiboot 0.6.96, 3.1: magic, flags (bit 16: the addresses are here), checksum; then where to load and to enter.
    var image: [UInt8] {
        let magic: UInt32 = 0x1bad_b002, flags: UInt32 = 0x1_0000
        let header: [UInt32] = [magic, flags, 0 &- magic &- flags, 0x10_0000, 0x10_0000, 0, 0, 0x10_0020]
        let bytes = header.flatMap { word in (0..<4).map { UInt8(truncatingIfNeeded: word >> ($0 * 8)) } } + code
        return bytes + [UInt8](repeating: 0, count: 4096 - bytes.count)
    }

    func withFile<Result>(_ body: (String) throws -> Result) throws -> Result {
        let folder = try Files.createTemporaryFolder(beside: "/tmp/roost-kernel")
        defer { Files.remove(folder) }
        try Files.writeAtomically(image, to: folder + "/" + rawValue)
        return try body(folder + "/" + rawValue)
    }
}
