internal import GuestMemory

/// Linux's command line, as far as the machine has a say in it.
///
/// Words are parted by white space, quotation marks keep a word together, and
/// what comes after a lone "--" is for init (Linux,
/// Documentation/admin-guide/kernel-parameters.rst).
package struct KernelCommandLine: Sendable {
    private let text: String
    /// The kernel's own words, without their quotation marks.
    private let words: [String]
    /// Where they end.
    private let end: String.Index

    package init(_ text: String) {
        self.text = text
        var words: [String] = []
        var rest = text.utf8[...]
        var end = text.endIndex
        while let start = rest.firstIndex(where: { !Self.isSpace($0) }) {
            var isQuoted = false
            let stop = rest[start...].firstIndex { byte in
                if byte == UInt8(ascii: "\"") { isQuoted.toggle() }
                return !isQuoted && Self.isSpace(byte)
            }
            let word = rest[start..<(stop ?? rest.endIndex)]
            if word.elementsEqual("--".utf8) {
                end = start
                break
            }
            words.append(String(decoding: word.filter { $0 != UInt8(ascii: "\"") }, as: UTF8.self))
            rest = rest[word.endIndex...]
        }
        self.words = words
        self.end = end
    }

    /// Whether the kernel will look at no ACPI table: of `acpi=off` and its opposite, the last word counts.
    package var turnsACPIOff: Bool { words.last { $0 == "acpi=off" || $0 == "acpi=force" } == "acpi=off" }

    /// The line with a `virtio_mmio.device=SIZE@ADDRESS:IRQ` for each window,
    /// which is how a kernel without ACPI hears of one. Whoever has written
    /// such a word himself knows better, and keeps his line.
    package func naming(virtioSlots: [Int]) -> String {
        let name = "virtio_mmio.device="
        guard !virtioSlots.isEmpty, !words.contains(where: { $0.hasPrefix(name) }) else { return text }
        let named = virtioSlots.map { slot in
            let address = String(MemoryMap.virtioWindow(slot: slot).rawValue, radix: 16)
            return "\(name)\(MemoryMap.virtioWindowBytes >> 10)K@0x\(address):\(MemoryMap.virtioGSI(slot: slot))"
        }
        var own = text[..<end]
        while own.utf8.last.map(Self.isSpace) ?? false { own.removeLast() }
        let line = (own.isEmpty ? [] : [String(own)]) + named + (end < text.endIndex ? [String(text[end...])] : [])
        return line.joined(separator: " ")
    }

    private static func isSpace(_ byte: UInt8) -> Bool { byte == 0x20 || (0x09...0x0d).contains(byte) }
}
