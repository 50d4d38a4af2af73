/// A set of interrupt vectors: IRR, ISR or TMR, eight words of 32.
struct VectorSet {
    private var words = InlineArray<8, UInt32>(repeating: 0)

    /// As the registers show it.
    subscript(word index: Int) -> UInt32 { words[index & 7] }

    func contains(_ vector: UInt8) -> Bool { words[Int(vector >> 5)] >> UInt32(vector & 31) & 1 != 0 }
    mutating func insert(_ vector: UInt8) { words[Int(vector >> 5)] |= 1 << UInt32(vector & 31) }
    mutating func remove(_ vector: UInt8) { words[Int(vector >> 5)] &= ~(1 << UInt32(vector & 31)) }

    /// The one of highest priority.
    var highest: UInt8? {
        var index = 7
        while index >= 0 {
            if words[index] != 0 { return UInt8(index * 32 + 31 - words[index].leadingZeroBitCount) }
            index -= 1
        }
        return nil
    }
}
