internal import Interpreter
internal import VirtualCPU
internal import X86

/// The states around a stretch that two engines ran.
struct Comparison {
    let before: CoreSnapshot
    let expected: CoreSnapshot
    let found: CoreSnapshot
    /// Arithmetic flags that count.
    let flags: UInt64

    private var flagMask: UInt64 { flags & RFlags.arithmetic | ~RFlags.arithmetic }

    /// A table of what there was before, then by the Interpreter and by the
    /// Translator; of vectors and x87 only what differs.
    var table: [String] {
        var lines = ["            before            interpreter       translator"]
        func row(_ name: String, _ value: (borrowing VCPUState) -> UInt64, mask: UInt64 = .max, always: Bool = true) {
            let values = [value(before.state), value(expected.state), value(found.state)]
            let differs = (values[1] ^ values[2]) & mask != 0
            if !always && !differs { return }
            let padded = name + String(repeating: " ", count: max(0, 8 - name.count))
            lines.append("\(differs ? "* " : "  ")\(padded)  \(values.map { hexadecimal($0) }.joined(separator: "  "))")
        }
        let names = [
            "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
            "r15",
        ]
        row("rip", { $0.rip })
        row("rflags", { $0.rflags }, mask: flagMask)
        for (number, name) in names.enumerated() { row(name, { $0.gpr[number] }) }
        for (number, name) in [(SegmentName.fs, "fs base"), (SegmentName.gs, "gs base")] {
            row(name, { $0.segments[number].base }, always: false)
            row("for " + name, { $0.gpr[AddressSlot.segmentBases + number] }, always: false)
        }
        row("other gs", { $0.kernelGSBase }, always: false)
        row("mxcsr", { UInt64($0.mxcsr) })
        for number in 0..<64 { row("ymm\(number / 4).\(number % 4)", { $0.ymm[number] }, always: false) }
        for number in CoreSnapshot.x87Words { row("fx+\(8 * number)", { $0.x87[number] }, always: false) }
        if expected.stop != found.stop || !expected.stop.isEmpty {
            lines.append("\(expected.stop != found.stop ? "* " : "  ")ended with")
            lines.append("    interpreter: \(expected.stop.isEmpty ? "nothing pending" : expected.stop)")
            lines.append("    translator:  \(found.stop.isEmpty ? "nothing pending" : found.stop)")
        }
        if flags & RFlags.arithmetic != RFlags.arithmetic {
            lines.append(
                "  (of the arithmetic flags only 0x\(String(flags & RFlags.arithmetic, radix: 16)) count here)")
        }
        return lines
    }
}

/// What is said of a block after which the engines differ.
struct LockstepReport: CustomStringConvertible {
    let listing: BlockListing
    let end: Lockstep.End
    let comparison: Comparison
    let memory: [WriteJournal.Difference]

    var description: String {
        let rip = comparison.before.state.rip
        var lines = [
            "translator and interpreter differ after the block at rip \(hexadecimal(rip)), physical \(hexadecimal(listing.physical))"
        ]
        lines += comparison.table
        for difference in memory.prefix(16) {
            lines.append("* \(difference.found.count) bytes at physical \(hexadecimal(difference.physical))")
            lines.append("    before:      \(Self.bytes(difference.before))")
            lines.append("    interpreter: \(Self.bytes(difference.expected))")
            lines.append("    translator:  \(Self.bytes(difference.found))")
        }
        lines.append("guest code, what was run of it marked:")
        let lastRun = end.count > 0 ? listing.lines[end.count - 1].offset : -1
        lines += Disassembly.lines(listing.bytes, at: rip).map { line in
            Self.line(line, at: rip, mark: line.offset <= lastRun ? ">" : " ")
        }
        lines.append("host code:")
        let host = UInt64(listing.host.lowerBound)
        lines += Disassembly.lines(unsafe Array(listing.writable), at: host).map { Self.line($0, at: host, mark: " ") }
        return lines.joined(separator: "\n")
    }

    private static func line(_ line: Disassembly.Line, at address: UInt64, mark: String) -> String {
        let bytes = bytes(Array(line.bytes))
        let gap = String(repeating: " ", count: max(1, 32 - bytes.count))
        return "\(mark) \(hexadecimal(address &+ UInt64(line.offset)))  \(bytes)\(gap)\(line.text)"
    }

    /// In memory's order; long ones are cut.
    private static func bytes(_ bytes: [UInt8]) -> String {
        bytes.prefix(32).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: " ")
            + (bytes.count > 32 ? " …" : "")
    }
}

private func hexadecimal(_ value: UInt64) -> String {
    let text = String(value, radix: 16)
    return String(repeating: "0", count: 16 - text.count) + text
}
