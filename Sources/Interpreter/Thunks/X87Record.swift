internal import VirtualCPU

/// What the x87 remembers of its last instruction (SDM 1, 8.1.8).
struct X87Record {
    var opcode: UInt16 = 0
    var instruction: UInt64 = 0
    var operand: UInt64 = 0
}

extension X87Record {
    /// From an FXSAVE image: FCW, FSW, FTW, FOP; FIP; FDP.
    init(_ image: InlineArray<64, UInt64>) {
        self.init(opcode: UInt16(image[0] >> 48), instruction: image[1], operand: image[2])
    }

    func set(in image: inout InlineArray<64, UInt64>) {
        image[0] = image[0] & 0x0000_ffff_ffff_ffff | UInt64(opcode) << 48
        image[1] = instruction
        image[2] = operand
    }
}

/// The image of FNSTENV and FNSAVE, in memory, as 64-bit code has it: in the
/// protected-mode formats (SDM 1, figures 8-9 and 8-11), their selectors left alone.
@safe struct X87Environment {
    private let base: UnsafeMutableRawPointer
    /// 14 bytes, or 94 with the registers; else 28 or 108.
    private let isShort: Bool

    init(_ base: UnsafeMutableRawPointer, bytes: Int) {
        unsafe self.base = base
        isShort = bytes == 14 || bytes == 94
    }

    var record: X87Record {
        get {
            if isShort {
                return unsafe X87Record(
                    instruction: UInt64(base.loadUnaligned(fromByteOffset: 6, as: UInt16.self)),
                    operand: UInt64(base.loadUnaligned(fromByteOffset: 10, as: UInt16.self)))
            }
            return unsafe X87Record(
                opcode: base.loadUnaligned(fromByteOffset: 18, as: UInt16.self) & 0x7ff,
                instruction: UInt64(base.loadUnaligned(fromByteOffset: 12, as: UInt32.self)),
                operand: UInt64(base.loadUnaligned(fromByteOffset: 20, as: UInt32.self)))
        }
        nonmutating set {
            if isShort {
                unsafe base.storeBytes(
                    of: UInt16(truncatingIfNeeded: newValue.instruction), toByteOffset: 6, as: UInt16.self)
                unsafe base.storeBytes(
                    of: UInt16(truncatingIfNeeded: newValue.operand), toByteOffset: 10, as: UInt16.self)
            } else {
                unsafe base.storeBytes(
                    of: UInt32(truncatingIfNeeded: newValue.instruction), toByteOffset: 12, as: UInt32.self)
                unsafe base.storeBytes(of: newValue.opcode, toByteOffset: 18, as: UInt16.self)
                unsafe base.storeBytes(
                    of: UInt32(truncatingIfNeeded: newValue.operand), toByteOffset: 20, as: UInt32.self)
            }
        }
    }
}
