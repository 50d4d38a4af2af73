/// Exceptions and their vectors (SDM 3A, table 6-1).
public enum Vector {
    @inlinable public static var divideError: UInt8 { 0 }
    @inlinable public static var debug: UInt8 { 1 }
    @inlinable public static var nonMaskable: UInt8 { 2 }
    @inlinable public static var breakpoint: UInt8 { 3 }
    @inlinable public static var overflow: UInt8 { 4 }
    @inlinable public static var boundRange: UInt8 { 5 }
    @inlinable public static var invalidOpcode: UInt8 { 6 }
    @inlinable public static var deviceNotAvailable: UInt8 { 7 }
    @inlinable public static var doubleFault: UInt8 { 8 }
    @inlinable public static var invalidTSS: UInt8 { 10 }
    @inlinable public static var segmentNotPresent: UInt8 { 11 }
    @inlinable public static var stackFault: UInt8 { 12 }
    @inlinable public static var generalProtection: UInt8 { 13 }
    @inlinable public static var pageFault: UInt8 { 14 }
    @inlinable public static var floatingPoint: UInt8 { 16 }
    @inlinable public static var alignmentCheck: UInt8 { 17 }
    @inlinable public static var machineCheck: UInt8 { 18 }
    @inlinable public static var simdFloatingPoint: UInt8 { 19 }

    /// Whether the CPU pushes an error code for it.
    public static func hasErrorCode(_ vector: UInt8) -> Bool {
        switch vector {
        case doubleFault, invalidTSS, segmentNotPresent, stackFault, generalProtection, pageFault, alignmentCheck: true
        default: false
        }
    }
}

/// Bits of a page fault's error code (SDM 3A, figure 4-12).
public enum PageFaultCode {
    @inlinable public static var present: UInt32 { 1 }
    @inlinable public static var write: UInt32 { 2 }
    @inlinable public static var user: UInt32 { 4 }
    @inlinable public static var reserved: UInt32 { 8 }
    @inlinable public static var fetch: UInt32 { 16 }
}
