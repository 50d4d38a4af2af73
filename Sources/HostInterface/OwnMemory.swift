internal import CHost

/// This process's own memory, at addresses that somebody else has named: what
/// is not there is an error and no signal (process_vm_readv(2)).
package enum OwnMemory {
    /// As many of `count` words, from the first on, as can be read.
    package static func read(_ address: UnsafeRawPointer?, words count: Int) -> [UInt64] {
        guard let address = unsafe address else { return [] }
        var words: [UInt64] = []
        for index in 0..<count {
            var word: UInt64 = 0
            let place = unsafe UnsafeMutableRawPointer(mutating: address + 8 * index)
            guard unsafe chost_copy_own(&word, place, 8, 0) == 8 else { break }
            words.append(word)
        }
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
