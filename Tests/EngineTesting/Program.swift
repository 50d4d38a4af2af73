internal import VirtualCPU

/// General registers in the order of their numbers (SDM 2, table 2-1).
package enum GPR: UInt8, CaseIterable, Sendable {
    case rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15

    package var number: Int { Int(rawValue) }
}

/// Condition codes, as the low four bits of Jcc, SETcc and CMOVcc have them.
package enum Condition: UInt8, CaseIterable, Sendable {
    case o, no, b, ae, e, ne, be, a, s, ns, p, np, l, ge, le, g
}

/// A memory operand of 64-bit code.
package struct Memory: Sendable {
    package var base: GPR?
    package var index: GPR?
    package var scale: UInt8 = 1
    package var displacement: Int32 = 0
    /// 0x64 or 0x65, for FS and GS.
    package var segment: UInt8?
    /// With an address-size prefix: of 32 bits.
    package var isNarrow = false

    package init(
        _ base: GPR?, index: GPR? = nil, scale: UInt8 = 1, _ displacement: Int32 = 0, segment: UInt8? = nil,
        isNarrow: Bool = false
    ) {
        (self.base, self.index, self.scale, self.displacement) = (base, index, scale, displacement)
        (self.segment, self.isNarrow) = (segment, isNarrow)
    }

    /// ModRM, SIB and displacement (SDM 2, tables 2-2 and 2-3), in the shortest form there is.
    fileprivate func encoding(reg: UInt8) -> [UInt8] {
        let reg = (reg & 7) << 3
        let wide = (0..<4).map { UInt8(truncatingIfNeeded: displacement >> ($0 * 8)) }
        guard let base else {
            // SIB without a base: index · scale + disp32.
            return [0x04 | reg, sib(base: 5)] + wide
        }
        // RBP and R13 always have a displacement: without, their number means "no base".
        let mode: UInt8 =
            displacement == 0 && base.rawValue & 7 != 5
            ? 0 : displacement == Int32(Int8(truncatingIfNeeded: displacement)) ? 1 : 2
        let tail = mode == 0 ? [] : mode == 1 ? [wide[0]] : wide
        if index == nil, base.rawValue & 7 != 4 { return [mode << 6 | reg | base.rawValue & 7] + tail }
        return [mode << 6 | reg | 4, sib(base: base.rawValue & 7)] + tail
    }

    private func sib(base: UInt8) -> UInt8 {
        UInt8(scale.trailingZeroBitCount) << 6 | ((index?.rawValue ?? 4) & 7) << 3 | base
    }

    fileprivate var extensions: UInt8 { ((index?.rawValue ?? 0) >> 3) << 1 | (base?.rawValue ?? 0) >> 3 }
}

/// 64-bit code with labels, as much of it as the tests want.
package struct Program {
    package let origin: UInt64
    private var code: [UInt8] = []
    private var labels: [String: UInt64] = [:]
    private var references: [(offset: Int, bytes: Int, label: String)] = []

    package init(at origin: UInt64) { self.origin = origin }

    /// The address of the next instruction.
    package var here: UInt64 { origin + UInt64(code.count) }

    /// The code, every label known.
    package var bytes: [UInt8] {
        var bytes = code
        for (offset, count, name) in references {
            let next = origin + UInt64(offset + count)
            let value = count == 8 ? address(name) : address(name) &- next
            for index in 0..<count { bytes[offset + index] = UInt8(truncatingIfNeeded: value >> (UInt64(index) * 8)) }
        }
        return bytes
    }

    package func address(_ label: String) -> UInt64 {
        guard let address = labels[label] else { preconditionFailure("no label \(label)") }
        return address
    }

    package mutating func label(_ name: String) {
        precondition(labels[name] == nil, "two labels \(name)")
        labels[name] = here
    }

    package mutating func raw(_ bytes: UInt8...) { code += bytes }
    package mutating func raw(_ bytes: [UInt8]) { code += bytes }

    /// NOPs up to an address.
    package mutating func pad(to address: UInt64) { while here < address { raw(0x90) } }

    private mutating func reference(_ label: String, _ bytes: Int) {
        references.append((code.count, bytes, label))
        code += [UInt8](repeating: 0, count: bytes)
    }

    // MARK: Instructions

    /// One with ModRM. `size` is the operand's; `prefix` goes before all others.
    package mutating func op(
        _ opcode: UInt8..., reg: UInt8, _ memory: Memory, size: Int = 8, prefix: [UInt8] = [], immediate: [UInt8] = []
    ) {
        raw(prefix)
        if let segment = memory.segment { raw(segment) }
        if memory.isNarrow { raw(0x67) }
        if size == 2 { raw(0x66) }
        let rex = (size == 8 ? 8 : 0) | (reg >> 3) << 2 | memory.extensions
        // With a REX, the low bytes of RSP and its like are reached, without it AH and its like.
        if rex != 0 { raw(0x40 | rex) }
        raw(opcode)
        raw(memory.encoding(reg: reg))
        raw(immediate)
    }

    package mutating func op(_ opcode: UInt8..., reg: UInt8, _ rm: GPR, size: Int = 8, immediate: [UInt8] = []) {
        if size == 2 { raw(0x66) }
        let rex = (size == 8 ? 8 : 0) | (reg >> 3) << 2 | rm.rawValue >> 3
        if rex != 0 { raw(0x40 | rex) }
        raw(opcode)
        raw(0xc0 | (reg & 7) << 3 | rm.rawValue & 7)
        raw(immediate)
    }

    package mutating func move(_ register: GPR, _ value: UInt64) {
        raw(0x48 | register.rawValue >> 3, 0xb8 | register.rawValue & 7)
        raw((0..<8).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) })
    }
    package mutating func move(_ register: GPR, addressOf label: String) {
        raw(0x48 | register.rawValue >> 3, 0xb8 | register.rawValue & 7)
        reference(label, 8)
    }
    package mutating func load(_ register: GPR, _ memory: Memory, size: Int = 8) {
        op(size == 1 ? 0x8a : 0x8b, reg: register.rawValue, memory, size: size)
    }
    package mutating func store(_ register: GPR, _ memory: Memory, size: Int = 8) {
        op(size == 1 ? 0x88 : 0x89, reg: register.rawValue, memory, size: size)
    }
    package mutating func add(_ register: GPR, _ other: GPR) { op(0x01, reg: other.rawValue, register) }
    package mutating func decrement(_ register: GPR) { op(0xff, reg: 1, register) }
    package mutating func increment(_ register: GPR) { op(0xff, reg: 0, register) }

    package mutating func jump(_ label: String) {
        raw(0xe9)
        reference(label, 4)
    }
    package mutating func jump(_ condition: Condition, _ label: String) {
        raw(0x0f, 0x80 | condition.rawValue)
        reference(label, 4)
    }
    package mutating func call(_ label: String) {
        raw(0xe8)
        reference(label, 4)
    }
    package mutating func call(_ register: GPR) { op(0xff, reg: 2, register, size: 4) }
    package mutating func jump(_ register: GPR) { op(0xff, reg: 4, register, size: 4) }
    package mutating func ret() { raw(0xc3) }
    package mutating func halt() { raw(0xf4) }
    package mutating func int(_ vector: UInt8) { raw(0xcd, vector) }
}

extension Machine {
    /// A program into memory, at its origin.
    package func put(_ program: Program) throws { try put(program.bytes, at: program.origin) }

    package subscript(_ register: GPR) -> UInt64 {
        get { vcpu.withState { $0.gpr[register.number] } }
        set { vcpu.withState { $0.gpr[register.number] = newValue } }
    }
}
