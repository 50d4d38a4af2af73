/// Exceptions and their vectors (SDM 3A, table 6-1).
package enum Vector {
    @_transparent package static var divideError: UInt8 { 0 }
    @_transparent package static var debug: UInt8 { 1 }
    @_transparent package static var nonMaskable: UInt8 { 2 }
    @_transparent package static var breakpoint: UInt8 { 3 }
    @_transparent package static var overflow: UInt8 { 4 }
    @_transparent package static var boundRange: UInt8 { 5 }
    @_transparent package static var invalidOpcode: UInt8 { 6 }
    @_transparent package static var deviceNotAvailable: UInt8 { 7 }
    @_transparent package static var doubleFault: UInt8 { 8 }
    @_transparent package static var invalidTSS: UInt8 { 10 }
    @_transparent package static var segmentNotPresent: UInt8 { 11 }
    @_transparent package static var stackFault: UInt8 { 12 }
    @_transparent package static var generalProtection: UInt8 { 13 }
    @_transparent package static var pageFault: UInt8 { 14 }
    @_transparent package static var floatingPoint: UInt8 { 16 }
    @_transparent package static var alignmentCheck: UInt8 { 17 }
    @_transparent package static var machineCheck: UInt8 { 18 }
    @_transparent package static var simdFloatingPoint: UInt8 { 19 }

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
    @_transparent package static var present: UInt32 { 1 }
    @_transparent package static var write: UInt32 { 2 }
    @_transparent package static var user: UInt32 { 4 }
    @_transparent package static var reserved: UInt32 { 8 }
    @_transparent package static var fetch: UInt32 { 16 }
}
