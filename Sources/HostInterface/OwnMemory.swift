internal import CHost

/// This process's own memory, at addresses that somebody else has named: what
/// is not there is an error and no signal (process_vm_readv(2)).
package enum OwnMemory {
    /// - Throws: EFAULT.
    package static func read(_ address: UnsafeRawPointer?, words count: Int) throws(Errno) -> [UInt64] {
        guard count > 0 else { return [] }
        guard let address = unsafe address else { throw .badAddress }
        var words = [UInt64](repeating: 0, count: count)
        let copied = unsafe words.withUnsafeMutableBytes { target in
            unsafe chost_copy_own(target.baseAddress, UnsafeMutableRawPointer(mutating: address), target.count, 0)
        }
        guard copied == count * 8 else { throw .badAddress }
        return words
    }

    /// - Throws: EFAULT.
    package static func write(_ bytes: [UInt8], to address: UnsafeMutableRawPointer?) throws(Errno) {
        guard !bytes.isEmpty else { return }
        guard let address = unsafe address else { throw .badAddress }
        let copied = unsafe bytes.withUnsafeBytes { source in
            unsafe chost_copy_own(UnsafeMutableRawPointer(mutating: source.baseAddress), address, source.count, 1)
        }
        guard copied == bytes.count else { throw .badAddress }
    }
}
