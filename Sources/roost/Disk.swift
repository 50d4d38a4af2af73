internal import ArgumentParser
internal import HostInterface
internal import Launcher
internal import Storage

/// `roost disk`: the files that disks are made of.
struct Disk: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Makes disk images and tells about them.", subcommands: [Create.self, Info.self])

    struct Create: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Makes an empty disk, or one that remembers what changes upon another.",
            discussion: """
                With --backing, everything that is not written to FILE is read from the backing file, \
                which must not change from then on. A relative path is kept relative where both files \
                are in one folder.

                FILE must not be there yet.
                """)

        @Option(help: ArgumentHelp("As in 512M, 10G or 2T (default: the backing file's).", valueName: "size"))
        var size: String?

        @Option(help: ArgumentHelp("What is below the new disk.", valueName: "file"))
        var backing: String?

        @Option(help: ArgumentHelp("raw or qcow2 (default: by the file's first bytes).", valueName: "format"))
        var backingFormat: String?

        @Option(help: ArgumentHelp("qcow2 or raw.", valueName: "format"))
        var format = DiskFormat.qcow2.rawValue

        @Argument(help: ArgumentHelp("The new file.", valueName: "file"))
        var file: String

        func run() throws {
            var creation = DiskCreation(path: file)
            creation.format = try Disk.format(format, of: "--format")
            creation.byteCount = try size.map { try Disk.bytes($0, of: "--size") }
            creation.backing = backing
            creation.backingFormat = try backingFormat.map { try Disk.format($0, of: "--backing-format") }
            guard size != nil || backing != nil else {
                throw ConfigurationError("--size: an empty disk needs one, as in --size 10G")
            }
            guard backing != nil || backingFormat == nil else {
                throw ConfigurationError("--backing-format: there is no --backing")
            }
            guard backing == nil || creation.format == .qcow2 else {
                throw ConfigurationError("--backing: a raw disk has nothing below it; leave out --format raw")
            }
            try creation.run()
        }
    }

    struct Info: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Tells what a disk image is, and who uses it.")

        @Argument(help: ArgumentHelp("The image.", valueName: "file"))
        var file: String

        func run() throws {
            let info = try DiskInfo(path: file)
            var lines = [
                ("file", info.path), ("format", info.format.rawValue),
                ("size", "\(Disk.inWords(info.byteCount)) (\(info.byteCount) bytes)"),
                ("on disk", Disk.inWords(info.bytesOnDisk)),
            ]
            if let size = info.clusterSize { lines.append(("clusters", Disk.inWords(UInt64(size)))) }
            if info.snapshotCount > 0 { lines.append(("snapshots", "\(info.snapshotCount)")) }
            lines.append(("in use", info.user.map { "by \($0)" } ?? "no"))
            for below in info.chain {
                lines.append(("backing", "\(below.path) (\(below.format.rawValue), \(Disk.inWords(below.byteCount)))"))
            }
            for (name, value) in lines {
                let padding = String(repeating: " ", count: 11 - name.count)
                StandardStream.output.write("\(name):\(padding)\(value)\n")
            }
        }
    }

    private static func format(_ text: String, of option: String) throws(ConfigurationError) -> DiskFormat {
        guard let format = DiskFormat(rawValue: text) else {
            let names = DiskFormat.allCases.map(\.rawValue).joined(separator: " or ")
            throw ConfigurationError("\(option): '\(text)' is no format; it is \(names)")
        }
        return format
    }

    private static let units: [(letter: Character, shift: UInt64)] = [("K", 10), ("M", 20), ("G", 30), ("T", 40)]

    /// A number of bytes, with K, M, G or T behind it.
    private static func bytes(_ text: String, of option: String) throws(ConfigurationError) -> UInt64 {
        var digits = text[...]
        var shift: UInt64 = 0
        if let last = digits.last, let unit = units.first(where: { $0.letter == Character(last.uppercased()) }) {
            shift = unit.shift
            digits.removeLast()
        }
        guard digits.allSatisfy(\.isNumber), let number = UInt64(digits) else {
            throw ConfigurationError("\(option): '\(text)' is no size; write it as in 512M or 10G")
        }
        guard number > 0, number <= UInt64(Int64.max) >> shift, (number << shift) % 512 == 0 else {
            throw ConfigurationError(
                "\(option): '\(text)' cannot be a disk's size: more than 0, and a multiple of 512 bytes")
        }
        return number << shift
    }

    /// As people say it: "10 GiB", "1.5 MiB".
    private static func inWords(_ bytes: UInt64) -> String {
        guard let unit = units.last(where: { bytes >> $0.shift > 0 }) else { return "\(bytes) bytes" }
        let tenths = ((bytes & (1 << unit.shift - 1)) * 10) >> unit.shift
        return "\(bytes >> unit.shift)\(tenths == 0 ? "" : ".\(tenths)") \(unit.letter)iB"
    }
}
