/// Where an engine and the host did not agree.
package struct Mismatch: Sendable {
    package let name: String
    package let isaSet: String
    package let test: TestCase
    package let native: Outcome
    package let engine: Outcome
    /// One line for each thing that differs.
    package let differences: [String]
    /// Only arithmetic flags in the frame of a fault: those that code which
    /// runs on sets before it reads them, some engines do not keep exact.
    package var isFlagsOfFaultOnly: Bool {
        native.vector != 3 && differences.allSatisfy { $0.hasPrefix("rflags") }
            && (native.rflags ^ engine.rflags) & ~0x8d5 == 0
    }
    /// The instructions, with their places in the code.
    var pieces: [(offset: Int, bytes: [UInt8])]
}

package let registerNames = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
]

func hexadecimal(_ value: UInt64, _ digits: Int = 16) -> String {
    let text = String(value, radix: 16)
    return String(repeating: "0", count: max(0, digits - text.count)) + text
}

/// Compares what counts. Nil: they agree.
package func compare(
    _ test: TestCase, _ instruction: Disassembler.Instruction, native: Outcome, engine: Outcome
) -> Mismatch? {
    compare(test, instruction, native: native, engine: engine, Tolerance(test, instruction, native: native))
}

/// What differs between two outcomes of code that leaves nothing open but `flags`; a line each.
package func differences(native: Outcome, engine: Outcome, ignoring flags: UInt64) -> [String] {
    var tolerance = Tolerance()
    tolerance.flags &= ~flags
    // Linux sets P for what lies in its own half, so that nobody can feel about there.
    if native.vector == 14, native.cr2 >= 0x7fff_ffff_f000 { tolerance.errorCode &= ~1 }
    return differences(native, engine, tolerance)
}

/// - Parameter instruction: the last one of the case.
func compare(
    _ test: TestCase, _ instruction: Disassembler.Instruction, native: Outcome, engine: Outcome, _ tolerance: Tolerance
) -> Mismatch? {
    if tolerance.mayGoOn, engine.vector == 3 { return nil }
    if tolerance.mayFault, engine.vector != 3 { return nil }
    let found = differences(native, engine, tolerance)
    if found.isEmpty { return nil }
    return Mismatch(
        name: instruction.name, isaSet: instruction.isaSet, test: test, native: native, engine: engine,
        differences: found, pieces: [(0, test.codeBytes)])
}

private func differences(_ native: Outcome, _ engine: Outcome, _ tolerance: Tolerance) -> [String] {
    var differences: [String] = []
    func note(_ what: @autoclosure () -> String, _ native: UInt64, _ engine: UInt64, _ mask: UInt64 = ~0) {
        if (native ^ engine) & mask == 0 { return }
        differences.append("\(what()): host \(hexadecimal(native)) engine \(hexadecimal(engine))")
    }
    if tolerance.faultKind || engine.vector == 3 { note("vector", native.vector, engine.vector) }
    if native.vector == engine.vector {
        note("error code", native.errorCode, engine.errorCode, tolerance.errorCode)
        if native.vector == 14 { note("cr2", native.cr2, engine.cr2, tolerance.faultAddress) }
    }
    note("rip", native.rip, engine.rip)
    if (native.rflags ^ engine.rflags) & tolerance.flags != 0 {
        differences.append(
            "rflags: host \(flagNames(native.rflags)) engine \(flagNames(engine.rflags)) of \(flagNames(tolerance.flags))"
        )
    }
    for index in 0..<16 { note(registerNames[index], native.gpr[index], engine.gpr[index], tolerance.gpr[index]) }
    for index in 0..<64 where tolerance.freeVectors >> UInt64(index / 4) & 1 == 0 {
        note("ymm\(index / 4)[\(index % 4)]", native.ymm[index], engine.ymm[index])
    }
    // FCW, FSW and FTW, not FOP; not the pointers; MXCSR; ten bytes of every sixteen.
    note("fcw fsw ftw", native.fxsave[0], engine.fxsave[0], tolerance.x87InOrder ? 0xff_ffff_ffff : 0xc7ff_ffff)
    note("mxcsr", native.fxsave[3], engine.fxsave[3], tolerance.mxcsr)
    for index in 0..<8 {
        let left = tolerance.x87InOrder ? index : (index - native.top) & 7
        let right = tolerance.x87InOrder ? index : (index - engine.top) & 7
        note("st\(index) fraction", native.fxsave[4 + 2 * left], engine.fxsave[4 + 2 * right])
        note("st\(index) exponent", native.fxsave[5 + 2 * left], engine.fxsave[5 + 2 * right], 0xffff)
    }
    if tolerance.memory { compareMemory(native, engine, tolerance.freeMemory, &differences) }
    return differences
}

private func compareMemory(
    _ native: Outcome, _ engine: Outcome, _ free: [Range<UInt64>], _ differences: inout [String]
) {
    if native.changeCount == engine.changeCount, native.changeDigest == engine.changeDigest { return }
    func table(_ outcome: Outcome) -> [UInt64: UInt64] {
        var words: [UInt64: UInt64] = [:]
        for index in 0..<min(96, Int(outcome.changeCount)) {
            words[outcome.changes[index].address] = outcome.changes[index].value
        }
        return words
    }
    let left = table(native), right = table(engine)
    var found = false
    for address in Set(left.keys).union(right.keys).sorted() where left[address] != right[address] {
        // A word that one side left alone has an old value that we do not know here: it counts as different.
        if free.contains(where: { $0.overlaps(address..<address &+ 8) }) {
            guard let one = left[address], let other = right[address] else { continue }
            var mask: UInt64 = 0
            for byte in 0..<8 where !free.contains(where: { $0.contains(address &+ UInt64(byte)) }) {
                mask |= 0xff << UInt64(byte * 8)
            }
            if (one ^ other) & mask == 0 { continue }
        }
        found = true
        let host = left[address].map { hexadecimal($0) } ?? "unchanged"
        let guest = right[address].map { hexadecimal($0) } ?? "unchanged"
        differences.append("memory \(hexadecimal(address, 8)): host \(host) engine \(guest)")
    }
    if !found, free.isEmpty {
        differences.append("memory: host changed \(native.changeCount) words, engine \(engine.changeCount)")
    }
}

package func flagNames(_ flags: UInt64) -> String {
    let names: [(UInt64, String)] = [
        (0, "CF"), (2, "PF"), (4, "AF"), (6, "ZF"), (7, "SF"), (8, "TF"), (9, "IF"), (10, "DF"), (11, "OF"), (14, "NT"),
        (16, "RF"), (18, "AC"), (21, "ID"),
    ]
    return "[" + names.filter { flags >> $0.0 & 1 != 0 }.map(\.1).joined(separator: " ") + "]"
}

extension Mismatch {
    /// All one needs to see what went wrong.
    package func report(_ disassembler: Disassembler) -> String {
        var lines = Self.describe(test, pieces, disassembler)
        lines.insert(contentsOf: differences.map { "    \($0)" }, at: pieces.count)
        lines.append(
            "    host vector \(native.vector), error \(native.errorCode), cr2 \(hexadecimal(native.cr2)), rip \(hexadecimal(native.rip, 8))"
        )
        return lines.joined(separator: "\n")
    }

    /// A case of one instruction before it is run.
    package static func describe(_ test: TestCase) -> String {
        describe(test, [(0, test.codeBytes)], Disassembler()).joined(separator: "\n") + "\n"
    }

    private static func describe(
        _ test: TestCase, _ pieces: [(offset: Int, bytes: [UInt8])], _ disassembler: Disassembler
    ) -> [String] {
        var lines = pieces.map { offset, bytes in
            let address = test.rip &+ UInt64(offset)
            let text = disassembler.text(bytes, at: address)
            let digits = bytes.map { hexadecimal(UInt64($0), 2) }.joined(separator: " ")
            return "\(text)    bytes \(digits) at \(hexadecimal(address, 8))"
        }
        let text = lines.joined()
        lines.append(
            "    in: rflags \(flagNames(test.rflags)) mxcsr \(hexadecimal(UInt64(test.mxcsr), 4)) fcw/fsw/ftw \(hexadecimal(test.fxsave[0], 10))"
        )
        for row in 0..<4 {
            let four = (row * 4..<row * 4 + 4).map { "\(registerNames[$0]) \(hexadecimal(test.gpr[$0]))" }
            lines.append("    in: " + four.joined(separator: " "))
        }
        for index in 0..<16 where text.contains("mm\(index)") {
            let words = (0..<4).map { hexadecimal(test.ymm[index * 4 + 3 - $0]) }
            lines.append("    in: ymm\(index) " + words.joined(separator: "_"))
        }
        return lines
    }
}

extension Mismatch {
    /// What it has in common with others: the mnemonic, and what differs.
    package var kind: String {
        if native.vector != engine.vector { return "\(name): vector \(native.vector) became \(engine.vector)" }
        let what = differences.map { line -> Substring in
            let label = line.prefix { $0 != ":" && $0 != "[" }
            return label.hasPrefix("memory") ? "memory" : label.hasPrefix("ymm") ? "ymm" : label
        }
        var seen: [Substring] = []
        for label in what where !seen.contains(label) { seen.append(label) }
        return "\(name): \(seen.joined(separator: ", ")), vector \(native.vector)"
    }
}

/// Mismatches by kind, most frequent first, with a few of each in full.
package func summary(_ mismatches: [Mismatch], shown: Int = 2, groups: Int = 30) -> String {
    let disassembler = Disassembler()
    let byName = Dictionary(grouping: mismatches, by: \.name).sorted {
        ($1.value.count, $0.key) < ($0.value.count, $1.key)
    }
    let byKind = Dictionary(grouping: mismatches, by: \.kind).sorted {
        ($1.value.count, $0.key) < ($0.value.count, $1.key)
    }
    var text = byName.map { "\($0.key) \($0.value.count)" }.joined(separator: ", ") + "\n"
    for group in byKind.prefix(groups) {
        text += "\n== \(group.value.count) of \(group.key) (\(group.value[0].isaSet))\n"
        text += group.value.prefix(shown).map { $0.report(disassembler) }.joined(separator: "\n") + "\n"
    }
    return text
}
