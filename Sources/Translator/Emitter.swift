/// A place in the code buffer, in the writable view.
@safe struct BufferPlace: Equatable {
    fileprivate(set) var pointer: UnsafeMutablePointer<UInt8>

    init(pointer: UnsafeMutablePointer<UInt8>) { unsafe self.pointer = pointer }

    static func == (a: BufferPlace, b: BufferPlace) -> Bool { unsafe a.pointer == b.pointer }

    func before(_ count: Int) -> BufferPlace { unsafe BufferPlace(pointer: pointer - count) }
}

/// Writes x86-64 instructions to memory, front to end.
///
/// Registers are the hardware's numbers 0…15. The caller sees to room; a
/// block's worst case is reserved before its first byte is written.
///
/// Safe to the extent that this is so: a place is only made by writing there.
@safe struct Emitter {
    private var next: UnsafeMutablePointer<UInt8>
    /// Executable address − writable address.
    let delta: Int

    init(_ start: UnsafeMutableRawPointer, delta: Int) {
        unsafe next = start.assumingMemoryBound(to: UInt8.self)
        self.delta = delta
    }

    /// Where the next byte goes.
    var at: BufferPlace { unsafe BufferPlace(pointer: next) }
    /// Where the next byte will be run.
    var address: UInt { unsafe UInt(bitPattern: next) &+ UInt(bitPattern: delta) }

    // MARK: Bytes

    @inline(__always) mutating func byte(_ value: UInt8) {
        unsafe next.pointee = value
        unsafe next += 1
    }
    @inline(__always) mutating func bytes(_ a: UInt8, _ b: UInt8) { byte(a); byte(b) }
    @inline(__always) mutating func bytes(_ a: UInt8, _ b: UInt8, _ c: UInt8) {
        bytes(a, b)
        byte(c)
    }
    @inline(__always) mutating func bytes(_ a: UInt8, _ b: UInt8, _ c: UInt8, _ d: UInt8) {
        bytes(a, b)
        bytes(c, d)
    }
    @inline(__always) mutating func word(_ value: Int32) {
        unsafe UnsafeMutableRawPointer(next).storeBytes(of: value, as: Int32.self)
        unsafe next += 4
    }
    @inline(__always) mutating func quad(_ value: UInt64) {
        unsafe UnsafeMutableRawPointer(next).storeBytes(of: value, as: UInt64.self)
        unsafe next += 8
    }
    @inline(__always) mutating func copy(_ source: UnsafePointer<UInt8>, _ count: Int) {
        unsafe next.update(from: source, count: count)
        unsafe next += count
    }
    mutating func align(_ boundary: Int) {
        while unsafe Int(bitPattern: next) & (boundary - 1) != 0 { byte(0x90) }
    }

    // MARK: Operands

    /// ModRM, SIB and displacement for a memory operand. `base` and `index` may be -1: none.
    @inline(__always) mutating func memory(_ reg: Int, base: Int, index: Int = -1, scale: UInt8 = 0, _ disp: Int32) {
        let field = UInt8(truncatingIfNeeded: reg & 7) &<< 3
        if base < 0 {
            // SIB without base: [index·scale + disp32].
            byte(field | 4)
            byte(scale &<< 6 | UInt8(truncatingIfNeeded: index < 0 ? 4 : index & 7) &<< 3 | 5)
            word(disp)
            return
        }
        let needsSIB = index >= 0 || base & 7 == 4
        let mode: UInt8 = disp == 0 && base & 7 != 5 ? 0 : disp >= -128 && disp < 128 ? 0x40 : 0x80
        if needsSIB {
            byte(mode | field | 4)
            let indexField = UInt8(truncatingIfNeeded: index < 0 ? 4 : index & 7)
            byte(scale &<< 6 | indexField &<< 3 | UInt8(truncatingIfNeeded: base & 7))
        } else {
            byte(mode | field | UInt8(truncatingIfNeeded: base & 7))
        }
        if mode == 0x40 { byte(UInt8(truncatingIfNeeded: disp)) } else if mode == 0x80 { word(disp) }
    }

    @inline(__always) mutating func rex(_ wide: Bool, _ reg: Int, _ index: Int, _ base: Int) {
        let value = 0x40 | (wide ? 8 : 0) | (reg & 8) >> 1 | (index > 7 ? 2 : 0) | (base > 7 ? 1 : 0)
        if value != 0x40 { byte(UInt8(truncatingIfNeeded: value)) }
    }

    /// `opcode reg, [base + index·2^scale + disp]`, 64 or 32 bits wide.
    @inline(__always) mutating func op(
        _ opcode: UInt8, _ reg: Int, base: Int, index: Int = -1, scale: UInt8 = 0, _ disp: Int32, wide: Bool = true
    ) {
        rex(wide, reg, index, base)
        byte(opcode)
        memory(reg, base: base, index: index, scale: scale, disp)
    }

    /// `opcode rm, reg` between registers.
    @inline(__always) mutating func op(_ opcode: UInt8, _ reg: Int, rm: Int, wide: Bool = true) {
        rex(wide, reg, -1, rm)
        bytes(opcode, 0xc0 | UInt8(truncatingIfNeeded: reg & 7) &<< 3 | UInt8(truncatingIfNeeded: rm & 7))
    }

    // MARK: Instructions

    @inline(__always) mutating func load(_ reg: Int, _ base: Int, _ disp: Int32, wide: Bool = true) {
        op(0x8b, reg, base: base, disp, wide: wide)
    }
    @inline(__always) mutating func store(_ reg: Int, _ base: Int, _ disp: Int32, wide: Bool = true) {
        op(0x89, reg, base: base, disp, wide: wide)
    }
    @inline(__always) mutating func move(_ target: Int, _ source: Int, wide: Bool = true) {
        op(0x89, source, rm: target, wide: wide)
    }
    @inline(__always) mutating func lea(
        _ reg: Int, base: Int, index: Int = -1, scale: UInt8 = 0, _ disp: Int32, wide: Bool = true
    ) {
        op(0x8d, reg, base: base, index: index, scale: scale, disp, wide: wide)
    }
    /// reg = sign-extended imm32, or any 64-bit constant in ten bytes; leaves the flags.
    mutating func constant(_ reg: Int, _ value: UInt64) {
        if value >> 32 == 0 {
            rex(false, 0, -1, reg)
            byte(0xb8 | UInt8(truncatingIfNeeded: reg & 7))
            word(Int32(bitPattern: UInt32(truncatingIfNeeded: value)))
        } else if let short = Int32(exactly: Int64(bitPattern: value)) {
            rex(true, 0, -1, reg)
            bytes(0xc7, 0xc0 | UInt8(truncatingIfNeeded: reg & 7))
            word(short)
        } else {
            rex(true, 0, -1, reg)
            byte(0xb8 | UInt8(truncatingIfNeeded: reg & 7))
            quad(value)
        }
    }
    /// `group /extension r, imm32`: 0 add, 1 or, 4 and, 5 sub, 6 xor, 7 cmp.
    mutating func immediate(_ extension_: UInt8, _ reg: Int, _ value: Int32, wide: Bool = true) {
        rex(wide, 0, -1, reg)
        let field = 0xc0 | extension_ &<< 3 | UInt8(truncatingIfNeeded: reg & 7)
        if value >= -128 && value < 128 {
            bytes(0x83, field, UInt8(truncatingIfNeeded: value))
        } else {
            bytes(0x81, field)
            word(value)
        }
    }
    /// The same on a doubleword or quadword in memory.
    mutating func immediate(_ extension_: UInt8, _ base: Int, _ disp: Int32, value: Int32, wide: Bool = false) {
        rex(wide, 0, -1, base)
        let short = value >= -128 && value < 128
        byte(short ? 0x83 : 0x81)
        memory(Int(extension_), base: base, disp)
        if short { byte(UInt8(truncatingIfNeeded: value)) } else { word(value) }
    }
    /// mov qword [base + disp], sign-extended imm32
    mutating func storeConstant(_ base: Int, _ disp: Int32, _ value: Int32) {
        rex(true, 0, -1, base)
        byte(0xc7)
        memory(0, base: base, disp)
        word(value)
    }
    /// `shift /extension r, count`: 4 shl, 5 shr, 7 sar.
    mutating func shift(_ extension_: UInt8, _ reg: Int, _ count: UInt8, wide: Bool = true) {
        rex(wide, 0, -1, reg)
        bytes(0xc1, 0xc0 | extension_ &<< 3 | UInt8(truncatingIfNeeded: reg & 7), count)
    }

    // MARK: Jumps

    /// A jump with an empty displacement; returns its place for `patch`.
    @inline(__always) mutating func jump() -> BufferPlace {
        byte(0xe9)
        word(0)
        return at.before(4)
    }
    @inline(__always) mutating func jump(if condition: UInt8) -> BufferPlace {
        bytes(0x0f, 0x80 | condition)
        word(0)
        return at.before(4)
    }
    mutating func call() -> BufferPlace {
        byte(0xe8)
        word(0)
        return at.before(4)
    }
    /// Lets the jump at `place` lead to `target`, in the writable view.
    @inline(__always) static func patch(_ place: BufferPlace, to target: BufferPlace) {
        let distance = unsafe target.pointer - (place.pointer + 4)
        unsafe UnsafeMutableRawPointer(place.pointer).storeBytes(
            of: Int32(truncatingIfNeeded: distance), as: Int32.self)
    }
    @inline(__always) func patchHere(_ place: BufferPlace) { Emitter.patch(place, to: at) }
    mutating func jump(to target: BufferPlace) {
        let place = jump(); Emitter.patch(place, to: target)
    }
    mutating func call(to target: BufferPlace) {
        let place = call(); Emitter.patch(place, to: target)
    }
    /// jmp r64
    mutating func jump(register: Int) {
        rex(false, 0, -1, register)
        bytes(0xff, 0xe0 | UInt8(truncatingIfNeeded: register & 7))
    }
}

/// Condition codes (SDM 1, appendix B).
enum Condition {
    static let overflow: UInt8 = 0, below: UInt8 = 2, notBelow: UInt8 = 3, equal: UInt8 = 4, notEqual: UInt8 = 5
    static let belowOrEqual: UInt8 = 6, above: UInt8 = 7
}

/// Hardware numbers of the registers that generated code uses by name.
enum Host {
    static let rax = 0, rcx = 1, rdx = 2, rbx = 3, rsp = 4, rbp = 5, rsi = 6, rdi = 7, r8 = 8, r9 = 9, r10 = 10
    static let r11 = 11, r12 = 12
    /// The two that no Guest register lives in.
    static let r13 = 13, r14 = 14
    /// Where the Guest's RSP lives.
    static let guestStack = 15
}
