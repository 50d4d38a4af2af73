import EngineTesting
import Testing
import VirtualCPU
import X86

/// Code that is written while it runs: on this architecture it counts from the
/// next instruction on (SDM 3A, 11.6), whatever wrote it. More of it, with page
/// tables, is in `TranslationCacheTests`.
@Suite(.everyEngine) struct SelfModifyingCodeTests {
    typealias Place = Machine.Place
    let machine: Machine
    /// A page for a function that is rewritten.
    static let function: UInt64 = 0x40000
    /// Where its next version waits.
    static let version: UInt64 = 0x48000

    init() throws {
        machine = try Machine()
        try machine.enterLongMode()
        machine.vcpu.withState { state in
            state.cr4 |= CR4.osFXSR | CR4.osXMMExceptions | CR4.osXSave
            state.xcr0 = 7
        }
    }

    private func littleEndian(_ value: UInt64, _ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
    }

    /// Ways to write 32 bytes or less of new code to [rdi], from [rsi].
    enum Writer: CaseIterable {
        case bytes, words, dwords, qwords, vector16, vector32, push, repStore, repMoveBytes, repMoveQuads
        case repMoveBackwards, exchange, compareExchange, add, saveX87, nonTemporal, popMemory

        func emit(_ p: inout Program) {
            func copy(_ size: Int) {
                for offset in stride(from: Int32(0), to: 8, by: size) {
                    p.load(.rax, Memory(.rsi, offset), size: size)
                    p.store(.rax, Memory(.rdi, offset), size: size)
                }
            }
            switch self {
            case .bytes: copy(1)
            case .words: copy(2)
            case .dwords: copy(4)
            case .qwords: copy(8)
            case .vector16:
                p.op(0x0f, 0x10, reg: 3, Memory(.rsi), size: 4)  // movups
                p.op(0x0f, 0x11, reg: 3, Memory(.rdi), size: 4)
            case .vector32: p.raw(0xc5, 0xfc, 0x10, 0x1e, 0xc5, 0xfc, 0x11, 0x1f)  // vmovups ymm3, [rsi]; [rdi], ymm3
            case .push:
                p.raw(0x48, 0x89, 0xe5, 0x48, 0x8d, 0x67, 0x08, 0xff, 0x36, 0x48, 0x89, 0xec)
            // mov rbp, rsp; lea rsp, [rdi+8]; push qword [rsi]; mov rsp, rbp
            case .popMemory: p.raw(0xff, 0x36, 0x8f, 0x07)  // push qword [rsi]; pop qword [rdi]
            case .repStore:
                p.load(.rax, Memory(.rsi))
                p.move(.rcx, 1)
                p.raw(0xf3, 0x48, 0xab)
            case .repMoveBytes:
                p.move(.rcx, 13)
                p.raw(0xf3, 0xa4)
            case .repMoveQuads:
                p.move(.rcx, 2)
                p.raw(0xf3, 0x48, 0xa5)
            case .repMoveBackwards:
                p.raw(0x48, 0x83, 0xc6, 15, 0x48, 0x83, 0xc7, 15)  // add rsi, 15; add rdi, 15
                p.move(.rcx, 16)
                p.raw(0xfd, 0xf3, 0xa4, 0xfc)  // std; rep movsb; cld
            case .exchange:
                p.load(.rax, Memory(.rsi))
                p.op(0x87, reg: 0, Memory(.rdi))
            case .compareExchange:
                p.load(.rcx, Memory(.rsi))
                p.load(.rax, Memory(.rdi))
                p.op(0x0f, 0xb1, reg: 1, Memory(.rdi), prefix: [0xf0])
            case .add:
                p.load(.rax, Memory(.rsi))
                p.op(0x2b, reg: 0, Memory(.rdi))  // sub rax, [rdi]
                p.op(0x01, reg: 0, Memory(.rdi))  // add [rdi], rax
            case .saveX87:
                // fild qword [rsi]; fistp qword [rdi]
                p.op(0xdf, reg: 5, Memory(.rsi), size: 4)
                p.op(0xdf, reg: 7, Memory(.rdi), size: 4)
            case .nonTemporal:
                p.load(.rax, Memory(.rsi))
                p.op(0x0f, 0xc3, reg: 0, Memory(.rdi))  // movnti
            }
        }
    }

    /// mov eax, value; ret; nops.
    private func version(_ value: UInt64) -> [UInt8] {
        [0xb8] + littleEndian(value, 4) + [0xc3] + [UInt8](repeating: 0x90, count: 26)
    }

    // A function in another page, hot, then rewritten, and called again at once; over and over.
    @Test(arguments: Writer.allCases) func anotherPage(_ writer: Writer) throws {
        // In the page's middle, at its end, and over it.
        for function in [Self.function, Self.function + 0xff8, Self.function + 0xffc, Self.function + 0xfff] {
            var program = Program(at: Place.code)
            program.move(.r12, 20)
            program.raw(0x45, 0x31, 0xed)  // xor r13d, r13d
            program.move(.r14, function)
            program.move(.r15, Self.version)
            program.label("again")
            for _ in 0..<3 {
                program.call(.r14)
                program.add(.r13, .rax)
            }
            program.op(0xff, reg: 0, Memory(.r15, 1), size: 4)  // inc dword [r15+1]
            program.raw(0x4c, 0x89, 0xf7, 0x4c, 0x89, 0xfe)  // mov rdi, r14; mov rsi, r15
            writer.emit(&program)
            program.decrement(.r12)
            program.jump(.ne, "again")
            program.halt()
            try machine.put(program)
            try machine.put(version(0), at: function)
            try machine.put(version(0), at: Self.version)
            machine.enterKernel(long: true)
            _ = machine.runToHalt()
            #expect(machine[.r13] == 3 * (0..<20).reduce(0, +), "at \(String(function, radix: 16))")
        }
    }

    // What stands behind a string instruction is what that has put there.
    @Test(arguments: [UInt64(0x40), 0x1000, 0x1800]) func stringStoreOverWhatFollows(_ count: UInt64) throws {
        var program = Program(at: Place.code)
        program.move(.rdi, addressOf: "follows")
        program.move(.rcx, count)
        program.raw(0xb0, 0x90, 0xf3, 0xaa)  // mov al, 0x90; rep stosb
        program.label("follows")
        for _ in 0..<count / 2 { program.raw(0x0f, 0x0b) }  // ud2
        program.halt()
        try machine.put(program)
        #expect(machine.runToHalt() == program.here)
    }

    // Over itself and what follows, with a copy that has the same instruction in the same place.
    @Test func stringMoveOverItself() throws {
        let copy: UInt64 = 0x48000
        var program = Program(at: Place.code)
        program.move(.rdi, Place.code)
        program.move(.rsi, copy)
        program.move(.rcx, 0x80)
        program.raw(0xf3, 0xa4)
        program.raw(0x0f, 0x0b)
        try machine.put(program)
        var bytes = program.bytes
        bytes.removeLast(2)
        try machine.put(bytes + [0xb8, 0x77, 0, 0, 0, 0xf4], at: copy)
        _ = machine.runToHalt()
        #expect(machine[.rax] == 0x77)
    }

    // An instruction in two pages, the second half of which changes: as bytes, and as a page.
    @Test func secondHalfOfAnInstruction() throws {
        let start = Self.function + 0xffd
        try machine.put([0xb8, 1, 0, 0, 0, 0xc3], at: start)
        try machine.put([1, 0, 0xc3], at: Self.version)  // the second page, remapped
        var program = Program(at: Place.code)
        program.move(.r14, start)
        program.move(.r15, Self.function + 0x1000)
        for _ in 0..<3 { program.call(.r14) }
        program.raw(0x89, 0xc3)  // mov ebx, eax
        program.op(0xc6, reg: 0, Memory(.r15), size: 4, immediate: [5])  // mov byte [r15], 5: bits 23…16
        program.call(.r14)
        program.raw(0x89, 0xc6)  // mov esi, eax
        program.move(.rdi, 0x4000 + ((Self.function + 0x1000) >> 12) * 8)
        program.move(.rax, Self.version | 7)
        program.store(.rax, Memory(.rdi))
        program.raw(0x41, 0x0f, 0x01, 0x3f)  // invlpg [r15]
        program.call(.r14)
        program.halt()
        try machine.put(program)
        _ = machine.runToHalt()
        #expect(machine[.rbx] == 1)
        #expect(machine[.rsi] == 0x5_0001)
        #expect(machine[.rax] == 0x1_0001)
    }

    // Data among code: it may be written as often as one likes.
    @Test func dataBesideCode() throws {
        var program = Program(at: Place.code)
        program.move(.rbx, addressOf: "counter")
        program.move(.rcx, 20_000)
        program.label("again")
        program.op(0xff, reg: 0, Memory(.rbx))  // inc qword [rbx]
        program.decrement(.rcx)
        program.jump(.ne, "again")
        program.halt()
        program.label("counter")
        program.raw([UInt8](repeating: 0, count: 8))
        try machine.put(program)
        _ = machine.runToHalt()
        #expect(try machine.get64(program.address("counter")) == 20_000)
    }

    // A block that is jumped to from many others, and rewritten between.
    @Test func manyWaysToOneBlock() throws {
        var program = Program(at: Place.code)
        program.raw(0x31, 0xc0, 0x31, 0xd2)  // xor eax, eax; xor edx, edx
        program.move(.rbx, addressOf: "target")
        program.move(.rcx, 64 * 10)
        program.label("again")
        program.raw(0x89, 0xce, 0x83, 0xe6, 0x3f)  // mov esi, ecx; and esi, 63
        program.op(0x6b, reg: 6, .rsi, immediate: [5])  // imul rsi, rsi, 5
        program.move(.rdi, addressOf: "table")
        program.add(.rsi, .rdi)
        program.jump(.rsi)
        program.label("table")
        for _ in 0..<64 { program.jump("target") }
        program.label("target")
        program.raw(0x48, 0x05, 0, 0, 0, 0)  // add rax, imm32
        program.op(0x83, reg: 0, Memory(.rbx, 2), size: 4, immediate: [3])  // add dword [rbx+2], 3
        program.decrement(.rcx)
        program.jump(.ne, "again")
        program.halt()
        try machine.put(program)
        _ = machine.runToHalt()
        #expect(machine[.rax] == 3 * 639 * 640 / 2)
    }
}
