import EngineTesting
import VirtualCPU
import X86

/// Address spaces with an edge of every kind, and a model that says in a few
/// lines what an access must do there.
///
///     linear                                   is
///     0000_0000_0000_0000, one page            mapped, only where `zeroIsMapped`
///     0000_0000_4000_0000                      mapped · mapped · nothing
///     0000_0000_4000_4000                      mapped · read-only · mapped
///     0000_0000_4000_8000                      mapped · supervisor's · mapped
///     0000_0000_4000_c000                      last page of RAM · another of the first
///     0000_7fff_ffff_f000                      mapped: the last one of the lower half
///     ffff_8000_0000_0000                      mapped: the first of the upper half
///     ffff_ffff_ffff_f000                      mapped: the last of all
struct HostileSpace {
    enum Rights { case all, readOnly, supervisor }

    /// Linear page number to the frame's address and what may be done there.
    private(set) var pages: [UInt64: (frame: UInt64, rights: Rights)] = [:]
    /// The end of RAM, of a machine with 4 MiB.
    static let frames = (4 << 20) - 0xd000..<UInt64(4 << 20)
    static let lastFrame = frames.upperBound - 4096

    /// Addresses from which the edges are reached.
    static let edges: [UInt64] = [
        0, 0x4000_0000, 0x4000_1000, 0x4000_2000, 0x4000_4000, 0x4000_5000, 0x4000_6000, 0x4000_8000, 0x4000_9000,
        0x4000_a000, 0x4000_c000, 0x4000_d000, 0x4000_e000, 0x7fff_ffff_f000, 0x8000_0000_0000,
        0xffff_8000_0000_0000, 0xffff_8000_0000_1000, 0xffff_ffff_ffff_f000, 0x8000_0000_0000_0000,
    ]

    init(zeroIsMapped: Bool) {
        var frame = Self.frames.lowerBound
        func add(_ address: UInt64, _ rights: Rights = .all, at given: UInt64? = nil) {
            pages[address >> 12] = (given ?? frame, rights)
            if given == nil { frame += 4096 }
        }
        if zeroIsMapped { add(0) }
        for address: UInt64 in [0x4000_0000, 0x4000_1000, 0x4000_4000, 0x4000_6000, 0x4000_8000, 0x4000_a000] {
            add(address)
        }
        add(0x4000_5000, .readOnly)
        add(0x4000_9000, .supervisor)
        add(0x4000_c000, at: Self.lastFrame)
        add(0x4000_d000, at: pages[0x4000_0000 >> 12]!.frame)
        for address: UInt64 in [0x7fff_ffff_f000, 0xffff_8000_0000_0000, 0xffff_ffff_ffff_f000] { add(address) }
    }

    // MARK: The machine

    /// Tables for all of it, besides what the machine has for itself between
    /// 0x1000 and 0x30000. Frames hold a pattern.
    func install(in machine: Machine) throws {
        try machine.enterLongMode()
        var nextTable: UInt64 = 0x80000
        for page in UInt64(0)..<512 where page == 0 || page >= 0x30 { try machine.put64(0, at: 0x4000 + page * 8) }
        for (page, (frame, rights)) in pages {
            var table: UInt64 = 0x1000
            for level in [27, 18, 9] as [UInt64] {
                let slot = table + (page >> level & 511) * 8
                if try machine.get64(slot) == 0 {
                    try machine.put64(nextTable | 7, at: slot)
                    nextTable += 4096
                }
                table = try machine.get64(slot) & ~0xfff
            }
            let flags: UInt64 = rights == .all ? 7 : rights == .readOnly ? 5 : 3
            // Accessed and dirty, so that the tables stay as they are.
            try machine.put64(frame | flags | 0x60, at: table + (page & 511) * 8)
        }
        // A fault on the stack needs another.
        for vector in [Vector.pageFault, Vector.generalProtection, Vector.stackFault, Vector.doubleFault, 0x40] {
            try machine.setLongGate(vector, ist: 1)
        }
        machine.vcpu.withState { state in
            state.cr4 |= CR4.osFXSR | CR4.osXSave
            state.xcr0 = 7
        }
    }

    // MARK: The model

    enum Verdict: Equatable {
        case allowed
        case pageFault(UInt64, code: UInt64)
        case notCanonical
    }

    /// SDM 3A, 4.7, for all bytes of an access. Addresses wrap at 2^64.
    func judge(_ address: UInt64, _ count: Int, write: Bool, user: Bool) -> Verdict {
        let bytes = (0..<UInt64(count)).map { address &+ $0 }
        if bytes.contains(where: { !isCanonical($0) }) { return .notCanonical }
        var code: UInt64 = (write ? 2 : 0) | (user ? 4 : 0)
        for byte in bytes {
            guard let (_, rights) = pages[byte >> 12] else { return .pageFault(byte, code: code) }
            let refused = write && rights == .readOnly || user && rights == .supervisor
            if refused {
                code |= 1
                return .pageFault(byte, code: code)
            }
        }
        return .allowed
    }

    /// Where a byte that is mapped lies.
    func physical(_ address: UInt64) -> UInt64 { pages[address >> 12]!.frame | address & 0xfff }
}
