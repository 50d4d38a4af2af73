import EngineTesting
import Testing
import VirtualCPU
import X86

/// Bits of registers that change what an entry allows, from the next access on
/// and without a flush (SDM 3A, 4.6 and 4.10.4.1): the accesses before have
/// made the page known already.
@Suite(.everyEngine) struct LiveRightsTests {
    typealias Place = Machine.Place
    static let setup = PagingSetup.all[0]

    struct Case: Sendable {
        let name: String
        /// P, R/W, U/S, NX of the page.
        let entry: UInt64
        var cr4: UInt64 = 0
        var before: [UInt8] = []
        let access: [UInt8]
        let change: [UInt8]
        /// Whether the access is refused before the change, and after it.
        let faults: (before: UInt64?, after: UInt64?)
    }

    // R10: CR4; R12: CR0; RBX: the page.
    static let read: [UInt8] = [0x8a, 0x03], write: [UInt8] = [0x88, 0x03], call: [UInt8] = [0xff, 0xd3]
    static let stac: [UInt8] = [0x0f, 0x01, 0xcb], clac: [UInt8] = [0x0f, 0x01, 0xca]
    static let toggleWP: [UInt8] = [0x4c, 0x89, 0xe0, 0x48, 0x35, 0, 0, 1, 0, 0x0f, 0x22, 0xc0]
    static let setSMAP: [UInt8] = [0x4c, 0x89, 0xd0, 0x48, 0x0d, 0, 0, 0x20, 0, 0x0f, 0x22, 0xe0]
    static let setSMEP: [UInt8] = [0x4c, 0x89, 0xd0, 0x48, 0x0d, 0, 0, 0x10, 0, 0x0f, 0x22, 0xe0]
    static let popAC: [UInt8] = [0x9c, 0x81, 0x34, 0x24, 0, 0, 4, 0, 0x9d]  // pushfq; xor dword [rsp], AC; popfq

    static let cases: [Case] = [
        Case(name: "WP cleared", entry: 1, access: write, change: toggleWP, faults: (3, nil)),
        Case(
            name: "WP set", entry: 1, before: toggleWP, access: write, change: [0x41, 0x0f, 0x22, 0xc4],
            faults: (nil, 3)),
        Case(name: "CLAC, read", entry: 7, cr4: CR4.smap, before: stac, access: read, change: clac, faults: (nil, 1)),
        Case(name: "CLAC, write", entry: 7, cr4: CR4.smap, before: stac, access: write, change: clac, faults: (nil, 3)),
        Case(name: "STAC, read", entry: 7, cr4: CR4.smap, access: read, change: stac, faults: (1, nil)),
        Case(name: "STAC, write", entry: 7, cr4: CR4.smap, access: write, change: stac, faults: (3, nil)),
        Case(name: "AC by POPF", entry: 7, cr4: CR4.smap, before: popAC, access: read, change: popAC, faults: (nil, 1)),
        Case(name: "SMAP set, read", entry: 7, access: read, change: setSMAP, faults: (nil, 1)),
        Case(name: "SMAP set, write", entry: 7, access: write, change: setSMAP, faults: (nil, 3)),
        Case(name: "SMEP set", entry: 7, access: call, change: setSMEP, faults: (nil, 0x11)),
    ]

    @Test(arguments: cases.indices) func countsAtOnce(_ index: Int) throws {
        let test = Self.cases[index]
        let machine = try Machine()
        try machine.enterPaging(Self.setup)
        let page = Self.setup.linear & ~0xfff
        try machine.put64(0x60000 | test.entry, at: Self.setup.slots[3])
        try machine.put([0xc3], at: 0x60000)
        var program = Program(at: Place.code)
        program.raw(test.before)
        let first = program.here
        for _ in 0..<3 { program.raw(test.access) }
        program.label("change")
        program.raw(test.change)
        let second = program.here
        program.raw(test.access)
        program.int(0x40)
        try machine.put(program)
        machine.vcpu.withState { state in
            state.cr4 |= test.cr4
            state.gpr[Register.rbx] = page
            state.gpr[Register.rax] = 0xc3
            state.gpr[10] = state.cr4
            state.gpr[12] = state.cr0
        }
        if let code = test.faults.before {
            let frame = machine.runToHandler(Vector.pageFault)
            #expect(try machine.get64(frame) == code, "\(test.name)")
            #expect(try machine.get64(frame + 8) == first, "\(test.name)")
            // The handler has lost AC, WP is as it was: past the refused accesses.
            machine.enterKernel(long: true)
            machine.vcpu.withState { $0.rip = program.address("change") }
        }
        if let code = test.faults.after {
            let frame = machine.runToHandler(Vector.pageFault)
            #expect(try machine.get64(frame) == code, "\(test.name)")
            // The fetch, not the call, is what SMEP refuses.
            #expect(try machine.get64(frame + 8) == (test.access == Self.call ? page : second), "\(test.name)")
        } else {
            #expect(machine.runToHalt() == Place.handler(0x40) + 1, "\(test.name)")
        }
    }

    /// How a page may be written to for the first time, RBX at its middle, and RSP too.
    static let writes: [[UInt8]] = [
        [0x88, 0x03], [0x48, 0x01, 0x03], [0xf0, 0x48, 0x01, 0x03], [0x50], [0x68, 0, 0, 0, 0], [0xff, 0x33],
        [0x48, 0x87, 0x03], [0xf0, 0x48, 0x0f, 0xb1, 0x0b], [0x0f, 0x11, 0x03], [0xc5, 0xfc, 0x11, 0x03],
        [0xf3, 0xaa], [0xf3, 0xa4], [0xdd, 0x1b], [0xe8, 0, 0, 0, 0], [0x0f, 0xba, 0x2b, 0x01], [0x8f, 0x03],
        [0x0f, 0x94, 0x03], [0xd1, 0x23], [0xc8, 8, 0, 0],
    ]

    // A page that is known by its reads is marked dirty by its first write, whatever that is.
    @Test(arguments: writes) func firstWriteOfAnyKindSetsDirty(_ write: [UInt8]) throws {
        let machine = try Machine()
        try machine.enterPaging(Self.setup)
        let page = Self.setup.linear & ~0xfff
        try machine.put64(0x60000 | 3, at: Self.setup.slots[3])
        try machine.put64(0x61000 | 3, at: Self.setup.slots[3] + 8)
        var program = Program(at: Place.code)
        program.raw(Self.read + Self.read + [0xf4] + write + [0xf4])
        try machine.put(program)
        machine.vcpu.withState { state in
            state.cr4 |= CR4.osFXSR | CR4.osXSave
            state.xcr0 = 7
            for register in [Register.rbx, Register.rsp, Register.rdi, Register.rbp] {
                state.gpr[register] = page + 0x800
            }
            state.gpr[Register.rsi] = page + 0x900
            state.gpr[Register.rcx] = 4
        }
        _ = machine.runToHalt()
        #expect(try machine.get64(Self.setup.slots[3]) & 0x60 == PageEntry.accessed)
        _ = machine.runToHalt()
        #expect(try machine.get64(Self.setup.slots[3]) & 0x60 == PageEntry.accessed | PageEntry.dirty)
        // Its neighbour has not been touched.
        #expect(try machine.get64(Self.setup.slots[3] + 8) & 0x60 == 0)
    }
}
