internal import HostInterface

//L:080 Modules, from the kernel's own package
//
// A module fits the one kernel it was built with. A package has the modules
// but not modules.dep, which depmod makes at installation: so we look where
// depmod looks, in each module's section .modinfo, where "depends=" names what
// must be loaded before.

/// One module, ready for the initramfs.
package struct KernelModule: Equatable, Sendable {
    /// Where it goes, as `lib/modules/VERSION/kernel/…/NAME.ko`.
    package let path: String
    package let contents: [UInt8]

    package init(path: String, contents: [UInt8]) {
        self.path = path
        self.contents = contents
    }
}

/// The modules of one kernel, below a folder that holds its unpacked package.
package struct KernelModules {
    private let root: String
    /// Module name to path below `root`.
    private let paths: [String: String]
    private let builtIn: Set<String>

    package init(root: String) {
        self.root = root
        var paths: [String: String] = [:]
        var builtIn: Set<String> = []
        // /lib is a part of /usr since Debian 13.
        for base in ["lib/modules", "usr/lib/modules"] where Files.exists(root + "/" + base) {
            for file in Files.tree(root + "/" + base) {
                let path = base + "/" + file
                if let name = Self.moduleName(path) { paths[name] = path }
                if path.hasSuffix("/modules.builtin"), let list = try? readFile(root + "/" + path) {
                    builtIn.formUnion(
                        String(decoding: list, as: UTF8.self).split(separator: "\n").compactMap {
                            Self.moduleName(String($0))
                        })
                }
            }
        }
        self.paths = paths
        self.builtIn = builtIn
    }

    /// `kernel/drivers/block/virtio-blk.ko.xz` is the module virtio_blk: to the kernel, - and _ are one.
    package static func moduleName(_ path: String) -> String? {
        guard let file = path.split(separator: "/").last, let range = file.firstRange(of: ".ko") else { return nil }
        guard ["", ".xz", ".zst", ".gz"].contains(file[range.upperBound...]) else { return nil }
        return String(file[..<range.lowerBound].map { $0 == "-" ? "_" : $0 })
    }

    /// The modules called `names` and all that they depend on, in the order
    /// in which they can be loaded. What is built into the kernel is left out.
    package func resolve(_ names: [String]) throws -> [KernelModule] {
        var order: [KernelModule] = []
        var seen: Set<String> = []
        func visit(_ name: String, for dependent: String?) throws {
            let name = String(name.map { $0 == "-" ? "_" : $0 })
            guard seen.insert(name).inserted, !builtIn.contains(name) else { return }
            guard let path = paths[name] else {
                let why = dependent.map { ", which \($0) depends on" } ?? ""
                throw HostError("the kernel's package has no module \(name)\(why)")
            }
            let (contents, plainPath) = try load(path)
            for dependency in Self.dependencies(of: contents) { try visit(dependency, for: name) }
            order.append(KernelModule(path: plainPath, contents: contents))
        }
        for name in names { try visit(name, for: nil) }
        return order
    }

    /// The module as the kernel wants it. Debian compresses modules since
    /// version 13, and a machine that unpacked the package has the tool.
    private func load(_ path: String) throws -> (contents: [UInt8], path: String) {
        let tools = [".xz": "xz", ".zst": "zstd", ".gz": "gzip"]
        guard let (suffix, tool) = tools.first(where: { path.hasSuffix($0.key) }) else {
            return (try readFile(root + "/" + path), path)
        }
        let result = try Subprocess.run([tool, "-dc", root + "/" + path])
        guard result.status == 0 else {
            throw HostError("cannot unpack \(path): \(result.lastWords)", advice: "install \(tool)")
        }
        return (result.output, String(path.dropLast(suffix.count)))
    }

    /// What the module's .modinfo says it depends on. The section is strings
    /// of "key=value", each with a NUL behind it, and so it can be found
    /// without reading the ELF around it.
    package static func dependencies(of module: [UInt8]) -> [String] {
        let key = Array("\0depends=".utf8)
        guard let start = module.firstRange(of: key)?.upperBound else { return [] }
        let value = module[start...].prefix { $0 != 0 }
        return String(decoding: value, as: UTF8.self).split(separator: ",").map(String.init)
    }
}
//:
