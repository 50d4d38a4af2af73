// Shared with the Guest: it imports nothing.

/// The end of a list whose elements know each other by number.
let noElement = UInt32.max

/// Elements in memory that somebody else has provided.
@safe struct GrantSlab<Element: BitwiseCopyable> {
    let count: UInt32
    private let start: UnsafeMutablePointer<Element>

    /// Takes the memory at `next`, which moves on behind it.
    init(at next: inout UnsafeMutableRawPointer, count: UInt32, _ element: Element) {
        self.count = count
        unsafe start = next.bindMemory(to: Element.self, capacity: Int(count))
        unsafe start.initialize(repeating: element, count: Int(count))
        unsafe next += Int(count) * MemoryLayout<Element>.stride
    }

    // SAFETY: the index is checked, and whoever made the slab owns the memory.
    subscript(index: UInt32) -> Element {
        get {
            precondition(index < count)
            return unsafe start[Int(index)]
        }
        nonmutating set {
            precondition(index < count)
            unsafe start[Int(index)] = newValue
        }
    }
}
