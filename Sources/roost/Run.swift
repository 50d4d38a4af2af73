internal import ArgumentParser
internal import HostInterface
internal import Launcher
internal import Network

/// `roost run`: one Guest at the user's terminal.
struct Run: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Boots a guest to a shell, or runs one command in it.",
        discussion: """
            Without --kernel, Debian's cloud kernel is fetched and kept; without --initrd, a small \
            system around busybox is built. COMMAND runs in the guest: its output is roost's output, \
            its exit status is roost's.

            At a terminal, Ctrl-A x ends the guest and Ctrl-A h lists the keys.

            Exit status: COMMAND's; 0 if the guest powers off; 1 if the host is in the way; \
            64 for a wrong command line; 70 if the guest dies.
            """)

    @Option(
        help: ArgumentHelp(
            "The kernel: bzImage, vmlinux, PVH, multiboot, or a guest for lguest's bus; or debian:PACKAGE.",
            valueName: "file"))
    var kernel: String?

    @Option(help: ArgumentHelp("The initial RAM disk; nothing is added to it.", valueName: "file"))
    var initrd: String?

    @Option(
        help: ArgumentHelp(
            "For the kernel's command line: behind \"\(GuestConfiguration.defaultCommandLine)\", or, if it has console=…, instead of it.",
            valueName: "text"))
    var append: String?

    @Option(
        parsing: .singleValue,
        help: ArgumentHelp(
            "A disk: FILE[,ro][,format=raw|qcow2][,serial=TEXT]; may be given again.", valueName: "file"))
    var disk: [String] = []

    @Option(
        help: ArgumentHelp(
            "A network card: user[,forward=[tcp|udp:]HOSTPORT:GUESTPORT]…, tap=NAME, or none.", valueName: "kind"))
    var net = "none"

    @Option(help: ArgumentHelp("The user's terminal: ttyS0, a serial port, or hvc0, by virtio.", valueName: "name"))
    var console = "ttyS0"

    @Flag(inversion: .prefixedNo, help: "Random numbers from the host, by virtio-rng.")
    var rng = true

    @Option(help: ArgumentHelp("The guest's RAM, as in 512M or 2G.", valueName: "size"))
    var memory = "512M"

    @Option(
        parsing: .singleValue,
        help: ArgumentHelp(
            "A file to have in the guest: FILE[:PLACE], else in /bin; may be given again.", valueName: "file"))
    var file: [String] = []

    @Option(help: ArgumentHelp("What runs the guest's code: \(EngineTable.names).", valueName: "name"))
    var engine = EngineTable.automatic

    @Flag(help: "Show the guest Xen's interface, by which guests share pages.")
    var xen = false

    @Flag(name: .customLong("no-reboot"), help: "End, with status 0, when the guest reboots.")
    var noReboot = false

    @Flag(help: "Show the kernel's log on standard error, and at the end, what the engine did.")
    var verbose = false

    @Option(help: ArgumentHelp("Write there what the guest spent its time on.", valueName: "file"))
    var profile: String?

    @Option(
        parsing: .singleValue,
        help: ArgumentHelp(
            "With --profile, the names of the guest's code: a System.map, or an ELF file; may be given again.",
            valueName: "file"))
    var symbols: [String] = []

    @Argument(help: ArgumentHelp("The same as --kernel.", valueName: "kernel"))
    var image: String?

    @Argument(parsing: .postTerminator, help: ArgumentHelp("What to run in the guest, after --.", valueName: "command"))
    var command: [String] = []

    func run() throws {
        var configuration = GuestConfiguration()
        guard kernel == nil || image == nil else {
            throw ConfigurationError("there are two kernels: '\(image ?? "")' and --kernel \(kernel ?? "")")
        }
        if let kernel = kernel ?? image { configuration.setKernel(kernel) }
        configuration.initialRAMDisk = initrd
        configuration.commandLine = append
        do { configuration.memory = try MemorySize(parsing: memory) } catch {
            throw ConfigurationError("--memory: \(error)")
        }
        do { _ = try EngineTable.engine(named: engine) } catch let error as ConfigurationError {
            throw ConfigurationError("--engine: \(error)")
        }
        do { configuration.disks = try disk.map(DiskOption.init(parsing:)) } catch {
            throw ConfigurationError("--disk: \(error)")
        }
        do { configuration.files = try file.map(FileOption.init(parsing:)) } catch {
            throw ConfigurationError("--file: \(error)")
        }
        do { configuration.network = try NetworkOption(parsing: net) } catch { throw ConfigurationError("\(error)") }
        guard let kind = ConsoleKind(rawValue: console) else {
            let names = ConsoleKind.allCases.map(\.rawValue).joined(separator: " or ")
            throw ConfigurationError("--console: '\(console)' is no terminal of a guest; there is \(names)")
        }
        configuration.console = kind
        configuration.hasEntropy = rng
        configuration.isXen = xen
        guard symbols.isEmpty || profile != nil else {
            throw ConfigurationError("--symbols: there is no --profile to use them in")
        }
        configuration.engine = engine
        configuration.restartsOnReboot = !noReboot
        configuration.verbose = verbose
        configuration.profile = profile
        configuration.symbols = symbols
        // The parser has made Strings of them, and a byte that is no UTF-8 did
        // not survive that. The last ones of our arguments are the same, whole.
        configuration.command = CommandLineBytes.arguments.suffix(command.count)

        let end = try Launcher(configuration).run()
        let message = end.details.map { "roost: the guest died: \(end.reason)\n" + $0 }
        throw SessionEnd(status: end.status, message: message)
    }
}
