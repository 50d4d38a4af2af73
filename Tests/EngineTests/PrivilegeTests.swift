import EngineTesting
import Testing
import VirtualCPU
import X86

/// What programs may not do (SDM 3A, 5.9; SDM 1, 19.5), and what differs by mode.
@Suite(.everyEngine) struct PrivilegeTests {
    typealias Place = Machine.Place

    /// Instructions that are #GP(0) at CPL 3, operands at [rbx] or in registers.
    static let privileged: [(String, [UInt8])] = [
        ("clts", [0x0f, 0x06]), ("hlt", [0xf4]), ("invd", [0x0f, 0x08]), ("wbinvd", [0x0f, 0x09]),
        ("invlpg [rbx]", [0x0f, 0x01, 0x3b]), ("invpcid rax, [rbx]", [0x66, 0x0f, 0x38, 0x82, 0x03]),
        ("lgdt [rbx]", [0x0f, 0x01, 0x13]), ("lidt [rbx]", [0x0f, 0x01, 0x1b]), ("lldt ax", [0x0f, 0x00, 0xd0]),
        ("ltr ax", [0x0f, 0x00, 0xd8]), ("lmsw ax", [0x0f, 0x01, 0xf0]), ("mov cr0, rax", [0x0f, 0x22, 0xc0]),
        ("mov cr2, rax", [0x0f, 0x22, 0xd0]), ("mov cr3, rax", [0x0f, 0x22, 0xd8]),
        ("mov cr4, rax", [0x0f, 0x22, 0xe0]),
        ("mov rax, cr0", [0x0f, 0x20, 0xc0]), ("mov rax, cr3", [0x0f, 0x20, 0xd8]),
        ("mov rax, dr0", [0x0f, 0x21, 0xc0]),
        ("mov dr7, rax", [0x0f, 0x23, 0xf8]), ("rdmsr", [0x0f, 0x32]), ("wrmsr", [0x0f, 0x30]),
        ("rdpmc", [0x0f, 0x33]),
        ("sysexit", [0x0f, 0x35]), ("xsetbv", [0x0f, 0x01, 0xd1]), ("cli", [0xfa]), ("sti", [0xfb]),
        ("in al, dx", [0xec]),
        ("in eax, 0x60", [0xe5, 0x60]), ("out dx, al", [0xee]), ("out 0x60, eax", [0xe7, 0x60]), ("insb", [0x6c]),
        ("outsd", [0x6f]), ("rep outsb", [0xf3, 0x6e]),
    ]
    /// The same in 64-bit mode alone.
    static let privileged64: [(String, [UInt8])] = [
        ("swapgs", [0x0f, 0x01, 0xf8]), ("sysretq", [0x48, 0x0f, 0x07]), ("mov cr8, rax", [0x44, 0x0f, 0x22, 0xc0]),
    ]

    private func machine(long: Bool, user: Bool = true) throws -> Machine {
        // SYSEXIT exists in long mode by Intel's rules alone.
        let machine = try Machine(features: .forThisHost.followingRules(ofIntel: true))
        if long { try machine.enterLongMode() } else { try machine.enterProtectedMode() }
        if user { machine.enterUser(long: long) }
        try machine.put16(0x68, at: Place.tss + 0x66)  // no map of ports
        machine.vcpu.withState { state in
            state.cr4 |= CR4.osXSave | CR4.osFXSR
            state.sysenterCS = 8
            state.gpr[Register.rbx] = Place.data
            state.gpr[Register.rsi] = Place.data
            state.gpr[Register.rdi] = Place.data
            state.gpr[Register.rcx] = 1
            state.gpr[Register.rdx] = 0x60
        }
        return machine
    }

    /// The error code of a #GP for the program's first instruction, else nil.
    private func generalProtection(_ machine: Machine, long: Bool) throws -> UInt64? {
        guard case .halt = machine.run() else { return nil }
        let (rip, frame) = machine.vcpu.withState { ($0.rip, $0.gpr[Register.rsp]) }
        guard rip == Place.handler(Vector.generalProtection) + 1 else { return nil }
        let at = long ? try machine.get64(frame + 8) : UInt64(try machine.get32(frame + 4))
        return at == Place.user ? (long ? try machine.get64(frame) : UInt64(try machine.get32(frame))) : nil
    }

    @Test func privilegedInstructions() throws {
        for (name, code) in Self.privileged + Self.privileged64 {
            let machine = try machine(long: true)
            try machine.put(code, at: Place.user)
            #expect(try generalProtection(machine, long: true) == 0, "\(name), 64-bit")
        }
        for (name, code) in Self.privileged {
            let machine = try machine(long: false)
            try machine.put(code, at: Place.user)
            #expect(try generalProtection(machine, long: false) == 0, "\(name), 32-bit")
        }
    }

    // CPL 1 and 2 are supervisors to the page tables, and as powerless as 3 otherwise.
    @Test(arguments: [1, 2] as [UInt16]) func privilegedInstructionsBetween(level: UInt16) throws {
        for (name, code) in Self.privileged + Self.privileged64 {
            let machine = try machine(long: true)
            machine.vcpu.withState { state in
                let code = Machine.Selector.userCode64 & ~3 | level, data = Machine.Selector.userData & ~3 | level
                state.segments[SegmentName.cs] = Machine.flat(code, 0xa09b | UInt32(level) << 5)
                for number in [SegmentName.ss, SegmentName.es, SegmentName.ds, SegmentName.fs, SegmentName.gs] {
                    state.segments[number] = Machine.flat(data, 0xc093 | UInt32(level) << 5)
                }
            }
            try machine.put(code, at: Place.user)
            #expect(try generalProtection(machine, long: true) == 0, "\(name) at CPL \(level)")
        }
    }

    // SMAP's two are #UD above CPL 0 (SDM 2A, "CLAC"; 2B, "STAC").
    @Test func supervisorOnlyByUndefinedOpcode() throws {
        for code: [UInt8] in [[0x0f, 0x01, 0xca], [0x0f, 0x01, 0xcb]] {
            let machine = try machine(long: true)
            try machine.put(code, at: Place.user)
            _ = machine.runToHandler(Vector.invalidOpcode)
        }
    }

    // SDM 3A, 2.5 (CR4.UMIP) and 2.6.
    @Test(arguments: [false, true])
    func userModePrevention(_ on: Bool) throws {
        for code: [UInt8] in [
            [0x0f, 0x01, 0x03], [0x0f, 0x01, 0x0b], [0x0f, 0x00, 0xc0], [0x0f, 0x00, 0xc8], [0x0f, 0x01, 0xe0],
        ] {
            let machine = try machine(long: true)
            try machine.put(code + [0xcd, 0x40], at: Place.user)
            if on { machine.vcpu.withState { $0.cr4 |= CR4.umip } }
            if on { #expect(try generalProtection(machine, long: true) == 0) } else { _ = machine.runToHandler(0x40) }
        }
    }

    // SDM 2B, "RDTSC" and "RDTSCP": CR4.TSD keeps them from programs, not from the kernel.
    @Test func timeStampDisable() throws {
        for code: [UInt8] in [[0x0f, 0x31], [0x0f, 0x01, 0xf9]] {
            for (user, disabled) in [(true, true), (true, false), (false, true)] {
                let machine = try machine(long: true, user: user)
                try machine.put(code + [0xcd, 0x40], at: user ? Place.user : Place.code)
                if disabled { machine.vcpu.withState { $0.cr4 |= CR4.timeStampDisable } }
                if user && disabled {
                    #expect(try generalProtection(machine, long: true) == 0)
                } else {
                    _ = machine.runToHandler(0x40)
                }
            }
        }
    }

    // MARK: Ports

    // SDM 1, 19.5.1: IOPL; CLI and STI have nothing else.
    @Test func ioPrivilegeLevel() throws {
        for code: [UInt8] in [[0xfa], [0xfb], [0xec], [0xee]] {
            let machine = try machine(long: true)
            try machine.put(code + [0xcd, 0x40], at: Place.user)
            machine.vcpu.withState { $0.rflags |= RFlags.ioPrivilege }
            switch machine.run() {
            case .portRead(0x60, 1), .portWrite(0x60, 1, _): machine.vcpu.complete(0)
            case .halt where code[0] < 0xfc && code[0] > 0xf9: continue
            case let exit: Issue.record("\(exit)")
            }
        }
    }

    // SDM 1, 19.5.2: one bit per port, all of the access's must be 0; a byte of
    // ones behind the map; ports beyond the limit are forbidden.
    @Test func permissionBitmap() throws {
        // Port, bytes (by opcode), forbidden bit, limit, whether #GP.
        let cases: [(port: UInt64, code: [UInt8], bit: Int, limit: UInt32, faults: Bool)] = [
            (0x40, [0xec], -1, 0x167, false), (0x40, [0xec], 0x40, 0x167, true), (0x40, [0xec], 0x41, 0x167, false),
            (0x40, [0xed], 0x43, 0x167, true), (0x40, [0x66, 0xed], 0x42, 0x167, false),
            (0x40, [0x66, 0xed], 0x41, 0x167, true),
            (0x47, [0xed], 0x4a, 0x167, true), (0x47, [0xed], 0x4b, 0x167, false),
            (0x40, [0xec], -1, 0x70, true), (0x40, [0xec], -1, 0x71, false), (0x40, [0xec], -1, 0x66, true),
            (0xffff, [0xed], -1, 0x167, true), (0x7f7, [0xec], -1, 0x167, false), (0x7f8, [0xec], -1, 0x167, true),
        ]
        for c in cases {
            let machine = try machine(long: true)
            try machine.put16(0x68, at: Place.tss + 0x66)
            for n in 0..<UInt64(0x100) { try machine.put([0], at: Place.tss + 0x68 + n) }
            if c.bit >= 0 { try machine.put([1 << UInt8(c.bit & 7)], at: Place.tss + 0x68 + UInt64(c.bit >> 3)) }
            try machine.put(c.code, at: Place.user)
            machine.vcpu.withState { state in
                state.tr.limit = c.limit
                state.gpr[Register.rdx] = c.port
            }
            let context = "port \(c.port), bit \(c.bit), limit \(c.limit)"
            if c.faults {
                #expect(try generalProtection(machine, long: true) == 0, "\(context)")
            } else if case .portRead(let port, _) = machine.run() {
                #expect(UInt64(port) == c.port)
                machine.vcpu.complete(0)
            } else {
                Issue.record("\(context)")
            }
        }
    }

    // A 16-bit TSS has no map (SDM 3A, 7.6).
    @Test func noBitmapInOldTasks() throws {
        let machine = try machine(long: false)
        try machine.put([0xec], at: Place.user)
        try machine.put16(0x8000, at: Place.tss + 2)
        try machine.put16(Machine.Selector.data, at: Place.tss + 4)
        machine.vcpu.withState { state in
            state.tr.attributes = 0x83
            state.tr.limit = 0xffff
        }
        #expect(try generalProtection(machine, long: false) == 0)
    }

    // MARK: Modes

    // SDM 3A, 7.6: stacks of a 16-bit TSS are words.
    @Test func stackOfA16BitTask() throws {
        let machine = try machine(long: false)
        machine.vcpu.withState { $0.tr.attributes = 0x83 }
        try machine.put16(0x8000, at: Place.tss + 2)
        try machine.put16(Machine.Selector.data, at: Place.tss + 4)
        try machine.put([0xcd, 0x40], at: Place.user)
        #expect(machine.runToHandler(0x40) == 0x8000 - 20)
    }

    // SDM 2B, "SYSCALL": Intel's only in 64-bit mode; AMD's in all of protected mode.
    @Test(arguments: [true, false]) func systemCallsOutside64BitMode(isIntel: Bool) throws {
        let machine = try Machine(features: .forThisHost.followingRules(ofIntel: isIntel))
        try machine.enterLongMode()
        machine.enterUser(long: false)
        try machine.put([0x0f, 0x05], at: Place.user)
        try machine.put([0xf4], at: Place.code + 0x100)
        machine.vcpu.withState { state in
            state.star = 0x001b_0008 << 32
            state.cstar = Place.code + 0x100
        }
        if isIntel {
            _ = machine.runToHandler(Vector.invalidOpcode)
        } else {
            #expect(machine.runToHalt() == Place.code + 0x101)
        }
    }

    // SDM 2A, "IRET": IRETD in compatibility mode pops SS:ESP only for an outer privilege.
    @Test func returnsInCompatibilityMode() throws {
        let machine = try Machine()
        try machine.enterLongMode()
        try machine.setDescriptor(Machine.Selector.free, 0x00cf_9b00_0000_ffff)
        try machine.put([0xcf], at: Place.code)
        try machine.put([0xcb], at: Place.code + 0x100)  // retf, to 64-bit code
        try machine.put([0x48, 0xff, 0xc0, 0xf4], at: Place.code + 0x200)  // inc rax; hlt
        let image: [UInt32] = [
            UInt32(Place.code) + 0x100, UInt32(Machine.Selector.free), 2, UInt32(Place.code) + 0x200,
            UInt32(Machine.Selector.code),
        ]
        for (n, value) in image.enumerated() { try machine.put32(value, at: Place.stack - 20 + UInt64(n) * 4) }
        machine.vcpu.withState { state in
            state.segments[SegmentName.cs] = Machine.flat(Machine.Selector.free, 0xc09b)
            state.gpr[Register.rsp] = Place.stack - 20
            state.gpr[Register.rax] = 0xffff_ffff
        }
        #expect(machine.runToHalt() == Place.code + 0x204)
        #expect(machine.vcpu.withState { $0.gpr[Register.rax] } == 1 << 32)
        #expect(machine.vcpu.withState { $0.gpr[Register.rsp] } == Place.stack)
    }

    // SDM 3A, 6.14.4: IRETQ in 64-bit mode always pops SS:RSP, null for the kernel.
    @Test func sameLevelReturnWithNullStack() throws {
        let machine = try Machine()
        try machine.enterLongMode()
        for (n, value) in [Place.code + 0x100, UInt64(Machine.Selector.code), 2, Place.stack - 0x80, 0].enumerated() {
            try machine.put64(value, at: Place.stack - 40 + UInt64(n) * 8)
        }
        try machine.put([0x48, 0xcf], at: Place.code)
        try machine.put([0xf4], at: Place.code + 0x100)
        machine.vcpu.withState { $0.gpr[Register.rsp] = Place.stack - 40 }
        #expect(machine.runToHalt() == Place.code + 0x101)
        #expect(machine.vcpu.withState { $0.gpr[Register.rsp] } == Place.stack - 0x80)
        #expect(machine.vcpu.withState { $0.segments[SegmentName.ss].selector } == 0)
    }
}
