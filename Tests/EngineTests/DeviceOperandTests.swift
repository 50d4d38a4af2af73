import EngineTesting
import GuestMemory
import Testing
import VirtualCPU
import X86

/// Operands that are devices, read and written piece by piece while the
/// instruction begins again after every answer.
@Suite(.everyEngine) struct DeviceOperandTests {
    typealias Place = Machine.Place
    static let device: UInt64 = 0xfee0_0000
    let machine: Machine

    init() throws {
        machine = try Machine()
        try machine.enterLongMode()
        // The page that is not mapped becomes a device, far beyond RAM.
        try machine.put64(Self.device | 7, at: 0x4000 + (Place.hole >> 12) * 8)
        machine.vcpu.withState { state in
            state.cr4 |= CR4.osFXSR | CR4.osXSave | CR4.osXMMExceptions
            state.xcr0 = CPUFeatures.forThisHost.xcr0Mask
            state.gpr[Register.rbx] = Place.hole
        }
    }

    /// Runs to HLT; the device reads as `value` of the offset. Returns the offsets asked for.
    private func run(_ code: [UInt8], _ value: (UInt64) -> UInt64 = { $0 }) throws -> (
        reads: [UInt64], writes: [UInt64: UInt64]
    ) {
        try machine.put(code + [0xf4], at: Place.code)
        var reads: [UInt64] = []
        var writes: [UInt64: UInt64] = [:]
        for _ in 0..<1000 {
            switch machine.run() {
            case .mmioRead(let address, _):
                reads.append(address.rawValue - Self.device)
                machine.vcpu.complete(value(address.rawValue - Self.device))
            case .mmioWrite(let address, _, let value):
                writes[address.rawValue - Self.device] = value
                machine.vcpu.complete(0)
            case .halt:
                #expect(machine.vcpu.withState { $0.rip } == Place.code + UInt64(code.count) + 1)
                return (reads, writes)
            case let exit:
                Issue.record("\(exit)")
                return (reads, writes)
            }
        }
        Issue.record("no end of questions")
        return (reads, writes)
    }

    @Test func vectorStore() throws {
        machine.vcpu.withState { ($0.ymm[0], $0.ymm[1]) = (0x11, 0x22) }
        let (reads, writes) = try run([0x0f, 0x11, 0x03])  // movups [rbx], xmm0
        #expect(reads.isEmpty && writes == [0: 0x11, 8: 0x22])
    }

    @Test func lockedAdd() throws {
        machine.vcpu.withState { $0.gpr[Register.rax] = 5 }
        let (reads, writes) = try run([0xf0, 0x01, 0x43, 0x10]) { _ in 7 }  // lock add [rbx+16], eax
        #expect(reads == [16] && writes == [16: 12])
    }

    // The one that asks most: 832 bytes in, 832 bytes out.
    @Test func extendedState() throws {
        machine.vcpu.withState { state in
            state.gpr[Register.rax] = 7
            state.gpr[Register.rdx] = 0
        }
        let (reads, writes) = try run([0x48, 0x0f, 0xae, 0x23]) { _ in 0 }  // xsave64 [rbx]
        let words = CPUFeatures.forThisHost.xcr0Mask & 4 != 0 ? 104 : 72
        #expect(reads.count == words && writes.count == words)
    }

    // A gather's elements count one by one (SDM 2C, "VGATHER").
    @Test(.enabled(if: CPUFeatures.forThisHost.sets.contains(.avx2)))
    func gather() throws {
        machine.vcpu.withState { state in
            (state.ymm[4], state.ymm[5]) = (0x0000_0008_0000_0000, 0x0000_0018_0000_0010)  // xmm1: 0, 8, 16, 24
            (state.ymm[8], state.ymm[9]) = (.max, .max)  // xmm2: the mask
        }
        let (reads, _) = try run([0xc4, 0xe2, 0x69, 0x90, 0x04, 0x0b]) { $0 + 100 }  // vpgatherdd xmm0, [rbx+xmm1], xmm2
        #expect(reads == [0, 8, 16, 24])
        #expect(machine.vcpu.withState { ($0.ymm[0], $0.ymm[1]) } == (108 << 32 | 100, 124 << 32 | 116))
        #expect(machine.vcpu.withState { $0.ymm[8] | $0.ymm[9] } == 0)
    }

    // SDM 2A, "CVTPD2PI": 16 bytes of memory, aligned, though no XMM register is named.
    @Test func alignedWithoutXMM() throws {
        for opcode: UInt8 in [0x2d, 0x2c] {
            try machine.put([0x66, 0x0f, opcode, 0x03], at: Place.code)
            machine.vcpu.withState { state in
                state.rip = Place.code
                state.gpr[Register.rbx] = Place.data + 8
            }
            let frame = machine.runToHandler(Vector.generalProtection)
            #expect(try machine.get64(frame) == 0)
        }
    }

    // Either vendor's hypercall is an exit, RIP behind it.
    @Test func hypercalls() throws {
        for code: [UInt8] in [[0x0f, 0x01, 0xc1], [0x0f, 0x01, 0xd9]] {
            try machine.put(code, at: Place.code)
            machine.vcpu.withState { $0.rip = Place.code }
            guard case .hypercall = machine.run() else { Issue.record("no exit"); continue }
            #expect(machine.vcpu.withState { $0.rip } == Place.code + 3)
        }
    }
}
