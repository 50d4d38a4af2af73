package import GuestMemory
package import HostInterface

//L:110 From a file to a running kernel
//
// A kernel file is a letter to a boot loader. It says, in one of four
// languages that have nothing in common but age, where its bytes belong, what
// else it wants to find in memory, and in which mode the CPU should be when it
// gets there. A real PC needs a BIOS and GRUB to read that letter aloud. We
// are outside of the machine and can simply put everything in its place, as
// lguest's Launcher did: no real mode, no BIOS, no 512-byte boot sector.
//
//     file        written by               entered in        finds in
//     bzImage     Linux since 1996         64-bit mode       RSI boot_params
//     ELF64       `vmlinux`                64-bit mode       RSI boot_params
//     ELF + note  Xen's PVH direct boot    32-bit, no paging EBX hvm_start_info
//     multiboot   GRUB's test kernels      32-bit, no paging EBX multiboot info
//
// Every number in the file is somebody else's and may be a lie. Each loader
// first reads and checks, then writes; what it cannot believe becomes one line
// that names the file and what to do.

/// What to boot. The files' bytes, with the names that messages show for them.
package struct BootSource: Sendable {
    package var kernel: [UInt8]
    package var kernelName: String
    package var initrd: [UInt8]?
    package var initrdName: String
    package var commandLine: String
    /// Which language to speak to a kernel that knows more than one.
    package var preference: BootPreference

    package init(
        kernel: [UInt8], kernelName: String, initrd: [UInt8]? = nil, initrdName: String = "initrd",
        commandLine: String = "", preference: BootPreference = .automatic
    ) {
        self.kernel = kernel
        self.kernelName = kernelName
        self.initrd = initrd
        self.initrdName = initrdName
        self.commandLine = commandLine
        self.preference = preference
    }

    package func refuse(_ why: String, advice: String = "") -> HostError {
        HostError("cannot boot \(kernelName): \(why)", advice: advice)
    }

    /// The command line as the guest reads it: bytes, with the NUL that ends them.
    package func commandLineBytes(limit: Int, prefix: String = "") throws(HostError) -> [UInt8] {
        let bytes = Array((prefix + commandLine).utf8)
        guard !bytes.contains(0) else { throw HostError("the kernel command line contains a NUL character") }
        guard bytes.count <= limit else {
            throw HostError(
                "the kernel command line is \(bytes.count) bytes long, \(kernelName) takes \(limit)",
                advice: "shorten --append")
        }
        return bytes + [0]
    }
}

/// How the user wants a kernel entered.
package enum BootPreference: Sendable {
    /// The most direct way that the file offers.
    case automatic
    /// Linux's 64-bit entry, though there may be a PVH note or a multiboot header.
    case linux
    /// A bzImage by its own decompressor, though we could unpack it.
    case decompressor
    case pvh
    case multiboot
}

/// Puts the kernel, its initrd, its command line and whatever its boot
/// protocol wants into `memory`, which must be zero (new, or after `clear`).
///
/// - Parameter rsdp: where `ACPITables.write` puts the RSDP; 0 if there is none.
/// - Returns: what the first CPU looks like when it starts there.
/// - Throws: one line that names the file and what to do. Memory may then hold part of it.
package func loadKernel(
    _ source: BootSource, into memory: GuestMemory, rsdp: GuestPhysicalAddress
) throws(HostError) -> BootEntry {
    let format = try KernelFormat.detect(source)
    if let initrd = source.initrd, initrd.isEmpty {
        throw HostError("cannot use \(source.initrdName) as initrd: the file is empty", advice: "pass another --initrd")
    }
    let loader = KernelLoader(source: source, memory: memory, rsdp: rsdp)
    switch format {
    case .bzImage: return try loader.loadBzImage()
    case .vmlinux: return try loader.loadVmlinux()
    case .pvh(let entry): return try loader.loadPVH(entry: entry)
    case .multiboot(let header): return try loader.loadMultiboot(header)
    case .lguest: throw source.refuse("it is for lguest's bus, not for a PC")
    }
}

/// What the loaders share; each loader is an extension in a file of its own.
struct KernelLoader {
    let source: BootSource
    let memory: GuestMemory
    let rsdp: GuestPhysicalAddress
}
//:
