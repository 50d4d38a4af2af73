internal import CZydis

/// A stream of cases: an instruction form by lot, its operands, and a state
/// to run it in. Equal seeds, forms and images give equal streams.
package struct InstructionGenerator {
    package let forms: InstructionForms
    let decoder = Disassembler()
    package var random: SeededGenerator
    private var groups: [[InstructionForm]]

    /// - Parameter filter: for a hunt; a list with commas of mnemonics, of beginnings of mnemonics (`pcmp*`), and of
    ///   ISA sets (`BMI1`), each with `-` before it to leave it out instead.
    package init(forms: InstructionForms, seed: UInt64, only filter: String = "") {
        self.forms = forms
        random = SeededGenerator(seed: seed)
        let words = filter.split(separator: ",")
        func names(_ word: Substring, _ form: InstructionForm) -> Bool {
            word == form.name || word == form.isaSet || word.hasSuffix("*") && form.name.hasPrefix(word.dropLast())
        }
        let unwanted = words.filter { $0.hasPrefix("-") }.map { $0.dropFirst() }
        let wanted = words.filter { !$0.hasPrefix("-") }
        groups = forms.groups.filter { group in
            !unwanted.contains { names($0, group[0]) } && (wanted.isEmpty || wanted.contains { names($0, group[0]) })
        }
        precondition(!groups.isEmpty, "no instruction form is named \(filter)")
    }

    /// The next case and its instruction.
    package mutating func next() -> (test: TestCase, instruction: Disassembler.Instruction) {
        while true {
            let form = nextForm()
            for _ in 0..<8 {
                guard let (bytes, instruction) = instruction(of: form) else { continue }
                if let test = makeCase(bytes, instruction) { return test }
            }
        }
    }

    /// An instruction that has no state to go with it; nil now and then.
    mutating func nextInstruction() -> (bytes: [UInt8], instruction: Disassembler.Instruction)? {
        instruction(of: nextForm())
    }

    private mutating func nextForm() -> InstructionForm {
        let group = groups[random.below(groups.count)]
        return group[random.below(group.count)]
    }

    private mutating func instruction(
        of form: InstructionForm
    ) -> (bytes: [UInt8], instruction: Disassembler.Instruction)? {
        guard let bytes = encode(form), let instruction = decoder.decode(bytes),
            instruction.definition == form.definition, instruction.length <= 15
        else { return nil }
        return (Array(bytes.prefix(instruction.length)), instruction)
    }

    /// Bytes of the form with random operands, and random bytes behind them for displacement and immediate.
    private mutating func encode(_ form: InstructionForm) -> [UInt8]? {
        var encoding = Encoding()
        if random.chance(60) { encoding.extensions = UInt8(random.below(8)) }
        encoding.plainREX = random.chance(15)
        if form.namesThird { encoding.third = UInt8(random.below(16)) }
        if random.chance(4) { encoding.harmlessPrefixes.append(random.pick([0x26, 0x2e, 0x36, 0x3e])) }
        // Address size: wherever there may be an address.
        if random.chance(form.operand == .register ? 1 : 8) { encoding.harmlessPrefixes.append(0x67) }

        var tail: [UInt8] = []
        switch form.operand {
        case .none: break
        case .register: encoding.modRM = 0xc0 | UInt8(choose(form.choices))
        case .memory:
            let reg = UInt8(choose(form.choices)) & 0x38
            let displacement8 = UInt8(truncatingIfNeeded: random.next())
            let displacement32 = littleEndian(UInt32(bitPattern: Int32(random.below(0x4000) - 0x2000)))
            let sib = UInt8(truncatingIfNeeded: random.next())
            switch random.below(8) {
            case 0: encoding.modRM = reg | UInt8(random.pick([0, 1, 2, 3, 6, 7]))  // [base]
            case 1:
                encoding.modRM = 0x40 | reg | UInt8(random.pick([0, 1, 2, 3, 5, 6, 7]))  // [base + disp8]
                tail = [displacement8]
            case 2:
                encoding.modRM = 0x80 | reg | UInt8(random.pick([0, 1, 2, 3, 5, 6, 7]))  // [base + disp32]
                tail = displacement32
            case 3:
                encoding.modRM = 0x04 | reg  // [base + index·scale], or [index·scale + disp32]
                tail = [sib] + (sib & 7 == 5 ? displacement32 : [])
            case 4:
                encoding.modRM = 0x44 | reg
                tail = [sib, displacement8]
            case 5:
                encoding.modRM = 0x84 | reg
                tail = [sib] + displacement32
            case 6:
                encoding.modRM = 0x05 | reg  // [rip + disp32]
                tail = displacement32
            default:
                encoding.modRM = 0x04 | reg  // [disp32], or [index·scale + disp32]
                tail = [random.chance(50) ? 0x25 : sib & 0xf8 | 5] + displacement32
            }
        }
        var bytes = form.bytes(encoding) + tail
        guard bytes.count <= 15 else { return nil }
        while bytes.count < 15 { bytes.append(UInt8(truncatingIfNeeded: random.next())) }
        return bytes
    }

    /// One of the bits set in `choices`.
    private mutating func choose(_ choices: UInt64) -> Int {
        var rest = choices
        for _ in 0..<random.below(choices.nonzeroBitCount) { rest &= rest - 1 }
        return rest.trailingZeroBitCount
    }

    func littleEndian(_ value: UInt32) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) } }
}

// MARK: State

extension InstructionGenerator {
    private mutating func makeCase(
        _ bytes: [UInt8], _ instruction: Disassembler.Instruction
    ) -> (test: TestCase, instruction: Disassembler.Instruction)? {
        var test = makeState()
        test.setCode(bytes)
        test.rip = place(codeOf: bytes.count)
        tune(&test, instruction)
        var current = instruction
        return placeOperands(&test, &current) ? (test, current) : nil
    }

    /// Registers, without code.
    mutating func makeState() -> TestCase {
        var test = TestCase()
        for index in 0..<16 { test.gpr[index] = random.integer() }
        test.gpr[4] = OracleLayout.stack.lowerBound + 0x1000 + UInt64(random.below(64)) * 8
        test.rflags = 0x202 | random.next() & 0x8d5
        if random.chance(25) { test.rflags |= 0x400 }
        if random.chance(2) { test.rflags |= 1 << 18 }  // AC: user code has alignment checks
        for index in 0..<64 { test.ymm[index] = random.vectorWord() }
        setVectorControl(&test)
        setX87(&test)
        return test
    }

    private mutating func place(codeOf count: Int) -> UInt64 {
        let code = OracleLayout.code
        switch random.below(50) {
        case 0: return code.upperBound - UInt64(1 + random.below(count))  // into the unmapped page, or up to it
        case 1, 2: return code.lowerBound + 0x2000 - UInt64(random.below(count + 1))  // over two pages
        default: return code.lowerBound + 0x1000 + UInt64(random.below(0x2000))
        }
    }

    /// Mostly all exceptions masked; every rounding mode; sometimes FTZ and DAZ (SDM 1, figure 10-3).
    private mutating func setVectorControl(_ test: inout TestCase) {
        var value: UInt32 = 0x1f80
        if random.chance(10) { value = UInt32(truncatingIfNeeded: random.next()) & 0x1f80 }
        value |= UInt32(random.below(4)) << 13
        if random.chance(15) { value |= 1 << 15 }
        if random.chance(15) { value |= 1 << 6 }
        if random.chance(40) { value |= UInt32(random.below(64)) }
        test.mxcsr = value
    }

    /// SDM 1, 8.1: control, status and tag words, and 8 registers in the order of the stack.
    private mutating func setX87(_ test: inout TestCase) {
        var control = UInt64(0x40 | random.below(4) << 10)
        control |= random.pick([0, 0x200, 0x300, 0x300, 0x300])
        control |= random.chance(10) ? random.next() & 0x3f : 0x3f
        var status = random.next() & 0x4700  // condition codes
        status |= UInt64(random.below(8)) << 11
        if random.chance(30) { status |= random.next() & 0x7f }
        // A pending exception shows as ES and B.
        if status & ~control & 0x3f != 0 {
            if random.chance(30) { status |= 0x8080 } else { control |= 0x3f }
        }
        let tags: UInt64 = random.pick([0, 0xff, 0xff, 0xff, random.next() & 0xff])
        test.fxsave[0] = control | status << 16 | tags << 32
        test.fxsave[1] = 0
        test.fxsave[2] = 0
        for index in 0..<8 {
            let value = random.extended()
            test.fxsave[4 + 2 * index] = value.fraction
            test.fxsave[5 + 2 * index] = UInt64(value.exponent)
        }
    }

    /// Where plain chance would almost always give the same dull result.
    private mutating func tune(_ test: inout TestCase, _ instruction: Disassembler.Instruction) {
        let rax = 0, rcx = 1, rdx = 2
        if instruction.isRepeated {
            test.gpr[rcx] = random.chance(92) ? UInt64(random.below(40)) : random.integer()
            if instruction.addressWidth == 32, random.chance(50) { test.gpr[rcx] |= random.next() << 32 }
        }
        switch instruction.name {
        case "div", "idiv":
            if random.chance(60) {
                test.gpr[rdx] = random.chance(50) ? 0 : UInt64(bitPattern: Int64(bitPattern: test.gpr[rax]) >> 63)
                if instruction.operandWidth == 8 { test.gpr[rax] &= 0xfff }
            }
        case "shl", "shr", "sar", "rol", "ror", "rcl", "rcr", "shld", "shrd":
            if random.chance(70) { test.gpr[rcx] = UInt64(random.below(72)) }
        case "loop", "loope", "loopne", "jrcxz", "jecxz":
            if random.chance(70) { test.gpr[rcx] = UInt64(random.below(3)) }
            if random.chance(20) { test.gpr[rcx] |= random.next() << 32 }
        case "pcmpestri", "pcmpestrm", "vpcmpestri", "vpcmpestrm":
            if random.chance(80) {
                test.gpr[rax] = UInt64(bitPattern: Int64(random.below(40) - 20))
                test.gpr[rdx] = UInt64(bitPattern: Int64(random.below(40) - 20))
            }
            fallthrough
        case "pcmpistri", "pcmpistrm", "vpcmpistri", "vpcmpistrm":
            // Few different letters, and zeros, or nothing ever matches.
            for index in 0..<64 { test.ymm[index] &= 0x0101_0301_0103_0101 }
        case "cmpxchg8b", "cmpxchg16b", "cmpxchg": break
        default: break
        }
    }
}
