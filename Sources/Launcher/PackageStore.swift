internal import HostInterface

//L:070 A kernel that nobody had to build
//
// The best test of a hypervisor is the kernel that everybody runs, and Debian
// hands it out. We let apt fetch it, for apt knows the machine's mirrors and
// proxies and checks the signatures; but with package lists, a cache and a
// status file of our own, in the user's cache folder, so that no root is
// needed and nothing of the system changes:
//
//     CACHE/apt/        apt's lists and its configuration
//     CACHE/packages/NAME/      one unpacked package
//     CACHE/packages/NAME.name  for a meta package: what it stood for
//     CACHE/apt-i386/, CACHE/packages/NAME:i386/     and so for other architectures
//     CACHE/lock        held by the one process that fetches
//
// A package is unpacked into a folder beside its own and moved there whole: a
// folder that is there is complete, and a later run needs no network.

/// Debian packages, fetched once and kept unpacked.
package struct PackageStore {
    package let folder: String
    private let architecture: String
    private let progress: Progress

    /// - Parameter architecture: Debian's name of the one that the packages are for.
    package init(
        folder: String = PackageStore.defaultFolder, architecture: String = PackageStore.guestArchitecture,
        progress: Progress
    ) {
        self.folder = folder
        self.architecture = architecture
        self.progress = progress
    }

    package static let guestArchitecture = "amd64"

    /// $ROOST_CACHE, or `roost` in the user's cache folder (XDG Base Directory Specification).
    package static var defaultFolder: String {
        if let folder = environmentVariable("ROOST_CACHE") { return folder }
        if let caches = environmentVariable("XDG_CACHE_HOME") { return caches + "/roost" }
        if let home = environmentVariable("HOME") { return home + "/.cache/roost" }
        return "/tmp/roost-cache"
    }

    /// The folder with the package's files, fetched if it is not there yet. A
    /// kernel's meta package stands for the kernel that it depends on.
    package func folder(of name: String) throws -> String {
        // The name becomes a path and an argument of apt's: Debian Policy 5.6.1 says what it may be made of.
        let allowed = Set("abcdefghijklmnopqrstuvwxyz0123456789+-.")
        guard let first = name.first, first.isLetter || first.isNumber, name.allSatisfy(allowed.contains) else {
            throw HostError("'\(name)' is no name of a Debian package", advice: "use one as linux-image-amd64")
        }
        if let ready = readyFolder(of: name) { return ready }
        try Files.createFolder(folder + "/packages")
        return try Files.locked(folder + "/lock") {
            // Another process may have done it while we waited.
            if let ready = readyFolder(of: name) { return ready }
            return try fetch(name)
        }
    }

    private func readyFolder(of name: String) -> String? {
        var real = name
        if let alias = try? readFile(aliasFile(of: name)) { real = String(decoding: alias, as: UTF8.self) }
        let path = path(of: real)
        return Files.exists(path) ? path : nil
    }

    private func path(of name: String) -> String {
        folder + "/packages/" + name + (architecture == Self.guestArchitecture ? "" : ":" + architecture)
    }

    private func aliasFile(of name: String) -> String { path(of: name) + ".name" }

    private func fetch(_ name: String) throws -> String {
        defer { progress.finish() }
        let apt = Apt(
            folder: folder + "/apt" + (architecture == Self.guestArchitecture ? "" : "-" + architecture),
            architecture: architecture)
        try apt.prepare()

        // A mirror that is down is no reason to give up: what matters is whether the package is to be had.
        progress.step("fetching Debian's package lists")
        let update = try apt.run("apt-get", ["update"])
        let candidates = try apt.dependencies(of: name)
        guard let candidates else {
            let reason = update.status == 0 ? "Debian's lists have no such package" : update.lastWords
            throw HostError("cannot fetch the package \(name): \(reason)", advice: Apt.advice)
        }
        let real = name.hasPrefix("linux-image-") ? candidates.first { $0.hasPrefix("linux-image-") } ?? name : name

        let target = path(of: real)
        if !Files.exists(target) {
            let work = try Files.createTemporaryFolder(beside: target)
            defer { Files.remove(work) }
            progress.step("downloading \(real)")
            let download = try apt.run("apt-get", ["download", real], in: work)
            guard download.status == 0, let file = Files.list(work).first(where: { $0.hasSuffix(".deb") }) else {
                throw HostError("cannot download \(real): \(download.lastWords)", advice: Apt.advice)
            }
            progress.step("unpacking \(real)")
            let unpacking = try Subprocess.run(["dpkg-deb", "-x", file, "root"], in: work)
            guard unpacking.status == 0 else { throw HostError("cannot unpack \(file): \(unpacking.lastWords)") }
            try Files.rename(work + "/root", to: target)
        }
        if real != name { try Files.writeAtomically(Array(real.utf8), to: aliasFile(of: name)) }
        return target
    }
}

/// apt, with a state of its own.
private struct Apt {
    let folder: String
    let architecture: String

    static let advice = "or pass --kernel FILE and --initrd FILE"

    /// Writes the configuration that the runs are under.
    func prepare() throws {
        guard let path = environmentVariable("PATH"),
            path.split(separator: ":").contains(where: { Files.exists($0 + "/apt-get") })
        else {
            throw HostError(
                "this machine has no apt to fetch a kernel with", advice: "pass --kernel FILE and --initrd FILE")
        }
        for part in ["state/lists/partial", "cache/archives/partial"] { try Files.createFolder(folder + "/" + part) }
        try Files.writeAtomically([], to: folder + "/status")
        // The system's own hooks would clean the system's own folders: not for us.
        // As root, apt would drop to a user who may not write here.
        let quoted = folder.split(separator: "\"", omittingEmptySubsequences: false).joined()
        let configuration = """
            Dir::State "\(quoted)/state";
            Dir::State::status "\(quoted)/status";
            Dir::State::extended_states "\(quoted)/extended_states";
            Dir::Cache "\(quoted)/cache";
            Dir::Log "\(quoted)";
            APT::Sandbox::User "";
            APT::Architecture "\(architecture)";
            APT::Architectures { "\(architecture)"; };
            Acquire::Languages "none";
            Acquire::Retries "3";
            #clear APT::Update::Pre-Invoke;
            #clear APT::Update::Post-Invoke;
            #clear APT::Update::Post-Invoke-Success;
            #clear DPkg::Post-Invoke;

            """
        try Files.writeAtomically(Array(configuration.utf8), to: folder + "/apt.conf")
    }

    func run(_ program: String, _ arguments: [String], in workFolder: String? = nil) throws -> Subprocess.Result {
        try Subprocess.run(
            [program, "-q", "-c", folder + "/apt.conf"] + arguments, in: workFolder, environment: ["LC_ALL": "C"])
    }

    /// The names that the newest version of the package depends on; nil if there is no such package.
    func dependencies(of name: String) throws -> [String]? {
        let show = try run("apt-cache", ["show", "--no-all-versions", name])
        let text = String(decoding: show.output, as: UTF8.self)
        guard show.status == 0, text.contains("Package: ") else { return nil }
        let field = "\nDepends: "
        guard let start = text.firstRange(of: field)?.upperBound else { return [] }
        // "a (= 1.0) | b, c": the first of each choice, without its version.
        return text[start...].prefix { $0 != "\n" }.split(separator: ",").compactMap { choice in
            choice.split(whereSeparator: { " (|:".contains($0) }).first.map(String.init)
        }
    }
}
//:
