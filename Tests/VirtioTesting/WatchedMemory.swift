package import GuestMemory
internal import HostInterface
internal import Synchronization

/// A Guest's RAM whose every byte is a canary: it is filled with a pattern, and
/// what its driver writes is noted, so that any other change is the device's
/// doing, and either allowed or stray. The driver's thread uses it.
package final class WatchedMemory {
    package let memory: GuestMemory
    private let byteCount: Int
    /// RAM as the driver left it.
    private var expected: [UInt8] = []
    /// Where the device may write.
    private var allowed: [Range<Int>] = []

    package init(byteCount: Int) throws {
        self.byteCount = byteCount
        memory = try GuestMemory(byteCount: UInt64(byteCount))
        let page = (0..<4096).map { UInt8(truncatingIfNeeded: $0 &* 167 &+ $0 >> 4 | 1) }
        expected = unsafe [UInt8](unsafeUninitializedCapacity: byteCount) { buffer, count in
            for start in stride(from: 0, to: byteCount, by: page.count) {
                unsafe UnsafeMutableRawBufferPointer(rebasing: UnsafeMutableRawBufferPointer(buffer)[start...])
                    .copyBytes(from: page)
            }
            count = byteCount
        }
        try memory.write(expected, at: GuestPhysicalAddress(0))
    }

    // MARK: The driver's accesses

    package func write(_ bytes: [UInt8], at address: UInt64) throws {
        let target = unsafe try pointer(address, bytes.count)
        unsafe bytes.withUnsafeBytes { bytes in
            guard let source = bytes.baseAddress else { return }
            unsafe target.copyMemory(from: source, byteCount: bytes.count)
        }
        memory.noteWrite(GuestPhysicalAddress(address), bytes.count)
        unsafe expected.withUnsafeMutableBytes {
            unsafe UnsafeMutableRawBufferPointer(rebasing: $0[Int(address)...]).copyBytes(from: bytes)
        }
    }

    package func store<T: FixedWidthInteger & BitwiseCopyable>(_ value: T, at address: UInt64) throws {
        unsafe try pointer(address, MemoryLayout<T>.size).storeBytes(of: value.littleEndian, as: T.self)
        memory.noteWrite(GuestPhysicalAddress(address), MemoryLayout<T>.size)
        note(value.littleEndian, at: address)
    }

    private func note<T: BitwiseCopyable>(_ value: T, at address: UInt64) {
        unsafe expected.withUnsafeMutableBytes {
            unsafe $0.storeBytes(of: value, toByteOffset: Int(address), as: T.self)
        }
    }

    package func load<T: BitwiseCopyable>(at address: UInt64, as type: T.Type) throws -> T {
        unsafe try pointer(address, MemoryLayout<T>.size).loadUnaligned(as: type)
    }

    package func read(_ address: UInt64, count: Int) throws -> [UInt8] {
        let source = unsafe try pointer(address, count)
        return unsafe [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
            if let target = buffer.baseAddress {
                unsafe UnsafeMutableRawPointer(target).copyMemory(from: source, byteCount: count)
            }
            filled = count
        }
    }

    /// A word that both sides use at the same time: an index, a flag, an event.
    package func storeShared(_ value: UInt16, at address: UInt64) throws {
        guard address % 2 == 0 else { return try store(value, at: address) }
        // ORDERING: a driver's write barrier before it moves an index, and in
        // this one's case also the full one after.
        try unsafe shared(address).pointee.store(value, ordering: .sequentiallyConsistent)
        note(value, at: address)
    }

    package func loadShared(at address: UInt64) throws -> UInt16 {
        guard address % 2 == 0 else { return try load(at: address, as: UInt16.self) }
        return try unsafe shared(address).pointee.load(ordering: .sequentiallyConsistent)
    }

    private func shared(_ address: UInt64) throws -> UnsafePointer<Atomic<UInt16>> {
        // SAFETY: the caller has seen to the alignment.
        unsafe UnsafePointer(try pointer(address, 2).assumingMemoryBound(to: Atomic<UInt16>.self))
    }

    /// SAFETY: RAM stays mapped while `memory` lives. The accesses are made in
    /// this module, and not by `GuestMemory`'s generic ones, whose code can be
    /// the standard library's: there no sanitizer sees them.
    private func pointer(_ address: UInt64, _ count: Int) throws -> UnsafeMutableRawPointer {
        guard let pointer = unsafe memory.hostPointer(GuestPhysicalAddress(address), count) else {
            throw GuestMemoryError(address: GuestPhysicalAddress(address), byteCount: count)
        }
        return unsafe pointer
    }

    // MARK: The device's

    /// The device may write here.
    package func allow(_ address: UInt64, _ count: Int) {
        guard memory.contains(GuestPhysicalAddress(address), count) else { return }
        allowed.append(Int(address)..<Int(address) + count)
    }

    /// Takes RAM for what it should be, and allows nothing any more.
    package func acceptAll() throws {
        expected = try read(0, count: byteCount)
        allowed = []
    }

    /// What has been changed without leave. The device is at rest.
    package func strayWrites() throws -> [Range<Int>] {
        var found = try read(0, count: byteCount)
        unsafe found.withUnsafeMutableBytes { found in
            unsafe expected.withUnsafeBytes { expected in
                for range in allowed {
                    unsafe UnsafeMutableRawBufferPointer(rebasing: found[range])
                        .copyBytes(from: UnsafeRawBufferPointer(rebasing: expected[range]))
                }
            }
        }
        if found == expected { return [] }
        var stray: [Range<Int>] = []
        for address in 0..<byteCount where found[address] != expected[address] {
            if let last = stray.last, last.upperBound == address {
                stray[stray.count - 1] = last.lowerBound..<address + 1
            } else {
                stray.append(address..<address + 1)
            }
        }
        return stray
    }
}
