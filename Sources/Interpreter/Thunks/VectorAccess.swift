package import CZydis
package import VirtualCPU
package import X86

//S:370 Many addresses in one instruction
//
// A gather reads from as many places as it has elements, and a masked move
// must not touch what its mask leaves out, fault included. No thunk can do
// that with one pointer. But such an instruction computes nothing: it only
// moves, and moving we can do in Swift, element by element.
//
// A gather that faults has done the elements before the fault, and says so by
// clearing their mask: begun again, it goes on where it stopped (SDM 2C,
// VGATHER). A masked store that faults has stored nothing, for we probe first.

/// The Guest's memory as such an instruction sees it. The implementation
/// translates, and keeps the fault if there is one. Offsets are
/// within the operand's segment, not yet truncated to the address size.
package protocol VectorMemory: ~Copyable {
    /// Whether the addresses are ones that could be mapped at all; false on a fault.
    mutating func checkAddresses(_ offset: UInt64, bytes: Int) -> Bool
    /// Nil on a fault.
    mutating func load(_ offset: UInt64, bytes: Int) -> UInt64?
    /// Whether a store there would succeed; false on a fault.
    mutating func probeStore(_ offset: UInt64, bytes: Int) -> Bool
    /// False on a fault.
    mutating func store(_ offset: UInt64, _ value: UInt64, bytes: Int) -> Bool
}

/// A masked move or a gather. Its operand's segment and address size are the core's affair.
@frozen package struct VectorAccess: BitwiseCopyable, Sendable {
    enum Kind: UInt8, BitwiseCopyable, Sendable {
        /// VMASKMOVPS and relatives: the sign bits of the mask's elements choose.
        case maskedLoad, maskedStore
        /// MASKMOVDQU, MASKMOVQ: of each byte. To [rDI].
        case byteStore
        case gather
    }

    let kind: Kind
    let isMMX: Bool
    /// The checks before, as a `Thunk` has them.
    package let gate: Thunk.Gate
    let elementBytes: Int
    let elementCount: Int
    /// Vector registers: destination, or source of a store; mask; index.
    let data: Int
    let mask: Int
    let index: Int
    let indexBytes: Int
    let scale: UInt64
    /// The whole operand in bytes where it is contiguous; 0 for a gather.
    package let memoryBytes: Int
    /// The gather names one register twice: #UD (SDM 2C, VGATHER).
    package let isUndefined: Bool

    /// Nil: no such instruction. The thunks have refused all that this accepts.
    package init?(
        _ instruction: UnsafePointer<ZydisDecodedInstruction>, operands: UnsafePointer<ZydisDecodedOperand>,
        features: ISAFeatures
    ) {
        guard features.include(unsafe instruction.pointee.meta.isa_set) else { return nil }
        func vector(_ operand: Int) -> Int {
            let value = unsafe operands[operand].reg.value.rawValue
            switch value {
            case ZYDIS_REGISTER_XMM0.rawValue...ZYDIS_REGISTER_XMM15.rawValue:
                return Int(value - ZYDIS_REGISTER_XMM0.rawValue)
            case ZYDIS_REGISTER_YMM0.rawValue...ZYDIS_REGISTER_YMM15.rawValue:
                return Int(value - ZYDIS_REGISTER_YMM0.rawValue)
            case ZYDIS_REGISTER_MM0.rawValue...ZYDIS_REGISTER_MM7.rawValue:
                return Int(value - ZYDIS_REGISTER_MM0.rawValue)
            default: return 0
            }
        }
        var (kind, element, gate, mmx) = (Kind.gather, 4, Thunk.Gate([.avx, .protectedMode]), false)
        var (indexSize, indexRegister, factor, undefined) = (0, 0, UInt64(1), false)
        switch unsafe instruction.pointee.mnemonic {
        case ZYDIS_MNEMONIC_MASKMOVDQU: (kind, element, gate) = (.byteStore, 1, .sse)
        case ZYDIS_MNEMONIC_VMASKMOVDQU: (kind, element) = (.byteStore, 1)
        case ZYDIS_MNEMONIC_MASKMOVQ: (kind, element, gate, mmx) = (.byteStore, 1, [.mmx, .waitsForFPU], true)
        case ZYDIS_MNEMONIC_VMASKMOVPS, ZYDIS_MNEMONIC_VPMASKMOVD: kind = .maskedLoad
        case ZYDIS_MNEMONIC_VMASKMOVPD, ZYDIS_MNEMONIC_VPMASKMOVQ: (kind, element) = (.maskedLoad, 8)
        case ZYDIS_MNEMONIC_VGATHERDPS, ZYDIS_MNEMONIC_VPGATHERDD: indexSize = 4
        case ZYDIS_MNEMONIC_VGATHERDPD, ZYDIS_MNEMONIC_VPGATHERDQ: (indexSize, element) = (4, 8)
        case ZYDIS_MNEMONIC_VGATHERQPS, ZYDIS_MNEMONIC_VPGATHERQD: indexSize = 8
        case ZYDIS_MNEMONIC_VGATHERQPD, ZYDIS_MNEMONIC_VPGATHERQQ: (indexSize, element) = (8, 8)
        default: return nil
        }
        guard unsafe instruction.pointee.encoding != ZYDIS_INSTRUCTION_ENCODING_EVEX else { return nil }
        let bytes: Int
        switch kind {
        case .gather:
            let raw = unsafe operands[1].mem.index.rawValue
            let isYMM = raw >= ZYDIS_REGISTER_YMM0.rawValue
            indexRegister = Int(raw - (isYMM ? ZYDIS_REGISTER_YMM0 : ZYDIS_REGISTER_XMM0).rawValue)
            factor = UInt64(max(1, unsafe operands[1].mem.scale))
            // As many elements as both the index and the longest vector allow.
            let length = unsafe instruction.pointee.raw.vex.L != 0 ? 32 : 16
            bytes = length / max(element, indexSize) * element
            (data, mask) = (vector(0), vector(2))
            undefined = data == mask || data == indexRegister || mask == indexRegister
        case .byteStore:
            // The memory operand is a hidden one.
            let at = unsafe operands[0].type == ZYDIS_OPERAND_TYPE_REGISTER ? 0 : 1
            (data, mask) = (vector(at), vector(at + 1))
            bytes = mmx ? 8 : 16
        default:
            let isStore = unsafe operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY
            if isStore { kind = .maskedStore }
            (data, mask) = isStore ? (vector(2), vector(1)) : (vector(0), vector(1))
            bytes = unsafe Int(operands[isStore ? 0 : 2].size / 8)
        }
        (self.kind, self.gate, isMMX, elementBytes) = (kind, gate, mmx, element)
        (index, indexBytes, scale, isUndefined) = (indexRegister, indexSize, factor, undefined)
        elementCount = bytes / element
        memoryBytes = kind == .gather ? 0 : bytes
    }

    /// Performs the instruction. False: the memory had a fault, to be delivered;
    /// the state is as the manual wants it at a fault.
    ///
    /// - Parameter offset: of the operand; of a gather, base + displacement without the index.
    package func run<Memory: VectorMemory & ~Copyable>(
        _ state: inout VCPUState, at offset: UInt64, _ memory: inout Memory
    ) -> Bool {
        if kind != .gather {
            // The chosen elements' addresses come before their pages.
            var (first, last) = (elementCount, -1)
            for element in 0..<elementCount where isChosen(element, state) {
                first = min(first, element)
                last = element
            }
            if last >= 0,
                !memory.checkAddresses(
                    offset &+ UInt64(first * elementBytes), bytes: (last - first + 1) * elementBytes)
            {
                return false
            }
        }
        switch kind {
        case .gather: return gather(&state, offset, &memory)
        case .maskedLoad:
            var result = InlineArray<4, UInt64>(repeating: 0)
            for element in 0..<elementCount where isChosen(element, state) {
                guard let value = memory.load(offset &+ UInt64(element * elementBytes), bytes: elementBytes) else {
                    return false
                }
                let shift = UInt64(element * elementBytes % 8 * 8)
                result[element * elementBytes / 8] |= value << shift
            }
            for word in 0..<4 { state.ymm[4 * data + word] = result[word] }
            return true
        case .maskedStore, .byteStore:
            for element in 0..<elementCount where isChosen(element, state) {
                guard memory.probeStore(offset &+ UInt64(element * elementBytes), bytes: elementBytes) else {
                    return false
                }
            }
            for element in 0..<elementCount where isChosen(element, state) {
                let value = self.element(element, of: data, elementBytes, state)
                guard memory.store(offset &+ UInt64(element * elementBytes), value, bytes: elementBytes) else {
                    return false
                }
            }
            if isMMX { enterMMX(&state) }
            return true
        }
    }

    private func element(_ number: Int, of register: Int, _ bytes: Int, _ state: borrowing VCPUState) -> UInt64 {
        let place = number * bytes
        // MM0…7 are the significands of ST0…7 (physically: R0…7, see `run`).
        let word = isMMX ? mmxRegister(register, state) : state.ymm[4 * register + place / 8]
        let shifted = word >> UInt64(place % 8 * 8)
        return bytes == 8 ? shifted : shifted & (1 << UInt64(bytes * 8) &- 1)
    }

    private func isChosen(_ number: Int, _ state: borrowing VCPUState) -> Bool {
        element(number, of: mask, elementBytes, state) >> UInt64(elementBytes * 8 - 1) & 1 != 0
    }

    /// FXSAVE's image is in stack order; MMX registers are the physical ones.
    private func mmxRegister(_ number: Int, _ state: borrowing VCPUState) -> UInt64 {
        let top = Int(state.x87[0] >> 27 & 7)
        return state.x87[4 + 2 * ((number - top) & 7)]
    }

    /// Any MMX instruction: TOP becomes 0, all registers valid (SDM 1, 9.5.1).
    private func enterMMX(_ state: inout VCPUState) {
        let top = Int(state.x87[0] >> 27 & 7)
        let old = state.x87
        for number in 0..<8 {
            let from = 4 + 2 * ((number - top) & 7)
            state.x87[4 + 2 * number] = old[from]
            state.x87[5 + 2 * number] = old[from + 1]
        }
        state.x87[0] = state.x87[0] & ~(7 << 27) | 0xff << 32
    }

    private func gather<Memory: VectorMemory & ~Copyable>(
        _ state: inout VCPUState, _ base: UInt64, _ memory: inout Memory
    ) -> Bool {
        // First every mask element becomes all ones or all zeroes, by its sign.
        for number in 0..<elementCount { setElement(number, of: mask, isChosen(number, state) ? .max : 0, &state) }
        for number in 0..<elementCount where isChosen(number, state) {
            let raw = element(number, of: index, indexBytes, state)
            let signed = indexBytes == 4 ? UInt64(bitPattern: Int64(Int32(truncatingIfNeeded: raw))) : raw
            guard let value = memory.load(base &+ signed &* scale, bytes: elementBytes) else { return false }
            setElement(number, of: data, value, &state)
            setElement(number, of: mask, 0, &state)
        }
        // What lies beyond the elements is zeroed, in both registers.
        for word in (elementCount * elementBytes / 8)..<4 {
            state.ymm[4 * data + word] = 0
            state.ymm[4 * mask + word] = 0
        }
        return true
    }

    private func setElement(_ number: Int, of register: Int, _ value: UInt64, _ state: inout VCPUState) {
        let place = number * elementBytes
        let word = 4 * register + place / 8
        if elementBytes == 8 {
            state.ymm[word] = value
        } else {
            let shift = UInt64(place % 8 * 8)
            state.ymm[word] = state.ymm[word] & ~(0xffff_ffff << shift) | (value & 0xffff_ffff) << shift
        }
    }
}
//:
