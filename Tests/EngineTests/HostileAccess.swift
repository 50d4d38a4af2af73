import EngineTesting
import X86

/// Something that a program does to memory at an address, as code and as what
/// it should come to.
struct HostileAccess: Sendable {
    enum Kind: Sendable { case load, store, modify, push, pop, call, moveString, storeString }

    /// How the address is made.
    enum Form: CaseIterable, Sendable {
        /// [rbx]; [rbp+disp8]; [r13+r12·4+disp32]; gs:[rax·8+disp32]; fs:[rbx]; [rsp]
        case base, frame, indexed, gs, fs, stack
    }

    let kind: Kind
    let bytes: Int
    var form = Form.base

    static let all: [HostileAccess] = {
        var list: [HostileAccess] = []
        for form in Form.allCases {
            for bytes in [1, 2, 4, 8, 16, 32] {
                list.append(HostileAccess(kind: .load, bytes: bytes, form: form))
                list.append(HostileAccess(kind: .store, bytes: bytes, form: form))
                if bytes <= 8 { list.append(HostileAccess(kind: .modify, bytes: bytes, form: form)) }
            }
        }
        for bytes in [2, 8] {
            list.append(HostileAccess(kind: .push, bytes: bytes))
            list.append(HostileAccess(kind: .pop, bytes: bytes))
        }
        list.append(HostileAccess(kind: .call, bytes: 8))
        for bytes in [1, 2, 4, 8] {
            list.append(HostileAccess(kind: .moveString, bytes: bytes))
            list.append(HostileAccess(kind: .storeString, bytes: bytes))
        }
        return list
    }()

    /// Whether the stack segment is the one that is used, for which #SS stands in for #GP.
    var isOfStack: Bool {
        switch kind {
        case .push, .pop, .call: true
        case .load, .store, .modify: form == .frame || form == .stack
        case .moveString, .storeString: false
        }
    }

    var writes: Bool { kind != .load && kind != .pop }

    /// So many elements, for string instructions.
    static let elements = 3

    func emit(_ p: inout Program) {
        let memory =
            switch form {
            case .base: Memory(.rbx)
            case .frame: Memory(.rbp, -8)
            case .indexed: Memory(.r13, index: .r12, scale: 4, 0x1234)
            case .gs: Memory(nil, index: .rax, scale: 8, -0x4321, segment: 0x65)
            case .fs: Memory(.rbx, segment: 0x64)
            case .stack: Memory(.rsp)
            }
        switch kind {
        case .load, .store:
            switch bytes {
            case 16: p.op(0x0f, kind == .load ? 0x10 : 0x11, reg: 3, memory, size: 4)
            case 32: p.vmovups(load: kind == .load, memory)
            default: kind == .load ? p.load(.rdx, memory, size: bytes) : p.store(.rdx, memory, size: bytes)
            }
        case .modify: p.op(bytes == 1 ? 0x30 : 0x31, reg: 2, memory, size: bytes)  // xor [m], rdx
        case .push: p.raw(bytes == 2 ? [0x66, 0x52] : [0x52])
        case .pop: p.raw(bytes == 2 ? [0x66, 0x5a] : [0x5a])
        case .call: p.raw(0xe8, 0, 0, 0, 0)
        case .moveString, .storeString:
            let opcode: UInt8 = (kind == .moveString ? 0xa4 : 0xaa) | (bytes == 1 ? 0 : 1)
            p.raw([0xf3] + (bytes == 2 ? [0x66] : bytes == 8 ? [0x48] : []) + [opcode])
        }
    }

    /// The registers that lead to the address, and the bases of FS and GS.
    func registers(for address: UInt64) -> (values: [(GPR, UInt64)], fs: UInt64, gs: UInt64) {
        switch kind {
        case .push, .call: return ([(.rsp, address &+ UInt64(bytes))], 0, 0)
        case .pop: return ([(.rsp, address)], 0, 0)
        case .moveString, .storeString: return ([(.rdi, address)], 0, 0)
        default: break
        }
        switch form {
        case .base: return ([(.rbx, address)], 0, 0)
        case .frame: return ([(.rbp, address &+ 8)], 0, 0)
        case .indexed:
            let index: UInt64 = 0xffff_ffff_ffff_ff01
            return ([(.r12, index), (.r13, address &- 0x1234 &- index &* 4)], 0, 0)
        case .gs:
            // A base as the kernel's is: in the upper half.
            let base: UInt64 = 0xffff_8880_0000_1000 | (address &+ 0x4321) & 7
            let rest = address &+ 0x4321 &- base
            return ([(.rax, UInt64(bitPattern: Int64(bitPattern: rest) >> 3))], 0, base)
        case .fs: return ([(.rbx, 0x1000)], address &- 0x1000, 0)
        case .stack: return ([(.rsp, address)], 0, 0)
        }
    }
}

extension Program {
    /// vmovups ymm3, [m], or back: VEX of three bytes, whose R, X, B are REX's inverted (SDM 2, 2.3.5).
    mutating func vmovups(load: Bool, _ memory: Memory) {
        var plain = Program(at: 0)
        plain.op(load ? 0x10 : 0x11, reg: 3, memory, size: 4)
        var rest = plain.bytes
        if memory.segment != nil { raw(rest.removeFirst()) }
        var extensions: UInt8 = 0
        if rest[0] & 0xf0 == 0x40 { extensions = rest.removeFirst() & 7 }
        raw([0xc4, ~extensions << 5 | 1, 0x7c] + rest)
    }
}
