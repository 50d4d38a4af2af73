internal import HostInterface

//S:330 Where generated code lives
//
// Code is only ever added. When the buffer is full, everything goes at once:
// finding the one thunk that nobody needs any more would cost more than
// making the few thousand that are needed again, at a microsecond or two each.

/// Memory for generated code, filled from front to end.
final class CodeBuffer {
    private let memory: ExecutableMemory
    private(set) var used = 0
    /// No thunk is longer.
    static let longestThunk = 1024

    init(byteCount: Int) throws(HostError) { memory = try ExecutableMemory(byteCount: byteCount) }

    var isFull: Bool { used > memory.byteCount - Self.longestThunk }

    /// Forgets all code; the caller sees to it that none is called any more.
    func removeAll() { used = 0 }

    /// Adds code at the next multiple of 16.
    func append(_ assembler: borrowing Assembler) -> UnsafeRawPointer {
        precondition(!isFull && assembler.count <= Self.longestThunk)
        let start = used
        unsafe assembler.copy(to: memory.writable + start)
        used = (start + assembler.count + 15) & ~15
        return unsafe memory.executable + start
    }
}
//:
