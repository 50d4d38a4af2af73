internal import CZydis

//M:110 Every instruction there is
//
// A list of instructions to test, written by hand, is a list of those one
// remembers. So nobody writes it. We put together every opcode of every map
// with every prefix that can change its meaning, hold it before the decoder,
// and keep what it knows: one form for each line of the decoder's own tables
// and each set of prefixes that leads there.

/// One way to encode one line of the decoder's tables.
package struct InstructionForm: Sendable {
    enum Operand: Sendable { case none, memory, register }

    /// Legacy prefixes, in the order in which they are written.
    var prefixes: [UInt8] = []
    var wide = false
    /// VEX.pp and VEX.L; nil for a legacy encoding.
    var vex: (prefix: UInt8, length: UInt8)?
    /// 0: one byte; 1: 0F; 2: 0F 38; 3: 0F 3A.
    var map: UInt8
    var opcode: UInt8
    /// What ModRM, if there is one, says of its r/m.
    var operand = Operand.none
    /// ModRM values, as reg · 8 + r/m, that belong here; of memory operands only r/m = 4.
    var choices: UInt64 = 0
    /// VEX.vvvv names an operand.
    var namesThird = false

    package let name: String
    package let isaSet: String
    /// Equal for forms of the same line of the tables.
    package let definition: Int
}

/// All forms that a Guest may use, and a native user program may run.
package struct InstructionForms: Sendable {
    package private(set) var all: [InstructionForm] = []
    /// By definition, so that a choice is not weighed by how many prefixes it tolerates.
    package private(set) var groups: [[InstructionForm]] = []

    package init(sets: InstructionSets = .offered) {
        let decoder = Disassembler()
        var scratch = Disassembler.Instruction()
        var found: [InstructionForm] = []

        /// Tries every ModRM for a form and adds a form for each definition it meets.
        func explore(_ base: InstructionForm) {
            var byDefinition: [Int: Int] = [:]
            func meet(_ operand: InstructionForm.Operand, _ choice: Int) {
                var form = base
                form.operand = operand
                guard let definition = Self.probe(&form, choice, decoder, &scratch, sets) else { return }
                if let index = byDefinition[definition] {
                    found[index].choices |= 1 << UInt64(choice)
                    return
                }
                byDefinition[definition] = found.count
                found.append(
                    InstructionForm(
                        prefixes: form.prefixes, wide: form.wide, vex: form.vex, map: form.map, opcode: form.opcode,
                        operand: form.operand, choices: 1 << UInt64(choice), namesThird: form.namesThird,
                        name: scratch.name, isaSet: scratch.isaSet,
                        definition: definition))
            }
            if base.vex == nil, !Self.hasModRM(base.map, base.opcode) { return meet(.none, 0) }
            for choice in stride(from: 4, to: 64, by: 8) { meet(.memory, choice) }
            byDefinition = [:]
            for choice in 0..<64 { meet(.register, choice) }
        }

        let operandSize: UInt8 = 0x66, repeatNot: UInt8 = 0xf2, repeats: UInt8 = 0xf3, lock: UInt8 = 0xf0
        let prefixSets: [[UInt8]] = [
            [], [operandSize], [repeatNot], [repeats], [operandSize, repeatNot], [operandSize, repeats],
            [lock], [lock, operandSize], [lock, repeatNot], [lock, repeats],
        ]
        func form(_ map: UInt8, _ opcode: UInt8) -> InstructionForm {
            InstructionForm(map: map, opcode: opcode, name: "", isaSet: "", definition: 0)
        }
        for map: UInt8 in 0...3 {
            for opcode: UInt8 in 0...255 where !Self.isPrefix(map, opcode) {
                for prefixes in prefixSets {
                    for wide in [false, true] {
                        var legacy = form(map, opcode)
                        legacy.prefixes = prefixes
                        legacy.wide = wide
                        explore(legacy)
                    }
                }
                guard map > 0 else { continue }
                for variant: UInt8 in 0..<16 {
                    var vex = form(map, opcode)
                    vex.wide = variant & 8 != 0
                    vex.vex = (variant & 3, variant >> 2 & 1)
                    explore(vex)
                }
            }
        }
        all = found
        groups = Dictionary(grouping: found, by: \.definition).values.sorted {
            ($0[0].name, $0[0].map, $0[0].opcode, $0[0].choices, $0[0].prefixes.count)
                < ($1[0].name, $1[0].map, $1[0].opcode, $1[0].choices, $1[0].prefixes.count)
        }
    }

    /// The definition that a form with this ModRM has; nil if none, or none of ours.
    private static func probe(
        _ form: inout InstructionForm, _ choice: Int, _ decoder: Disassembler,
        _ scratch: inout Disassembler.Instruction,
        _ sets: InstructionSets
    ) -> Int? {
        // SIB 08: base rax, index rcx, a vector index for those that want one. The rest are zeros.
        let tail: [UInt8] = form.operand == .memory ? [0x08] : []
        var encoding = Encoding()
        encoding.modRM = UInt8(choice) | (form.operand == .register ? 0xc0 : 0)
        form.namesThird = false
        // vvvv other than 0 where it names nothing is no instruction: ask first for the one that names something.
        if form.vex != nil {
            encoding.third = 5
            form.namesThird = true
            if !decoder.decodeHead(pad(form.bytes(encoding) + tail), into: &scratch) {
                encoding.third = 0
                form.namesThird = false
                guard decoder.decodeHead(pad(form.bytes(encoding) + tail), into: &scratch) else { return nil }
            }
        } else {
            guard decoder.decodeHead(pad(form.bytes(encoding) + tail), into: &scratch) else { return nil }
        }
        let definition = scratch.definition
        guard let whole = decoder.decode(pad(form.bytes(encoding) + tail)), sets.offers(whole, form.prefixes) else {
            return nil
        }
        return definition
    }

    private static func pad(_ bytes: [UInt8]) -> [UInt8] { bytes + [UInt8](repeating: 0, count: 15 - bytes.count) }

    /// A prefix, or the way into another map or encoding.
    private static func isPrefix(_ map: UInt8, _ opcode: UInt8) -> Bool {
        switch (map, opcode) {
        case (0, 0x0f), (0, 0x26), (0, 0x2e), (0, 0x36), (0, 0x3e), (0, 0x40...0x4f), (0, 0x62), (0, 0x64...0x67),
            (0, 0xc4), (0, 0xc5), (0, 0xf0), (0, 0xf2), (0, 0xf3), (1, 0x0f), (1, 0x38), (1, 0x3a):
            true
        default: false
        }
    }

    /// SDM 2, tables: a ModRM follows.
    private static func hasModRM(_ map: UInt8, _ opcode: UInt8) -> Bool {
        switch map {
        case 0:
            switch opcode {
            case 0x00..<0x40: opcode & 7 < 4
            case 0x63, 0x69, 0x6b, 0x80...0x8f, 0xc0, 0xc1, 0xc6, 0xc7, 0xd0...0xd3, 0xd8...0xdf, 0xf6, 0xf7, 0xfe,
                0xff:
                true
            default: false
            }
        case 1:
            switch opcode {
            case 0x05...0x09, 0x0b, 0x0e, 0x30...0x37, 0x77, 0x80...0x8f, 0xa0...0xa2, 0xa8...0xaa, 0xc8...0xcf: false
            default: true
            }
        default: true
        }
    }

    /// Forms by the name of their ISA set, for a table.
    package var countsBySet: [(set: String, forms: Int, definitions: Int)] {
        Dictionary(grouping: all, by: \.isaSet).map { set, forms in
            (set, forms.count, Set(forms.map(\.definition)).count)
        }.sorted { $0.set < $1.set }
    }
}
//:

/// The variable fields of an encoding, up to and with ModRM.
struct Encoding {
    var modRM: UInt8 = 0
    /// REX or VEX bits R, X, B as 4, 2, 1.
    var extensions: UInt8 = 0
    /// A REX even where no bit of it is set.
    var plainREX = false
    /// VEX.vvvv, as a register's number.
    var third: UInt8 = 0
    /// Written before all others.
    var harmlessPrefixes: [UInt8] = []
}

extension InstructionForm {
    /// The bytes up to and with ModRM.
    func bytes(_ encoding: Encoding) -> [UInt8] {
        var bytes = encoding.harmlessPrefixes + prefixes
        if let vex {
            // VEX: R, X, B and vvvv are inverted (SDM 2, 2.3.5). Two bytes where they can say it all, three otherwise.
            let tail = ~encoding.third << 3 & 0x78 | vex.length << 2 | vex.prefix
            if map == 1, !wide, encoding.extensions & 3 == 0, !encoding.plainREX {
                bytes += [0xc5, ~encoding.extensions << 5 & 0x80 | tail]
            } else {
                bytes += [0xc4, ~encoding.extensions << 5 | map, (wide ? 0x80 : 0) | tail]
            }
        } else {
            if wide || encoding.extensions != 0 || encoding.plainREX {
                bytes.append(0x40 | (wide ? 8 : 0) | encoding.extensions)
            }
            if map > 0 { bytes.append(0x0f) }
            if map == 2 { bytes.append(0x38) }
            if map == 3 { bytes.append(0x3a) }
        }
        bytes.append(opcode)
        if operand != .none { bytes.append(encoding.modRM) }
        return bytes
    }
}
