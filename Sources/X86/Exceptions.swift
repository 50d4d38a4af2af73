/// Exceptions and their vectors (SDM 3A, table 6-1).
package enum Vector {
    @inlinable package static var divideError: UInt8 { 0 }
    @inlinable package static var debug: UInt8 { 1 }
    @inlinable package static var nonMaskable: UInt8 { 2 }
    @inlinable package static var breakpoint: UInt8 { 3 }
    @inlinable package static var overflow: UInt8 { 4 }
    @inlinable package static var boundRange: UInt8 { 5 }
    @inlinable package static var invalidOpcode: UInt8 { 6 }
    @inlinable package static var deviceNotAvailable: UInt8 { 7 }
    @inlinable package static var doubleFault: UInt8 { 8 }
    @inlinable package static var invalidTSS: UInt8 { 10 }
    @inlinable package static var segmentNotPresent: UInt8 { 11 }
    @inlinable package static var stackFault: UInt8 { 12 }
    @inlinable package static var generalProtection: UInt8 { 13 }
    @inlinable package static var pageFault: UInt8 { 14 }
    @inlinable package static var floatingPoint: UInt8 { 16 }
    @inlinable package static var alignmentCheck: UInt8 { 17 }
    @inlinable package static var machineCheck: UInt8 { 18 }
    @inlinable package static var simdFloatingPoint: UInt8 { 19 }

    /// Whether the CPU pushes an error code for it.
    package static func hasErrorCode(_ vector: UInt8) -> Bool {
        switch vector {
        case doubleFault, invalidTSS, segmentNotPresent, stackFault, generalProtection, pageFault, alignmentCheck: true
        default: false
        }
    }
}

/// Bits of a page fault's error code (SDM 3A, figure 4-12).
package enum PageFaultCode {
    @inlinable package static var present: UInt32 { 1 }
    @inlinable package static var write: UInt32 { 2 }
    @inlinable package static var user: UInt32 { 4 }
    @inlinable package static var reserved: UInt32 { 8 }
    @inlinable package static var fetch: UInt32 { 16 }
}
