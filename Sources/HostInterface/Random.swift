internal import CHost

/// Fills all of `buffer` from getrandom(2). Blocks only in the first seconds of a host's life.
package func fillRandom(_ buffer: UnsafeMutableRawBufferPointer) throws(Errno) {
    var filled = 0
    while filled < buffer.count {
        let count = unsafe chost_getrandom(buffer.baseAddress.map { unsafe $0 + filled }, buffer.count - filled)
        if count >= 0 { filled += count } else if Errno.current != .interrupted { throw Errno.current }
    }
}
