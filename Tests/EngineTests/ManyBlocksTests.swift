import EngineTesting
import GuestMemory
import Testing
import VirtualCPU
import X86

/// Patterns of code that are bad for whoever keeps what he has decoded or
/// translated.
@Suite(.everyEngine, .serialized) struct ManyBlocksTests {
    /// 64-bit mode, CPL 0, the low 1 GiB mapped to itself by one page; code at 0x10000.
    private func guest(megabytes: UInt64, _ put: (GuestMemory) throws -> Void) throws -> any VCPU {
        let memory = try GuestMemory(byteCount: megabytes << 20)
        let vcpu = try TestedEngine.current.makeVCPU(memory, VCPURequests(), nil)
        try memory.store(UInt64(0x2003), at: GuestPhysicalAddress(0x1000))
        try memory.store(UInt64(0x83), at: GuestPhysicalAddress(0x2000))
        try put(memory)
        vcpu.withState { state in
            state.cr0 = CR0.protectedMode | CR0.paging | CR0.extensionType | CR0.numericError | CR0.writeProtect
            state.cr3 = 0x1000
            state.cr4 = CR4.physicalAddressExtension | CR4.osFXSR
            state.efer = EFER.longModeEnable | EFER.longModeActive | EFER.noExecuteEnable
            state.segments[SegmentName.cs] = Segment(selector: 8, limit: .max, attributes: 0xa09b)
            state.segments[SegmentName.ss] = Segment(selector: 16, limit: .max, attributes: 0xc093)
            state.rip = 0x10000
            state.gpr[Register.rsp] = 0x80000
            state.rflags = RFlags.alwaysOne
        }
        return vcpu
    }

    // 100,000 blocks in a random ring, three times around: none is the wrong one.
    @Test func hundredThousandBlocks() throws {
        let count = 100_000, size: UInt64 = 32, start: UInt64 = 0x10_0000
        var order = Array(0..<count)
        var random = SystemRandomNumberGenerator()
        order.shuffle(using: &random)
        var blocks = [UInt8](repeating: 0x90, count: count * Int(size))
        for (index, block) in order.enumerated() {
            let place = start + UInt64(block) * size
            var p = Program(at: place)
            p.op(0x6b, reg: 0, .rax, immediate: [3])  // imul rax, rax, 3
            p.raw(0x48, 0x05)  // add rax, imm32
            p.raw((0..<4).map { UInt8(truncatingIfNeeded: block >> ($0 * 8)) })
            let next = index + 1 < count ? start + UInt64(order[index + 1]) * size : 0x10100
            p.raw(0xe9)
            p.raw((0..<4).map { UInt8(truncatingIfNeeded: (next &- p.here &- 4) >> (UInt64($0) * 8)) })
            let bytes = p.bytes
            blocks.replaceSubrange(block * Int(size)..<block * Int(size) + bytes.count, with: bytes)
        }
        var program = Program(at: 0x10000)
        program.move(.rcx, 3)
        program.raw(0x31, 0xc0)
        program.label("again")
        program.move(.rbx, start + UInt64(order[0]) * size)
        program.jump(.rbx)
        program.pad(to: 0x10100)
        program.decrement(.rcx)
        program.jump(.ne, "again")
        program.halt()
        let vcpu = try guest(megabytes: 16) { memory in
            try memory.write(program.bytes, at: GuestPhysicalAddress(0x10000))
            try memory.write(blocks, at: GuestPhysicalAddress(start))
        }
        guard case .halt = Deadline.of(seconds: 60, vcpu.requests, { vcpu.run() }) else {
            Issue.record("\(vcpu.describe())"); return
        }
        var expected: UInt64 = 0
        for _ in 0..<3 { for block in order { expected = expected &* 3 &+ UInt64(block) } }
        #expect(vcpu.withState { $0.gpr[Register.rax] } == expected)
    }

    // Calls through a table of 256 functions, in an order that repeats late.
    @Test func indirectCalls() throws {
        let start: UInt64 = 0x10_0000, table: UInt64 = 0x20_0000, rounds: UInt64 = 100_000
        var functions: [UInt8] = []
        for index in 0..<256 {
            var p = Program(at: start + UInt64(index) * 32)
            p.op(0x6b, reg: 0, .rax, immediate: [5])
            p.raw(0x48, 0x05)
            p.raw([UInt8(index), 0, 0, 0])
            p.ret()
            p.pad(to: p.origin + 32)
            functions += p.bytes
        }
        var program = Program(at: 0x10000)
        program.move(.rcx, rounds)
        program.move(.rbx, table)
        program.raw(0x31, 0xc0, 0x31, 0xd2)
        program.label("again")
        program.op(0x69, reg: 2, .rdx, size: 4, immediate: [0x0d, 0x66, 0x19, 0])  // imul edx, edx, 1664525
        program.raw(0x81, 0xc2, 0x5f, 0xf3, 0x6e, 0x3c)  // add edx, 1013904223
        program.raw(0x89, 0xd6, 0xc1, 0xee, 24)  // mov esi, edx; shr esi, 24
        program.op(0xff, reg: 2, Memory(.rbx, index: .rsi, scale: 8), size: 4)  // call [rbx + rsi·8]
        program.decrement(.rcx)
        program.jump(.ne, "again")
        program.halt()
        let vcpu = try guest(megabytes: 16) { memory in
            try memory.write(program.bytes, at: GuestPhysicalAddress(0x10000))
            try memory.write(functions, at: GuestPhysicalAddress(start))
            for index in UInt64(0)..<256 {
                try memory.store(start + index * 32, at: GuestPhysicalAddress(table + index * 8))
            }
        }
        guard case .halt = Deadline.of(seconds: 60, vcpu.requests, { vcpu.run() }) else {
            Issue.record("\(vcpu.describe())"); return
        }
        var expected: UInt64 = 0
        var choice: UInt32 = 0
        for _ in 0..<rounds {
            choice = choice &* 1_664_525 &+ 1_013_904_223
            expected = expected &* 5 &+ UInt64(choice >> 24)
        }
        #expect(vcpu.withState { $0.gpr[Register.rax] } == expected)
    }

    // Returns that were never called, calls that never return, deep and shallow.
    @Test func unbalancedReturns() throws {
        var program = Program(at: 0x10000)
        program.move(.rcx, 20_000)
        program.raw(0x31, 0xc0)
        program.label("again")
        program.move(.rbx, addressOf: "there")
        program.raw(0x53, 0xc3)  // push rbx; ret
        program.raw(0x0f, 0x0b)
        program.label("there")
        program.raw(0x48, 0x01, 0xc8)
        program.call("lost")
        program.raw(0x0f, 0x0b)
        program.label("lost")
        program.raw(0x48, 0x83, 0xc4, 8)  // add rsp, 8
        program.call("deep")
        program.decrement(.rcx)
        program.jump(.ne, "again")
        program.halt()
        // Forty calls deep, and back by one return past all of them.
        program.label("deep")
        program.raw(0x48, 0x89, 0xe5, 0xbe, 40, 0, 0, 0)  // mov rbp, rsp; mov esi, 40
        program.label("deeper")
        program.raw(0xff, 0xce)  // dec esi
        program.jump(.e, "out")
        program.call("deeper")
        program.raw(0x0f, 0x0b)
        program.label("out")
        program.raw(0x48, 0x89, 0xec, 0xc3)  // mov rsp, rbp; ret
        let vcpu = try guest(megabytes: 4) { memory in
            try memory.write(program.bytes, at: GuestPhysicalAddress(0x10000))
        }
        guard case .halt = Deadline.of(seconds: 60, vcpu.requests, { vcpu.run() }) else {
            Issue.record("\(vcpu.describe())"); return
        }
        #expect(vcpu.withState { $0.gpr[Register.rax] } == 20_000 * 20_001 / 2)
    }

    // Into the middle of instructions, at every offset of the same bytes.
    @Test func everyOffsetOfTheSameBytes() throws {
        var program = Program(at: 0x10000)
        program.move(.rcx, 200)
        program.raw(0x31, 0xc0)
        program.label("again")
        for offset in 0..<8 {
            program.move(.r15, addressOf: "back\(offset)")
            program.raw(0x4c, 0x89, 0xff)  // mov rdi, r15
            program.move(.rbx, addressOf: "sled")
            program.raw(0x48, 0x83, 0xc3, UInt8(offset))
            program.jump(.rbx)
            program.label("back\(offset)")
        }
        program.decrement(.rcx)
        program.jump(.ne, "again")
        program.halt()
        // add al, 4 five times, jmp r15; or, an odd byte on, add al, 4 four times, add al, 0x41, jmp rdi.
        program.label("sled")
        program.raw(0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x41, 0xff, 0xe7)
        let vcpu = try guest(megabytes: 4) { memory in
            try memory.write(program.bytes, at: GuestPhysicalAddress(0x10000))
        }
        guard case .halt = Deadline.of(seconds: 60, vcpu.requests, { vcpu.run() }) else {
            Issue.record("\(vcpu.describe())"); return
        }
        var al: UInt8 = 0
        for _ in 0..<200 {
            for offset in 0..<8 {
                let whole = (10 - offset) / 2
                al &+= UInt8(whole * 4)
                if offset % 2 == 1 { al &+= 0x41 }
            }
        }
        #expect(vcpu.withState { $0.gpr[Register.rax] } & 0xff == UInt64(al))
    }
}
