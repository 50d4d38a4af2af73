//L:090 An archive that a kernel can unpack
//
// An initramfs is a cpio archive in the "newc" format, the simplest thing that
// ever held files (Documentation/driver-api/early-userspace/buffer-format.rst
// in the kernel's tree):
//
//     "070701", then 13 numbers of 8 hexadecimal digits:
//         ino mode uid gid nlink mtime filesize devmajor devminor
//         rdevmajor rdevminor namesize check
//     the name, with a NUL; padding to a multiple of 4
//     the contents;         padding to a multiple of 4
//     … and after all files one called TRAILER!!!
//
// We leave it unpacked: the kernel copies it faster than it could inflate it,
// above all on an interpreted CPU.

/// A newc cpio archive in the making.
package struct CPIOArchive {
    package private(set) var bytes: [UInt8] = []
    private var nextInode: UInt32 = 1
    private var folders: Set<String> = []

    package init() {}

    private enum Kind {
        static let folder: UInt32 = 0o040000
        static let file: UInt32 = 0o100000
        static let link: UInt32 = 0o120000
        static let characterDevice: UInt32 = 0o020000
    }

    /// A folder, and those above it. Twice is once.
    package mutating func addFolder(_ path: String, mode: UInt32 = 0o755) {
        guard !path.isEmpty, !folders.contains(path) else { return }
        addFolderAbove(path)
        folders.insert(path)
        add(path, mode: Kind.folder | mode, links: 2)
    }

    package mutating func addFile(_ path: String, _ contents: [UInt8], mode: UInt32 = 0o644) {
        addFolderAbove(path)
        add(path, mode: Kind.file | mode, contents: contents)
    }

    package mutating func addFile(_ path: String, _ text: String, mode: UInt32 = 0o644) {
        addFile(path, Array(text.utf8), mode: mode)
    }

    package mutating func addLink(_ path: String, to target: String) {
        addFolderAbove(path)
        add(path, mode: Kind.link | 0o777, contents: Array(target.utf8))
    }

    package mutating func addCharacterDevice(_ path: String, major: UInt32, minor: UInt32, mode: UInt32 = 0o600) {
        addFolderAbove(path)
        add(path, mode: Kind.characterDevice | mode, device: (major, minor))
    }

    /// The whole archive, ended.
    package consuming func finished() -> [UInt8] {
        nextInode = 0
        add("TRAILER!!!", mode: 0)
        return bytes
    }

    private mutating func addFolderAbove(_ path: String) {
        guard let slash = path.lastIndex(of: "/") else { return }
        addFolder(String(path[..<slash]))
    }

    private mutating func add(
        _ path: String, mode: UInt32, links: UInt32 = 1, contents: [UInt8] = [], device: (UInt32, UInt32) = (0, 0)
    ) {
        precondition(!path.hasPrefix("/") && contents.count <= UInt32.max)
        let name = Array(path.utf8) + [0]
        // The time is always 0: the same Guest has the same archive, to the byte.
        let fields: [UInt32] = [
            nextInode, mode, 0, 0, links, 0, UInt32(contents.count), 0, 0, device.0, device.1, UInt32(name.count), 0,
        ]
        bytes += Array("070701".utf8)
        for field in fields { appendHexadecimal(field) }
        bytes += name
        pad()
        bytes += contents
        pad()
        nextInode += 1
    }

    private mutating func appendHexadecimal(_ value: UInt32) {
        for shift in stride(from: 28, through: 0, by: -4) {
            let digit = UInt8(value >> UInt32(shift) & 15)
            bytes.append(digit < 10 ? 0x30 + digit : 0x61 - 10 + digit)
        }
    }

    private mutating func pad() {
        while bytes.count % 4 != 0 { bytes.append(0) }
    }
}
//:
