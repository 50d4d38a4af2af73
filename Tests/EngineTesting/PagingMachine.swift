internal import VirtualCPU
package import X86

/// Tables of one paging mode, in which the low 2 MiB are mapped to themselves
/// and one more page, `linear`, by entries of its own at every level.
package struct PagingSetup: CustomStringConvertible, Sendable {
    package let mode: PagingMode
    /// 1: a 4 KiB page; 2: 2 or 4 MiB; 3: 1 GiB.
    package let leafLevel: Int

    package init(mode: PagingMode, leafLevel: Int) {
        self.mode = mode
        self.leafLevel = leafLevel
    }

    package static let all = [
        PagingSetup(mode: .level4, leafLevel: 1), PagingSetup(mode: .level4, leafLevel: 2),
        PagingSetup(mode: .level4, leafLevel: 3), PagingSetup(mode: .pae, leafLevel: 1),
        PagingSetup(mode: .pae, leafLevel: 2), PagingSetup(mode: .bits32, leafLevel: 1),
        PagingSetup(mode: .bits32, leafLevel: 2),
    ]

    package var description: String { "\(mode), leaf at level \(leafLevel)" }

    package static let root: UInt64 = 0x1000, lowTable: UInt64 = 0x4000
    /// Where the page of the test lies.
    package static let target: UInt64 = 0x53000
    package var topLevel: Int { mode == .level4 ? 4 : 2 }
    package var entryBytes: UInt64 { mode == .bits32 ? 4 : 8 }
    package var tablesFrom: UInt64 { 0x54000 }

    /// Mapped to `target`, through slots of its own.
    package var linear: UInt64 {
        switch mode {
        case .level4: 1 << 39 | Self.target
        case .pae: 1 << 30 | Self.target
        default: 1 << 22 | Self.target
        }
    }

    /// Guest-physical addresses of the entries that map `linear`, the top one
    /// first. PAE's page-directory pointers are not among them.
    package var slots: [UInt64] {
        var slots: [UInt64] = []
        for level in stride(from: topLevel, through: leafLevel, by: -1) {
            let bits: UInt64 = mode == .bits32 ? 10 : 9
            let index = linear >> (12 + bits * UInt64(level - 1)) & (1 << bits - 1)
            let table = level == topLevel && mode != .pae ? Self.root : tablesFrom + UInt64(level) * 0x1000
            slots.append(table + index * entryBytes)
        }
        return slots
    }

    /// What the entry at `slots[number]` points at, without flags; the leaf's PS bit included.
    package func frame(_ number: Int) -> UInt64 {
        let level = topLevel - number
        if level > leafLevel { return tablesFrom + UInt64(level - 1) * 0x1000 }
        return leafLevel == 1 ? Self.target : PageEntry.large
    }
}

extension Machine {
    package func putEntry(_ value: UInt64, at slot: UInt64, _ setup: PagingSetup) throws {
        if setup.entryBytes == 4 { try put32(UInt32(value), at: slot) } else { try put64(value, at: slot) }
    }

    package func getEntry(_ slot: UInt64, _ setup: PagingSetup) throws -> UInt64 {
        setup.entryBytes == 4 ? UInt64(try get32(slot)) : try get64(slot)
    }

    /// Which of the low pages programs at CPL 3 may use.
    package static func isUserPage(_ page: UInt64) -> Bool {
        (0x18...0x1f).contains(page) || (0x26...0x2f).contains(page)
    }

    /// A CPU in the paging mode, CPL 0, with pages of the system's own that are
    /// not the user's, and all of `setup`'s entries P, R/W and U/S.
    package func enterPaging(_ setup: PagingSetup) throws {
        let all: UInt64 = 7
        if setup.mode == .level4 { try enterLongMode() } else { try enterProtectedMode() }
        for page in 0..<UInt64(512) where setup.mode != .bits32 || page < 512 {
            let flags: UInt64 = Machine.isUserPage(page) ? 7 : 3
            try putEntry(page << 12 | flags, at: PagingSetup.lowTable + page * setup.entryBytes, setup)
        }
        switch setup.mode {
        case .bits32: try put32(UInt32(PagingSetup.lowTable | all), at: PagingSetup.root)
        case .pae:
            try put64(0x2001, at: PagingSetup.root)
            try put64(PagingSetup.lowTable | all, at: 0x2000)
            try put64(setup.tablesFrom + 0x2000 | 1, at: PagingSetup.root + 8)
        default: break  // enterLongMode did.
        }
        for number in setup.slots.indices { try putEntry(setup.frame(number) | all, at: setup.slots[number], setup) }
        vcpu.withState { state in
            state.cr3 = PagingSetup.root
            state.cr0 |= CR0.paging | CR0.writeProtect
            switch setup.mode {
            case .bits32: state.cr4 = CR4.pageSizeExtensions
            default: state.cr4 = CR4.physicalAddressExtension
            }
            state.efer |= EFER.noExecuteEnable
        }
    }
}
