internal import X86

//S:100 Decode once, call often
//
// A pure interpreter spends most of its time finding out, again and again,
// what the same bytes mean. Ours finds out once. Zydis decodes an instruction
// (about 90 ns), and what comes out is a record of 48 bytes: the address of
// the function that performs just this form, and the operands, already turned
// into byte offsets into the register file. Records of instructions that
// follow each other lie next to each other. Running the Guest is then this
// loop, and nothing else:
//
//     while let record { record = record.handler(core, record) }
//
// A handler returns the record to go on with: mostly the next one, after a
// branch the target's, and nil when something must be looked into: a fault,
// an exit, code that is not decoded yet. We measured 2 ns for such a step in
// optimized Swift, against 7 for a loop around a `switch`.

/// Performs one instruction: takes the core and its record, returns the next record or nil.
package typealias Handler = @convention(c) (UnsafeMutableRawPointer, UnsafeRawPointer) -> UnsafeRawPointer?

/// The instruction stopped short: why is in the core (`Core.event`).
package struct Stop: Error {}

/// One decoded instruction. Registers are byte offsets into `VCPUState.gpr`,
/// so that AH is the byte after AL and needs no case of its own.
@unsafe package struct Instruction: BitwiseCopyable {
    package var handler: Handler
    /// A branch's target once it is known; a thunk's description.
    package var link: UnsafeMutableRawPointer?
    package var immediate: UInt64 = 0
    package var displacement: Int32 = 0
    /// Where in its page the instruction begins.
    package var offset: UInt16 = 0
    package var mnemonic: UInt16 = 0
    package var length: UInt8 = 0
    /// 1, 2, 4 or 8.
    package var operandBytes: UInt8 = 0
    package var r1: UInt8 = 0
    package var r2: UInt8 = 0
    /// Address parts, as byte offsets into `gpr`; `AddressSlot.zero` where absent.
    package var base: UInt8 = unsafe UInt8(Instruction.noRegister)
    package var index: UInt8 = unsafe UInt8(Instruction.noRegister)
    package var segmentSlot: UInt8 = unsafe UInt8(Instruction.noRegister)
    package var scaleShift: UInt8 = 0
    package var options: Options = []
    /// `SegmentName` of the memory operand, for the checks of legacy modes.
    package var segment: UInt8 = 3
    /// Condition code of Jcc, SETcc, CMOVcc; the count of an ENTER; whatever else is small.
    package var small: UInt8 = 0
    package var spare: UInt32 = 0

    package struct Options: OptionSet, BitwiseCopyable {
        package let rawValue: UInt16
        package init(rawValue: UInt16) { self.rawValue = rawValue }
        /// The address needs more than base + index·scale + displacement + segment base.
        static let complexAddress = Options(rawValue: 1)
        static let address32 = Options(rawValue: 2)
        static let address16 = Options(rawValue: 4)
        static let rep = Options(rawValue: 8)
        static let repne = Options(rawValue: 16)
        static let lock = Options(rawValue: 32)
        /// Decoded in 64-bit mode.
        static let long = Options(rawValue: 64)
        /// Decoded in 16-bit code.
        static let code16 = Options(rawValue: 128)
        /// A bit-string operand: the register offset moves the address.
        static let bitString = Options(rawValue: 256)
        /// The first operand is memory.
        static let memoryFirst = Options(rawValue: 512)
        /// Some operand is memory.
        static let memory = Options(rawValue: 1024)
    }

    static let noRegister = 16 * 8

    init(_ handler: @escaping Handler) { unsafe self.handler = handler }
}

/// Record `i` of a run of records.
package typealias InstructionPointer = UnsafePointer<Instruction>
//:

/// The unsigned integers that instructions work on.
package protocol GuestInteger: FixedWidthInteger, UnsignedInteger, BitwiseCopyable {
    associatedtype Signed: FixedWidthInteger & SignedInteger & BitwiseCopyable
}
extension UInt8: GuestInteger { package typealias Signed = Int8 }
extension UInt16: GuestInteger { package typealias Signed = Int16 }
extension UInt32: GuestInteger { package typealias Signed = Int32 }
extension UInt64: GuestInteger { package typealias Signed = Int64 }
