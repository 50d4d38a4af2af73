/// Segment registers by their number in an instruction (SDM 2, table 2-1, Sreg).
public enum SegmentName {
    @inlinable public static var es: Int { 0 }
    @inlinable public static var cs: Int { 1 }
    @inlinable public static var ss: Int { 2 }
    @inlinable public static var ds: Int { 3 }
    @inlinable public static var fs: Int { 4 }
    @inlinable public static var gs: Int { 5 }
}

/// A segment register with its hidden part, or LDTR or TR (SDM 3A, 3.4.3).
@frozen public struct Segment: BitwiseCopyable, Equatable, Sendable {
    /// Byte offset 0…: the part that software sees.
    public var selector: UInt16
    /// The descriptor's bits 40…55 with the limit's bits 48…51 zeroed, shifted down to 0:
    /// type 0…3, S 4, DPL 5…6, P 7, AVL 12, L 13, D/B 14, G 15. Bit 16 says "null selector: not usable".
    public var attributes: UInt32
    /// In bytes, inclusive, the granularity already applied.
    public var limit: UInt32
    public var base: UInt64

    @inlinable public init(selector: UInt16 = 0, base: UInt64 = 0, limit: UInt32 = 0, attributes: UInt32 = 0) {
        self.selector = selector
        self.attributes = attributes
        self.limit = limit
        self.base = base
    }

    @inlinable public static var unusableBit: UInt32 { 1 << 16 }

    @inlinable public var type: Int { Int(attributes & 15) }
    @inlinable public var isCodeOrData: Bool { attributes & 1 << 4 != 0 }
    @inlinable public var isCode: Bool { attributes & 0x18 == 0x18 }
    /// Code: may be read. Data: always true.
    @inlinable public var isReadable: Bool { attributes & 0x18 == 0x10 || attributes & 0x1a == 0x1a }
    @inlinable public var isWritableData: Bool { attributes & 0x1a == 0x12 }
    /// Conforming code, or data that expands down: bit 2 of the type.
    @inlinable public var isConforming: Bool { attributes & 0x1c == 0x1c }
    @inlinable public var expandsDown: Bool { attributes & 0x1c == 0x14 }
    @inlinable public var privilegeLevel: Int { Int(attributes >> 5 & 3) }
    @inlinable public var isPresent: Bool { attributes & 1 << 7 != 0 }
    @inlinable public var isLong: Bool { attributes & 1 << 13 != 0 }
    /// D of code, B of data and stack: 32-bit.
    @inlinable public var isDefaultBig: Bool { attributes & 1 << 14 != 0 }
    @inlinable public var isUnusable: Bool { attributes & Self.unusableBit != 0 }

    /// What real mode and virtual-8086 mode put into a segment register.
    public static func realMode(selector: UInt16, type: UInt32 = 0x93) -> Segment {
        Segment(selector: selector, base: UInt64(selector) << 4, limit: 0xffff, attributes: type)
    }
}

/// GDTR or IDTR.
@frozen public struct DescriptorTable: BitwiseCopyable, Equatable, Sendable {
    public var base: UInt64
    public var limit: UInt16
    @inlinable public init(base: UInt64 = 0, limit: UInt16 = 0) {
        self.base = base
        self.limit = limit
    }
}

/// Types of system segments and gates (SDM 3A, table 3-2), 32-bit names; long
/// mode has only `ldt`, the 64-bit TSS and gates under the same numbers.
public enum SystemSegmentType {
    @inlinable public static var tss16Available: Int { 1 }
    @inlinable public static var ldt: Int { 2 }
    @inlinable public static var tss16Busy: Int { 3 }
    @inlinable public static var callGate16: Int { 4 }
    @inlinable public static var taskGate: Int { 5 }
    @inlinable public static var interruptGate16: Int { 6 }
    @inlinable public static var trapGate16: Int { 7 }
    @inlinable public static var tssAvailable: Int { 9 }
    @inlinable public static var tssBusy: Int { 11 }
    @inlinable public static var callGate: Int { 12 }
    @inlinable public static var interruptGate: Int { 14 }
    @inlinable public static var trapGate: Int { 15 }
}
