internal import HostInterface
internal import Platform

//L:030 What is put into the Guest
//
// Before there is a Guest, all that it is made of must be in hand: the kernel,
// its initial RAM disk, its command line. Everything that can be missing,
// unreadable or impossible is found here, while the terminal is still the
// user's and one line can say it.

/// A Guest's kernel, or whatever it boots.
struct KernelFile {
    let source: BootSource
    let format: KernelFormat
    /// The folder of the package that it is from.
    let package: String?

    /// Reads it, or fetches it. A file that is no kernel is said to be so before anything is fetched for it.
    static func find(_ configuration: GuestConfiguration, progress: Progress) throws -> KernelFile {
        var name: String
        var package: String?
        switch configuration.kernel {
        case .file(let path): name = path
        case .debian(let debian):
            let folder = try PackageStore(progress: progress).folder(of: debian)
            name = try newestKernel(in: folder, package: debian)
            package = folder
        }
        let source = BootSource(kernel: try readFile(name), kernelName: name)
        return KernelFile(source: source, format: try KernelFormat.detect(source), package: package)
    }

    var isLinux: Bool { format == .bzImage || format == .vmlinux }

    /// As `roost ps` says it.
    var kind: String { isLinux ? "Linux" : format == .lguest ? "lguest" : "bare" }

    private static func newestKernel(in folder: String, package: String) throws(HostError) -> String {
        guard let name = Files.list(folder + "/boot").last(where: { $0.hasPrefix("vmlinuz-") }) else {
            throw HostError("the package \(package) has no kernel in it", advice: "use one as linux-image-amd64")
        }
        return folder + "/boot/" + name
    }
}

/// What a Guest boots, and what kind of talk to expect from it.
struct GuestFiles {
    let source: BootSource
    /// What our /init does; nil where the Guest's first program is not ours,
    /// and COM1 is all we know of it.
    let session: Session?

    /// Reads, fetches and builds what the kernel wants besides.
    ///
    /// - Parameter modules: what the built initramfs is to load, if the kernel has it as modules.
    static func gather(
        _ configuration: GuestConfiguration, _ kernel: KernelFile, session: Session, modules: [String],
        progress: Progress
    ) throws -> GuestFiles {
        var source = kernel.source
        source.commandLine = commandLine(configuration, kernel)
        // By Xen's own entry: any other way, Linux would look for its grant table in a PCI device.
        if configuration.isXen, kernel.isLinux { source.preference = .pvh }
        if let path = configuration.initialRAMDisk {
            source.initrd = try readFile(path)
            source.initrdName = path
            return GuestFiles(source: source, session: nil)
        }
        guard kernel.isLinux else {
            // A bare-metal program, which has no use for a busybox.
            guard configuration.command.isEmpty else {
                throw ConfigurationError("a command needs Linux to run in, and \(source.kernelName) is something else")
            }
            return GuestFiles(source: source, session: nil)
        }
        let store = PackageStore(progress: progress)
        let loaded =
            if let package = kernel.package { try KernelModules(root: package).resolve(modules) } else {
                [KernelModule]()
            }
        let tools = try store.folder(of: "busybox-static")
        // /bin is a part of /usr since Debian 13.
        let busybox = try readFile(tools + (Files.exists(tools + "/bin/busybox") ? "/bin/busybox" : "/usr/bin/busybox"))
        let files = try configuration.files.map { file in
            GuestFile(
                place: file.place, contents: try readFile(file.path),
                mode: Files.isExecutable(file.path) ? 0o755 : 0o644)
        }
        source.initrd = InitialRAMDisk.build(session: session, busybox: busybox, modules: loaded, files: files)
        source.initrdName = "the built initramfs"
        return GuestFiles(source: source, session: configuration.bootsFromDisk ? nil : session)
    }

    /// On a CPU of AMD's, Linux asks nobody but KVM's clock for the TSC's frequency, and who sees Xen has none.
    /// It would go by the PIT: if the host has other things to do for those 10 ms, the Guest's clock runs several
    /// times too fast for good.
    private static func clockWord(_ configuration: GuestConfiguration) -> String {
        configuration.isXen ? "tsc_early_khz=\(HostClock.timeStampFrequency / 1000) " : ""
    }

    private static func commandLine(_ configuration: GuestConfiguration, _ kernel: KernelFile) -> String {
        if kernel.isLinux { return clockWord(configuration) + configuration.wholeCommandLine }
        guard kernel.format == .lguest else {
            let says = configuration.commandLine != nil || configuration.initialRAMDisk != nil
            return says ? configuration.wholeCommandLine : ""
        }
        // Behind what the user says: the first counts.
        let own = configuration.neighbours.first.map { "address=\($0.address)" }
        return [configuration.commandLine, own].compactMap(\.self).joined(separator: " ")
    }
}
//:
