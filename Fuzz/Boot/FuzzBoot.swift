internal import GuestMemory
internal import Glibc
internal import HostInterface
internal import Platform
internal import VirtualCPU

// libFuzzer's target for everything that reads a kernel file. Which reader, the
// environment says: LOADER=bzimage, payload, elf, pvh, multiboot or any. The
// noise is put where it gets past the magic numbers; what a fuzzer cannot
// guess, as a whole compressed stream, is in seeds/, in the form in which the
// cases below take it.

private enum Machine {
    static let loader = unsafe getenv("LOADER").map { unsafe String(cString: $0) } ?? "any"
    static let memory: GuestMemory = {
        do { return try GuestMemory(byteCount: 24 << 20) } catch { fatalError("\(error)") }
    }()
}

private func le(_ value: UInt32) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) } }

/// A valid setup sector pair around a payload.
private func bzImage(_ payload: [UInt8]) -> [UInt8] {
    var setup = [UInt8](repeating: 0, count: 1024)
    func put(_ bytes: [UInt8], _ offset: Int) { setup.replaceSubrange(offset..<offset + bytes.count, with: bytes) }
    setup[0x1f1] = 1
    put([0x55, 0xaa, 0xeb, 0x6a] + Array("HdrS".utf8) + [0x0f, 0x02], 0x1fe)
    setup[0x211] = 1
    put(le(0x7fff_ffff), 0x22c)
    put(le(0x20_0000) + [1, 21, 0x7f, 0] + le(2047), 0x230)
    put(le(0x10) + le(UInt32(payload.count)), 0x248)
    put(le(0x100_0000) + le(0) + le(0x40_0000), 0x258)
    return setup + [UInt8](repeating: 0x90, count: 16) + payload
}

private func boot(_ kernel: [UInt8], _ preference: BootPreference = .automatic) {
    let source = BootSource(
        kernel: kernel, kernelName: "noise", initrd: [1, 2, 3], commandLine: "console=ttyS0", preference: preference)
    do {
        let entry = try loadKernel(source, into: Machine.memory, rsdp: ACPITables.rsdp)
        var state = VCPUState()
        entry.apply(to: &state)
        // A kernel that was accepted is one that is there.
        precondition(Machine.memory.contains(GuestPhysicalAddress(entry.entry), 1))
        precondition(entry.kernel.contains(entry.entry) && entry.kernel.upperBound <= Machine.memory.lowEnd)
    } catch {
        let line = "\(error)"
        precondition(!line.isEmpty && !line.utf8.contains(10))
    }
}

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOne(_ start: UnsafePointer<UInt8>, _ count: Int) -> Int32 {
    let noise = unsafe [UInt8](UnsafeBufferPointer(start: start, count: count))
    switch Machine.loader {
    case "bzimage":
        // The header's fields are the noise's first bytes, the payload is the rest.
        var kernel = bzImage(Array(noise.dropFirst(0x80)))
        for (offset, byte) in noise.prefix(0x80).enumerated() where !(0x1fe..<0x206).contains(0x1f1 + offset) {
            kernel[0x1f1 + offset] ^= byte
        }
        boot(kernel)
        boot(kernel, .decompressor)
    case "payload":
        let magics: [[UInt8]] = [
            [0x1f, 0x8b, 8], [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0], [0x02, 0x21, 0x4c, 0x18], [0x28, 0xb5, 0x2f, 0xfd],
            [0x7f, 0x45, 0x4c, 0x46, 2, 1],
        ]
        let magic = magics[Int(noise.first ?? 0) % magics.count]
        boot(bzImage(magic + noise.dropFirst()))
    case "elf", "pvh":
        // 64-bit for the first byte's even values, 32-bit for odd ones.
        let wide = (noise.first ?? 0) & 1 == 0
        var kernel: [UInt8] = [0x7f, 0x45, 0x4c, 0x46, wide ? 2 : 1, 1, 1] + noise.dropFirst()
        kernel += [UInt8](repeating: 0, count: max(0, 64 - kernel.count))
        kernel[18] = wide ? 62 : 3
        kernel[19] = 0
        boot(kernel, Machine.loader == "pvh" ? .pvh : .automatic)
    case "multiboot":
        var kernel = noise
        if noise.count >= 32 {
            // Its checksum is more than a fuzzer should be asked to guess.
            let flags = UInt32(noise[4]) | UInt32(noise[5] & 1) << 16
            kernel.replaceSubrange(0..<12, with: le(0x1bad_b002) + le(flags) + le(0 &- 0x1bad_b002 &- flags))
        }
        boot(kernel)
        boot(kernel, .multiboot)
    default:
        boot(noise)
    }
    return 0
}
