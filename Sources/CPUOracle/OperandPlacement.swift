internal import CZydis

//M:120 Operands at the edge
//
// Most errors in an engine's memory path need an operand that lies badly:
// over a page's end, half in a page that is not there, in one that may not
// be written, at an address that is none. So the place comes first, and the
// registers are then solved for it, whatever the addressing form: base =
// place − displacement − index · scale, in 64 bits with all the wrapping.

extension InstructionGenerator {
    /// Where an operand of so many bytes is to lie.
    private mutating func choosePlace(bytes: Int, mayCross: Bool) -> UInt64 {
        let size = UInt64(max(1, min(bytes, 512)))
        let region = random.chance(50) ? OracleLayout.data : OracleLayout.stack
        let middle = region.lowerBound + 0x1000
        let alignment = size.nonzeroBitCount == 1 ? min(size, 64) : 16
        func inside(_ lot: UInt64) -> UInt64 { region.lowerBound + lot % (0x2000 - size + 1) }
        switch random.below(100) {
        case 0..<15 where mayCross: return inside(random.next())
        case 15..<24 where mayCross: return middle - 1 - random.next() % size  // over two pages, or to the end of one
        case 24..<31 where mayCross: return region.upperBound - random.next() % (size + 1)  // into the unmapped page
        case 31..<34 where mayCross: return region.lowerBound - 1 - random.next() % size  // out of it
        case 34..<38: return (OracleLayout.rom.lowerBound + random.next() % (0x1000 - size)) & ~(alignment - 1)
        case 38: return (OracleLayout.code.lowerBound + random.next() % 0x1000) & ~(alignment - 1)
        case 39: return random.next() & ~(alignment - 1)  // hardly ever canonical
        case 40: return 0x0000_7fff_ffff_ffff &+ random.next() % 64 &- 32
        case 41: return (0x4000_0000 + random.next() % 0x1000_0000) & ~(alignment - 1)  // nothing there
        case 42: return 0 &- random.next() % 0x1000_0000
        default: return inside(random.next()) & ~(alignment - 1)
        }
    }

    /// Gives every memory operand a place and every branch a target. False if the two cannot both be had.
    mutating func placeOperands(_ test: inout TestCase, _ instruction: inout Disassembler.Instruction) -> Bool {
        let name = instruction.name
        // Masked bytes at a bad address may fault or not, as the CPU likes (SDM 2, MASKMOVDQU).
        let mustBeGood = name.hasPrefix("maskmov") || name.hasPrefix("vmaskmovdqu")
        let mayCross = !(instruction.hasLock || name == "xchg") || !InstructionSets.splitLocksArePunished

        for (index, operand) in instruction.operands.enumerated() where operand.isMemory {
            var place = choosePlace(bytes: operand.byteCount, mayCross: mayCross)
            if mustBeGood { place = OracleLayout.data.lowerBound + UInt64(random.below(0x1f00)) }
            if operand.mem.base == ZYDIS_REGISTER_RSP, operand.visibility != ZYDIS_OPERAND_VISIBILITY_EXPLICIT {
                // A push writes below RSP. ENTER and LEAVE go by RBP besides.
                let size = UInt64(max(2, operand.byteCount))
                test.gpr[4] = place &+ (operand.writes ? size : 0)
                if name == "enter" || name == "leave" {
                    test.gpr[5] = choosePlace(bytes: 8, mayCross: true)
                    place = test.gpr[5]
                }
                fill(&test, place, operand.byteCount)
                continue
            }
            if name == "enter" { continue }
            guard solve(&test, &instruction, index, place) else { return false }
        }
        if instruction.isRelative || isBranch(instruction) { return aim(&test, &instruction) }
        if name == "popf" || name == "popfd" || name == "popfq" {
            // TF would trap one instruction later.
            setStackTop(&test, random.next() & 0x3f_feff)
        }
        return true
    }

    /// Moves a memory operand to a place of its own, in a state that is given, by its displacement; where that has
    /// not enough bits, false unless it happens to lie well.
    mutating func aimOperand(
        _ operand: ZydisDecodedOperand, _ bytes: inout [UInt8], _ instruction: inout Disassembler.Instruction,
        _ state: TestCase
    ) -> Bool {
        guard let address = effectiveAddress(of: operand, state, instruction) else { return false }
        let field = instruction.displacement
        if field.bits == 32, operand.visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT {
            let mayCross =
                !(instruction.hasLock || instruction.name == "xchg") || !InstructionSets.splitLocksArePunished
            let place = choosePlace(bytes: operand.byteCount, mayCross: mayCross)
            let value = Int64(bitPattern: place &- address) &+ operand.mem.disp.value
            guard value == Int64(Int32(truncatingIfNeeded: value)) else { return false }
            for index in 0..<4 { bytes[field.offset + index] = UInt8(truncatingIfNeeded: value >> (index * 8)) }
            guard let changed = decoder.decode(bytes), changed.definition == instruction.definition else {
                return false
            }
            instruction = changed
            return true
        }
        return [OracleLayout.data, OracleLayout.stack, OracleLayout.rom].contains { $0.contains(address) }
    }

    private mutating func solve(
        _ test: inout TestCase, _ instruction: inout Disassembler.Instruction, _ index: Int, _ place: UInt64
    ) -> Bool {
        let operand = instruction.operands[index], memory = operand.mem
        let displacement = UInt64(bitPattern: memory.disp.value)
        let base = instruction.base(of: operand), indexRegister = generalNumber(memory.index)
        let scale = UInt64(memory.scale)

        if memory.type == ZYDIS_MEMOP_TYPE_VSIB {
            // Indices of either width that stay near; now and then one far away.
            let vector = Int(ZydisRegisterGetId(memory.index))
            let wide =
                instruction.name.hasSuffix("qps") || instruction.name.hasSuffix("qpd")
                || instruction.name.hasSuffix("qd") || instruction.name.hasSuffix("qq")
            for word in 0..<4 {
                let near = { (random: inout SeededGenerator) in Int64(random.below(400) - 200) }
                var value = UInt64(bitPattern: near(&random))
                if !wide { value = value & 0xffff_ffff | UInt64(bitPattern: near(&random)) << 32 }
                test.ymm[vector * 4 + word] = random.chance(4) ? random.next() : value
            }
            let middle = OracleLayout.data.lowerBound + 0x800 + random.next() % 0x1000
            guard let base else { return false }
            test.gpr[base] = (random.chance(90) ? middle : place) &- displacement
            return true
        }
        if instruction.name == "xlat" {
            test.gpr[3] = place &- test.gpr[0] & 0xff
            fill(&test, place, 1)
            return true
        }
        // A bit's number in a register reaches 2^60 bytes far (SDM 2, BT).
        if instruction.category == ZYDIS_CATEGORY_BITBYTE,
            let bit = instruction.operands.last(where: {
                $0.visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT
            })?.generalRegister, instruction.name.hasPrefix("bt")
        {
            test.gpr[bit] = UInt64(bitPattern: Int64(random.below(6000) - 3000))
        }
        var target = place
        if memory.base == ZYDIS_REGISTER_RIP || memory.base == ZYDIS_REGISTER_EIP {
            let next = test.rip &+ UInt64(instruction.length)
            return setDisplacement(&test, &instruction, target &- next) && fillDone(&test, target, operand)
        }
        switch (base, indexRegister) {
        case (nil, nil):
            return setDisplacement(&test, &instruction, target) && fillDone(&test, target, operand)
        case (nil, .some(let register)):
            test.gpr[register] = (target &- displacement) / scale
            target = test.gpr[register] &* scale &+ displacement
        case (.some(let register), nil):
            test.gpr[register] = target &- displacement
        case (.some(let register), .some(let other)) where register == other:
            test.gpr[register] = (target &- displacement) / (1 + scale)
            target = test.gpr[register] &* (1 + scale) &+ displacement
        case (.some(let register), .some(let other)):
            test.gpr[register] = target &- displacement &- test.gpr[other] &* scale
        }
        if instruction.addressWidth == 32, let base, random.chance(50) {
            // The upper half takes no part.
            test.gpr[base] = test.gpr[base] & 0xffff_ffff | random.next() << 32
        }
        return fillDone(&test, target, operand)
    }

    private mutating func fillDone(_ test: inout TestCase, _ place: UInt64, _ operand: ZydisDecodedOperand) -> Bool {
        fill(&test, place, operand.byteCount)
        return true
    }

    /// Writes the displacement into the code. False if it has no room there.
    private func setDisplacement(
        _ test: inout TestCase, _ instruction: inout Disassembler.Instruction, _ value: UInt64
    ) -> Bool {
        let field = instruction.displacement
        guard field.bits >= 32 else { return false }
        if field.bits == 32, Int64(bitPattern: value) != Int64(Int32(truncatingIfNeeded: Int64(bitPattern: value))) {
            return false
        }
        return replaceCode(&test, &instruction, field, value)
    }

    private func replaceCode(
        _ test: inout TestCase, _ instruction: inout Disassembler.Instruction, _ field: (offset: Int, bits: Int),
        _ value: UInt64
    ) -> Bool {
        var bytes = test.codeBytes
        for index in 0..<field.bits / 8 {
            bytes[field.offset + index] = UInt8(truncatingIfNeeded: value >> (index * 8))
        }
        guard let changed = decoder.decode(bytes), changed.definition == instruction.definition else { return false }
        instruction = changed
        test.setCode(bytes)
        return true
    }

    /// New contents for an operand, where it is ours to write.
    private mutating func fill(_ test: inout TestCase, _ place: UInt64, _ count: Int) {
        let count = min(max(count, 8), 64)
        guard test.patchCount < 3, random.chance(60) else { return }
        var bytes: [UInt8] = []
        while bytes.count < count {
            let word = random.vectorWord()
            bytes += (0..<8).map { UInt8(truncatingIfNeeded: word >> ($0 * 8)) }
        }
        write(&test, place, Array(bytes.prefix(count)))
    }

    private func write(_ test: inout TestCase, _ place: UInt64, _ bytes: [UInt8]) {
        let last = place &+ UInt64(bytes.count) &- 1
        for region in [OracleLayout.data, OracleLayout.stack] where region.contains(place) && region.contains(last) {
            test.patch(place, bytes)
        }
    }

    private func setStackTop(_ test: inout TestCase, _ value: UInt64) {
        write(&test, test.gpr[4], (0..<8).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) })
    }
}

// MARK: Branches

extension InstructionGenerator {
    private func isBranch(_ instruction: Disassembler.Instruction) -> Bool {
        [ZYDIS_CATEGORY_CALL, ZYDIS_CATEGORY_RET, ZYDIS_CATEGORY_UNCOND_BR].contains(instruction.category)
    }

    /// Chooses where a branch leads: to an INT3, mostly; never to itself.
    private mutating func aim(_ test: inout TestCase, _ instruction: inout Disassembler.Instruction) -> Bool {
        let code = OracleLayout.code
        let next = test.rip &+ UInt64(instruction.length)
        if instruction.isRelative {
            let field = instruction.immediate
            var landing = code.lowerBound + random.next() % 0x4000
            if field.bits == 8 { landing = next &+ UInt64(bitPattern: Int64(Int8(truncatingIfNeeded: random.next()))) }
            if field.bits == 32, random.chance(5) {
                landing = next &+ UInt64(bitPattern: Int64(Int32(truncatingIfNeeded: random.next())))
            }
            if landing >= test.rip, landing < next { return false }
            return replaceCode(&test, &instruction, field, landing &- next)
        }
        var landing = code.lowerBound + random.next() % 0x4000
        switch random.below(20) {
        case 0: landing = OracleLayout.data.lowerBound + random.next() % 0x2000  // not executable
        case 1: landing = random.next() | 1 << 62  // hardly canonical
        case 2: landing = code.upperBound + random.next() % 64
        default: break
        }
        if landing >= test.rip &- 15, landing < next { landing = next }
        if instruction.category == ZYDIS_CATEGORY_RET {
            setStackTop(&test, landing)
            return true
        }
        guard let operand = instruction.operands.first else { return false }
        if let register = operand.generalRegister {
            test.gpr[register] = landing
        } else if operand.isMemory, let place = effectiveAddress(of: operand, test, instruction) {
            write(&test, place, (0..<8).map { UInt8(truncatingIfNeeded: landing >> ($0 * 8)) })
        }
        return true
    }
}

/// The effective address of a memory operand, in the state that a case starts in.
func effectiveAddress(
    of operand: ZydisDecodedOperand, _ test: TestCase, _ instruction: Disassembler.Instruction
) -> UInt64? {
    guard operand.isMemory, operand.mem.type != ZYDIS_MEMOP_TYPE_VSIB else { return nil }
    var address = UInt64(bitPattern: operand.mem.disp.value)
    if operand.mem.base == ZYDIS_REGISTER_RIP || operand.mem.base == ZYDIS_REGISTER_EIP {
        address &+= test.rip &+ UInt64(instruction.length)
    } else if let base = instruction.base(of: operand) {
        address &+= test.gpr[base]
    }
    if let index = generalNumber(operand.mem.index) { address &+= test.gpr[index] &* UInt64(operand.mem.scale) }
    return instruction.addressWidth == 32 ? address & 0xffff_ffff : address
}
//:
