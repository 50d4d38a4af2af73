/// Bits of a page-table entry, the same at every level and in every paging
/// mode where they exist (SDM 3A, tables 4-5 to 4-20).
public enum PageEntry {
    @inlinable public static var present: UInt64 { 1 << 0 }
    @inlinable public static var writable: UInt64 { 1 << 1 }
    @inlinable public static var user: UInt64 { 1 << 2 }
    @inlinable public static var accessed: UInt64 { 1 << 5 }
    @inlinable public static var dirty: UInt64 { 1 << 6 }
    @inlinable public static var large: UInt64 { 1 << 7 }
    @inlinable public static var global: UInt64 { 1 << 8 }
    @inlinable public static var noExecute: UInt64 { 1 << 63 }
}

/// How linear addresses are translated (SDM 3A, 4.1.1).
public enum PagingMode: UInt8, Sendable {
    case none, bits32, pae, level4

    public static func of(cr0: UInt64, cr4: UInt64, efer: UInt64) -> PagingMode {
        if cr0 & CR0.paging == 0 { return .none }
        if cr4 & CR4.physicalAddressExtension == 0 { return .bits32 }
        return efer & EFER.longModeActive == 0 ? .pae : .level4
    }
}

public enum PhysicalAddress {
    /// MAXPHYADDR, as CPUID 0x80000008 tells the Guest.
    @inlinable public static var bits: UInt64 { 40 }
    @inlinable public static var mask: UInt64 { (1 << bits) - 1 }
    /// The address bits of an 8-byte entry that must be zero.
    @inlinable public static var reserved: UInt64 { 0x000f_ffff_ffff_ffff & ~mask }
    /// The frame of an 8-byte entry.
    @inlinable public static var frame: UInt64 { mask & ~0xfff }
}

/// Whether bits 63…47 are all alike (SDM 1, 3.3.7.1).
@inlinable public func isCanonical(_ address: UInt64) -> Bool {
    UInt64(bitPattern: (Int64(bitPattern: address) &<< 16) &>> 16) == address
}
