import EngineTesting
import Testing
import VirtualCPU
import X86

/// An entry of the page tables changes, then comes something that ends what
/// the CPU may have kept of it: what counts from then on, for each kind of
/// access, is the new entry alone.
@Suite(.everyEngine) struct FlushTests {
    typealias Place = Machine.Place
    static let one: UInt64 = 0x60000, two: UInt64 = 0x61000
    static let setup = PagingSetup.all[0]
    static let page = setup.linear & ~0xfff

    enum Access: CaseIterable, Sendable { case read, write, fetch }

    /// What the entry becomes.
    enum Change: CaseIterable { case anotherPage, absent, readOnly, noExecute, supervisor }

    /// The machine, the program entered, hot, in user or kernel mode.
    ///
    ///     program   3 accesses; int 0x41; access; int 0x40
    ///     0x41      mov [rsi], rdi; the flush; iretq
    private func prepare(
        _ flush: Flush, _ access: Access, user: Bool, global: Bool, _ change: Change
    ) throws -> (machine: Machine, last: UInt64) {
        let machine = try Machine()
        try machine.enterPaging(Self.setup)
        for (frame, value) in [(Self.one, UInt8(1)), (Self.two, 2)] {
            try machine.put([0xb8, value, 0, 0, 0, 0xc3], at: frame)  // mov eax, value; ret
        }
        let flags: UInt64 = (user ? 7 : 3) | (global ? PageEntry.global : 0)
        let leaf = Self.setup.slots[3]
        try machine.put64(Self.one | flags, at: leaf)
        let changed: UInt64 =
            switch change {
            case .anotherPage: Self.two | flags
            case .absent: Self.one | flags & ~1
            case .readOnly: Self.one | flags & ~2
            case .noExecute: Self.one | flags | PageEntry.noExecute
            case .supervisor: Self.one | flags & ~4
            }

        var program = Program(at: user ? Place.user : Place.code)
        func act() {
            switch access {
            case .read: program.load(.rax, Memory(.rbx, 1), size: 4)
            case .write: program.store(.rcx, Memory(.rbx, 0x100), size: 4)
            case .fetch: program.call(.rbx)
            }
        }
        for _ in 0..<3 { act() }
        program.int(0x41)
        let last = program.here
        act()
        program.int(0x40)
        try machine.put(program)

        var handler = Program(at: Place.code + 0x800)
        handler.store(.rdi, Memory(.rsi))
        flush.emit(&handler)
        handler.raw(0x48, 0xcf)
        try machine.put(handler)
        try machine.setLongGate(0x41, to: handler.origin)

        let descriptor = Place.data + 0x100
        let context: UInt64 = flush.needsPCID ? 5 : 0
        try machine.put64(context, at: descriptor)
        try machine.put64(Self.page, at: descriptor + 8)
        if user { machine.enterUser(long: true) }
        machine.vcpu.withState { state in
            state.cr4 |= CR4.globalPages | (flush.needsPCID ? CR4.pcid : 0)
            state.cr3 |= context
            state.gpr[Register.rbx] = Self.page
            state.gpr[Register.rcx] = 0x5a
            state.gpr[Register.rsi] = leaf
            state.gpr[Register.rdi] = changed
            state.gpr[9] = state.cr3
            state.gpr[10] = state.cr4
            state.gpr[11] = descriptor
        }
        return (machine, last)
    }

    /// The error code that the changed entry must give; nil if the access is allowed.
    private func expected(_ access: Access, user: Bool, _ change: Change) -> UInt64? {
        let rights: UInt64 = (access == .write ? 2 : access == .fetch ? 0x10 : 0) | (user ? 4 : 0)
        return switch change {
        case .anotherPage: nil
        case .absent: rights
        case .readOnly: access == .write ? rights | 1 : nil
        case .noExecute: access == .fetch ? rights | 1 : nil
        case .supervisor: user ? rights | 1 : nil
        }
    }

    @Test(arguments: Flush.allCases, [false, true])
    func newEntryCounts(_ flush: Flush, user: Bool) throws {
        for access in Access.allCases {
            for change in Change.allCases {
                for global in [false, true] where !global || flush.endsGlobal {
                    let (machine, last) = try prepare(flush, access, user: user, global: global, change)
                    let context = "\(access), \(change), global \(global)"
                    let rip = machine.runToHalt()
                    let frame = machine[.rsp]
                    if let code = expected(access, user: user, change) {
                        #expect(rip == Place.handler(Vector.pageFault) + 1, "\(context)")
                        guard rip == Place.handler(Vector.pageFault) + 1 else { continue }
                        #expect(try machine.get64(frame) == code, "\(context)")
                        let address = Self.page + (access == .read ? 1 : access == .write ? 0x100 : 0)
                        #expect(machine.vcpu.withState { $0.cr2 } == address, "\(context)")
                        #expect(try machine.get64(frame + 8) == (access == .fetch ? Self.page : last), "\(context)")
                        continue
                    }
                    #expect(rip == Place.handler(0x40) + 1, "\(context)")
                    let isOther = change == .anotherPage
                    switch access {
                    case .read, .fetch: #expect(machine[.rax] == (isOther ? 2 : 1), "\(context)")
                    case .write: #expect(try machine.get32(Self.two + 0x100) == (isOther ? 0x5a : 0), "\(context)")
                    }
                    // The new entry has the bits of the one access behind the change, and no others.
                    let bits = PageEntry.accessed | (access == .write ? PageEntry.dirty : 0)
                    #expect(try machine.get64(Self.setup.slots[3]) & 0x60 == bits, "\(context)")
                }
            }
        }
    }

    // A global page may outlive a flush that spares it: old or new, nothing else.
    @Test(arguments: Flush.allCases.filter { !$0.endsGlobal })
    func globalPageMayStay(_ flush: Flush) throws {
        for access in [Access.read, .fetch] {
            let (machine, _) = try prepare(flush, access, user: false, global: true, .anotherPage)
            #expect(machine.runToHalt() == Place.handler(0x40) + 1)
            #expect([1, 2].contains(machine[.rax]), "\(access)")
        }
    }

    // The code that is being run takes its own page away: the instruction behind the flush is not there. Nor need
    // the flush itself be: a CPU may forget a translation at any time (SDM 3A, 4.10.2.3).
    @Test(arguments: Flush.allCases) func runningPageIsTakenAway(_ flush: Flush) throws {
        let machine = try Machine()
        try machine.enterPaging(Self.setup)
        try machine.put64(Self.one | 3, at: Self.setup.slots[3])
        var program = Program(at: Self.page)
        program.store(.rdi, Memory(.rsi))
        let taken = program.here
        flush.emit(&program)
        let next = program.here
        program.increment(.rdx)
        program.int(0x40)
        try machine.put(program.bytes, at: Self.one)
        let descriptor = Place.data + 0x100
        try machine.put64(flush.needsPCID ? 5 : 0, at: descriptor)
        try machine.put64(Self.page, at: descriptor + 8)
        machine.vcpu.withState { state in
            state.cr4 |= CR4.globalPages | (flush.needsPCID ? CR4.pcid : 0)
            state.cr3 |= flush.needsPCID ? 5 : 0
            state.rip = Self.page
            state.gpr[Register.rbx] = Self.page
            state.gpr[Register.rsi] = Self.setup.slots[3]
            state.gpr[Register.rdi] = 0
            state.gpr[Register.rdx] = 0
            state.gpr[9] = state.cr3
            state.gpr[10] = state.cr4
            state.gpr[11] = descriptor
        }
        let frame = machine.runToHandler(Vector.pageFault)
        let fault = try machine.get64(frame + 8)
        #expect((taken...next).contains(fault))
        #expect(machine[.rdx] == 0)
        #expect(machine.vcpu.withState { $0.cr2 } == fault)
        #expect(try machine.get64(frame) == 0x10)
    }
}
