internal import GuestMemory
internal import X86

/// Reads and writes at the linear addresses that a hypercall names, as the
/// kernel that made it sees them. What is not mapped there is EFAULT.
struct GuestArguments {
    let memory: GuestMemory
    let cr3: UInt64

    private func place(_ address: UInt64) -> GuestPhysicalAddress? {
        isCanonical(address) ? LinearMemory.translate(address, cr3: cr3, in: memory) : nil
    }

    /// Goes through the pieces of a range that are in one page each. False: one of them is not there.
    private func walk(
        _ address: UInt64, _ count: Int, _ body: (_ place: GuestPhysicalAddress, _ piece: Range<Int>) -> Bool
    ) -> Bool {
        var done = 0
        while done < count {
            let here = address &+ UInt64(done)
            let piece = min(count - done, 4096 - Int(here & 4095))
            guard let place = place(here), body(place, done..<done + piece) else { return false }
            done += piece
        }
        return true
    }

    func load<T: BitwiseCopyable>(_ address: UInt64, into value: inout T) -> Bool {
        unsafe withUnsafeMutableBytes(of: &value) { unsafe load(address, into: $0) }
    }

    /// As many bytes as there is room for.
    func load(_ address: UInt64, into room: UnsafeMutableRawBufferPointer) -> Bool {
        walk(address, room.count) { place, piece in
            guard let source = unsafe memory.hostPointer(place, piece.count) else { return false }
            // GUEST: copied once, and only the copy is looked at.
            unsafe UnsafeMutableRawBufferPointer(rebasing: room[piece]).copyMemory(
                from: UnsafeRawBufferPointer(start: source, count: piece.count))
            return true
        }
    }

    func store<T: BitwiseCopyable>(_ value: T, at address: UInt64) -> Bool {
        unsafe withUnsafeBytes(of: value) { bytes in
            walk(address, bytes.count) { place, piece in
                guard !memory.isReadOnly(page: place.page) else { return false }
                return (try? unsafe memory.write(UnsafeRawBufferPointer(rebasing: bytes[piece]), at: place)) != nil
            }
        }
    }
}

/// A private copy of a struct of the Guest's, whose fields are known by their
/// offsets: up to 40 bytes, which are as many as any hypercall's argument has.
struct GuestStruct {
    static let most = 40
    private var bytes = InlineArray<40, UInt8>(repeating: 0)
    private let count: Int
    private let address: UInt64
    private let arguments: GuestArguments

    /// Nil: it is not all there.
    init?(_ arguments: GuestArguments, at address: UInt64, count: Int) {
        precondition(count <= Self.most)
        (self.arguments, self.address, self.count) = (arguments, address, count)
        let isThere = unsafe withUnsafeMutableBytes(of: &bytes) { bytes in
            unsafe arguments.load(address, into: UnsafeMutableRawBufferPointer(rebasing: bytes[..<count]))
        }
        guard isThere else { return nil }
    }

    func get<T: FixedWidthInteger & BitwiseCopyable>(_ offset: Int, as type: T.Type = T.self) -> T {
        precondition(offset + MemoryLayout<T>.size <= count)
        return unsafe withUnsafeBytes(of: bytes) { unsafe $0.loadUnaligned(fromByteOffset: offset, as: T.self) }
    }

    /// Puts a result where the Guest will look for it. False: it is not there any more.
    func answer<T: FixedWidthInteger & BitwiseCopyable>(_ value: T, at offset: Int) -> Bool {
        arguments.store(value, at: address &+ UInt64(offset))
    }
}
