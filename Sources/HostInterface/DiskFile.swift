internal import CHost
internal import Glibc

/// A file or block device that is read and written at offsets, from any thread.
///
/// Nothing here is mapped into memory: a file that shrinks under us makes a
/// read short, where a mapping would raise SIGBUS.
package final class DiskFile: Sendable {
    /// What makes two paths one file.
    package struct Identity: Hashable, Sendable {
        let device: UInt64
        let inode: UInt64

        init(_ status: stat) { (device, inode) = (UInt64(status.st_dev), UInt64(status.st_ino)) }
    }

    package let path: String
    package let isReadOnly: Bool
    package let identity: Identity
    private let file: FileDescriptor

    package var descriptor: Int32 { file.rawValue }

    /// - Throws: with the path and the reason; also for what has no offsets, as a directory or a pipe.
    package init(opening path: String, readOnly: Bool) throws(HostError) {
        // Asked before it is opened: a pipe would keep us waiting for its other end.
        var status = stat()
        guard unsafe stat(path, &status) == 0 else { throw HostError("cannot open \(path)", errno: .current) }
        try Self.refuseOddKinds(status, path)
        do throws(HostError) {
            file = try FileDescriptor.open(path, readOnly ? O_RDONLY : O_RDWR)
        } catch {
            guard !readOnly, let errno = error.errno, errno == .permissionDenied || errno == .readOnly else {
                throw error
            }
            throw HostError(error.summary, errno: errno, advice: "open it with ,ro to only read it")
        }
        guard unsafe fstat(file.rawValue, &status) == 0 else {
            throw HostError("cannot examine \(path)", errno: .current)
        }
        try Self.refuseOddKinds(status, path)
        identity = Identity(status)
        self.path = path
        isReadOnly = readOnly
        if !readOnly { chost_ignore_file_size_signal() }
    }

    /// A new file; one that is there already is refused.
    package init(creating path: String) throws(HostError) {
        do throws(HostError) {
            file = try FileDescriptor.open(path, O_RDWR | O_CREAT | O_EXCL)
        } catch {
            let isThere = error.errno?.rawValue == EEXIST
            throw HostError(
                "cannot create \(path)", errno: error.errno,
                advice: isThere ? "choose another name, or remove that file first" : "")
        }
        var status = stat()
        guard unsafe fstat(file.rawValue, &status) == 0 else {
            throw HostError("cannot examine \(path)", errno: .current)
        }
        identity = Identity(status)
        self.path = path
        isReadOnly = false
        chost_ignore_file_size_signal()
    }

    private static func refuseOddKinds(_ status: stat, _ path: String) throws(HostError) {
        switch status.st_mode & S_IFMT {
        case S_IFREG, S_IFBLK: return
        case S_IFDIR: throw HostError("cannot open \(path): it is a folder, not a disk image")
        default: throw HostError("cannot open \(path): it is neither a file nor a block device")
        }
    }

    package func size() throws(Errno) -> UInt64 {
        let size = chost_file_size(descriptor)
        guard size >= 0 else { throw Errno.current }
        return UInt64(size)
    }

    /// What the file takes of its disk, holes not counted.
    package func allocatedSize() throws(Errno) -> UInt64 {
        var status = stat()
        guard unsafe fstat(descriptor, &status) == 0 else { throw Errno.current }
        return UInt64(status.st_blocks) * 512
    }

    /// Fills the buffer; returns less than its size only at the end of the file.
    private static func read(
        _ descriptor: Int32, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer
    ) throws(Errno) -> Int {
        var filled = 0
        while filled < buffer.count {
            let rest = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[filled...])
            let position = try position(offset, filled)
            let count = unsafe pread(descriptor, rest.baseAddress, rest.count, position)
            if count == 0 { break }
            if count > 0 { filled += count } else if Errno.current != .interrupted { throw Errno.current }
        }
        return filled
    }

    /// At most `limit` bytes of a file that is known by its number only; fewer only at its end.
    package static func read(_ descriptor: Int32, at offset: UInt64, upTo limit: Int) throws(Errno) -> [UInt8] {
        var failure: Errno?
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: limit) { buffer, filled in
            let room = unsafe UnsafeMutableRawBufferPointer(start: buffer.baseAddress, count: limit)
            do throws(Errno) { filled = unsafe try read(descriptor, at: offset, into: room) } catch { failure = error }
        }
        if let failure { throw failure }
        return bytes
    }

    package func read(at offset: UInt64, upTo limit: Int) throws(Errno) -> [UInt8] {
        try Self.read(descriptor, at: offset, upTo: limit)
    }

    /// Exactly `count` bytes; a file that ends before them is an I/O error.
    package func read(at offset: UInt64, count: Int) throws(Errno) -> [UInt8] {
        let bytes = try read(at: offset, upTo: count)
        guard bytes.count == count else { throw .inputOutput }
        return bytes
    }

    /// Writes all of it.
    package func write(_ bytes: some Collection<UInt8>, at offset: UInt64) throws(Errno) {
        let bytes = ContiguousArray(bytes)
        var written = 0
        while written < bytes.count {
            let position = try Self.position(offset, written)
            let count = unsafe bytes.withUnsafeBytes {
                unsafe pwrite(descriptor, $0.baseAddress?.advanced(by: written), $0.count - written, position)
            }
            if count >= 0 { written += count } else if Errno.current != .interrupted { throw Errno.current }
        }
    }

    /// Makes `count` bytes read as zeros, by the cheapest means that the file system has.
    ///
    /// - Parameter unmap: their place on the disk may be given back.
    package func writeZeros(at offset: UInt64, count: UInt64, unmap: Bool) throws(Errno) {
        guard count > 0 else { return }
        if try zeroRange(offset, count, unmap: unmap) { return }
        let block = [UInt8](repeating: 0, count: Int(min(count, 1 << 20)))
        var done: UInt64 = 0
        while done < count {
            let step = min(UInt64(block.count), count - done)
            try write(block.prefix(Int(step)), at: offset + done)
            done += step
        }
    }

    /// Gives `count` bytes back to the disk, which then read as zeros; where that cannot be, nothing happens.
    package func punchHole(at offset: UInt64, count: UInt64) throws(Errno) {
        guard count > 0 else { return }
        _ = try zeroRange(offset, count, unmap: true)
    }

    /// False where the file system cannot.
    private func zeroRange(_ offset: UInt64, _ count: UInt64, unmap: Bool) throws(Errno) -> Bool {
        let (start, length) = (try Self.position(offset, 0), try Self.position(count, 0))
        while chost_zero_range(descriptor, start, length, unmap ? 1 : 0) != 0 {
            switch Errno.current {
            case .interrupted: continue
            case .notSupported, .invalid, Errno(rawValue: ENOSYS), Errno(rawValue: ENODEV): return false
            default: throw Errno.current
            }
        }
        return true
    }

    /// ftruncate(2).
    package func resize(to size: UInt64) throws(Errno) {
        let size = try Self.position(size, 0)
        while ftruncate(descriptor, size) != 0 {
            guard Errno.current == .interrupted else { throw Errno.current }
        }
    }

    /// fdatasync(2): what was written is on the disk when this returns.
    package func synchronize() throws(Errno) {
        while fdatasync(descriptor) != 0 {
            guard Errno.current == .interrupted else { throw Errno.current }
        }
    }

    /// What the kernel can count to.
    private static func position(_ offset: UInt64, _ done: Int) throws(Errno) -> off_t {
        guard let position = off_t(exactly: offset), position <= off_t.max - off_t(done) else { throw .invalid }
        return position + off_t(done)
    }
}
