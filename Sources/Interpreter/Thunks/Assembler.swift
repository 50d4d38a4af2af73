/// Writes the few host instructions that surround the Guest's in a thunk.
///
/// Registers are the numbers 0…15. A base register may be neither rsp nor r12,
/// whose encodings want a SIB byte (SDM 2A, table 2-2).
struct Assembler: ~Copyable {
    private var bytes = InlineArray<1024, UInt8>(repeating: 0)
    private(set) var count = 0

    mutating func removeAll() { count = 0 }

    @inline(__always) mutating func byte(_ value: UInt8) {
        bytes[count] = value
        count += 1
    }

    mutating func emit(_ values: UInt8...) { for value in values { byte(value) } }

    mutating func word(_ value: Int32) {
        let pattern = UInt32(bitPattern: value)
        for shift in [UInt32(0), 8, 16, 24] { byte(UInt8(truncatingIfNeeded: pattern >> shift)) }
    }

    func copy(to target: UnsafeMutableRawPointer) {
        for index in 0..<count { unsafe target.storeBytes(of: bytes[index], toByteOffset: index, as: UInt8.self) }
    }

    /// ModRM and displacement for [base + displacement].
    private mutating func address(_ register: Int, _ base: Int, _ displacement: Int) {
        let fields = UInt8(register & 7) << 3 | UInt8(base & 7)
        if displacement >= -128, displacement < 128 {
            byte(0x40 | fields)
            byte(UInt8(truncatingIfNeeded: displacement))
        } else {
            byte(0x80 | fields)
            word(Int32(displacement))
        }
    }

    private mutating func rex(wide: Bool, _ register: Int, _ base: Int) {
        let value = 0x40 | (wide ? 8 : 0) | UInt8(register >> 3) << 2 | UInt8(base >> 3)
        if value != 0x40 { byte(value) }
    }

    mutating func move(_ target: Int, from source: Int) {
        rex(wide: true, source, target)
        emit(0x89, 0xc0 | UInt8(source & 7) << 3 | UInt8(target & 7))
    }

    mutating func load(_ register: Int, _ base: Int, _ displacement: Int) {
        rex(wide: true, register, base)
        byte(0x8b)
        address(register, base, displacement)
    }

    mutating func store(_ register: Int, _ base: Int, _ displacement: Int) {
        rex(wide: true, register, base)
        byte(0x89)
        address(register, base, displacement)
    }

    mutating func push(_ register: Int) {
        rex(wide: false, 0, register)
        byte(0x50 | UInt8(register & 7))
    }

    mutating func pop(_ register: Int) {
        rex(wide: false, 0, register)
        byte(0x58 | UInt8(register & 7))
    }

    /// and r64, sign-extended immediate
    mutating func and(_ register: Int, _ immediate: Int32) {
        rex(wide: true, 0, register)
        emit(0x81, 0xe0 | UInt8(register & 7))
        word(immediate)
    }

    /// and qword [base + displacement], sign-extended immediate
    mutating func and(memory base: Int, _ displacement: Int, _ immediate: Int32) {
        rex(wide: true, 0, base)
        byte(0x81)
        address(4, base, displacement)
        word(immediate)
    }

    /// or [base + displacement], r64
    mutating func or(memory base: Int, _ displacement: Int, _ register: Int) {
        rex(wide: true, register, base)
        byte(0x09)
        address(register, base, displacement)
    }

    /// RFLAGS = the bits of `mask` at [base + displacement], all others clear.
    mutating func loadFlags(_ base: Int, _ displacement: Int, mask: Int32) {
        rex(wide: false, 0, base)
        byte(0xff)  // push qword
        address(6, base, displacement)
        emit(0x48, 0x81, 0x24, 0x24)  // and qword [rsp], mask
        word(mask)
        byte(0x9d)  // popfq
    }

    /// The low 16 bytes of a vector register, by MOVUPS.
    mutating func loadXMM(_ register: Int, _ base: Int, _ displacement: Int) {
        rex(wide: false, register, base)
        emit(0x0f, 0x10)
        address(register, base, displacement)
    }

    mutating func storeXMM(_ register: Int, _ base: Int, _ displacement: Int) {
        rex(wide: false, register, base)
        emit(0x0f, 0x11)
        address(register, base, displacement)
    }

    private mutating func vex256(_ opcode: UInt8, _ register: Int, _ base: Int, _ displacement: Int) {
        emit(0xc4, 0x61 ^ (register < 8 ? 0x80 : 0) ^ (base < 8 ? 0 : 0x20), 0x7c, opcode)
        address(register, base, displacement)
    }

    /// All 32 bytes, by VMOVUPS.
    mutating func loadYMM(_ register: Int, _ base: Int, _ displacement: Int) {
        vex256(0x10, register, base, displacement)
    }

    mutating func storeYMM(_ register: Int, _ base: Int, _ displacement: Int) {
        vex256(0x11, register, base, displacement)
    }

    /// 0F AE /extension: FXSAVE64 0, FXRSTOR64 1 (wide), LDMXCSR 2, STMXCSR 3.
    mutating func stateGroup(_ number: Int, wide: Bool, _ base: Int, _ displacement: Int) {
        rex(wide: wide, 0, base)
        emit(0x0f, 0xae)
        address(number, base, displacement)
    }
}
