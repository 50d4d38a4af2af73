internal import CZydis

//M:160 Instructions in company
//
// One instruction at a time says nothing of what an engine does between two:
// flags that live in a register of the host's, a guest register that lives
// elsewhere, a block that is left half way. So there are sequences, of 5 to 20
// instructions. A random sequence would be over at its second instruction,
// whose operand lies nowhere, and would be full of results that the manual
// leaves open. So it grows one instruction at a time, with the host as gardener:
// a candidate is run behind what there is already, and stays if it has gone
// well, if its results are defined, and if it has read no flag that an earlier
// one left undefined.
//
// The code is laid out on islands of 32 bytes in no order, with INT3 between
// them and jumps from one to the other; so some lead forward, some back, some
// over a page's end.

/// A stream of sequences.
package struct SequenceGenerator {
    private var single: InstructionGenerator
    private let host: HostCPU

    private static let islandBytes = 32
    private static let islandCount = TestCase.maximumCode / islandBytes
    /// An instruction, and the jump that leads on from behind it.
    private static let roomNeeded = 15 + 5

    /// - Parameter filter: as `InstructionGenerator` takes it.
    package init(forms: InstructionForms, seed: UInt64, only filter: String = "", host: HostCPU) {
        single = InstructionGenerator(forms: forms, seed: seed, only: filter)
        self.host = host
    }

    /// A sequence that still grows.
    private struct Seedling {
        var sequence: InstructionSequence
        let length: Int
        /// Where the next instruction goes.
        var cursor = 0
        var freeIslands: [Int]
        /// Behind calls from which there has been no return.
        var returns: [Int] = []
        /// Flags that nobody may look at.
        var undefinedFlags: UInt64 = 0
        var isGrown = false
    }

    private struct Candidate {
        var offset: Int
        var bytes: [UInt8]
        var instruction: Disassembler.Instruction
        /// Where it may lead; next to `next`.
        var target: Int?
        var isCall = false
        var isReturn = false
        var next: Int { offset + bytes.count }
    }

    /// So many sequences, which the host has run.
    package mutating func next(_ count: Int) -> [InstructionSequence] {
        var seedlings = (0..<count).map { _ in sow() }
        for _ in 0..<60 {
            let growing = seedlings.indices.filter { !seedlings[$0].isGrown }
            if growing.isEmpty { break }
            let candidates = growing.map { propose(seedlings[$0]) }
            let natives = host.run(
                zip(growing, candidates).map { seedlings[$0].sequence.test(adding: $1.bytes, at: $1.offset) })
            for (index, place) in growing.enumerated() { judge(&seedlings[place], candidates[index], natives[index]) }
        }
        return seedlings.map(\.sequence).filter { $0.count > 0 }
    }

    private mutating func sow() -> Seedling {
        var start = single.makeState()
        let code = OracleLayout.code, room = UInt64(TestCase.maximumCode)
        start.rip =
            single.random.chance(25)
            ? code.lowerBound + 0x2000 - single.random.next() % room
            : code.lowerBound + single.random.next() % (0x4000 - room)
        for register in 0..<16 where register != 4 && single.random.chance(60) {
            start.gpr[register] = pointer()
        }
        let islands = (1..<Self.islandCount).shuffled(using: &single.random)
        return Seedling(
            sequence: InstructionSequence(start: start), length: 5 + single.random.below(16), freeIslands: islands)
    }

    /// Somewhere in the pages, with room on both sides.
    private mutating func pointer() -> UInt64 {
        let region = single.random.pick([OracleLayout.data, OracleLayout.data, OracleLayout.stack, OracleLayout.rom])
        return (region.lowerBound + 0x100 + single.random.next() % UInt64(region.count - 0x200))
            & (single.random.chance(50) ? ~15 : ~0)
    }

    // MARK: What comes next

    private mutating func propose(_ seedling: Seedling) -> Candidate {
        let cursor = seedling.cursor
        let room = Self.islandBytes - cursor % Self.islandBytes
        if room < Self.roomNeeded, !seedling.freeIslands.isEmpty {
            return jump(seedling, [0xe9])  // jmp rel32
        }
        for _ in 0..<40 {
            if let candidate = attempt(seedling), candidate.instruction.testedFlags & seedling.undefinedFlags == 0 {
                return candidate
            }
        }
        return plain(seedling, [0x90])
    }

    private mutating func attempt(_ seedling: Seedling) -> Candidate? {
        let register = UInt8(single.random.below(16))
        let rexB = register >> 3, low = register & 7
        switch single.random.below(100) {
        case 0..<8:  // mov r64, imm64: a register for addresses
            if register == 4 { return nil }
            return plain(seedling, [0x48 | rexB, 0xb8 | low] + bytes(pointer(), 8))
        case 8..<10:  // lea r64, [rip + island]
            guard register != 4, let island = seedling.freeIslands.randomElement(using: &single.random) else {
                return nil
            }
            let distance = island * Self.islandBytes - seedling.cursor - 7
            return plain(
                seedling, [0x48 | rexB << 2, 0x8d, 0x05 | low << 3] + bytes(UInt64(bitPattern: Int64(distance)), 4))
        case 10..<14:  // jmp r64, call r64
            return indirect(seedling)
        case 14..<17: return jump(seedling, [0xe8])  // call rel32
        case 17..<20:  // jcc rel32
            return jump(seedling, [0x0f, 0x80 | UInt8(single.random.below(16))])
        case 20..<23:
            guard let back = seedling.returns.last else { return nil }
            let popped = single.random.below(3) * 8
            var candidate = plain(seedling, single.random.chance(60) ? [0xc3] : [0xc2, UInt8(popped), 0])
            candidate.target = back
            candidate.isReturn = true
            return candidate
        default: return anything(seedling)
        }
    }

    private func bytes(_ value: UInt64, _ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
    }

    private func plain(_ seedling: Seedling, _ bytes: [UInt8]) -> Candidate {
        guard let instruction = single.decoder.decode(bytes) else { preconditionFailure("\(bytes)") }
        return Candidate(offset: seedling.cursor, bytes: bytes, instruction: instruction)
    }

    /// A relative branch to a free island.
    private mutating func jump(_ seedling: Seedling, _ opcode: [UInt8]) -> Candidate {
        guard let island = seedling.freeIslands.randomElement(using: &single.random) else {
            return plain(seedling, [0x90])
        }
        let distance = island * Self.islandBytes - seedling.cursor - opcode.count - 4
        var candidate = plain(seedling, opcode + bytes(UInt64(bitPattern: Int64(distance)), 4))
        candidate.target = island * Self.islandBytes
        candidate.isCall = opcode == [0xe8]
        return candidate
    }

    /// Where a register holds an island's address: through it.
    private mutating func indirect(_ seedling: Seedling) -> Candidate? {
        let state = seedling.sequence.view([], at: seedling.cursor)
        for island in seedling.freeIslands {
            let address = seedling.sequence.test.rip + UInt64(island * Self.islandBytes)
            for register in 0..<16 where state.gpr[register] == address {
                let isCall = single.random.chance(50)
                let prefix: [UInt8] = register > 7 ? [0x41] : []
                var candidate = plain(
                    seedling, prefix + [0xff, (isCall ? 0xd0 : 0xe0) | UInt8(register & 7)])
                candidate.target = island * Self.islandBytes
                candidate.isCall = isCall
                return candidate
            }
        }
        return nil
    }

    /// Any form there is, its operands where something is.
    private mutating func anything(_ seedling: Seedling) -> Candidate? {
        guard var (bytes, instruction) = single.nextInstruction() else { return nil }
        // What they load may set TF, and what they save tells of instructions before.
        if instruction.name.hasPrefix("popf") { return nil }
        let state = seedling.sequence.view(bytes, at: seedling.cursor)
        if instruction.isRelative {
            let field = instruction.immediate
            guard field.bits == 8 || field.bits == 32 else { return nil }
            var target = seedling.cursor + bytes.count + 1 + single.random.below(4)
            // A call comes back: what it leads to must not lie where it goes on then.
            let isCall = instruction.name == "call"
            if let island = seedling.freeIslands.randomElement(using: &single.random),
                isCall || single.random.chance(70)
            {
                target = island * Self.islandBytes
            } else if isCall {
                return nil
            }
            let distance = target - seedling.cursor - bytes.count
            if field.bits == 8, distance < -128 || distance > 127 { return nil }
            bytes.replaceSubrange(
                field.offset..<field.offset + field.bits / 8,
                with: self.bytes(UInt64(bitPattern: Int64(distance)), field.bits / 8))
            var candidate = plain(seedling, bytes)
            candidate.target = target
            candidate.isCall = isCall
            return candidate
        }
        for operand in instruction.operands where operand.isMemory && operand.mem.type == ZYDIS_MEMOP_TYPE_MEM {
            guard single.aimOperand(operand, &bytes, &instruction, state) else { return nil }
        }
        return Candidate(offset: seedling.cursor, bytes: bytes, instruction: instruction)
    }

    // MARK: Whether it stays

    private mutating func judge(_ seedling: inout Seedling, _ candidate: Candidate, _ native: Outcome) {
        guard native.vector < 32, native.vector != 1 else { return }
        let view = seedling.sequence.view(candidate.bytes, at: candidate.offset)
        var tolerance = Tolerance(view, candidate.instruction, native: native)
        let undefined = ~tolerance.flags & RFlagsOfArithmetic.all
        tolerance.flags &= ~seedling.undefinedFlags
        let step = InstructionSequence.Step(
            offset: candidate.offset, bytes: candidate.bytes, instruction: candidate.instruction, tolerance: tolerance)
        if native.vector != 3 {
            // A fault is the end: not too early, and not of those that may or may not be.
            guard seedling.sequence.count >= 4, single.random.chance(50),
                !candidate.instruction.name.contains("maskmov"), !tolerance.mayGoOn
            else { return }
            seedling.sequence.append(step, native: native)
            seedling.isGrown = true
            return
        }
        guard tolerance.isExactButForFlags else { return }
        let landing = Int(truncatingIfNeeded: native.rip &- 1 &- seedling.sequence.test.rip)
        guard landing == candidate.target || landing == candidate.next && !candidate.isReturn else { return }
        seedling.sequence.append(step, native: native)
        seedling.undefinedFlags &= ~candidate.instruction.surelyWrittenFlags
        seedling.undefinedFlags |= undefined
        seedling.cursor = landing
        seedling.freeIslands.removeAll { $0 == landing / Self.islandBytes }
        if candidate.isReturn { seedling.returns.removeLast() }
        if candidate.isCall { seedling.returns.append(candidate.next) }
        seedling.isGrown =
            seedling.sequence.count >= seedling.length
            || Self.islandBytes - landing % Self.islandBytes < 15 && seedling.freeIslands.isEmpty
    }
}
//:

private enum RFlagsOfArithmetic {
    static let all: UInt64 = 0x8d5
}

extension Tolerance {
    /// Nothing that an instruction behind this one could pick up differs, but for flags.
    fileprivate var isExactButForFlags: Bool {
        (0..<16).allSatisfy { gpr[$0] == ~0 } && freeVectors == 0 && memory && x87InOrder && mxcsr == 0xffff
            && freeMemory.isEmpty && !mayFault
    }
}
