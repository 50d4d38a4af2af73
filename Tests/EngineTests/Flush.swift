import EngineTesting
import X86

/// What ends a translation that a CPU may have kept (SDM 3A, 4.10.4.1), as code.
/// RBX is the address that is to be forgotten, R9 is CR3, R10 CR4; R11 is the
/// address of 16 bytes for INVPCID.
enum Flush: CaseIterable, Sendable {
    case invlpg, cr3, cr3WithPCID, globalPages, globalPagesOff, pcidOff
    case invpcidAddress, invpcidContext, invpcidAll, invpcidAllButGlobal

    /// Whether it forgets pages with G set too.
    var endsGlobal: Bool {
        switch self {
        case .invlpg, .globalPages, .globalPagesOff, .invpcidAll: true
        default: false
        }
    }

    /// Whether it wants CR4.PCIDE.
    var needsPCID: Bool { self == .cr3WithPCID || self == .pcidOff }

    func emit(_ p: inout Program) {
        func toggle(_ bit: UInt64, on: Bool) {
            // mov rax, r10; xor rax, bit; mov cr4, rax; and back
            p.raw(0x4c, 0x89, 0xd0)
            p.raw(0x48, 0x35)
            p.raw((0..<4).map { UInt8(truncatingIfNeeded: bit >> ($0 * 8)) })
            p.raw(0x0f, 0x22, 0xe0)
            if on { p.raw(0x41, 0x0f, 0x22, 0xe2) }
        }
        switch self {
        case .invlpg: p.raw(0x0f, 0x01, 0x3b)
        case .cr3, .cr3WithPCID: p.raw(0x41, 0x0f, 0x22, 0xd9)
        case .globalPages: toggle(CR4.globalPages, on: true)
        case .globalPagesOff: toggle(CR4.globalPages, on: false)
        case .pcidOff: toggle(CR4.pcid, on: false)
        case .invpcidAddress, .invpcidContext, .invpcidAll, .invpcidAllButGlobal:
            let type: UInt64 =
                self == .invpcidAddress ? 0 : self == .invpcidContext ? 1 : self == .invpcidAll ? 2 : 3
            p.move(.rax, type)
            p.raw(0x66, 0x41, 0x0f, 0x38, 0x82, 0x03)  // invpcid rax, [r11]
        }
    }
}
