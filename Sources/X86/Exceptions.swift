/// Exceptions and their vectors (SDM 3A, table 6-1).
package enum Vector {
    package static let divideError: UInt8 = 0
    package static let debug: UInt8 = 1
    package static let nonMaskable: UInt8 = 2
    package static let breakpoint: UInt8 = 3
    package static let overflow: UInt8 = 4
    package static let boundRange: UInt8 = 5
    package static let invalidOpcode: UInt8 = 6
    package static let deviceNotAvailable: UInt8 = 7
    package static let doubleFault: UInt8 = 8
    package static let invalidTSS: UInt8 = 10
    package static let segmentNotPresent: UInt8 = 11
    package static let stackFault: UInt8 = 12
    package static let generalProtection: UInt8 = 13
    package static let pageFault: UInt8 = 14
    package static let floatingPoint: UInt8 = 16
    package static let alignmentCheck: UInt8 = 17
    package static let machineCheck: UInt8 = 18
    package static let simdFloatingPoint: UInt8 = 19

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
    package static let present: UInt32 = 1
    package static let write: UInt32 = 2
    package static let user: UInt32 = 4
    package static let reserved: UInt32 = 8
    package static let fetch: UInt32 = 16
}
