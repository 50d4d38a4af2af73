import EngineTesting
import GuestMemory
import Testing
import VirtualCPU
import X86

/// The rules of SDM 3A, 4.6 and 4.7, for every mode and size of page, with one
/// entry of the walk changed at a time.
@Suite(.everyEngine) struct PagingTests {
    typealias Place = Machine.Place

    enum Kind: CaseIterable { case read, write, fetch }

    /// What is different about one entry.
    enum Change: CaseIterable { case none, notPresent, readOnly, supervisor, noExecute, reserved }

    struct Conditions {
        var kind = Kind.read
        var user = false
        var writeProtect = true
        var smep = false
        var smap = false
        var open = false
        var noExecute = true
    }

    /// SDM 3A, 4.6 and 4.7, as a reader of the manual would write it down: the
    /// error code, or nil if the access is allowed.
    private func expected(_ setup: PagingSetup, _ entries: [UInt64], _ c: Conditions) -> UInt32? {
        let hasNX = setup.mode != .bits32 && c.noExecute
        var code: UInt32 = c.user ? PageFaultCode.user : 0
        if c.kind == .write { code |= PageFaultCode.write }
        if c.kind == .fetch && (c.smep || hasNX) { code |= PageFaultCode.fetch }
        var writable = true, userPage = true, executable = true
        for (number, entry) in entries.enumerated() {
            if entry & 1 == 0 { return code }
            let isLarge = number == entries.count - 1 && setup.leafLevel > 1
            var reserved: UInt64 = setup.mode == .bits32 ? (isLarge ? 1 << 21 : 0) : 1 << 51
            if setup.mode != .bits32 && !c.noExecute { reserved |= 1 << 63 }
            if entry & reserved != 0 { return code | PageFaultCode.present | PageFaultCode.reserved }
            if entry & 2 == 0 { writable = false }
            if entry & 4 == 0 { userPage = false }
            if hasNX && entry >> 63 != 0 { executable = false }
        }
        let allowed: Bool
        if c.user {
            switch c.kind {
            case .read: allowed = userPage
            case .write: allowed = userPage && writable
            case .fetch: allowed = userPage && executable
            }
        } else {
            let barred = userPage && c.smap && !c.open
            switch c.kind {
            case .read: allowed = !barred
            case .write: allowed = !barred && (writable || !c.writeProtect)
            case .fetch: allowed = executable && !(userPage && c.smep)
            }
        }
        return allowed ? nil : code | PageFaultCode.present
    }

    private func change(_ entry: UInt64, _ change: Change, _ setup: PagingSetup, leaf: Bool) -> UInt64? {
        switch change {
        case .none: return entry
        case .notPresent: return entry & ~1
        case .readOnly: return entry & ~2
        case .supervisor: return entry & ~4
        case .noExecute: return setup.mode == .bits32 ? nil : entry | 1 << 63
        case .reserved:
            if setup.mode != .bits32 { return entry | 1 << 51 }
            return leaf && setup.leafLevel == 2 ? entry | 1 << 21 : nil
        }
    }

    private func combinations() -> [Conditions] {
        var list: [Conditions] = []
        for kind in Kind.allCases {
            for bits in 0..<64 {
                let c = Conditions(
                    kind: kind, user: bits & 1 != 0, writeProtect: bits & 2 != 0, smep: bits & 4 != 0,
                    smap: bits & 8 != 0, open: bits & 16 != 0, noExecute: bits & 32 != 0)
                // AC matters to SMAP alone.
                if c.open && !c.smap { continue }
                list.append(c)
            }
        }
        return list
    }

    @Test(arguments: PagingSetup.all)
    func rights(_ setup: PagingSetup) throws {
        let machine = try Machine()
        try machine.enterPaging(setup)
        try machine.put([0xcd, 0x40], at: PagingSetup.target)  // int 0x40
        for place in [Place.code, Place.user] {
            try machine.put([0x8a, 0x03, 0xcd, 0x40], at: place)  // mov al, [rbx]; int 0x40
            try machine.put([0x88, 0x03, 0xcd, 0x40], at: place + 16)  // mov [rbx], al
            try machine.put([0xff, 0xe3], at: place + 32)  // jmp rbx
        }
        let (cr0, cr4, efer) = machine.vcpu.withState { ($0.cr0, $0.cr4, $0.efer) }
        let isLong = setup.mode == .level4
        let slots = setup.slots
        var failures = 0
        for c in combinations() {
            for number in slots.indices {
                for difference in Change.allCases where difference != .none || number == 0 {
                    let clean = slots.indices.map { setup.frame($0) | 7 }
                    var entries = clean
                    guard let changed = change(clean[number], difference, setup, leaf: number == slots.count - 1) else {
                        continue
                    }
                    entries[number] = changed
                    for n in slots.indices { try machine.putEntry(entries[n], at: slots[n], setup) }
                    if c.user { machine.enterUser(long: isLong) } else { machine.enterKernel(long: isLong) }
                    machine.vcpu.withState { state in
                        state.cr0 = c.writeProtect ? cr0 : cr0 & ~CR0.writeProtect
                        state.cr4 = cr4 | (c.smep ? CR4.smep : 0) | (c.smap ? CR4.smap : 0)
                        state.efer = c.noExecute ? efer : efer & ~EFER.noExecuteEnable
                        state.rflags = RFlags.alwaysOne | (c.open ? RFlags.alignmentCheck : 0)
                        state.gpr[Register.rbx] = setup.linear
                        // The byte that is written is the one that was there.
                        state.gpr[Register.rax] = 0xcd
                        state.rip &+= c.kind == .read ? 0 : c.kind == .write ? 16 : 32
                        state.cr2 = 0
                    }
                    let want = expected(setup, entries, c)
                    guard case .halt = machine.vcpu.run() else { Issue.record("\(setup) \(c) \(difference)"); return }
                    let (rip, rsp, cr2) = machine.vcpu.withState { ($0.rip, $0.gpr[Register.rsp], $0.cr2) }
                    var got: UInt32?
                    if rip == Place.handler(Vector.pageFault) + 1 {
                        got = try machine.get32(rsp)
                    } else if rip != Place.handler(0x40) + 1 {
                        Issue.record("\(setup) \(c) \(difference) at \(number): RIP \(String(rip, radix: 16))")
                        failures += 1
                    }
                    let context = "\(setup) \(c) \(difference) at \(number)"
                    if got != want {
                        Issue.record(
                            "error code \(String(describing: got)), not \(String(describing: want)): \(context)")
                        failures += 1
                    }
                    if want != nil && cr2 != setup.linear { Issue.record("CR2 \(cr2): \(context)"); failures += 1 }
                    try checkBits(machine, setup, entries, c, allowed: want == nil, context)
                    if failures > 10 { return }
                }
            }
        }
    }

    /// SDM 3A, 4.8: A in every entry that was used; D in the leaf alone and for
    /// writes alone; and where the access was refused, neither in the leaf.
    private func checkBits(
        _ machine: Machine, _ setup: PagingSetup, _ before: [UInt64], _ c: Conditions, allowed: Bool, _ context: String
    ) throws {
        for (number, slot) in setup.slots.enumerated() {
            let entry = try machine.getEntry(slot, setup)
            let isLeaf = number == before.count - 1
            let set = entry ^ before[number]
            if allowed {
                let want = PageEntry.accessed | (isLeaf && c.kind == .write ? PageEntry.dirty : 0)
                if set != want { Issue.record("entry \(number) got \(String(set, radix: 16)): \(context)") }
            } else if set & ~PageEntry.accessed != 0 || isLeaf && set != 0 {
                Issue.record("a refused access left \(String(set, radix: 16)) in entry \(number): \(context)")
            }
        }
    }

    // SDM 3A, 4.6.1: AC does not help an implicit access of the supervisor's, as
    // of the descriptor table, to a page of the user's.
    @Test func implicitAccessUnderSMAP() throws {
        let setup = PagingSetup.all[0]
        let machine = try Machine()
        try machine.enterPaging(setup)
        try machine.put([0x8e, 0xd8], at: Place.code)  // mov ds, eax
        machine.vcpu.withState { state in
            state.gdtr.base = 0x26000  // a user's page
            state.gpr[Register.rax] = 0x10
            state.cr4 |= CR4.smap
            state.rflags |= RFlags.alignmentCheck
        }
        // #PF cannot be delivered either: its gate's selector is looked up in the same table.
        guard case .shutdown(let reason) = machine.run() else { Issue.record("still alive"); return }
        #expect(reason.contains("#PF(0x1) at 0x26010"))
    }

    // SDM 3A, 4.3, PSE-36: bits 20…13 of the entry are bits 39…32 of the address.
    @Test func pageAbove4GiB() throws {
        let setup = PagingSetup(mode: .bits32, leafLevel: 2)
        let machine = try Machine()
        try machine.enterPaging(setup)
        try machine.put32(0x83 | 0x7f << 13, at: setup.slots[0])
        try machine.put([0x8a, 0x03], at: Place.code)  // mov al, [ebx]
        machine.vcpu.withState { $0.gpr[Register.rbx] = setup.linear }
        guard case .mmioRead(let address, 1) = machine.run() else { Issue.record("no read of a device"); return }
        #expect(address.rawValue == 0x7f_0000_0000 | PagingSetup.target)
        machine.vcpu.complete(0)
    }

    // Without CR4.PSE, PS in a directory entry means nothing (SDM 3A, table 4-4).
    @Test func largePageNeedsPSE() throws {
        let setup = PagingSetup(mode: .bits32, leafLevel: 1)
        let machine = try Machine()
        try machine.enterPaging(setup)
        try machine.put32(UInt32(try machine.getEntry(setup.slots[0], setup) | PageEntry.large), at: setup.slots[0])
        try machine.put([0x8a, 0x03, 0xf4], at: Place.code)
        try machine.put([0x5a], at: PagingSetup.target)
        machine.vcpu.withState { state in
            state.cr4 = 0
            state.gpr[Register.rbx] = setup.linear
        }
        _ = machine.runToHalt()
        #expect(machine.vcpu.withState { $0.gpr[Register.rax] } & 0xff == 0x5a)
    }

    // SDM 3A, tables 4-15 to 4-18: reserved bits of large pages and of the top
    // level; PAE's bits 62…52; bits that are software's in 4-level entries.
    @Test func reservedBits() throws {
        let cases: [(PagingSetup, level: Int, UInt64, fault: Bool)] = [
            (PagingSetup(mode: .level4, leafLevel: 2), 2, 1 << 13, true),
            (PagingSetup(mode: .level4, leafLevel: 2), 2, 1 << 20, true),
            (PagingSetup(mode: .level4, leafLevel: 2), 2, 1 << 12, false),  // PAT
            (PagingSetup(mode: .level4, leafLevel: 3), 3, 1 << 29, true),
            (PagingSetup(mode: .level4, leafLevel: 1), 4, 1 << 7, true),
            (PagingSetup(mode: .level4, leafLevel: 1), 1, 1 << 40, true),
            (PagingSetup(mode: .level4, leafLevel: 1), 1, 0x7ff << 52, false),
            (PagingSetup(mode: .level4, leafLevel: 1), 1, 0xf98, false),  // PWT, PCD, PAT, G, 11…9
            (PagingSetup(mode: .level4, leafLevel: 1), 3, 0xf18, false),
            (PagingSetup(mode: .pae, leafLevel: 1), 1, 1 << 52, true),
            (PagingSetup(mode: .pae, leafLevel: 1), 2, 1 << 62, true),
            (PagingSetup(mode: .pae, leafLevel: 2), 2, 1 << 14, true),
            (PagingSetup(mode: .bits32, leafLevel: 1), 2, 0xf18, false),
        ]
        for (setup, level, bits, fault) in cases {
            let machine = try Machine()
            try machine.enterPaging(setup)
            let slot = setup.slots[setup.topLevel - level]
            try machine.putEntry(try machine.getEntry(slot, setup) | bits, at: slot, setup)
            try machine.put([0x8a, 0x03, 0xf4], at: Place.code)
            machine.vcpu.withState { $0.gpr[Register.rbx] = setup.linear }
            let rip = machine.runToHalt()
            let context = "\(setup), level \(level), bits \(String(bits, radix: 16))"
            #expect(rip == (fault ? Place.handler(Vector.pageFault) + 1 : Place.code + 3), "\(context)")
            if fault, rip == Place.handler(Vector.pageFault) + 1 {
                let frame = machine.vcpu.withState { $0.gpr[Register.rsp] }
                #expect(try machine.get32(frame) == 9, "\(context)")
            }
        }
    }

    // SDM 3A, 4.4.1: MOV to CR3 loads PAE's four pointers, and is #GP if a
    // present one has a reserved bit set; an absent one may hold anything.
    static let pointers: [(UInt64, Bool)] = [
        (0x2001, false), (0x2003, true), (0x2021, true), (0x2101, true), (1 << 41 | 0x2001, true),
        (1 << 63 | 0x2001, true),
        (0x2019, false), (0x21e6, false),
    ]

    @Test(arguments: pointers)
    func pageDirectoryPointers(_ entry: UInt64, _ fault: Bool) throws {
        let setup = PagingSetup(mode: .pae, leafLevel: 1)
        let machine = try Machine()
        try machine.enterPaging(setup)
        try machine.put64(entry, at: PagingSetup.root + 24)
        try machine.put([0x0f, 0x22, 0xd8, 0xf4], at: Place.code)  // mov cr3, eax; hlt
        machine.vcpu.withState { $0.gpr[Register.rax] = PagingSetup.root }
        let rip = machine.runToHalt()
        #expect(rip == (fault ? Place.handler(Vector.generalProtection) + 1 : Place.code + 4))
    }

    // The pointers are registers: a change in memory counts from the next load on.
    @Test func pointersAreLoadedOnlyByCR3() throws {
        let setup = PagingSetup(mode: .pae, leafLevel: 1)
        let machine = try Machine()
        try machine.enterPaging(setup)
        // mov dword [0x1008], 0; invlpg [ebx]; mov al, [ebx]; mov cr3, ecx; mov al, [ebx]
        try machine.put(
            [0xc7, 0x05, 0x08, 0x10, 0, 0, 0, 0, 0, 0, 0x0f, 0x01, 0x3b, 0x8a, 0x03, 0x0f, 0x22, 0xd9, 0x8a, 0x03],
            at: Place.code)
        machine.vcpu.withState { state in
            state.gpr[Register.rbx] = setup.linear
            state.gpr[Register.rcx] = PagingSetup.root
        }
        let frame = machine.runToHandler(Vector.pageFault)
        #expect(try machine.get32(frame + 4) == UInt32(Place.code) + 18)
    }

    // Tables that are no RAM, that point at themselves: a fault, never more.
    @Test func tablesAnywhere() throws {
        for target in [UInt64(0x1000), 0x3f_f000, 0x40_0000, 0xfee0_0000, 0xff_ffff_f000] {
            let machine = try Machine()
            try machine.enterPaging(PagingSetup.all[0])
            try machine.put64(target | 7, at: 0x1000 + 2 * 8)
            try machine.put([0x8a, 0x03, 0xf4], at: Place.code)
            machine.vcpu.withState { $0.gpr[Register.rbx] = 2 << 39 | 5 << 12 }
            _ = machine.run()
        }
    }
}
