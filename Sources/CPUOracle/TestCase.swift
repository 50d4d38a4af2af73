internal import COracle

//M:100 A judge who cannot be wrong
//
// An engine is right when a program cannot tell it from a CPU. So we ask a
// CPU, the one that we run on: the same instruction, in the same state, once
// natively and once on the engine; then registers, flags, memory and fault
// must agree. A manual can be misread. The silicon is what guests were
// tested on.
//
// A case is one instruction, or a sequence of them, at some place in the code
// pages, all else there being INT3. Wherever the instruction leads, the next thing that happens is
// a trap, and the trap's state is the outcome.

/// Where a case may have memory. Everything in between is unmapped.
package enum OracleLayout {
    package static let pageSize: UInt64 = 4096
    /// Readable and executable.
    package static let code = UInt64(ORACLE_CODE)..<UInt64(ORACLE_CODE) + UInt64(ORACLE_CODE_PAGES) * pageSize
    /// Readable and writable, not executable.
    package static let data = UInt64(ORACLE_DATA)..<UInt64(ORACLE_DATA) + UInt64(ORACLE_RW_PAGES) * pageSize
    package static let stack = UInt64(ORACLE_STACK)..<UInt64(ORACLE_STACK) + UInt64(ORACLE_RW_PAGES) * pageSize
    /// Readable.
    package static let rom = UInt64(ORACLE_ROM)..<UInt64(ORACLE_ROM) + UInt64(ORACLE_ROM_PAGES) * pageSize

    package static let imageBytes = UInt64(ORACLE_IMAGE_PAGES) * pageSize

    /// Where an address is in the image that the data, stack and ROM pages make up, in this order.
    package static func imageOffset(_ address: UInt64) -> Int? {
        let offset = oracle_image_offset(address)
        return offset < 0 ? nil : Int(offset)
    }
}

/// Bytes that a case wants in data or stack pages, over the image all cases share.
package struct MemoryPatch: BitwiseCopyable, Sendable {
    package var address: UInt64 = 0
    /// At most 64.
    package var count: UInt64 = 0
    package var bytes = InlineArray<8, UInt64>(repeating: 0)
    package init() {}
}

/// One instruction, or a sequence, and the state it starts in. Laid out as `struct oracle_case`.
package struct TestCase: BitwiseCopyable, Sendable {
    package var gpr = InlineArray<16, UInt64>(repeating: 0)
    package var rip = OracleLayout.code.lowerBound
    /// Arithmetic flags, DF and AC; IF is always set.
    package var rflags: UInt64 = 0x202
    package var ymm = InlineArray<64, UInt64>(repeating: 0)
    /// Bytes 0…159 of what FXSAVE64 writes: x87, and MXCSR at byte 24.
    package var fxsave = InlineArray<20, UInt64>(repeating: 0)
    package var code = InlineArray<32, UInt64>(repeating: 0)
    package var codeCount: UInt64 = 0
    package var patchCount: UInt64 = 0
    package var patches = InlineArray<4, MemoryPatch>(repeating: MemoryPatch())

    /// Bytes of code that a case has room for.
    package static let maximumCode = Int(ORACLE_CODE_WORDS) * 8

    package init() {
        fxsave[0] = 0x37f  // FCW: FNINIT's
        fxsave[3] = 0x1f80
    }

    package init(code bytes: [UInt8]) {
        self.init()
        setCode(bytes)
    }

    package mutating func setCode(_ bytes: [UInt8]) {
        precondition(bytes.count <= Self.maximumCode)
        for word in 0..<(max(bytes.count, Int(codeCount)) + 7) / 8 { code[word] = 0 }
        for (index, byte) in bytes.enumerated() { code[index / 8] |= UInt64(byte) << (index % 8 * 8) }
        codeCount = UInt64(bytes.count)
    }

    /// Other bytes in the middle of the code.
    package mutating func overwriteCode(_ bytes: [UInt8], at offset: Int) {
        precondition(offset >= 0 && offset + bytes.count <= Int(codeCount))
        for (index, byte) in bytes.enumerated() {
            let place = offset + index, shift = UInt64(place % 8 * 8)
            code[place / 8] = code[place / 8] & ~(0xff << shift) | UInt64(byte) << shift
        }
    }

    package var codeBytes: [UInt8] {
        (0..<Int(codeCount)).map { UInt8(truncatingIfNeeded: code[$0 / 8] >> ($0 % 8 * 8)) }
    }

    package var mxcsr: UInt32 {
        get { UInt32(truncatingIfNeeded: fxsave[3]) }
        set { fxsave[3] = UInt64(newValue) }
    }

    /// - Parameter address: such that all bytes lie in data or all in stack pages.
    package mutating func patch(_ address: UInt64, _ bytes: [UInt8]) {
        precondition(patchCount < 4 && bytes.count <= 64)
        var patch = MemoryPatch()
        patch.address = address
        patch.count = UInt64(bytes.count)
        for (index, byte) in bytes.enumerated() { patch.bytes[index / 8] |= UInt64(byte) << (index % 8 * 8) }
        patches[Int(patchCount)] = patch
        patchCount += 1
    }
}

/// An aligned word that is not what it was.
package struct MemoryChange: BitwiseCopyable, Equatable, Sendable {
    package var address: UInt64 = 0
    package var value: UInt64 = 0
    package init() {}
}

/// What became of a case. Laid out as `struct oracle_outcome`.
package struct Outcome: BitwiseCopyable, Sendable {
    package var gpr = InlineArray<16, UInt64>(repeating: 0)
    package var rip: UInt64 = 0
    package var rflags: UInt64 = 0
    package var ymm = InlineArray<64, UInt64>(repeating: 0)
    package var fxsave = InlineArray<20, UInt64>(repeating: 0)
    /// The exception's, that of INT3 if there was no other; or `timedOut`, or `died`.
    package var vector: UInt64 = 0
    package var errorCode: UInt64 = 0
    /// The address, where the vector is that of a page fault.
    package var cr2: UInt64 = 0
    /// Words changed against the image with the case's patches. Counts and digests even what `changes` has no room for.
    package var changeCount: UInt64 = 0
    package var changeDigest: UInt64 = 0
    package var changes = InlineArray<96, MemoryChange>(repeating: MemoryChange())

    package init() {}

    /// In place of a vector: still running after seconds.
    package static let timedOut = UInt64(ORACLE_TIMED_OUT)
    /// In place of a vector: took the process with it.
    package static let died = UInt64(ORACLE_DIED)

    package var mxcsr: UInt32 { UInt32(truncatingIfNeeded: fxsave[3]) }
    /// Which physical register ST0 is.
    package var top: Int { Int(fxsave[0] >> 27 & 7) }

    /// Notes the words in which `after` is not `before`, a stretch of memory from `address` on.
    package mutating func noteChanges(
        before: UnsafeRawPointer, after: UnsafeRawPointer, bytes: Int, address: UInt64
    ) {
        unsafe withUnsafeMutableBytes(of: &self) { raw in
            unsafe oracle_collect(
                raw.baseAddress!.assumingMemoryBound(to: oracle_outcome.self),
                before.assumingMemoryBound(to: UInt64.self), after.assumingMemoryBound(to: UInt64.self),
                UInt64(bytes / 8), address)
        }
    }
}

/// Whatever can run a case: an engine with a Guest set up as the layout says, or the host.
package protocol EngineUnderTest {
    func run(_ test: TestCase) -> Outcome
}
//:
