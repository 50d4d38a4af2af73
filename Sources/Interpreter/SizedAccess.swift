internal import X86

// Accesses whose size, 1, 2, 4 or 8 bytes, is known only when they are made.
// Values are zero-extended.

extension CPU {
    func load(_ address: UInt64, bytes: Int) throws(Stop) -> UInt64 {
        switch bytes {
        case 1: UInt64(try load(address, UInt8.self))
        case 2: UInt64(try load(address, UInt16.self))
        case 4: UInt64(try load(address, UInt32.self))
        default: try load(address, UInt64.self)
        }
    }

    func store(_ address: UInt64, _ value: UInt64, bytes: Int) throws(Stop) {
        switch bytes {
        case 1: try store(address, UInt8(truncatingIfNeeded: value))
        case 2: try store(address, UInt16(truncatingIfNeeded: value))
        case 4: try store(address, UInt32(truncatingIfNeeded: value))
        default: try store(address, value)
        }
    }

    /// The register at a byte offset of the register file.
    func register(_ offset: UInt8, bytes: Int) -> UInt64 {
        switch bytes {
        case 1: UInt64(register(offset, UInt8.self))
        case 2: UInt64(register(offset, UInt16.self))
        case 4: UInt64(register(offset, UInt32.self))
        default: register(offset, UInt64.self)
        }
    }

    /// The record's memory operand.
    func loadOperand(_ i: InstructionPointer, _ bytes: Int) throws(Stop) -> UInt64 {
        try load(unsafe address(i, bytes, write: false), bytes: bytes)
    }
}
