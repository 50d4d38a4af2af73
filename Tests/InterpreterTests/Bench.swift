import CHost
import CZydis
import HostInterface
import Interpreter
import VirtualCPU

/// One decoder, one thunk cache, one state and 256 bytes of memory to try thunks on.
@safe final class Bench {
    let cache: ThunkCache
    let state: UnsafeMutablePointer<VCPUState>
    let memory: UnsafeMutableRawPointer
    let operands: UnsafeMutablePointer<ZydisDecodedOperand>
    let instruction: UnsafeMutablePointer<ZydisDecodedInstruction>
    private var decoders: [ZydisDecoder] = []
    static let operandOffset = 64

    init() throws {
        cache = try ThunkCache()
        unsafe state = .allocate(capacity: 1)
        unsafe state.initialize(to: VCPUState())
        unsafe memory = .allocate(byteCount: 512, alignment: 64)
        unsafe memory.initializeMemory(as: UInt8.self, repeating: 0xcc, count: 512)
        unsafe operands = .allocate(capacity: Int(ZYDIS_MAX_OPERAND_COUNT))
        unsafe instruction = .allocate(capacity: 1)
        for (mode, width) in [
            (ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16), (ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32),
            (ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64),
        ] {
            var decoder = ZydisDecoder()
            unsafe ZydisDecoderInit(&decoder, mode, width)
            decoders.append(decoder)
        }
    }

    deinit {
        unsafe state.deinitialize(count: 1)
        unsafe state.deallocate()
        unsafe memory.deallocate()
        unsafe operands.deallocate()
        unsafe instruction.deallocate()
    }

    var operand: UnsafeMutableRawPointer { unsafe memory + Self.operandOffset }

    func decode(_ bytes: [UInt8], bits: Int = 64) -> Bool {
        let status = unsafe bytes.withUnsafeBytes { buffer in
            unsafe ZydisDecoderDecodeFull(
                &decoders[bits == 16 ? 0 : bits == 32 ? 1 : 2], buffer.baseAddress, ZyanUSize(buffer.count),
                instruction, operands)
        }
        return status & 0x8000_0000 == 0
    }

    func thunk(_ bytes: [UInt8], bits: Int = 64) -> Thunk? {
        guard decode(bytes, bits: bits) else { return nil }
        return unsafe bytes.withUnsafeBufferPointer { buffer in
            guard let base = buffer.baseAddress else { return nil }
            return unsafe cache.thunk(for: instruction, operands: operands, bytes: base)
        }
    }

    /// Runs; nil if there is no thunk.
    @discardableResult func run(_ bytes: [UInt8], bits: Int = 64) -> Bool? {
        guard let thunk = thunk(bytes, bits: bits) else { return nil }
        defer { chost_set_mxcsr(0x1f80) }
        return unsafe thunk.run(state, memory: operand, rip: 0x1122_3344, address: 0x5566_7788)
    }

    subscript(gpr number: Int) -> UInt64 {
        get { unsafe state.pointee.gpr[number] }
        set { unsafe state.pointee.gpr[number] = newValue }
    }
    subscript(vector number: Int, word word: Int) -> UInt64 {
        get { unsafe state.pointee.ymm[number * 4 + word] }
        set { unsafe state.pointee.ymm[number * 4 + word] = newValue }
    }
    /// ST(n)'s significand, or an MMX register while TOP is 0.
    subscript(st number: Int) -> UInt64 {
        get { unsafe state.pointee.x87[4 + 2 * number] }
        set { unsafe state.pointee.x87[4 + 2 * number] = newValue }
    }
    var flags: UInt64 {
        get { unsafe state.pointee.rflags }
        set { unsafe state.pointee.rflags = newValue }
    }
    var mxcsr: UInt32 {
        get { unsafe state.pointee.mxcsr }
        set { unsafe state.pointee.mxcsr = newValue }
    }
    func store(_ values: UInt64...) {
        for (index, value) in values.enumerated() {
            unsafe operand.storeBytes(of: value, toByteOffset: 8 * index, as: UInt64.self)
        }
    }
    func load(_ index: Int = 0) -> UInt64 { unsafe operand.load(fromByteOffset: 8 * index, as: UInt64.self) }
}

/// A small random generator, the same on every host (splitmix64).
struct Random {
    var seed: UInt64
    mutating func next() -> UInt64 {
        seed &+= 0x9e37_79b9_7f4a_7c15
        var value = seed
        value = (value ^ value >> 30) &* 0xbf58_476d_1ce4_e5b9
        value = (value ^ value >> 27) &* 0x94d0_49bb_1331_11eb
        return value ^ value >> 31
    }
    mutating func below(_ limit: Int) -> Int { Int(next() % UInt64(limit)) }
    mutating func byte() -> UInt8 { UInt8(truncatingIfNeeded: next() >> 24) }
}
