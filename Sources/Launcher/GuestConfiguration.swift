package import Network

//L:010 What a Guest is made from
//
// lguest's Launcher took a memory size, a kernel and a handful of devices on
// its command line, and that was the whole configuration of a machine. So is
// this: a value, made by whoever wants a Guest, and looked at once.

/// A Guest, in words. Nothing here has been opened or checked beyond its form.
package struct GuestConfiguration: Sendable {
    /// Where the kernel comes from.
    package enum Kernel: Equatable, Sendable {
        case file(String)
        /// A Debian package, or a meta package that depends on one.
        case debian(package: String)
    }

    package var kernel: Kernel = .debian(package: "linux-image-cloud-amd64")
    /// The initial RAM disk; nil to have one built.
    package var initialRAMDisk: String?
    /// For the kernel's command line: see `wholeCommandLine`.
    package var commandLine: String?
    /// In the order of their names in the Guest.
    package var disks: [DiskOption] = []
    package var network = NetworkOption(kind: .none)
    /// Who is on its switch, in the house's order; the Guest itself first of all.
    package var neighbours: [Neighbour] = []
    /// The user's terminal in the Guest.
    package var console = ConsoleKind.ttyS0
    /// Random numbers from the host.
    package var hasEntropy = true
    package var memory = MemorySize(bytes: 512 << 20)
    package var engine = EngineTable.automatic
    package var restartsOnReboot = true
    /// It sees Xen, and can share pages with others that do.
    package var isXen = false
    /// Its name to others.
    package var name = "guest"
    /// The kernel's log goes to standard error as it comes.
    package var verbose = false
    /// Where to write what the Guest spent its time on; nil for nowhere.
    package var profile: String?
    /// Files with the names of the Guest's functions: the kernel's, its programs'.
    package var symbols: [String] = []
    /// Files of the host's that the built initramfs has, too.
    package var files: [FileOption] = []
    /// The program to run in the Guest, byte for byte; empty for a shell.
    package var command: [[UInt8]] = []

    package init() {}

    /// `debian:NAME`, or the path of a file.
    package mutating func setKernel(_ text: String) {
        let prefix = "debian:"
        kernel = text.hasPrefix(prefix) ? .debian(package: String(text.dropFirst(prefix.count))) : .file(text)
    }

    /// What the kernel is told. A line that names a console is taken as it
    /// is; any other goes behind the default, for a Guest that says nothing
    /// is no use to anybody.
    package var wholeCommandLine: String {
        let words = commandLine.map { $0.split(separator: " ").map(String.init) } ?? []
        if let commandLine, words.contains(where: { $0.hasPrefix("console=") }) { return commandLine }
        var line = [Self.defaultCommandLine]
        // Not for our own /init, which wants to have every byte: the kernel
        // listens to its console for ^O, its way to say SysRq.
        if console == .hvc0, bootsFromDisk || initialRAMDisk != nil { line.append("console=hvc0") }
        if let commandLine, !commandLine.isEmpty { line.append(commandLine) }
        return line.joined(separator: " ")
    }

    /// Whether the initramfs that we build is only the way to a system on a disk.
    package var bootsFromDisk: Bool { commandLine?.split(separator: " ").contains { $0.hasPrefix("root=") } ?? false }

    /// The device that is the user's in a Guest with our /init.
    var userPort: String { console == .hvc0 ? "hvc0" : "ttyS1" }

    /// Panic is to end the Guest and not to hang it: the kernel reboots at
    /// once, and `Guest` knows why by its log. The kernel tests all its crypto
    /// at boot, which is half of an interpreted boot: it may believe us.
    package static let defaultCommandLine = "console=ttyS0 panic=-1 8250.nr_uarts=4 cryptomgr.notests=1"
}

/// A Guest on a switch, where there is nobody to ask for an address: the house has given it one.
package struct Neighbour: Equatable, Sendable {
    package var name: String
    /// As in 10.0.3.2.
    package var address: String

    /// Of all the addresses on a switch, how many bits are the same.
    package static let prefixLength = 24

    /// The place of the `index`th Guest on a switch.
    package init(name: String, index: Int) {
        self.name = name
        address = "10.0.3.\(index + 1)"
    }
}

/// An amount of RAM, as in `--memory 512M`.
package struct MemorySize: Equatable, Sendable {
    package let bytes: UInt64

    package init(bytes: UInt64) { self.bytes = bytes }

    /// Under this not even the initramfs and an unpacked kernel fit.
    package static let least: UInt64 = 16 << 20
    /// What 39 bits of guest-physical address leave room for, and more than the hosts we know.
    package static let most: UInt64 = 256 << 30

    /// A number with K, M, G or nothing (MiB, as everybody means it) behind it.
    ///
    /// - Parameter least: what `owner` needs of it.
    /// - Throws: one sentence, to be shown behind the option's name.
    package init(
        parsing text: String, least: UInt64 = MemorySize.least, owner: String = "a guest"
    ) throws(ConfigurationError) {
        var digits = text[...]
        var shift: UInt64 = 20
        if let last = digits.last, let unit = ["k": 10, "m": 20, "g": 30][last.lowercased()] as UInt64? {
            shift = unit
            digits.removeLast()
        }
        guard !digits.isEmpty, digits.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }) else {
            throw ConfigurationError("'\(text)' is no amount of memory; write it as in 512M or 2G")
        }
        guard let number = UInt64(digits), number <= Self.most >> shift else {
            throw ConfigurationError("'\(text)' is more memory than the \(Self.most >> 30)G that \(owner) can have")
        }
        let bytes = number << shift
        guard bytes >= least else {
            throw ConfigurationError(
                "'\(text)' is too little memory; \(owner) needs \(MemorySize(bytes: least)) at the least")
        }
        guard bytes % 4096 == 0 else {
            throw ConfigurationError("'\(text)' is not a whole number of 4K pages")
        }
        self.bytes = bytes
    }
}

extension MemorySize: CustomStringConvertible {
    /// As it would be written.
    package var description: String {
        for (letter, shift) in [("G", 30), ("M", 20)] as [(String, UInt64)] where bytes & (1 << shift - 1) == 0 {
            return "\(bytes >> shift)\(letter)"
        }
        return "\(bytes >> 10)K"
    }
}

/// The user asked for something that cannot be: a usage error, in one sentence.
package struct ConfigurationError: Error, CustomStringConvertible, Sendable {
    package let description: String
    package init(_ description: String) { self.description = description }
}
//:
