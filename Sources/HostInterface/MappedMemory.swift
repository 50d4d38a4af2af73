internal import CHost
internal import Glibc

//H:020 One memfd for all of a Guest's memory
//
// lguest's Launcher mapped /dev/zero privately and called that the Guest's
// memory. We take a memfd instead and map it shared, because then memory is a
// thing that can be handed round: two Guests can map the same page, another
// process can serve a device, a snapshot is a copy of a file. The cost is
// one file descriptor.

/// An anonymous file (memfd_create(2)) of a fixed size, to be mapped shared,
/// by this process or by one that it is handed to.
package struct MemoryFile: ~Copyable, Sendable {
    package let descriptor: FileDescriptor
    package let byteCount: Int

    package init(name: String, byteCount: Int) throws(HostError) {
        let number = unsafe chost_memfd_create(name, 1 /* MFD_CLOEXEC */)
        guard number >= 0 else {
            throw HostError("cannot create \(byteCount >> 20) MiB of guest memory", errno: .current)
        }
        guard ftruncate(number, off_t(byteCount)) == 0 else {
            let error = Errno.current
            close(number)
            throw HostError(
                "cannot size \(byteCount >> 20) MiB of memory", errno: error, advice: "use a smaller --memory")
        }
        descriptor = FileDescriptor(owning: number)
        self.byteCount = byteCount
    }
}

/// A range of this process's address space: reserved when made, unmapped when
/// gone. Parts of it get backing by `map`.
@safe package struct AddressRange: ~Copyable, @unchecked Sendable {
    package let base: UnsafeMutableRawPointer
    package let byteCount: Int

    /// Reserves addresses with nothing behind them: any access faults.
    package init(reserving byteCount: Int) throws(HostError) {
        let address = unsafe mmap(nil, byteCount, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        guard let address = unsafe address, unsafe address != MAP_FAILED else {
            throw HostError(
                "cannot reserve \(byteCount >> 20) MiB of address space", errno: .current, advice: "raise `ulimit -v`")
        }
        unsafe base = address
        self.byteCount = byteCount
    }

    /// Zeroed memory of this process's own, given page by page as it is touched.
    package init(allocating byteCount: Int) throws(HostError) {
        let address = unsafe mmap(
            nil, byteCount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        guard let address = unsafe address, unsafe address != MAP_FAILED else {
            throw HostError("cannot allocate \(byteCount >> 20) MiB", errno: .current, advice: "raise `ulimit -v`")
        }
        unsafe base = address
        self.byteCount = byteCount
    }

    deinit { unsafe munmap(base, byteCount) }

    /// Puts `count` bytes of `file` from `fileOffset` at `offset` of the range.
    package func map(
        _ file: borrowing MemoryFile, fileOffset: Int, at offset: Int, count: Int
    ) throws(HostError) {
        try map(descriptor: file.descriptor.rawValue, fileOffset: fileOffset, at: offset, count: count)
    }

    /// The same with a file that is known by its number only.
    package func map(descriptor: Int32, fileOffset: Int, at offset: Int, count: Int) throws(HostError) {
        precondition(offset >= 0 && count <= byteCount - offset)
        let result = unsafe mmap(
            base + offset, count, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, descriptor, off_t(fileOffset))
        guard unsafe result != MAP_FAILED else { throw HostError("cannot map \(count >> 20) MiB", errno: .current) }
    }

    /// A view of the file for one who must not write to it: what is stored
    /// there all the same stays with the one who did.
    package func mapReadOnly(descriptor: Int32, fileOffset: Int, at offset: Int, count: Int) throws(Errno) {
        precondition(offset >= 0 && count <= byteCount - offset)
        let result = unsafe mmap(
            base + offset, count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, descriptor,
            off_t(fileOffset))
        guard unsafe result != MAP_FAILED else { throw Errno.current }
    }

    /// Zeros, of this process's own and nobody else's.
    package func mapZeros(at offset: Int, count: Int) throws(Errno) {
        precondition(offset >= 0 && count <= byteCount - offset)
        let result = unsafe mmap(
            base + offset, count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0
        )
        guard unsafe result != MAP_FAILED else { throw Errno.current }
    }
}

/// An anonymous file mapped twice: once to be written, once to be run. No
/// address is ever both writable and executable, so a stray store cannot
/// become a program. Unmapped when gone.
@safe package struct ExecutableMemory: ~Copyable, @unchecked Sendable {
    /// The side to write to.
    package let writable: UnsafeMutableRawPointer
    /// The side to call.
    package let executable: UnsafeRawPointer
    package let byteCount: Int

    package init(byteCount: Int) throws(HostError) {
        let file = try MemoryFile(name: "roost-code", byteCount: byteCount)
        let number = file.descriptor.rawValue
        let writing = unsafe mmap(nil, byteCount, PROT_READ | PROT_WRITE, MAP_SHARED, number, 0)
        guard let writing = unsafe writing, unsafe writing != MAP_FAILED else {
            throw HostError("cannot map \(byteCount >> 20) MiB for generated code", errno: .current)
        }
        let running = unsafe mmap(nil, byteCount, PROT_READ | PROT_EXEC, MAP_SHARED, number, 0)
        guard let running = unsafe running, unsafe running != MAP_FAILED else {
            let error = Errno.current
            unsafe munmap(writing, byteCount)
            throw HostError(
                "cannot map generated code executable", errno: error, advice: "is memfd mounted noexec here?")
        }
        unsafe writable = writing
        unsafe executable = UnsafeRawPointer(running)
        self.byteCount = byteCount
    }

    deinit {
        unsafe munmap(writable, byteCount)
        unsafe munmap(UnsafeMutableRawPointer(mutating: executable), byteCount)
    }
}
//:
