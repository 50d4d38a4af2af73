package import HostInterface

//L:290 Names for addresses
//
// Two kinds of file know what is where in a program: what nm(1) prints, which
// a kernel's build leaves as System.map and a running one shows as
// /proc/kallsyms; and the program's own ELF file, if nobody has stripped it.
// Of both we take the names of code.

/// The names of a program's functions, by address.
package struct SymbolTable: Sendable {
    package struct Symbol: Sendable, Equatable {
        package var address: UInt64
        /// 0 where the file does not say: it reaches to the next.
        package var byteCount: UInt64
        package var name: String
    }

    /// By address; one for each.
    package let symbols: [Symbol]

    /// A symbol without a size, and without another behind it, reaches no further.
    private static let longestReach: UInt64 = 1 << 20

    /// - Throws: with the path and what is wrong with the file.
    package init(contentsOf path: String) throws(HostError) { try self.init(readFile(path), path: path) }

    package init(_ bytes: [UInt8], path: String) throws(HostError) {
        let found: [Symbol]
        if bytes.starts(with: [0x7f, 0x45, 0x4c, 0x46]) {
            do throws(ELFSymbols.Failure) { found = try ELFSymbols(bytes).code() } catch {
                throw HostError("cannot use the symbols of \(path): \(error.reason)")
            }
        } else {
            found = Self.parseMap(bytes)
        }
        // Of several names for one address the file's first stays.
        let sorted = found.enumerated().sorted { ($0.element.address, $0.offset) < ($1.element.address, $1.offset) }
        var symbols: [Symbol] = []
        for (_, symbol) in sorted where symbols.last?.address != symbol.address { symbols.append(symbol) }
        guard !symbols.isEmpty else {
            throw HostError(
                "cannot use the symbols of \(path): it names no code",
                advice:
                    "pass a System.map, a guest's /proc/kallsyms as root sees it, or an ELF file that is not stripped")
        }
        self.symbols = symbols
    }

    /// Lines of "ADDRESS TYPE NAME"; types t and w are code, in either case (nm(1)). What is no such line is passed over.
    private static func parseMap(_ bytes: [UInt8]) -> [Symbol] {
        bytes.split(separator: 0x0a).compactMap { line in
            let words = line.split(maxSplits: 3) { $0 == 0x20 || $0 == 0x09 }
            guard words.count >= 3, words[1].count == 1, let type = words[1].first,
                type | 0x20 == 0x74 || type | 0x20 == 0x77,
                let address = UInt64(String(decoding: words[0], as: UTF8.self), radix: 16), address != 0
            else { return nil }
            return Symbol(address: address, byteCount: 0, name: String(decoding: words[2], as: UTF8.self))
        }
    }

    package func address(of name: String) -> UInt64? { symbols.first { $0.name == name }?.address }

    /// The function that `address` is in, and how far in it.
    package func find(_ address: UInt64) -> (name: String, offset: UInt64)? {
        var low = 0, high = symbols.count
        while low < high {
            let middle = (low + high) / 2
            if symbols[middle].address <= address { low = middle + 1 } else { high = middle }
        }
        guard low > 0 else { return nil }
        let symbol = symbols[low - 1]
        let offset = address - symbol.address
        guard offset < (symbol.byteCount > 0 ? symbol.byteCount : Self.longestReach) else { return nil }
        return (symbol.name, offset)
    }
}

/// The symbol table of an ELF64 file (gABI, chapter 4).
private struct ELFSymbols {
    struct Failure: Error { let reason: String }

    private struct Section {
        var type: UInt32
        var flags: UInt64
        var offset: UInt64
        var byteCount: UInt64
        var link: UInt32

        static let symbolTable: UInt32 = 2
        static let executable: UInt64 = 4
    }

    private let bytes: [UInt8]
    private var sections: [Section] = []

    init(_ bytes: [UInt8]) throws(Failure) {
        self.bytes = bytes
        guard bytes.count >= 64 else { throw Failure(reason: "the file is cut short") }
        guard bytes[4] == 2, bytes[5] == 1 else {
            throw Failure(reason: "it is not an ELF file of 64 bits, little-endian")
        }
        guard let table: UInt64 = load(40), let entry: UInt16 = load(58), let count: UInt16 = load(60),
            entry >= 64 || count == 0
        else { throw Failure(reason: "its section headers are damaged") }
        for index in 0..<UInt64(count) {
            let base = table &+ index &* UInt64(entry)
            guard let type: UInt32 = load(base &+ 4), let flags: UInt64 = load(base &+ 8),
                let offset: UInt64 = load(base &+ 24), let byteCount: UInt64 = load(base &+ 32),
                let link: UInt32 = load(base &+ 40)
            else { throw Failure(reason: "the file is cut short") }
            sections.append(Section(type: type, flags: flags, offset: offset, byteCount: byteCount, link: link))
        }
    }

    private func load<T: FixedWidthInteger & BitwiseCopyable>(_ offset: UInt64) -> T? {
        let size = UInt64(MemoryLayout<T>.size)
        guard UInt64(bytes.count) >= size, offset <= UInt64(bytes.count) - size else { return nil }
        return unsafe bytes.withUnsafeBytes { unsafe $0.loadUnaligned(fromByteOffset: Int(offset), as: T.self) }
    }

    private func name(_ offset: UInt64, in strings: Section) -> String {
        let start = Int(clamping: strings.offset &+ offset)
        let end = min(bytes.count, Int(clamping: strings.offset &+ strings.byteCount))
        guard offset < strings.byteCount, start < end else { return "" }
        return String(decoding: bytes[start..<end].prefix { $0 != 0 }, as: UTF8.self)
    }

    /// What lies in sections that are run: functions, and what an assembler left without a type.
    func code() throws(Failure) -> [SymbolTable.Symbol] {
        guard let table = sections.first(where: { $0.type == Section.symbolTable }),
            sections.indices.contains(Int(table.link))
        else { throw Failure(reason: "it is stripped") }
        let strings = sections[Int(table.link)]
        var found: [SymbolTable.Symbol] = []
        for index in 0..<table.byteCount / 24 {
            let base = table.offset &+ index &* 24
            guard let nameOffset: UInt32 = load(base), let info: UInt8 = load(base &+ 4),
                let section: UInt16 = load(base &+ 6), let value: UInt64 = load(base &+ 8),
                let byteCount: UInt64 = load(base &+ 16)
            else { throw Failure(reason: "the file is cut short") }
            // STT_NOTYPE, STT_FUNC, STT_GNU_IFUNC.
            guard [0, 2, 10].contains(info & 15), sections.indices.contains(Int(section)),
                sections[Int(section)].flags & Section.executable != 0
            else { continue }
            let name = name(UInt64(nameOffset), in: strings)
            if !name.isEmpty { found.append(SymbolTable.Symbol(address: value, byteCount: byteCount, name: name)) }
        }
        return found
    }
}
//:
