internal import GuestMemory
package import HostInterface

//H:360 In words of 64 bits
//
// The same door, for whoever wants to knock as it was done in 2007: a request
// is a number and what belongs to it, each a word of 64 bits, in one `write`.
// The errors and the order in which they are looked for are part of the
// interface, for a Launcher could depend on either:
//
//      write   EFAULT  the request cannot be read
//              EINVAL  not initialized, and it is not INITIALIZE; no such CPU
//              ENOENT  the Guest is dead
//              EPERM   not the owner, and neither IRQ nor BREAK
//              then the request's own; EINVAL for one that there is not
//      read    EINVAL  not initialized, no such CPU
//              EPERM   not the owner
//              then, of a dead Guest: ERESTART, or the reason in so many bytes;
//              else as `run`
//
// INITIALIZE says EBUSY before it reads anything, even of a dead Guest.

extension LguestGuest {
    /// One request.
    ///
    /// - Parameters:
    ///   - words: the request's number and what belongs to it; more is not looked at.
    ///   - cpu: the file's offset: only 0 is a CPU.
    /// - Returns: what write(2) returns: 32 for INITIALIZE, the buffer's address for GETDMA, else 0.
    /// - Throws: EFAULT if there are too few words; the rest is above.
    package func write(_ words: [UInt64], cpu: UInt64 = 0) throws(Errno) -> Int {
        guard let request = words.first else { throw .badAddress }
        func word(_ index: Int) throws(Errno) -> UInt64 {
            guard index < words.count else { throw .badAddress }
            return words[index]
        }
        if request == LguestRequest.initialize {
            if memory != nil { throw .busy }
            try initialize(
                base: UInt(try word(1)), pageLimit: try word(2), pgdir: try word(3), start: try word(4))
            return 32
        }
        guard memory != nil, cpu == 0 else { throw .invalid }
        if death != nil { throw .notFound }
        if request != LguestRequest.irq, request != LguestRequest.breakOut, !isOwner { throw .notPermitted }
        switch request {
        case LguestRequest.irq:
            try raise(irq: Int(clamping: try word(1)))
        case LguestRequest.breakOut:
            if try word(1) != 0 { try breakOut() } else { try release() }
        case LguestRequest.eventFD:
            try attach(eventFD: Int32(clamping: Int64(bitPattern: try word(2))), to: try word(1))
        case LguestRequest.getDMA:
            return Int(clamping: try freeBuffer(forKey: try word(1), marking: true).address)
        default: throw .invalid
        }
        return 0
    }

    /// Runs the Guest, or tells why it is dead.
    ///
    /// - Returns: what read(2) puts into a buffer of so many bytes: an address, a buffer's address and a key, or a
    ///   reason with a NUL behind it, as much of it as there is room for.
    /// - Throws: EFAULT for a buffer without room; the rest is above.
    package func read(atMost count: Int, cpu: UInt64 = 0) throws(Errno) -> [UInt8] {
        guard memory != nil, cpu == 0 else { throw .invalid }
        guard isOwner else { throw .notPermitted }
        if let death {
            if death == .restart { throw .restart }
            return Array((Array(death.reason.utf8) + [0]).prefix(count))
        }
        let words: [UInt64] =
            switch try run() {
            case .notify(let address): [address]
            case .dma(let buffer, let key): [buffer, key]
            }
        guard count >= 8 * words.count else { throw .badAddress }
        return words.flatMap { word in (0..<8).map { UInt8(truncatingIfNeeded: word >> ($0 * 8)) } }
    }

    /// INITIALIZE with memory that is the Launcher's own.
    ///
    /// - Parameters:
    ///   - base: where guest-physical 0 is in this process, at a multiple of 4096.
    ///   - pageLimit: how many pages there are.
    /// - Throws: EBUSY; EFAULT for what is not all mapped, to be read and written; EINVAL for no memory; ENOMEM.
    private func initialize(base: UInt, pageLimit: UInt64, pgdir: UInt64, start: UInt64) throws(Errno) {
        let (byteCount, overflow) = pageLimit.multipliedReportingOverflow(by: UInt64(GuestMemory.pageSize))
        guard pageLimit > 0, !overflow, base % 4096 == 0 else { throw .invalid }
        let (end, wraps) = base.addingReportingOverflow(UInt(byteCount))
        guard !wraps, let pointer = unsafe UnsafeMutableRawPointer(bitPattern: base) else { throw .badAddress }
        guard let mappings = try? MemoryMapping.inside(base..<end) else { throw .noMemory }
        var place = base
        for mapping in mappings where mapping.isReadable && mapping.isWritable && mapping.addresses.contains(place) {
            place = mapping.addresses.upperBound
        }
        guard place >= end else { throw .badAddress }
        let memory: GuestMemory
        do throws(HostError) { memory = unsafe try GuestMemory(adopting: pointer, byteCount: byteCount) } catch {
            throw error.errno ?? .noMemory
        }
        try initialize(memory: memory, pgdir: pgdir, start: start)
    }
}
//:
