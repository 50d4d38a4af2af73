/// Records of instructions that were run one at a time, by physical address.
///
/// They are kept with their bytes, which are compared each time: nobody has
/// to be told when code changes.
@safe final class KnownInstructions {
    @unsafe private struct Entry {
        var key = UInt64.max
        var bytes = SIMD16<UInt8>(repeating: 0)
        /// FF where `bytes` counts.
        var mask = SIMD16<UInt8>(repeating: 0)
    }

    private static let count = 4096
    private let entries: UnsafeMutablePointer<Entry>
    /// Two for each entry: an instruction and what stands behind it.
    private let records: UnsafeMutablePointer<Instruction>

    init() {
        unsafe entries = .allocate(capacity: Self.count)
        unsafe entries.initialize(repeating: Entry(), count: Self.count)
        unsafe records = .allocate(capacity: 2 * Self.count)
    }

    deinit {
        unsafe entries.deallocate()
        unsafe records.deallocate()
    }

    private func index(_ key: UInt64) -> Int {
        Int(truncatingIfNeeded: (key &* 0x9e37_79b9_7f4a_7c15) &>> 40) & (Self.count - 1)
    }

    /// - Parameter code: the sixteen bytes that are there now.
    func find(_ key: UInt64, _ code: SIMD16<UInt8>) -> UnsafeMutablePointer<Instruction>? {
        let index = index(key)
        guard unsafe entries[index].key == key, unsafe code & entries[index].mask == entries[index].bytes else {
            return nil
        }
        return unsafe records + 2 * index
    }

    /// Where the records of this instruction are to be put.
    func enter(_ key: UInt64, _ code: SIMD16<UInt8>, length: Int) -> UnsafeMutablePointer<Instruction> {
        let index = index(key)
        var mask = SIMD16<UInt8>(repeating: 0)
        for byte in 0..<min(length, 16) { mask[byte] = 0xff }
        unsafe entries[index] = unsafe Entry(key: key, bytes: code & mask, mask: mask)
        return unsafe records + 2 * index
    }

    func removeAll() {
        for index in 0..<Self.count { unsafe entries[index].key = .max }
    }
}
