import EngineTesting
import Testing
import VirtualCPU
import X86

/// Several address spaces, by their identifiers (SDM 3A, 4.10.1).
@Suite(.everyEngine) struct AddressSpaceTests {
    typealias Place = Machine.Place
    /// One linear page, which is another page in each of two spaces.
    static let page: UInt64 = 1 << 39
    static let frames: [UInt64] = [0x60000, 0x61000, 0x62000]
    /// Roots of the spaces, and their tables.
    static let roots: [UInt64] = [0x1000, 0x70000]
    static let tables: [UInt64] = [0x71000, 0x75000]
    static func leaf(_ space: Int) -> UInt64 { tables[space] + 0x2000 }

    let machine: Machine

    init() throws {
        machine = try Machine()
        try machine.enterLongMode()
        for space in 0...1 {
            let table = Self.tables[space]
            try machine.put64(0x2007, at: Self.roots[space])
            try machine.put64(table | 7, at: Self.roots[space] + 8)
            try machine.put64((table + 0x1000) | 7, at: table)
            try machine.put64((table + 0x2000) | 7, at: table + 0x1000)
            try machine.put64(Self.frames[space] | 7, at: Self.leaf(space))
        }
        // mov eax, value; ret; and the value for reading.
        for (index, frame) in Self.frames.enumerated() {
            try machine.put([0xb8, UInt8(index + 1), 0, 0, 0, 0xc3, 0, 0, UInt8(index + 1)], at: frame)
        }
        machine.vcpu.withState { state in
            state.cr4 |= CR4.pcid | CR4.globalPages
            state.cr3 = Self.roots[0] | 1
            state.gpr[Register.rbx] = Self.page
            state.gpr[12] = Self.roots[0] | 1 | 1 << 63
            state.gpr[13] = Self.roots[1] | 2 | 1 << 63
            state.gpr[Register.rsi] = 0
            state.gpr[Register.rcx] = 200
        }
    }

    private static let enterFirst: [UInt8] = [0x41, 0x0f, 0x22, 0xdc]  // mov cr3, r12
    private static let enterSecond: [UInt8] = [0x41, 0x0f, 0x22, 0xdd]  // mov cr3, r13

    /// rsi = rsi · 3 + what a read says; the same with what the code says.
    private func look(_ p: inout Program) {
        p.raw(0x48, 0x8d, 0x34, 0x76)  // lea rsi, [rsi + rsi·2]
        p.op(0x0f, 0xb6, reg: 0, Memory(.rbx, 8), size: 4)  // movzx eax, byte [rbx+8]
        p.add(.rsi, .rax)
        p.raw(0x48, 0x8d, 0x34, 0x76)
        p.call(.rbx)
        p.add(.rsi, .rax)
    }

    // There and back 200 times, nothing flushed: neither sees the other's page.
    @Test func eachSpaceHasItsOwn() throws {
        var program = Program(at: Place.code)
        program.label("again")
        look(&program)
        program.raw(Self.enterSecond)
        look(&program)
        program.raw(Self.enterFirst)
        program.decrement(.rcx)
        program.jump(.ne, "again")
        program.halt()
        try machine.put(program)
        _ = machine.runToHalt()
        var expected: UInt64 = 0
        for _ in 0..<200 { for value: UInt64 in [1, 1, 2, 2] { expected = expected &* 3 &+ value } }
        #expect(machine[.rsi] == expected)
    }

    // A change to the other space's page, and INVPCID for it, before it is entered without a flush.
    @Test(arguments: [UInt64(0), 1, 2, 3]) func otherSpaceIsFlushed(_ type: UInt64) throws {
        var program = Program(at: Place.code)
        program.raw(Self.enterSecond)
        look(&program)
        program.raw(Self.enterFirst)
        look(&program)
        program.move(.rdi, Self.leaf(1))
        program.move(.rax, Self.frames[2] | 7)
        program.store(.rax, Memory(.rdi))
        program.move(.r11, Place.data)
        program.move(.rax, type)
        program.raw(0x66, 0x41, 0x0f, 0x38, 0x82, 0x03)  // invpcid rax, [r11]
        look(&program)
        program.raw(Self.enterSecond)
        look(&program)
        program.halt()
        try machine.put(program)
        try machine.put64(2, at: Place.data)
        try machine.put64(Self.page, at: Place.data + 8)
        _ = machine.runToHalt()
        var expected: UInt64 = 0
        for value: UInt64 in [2, 2, 1, 1, 1, 1, 3, 3] { expected = expected &* 3 &+ value }
        #expect(machine[.rsi] == expected)
    }

    // MOV to CR3 with bit 63 clear ends what was kept of the space that is entered.
    @Test func enteringWithAFlush() throws {
        var program = Program(at: Place.code)
        program.raw(Self.enterSecond)
        look(&program)
        program.raw(Self.enterFirst)
        program.move(.rdi, Self.leaf(1))
        program.move(.rax, Self.frames[2] | 7)
        program.store(.rax, Memory(.rdi))
        program.move(.r13, Self.roots[1] | 2)
        program.raw(Self.enterSecond)
        look(&program)
        program.halt()
        try machine.put(program)
        _ = machine.runToHalt()
        var expected: UInt64 = 0
        for value: UInt64 in [2, 2, 3, 3] { expected = expected &* 3 &+ value }
        #expect(machine[.rsi] == expected)
    }

    // INVLPG ends a page in the space that is entered, and global ones in all.
    @Test func globalPageInAllSpaces() throws {
        for space in 0...1 { try machine.put64(Self.frames[0] | 7 | PageEntry.global, at: Self.leaf(space)) }
        var program = Program(at: Place.code)
        look(&program)
        program.raw(Self.enterSecond)
        look(&program)
        for space in 0...1 {
            program.move(.rdi, Self.leaf(space))
            program.move(.rax, Self.frames[2] | 7 | PageEntry.global)
            program.store(.rax, Memory(.rdi))
        }
        program.raw(0x0f, 0x01, 0x3b)  // invlpg [rbx]
        look(&program)
        program.raw(Self.enterFirst)
        look(&program)
        program.halt()
        try machine.put(program)
        _ = machine.runToHalt()
        var expected: UInt64 = 0
        for value: UInt64 in [1, 1, 1, 1, 3, 3, 3, 3] { expected = expected &* 3 &+ value }
        #expect(machine[.rsi] == expected)
    }
}
