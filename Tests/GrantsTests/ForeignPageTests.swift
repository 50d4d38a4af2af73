import EngineTesting
import Grants
import GuestMemory
import HostInterface
import Platform
import Testing
import VirtualCPU
import X86

/// Pages of others under a Guest's own page tables, as its instructions find them.
@Suite(.everyEngine) struct ForeignPageTests {
    typealias Place = Machine.Place

    /// Where the page is: to the code, and in the machine's memory. The page before it and the one behind are RAM.
    static let linear: UInt64 = 0x140000, physical: UInt64 = 0x400000
    static let window = physical..<physical + 0x10000
    private static let page = physical >> 12

    let machine: Machine
    let owner: GuestMemory

    init() throws {
        machine = try Machine(foreignWindows: [Self.window])
        owner = try GuestMemory(byteCount: 1 << 20)
        try machine.enterLongMode()
        try machine.put64(Self.physical | 7, at: 0x4000 + Self.linear >> 12 * 8)
        // Some of the accesses are made by way of the stack, where there is no room for a frame then.
        try machine.setLongGate(Vector.generalProtection, ist: 1)
        machine.vcpu.withState { state in
            state.cr4 |= CR4.osFXSR | CR4.osXMMExceptions | CR4.osXSave
            state.xcr0 = 7
        }
        for number in UInt64(4)..<8 {
            try owner.write(repeatElement(UInt8(0x10 + number), count: 4096), at: GuestPhysicalAddress(number << 12))
        }
        for address in [Self.linear - 4096, Self.linear + 4096] {
            try machine.put([UInt8](repeating: 0x77, count: 4096), at: address)
        }
    }

    private func source(_ number: UInt64) throws -> PageSource { try #require(owner.source(ofPage: number)) }

    private func put(_ number: UInt64, readOnly: Bool) throws {
        if machine.memory.isForeign(page: Self.page) {
            try machine.memory.removeForeign(pages: Self.page..<Self.page + 1)
        }
        try machine.memory.putForeign(try source(number), at: Self.page, isReadOnly: readOnly)
    }

    private func setRegisters(at address: UInt64, stack: UInt64? = nil) {
        machine.vcpu.withState { state in
            for register in [Register.rbx, Register.rdi, Register.rbp] { state.gpr[register] = address }
            state.gpr[Register.rsp] = stack ?? address
            state.gpr[Register.rsi] = Place.data
            state.gpr[Register.rcx] = 4
            state.gpr[Register.rax] = 0x5555_5555_5555_5555
            state.rip = Place.code
        }
    }

    /// Nothing has changed: not for the owner, not for who has the page, and not beside it.
    private func expectUntouched(_ what: String, _ location: SourceLocation = #_sourceLocation) throws {
        let pages = [
            try owner.read(GuestPhysicalAddress(5 << 12), count: 4096),
            try machine.memory.read(GuestPhysicalAddress(Self.physical), count: 4096),
        ]
        #expect(pages.allSatisfy { $0.allSatisfy { $0 == 0x15 } }, "\(what)", sourceLocation: location)
        for address in [Self.linear - 4096, Self.linear + 4096] {
            let page = try machine.memory.read(GuestPhysicalAddress(address), count: 4096)
            #expect(page.allSatisfy { $0 == 0x77 }, "\(what), beside it", sourceLocation: location)
        }
    }

    /// Writes at RBX, RDI, RBP, RSP.
    struct Write: Sendable, CustomTestStringConvertible {
        let name: String
        let bytes: [UInt8]
        /// How many bytes it writes; of one that may lie across two pages.
        var crossing = 0
        var isPush = false
        var testDescription: String { name }
    }

    static let writes = [
        Write(name: "mov byte", bytes: [0x88, 0x03]),
        Write(name: "mov word", bytes: [0x66, 0x89, 0x03], crossing: 2),
        Write(name: "mov dword", bytes: [0x89, 0x03], crossing: 4),
        Write(name: "mov qword", bytes: [0x48, 0x89, 0x03], crossing: 8),
        Write(name: "mov immediate", bytes: [0xc7, 0x03, 1, 2, 3, 4], crossing: 4),
        Write(name: "movups", bytes: [0x0f, 0x11, 0x03], crossing: 16),
        Write(name: "movaps", bytes: [0x0f, 0x29, 0x03]),
        Write(name: "movntdq", bytes: [0x66, 0x0f, 0xe7, 0x03]),
        Write(name: "movnti", bytes: [0x48, 0x0f, 0xc3, 0x03], crossing: 8),
        Write(name: "movq xmm", bytes: [0x66, 0x0f, 0xd6, 0x03], crossing: 8),
        Write(name: "vmovups ymm", bytes: [0xc5, 0xfc, 0x11, 0x03], crossing: 32),
        Write(name: "push", bytes: [0x50], crossing: 8, isPush: true),
        Write(name: "push immediate", bytes: [0x68, 0, 0, 0, 0], crossing: 8, isPush: true),
        Write(name: "push memory", bytes: [0xff, 0x36], crossing: 8, isPush: true),
        Write(name: "pushfq", bytes: [0x9c], crossing: 8, isPush: true),
        Write(name: "call", bytes: [0xe8, 0, 0, 0, 0], crossing: 8, isPush: true),
        Write(name: "enter", bytes: [0xc8, 8, 0, 0], crossing: 8, isPush: true),
        Write(name: "xchg", bytes: [0x48, 0x87, 0x03], crossing: 8),
        Write(name: "add", bytes: [0x48, 0x01, 0x03], crossing: 8),
        Write(name: "lock add", bytes: [0xf0, 0x48, 0x01, 0x03], crossing: 8),
        Write(name: "lock inc byte", bytes: [0xf0, 0xfe, 0x03]),
        Write(name: "lock cmpxchg", bytes: [0xf0, 0x48, 0x0f, 0xb1, 0x0b], crossing: 8),
        Write(name: "lock cmpxchg16b", bytes: [0xf0, 0x48, 0x0f, 0xc7, 0x0b]),
        Write(name: "lock xadd", bytes: [0xf0, 0x48, 0x0f, 0xc1, 0x03], crossing: 8),
        Write(name: "bts", bytes: [0x0f, 0xba, 0x2b, 0x01], crossing: 4),
        Write(name: "setz", bytes: [0x0f, 0x94, 0x03]),
        Write(name: "shl", bytes: [0xd1, 0x23], crossing: 4),
        Write(name: "rep stosb", bytes: [0xf3, 0xaa]),
        Write(name: "rep stosq", bytes: [0xf3, 0x48, 0xab]),
        Write(name: "rep movsb", bytes: [0xf3, 0xa4]),
        Write(name: "rep movsq", bytes: [0xf3, 0x48, 0xa5]),
        Write(name: "stosd", bytes: [0xab]),
        Write(name: "fstp", bytes: [0xdd, 0x1b], crossing: 8),
        Write(name: "fxsave", bytes: [0x0f, 0xae, 0x03]),
        Write(name: "stmxcsr", bytes: [0x0f, 0xae, 0x1b], crossing: 4),
        Write(name: "sgdt", bytes: [0x0f, 0x01, 0x03]),
    ]

    private func expectRefused(_ write: Write, at address: UInt64, _ what: String) throws {
        try put(5, readOnly: true)
        // Twice, so that the page is known by its reads.
        let reads: [UInt8] = [0x8a, 0x04, 0x25] + (0..<4).map { UInt8(truncatingIfNeeded: Self.linear >> ($0 * 8)) }
        var program = Program(at: Place.code)
        program.raw(reads + reads + [0x48, 0xb8] + [UInt8](repeating: 0x55, count: 8))
        let start = program.here
        program.raw(write.bytes)
        program.halt()
        try machine.put(program)
        setRegisters(at: address)
        let frame = machine.runToHandler(Vector.generalProtection)
        #expect(try machine.get64(frame) == 0, "\(write.name), \(what)")
        #expect(try machine.get64(frame + 8) == start, "\(write.name), \(what)")
        #expect(machine[.rcx] == 4 && machine[.rdi] == address, "\(write.name), \(what)")
        try expectUntouched("\(write.name), \(what)")
        machine.enterKernel(long: true)
    }

    @Test(arguments: writes) func nothingIsWrittenToAPageForReading(_ write: Write) throws {
        try expectRefused(write, at: Self.linear + 0x800, "inside")
        // Not the kernel's right to write where its own entries forbid it, either.
        machine.vcpu.withState { $0.cr0 &= ~CR0.writeProtect }
        try expectRefused(write, at: Self.linear + 0x800, "WP clear")
    }

    @Test(arguments: writes.filter { $0.crossing > 0 }) func norAcrossItsBorders(_ write: Write) throws {
        for inside in [1, write.crossing - 1] {
            // The bytes of a push are below the address.
            let offset = write.isPush ? UInt64(write.crossing) : 0
            let below = Self.linear - UInt64(write.crossing - inside) + offset
            try expectRefused(write, at: below, "\(inside) bytes in it, from below")
            let above = Self.linear + 4096 - UInt64(inside) + offset
            try expectRefused(write, at: above, "\(inside) bytes in it, to above")
        }
    }

    // The CPU's own writes: an interrupt's frame, and the accessed and dirty bits of tables.
    @Test func noFrameIsPushedIntoAPageForReading() throws {
        try put(5, readOnly: true)
        var program = Program(at: Place.code)
        program.int(0x40)
        program.halt()
        try machine.put(program)
        setRegisters(at: Self.linear + 0x800)
        let frame = machine.runToHandler(Vector.generalProtection)
        #expect(try machine.get64(frame + 8) == Place.code)
        try expectUntouched("a frame")
    }

    @Test func tablesInAPageForReadingStayAsTheyAreToTheirOwner() throws {
        var table = [UInt8](repeating: 0, count: 4096)
        table.replaceSubrange(0..<3, with: [0x03, 0x00, 0x03])
        try owner.write(table, at: GuestPhysicalAddress(7 << 12))
        try put(7, readOnly: true)
        // 2 MiB and up by the table, whose first entry is for Place.data, not accessed yet.
        try machine.put64(Self.physical | 7, at: 0x3008)
        var program = Program(at: Place.code)
        program.move(.rbx, 0x200000)
        program.raw(0x8a, 0x03, 0x88, 0x03)  // mov al, [rbx]; mov [rbx], al
        program.halt()
        try machine.put(program)
        setRegisters(at: 0, stack: Place.stack)
        _ = machine.runToHalt()
        #expect(try owner.read(GuestPhysicalAddress(7 << 12), count: 4096) == table)
    }

    @Test func loadsOfEverySizeWork() throws {
        try put(5, readOnly: true)
        var program = Program(at: Place.code)
        program.raw(0x48, 0x31, 0xc0, 0x8a, 0x03)  // xor rax, rax; mov al, [rbx]
        program.raw(0x66, 0x03, 0x43, 0x10, 0x03, 0x43, 0x20, 0x48, 0x03, 0x43, 0x30)  // add ax, eax, rax
        program.raw(0x0f, 0x10, 0x03, 0xc5, 0xfc, 0x10, 0x0b)  // movups xmm0, [rbx]; vmovups ymm1, [rbx]
        program.raw(0x66, 0x48, 0x0f, 0x7e, 0xc2)  // movq rdx, xmm0
        program.raw(0x5d)  // pop rbp
        program.halt()
        try machine.put(program)
        setRegisters(at: Self.linear + 0x800)
        _ = machine.runToHalt()
        #expect(machine[.rax] == 0x1515_1515_1515_1515 + 0x1515_1515 + 0x1515 + 0x15)
        #expect(machine[.rdx] == 0x1515_1515_1515_1515)
        #expect(machine[.rbp] == 0x1515_1515_1515_1515)
        try expectUntouched("loads")
    }

    @Test(arguments: writes) func aPageForWritingIsWrittenTo(_ write: Write) throws {
        try put(5, readOnly: false)
        var program = Program(at: Place.code)
        program.raw(write.bytes)
        program.halt()
        try machine.put(program)
        setRegisters(at: Self.linear + 0x800)
        machine.vcpu.withState { $0.gpr[Register.rax] = 0x5555_5555_5555_5555 }
        _ = machine.runToHalt()
        let page = try machine.memory.read(GuestPhysicalAddress(Self.physical), count: 4096)
        #expect(try owner.read(GuestPhysicalAddress(5 << 12), count: 4096) == page)
        // These two find something else there than they compare with.
        #expect(page.contains { $0 != 0x15 } || write.name.contains("cmpxchg"))
    }

    // MARK: Another page at the same address

    /// What is done in the midst of the Guest's run.
    private final class Handler: HypercallHandler {
        let body: () -> Void
        init(_ body: @escaping () -> Void) { self.body = body }
        func perform() -> Bool {
            body()
            return true
        }
    }

    private static let vmcall: [UInt8] = [0x0f, 0x01, 0xc1]

    /// Runs `access`, puts page 6 where page 5 was, and runs it again; RAX after each.
    private func change(_ access: [UInt8], _ readOnly: (Bool, Bool)) throws -> [UInt64] {
        try put(5, readOnly: readOnly.0)
        let vcpu = machine.vcpu
        let handler = Handler { [self] in
            try? put(6, readOnly: readOnly.1)
            if readOnly.1 { vcpu.flushTranslations() }
            vcpu.answerHypercall(0)
        }
        vcpu.handleHypercalls(by: handler)
        var program = Program(at: Place.code)
        for _ in 0..<3 { program.raw(access) }
        program.raw(0x49, 0x89, 0xc4)  // mov r12, rax
        program.raw(Self.vmcall + access)
        program.halt()
        try machine.put(program)
        setRegisters(at: Self.linear + 0x800, stack: Place.stack)
        return withExtendedLifetime(handler) {
            _ = machine.runToHalt()
            return [machine[.r12], machine[.rax]]
        }
    }

    @Test(arguments: [false, true], [false, true]) func loadsSeeTheNewPage(_ first: Bool, _ second: Bool) throws {
        #expect(try change([0x48, 0x8b, 0x03], (first, second)) == [0x1515_1515_1515_1515, 0x1616_1616_1616_1616])
    }

    @Test(arguments: [false, true], [false, true]) func theNewPagesCodeRuns(_ first: Bool, _ second: Bool) throws {
        for number in UInt64(5)...6 {
            // mov eax, number; ret
            try owner.write(
                [0xb8, UInt8(number), 0, 0, 0, 0xc3] as [UInt8], at: GuestPhysicalAddress(number << 12 + 0x800))
        }
        #expect(try change([0xff, 0xd3], (first, second)) == [5, 6])
    }

    @Test func codeThatItsOwnerWritesAnewIsRun() throws {
        try owner.write([0xb8, 5, 0, 0, 0, 0xc3] as [UInt8], at: GuestPhysicalAddress(5 << 12 + 0x800))
        #expect(try change([0xff, 0xd3], (true, true))[0] == 5)
    }

    // A mapper that runs what its neighbour writes has asked for it; but it never sees the page after it is gone.
    @Test func aPageThatIsGoneIsNotSeen() throws {
        for isFlushed in [false, true] {
            try put(5, readOnly: false)
            let vcpu = machine.vcpu
            let handler = Handler { [self] in
                try? machine.memory.removeForeign(pages: Self.page..<Self.page + 1)
                if isFlushed { vcpu.flushTranslations() }
                vcpu.answerHypercall(0)
            }
            vcpu.handleHypercalls(by: handler)
            var program = Program(at: Place.code)
            program.raw(0x48, 0x8b, 0x03, 0x48, 0x89, 0x03)
            program.raw(Self.vmcall)
            program.raw(0x48, 0x89, 0x03, 0x48, 0x8b, 0x03)
            program.halt()
            try machine.put(program)
            setRegisters(at: Self.linear + 0x800, stack: Place.stack)
            withExtendedLifetime(handler) {
                var exits: [String] = []
                loop: while true {
                    switch machine.run() {
                    case .mmioWrite(let address, 8, _), .mmioRead(let address, 8):
                        #expect(address == GuestPhysicalAddress(Self.physical + 0x800))
                        exits.append("device")
                        vcpu.complete(0xdd)
                    case .halt: break loop
                    case let exit:
                        Issue.record("\(exit)")
                        break loop
                    }
                }
                // Flushed, it is no memory at all; else zeros that are this Guest's own.
                if isFlushed { #expect(exits.count == 2) }
            }
            #expect(try owner.load(at: GuestPhysicalAddress(5 << 12 + 0x800), as: UInt64.self) == 0x1515_1515_1515_1515)
        }
    }
}

/// A Guest's own hypercalls, as its code makes them.
@Suite(.everyEngine) struct HypercallCodeTests {
    typealias Place = Machine.Place
    private static let arguments: UInt64 = 0x31000, sharedInfo: UInt64 = 0x50000, hypercallPage: UInt64 = 0x60000

    let house = DomainHouse()
    let machine: Machine
    let domain: Domain
    let pc: XenPC
    let owner: XenGuest

    init() throws {
        machine = try Machine(foreignWindows: [ForeignPageTests.window])
        domain = try house.open(name: "code", memory: machine.memory)
        let apic = LocalAPIC(
            identifier: 0, requests: machine.requests, bus: APICBus(), clock: HostMachineClock(),
            alarms: try AlarmClock(HostMachineClock()), acknowledgeExternal: { 0xff })
        pc = XenPC(domain, of: house, vcpu: machine.vcpu, localAPIC: apic)
        house.begin(domain)
        owner = try XenGuest(in: house, name: "owner")
        try machine.enterLongMode()
        try machine.setLongGate(Vector.generalProtection, ist: 1)
    }

    private func close() {
        owner.close()
        house.close(domain)
    }

    /// Runs to a HLT, as a PC's run does.
    private func run() -> UInt64 {
        while true {
            switch machine.run() {
            case .hypercall: #expect(pc.perform(on: machine.vcpu) == nil)
            case .writeMSR(let index, let value):
                if pc.writeMSR(index, value) == true { machine.vcpu.complete(0) } else { machine.vcpu.refuse() }
            case .halt: return machine.vcpu.readState { $0.rip }
            case let exit:
                Issue.record("\(exit)")
                return 0
            }
        }
    }

    private func call(
        _ program: inout Program, _ number: UInt64, _ operation: UInt32, _ address: UInt64, _ count: UInt64 = 0
    ) {
        program.move(.rdi, UInt64(operation))
        program.move(.rsi, address)
        program.move(.rdx, count)
        program.move(.rax, Self.hypercallPage + number * 32)
        program.call(.rax)
    }

    private func start(_ program: inout Program) {
        program.move(.rcx, UInt64(XenInterface.hypercallMSR))
        program.move(.rax, Self.hypercallPage)
        program.move(.rdx, 0)
        program.raw(0x0f, 0x30)  // wrmsr
    }

    @Test func aGuestMakesHypercallsByItsPageAndWithout() throws {
        defer { close() }
        typealias Add = XenABI.AddToPhysmap
        try machine.put([UInt8](repeating: 0, count: 64), at: Self.arguments)
        try machine.put16(XenABI.DOMID.selfID, at: Self.arguments + UInt64(Add.domid))
        try machine.put64(Self.sharedInfo >> 12, at: Self.arguments + UInt64(Add.gpfn))
        var program = Program(at: Place.code)
        start(&program)
        call(&program, Call.xenVersion, XenABI.XENVER.version, 0)
        program.raw(0x49, 0x89, 0xc4)  // mov r12, rax
        call(&program, Call.memoryOp, XenABI.XENMEM.addToPhysmap, Self.arguments)
        program.raw(0x49, 0x89, 0xc5)  // mov r13, rax
        // A bell of its own, and rung: the struct of bind_ipi is {vcpu, port}.
        call(&program, Call.eventChannelOp, XenABI.EVTCHNOP.bindIPI, Self.arguments + 0x20)
        program.raw(0x49, 0x89, 0xc6)  // mov r14, rax
        call(&program, Call.eventChannelOp, XenABI.EVTCHNOP.send, Self.arguments + 0x24)
        program.raw(0x49, 0x89, 0xc7)  // mov r15, rax
        // Without the page: VMCALL, and AMD's VMMCALL.
        for (opcode, register) in [(0xc1, GPR.r8), (0xd9, .r9)] as [(UInt8, GPR)] {
            program.move(.rdi, 0)
            program.move(.rax, Call.xenVersion)
            program.raw(0x0f, 0x01, opcode)
            program.op(0x89, reg: GPR.rax.rawValue, register)
        }
        // iret's stub is none.
        program.halt()
        try machine.put(program)
        #expect(run() == program.here)
        for register in [GPR.r12, .r8, .r9] { #expect(machine[register] == 4 << 16 | 17, "\(register)") }
        #expect((machine[.r13], machine[.r14], machine[.r15]) == (0, 0, 0))
        #expect(try machine.get32(Self.arguments + 0x24) == 2)
        #expect(try machine.get64(Self.sharedInfo + UInt64(XenABI.SharedInfo.evtchnPending)) == 1 << 2)
        #expect(try machine.get64(Self.sharedInfo) & 0xff == 1)
        #expect(pc.remarks == [])
    }

    @Test func userCodeIsNotHeard() throws {
        defer { close() }
        #expect(pc.writeMSR(XenInterface.hypercallMSR, Self.hypercallPage) == true)
        var program = Program(at: Place.user)
        call(&program, Call.xenVersion, XenABI.XENVER.version, 0)
        program.int(0x40)
        try machine.put(program)
        machine.enterUser(long: true)
        #expect(run() == Place.handler(0x40) + 1)
        #expect(machine[.rax] == UInt64(bitPattern: -1))
    }

    @Test func CPUIDFindsXen() throws {
        defer { close() }
        var program = Program(at: Place.code)
        for (leaf, registers) in [(0x4000_0100, [GPR.r8, .r9, .r10, .r11]), (0x4000_0104, [.r12, .r13, .r14, .r15])]
            as [(UInt64, [GPR])]
        {
            program.move(.rax, leaf)
            program.raw(0x0f, 0xa2)
            for (from, to) in zip([GPR.rax, .rbx, .rcx, .rdx], registers) { program.op(0x89, reg: from.rawValue, to) }
        }
        program.halt()
        try machine.put(program)
        #expect(run() == program.here)
        #expect(
            [machine[.r8], machine[.r9], machine[.r10], machine[.r11]] == [
                0x4000_0104, 0x566e_6558, 0x6558_4d4d, 0x4d4d_566e,
            ])
        #expect(machine[.r14] == UInt64(domain.id))
    }

    // All of it by the Guest's own code: written to, unmapped, mapped for reading only, and written to.
    @Test func aWriteTranslationDoesNotOutliveTheRight() throws {
        defer { close() }
        let page = ForeignPageTests.physical, linear = ForeignPageTests.linear
        try machine.put64(page | 7, at: 0x4000 + linear >> 12 * 8)
        try owner.grant(8, page: 20, to: domain.id)
        try owner.grant(9, page: 21, to: domain.id, readOnly: true)
        try owner.setWord(ofPage: 21, 21)
        typealias Map = GrantABI.MapGrantRef
        for (index, (reference, flags)) in [(8, 2), (9, 6)].enumerated() as EnumeratedSequence<[(UInt32, UInt32)]> {
            let place = Self.arguments + UInt64(index * Map.byteCount)
            try machine.put64(page, at: place + UInt64(Map.hostAddr))
            try machine.put32(flags, at: place + UInt64(Map.flags))
            try machine.put32(reference, at: place + UInt64(Map.ref))
            try machine.put16(owner.id, at: place + UInt64(Map.dom))
        }
        let unmap = Self.arguments + 0x100
        try machine.put([UInt8](repeating: 0, count: 24), at: unmap)
        try machine.put64(page, at: unmap)
        var program = Program(at: Place.code)
        start(&program)
        call(&program, Call.grantTableOp, GrantABI.GNTTABOP.mapGrantRef, Self.arguments, 1)
        program.move(.rbx, linear)
        program.move(.rbp, 0x99)
        for _ in 0..<3 { program.store(.rbp, Memory(.rbx)) }
        call(&program, Call.grantTableOp, GrantABI.GNTTABOP.unmapGrantRef, unmap, 1)
        call(&program, Call.grantTableOp, GrantABI.GNTTABOP.mapGrantRef, Self.arguments + UInt64(Map.byteCount), 1)
        program.load(.r12, Memory(.rbx))
        program.label("last")
        program.store(.rbp, Memory(.rbx))
        program.halt()
        try machine.put(program)
        #expect(run() == Place.handler(Vector.generalProtection) + 1)
        let frame = machine[.rsp]
        #expect(try machine.get64(frame) == 0)
        #expect(try machine.get64(frame + 8) == program.address("last"))
        #expect(machine[.r12] == 21)
        #expect(owner.word(ofPage: 20) == 0x99)
        #expect(owner.word(ofPage: 21) == 21)
        #expect(owner.entry(8).flags == 1)
        #expect(owner.entry(9).flags == 1 | 4 | 8)
    }
}

private typealias Call = XenABI.Hypercall
