package import CZydis

/// How wide the code is: the CS.L and CS.D bits of the mode.
@frozen public enum CodeSize: UInt8, Sendable {
    case bits16 = 0, bits32 = 1, bits64 = 2
}

/// Zydis, set up for the three code sizes. One per engine; not for two
/// threads at once, because the operands of the last decode are kept here.
@safe package final class Decoder {
    private let decoders: UnsafeMutablePointer<ZydisDecoder>
    public let instruction: UnsafeMutablePointer<ZydisDecodedInstruction>
    /// Valid until the next `decode`: `instruction.operand_count` of them.
    public let operands: UnsafeMutablePointer<ZydisDecodedOperand>

    @inlinable public static var maximumLength: Int { 15 }

    public init() {
        unsafe decoders = .allocate(capacity: 3)
        unsafe instruction = .allocate(capacity: 1)
        unsafe operands = .allocate(capacity: Int(ZYDIS_MAX_OPERAND_COUNT))
        let setups: [(ZydisMachineMode, ZydisStackWidth)] = [
            (ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16),
            (ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32),
            (ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64),
        ]
        for (index, setup) in setups.enumerated() {
            unsafe decoders.advanced(by: index).initialize(to: ZydisDecoder())
            let status = unsafe ZydisDecoderInit(decoders + index, setup.0, setup.1)
            precondition(status & 0x8000_0000 == 0, "Zydis refused a decoder mode")
        }
    }

    deinit {
        unsafe decoders.deallocate()
        unsafe instruction.deallocate()
        unsafe operands.deallocate()
    }

    public enum Failure: Error {
        /// The bytes end before the instruction does.
        case moreBytes
        /// Longer than 15 bytes: #GP.
        case tooLong
        /// No such instruction: #UD.
        case invalid
    }

    /// Decodes the instruction at the start of `bytes` into `instruction` and `operands`.
    public func decode(_ bytes: UnsafeRawBufferPointer, _ size: CodeSize) throws(Failure) {
        let status = unsafe ZydisDecoderDecodeFull(
            decoders + Int(size.rawValue), bytes.baseAddress, ZyanUSize(bytes.count), instruction, operands)
        if status & 0x8000_0000 == 0 { return }
        // ZYAN_MAKE_STATUS(1, ZYAN_MODULE_ZYDIS = 2, code).
        switch status {
        case 0x8020_0000: throw .moreBytes
        case 0x8020_0002: throw .tooLong
        default: throw .invalid
        }
    }
}
