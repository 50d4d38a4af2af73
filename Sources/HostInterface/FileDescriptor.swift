internal import CHost
internal import Glibc

/// A file descriptor that closes itself. Moves, never copies: whoever holds
/// it owns it.
package struct FileDescriptor: ~Copyable, Sendable {
    package let rawValue: Int32

    package init(owning rawValue: Int32) { self.rawValue = rawValue }

    deinit { _ = close(rawValue) }

    /// Gives the number up without closing it.
    package consuming func release() -> Int32 {
        let number = rawValue
        discard self
        return number
    }

    /// Opens `path` as open(2) does, with O_CLOEXEC.
    package static func open(_ path: String, _ flags: Int32, mode: UInt32 = 0o644) throws(HostError) -> FileDescriptor {
        while true {
            let number = unsafe chost_open(path, flags | O_CLOEXEC, mode)
            if number >= 0 { return FileDescriptor(owning: number) }
            let error = Errno.current
            if error != .interrupted { throw HostError("cannot open \(path)", errno: error) }
        }
    }

    /// Reads once; returns fewer bytes at the end of the file, 0 past it.
    package func read(into buffer: UnsafeMutableRawBufferPointer) throws(Errno) -> Int {
        while true {
            let count = unsafe Glibc.read(rawValue, buffer.baseAddress, buffer.count)
            if count >= 0 { return count }
            if Errno.current != .interrupted { throw Errno.current }
        }
    }

    /// Writes all of it.
    package func write(_ buffer: UnsafeRawBufferPointer) throws(Errno) {
        var rest = unsafe buffer
        while rest.count > 0 {
            let count = unsafe Glibc.write(rawValue, rest.baseAddress, rest.count)
            if count >= 0 {
                unsafe rest = UnsafeRawBufferPointer(rebasing: rest[count...])
            } else if Errno.current != .interrupted {
                throw Errno.current
            }
        }
    }

    package func write(_ bytes: [UInt8]) throws(Errno) {
        let result: Result<Void, Errno> = unsafe bytes.withUnsafeBytes { buffer in
            do throws(Errno) { return .success(unsafe try write(buffer)) } catch { return .failure(error) }
        }
        try result.get()
    }
}

/// The whole of a file, in memory.
///
/// - Throws: with the path and the reason; a directory or a device is refused
///   as "not a regular file", and so is a file above `limit` bytes.
package func readFile(_ path: String, limit: Int = 4 << 30) throws(HostError) -> [UInt8] {
    let file = try FileDescriptor.open(path, O_RDONLY)
    var status = stat()
    guard unsafe fstat(file.rawValue, &status) == 0 else { throw HostError("cannot examine \(path)", errno: .current) }
    guard status.st_mode & S_IFMT == S_IFREG else { throw HostError("cannot read \(path): not a regular file") }
    guard status.st_size <= limit else { throw HostError("cannot read \(path): larger than \(limit >> 20) MiB") }
    let size = Int(status.st_size)
    var failure: Errno?
    let bytes = unsafe [UInt8](unsafeUninitializedCapacity: size) { buffer, filled in
        do throws(Errno) {
            while filled < size {
                let rest = unsafe UnsafeMutableRawBufferPointer(
                    rebasing: UnsafeMutableRawBufferPointer(buffer)[filled...])
                let count = unsafe try file.read(into: rest)
                if count == 0 { break }
                filled += count
            }
        } catch { failure = error }
    }
    if let failure { throw HostError("cannot read \(path)", errno: failure) }
    return bytes
}

/// The whole of a file that does not know its size: one of /proc.
package func readProcFile(_ path: String) throws(HostError) -> [UInt8] {
    let file = try FileDescriptor.open(path, O_RDONLY)
    var bytes: [UInt8] = []
    while true {
        var failure: Errno?
        let piece = unsafe [UInt8](unsafeUninitializedCapacity: 1 << 16) { buffer, filled in
            do throws(Errno) {
                filled = unsafe try file.read(into: UnsafeMutableRawBufferPointer(buffer))
            } catch { failure = error }
        }
        if let failure { throw HostError("cannot read \(path)", errno: failure) }
        if piece.isEmpty { return bytes }
        bytes += piece
    }
}
