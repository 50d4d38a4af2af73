import CPUOracle
import EngineTesting
import Testing
import VirtualCPU
import X86

/// What chance alone would seldom try, against the host: sequences and operands
/// chosen by hand, states by lot.
@Suite(.everyEngine, .serialized) struct WrittenSequenceTests {
    private struct Bench {
        let guest: GuestCPU
        let host: HostCPU
        var random: SeededGenerator
        let seed = DifferentialSettings.seed

        init() throws {
            let memory = try GuestCPU.makeMemory()
            let image = MemoryImage(seed: seed)
            guest = try GuestCPU(
                engine: TestedEngine.current.makeVCPU(memory, VCPURequests(), nil), memory: memory, image: image)
            host = HostCPU(image: image)
            random = SeededGenerator(seed: seed)
        }

        mutating func state() -> TestCase {
            var test = TestCase()
            for register in 0..<16 { test.gpr[register] = random.integer() }
            for word in 0..<64 { test.ymm[word] = random.vectorWord() }
            test.rflags = 0x202 | random.next() & 0x8d5
            test.gpr[Register.rsp] = OracleLayout.stack.lowerBound + 0x1000 + UInt64(random.below(64)) * 8
            test.gpr[8] = OracleLayout.data.lowerBound + 0x800 + UInt64(random.below(0x1000))
            return test
        }

        /// Runs both, and says what differs but for flags that may.
        mutating func check(_ cases: [(name: String, test: TestCase)], ignoring flags: UInt64 = 0) {
            var start = 0
            while start < cases.count {
                let batch = cases[start..<min(start + HostCPU.batchSize, cases.count)]
                for ((name, test), native) in zip(batch, host.run(batch.map(\.test))) {
                    let differences = differences(native: native, engine: guest.run(test), ignoring: flags)
                    if !differences.isEmpty {
                        Issue.record(
                            "\(name), ROOST_SEED=\(seed):\n\(differences.joined(separator: "\n"))\n\(Mismatch.describe(test))"
                        )
                        return
                    }
                }
                start += batch.count
            }
        }
    }

    private static func place(_ emit: (inout Program) -> Void, _ test: inout TestCase, _ random: inout SeededGenerator)
    {
        // Every third one lies over a page's end.
        let code = OracleLayout.code.lowerBound
        test.rip = random.chance(33) ? code + 0x2000 - 1 - random.next() % 40 : code + 0x1000 + random.next() % 0x2000
        var program = Program(at: test.rip)
        emit(&program)
        test.setCode(program.bytes)
    }

    @Test(arguments: ["stack", "registers", "vectors", "flags", "control", "strings", "long"])
    func sequences(_ group: String) throws {
        let sequences =
            switch group {
            case "stack": WrittenSequences.stack
            case "registers": WrittenSequences.registers
            case "vectors": WrittenSequences.vectors
            case "flags": WrittenSequences.flags
            case "control": WrittenSequences.control
            case "strings": WrittenSequences.strings
            default: WrittenSequences.long
            }
        var bench = try Bench()
        var cases: [(String, TestCase)] = []
        for (name, emit) in sequences {
            for _ in 0..<64 {
                var test = bench.state()
                Self.place(emit, &test, &bench.random)
                cases.append((name, test))
            }
        }
        // Multiplications, divisions and counts leave some undefined; of the groups that are about flags, only AF.
        bench.check(cases, ignoring: group == "flags" || group == "strings" ? RFlags.auxiliary : RFlags.arithmetic)
    }

    /// Loads, stores, read-modify-writes, high bytes, vectors, LEA: opcode, reg field, size, prefix.
    static let operations: [(name: String, opcode: [UInt8], reg: UInt8, size: Int)] = [
        ("mov rdx, [m]", [0x8b], 2, 8), ("mov [m], r15", [0x89], 15, 8), ("mov r13d, [m]", [0x8b], 13, 4),
        ("add [m], r14w", [0x01], 14, 2), ("xor cl, [m]", [0x32], 1, 1), ("lea r12, [m]", [0x8d], 12, 8),
        ("lea esp, [m]", [0x8d], 4, 4), ("mov [m], rsp", [0x89], 4, 8), ("movups xmm3, [m]", [0x0f, 0x10], 3, 4),
        ("movups [m], xmm13", [0x0f, 0x11], 13, 4), ("not qword [m]", [0xf7], 2, 8), ("push [m]", [0xff], 6, 4),
        ("pop [m]", [0x8f], 0, 4), ("movzx r15d, byte [m]", [0x0f, 0xb6], 15, 4), ("cmp [m], rsp", [0x39], 4, 8),
        ("xchg [m], r13", [0x87], 13, 8), ("imul r14, [m]", [0x0f, 0xaf], 14, 8),
    ]

    /// Every base with every index, scale and width of displacement; with 32-bit addresses too.
    @Test(arguments: operations.indices) func everyAddressForm(_ number: Int) throws {
        let operation = Self.operations[number]
        var bench = try Bench()
        var cases: [(String, TestCase)] = []
        let bases: [GPR?] = GPR.allCases + [nil]
        let indices: [GPR?] = GPR.allCases.filter { $0 != .rsp } + [nil]
        for base in bases {
            for index in indices {
                for displacement: Int32 in [0, -0x55, 0x1234] {
                    let scale = UInt8(1) << UInt8(bench.random.below(4))
                    var memory = Memory(base, index: index, scale: scale, displacement)
                    memory.isNarrow = bench.random.chance(20)
                    var test = bench.state()
                    let region = bench.random.chance(50) ? OracleLayout.data : OracleLayout.stack
                    let place = region.lowerBound + 0x100 + bench.random.next() % 0x1e00
                    guard Self.aim(&memory, at: place, &test, &bench.random) else { continue }
                    Self.place({ $0.emit(operation, memory) }, &test, &bench.random)
                    cases.append(("\(operation.name), \(memory)", test))
                }
            }
        }
        // IMUL leaves all but CF and OF undefined.
        bench.check(cases, ignoring: operation.opcode == [0x0f, 0xaf] ? 0xd4 : 0)
    }

    /// AH, CH, DH, BH to and from memory, at addresses without a REX.
    @Test func highBytes() throws {
        var bench = try Bench()
        var cases: [(String, TestCase)] = []
        for opcode: UInt8 in [0x88, 0x8a, 0x00, 0x02, 0x10, 0x12, 0x30, 0x38, 0x84, 0x86] {
            for reg in UInt8(4)..<8 {
                for base in GPR.allCases.prefix(8) {
                    for index: GPR? in [nil, .rax, .rbx, .rdi] {
                        var memory = Memory(base, index: index, 0x10)
                        var test = bench.state()
                        let place = OracleLayout.data.lowerBound + 0x100 + bench.random.next() % 0x1e00
                        guard Self.aim(&memory, at: place, &test, &bench.random) else { continue }
                        Self.place({ $0.op(opcode, reg: reg, memory, size: 1) }, &test, &bench.random)
                        cases.append(("\(opcode), \(reg), \(memory)", test))
                    }
                }
            }
        }
        bench.check(cases, ignoring: 0x10)
    }

    /// Sets registers, or the displacement, such that the operand is at `place`. False where it cannot be had.
    private static func aim(
        _ memory: inout Memory, at place: UInt64, _ test: inout TestCase, _ random: inout SeededGenerator
    ) -> Bool {
        let displacement = UInt64(bitPattern: Int64(memory.displacement))
        let scale = UInt64(memory.scale)
        switch (memory.base, memory.index) {
        case (nil, nil): memory.displacement = Int32(place)
        case (let base?, nil): test.gpr[base.number] = place &- displacement
        case (nil, let index?):
            let value = (place &- displacement) / scale
            test.gpr[index.number] = value
        case (let base?, let index?) where base == index:
            test.gpr[base.number] = (place &- displacement) / (1 + scale)
        case (let base?, let index?):
            test.gpr[index.number] = random.integer()
            test.gpr[base.number] = place &- displacement &- test.gpr[index.number] &* scale
        }
        if memory.isNarrow, let base = memory.base, base != memory.index { test.gpr[base.number] |= 0xabcd << 32 }
        return true
    }
}

extension Program {
    fileprivate mutating func emit(
        _ operation: (name: String, opcode: [UInt8], reg: UInt8, size: Int), _ memory: Memory
    ) {
        if operation.opcode.count == 2 {
            op(operation.opcode[0], operation.opcode[1], reg: operation.reg, memory, size: operation.size)
        } else {
            op(operation.opcode[0], reg: operation.reg, memory, size: operation.size)
        }
    }
}
