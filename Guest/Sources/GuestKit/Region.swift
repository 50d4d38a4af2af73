internal import Synchronization

/// Bytes of the Guest's memory, and the bounds that every access is held to.
/// All memory is mapped to itself, so an address is physical and virtual at once.
@safe public struct Region: Sendable {
    /// Of the first byte.
    public let address: UInt64
    /// Of bytes.
    public let count: Int

    /// The caller knows that nobody else uses these bytes as something else.
    public init(address: UInt64, count: Int) {
        self.address = address
        self.count = count
    }

    /// `length` bytes from `offset` on. Traps if they are not all inside.
    public func part(_ offset: Int, _ length: Int) -> Region {
        check(offset, length)
        return Region(address: address &+ UInt64(offset), count: length)
    }

    /// The first `length` bytes.
    public func prefix(_ length: Int) -> Region { part(0, length) }

    /// The value at `offset`, which need not be aligned.
    public func load<Value: BitwiseCopyable>(_ offset: Int, as type: Value.Type = Value.self) -> Value {
        check(offset, MemoryLayout<Value>.size)
        return unsafe pointer(offset).loadUnaligned(as: type)
    }

    /// Puts the value to `offset`, which need not be aligned.
    public func store<Value: BitwiseCopyable>(_ value: Value, at offset: Int) {
        check(offset, MemoryLayout<Value>.size)
        unsafe pointer(offset).storeBytes(of: value, as: Value.self)
    }

    /// The byte at `offset`.
    public subscript(offset: Int) -> UInt8 {
        get { load(offset) }
        nonmutating set { store(newValue, at: offset) }
    }

    /// Sets each byte.
    public func fill(_ byte: UInt8 = 0) {
        guard count > 0 else { return }
        unsafe pointer(0).initializeMemory(as: UInt8.self, repeating: byte, count: count)
    }

    /// Copies as much as both have room for, and says how much that is.
    @discardableResult public func copy(from source: Region) -> Int {
        let length = min(count, source.count)
        if length > 0 { unsafe pointer(0).copyMemory(from: source.pointer(0), byteCount: length) }
        return length
    }

    /// What the Host changes on other CPUs while we look. `offset` is a multiple of the value's size.
    func loadAcquiring(_ offset: Int) -> UInt16 {
        check(offset, 2)
        return unsafe pointer(offset).assumingMemoryBound(to: Atomic<UInt16>.self).pointee.load(ordering: .acquiring)
    }

    func storeReleasing(_ value: UInt16, at offset: Int) {
        check(offset, 2)
        unsafe pointer(offset).assumingMemoryBound(to: Atomic<UInt16>.self).pointee.store(value, ordering: .releasing)
    }

    /// What another CPU may change while we look: whoever sees the value sees what was stored before it, too.
    /// `offset` is a multiple of 4.
    public func loadAcquiringWord(_ offset: Int) -> UInt32 {
        check(offset, 4)
        return unsafe pointer(offset).assumingMemoryBound(to: Atomic<UInt32>.self).pointee.load(ordering: .acquiring)
    }

    /// Puts the value there once everything that was stored before can be seen. `offset` is a multiple of 4.
    public func storeReleasingWord(_ value: UInt32, at offset: Int) {
        check(offset, 4)
        unsafe pointer(offset).assumingMemoryBound(to: Atomic<UInt32>.self).pointee.store(value, ordering: .releasing)
    }

    /// Puts another value there, and says what was there before. Nothing comes in between, and no load or store
    /// passes it. `offset` is a multiple of 4.
    @discardableResult public func exchangeWord(_ value: UInt32, at offset: Int) -> UInt32 {
        check(offset, 4)
        return unsafe pointer(offset).assumingMemoryBound(to: Atomic<UInt32>.self).pointee.exchange(
            value, ordering: .sequentiallyConsistent)
    }

    func loadAcquiringBits(_ offset: Int) -> UInt64 {
        check(offset, 8)
        return unsafe pointer(offset).assumingMemoryBound(to: Atomic<UInt64>.self).pointee.load(ordering: .acquiring)
    }

    /// Clears these bits, and says what was there before.
    @discardableResult func clearBits(_ bits: UInt64, at offset: Int) -> UInt64 {
        check(offset, 8)
        return unsafe pointer(offset).assumingMemoryBound(to: Atomic<UInt64>.self).pointee.bitwiseAnd(
            ~bits, ordering: .sequentiallyConsistent
        ).oldValue
    }

    /// Sets these bits.
    func setBits(_ bits: UInt64, at offset: Int) {
        check(offset, 8)
        unsafe pointer(offset).assumingMemoryBound(to: Atomic<UInt64>.self).pointee.bitwiseOr(
            bits, ordering: .sequentiallyConsistent)
    }

    /// A store that nothing passes, in either direction.
    func storeByteInOrder(_ value: UInt8, at offset: Int) {
        check(offset, 1)
        unsafe pointer(offset).assumingMemoryBound(to: Atomic<UInt8>.self).pointee.store(
            value, ordering: .sequentiallyConsistent)
    }

    // SAFETY: each caller has checked its bytes; whoever made the region answers for the rest.
    private func pointer(_ offset: Int) -> UnsafeMutableRawPointer {
        unsafe UnsafeMutableRawPointer(bitPattern: UInt(address) &+ UInt(offset)).unsafelyUnwrapped
    }

    private func check(_ offset: Int, _ length: Int) {
        precondition(offset >= 0 && length >= 0 && length <= count && offset <= count - length)
    }
}

extension Region {
    /// For code that is shared with the Host, which has its own bounds.
    var bytes: UnsafeMutableRawBufferPointer {
        unsafe UnsafeMutableRawBufferPointer(
            start: UnsafeMutableRawPointer(bitPattern: UInt(address)), count: count)
    }

    /// The bytes of a literal, which are the program's own.
    public init(_ text: StaticString) {
        self.init(
            address: unsafe UInt64(UInt(bitPattern: text.utf8Start)), count: text.utf8CodeUnitCount)
    }
}
